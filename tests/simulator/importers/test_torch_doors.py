"""Modules as people write them for a GPU, with every kind of argument, and code that misbehaves."""

import contextlib
import json
import sys
import textwrap
from dataclasses import dataclass
from typing import NamedTuple

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="needs the torch extra: pip install .[torch]")
from counting import imported  # noqa: E402
from torch import nn  # noqa: E402

from roofcast.hwdb.errors import RoofcastError  # noqa: E402
from roofcast.reports.command import main  # noqa: E402
from roofcast.simulator.forecast.counts import count  # noqa: E402
from roofcast.simulator.importers import from_torch, user_code  # noqa: E402
from roofcast.simulator.importers.recorded import Recorded, extrapolated  # noqa: E402
from roofcast.simulator.work.precision import precision  # noqa: E402
from roofcast.simulator.work.tape import Tape  # noqa: E402

pytestmark = pytest.mark.torch
LINEAR = 16 * 16 + 16  # parameters of the layer of every small module


def counts(module, inputs, **more):
    return imported(from_torch(module, inputs, **more))[0]


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(16, 16)


# ---------------------------------------------------------------- TorchScript and lazy modules
def script():
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))


@pytest.mark.parametrize("wrap", ["script", "trace", "archive"])
def test_torchscript_counts_as_the_module_it_was_made_of(wrap, tmp_path):
    plain = script()
    made = (
        torch.jit.trace(plain, torch.zeros(2, 16)) if wrap == "trace" else torch.jit.script(plain)
    )
    expected = counts(plain, ["2x16"])
    if wrap == "archive":
        path = tmp_path / "net.pt"
        made.save(str(path))
        found = count(str(path), inputs=["2x16"], precision="fp32")
        assert (found.parameters, found.flops_forward) == expected[:2]
        return
    before = {k: v.clone() for k, v in made.state_dict().items()}
    assert counts(nn.Sequential(made), ["2x16"])[:4] == expected[:4]
    assert all(torch.equal(v, before[k]) for k, v in made.state_dict().items())


def test_a_file_of_weights_is_refused_without_unpickling_it(tmp_path):
    torch.save(script().state_dict(), tmp_path / "weights.pt")
    (tmp_path / "text.pt").write_text("no archive")
    for name, message in (("weights", "holds weights or a pickled"), ("text", "no TorchScript")):
        with pytest.raises(RoofcastError, match=message):
            count(str(tmp_path / f"{name}.pt"), inputs=["2x16"])


def test_lazy_modules_take_their_sizes_from_the_input_and_stay_lazy():
    net = nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(10))
    sized = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(1568, 10))
    assert counts(net, ["2x3x16x16"]) == counts(sized, ["2x3x16x16"])
    assert isinstance(net[0], nn.LazyConv2d) and net[0].has_uninitialized_params()


# ---------------------------------------------------------------- arguments
@dataclass
class Batch:
    feat: torch.Tensor
    mask: torch.Tensor | None = None


class Pair(NamedTuple):
    a: torch.Tensor
    b: torch.Tensor


class Containers(Layer):
    def forward(self, batch: Batch, pair: Pair, rest: list, table, mode: str = "max", flag=False):
        assert isinstance(batch, Batch) and isinstance(pair, Pair) and isinstance(rest, list)
        assert mode == "sum" and flag is True and table["x"] is table.x
        return sum(self.fc(x) for x in (batch.feat, *pair, *rest, table["x"]))


class Steps(Layer):
    def forward(self, x, step: int, scale: float = 1.0):
        for _ in range(step):
            x = self.fc(x) * scale
        return x


class Lengths(Layer):
    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        return self.fc(packed.data)


def test_dicts_lists_records_flags_and_texts_are_given_by_name():
    parts = ("batch.feat", "pair.a", "pair.b", "rest.0", "rest.1", "table.x")
    given = [*(f"{part}=2x16" for part in parts), "mode=sum", "flag=true"]
    assert counts(Containers(), given).forward == 6 * 2 * 2 * 16 * 16
    x = torch.zeros(2, 16)
    inputs = [Batch(x), Pair(x, x), [x, x], {"x": x}]
    named = dict(zip(("batch", "pair", "rest", "table"), inputs, strict=True))
    assert counts(Containers(), {**named, "mode": "sum", "flag": True}).forward == 6144


@pytest.mark.parametrize("given", ["step=3", "3"])
def test_a_number_is_a_value_where_the_module_takes_one(given):
    assert counts(Steps(), ["2x16", given, "scale=0.5"])[:3] == (LINEAR, 3072, 5120)


@pytest.mark.parametrize(
    "given",
    [
        ("4:int64", "lengths=20"),
        ("lengths=20",),
        ("lengths=4:int64=20",),
        ("lengths=[20,20,20,20]",),
    ],
)
def test_the_values_of_lengths_are_given(given):
    assert counts(Lengths(), ["4x20x16", *given]).forward == 2 * 4 * 20 * 16 * 16


def test_values_that_are_missing_are_asked_for():
    with pytest.raises(RoofcastError, match="--input lengths=20, if they matter"):
        counts(Lengths(), ["4x20x16", "4:int64"])
    lengths = torch.tensor([20, 10, 5, 5])  # values of a tensor in hand are used
    assert counts(Lengths(), [torch.zeros(4, 20, 16), lengths]).forward == 2 * 40 * 16 * 16


# ---------------------------------------------------------------- code written for a GPU
class OnGpu(Layer):
    def __init__(self):
        super().__init__()

    def forward(self, x):
        assert torch.cuda.device_count() == 1 and torch.cuda.current_device() == 0
        torch.cuda.synchronize()
        one = torch.arange(16).cuda().float() + torch.ones(16, device="cuda")
        return self.fc(x) + one + torch.zeros(16).to("cuda") + torch.zeros(16).to(0)


@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_cuda_in_forward(device):
    assert counts(OnGpu(), ["2x16"], device=device)[:3] == (LINEAR, 1024, 1024)
    assert not torch.cuda.is_available() or torch.cuda.current_device() >= 0


class Numpy(Layer):
    def forward(self, x):
        y = self.fc(x)
        return y[:, : int(y.detach().cpu().numpy().argmax() * 0 + 3)]


def test_numpy_runs_on_real_numbers():
    found, tape = imported(from_torch(Numpy(), ["2x16"]))
    assert found[:3] == (LINEAR, 1024, 1024)
    assert tape.assumptions[0].startswith(
        "Numpy depends on the values of tensors (test_torch_doors"
    )


class Keywords(Layer):
    def forward(self, x):
        y = self.fc(x)[None, None]
        return nn.functional.scaled_dot_product_attention(query=y, key=y, value=y)


def test_attention_is_called_by_keyword():
    assert counts(Keywords(), ["8x16"]).forward == 2 * 8 * 16 * 16 + 4 * 8 * 8 * 16


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 16, 32))

    def forward(self, x, ends):
        return torch._grouped_mm(x, self.weight, offs=ends)


@pytest.mark.parametrize("how", ["fp32", "bf16"])
def test_experts_in_one_grouped_product_in_every_format(how):
    found, _ = imported(from_torch(Grouped(), ["64x16", "4:int32"]), how)
    assert found[:3] == (4 * 16 * 32, 2 * 64 * 16 * 32, 2 * 64 * 16 * 32)


# ---------------------------------------------------------------- sparse gradients
def test_a_table_with_sparse_gradients_is_updated_where_it_was_looked_up():
    dense, sparse = (nn.Embedding(1000, 64, sparse=how) for how in (False, True))
    nets = [nn.Sequential(table, nn.Linear(64, 1)) for table in (dense, sparse)]
    (whole, _), (part, tape) = (imported(from_torch(net, ["8x4:int64"])) for net in nets)
    assert whole[:3] == part[:3] == (64_065, 2 * 32 * 64, 2 * 32 * 64 * 2)
    assert [w.updated for w in tape.weights] == [32 * 64, 64, 1]
    assert any("0 2,048 of 64,000" in line for line in tape.assumptions)


# ---------------------------------------------------------------- higher-order operators
class Flex(nn.Module):
    def __init__(self, causal):
        super().__init__()
        self.causal = causal

    def forward(self, q, k, v):
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        mask = None
        if self.causal:
            mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, 512, 512, device="cuda")
        return torch.compile(flex_attention)(q, k, v, block_mask=mask)


@pytest.mark.parametrize(("causal", "blocks"), [(False, 16), (True, 10)])
def test_flex_attention_is_one_kernel_over_the_blocks_of_its_mask(causal, blocks):
    model = from_torch(Flex(causal), ["2x4x512x32"] * 3)
    tape = model.run(Tape(precision("fp32"), training=False), 2)
    (kernel,) = (k for k in tape.kernels if k.kind == "attention")
    assert kernel.matrix == 4 * 2 * 4 * 512 * 512 * 32  # of the full scores, as PyTorch counts
    assert kernel.shape == (2, 4, 4, 512, 512 * blocks // 16, 32, False)


class Branches(Layer):
    def forward(self, x):
        from torch._higher_order_ops.associative_scan import associative_scan
        from torch._higher_order_ops.scan import scan
        from torch._higher_order_ops.while_loop import while_loop

        x = torch.cond(x.shape[0] > 1, self.fc, lambda v: v, (x,))
        _, x = while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, self.fc(v)), (0, x))
        carry, x = scan(lambda c, v: (c + self.fc(v), c * 1.0), x[0], x, dim=0)
        return associative_scan(lambda a, b: a + b, x, dim=0) + carry


def test_branches_loops_and_scans_count_what_runs():
    assert counts(Branches(), ["5x16"]).forward == 2 * 16 * 16 * (5 + 3 * 5 + 5)


# ---------------------------------------------------------------- code that misbehaves
FILE = """
import logging, os, sys, warnings
import torch
from torch import nn

print("loading")
warnings.warn("loading")

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(16, 16)
    def forward(self, x):
        y = self.fc(x)
        {code}
        return y
"""
CODE = {
    "prints": "print(y.shape); os.write(1, b'raw'); warnings.warn('w'); logging.error('e')",
    "exits": "sys.exit(3)",
    "asks": "y = y * float(input())",
    "fails": "y = y.vieww(3)",
    "loops": "while True: pass",
    "grows": "while True: y = self.fc(y)",
}
MESSAGES = {
    "exits": "at my_net.py:15: ends the program (sys.exit)",
    "asks": "at my_net.py:15: asks for input from the keyboard",
    "fails": "at my_net.py:15: AttributeError",
    "loops": "no op of PyTorch for 1 s at my_net.py:15; an endless loop?",
    "grows": "not done after 2 s (",
}


def run(tmp_path, code, name=":Net"):
    path = tmp_path / "my_net.py"
    path.write_text(textwrap.dedent(code))
    words = ["count", f"{path}{name}", "--input", "2x16", "--json"]
    return CliRunner().invoke(main, words)


def test_nothing_that_a_module_prints_stands_in_the_json(tmp_path, capfd):
    found = run(tmp_path, FILE.format(code=CODE["prints"]))
    told = json.loads(found.stdout)
    assert told["parameters"] == LINEAR and not found.stderr
    assert "what Net prints while it runs (1 lines) is not shown" in told["assumptions"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", MESSAGES)
def test_code_that_misbehaves_is_one_line(tmp_path, monkeypatch, kind):
    limits = (2.0 if kind == "grows" else 60.0, 1.0)
    monkeypatch.setattr(user_code.limited.__wrapped__, "__defaults__", limits)
    found = run(tmp_path, FILE.format(code=CODE[kind]))
    assert found.exit_code == 2 and not found.stdout
    assert MESSAGES[kind] in found.stderr and found.stderr.count("\n") == 1
    assert len(found.stderr) < 500


@pytest.mark.parametrize(
    ("asked", "raised"),
    [(torch.ops.prim.device.default, False), (torch.ops.aten.relu.default, True)],
)
def test_code_is_not_stopped_while_cpp_asks_for_a_device(asked, raised):
    """An exception there would pass through C++ that takes none, which ends the process."""
    clock = user_code.Clock("net", -1.0, 60.0)
    clock.seconds = -1.0

    def __torch_dispatch__(func):
        clock.look(0, sys._getframe())

    with pytest.raises(user_code._TooLong) if raised else contextlib.nullcontext():
        __torch_dispatch__(asked)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import not_there", "needs the module not_there, which is not installed: pip install"),
        ("import cv2", "pip install opencv-python"),
        ("def f():\n    raise ValueError('bad')\nf()", "my_net.py:2: ValueError: bad"),
        ("import sys\nsys.exit(0)", "ends the program when it is loaded"),
    ],
)
def test_a_file_that_does_not_load_is_one_line(tmp_path, code, message):
    if "cv2" in code and user_code.importlib.util.find_spec("cv2"):
        pytest.skip("opencv is installed")
    found = run(tmp_path, code)
    assert found.exit_code == 2 and message in found.stderr and found.stderr.count("\n") == 1


# ---------------------------------------------------------------- other batches
class Pairwise(Layer):
    """Scores of every sample with every other: quadratic in the batch."""

    def forward(self, x):
        return self.fc(x) @ x.t()


@pytest.mark.parametrize(("make", "needed"), [(script, 2), (Pairwise, 4)])
def test_two_traces_tell_a_step_that_is_linear_in_the_batch(make, needed):
    module, known = make(), {}
    for batch in (4, 8, 16, 32):
        tape = from_torch(module, [f"{batch}x16"]).run(Tape(precision("fp32")), batch)
        known[batch] = Recorded.of(tape)
        found = extrapolated(known, 64)
        assert (found is not None) == (len(known) >= needed)
        if found is not None:
            break
    whole = Recorded.of(from_torch(module, ["64x16"]).run(Tape(precision("fp32")), 64))
    assert sum(k.matrix for k in found.kernels) == sum(k.matrix for k in whole.kernels)
    assert sum(s.bytes for _, s in found.saved) == sum(s.bytes for _, s in whole.saved)
