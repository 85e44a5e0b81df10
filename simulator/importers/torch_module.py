"""A torch module and what it is fed -> Model. PyTorch itself runs one step, forward and backward,
on fake tensors.

No weights are made and those of a module in hand are not touched or copied; no GPU is needed.
`device` says whose kernels run: `gpu` (and `tpu`) stand for CUDA's dispatch, autocast lists,
dropout masks and attention kernels, `cpu` for the CPU's. The step ends in a scalar: the module's
output itself where it is one, its `.loss` where it has one, else the sum of every floating tensor
in its output that needs a gradient. A transformers model is run without its key-value cache in
training. Training calls module.train(), inference module.eval(); both are set back.

A module that looks at its numbers (a branch on a value, as many rows as a mask has ones) cannot run
on tensors without any: it is run on real random ones instead, on this machine's CPU, and the
forecast says so.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from typing import Any, NamedTuple
from unittest import mock

from roofcast.hwdb.errors import BadInput, RoofcastError, one_line
from roofcast.simulator.importers import spec
from roofcast.simulator.importers.fake import (
    CPU,
    CUDA,
    OneDevice,
    Words,
    autocast,
    told,
    torch,
    weightless,
)
from roofcast.simulator.importers.record import FORMATS, Path, Record, Recorder
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.ops.linear import product_format
from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.traced import ALONE, Kernel, Weight

TORCH = {
    **{ours: theirs for theirs, ours in reversed(FORMATS.items())},
    "fp64": torch.float64, "fp32": torch.float32, "fp16": torch.float16, "fp8": torch.float8_e4m3fn,
}  # fmt: skip
REAL_LIMIT = 1e9  # bytes of weights: a larger module that looks at its numbers is refused
NEEDS_NUMBERS = (
    "DataDependentOutputException",
    "DynamicOutputShapeException",
    "GuardOnDataDependentSymNode",
    "PendingUnbackedSymbolNotFound",
)


class Asked(NamedTuple):
    """All that a trace depends on."""

    inputs: tuple[spec.Input, ...]
    training: bool
    weights: str
    activations: str
    autocast: str | None
    attention: str


def from_torch(module, inputs, *, name: str | None = None, device: str = "gpu", loss=None) -> Model:
    """Model of a torch.nn.Module.

    `inputs`: a list (or, by argument name, a dict) of tensors, real or fake, of texts like
    "64x3x32x32" and "64:int64", or of `spec.Input`. `loss`: a function of the module's output that
    gives a scalar, where the rule above does not do.
    """
    if not isinstance(module, torch.nn.Module):
        raise BadInput(f"model: a {type(module).__name__} was given; a torch.nn.Module is wanted")
    given = (
        tuple(_input(i, None) for i in inputs)
        if not isinstance(inputs, dict)
        else tuple(_input(i, key) for key, i in inputs.items())
    )
    if not given:
        raise BadInput(
            f"{type(module).__name__}: no inputs; give the shape of every one, for example"
            " 64x3x32x32"
        )
    name = name or type(module).__name__
    axes = spec.axes(given)
    traces: dict[Asked, tuple[Record, tuple[str, ...]]] = {}

    def program(tape: Tape, batch: int, size: int | None):
        if tape.parallel != ALONE:
            raise BadInput(
                f"{name}: a traced module runs whole on every device; use data parallelism (dp,"
                " ZeRO), not tp, sp, cp or ep"
            )
        p = tape.precision
        asked = Asked(
            spec.resized(given, batch, size),
            tape.training,
            p.weights,
            p.activations,
            p.autocast,
            tape.implementation("attention", "flash"),
        )
        if asked not in traces:
            traces[asked] = trace(module, asked, name, device != "cpu", loss)
        fill(tape, *traces[asked])

    return Model(
        name,
        "torch",
        axes.takes,
        axes.size,
        program,
        None,
        f"traced by PyTorch {torch.__version__}",
        axes.batch,
    )


def _input(given, name: str | None) -> spec.Input:
    if isinstance(given, str):
        given = spec.parse(given)
    if isinstance(given, spec.Input):
        return given._replace(name=name) if name else given
    if isinstance(given, torch.Tensor):
        floating = given.dtype.is_floating_point
        return spec.Input(
            name, tuple(given.shape), None if floating else FORMATS.get(given.dtype, "int64")
        )
    raise BadInput(
        f"input {name or ''}: a {type(given).__name__} was given; a tensor or a shape like"
        " 64x3x32x32 is wanted"
    )


# ------------------------------------------------------------------ one step
def trace(module, asked: Asked, name: str, gpu: bool, loss=None) -> tuple[Record, tuple[str, ...]]:
    """Run the step; on real numbers where the module cannot do without."""
    try:
        return _run(module, asked, name, gpu, loss, real=False), ()
    except _NeedsNumbers as needed:
        weights = sum(p.numel() * p.element_size() for p in module.parameters())
        if weights > REAL_LIMIT:
            raise BadInput(
                f"{name}: looks at its numbers ({needed}) and must really run; its"
                f" {weights / 1e9:.1f} GB of weights are too many for that"
            ) from None
    said = f"{name} looks at its numbers: traced on random ones, with the kernels of a CPU"
    return _run(module, asked, name, False, loss, real=True), (said,)


class _NeedsNumbers(Exception):
    """A fake tensor was asked for its value."""


def _run(module, asked: Asked, name: str, gpu: bool, loss, real: bool) -> Record:
    device = CUDA if gpu else CPU
    mode = OneDevice(device)
    words = Words(mode, gpu)
    path = Path(module)
    recorder = Recorder(words, path, real)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_mode_of(module, asked.training))
        stack.enter_context(_without_cache(module, asked.training))
        stack.enter_context(torch.random.fork_rng(devices=()))
        torch.manual_seed(0)
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        if not real:
            stack.enter_context(mode)
            stack.enter_context(told(words, asked.attention))
        stack.enter_context(weightless(module, device, TORCH[asked.weights], real))
        args, kwargs = _made(asked, device, real)
        fed = [*args, *kwargs.values()]
        parameters = list(module.parameters())
        for p in parameters:
            words.root(p)
        stack.enter_context(recorder)
        recorder.mark("parameter", parameters)
        recorder.mark("buffer", module.buffers())
        recorder.mark("input", fed)
        try:
            with (
                path.watched(),
                autocast(device.type, TORCH.get(asked.autocast)),
                _kept(recorder, asked.training),
            ):
                out = module(*args, **kwargs)
                ends = [loss(out)] if loss else None
            if asked.training:
                _backward(recorder, words, ends or _ends(out, name))
        except RoofcastError:
            raise
        except Exception as error:
            if not real and _needs_numbers(error):
                raise _NeedsNumbers(one_line(error)) from None
            raise BadInput(
                f"{name}: fails on input {spec.written(asked.inputs)}: {one_line(error)}"
            ) from None
        return recorder.record(_owners(module), fed)


def _needs_numbers(error: BaseException) -> bool:
    text = str(error)
    return (
        type(error).__name__ in NEEDS_NUMBERS
        or "data pointer of Tensor that doesn't have storage" in text
        or "FakeTensor" in text
    )


def _made(asked: Asked, device, real: bool):
    """The inputs as tensors: by place, and by name where they have names."""

    def one(i: spec.Input):
        dtype = TORCH[i.dtype or asked.activations]
        if real:
            return (
                torch.randn(i.shape).to(dtype)
                if dtype.is_floating_point
                else torch.randint(0, 2, i.shape).to(dtype)
            )
        return torch.empty(i.shape, dtype=dtype, device=device)

    return [one(i) for i in asked.inputs if not i.name], {
        i.name: one(i) for i in asked.inputs if i.name
    }


@contextlib.contextmanager
def _mode_of(module, training: bool):
    before = {m: m.training for m in module.modules()}
    module.train(training)
    try:
        with contextlib.nullcontext() if training else torch.no_grad():
            yield
    finally:
        for m, was in before.items():
            m.training = was


@contextlib.contextmanager
def _without_cache(module, training: bool):
    """A transformers model keeps no key-value cache in training, and takes its input for one
    sequence a row.
    """
    with contextlib.ExitStack() as stack:
        config = getattr(module, "config", None)
        if training and getattr(config, "use_cache", False):
            stack.enter_context(mock.patch.object(config, "use_cache", False))
        masks = sys.modules.get("transformers.masking_utils")
        if hasattr(masks, "find_packed_sequence_indices"):
            stack.enter_context(
                mock.patch.object(masks, "find_packed_sequence_indices", lambda *a, **k: None)
            )
        yield


def _kept(recorder: Recorder, training: bool):
    return (
        torch.autograd.graph.saved_tensors_hooks(recorder.pack, lambda t: t)
        if training
        else contextlib.nullcontext()
    )


def _ends(out: Any, name: str) -> list:
    """What backward starts from."""
    loss = getattr(out, "loss", None)
    found = [loss] if isinstance(loss, torch.Tensor) else list(_tensors(out))
    ends = [t for t in found if t.requires_grad and t.dtype.is_floating_point]
    if not ends:
        raise BadInput(
            f"{name}: no floating tensor of its output needs a gradient; there is nothing to train,"
            " use --mode infer"
        )
    return ends


def _tensors(out):
    if isinstance(out, torch.Tensor):
        yield out
    elif isinstance(out, dict):
        for v in out.values():
            yield from _tensors(v)
    elif isinstance(out, (list, tuple)):
        for v in out:
            yield from _tensors(v)


def _backward(recorder: Recorder, words: Words, ends: list):
    recorder.path.stack = [("loss", "Loss", True)]
    scalars = [t if t.dim() == 0 else t.sum() for t in ends]
    recorder.path.stack = [("", "", False)]
    recorder.phase, words.backward = "backward", True
    ones = [torch.ones_like(t) for t in scalars]
    with torch.autograd.set_multithreading_enabled(
        False
    ):  # the engine itself: a torch function would hide what is called inside it
        torch.autograd.graph._engine_run_backward(
            tuple(scalars),
            tuple(ones),
            False,
            False,
            (),
            allow_unreachable=True,
            accumulate_grad=True,
        )


def _owners(module):
    """(name of the submodule, parameter), each parameter once."""
    seen = set()
    for where, m in module.named_modules():
        for p in m._parameters.values():
            if p is not None and id(p) not in seen:
                seen.add(id(p))
                yield where, p


# ------------------------------------------------------------------ onto the tape
def fill(tape: Tape, record: Record, said: tuple[str, ...]):
    """Leave a record on the tape."""
    tape.nodes.extend(record.nodes)
    tape.weights.extend(
        Weight(node, size, dtype, 1, trainable) for node, size, dtype, trainable in record.weights
    )
    tape.inputs.extend(record.inputs)
    for d in record.done:
        w = d.work
        product = product_format(tape, _Of(d.dtype)) if w.matrix else d.dtype
        tape.kernels.append(
            Kernel(
                d.node,
                d.phase,
                w.kind,
                product,
                w.matrix,
                w.vector,
                w.special,
                d.read,
                d.written,
                w.shape,
                1,
                d.inputs,
                d.outputs,
            )
        )
    for k in record.kept:
        tape.saved[k.storage] = [k.node, k.bytes, 1, k.kind, True]
    tape.said.extend((*said, *noted(record)))


class _Of(NamedTuple):
    """As much of a Value as names a format."""

    dtype: str


def noted(record: Record) -> list[str]:
    """What a forecast has to say of the ops: those without a formula, and those whose FLOPs
    PyTorch's counter leaves out.
    """
    lines = []
    if record.unknown:
        total = sum(d.read + d.written for d in record.done) or 1.0
        listed = ", ".join(
            f"{name} x{n}"
            for name, (n, _) in sorted(record.unknown.items(), key=lambda item: -item[1][1])
        )
        share = 100 * sum(b for _, b in record.unknown.values()) / total
        lines.append(
            f"ops without a formula, costed as the bytes they touch ({share:.2g} % of all bytes):"
            f" {listed}"
        )
    if record.left_out:
        listed = ", ".join(f"{name} {flops:.4g}" for name, flops in record.left_out.items())
        lines.append(f"FLOPs that torch.utils.flop_counter leaves out and this count has: {listed}")
    return lines
