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
from collections.abc import Hashable, Iterable, Mapping

import roofcast.simulator.importers.spec as spec
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.importers.folding import fold
from roofcast.simulator.importers.record import FORMATS, Launch
from roofcast.simulator.importers.recorded import Recorded, extrapolated
from roofcast.simulator.importers.torch_extra import torch
from roofcast.simulator.importers.torch_step import Conditions, Loss, Traced, trace
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.ops.linear import product_format
from roofcast.simulator.work.precision import WIDTH
from roofcast.simulator.work.tape import Tape, Value
from roofcast.simulator.work.traced import ALONE, Kernel, Saved, Weight


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
    "64x3x32x32" and "64:int64", or of `spec.Input`. `loss`: a function that maps the module's
    output to a scalar, if the rule above does not apply. Raises BadInput for anything else, and
    when the model runs, if the module fails on these inputs.
    """
    if not isinstance(module, torch.nn.Module):
        raise BadInput(f"model: expected a torch.nn.Module, got a {type(module).__name__}")
    given = _given(inputs)
    name = name or type(module).__name__
    if not given:
        raise BadInput(f"{name}: no inputs; give the shape of each, for example 64x3x32x32")
    axes = spec.axes(given)
    # traced steps by batch, for everything else on which they depend
    known: dict[Hashable, dict[int, Recorded]] = {}

    def program(tape: Tape, batch: int, size: int | None, quick: bool = False) -> None:
        if tape.parallel._replace(stages=1) != ALONE:
            raise BadInput(
                f"{name}: the ops of a traced module are not split over devices; use data"
                " parallelism (dp, ZeRO) or a pipeline (pp), not tp, sp, cp or ep"
            )
        p = tape.precision
        at = Conditions(
            spec.resized(given, batch, size),
            tape.training,
            p.weights,
            p.activations,
            p.autocast,
            tape.implementation("attention", "flash"),
        )
        traced = known.setdefault((size, p, *at[1:]), {})
        found = traced.get(batch) or (extrapolated(traced, batch) if quick else None)
        if found is None:
            own = Tape(p, training=tape.training, implementations=tape.implementations)
            fill(own, trace(module, at, name, device != "cpu", loss))
            found = traced[batch] = Recorded.of(own)
        found.onto(tape)

    source = f"traced by PyTorch {torch.__version__}"
    model = Model(name, "torch", axes.takes, axes.size, program, None, source, axes.batch)
    return model._replace(quick=functools.partial(program, quick=True))


def _given(inputs: spec.Given) -> tuple[spec.Input, ...]:
    if isinstance(inputs, Mapping):
        return tuple(_input(i, key) for key, i in inputs.items())
    assert isinstance(inputs, Iterable), "a list or a tuple"
    return tuple(_input(i, None) for i in inputs)


def _input(given: object, name: str | None) -> spec.Input:
    if isinstance(given, str):
        given = spec.parse(given)
    if isinstance(given, spec.Input):
        return given._replace(name=name) if name else given
    if isinstance(given, torch.Tensor):
        floating = given.dtype.is_floating_point
        dtype = None if floating else FORMATS.get(given.dtype, "int64")
        return spec.Input(name, tuple(given.shape), dtype)
    raise BadInput(
        f"input {name or ''}: expected a tensor or a shape like 64x3x32x32, got a"
        f" {type(given).__name__}"
    )


def fill(tape: Tape, traced: Traced) -> None:
    """Leave a recorded step on the tape."""
    record, assumptions = traced
    tape.nodes.extend(record.nodes)
    quantized = {
        (k.node, v.size): held
        for k in record.launches
        if (held := _held(tape, k)) and (v := _matrix(k)) is not None
    }
    for p in record.weights:
        dtype = quantized.get((p.node, p.size), p.dtype)
        tape.weights.append(Weight(p.node, p.size, dtype, 1, p.trainable))
    tape.inputs.extend(record.inputs)
    # as on the tape of a named model, what autograd runs for an op stands behind the op
    for k in sorted(record.launches, key=lambda k: (k.after, k.phase == "backward")):
        tape.kernels.append(_kernel(tape, k))
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
