"""A torch module and its inputs -> Model. PyTorch itself runs one step on fake tensors.

No weights are allocated, those of a given module are neither changed nor copied, and no GPU is
needed. `device` selects whose kernels run: `gpu` (and `tpu`) use CUDA's dispatch, autocast lists,
dropout masks and attention kernels, `cpu` those of the CPU. The step ends in a scalar: the module's
output if it is one, its `.loss` if it has one, else the sum of all floating-point tensors of the
output that need a gradient. In training, a transformers model runs without its key-value cache.
Training calls module.train(), inference module.eval(); both are undone.

A module that depends on the values of tensors (a branch on a value, as many rows as a mask has
ones) cannot run on fake tensors. It runs on real random ones instead, on this machine's CPU, and
the forecast says so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable

import roofcast.simulator.importers.arguments as arguments
import roofcast.simulator.importers.spec as spec
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.importers.folding import fold
from roofcast.simulator.importers.gradient_sums import places
from roofcast.simulator.importers.larger_batch import TIMES
from roofcast.simulator.importers.record import Launch
from roofcast.simulator.importers.recorded import Curve, Recorded, curve
from roofcast.simulator.importers.stack_norms import as_run
from roofcast.simulator.importers.torch_extra import torch
from roofcast.simulator.importers.torch_step import Conditions, Loss, Traced, trace
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.ops.linear import product_format
from roofcast.simulator.work.precision import WIDTH
from roofcast.simulator.work.tape import Tape, Value
from roofcast.simulator.work.traced import ALONE, Kernel, Saved, Weight

MOST = 4  # batches that are traced to compute others from them


def from_torch(
    module: torch.nn.Module,
    inputs: spec.Given,
    *,
    name: str | None = None,
    device: str = "gpu",
    loss: Loss | None = None,
) -> Model:
    """Model of a torch.nn.Module.

    `inputs`: a list (or, by argument name, a dict) of tensors, real or fake, of texts like
    "64x3x32x32" and "64:int64", of `spec.Input`, of numbers, or of dicts, lists and records of
    those. `loss`: a function that maps the module's
    output to a scalar, if the rule above does not apply. Raises BadInput for anything else, and
    when the model runs, if the module fails on these inputs.
    """
    if not isinstance(module, torch.nn.Module):
        raise BadInput(f"model: expected a torch.nn.Module, got a {type(module).__name__}")
    module = unwrapped(module)
    quantized = next((m for m in module.modules() if _is_quantized(m)), None)
    if quantized is not None:
        raise BadInput(
            f"{name or type(module).__name__}: has quantized modules of torch.ao"
            f" ({type(quantized).__name__}), which are not modelled; give the module as it was"
            " before, with --mode infer --precision fp8 or another format"
        )
    given = arguments.given(inputs, module)
    name = name or type(module).__name__
    if not given:
        raise BadInput(f"{name}: no inputs; give the shape of each, for example 64x3x32x32")
    steps = _Steps(module, arguments.readings(module, given), name, device != "cpu", loss)
    axes = steps.axes
    source = f"traced by PyTorch {torch.__version__}"
    model = Model(name, "torch", axes.takes, axes.size, steps.run, None, source, axes.batch)
    return model._replace(quick=functools.partial(steps.run, quick=True))


def _is_quantized(module: torch.nn.Module) -> bool:
    """Whether a module is one of those that torch.ao puts in place of a layer."""
    where = type(module).__module__
    return where.startswith("torch.ao.nn.") and ".qat" not in where and "quantized" in where


def unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """The module inside torch.compile, DataParallel and DistributedDataParallel."""
    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while isinstance(module, wrappers) or type(module).__name__ == "OptimizedModule":
        inner = getattr(module, "_orig_mod", None) or getattr(module, "module", None)
        if not isinstance(inner, torch.nn.Module):
            break
        module = inner
    return module


LOOPED = 20_000  # kernels of a loop over the samples, from which on it is not traced


class _Steps:
    """The traced steps of a module: one per batch, for everything else on which they depend."""

    def __init__(
        self,
        module: torch.nn.Module,
        readings: list[arguments.Reading],
        name: str,
        gpu: bool,
        loss: Loss | None,
    ):
        self.module, self.readings, self.name = module, readings, name
        self.gpu, self.loss = gpu, loss
        self.axes = spec.axes(readings[0].inputs)
        self.known: dict[Hashable, dict[int, Recorded]] = {}
        self.larger: dict[Hashable, Traced] = {}  # of the asked batch, told from its own trace
        self.curves: dict[Hashable, tuple[int, Curve | None]] = {}

    def run(self, tape: Tape, batch: int, size: int | None, quick: bool = False) -> None:
        """Leave the step of a batch on a tape; with `quick`, one computed from a few others."""
        if tape.parallel._replace(stages=1) != ALONE:
            raise BadInput(
                f"{self.name}: the ops of a traced module are not split over devices; use data"
                " parallelism (dp, ZeRO) or a pipeline (pp), not tp, sp, cp or ep"
            )
        p = tape.precision
        attention = tape.implementation("attention", "flash")
        at = Conditions((), tape.training, p.weights, p.activations, p.autocast, attention)
        key = size, p, tape.implementation("batch_norm", ""), *at[1:]
        traced = self.known.setdefault(key, {})

        def recorded(found: Traced) -> Recorded:
            own = Tape(p, training=tape.training, implementations=tape.implementations)
            fill(own, found)
            return Recorded.of(own)

        def step(of: int) -> Recorded:
            if of not in traced:
                found = self._trace(at, of, size)
                traced[of] = recorded(found)
                if found.larger is not None:
                    self.larger[key] = found._replace(record=found.larger)
            return traced[of]

        found = traced.get(batch)
        if found is None and quick:
            told = functools.partial(self._told, key, traced, recorded, step)
            found = self._computed(key, traced, batch, step, told)
        (found or step(batch)).onto(tape)

    def _told(
        self,
        key: Hashable,
        traced: dict[int, Recorded],
        recorded: Callable[[Traced], Recorded],
        step: Callable[[int], Recorded],
    ) -> Curve | None:
        """The steps of all batches from the one trace at the asked batch; None where its ops do
        not tell.
        """
        asked = self.axes.batch
        first = step(asked)
        if key not in self.larger:
            return None
        return curve({asked: first, TIMES * asked: recorded(self.larger[key])})

    def _computed(
        self,
        key: Hashable,
        traced: dict[int, Recorded],
        batch: int,
        step: Callable[[int], Recorded],
        told: Callable[[], Curve | None],
    ) -> Recorded | None:
        """The step of a batch from others; as many are traced as that needs."""
        if key not in self.curves:
            self.curves[key] = 0, told()
        while True:
            count, found = self.curves[key]
            if found is not None:
                return found.at(batch)
            if len(traced) > count:
                self.curves[key] = len(traced), curve(traced)
            elif len(traced) >= MOST:
                self._refuse_loop(traced, batch)
                return None
            else:
                step(another(sorted(traced)) if traced else self.axes.batch)

    def _refuse_loop(self, traced: dict[int, Recorded], batch: int) -> None:
        """BadInput where a loop over the samples makes so many kernels of a batch that its trace
        would take minutes.
        """
        few, many = min(traced), max(traced)
        kernels, more = (len(traced[each].kernels) for each in (few, many))
        added = (more - kernels) / (many - few)  # by a sample
        if more + added * (batch - many) > LOOPED and more > kernels:
            raise BadInput(
                f"{self.name}: it has {kernels:,} kernels at a batch of {few}, {more:,} at {many};"
                " a loop over the samples is not traced at large batches"
            )

    def _trace(self, at: Conditions, batch: int, size: int | None) -> Traced:
        """The step of a batch, by the first reading of the inputs with which the module runs."""
        failed: BadInput | None = None
        for place, reading in enumerate(self.readings):
            inputs = spec.resized(reading.inputs, batch, size)
            asked = batch if batch == self.axes.batch > 1 else None
            here = at._replace(inputs=inputs, batch=asked)
            try:
                traced = trace(self.module, here, self.name, self.gpu, self.loss)
            except BadInput as error:
                failed = failed or error
                continue
            self.readings = [reading, *self.readings[place + 1 :]]
            notes = (reading.note,) if reading.note else ()
            return traced._replace(assumptions=(*notes, *traced.assumptions))
        assert failed is not None, "there is at least one reading"
        raise failed


def another(traced: list[int]) -> int:
    """A batch to trace beside those that are, in order; none of 1, at which axes are dropped.

    >>> another([64]), another([1]), another([2]), another([32, 64])
    (32, 2, 4, 128)
    """
    first = max(2, traced[0] // 2)
    return first if len(traced) == 1 and first not in traced else 2 * traced[-1]


def fill(tape: Tape, traced: Traced) -> None:
    """Leave a recorded step on the tape."""
    record, assumptions = traced.record, traced.assumptions
    tape.nodes.extend(record.nodes)
    quantized = {
        (k.node, v.size): held
        for k in record.launches
        if (held := _held(tape, k)) and (v := _matrix(k)) is not None
    }
    for p in record.weights:
        dtype = quantized.get((p.node, p.size), p.dtype)
        tape.weights.append(Weight(p.node, p.size, dtype, 1, p.trainable, False, p.looked_up))
    tape.inputs.extend(record.inputs)
    # as on the tape of a named model, what autograd runs for an op stands behind the op
    placed: list[tuple[tuple[int, int, bool], Kernel]] = []
    for k, after in zip(record.launches, places(record.launches), strict=True):
        parts = as_run(tape, k.name, _kernel(tape, k))
        back = k.phase == "backward"
        placed += [((after, i - len(parts), back), part) for i, part in enumerate(parts)]
    tape.kernels.extend(kernel for _, kernel in sorted(placed, key=lambda pair: pair[0]))
    for s in record.kept:
        tape.saved[s.storage] = Saved(s.node, s.bytes, 1, s.kind, True)
    stay = f"the traced module's activations stay in {tape.precision.activations}"
    notes = (stay,) if quantized else ()
    tape.assumptions.extend((*assumptions, *record.notes(), *notes))
    fold(tape)


def _held(tape: Tape, k: Launch) -> str | None:
    """The format of the weight of a product where it is quantized for inference."""
    if not k.work.matrix:
        return None
    return tape.filters if k.work.kind in ("conv", "depthwise") else tape.matrices


def _matrix(k: Launch) -> Value | None:
    """The weight matrix or the filters that a product multiplies; None where it has none."""
    return next((v for v in k.inputs if v.kind == "parameter" and len(v.shape) > 1), None)


def _kernel(tape: Tape, k: Launch) -> Kernel:
    """The kernel of a launch, with a quantized weight where the precision policy has one."""
    w, product, read = k.work, k.dtype, k.read
    held, weight = _held(tape, k), _matrix(k)
    if held and weight is not None:
        product = tape.precision.product
        read = k.read - weight.bytes + weight.size * WIDTH[held]
    elif w.matrix:
        product = product_format(tape, k.dtype)
    work = w.matrix, w.vector, w.special, read, k.written, w.shape, 1
    return Kernel(k.node, k.phase, w.kind, product, *work, k.inputs, k.outputs)
