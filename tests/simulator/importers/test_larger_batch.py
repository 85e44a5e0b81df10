"""One trace of a module tells the step at a larger batch as a trace there does, or says nothing."""

import pytest

torch = pytest.importorskip("torch")

import roofcast.simulator.importers.torch_module as torch_module  # noqa: E402
from roofcast import hwdb  # noqa: E402
from roofcast.simulator.forecast import chain  # noqa: E402
from roofcast.simulator.forecast.scenario import Scenario  # noqa: E402
from roofcast.simulator.importers import arguments, from_torch, spec  # noqa: E402
from roofcast.simulator.importers.larger_batch import TIMES  # noqa: E402
from roofcast.simulator.importers.torch_step import Conditions, trace  # noqa: E402
from roofcast.simulator.work.precision import precision  # noqa: E402
from roofcast.simulator.work.tape import Tape  # noqa: E402

from . import torch_layers as layered  # noqa: E402
from .torch_nets import NETS  # noqa: E402

nn = torch.nn
TOLD = (  # nets whose every op has a rule: conv nets, attention, LSTM, views of batch x tokens
    "mlp with dropout", "shared weights", "convolutions", "inverted residual", "channels last",
    "grouped convolutions", "convolution 3d", "u-net", "generator", "lstm",
    "bidirectional lstm of two layers", "gru", "attention", "causal attention",
    "attention with a bool mask", "grouped-query attention", "composed attention",
    "transformer encoder", "mixture of experts", "in place", "checkpointed", "one branch twice",
    "tensors that are no parameters",
)  # fmt: skip


class Tokens(nn.Module):
    """Views of batch x tokens, and a token for the class in front."""

    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Linear(8, 8), nn.Linear(8, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))

    def forward(self, x):
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        b, t, d = x.shape
        y = self.a(x.reshape(b * t, d)).view(b, t, 2, d // 2).transpose(1, 2).flatten(2)
        return self.head(y.reshape(b, t, d)[:, 0])


class Lengths(nn.Module):
    """A branch on the batch."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(8, 8)

    def forward(self, x):
        return self.a(self.a(x)) if x.shape[0] > 6 else self.a(x)


class Counted(Lengths):
    """As many layers as samples."""

    def forward(self, x):
        for _ in range(x.shape[0]):
            x = self.a(x)
        return x


class Halves(Lengths):
    """The two halves of a batch meet."""

    def forward(self, x):
        a, b = x.chunk(2)
        return self.a(a * b)


class Mixed(Lengths):
    """A shape that is 8 whatever the batch is."""

    def forward(self, x):
        return self.a(x.view(8, -1, 8)).sum(0)


class Length(Lengths):
    """A branch on the length."""

    def forward(self, x):
        return self.a(x) if len(x) < 5 else self.a(self.a(x))


class Scores(Lengths):
    """Each sample against each other."""

    def forward(self, x):
        y = self.a(x)
        return y @ y.t()


class Rows(Lengths):
    """Sample by sample."""

    def forward(self, x):
        return torch.stack([self.a(row) for row in x])


def both(module, inputs, training=True, gpu=True):
    """The record at the larger batch that one trace tells, and that of a trace there."""
    reading = arguments.readings(module, arguments.given(inputs, module))[0]
    batch = spec.axes(reading.inputs).batch
    low = "bf16" if gpu else None
    at = Conditions(tuple(reading.inputs), training, "fp32", "fp32", low, "flash", batch)
    told = trace(module, at, "net", gpu).larger
    larger = spec.resized(reading.inputs, TIMES * batch, None)
    return told, trace(module, at._replace(inputs=larger, batch=None), "net", gpu).record


def written(record):
    """Everything in a record, with its storages numbered in the order of their use."""
    numbers = {}

    def value(v):
        own = numbers.setdefault(v.storage, len(numbers))
        return v.shape, v.size, v.dtype, own, v.grad, v.kind, v.held, v.bytes

    inputs = [value(v) for v in record.inputs]
    launches = [
        (*k[:7], k.after, [value(v) for v in (*k.inputs, *k.outputs)]) for k in record.launches
    ]
    kept = [(*k[:3], numbers.setdefault(k.storage, len(numbers))) for k in record.kept]
    return [record.nodes, record.weights, inputs, launches, kept]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_one_trace_tells_the_step_at_a_larger_batch_or_says_nothing(name, training):
    make, inputs = NETS[name]
    told, traced = both(make(), inputs, training)
    assert told is not None or name not in TOLD
    assert told is None or written(told) == written(traced)


@pytest.mark.parametrize("gpu", [True, False], ids=["gpu", "cpu"])
def test_views_of_batch_and_tokens_are_followed(gpu):
    told, traced = both(Tokens(), ["4x6x8"], gpu=gpu)
    assert told is not None and written(told) == written(traced)


def test_an_axis_as_long_as_the_batch_is_not_taken_for_it():
    told, traced = both(Tokens(), ["8x8x8"])  # batch, tokens and width
    assert told is None or written(told) == written(traced)


@pytest.mark.parametrize("make", [Lengths, Counted, Halves, Mixed, Length, Rows])
def test_a_module_that_may_do_something_else_at_another_batch_is_traced_again(make):
    told, _ = both(make(), ["4x8"] if make is not Mixed else ["8x8"])
    assert told is None


@pytest.mark.parametrize(
    ("make", "inputs", "traces"),
    [
        (layered.linears, ("4x32",), 1),
        (layered.Gpt, ("2x32:int64",), 1),
        (Tokens, ("4x6x8",), 1),
        (Counted, ("4x8",), 9),
        (Scores, ("4x8",), 4),
    ],
)
def test_the_largest_batch_is_that_of_traces_at_each_batch(make, inputs, traces, monkeypatch):
    traced = []
    run = torch_module.trace
    counting = lambda *args: traced.append(1) or run(*args)  # noqa: E731
    monkeypatch.setattr(torch_module, "trace", counting)
    small = hwdb.device("rtx-3090", {"memory.capacity": "0.705 GB"})
    monkeypatch.setattr("roofcast.simulator.forecast.resolve.as_set", lambda *args: small)
    model = from_torch(make(), inputs)
    scenario = Scenario(model=model, inputs=(), device="rtx-3090")
    found = chain.largest_batch(scenario)
    assert len(traced) <= traces
    slow = Scenario(model=model._replace(quick=None), inputs=(), device="rtx-3090")
    assert chain.largest_batch(slow) == found


@pytest.mark.parametrize("name", ["channels last", "composed attention", "in place", "u-net"])
def test_a_step_of_an_odd_batch_keeps_what_its_trace_keeps(name):
    make, inputs = NETS[name]
    model, kept = from_torch(make(), inputs), []
    for program in (model.quick, model.program):
        tape = Tape(precision("bf16"), training=True)
        program(tape, 7, model.size)
        kept.append(sorted((s.node, s.bytes, s.count, s.kind) for s in tape.saved.values()))
    assert kept[0] == kept[1]


def test_a_loop_over_the_samples_is_not_traced_at_large_batches():
    """It would be traced for minutes; the step itself and its memory are told."""

    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 64)

        def forward(self, x):
            return sum(row for row in self.layer(x))

    asked = Scenario(model=Rows(), device="a100", inputs=["8x64"])
    found = chain.with_largest_batch(chain.forecast(asked), asked)
    assert found.memory.largest_batch is None and found.memory.fits
    said = [line for line in found.assumptions if line.startswith("largest batch: not known")]
    assert len(said) == 1 and "a loop over the samples" in said[0]
