"""One step of a torch module, forward and backward, run by PyTorch itself on fake tensors."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import roofcast.simulator.importers.higher_order as higher_order
import roofcast.simulator.importers.lazy as lazy
import roofcast.simulator.importers.spec as spec
import roofcast.simulator.importers.user_code as user_code
import roofcast.simulator.importers.written_attention as written_attention
from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.simulator.importers.arguments import arguments, filled, names
from roofcast.simulator.importers.cuda_dispatch import DeviceAnswers, as_cpu, as_cuda, autocast
from roofcast.simulator.importers.fake import OneDevice, weightless
from roofcast.simulator.importers.larger_batch import Larger
from roofcast.simulator.importers.larger_recorder import LargerRecorder
from roofcast.simulator.importers.module_path import ModulePath, Place
from roofcast.simulator.importers.record import FORMATS, Record
from roofcast.simulator.importers.recorder import Recorder
from roofcast.simulator.importers.torch_extra import CPU, CUDA, torch, tree_iter

# our formats in torch's
TORCH: dict[str, torch.dtype] = {
    **{ours: theirs for theirs, ours in reversed(FORMATS.items())},
    "fp64": torch.float64, "fp32": torch.float32, "fp16": torch.float16, "fp8": torch.float8_e4m3fn,
}  # fmt: skip
REAL_LIMIT = 1e9  # bytes of weights of the largest module that is run on real tensors
NEEDS_VALUES = (  # exceptions of PyTorch when a fake tensor is asked for its values
    "DataDependentOutputException",
    "DynamicOutputShapeException",
    "GuardOnDataDependentSymNode",
    "PendingUnbackedSymbolNotFound",
)

Loss = Callable[[Any], torch.Tensor]


class Conditions(NamedTuple):
    """Everything but the module on which a trace depends."""

    inputs: tuple[spec.Input, ...]
    training: bool
    weights: str
    activations: str
    autocast: str | None
    attention: str
    batch: int | None = None  # that of the inputs, where a larger one is to be told as well


class Traced(NamedTuple):
    """A recorded step, and what had to be assumed to record it."""

    record: Record
    assumptions: tuple[str, ...]
    larger: Record | None = None  # of the step at TIMES the batch, where that could be told


def trace(
    module: torch.nn.Module, at: Conditions, name: str, gpu: bool, loss: Loss | None = None
) -> Traced:
    """Run and record one step; on real random tensors if the module depends on their values.

    `name` is the module's name for messages; `gpu`: PyTorch dispatches as for CUDA. `loss` maps the
    module's output to a scalar. Raises BadInput if the module fails on these inputs.
    """
    with user_code.quiet() as said, higher_order.as_python() as assumed:
        traced = _traced(module, at, name, gpu, loss)
    notes = [*traced.assumptions, *assumed]
    if said.lines:
        notes.append(f"what {name} prints while it runs ({said.lines:,} lines) is not shown")
    return traced._replace(assumptions=tuple(notes))


def _traced(
    module: torch.nn.Module, at: Conditions, name: str, gpu: bool, loss: Loss | None
) -> Traced:
    if lazy.is_lazy(module):
        module = lazy.copied(module)
        with lazy.sized():
            _run(module, at._replace(training=False), name, gpu, None, real=False)
    try:
        record, larger = _run(module, at, name, gpu, loss, real=False)
        notes = tuple(written_attention.notes(record, at.attention, gpu))
        return Traced(record, notes, larger)
    except _NeedsValues as needed:
        why = str(needed)
        weights = sum(p.numel() * p.element_size() for p in module.parameters())
        if weights > REAL_LIMIT:
            raise BadInput(
                f"{name}: depends on the values of {why} and must run on real ones, but its"
                f" weights are too large for that ({weights / 1e9:.1f} GB)"
            ) from None
    try:
        record, _ = _run(module, at, name, False, loss, real=True)
    except BadInput as error:
        raise BadInput(f"{error}{_values_missing(module, at)}") from None
    valued = [i.name or "an input" for i in at.inputs if i.tensor and i.literal is not None]
    given = f"the given values of {', '.join(valued)} and " if valued else ""
    assumption = (
        f"{name} depends on the values of {why}: traced on {given}random ones, with the"
        " kernels of a CPU"
    )
    return Traced(record, (assumption, *written_attention.notes(record, at.attention, False)))


def _values_missing(module: torch.nn.Module, at: Conditions) -> str:
    """How to give the values of an input of whole numbers, which were random ones."""
    unnamed = iter(names(module, sum(not i.name for i in at.inputs)))
    named = [i._replace(name=i.name or next(unnamed)) for i in at.inputs]
    whole = [i for i in named if i.dtype in ("int64", "int32") and i.literal is None]
    if not whole:
        return ""
    i = min(whole, key=lambda i: len(i.shape))  # lengths and counts have one axis
    name = "NAME" if " " in str(i.name) else i.name
    return f"; integers were random, 0 or 1: give their values, --input {name}=20, if they matter"


class _NeedsValues(Exception):
    """A fake tensor was asked for its values."""


def _run(
    module: torch.nn.Module, at: Conditions, name: str, gpu: bool, loss: Loss | None, real: bool
) -> tuple[Record, Record | None]:
    device = CUDA if gpu else CPU
    mode = OneDevice(device)
    answers = DeviceAnswers(mode, gpu)
    with contextlib.ExitStack() as stack:
        clock = stack.enter_context(user_code.limited(name))
        recorder: Recorder
        if real or at.batch is None:
            recorder = Recorder(answers, ModulePath(module), real, clock)
        else:
            larger = Larger(at.batch, module)
            recorder = LargerRecorder(answers, ModulePath(module), clock, larger)
        stack.enter_context(_in_mode(module, at.training))
        stack.enter_context(_without_cache(module, at.training))
        stack.enter_context(torch.random.fork_rng(devices=()))
        torch.manual_seed(0)
        stack.enter_context(torch.jit.optimized_execution(False))
        if not real:
            stack.enter_context(mode)
        stack.enter_context((as_cuda if gpu else as_cpu)(answers, at.attention))
        stack.enter_context(weightless(module, device, TORCH[at.weights], real))
        args, kwargs = arguments(module, at.inputs, _maker(at, device, real))
        fed = [t for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor)]
        parameters = _sized(module.parameters())
        for p in parameters:
            answers.root(p)
        stack.enter_context(recorder)
        recorder.mark("parameter", parameters)
        recorder.mark("buffer", _sized(module.buffers()))
        recorder.mark("input", fed)
        recorder.name_sources(names(module, len(args)), args, kwargs)
        try:
            low = TORCH[at.autocast] if at.autocast else None
            with (
                recorder.path.watched(),
                autocast(device.type, low),
                _hooked(recorder, at.training),
            ):
                out = module(*args, **kwargs)
                ends = [_ended(recorder, loss, out)] if loss and at.training else None
            if at.training:
                _backward(recorder, ends or _ends(out, name))
        except RoofcastError:
            raise
        except (Exception, SystemExit) as error:
            if not real and _needs_values(error):
                raise _NeedsValues(_asked(error, recorder)) from None
            what = f"{name}: fails on input {_shown(at.inputs)}"
            raise user_code.reported(what, error, recorder.path.failed(error)) from None
        answers.watch = None
        record = recorder.record(_owners(module), fed)
        if isinstance(recorder, LargerRecorder):
            return record, recorder.larger_record(record, fed)
        return record, None


def _ended(recorder: Recorder, loss: Loss, out: Any) -> torch.Tensor:
    """The loss, against a target that is an input of the step where the loss makes one."""
    target = loss.target(out) if hasattr(loss, "target") else None
    if target is None:
        return loss(out)
    recorder.mark("input", [target])
    recorder.path.stack.append(Place("loss", "Loss", True))
    try:
        return loss(out, target)  # type: ignore[call-arg]
    finally:
        recorder.path.stack.pop()


def _shown(inputs: tuple[spec.Input, ...]) -> str:
    text = spec.written(inputs)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _sized(tensors: Iterable[torch.Tensor]) -> list[Any]:
    return [t for t in tensors if not isinstance(t, lazy.Uninitialized)]


def _asked(error: BaseException, recorder: Recorder) -> str:
    """Of which inputs the values were asked, and where, for a message."""
    of = ", ".join(recorder.asked[:4]) or "tensors"
    line = user_code.line_of(error)
    return f"{of} ({line})" if line else of


def _needs_values(error: BaseException) -> bool:
    text = str(error)
    return (
        type(error).__name__ in NEEDS_VALUES
        or "data pointer of Tensor that doesn't have storage" in text
        or "is not supported for tensor subclasses" in text
        or "FakeTensor" in text
    )


def _maker(at: Conditions, device: torch.device, real: bool) -> Callable[[spec.Input], Any]:
    """Makes the tensor of an input: a fake one, or one with given or random numbers."""

    def make(i: spec.Input) -> torch.Tensor:
        dtype = TORCH[i.dtype or at.activations]
        if not real:
            return torch.empty(i.shape, dtype=dtype, device=device)
        if i.literal is not None:
            return filled(i, dtype)
        if dtype.is_floating_point:
            return torch.randn(i.shape).to(dtype)
        return torch.randint(0, 2, i.shape).to(dtype)

    return make


@contextlib.contextmanager
def _in_mode(module: torch.nn.Module, training: bool) -> Iterator[None]:
    """Inside, every submodule is in training or inference mode; then back in its own."""
    before = {m: m.training for m in module.modules()}
    module.train(training)
    try:
        with contextlib.nullcontext() if training else torch.no_grad():
            yield
    finally:
        for m, was in before.items():
            m.training = was


@contextlib.contextmanager
def _without_cache(module: torch.nn.Module, training: bool) -> Iterator[None]:
    """Inside, a transformers model has no key-value cache in training, and one sequence per row."""
    with contextlib.ExitStack() as stack:
        config: Any = getattr(module, "config", None)
        if training and getattr(config, "use_cache", False):
            stack.enter_context(mock.patch.object(config, "use_cache", False))
        masks: Any = sys.modules.get("transformers.masking_utils")
        if hasattr(masks, "find_packed_sequence_indices"):
            patch = mock.patch.object(masks, "find_packed_sequence_indices", lambda *a, **k: None)
            stack.enter_context(patch)
        yield


def _hooked(recorder: Recorder, training: bool) -> contextlib.AbstractContextManager[Any]:
    """Inside, the recorder sees every tensor that autograd keeps."""
    if not training:
        return contextlib.nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(recorder.pack, lambda t: t)


def _ends(out: Any, name: str) -> list[torch.Tensor]:
    """The tensors from which backward starts: the loss, or all that need a gradient."""
    loss = getattr(out, "loss", None)
    found = [loss] if isinstance(loss, torch.Tensor) else list(_tensors(out))
    ends = [t for t in found if t.requires_grad and t.dtype.is_floating_point]
    if not ends:
        raise BadInput(
            f"{name}: no floating-point tensor of its output needs a gradient, so there is nothing"
            " to train; use --mode infer"
        )
    return ends


def _tensors(out: Any) -> Iterator[torch.Tensor]:
    if isinstance(out, torch.Tensor):
        yield out
    elif isinstance(out, dict):
        for v in out.values():
            yield from _tensors(v)
    elif isinstance(out, (list, tuple)):
        for v in out:
            yield from _tensors(v)


def _backward(recorder: Recorder, ends: list[torch.Tensor]) -> None:
    """Run backward from the sum of each tensor."""
    recorder.path.stack = [Place("loss", "Loss", True)]
    scalars = [t if t.dim() == 0 else t.sum() for t in ends]
    recorder.path.stack = [Place("", "", False)]
    recorder.phase, recorder.answers.backward = "backward", True
    ones = [torch.ones_like(t) for t in scalars]
    # The engine is called directly: a torch function would hide the calls inside it.
    with torch.autograd.set_multithreading_enabled(False):
        torch.autograd.graph._engine_run_backward(
            tuple(scalars),
            tuple(ones),
            False,
            False,
            (),
            allow_unreachable=True,
            accumulate_grad=True,
        )


def _owners(module: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Pairs of submodule's name and parameter, each parameter once."""
    seen = set()
    for where, m in module.named_modules():
        for p in m._parameters.values():
            if p is not None and id(p) not in seen:
                seen.add(id(p))
                yield where, p
