"""Ops on fake tensors give what PyTorch's FakeTensorMode gives, without it."""

import contextlib
import itertools
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from roofcast.simulator.importers import quick_ops, quick_rules  # noqa: E402
from roofcast.simulator.importers.cuda_dispatch import DeviceAnswers, as_cpu, as_cuda  # noqa: E402
from roofcast.simulator.importers.fake import OneDevice, constructing  # noqa: E402
from roofcast.simulator.importers.quick_rules import LEFT, RULES  # noqa: E402
from roofcast.simulator.importers.torch_extra import CPU, CUDA, FakeTensor, aten  # noqa: E402
from roofcast.simulator.importers.torch_step import Conditions, trace  # noqa: E402

from .test_larger_batch import arguments, both  # noqa: E402
from .torch_nets import NETS  # noqa: E402

nn = torch.nn
GENERAL = (quick_rules._pointwise, quick_rules._in_place)
ELEMENTWISE = [func for func, rule in RULES.items() if rule in GENERAL]


def looks(made, given):
    """Everything of a result that another op, or a record, can see."""
    if isinstance(made, (tuple, list)):
        return [looks(t, given) for t in made]
    if not isinstance(made, torch.Tensor):
        return made
    memory = made.untyped_storage()
    shared = [t.untyped_storage()._cdata == memory._cdata for t in given]
    strides = [s for s, n in zip(made.stride(), made.shape, strict=True) if n > 1]
    return (
        type(made), made.shape, strides, made.storage_offset(), made.dtype, memory.nbytes(),
        shared, [t is made for t in given], made.requires_grad, made.fake_device,
        sorted(vars(made)), made.is_contiguous(),
    )  # fmt: skip


def tensors(args):
    return [t for t in tree_leaves(args) if isinstance(t, torch.Tensor)]


def same(mode, func, args, kwargs=None):
    """Whether an op is done quickly, with the result of FakeTensorMode."""
    kwargs, given = kwargs or {}, tensors((args, kwargs))
    quick = mode.kernels.run(func, args, kwargs)
    if quick is LEFT:
        return False
    slow = FakeTensorMode.dispatch(mode, func, (), args, kwargs)
    assert looks(quick, given) == looks(slow, given), (func, [(t.shape, t.stride()) for t in given])
    return True


@contextlib.contextmanager
def answered(mode):
    """Inside, PyTorch behaves as with the device of a mode."""
    gpu = mode.device.type == "cuda"
    with (as_cuda if gpu else as_cpu)(DeviceAnswers(mode, gpu), "flash"):
        yield


def operands(device, dtype):
    """Tensors in many layouts, of which some fit each other."""
    shapes = {"row": (6,), "rows": (4, 6), "one": (), "none": (0, 6), "cube": (2, 4, 6)}
    found = {k: torch.empty(v, dtype=dtype, device=device) for k, v in shapes.items()}
    found["turned"] = torch.empty(6, 4, dtype=dtype, device=device).t()
    found["cut"] = torch.empty(4, 12, dtype=dtype, device=device)[:, ::2]
    found["number"] = torch.empty((), dtype=dtype, device=device).expand(4, 6)
    found["column"] = torch.empty(4, 1, dtype=dtype, device=device)
    return found


LAYOUTS = (
    "row row", "rows rows", "rows row", "row rows", "rows one", "one rows", "one one", "none none",
    "cube rows", "cube cube", "turned turned", "rows turned", "turned rows", "cut cut", "cut rows",
    "rows number", "number rows", "number number", "rows column", "column row",
)  # fmt: skip


def called(func, pair):
    """Arguments of an op with two tensors in turn, and plain numbers for the others."""
    turns, args = itertools.cycle(pair), []
    for a in func._schema.arguments:
        if a.kwarg_only:
            break
        kind = str(a.type)
        if "Tensor" in kind:
            args.append(next(turns))
        elif a.has_default_value():
            args.append(a.default_value)
        else:
            args.append(False if kind == "bool" else 0.5)
    return args


@pytest.mark.parametrize("func", ELEMENTWISE, ids=str)
def test_elementwise_ops_are_those_of_pytorch(func):
    device, done = CUDA, set()
    mode = OneDevice(device)
    with answered(mode):
        with mode:
            half, whole = operands(device, torch.bfloat16), operands(device, torch.float32)
            counts = operands(device, torch.int64)
        for layout in LAYOUTS:
            a, b = layout.split()
            mixed = ((half, half), (half, whole), (counts, whole)) if a == "rows" else ()
            for first, second in ((whole, whole), *mixed):
                args = called(func, (first[a], second[b]))
                done |= {layout} if same(mode, func, args) else set()
    assert {"rows rows", "row row"} <= done


def products(new):
    a, b = new(4, 6), new(6, 5)
    yield aten.mm.default, (a, b)
    yield aten.mm.default, (b.t(), a.t())
    yield aten.mm.default, (new(6, 4).t(), new(1).expand(6, 5))
    yield aten.bmm.default, (new(2, 4, 6), new(2, 5, 6).transpose(1, 2))
    for bias in (new(5), new(1, 5), new(4, 5), new(5, 4).t(), new(1), new()):
        yield aten.addmm.default, (bias, a, b)
        yield aten.addmm.default, (bias, a, b), {"beta": 0.5, "alpha": 2}
    yield aten.baddbmm.default, (new(2, 1, 5), new(2, 4, 6), new(2, 6, 5))


def layouts(new):
    x, w, image = new(3, 5, 8), new(8), new(2, 4, 6, 6)
    last = image.contiguous(memory_format=torch.channels_last)
    return x, image, last, x.transpose(0, 2), w, w.expand(3, 5, 8), new(), new(1).expand(4)


def reductions(new):
    for t in layouts(new):
        for dims in ([], None, [0], [-1], [0, 1], [0, 2], list(range(t.dim()))):
            if dims is None or all(-t.dim() <= d < t.dim() for d in dims):
                for keep in (False, True):
                    yield aten.sum.dim_IntList, (t, dims, keep)
                    yield aten.mean.dim, (t, dims, keep)
        yield aten.sum.default, (t,)
        yield aten.mean.default, (t,)
        if t.dim():
            yield aten._softmax.default, (t, -1, False)
            yield aten._log_softmax.default, (t, 0, False)
            yield aten._softmax_backward_data.default, (t, t, -1, t.dtype)
            yield aten._log_softmax_backward_data.default, (t, t, 0, t.dtype)


def copies(new):
    for t in layouts(new):
        yield aten.clone.default, (t,)
        yield aten.clone.default, (t,), {"memory_format": torch.contiguous_format}
        for to in (torch.float32, torch.float16, torch.int64):
            yield aten._to_copy.default, (t,), {"dtype": to}
        for like in ("empty_like", "ones_like", "zeros_like"):
            yield getattr(aten, like).default, (t,)
            yield getattr(aten, like).default, (t,), {"dtype": torch.int64}
        yield aten.full_like.default, (t, 2.0)
        for name in ("new_zeros", "new_ones", "new_empty"):
            yield getattr(aten, name).default, (t, [3, 2])
        yield aten.new_full.default, (t, [3, 2], 1), {"dtype": torch.bool}
        for fill in (aten.zero_.default, aten.uniform_.default, aten.normal_.default):
            yield fill, (t,)
        yield aten.fill_.Scalar, (t, 1.0)


def row_norms(new):
    norm, back, x, w = aten.native_layer_norm, aten.native_layer_norm_backward, new(3, 5, 8), new(8)
    for t in (x, x.transpose(0, 1), w.expand(3, 5, 8), new(2, 8)):
        one = new(*t.shape[:-1], 1).float()
        for weight, bias in ((w, w), (w, None), (None, None)):
            yield norm.default, (t, [8], weight, bias, 1e-5)
            for mask in ([True] * 3, [False, True, True], [True, False, False]):
                yield back.default, (t, t, [8], one, one, weight, bias, mask)
    yield norm.default, (new(3, 5, 8), [5, 8], new(5, 8), new(5, 8), 1e-5)


def batch_norms(new):
    channels, wide, image, flat = new(4), new(4).float(), new(2, 4, 6, 6), new(2, 4)
    norm, back = aten.native_batch_norm.default, aten.native_batch_norm_backward.default
    last = image.contiguous(memory_format=torch.channels_last)
    for t, c, training in itertools.product(
        (image, last, flat, image[:, :, ::2]), (channels, wide), (True, False)
    ):
        yield norm, (t, c, c, wide, wide, training, 0.1, 1e-5)
        yield norm, (t, None, None, c, c, training, 0.1, 1e-5)
        for mask in ([True] * 3, [True, False, False]):
            yield back, (t, t, c, wide, wide, wide, wide, training, 1e-5, mask)


def views(new):
    x, ids = new(3, 5, 8), new(3, 5).long()
    yield aten.embedding.default, (new(7, 8), ids)
    yield aten.embedding.default, (new(8, 7).t(), ids, 0)
    for shape in ([15, 8], [3, 40], [120], [3, 5, 2, 4], [-1, 4], [3, 5, 8], [1, 3, 5, 8]):
        yield aten.view.default, (x, shape)
        yield aten._unsafe_view.default, (x, shape)
        if shape[-1] in (4, 8) and len(shape) > 2:
            yield aten.view.default, (x.transpose(0, 1), [5, 3, *shape[2:]])
    for t in (x, x.transpose(0, 2), x[:, 1:, ::2]):
        for dim, at in ((0, 0), (1, -1), (-1, 2)):
            yield aten.select.int, (t, dim, at)
            yield aten.slice.Tensor, (t, dim, at, 9, 2)
            yield aten.split.Tensor, (t, 2, dim)
            yield aten.squeeze.dim, (t[:1], dim)
        yield aten.squeeze.default, (t[:1],)
        for func in (aten.t, aten.detach, aten.alias):
            yield func.default, (t[0],)
        yield aten.permute.default, (t, [2, 0, 1])
        yield aten.expand.default, (t[:1], [4, -1, t.shape[1], t.shape[2]])


KINDS = [products, reductions, copies, row_norms, batch_norms, views]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("device", [CUDA, CPU], ids=["gpu", "cpu"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_ops_are_those_of_pytorch(kind, device, dtype):
    mode, done = OneDevice(device), set()
    with answered(mode):
        with mode:
            new = lambda *shape: torch.empty(shape, dtype=dtype, device=device)  # noqa: E731
            calls = list(kind(new))
        for func, args, *rest in calls:
            done |= {func} if same(mode, func, args, *rest) else set()
    assert done == {call[0] for call in calls}


def test_every_rule_is_compared():
    mode = OneDevice(CPU)
    with answered(mode), mode:
        new = lambda *shape: torch.empty(shape, device=CPU)  # noqa: E731
        compared = {call[0] for kind in KINDS for call in kind(new)}
    assert set(RULES) <= {*ELEMENTWISE, *compared}
    assert set(quick_ops.VIEWS) <= compared


@pytest.mark.parametrize("name", NETS)
def test_every_op_of_a_net_is_as_fake_tensor_mode_runs_it(name, monkeypatch):
    run, wrong, done = quick_ops.Kernels.run, [], []

    def twice(self, func, args, kwargs):
        quick, given = run(self, func, args, kwargs), tensors((args, kwargs))
        if quick is not LEFT and not func._schema.is_mutable:
            slow = FakeTensorMode.dispatch(self.mode, func, (), args, kwargs)
            done.append(func)
            if looks(quick, given) != looks(slow, given):
                wrong.append((func, looks(quick, given), looks(slow, given)))
        return quick

    monkeypatch.setattr(quick_ops.Kernels, "run", twice)
    make, inputs = NETS[name]
    both(make(), inputs)
    assert done and not wrong


def plain():
    width = range(30, 40)
    pairs = [(nn.Linear(n, n + 1), nn.LayerNorm(n + 1), nn.ReLU(), nn.GELU()) for n in width]
    return nn.Sequential(*(part for pair in pairs for part in pair))


def test_no_op_of_plain_layers_goes_through_fake_tensor_mode(monkeypatch):
    asked = []
    dispatch = FakeTensorMode.dispatch

    def seen(self, func, *rest):
        asked.append(func)
        return dispatch(self, func, *rest)

    monkeypatch.setattr(FakeTensorMode, "dispatch", seen)
    reading = arguments.readings(plain(), arguments.given(["4x30"], plain()))[0]
    at = Conditions(tuple(reading.inputs), True, "bf16", "bf16", None, "flash", 4)
    assert len(trace(plain(), at, "net", True).record.launches) > 100
    assert set(map(str, asked)) <= {"prim.device.default"}


COMPILER = """
import sys, torch
from roofcast.simulator.importers import from_torch
from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.precision import precision

class Net(torch.nn.Linear):
    how = None

    def forward(self, x):
        return super().forward(x) if self.how is None else torch.fft.rfft(x @ self.weight).abs()

own, sdpa = torch.cuda.Stream, torch.nn.functional.scaled_dot_product_attention
for how in None, "fft":
    Net.how = how
    from_torch(Net(8, 8), ["4x8"]).run(Tape(precision("fp32"), training=True), 4)
    print("torch._dynamo" in sys.modules)
import torch._dynamo.device_interface as known
print(known.torch.cuda.Stream is own, issubclass(known.CudaInterface.Stream, own))
print(torch.nn.functional.scaled_dot_product_attention is sdpa)
"""


def test_the_compiler_is_loaded_where_it_is_needed_and_as_it_is_without_a_trace():
    done = subprocess.run([sys.executable, "-c", COMPILER], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True", "True", "True", "True"], done.stderr


def test_a_call_that_pytorch_refuses_is_left_to_it():
    mode = OneDevice(CUDA)
    with answered(mode):
        with mode:
            a, b, c = (torch.empty(n, 4, device=CUDA) for n in (2, 3, 4))
        for func, *args in (
            (aten.add.Tensor, a, b), (aten.add_.Tensor, a, b), (aten.mm.default, a, b),
            (aten.addmm.default, b, a, c), (aten.clamp.default, a, None, None),
            (aten.view.default, a, [3, 3]), (aten.sum.dim_IntList, a, [2]),
            (aten.native_layer_norm.default, a, [3], None, None, 1e-5),
            (aten.native_batch_norm_backward.default, a, b, *[None] * 5, True, 0.1, [True] * 3),
            (aten.sum.dim_IntList, a, [0, 0]),
        ):  # fmt: skip
            assert mode.kernels.run(func, args, {}) is LEFT, func


def test_tensors_of_another_mode_are_left():
    mine, other = OneDevice(CUDA), OneDevice(CUDA)
    with answered(other), other:
        theirs = torch.empty(3, device=CUDA)
    assert mine.kernels.run(aten.relu.default, (theirs,), {}) is LEFT
    assert mine.kernels.run(aten.relu.default, (torch.empty(3),), {}) is LEFT
    assert isinstance(other.kernels.run(aten.relu.default, (theirs,), {}), FakeTensor)


def test_a_module_whose_constructor_copies_large_layers_is_constructed():
    """nn.TransformerEncoder copies its layer; copy.deepcopy asks for the pointers of weights."""
    with constructing():
        layer = nn.TransformerEncoderLayer(512, 4, 512, batch_first=True)
        encoder = nn.TransformerEncoder(layer, 2)
    assert all(isinstance(w, FakeTensor) for w in encoder.parameters() if w.numel() > 1 << 16)
    assert sum(w.numel() for w in encoder.parameters()) == 2 * 1_577_984
