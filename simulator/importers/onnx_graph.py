"""An ONNX graph -> Model. Nodes become ops of the tape, so backward and memory follow PyTorch.

A file is only data: nothing in it is executed. Initializers that reach an op as floating-point
operands are parameters, except the statistics of a batch norm; ONNX does not say which ones were
buffers in the exported module. Values that depend on shapes alone (Shape, Gather, Concat before a
Reshape ...) are computed. An op without a formula is costed by its bytes and reported.
Floating-point tensors take the precision of the step, whatever that of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import roofcast.simulator.importers.spec as spec
from roofcast.hwdb.errors import BadInput, one_line
from roofcast.simulator.importers.folding import fold
from roofcast.simulator.importers.onnx_call import Stored
from roofcast.simulator.importers.onnx_extra import inliner, numpy_helper, onnx
from roofcast.simulator.importers.onnx_run import Run, format_of
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.traced import ALONE


class Axis(NamedTuple):
    """One dimension of an input."""

    size: int | None  # None: open
    name: str


def from_onnx(
    source: str | Path | onnx.ModelProto,
    inputs: Iterable[str | spec.Input] = (),
    *,
    dims: dict[str, int] | None = None,
    name: str | None = None,
) -> Model:
    """Model of an ONNX file, or of a ModelProto.

    `inputs`: shapes as `spec.Input` or text, by name ("x=64x3x224x224") or in the graph's order.
    `dims`: sizes of open axes by their name ({"batch": 64}). An open first axis is the batch, 1 by
    default; any other open axis must be given. Raises BadInput if the file cannot be read or the
    inputs do not fit.
    """
    if isinstance(source, onnx.ModelProto):
        proto, where = source, source.graph.name or "the ONNX graph"
        default_name = where
    else:
        proto, where = _read(Path(source)), str(source)
        default_name = Path(source).stem
    stored = _stored(proto.graph)
    asked = [spec.parse(i) if isinstance(i, str) else i for i in inputs]
    fed = _fed(where, [i for i in proto.graph.input if i.name not in stored], asked, dims or {})
    axes = spec.axes(fed)

    def program(tape: Tape, batch: int, size: int | None) -> None:
        if tape.parallel._replace(stages=1) != ALONE:
            raise BadInput(
                f"{where}: the ops of an imported graph are not split over devices; use data"
                " parallelism (dp, ZeRO) or a pipeline (pp), not tp, sp, cp or ep"
            )
        Run(tape, proto, stored, spec.resized(fed, batch, size), where).run()
        fold(tape)

    name = name or default_name
    return Model(name, "onnx", axes.takes, axes.size, program, None, where, axes.batch)


def _read(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise BadInput(f"{path}: no such file; expected an ONNX model")
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # of protobuf, its parsers or the file system
        raise BadInput(
            f"{path}: is not an ONNX model, or was cut off ({one_line(error)})"
        ) from None
    if not proto.graph.node:
        raise BadInput(f"{path}: is not an ONNX model, or was cut off: it has no nodes")
    written = {o for n in proto.graph.node for o in n.output}
    written |= {i.name for i in proto.graph.initializer} | {i.name for i in proto.graph.input}
    missing = next((o.name for o in proto.graph.output if o.name not in written), None)
    if not proto.graph.output or missing is not None:
        problem = "it has no outputs" if missing is None else f"nothing computes output {missing!r}"
        raise BadInput(f"{path}: the graph is incomplete: {problem}; was it cut off?")
    return inliner.inline_local_functions(proto) if proto.functions else proto


def _stored(graph: onnx.GraphProto) -> dict[str, Stored]:
    """Initializers by name.

    A matrix that is the transpose of another, number by number, is the same parameter: exporters
    write tied embeddings so.
    """
    stored = {
        i.name: Stored(i.name, tuple(i.dims), onnx.TensorProto.DataType.Name(i.data_type), i)
        for i in graph.initializer
    }
    matrices: dict[tuple[int, ...], list[Stored]] = {}
    for s in stored.values():
        internal = s.proto.data_location != onnx.TensorProto.EXTERNAL
        if s.floating and len(s.shape) == 2 and min(s.shape) > 1 and internal:
            matrices.setdefault(s.shape, []).append(s)
    for shape, found in matrices.items():
        if shape[0] <= shape[1]:
            continue
        for s in found:
            for other in matrices.get(shape[::-1], ()):
                if _transposed(s, other):
                    stored[other.name] = other._replace(name=s.name)
    return stored


def _transposed(a: Stored, b: Stored) -> bool:
    """Whether b holds the numbers of a, transposed."""
    return np.array_equal(numpy_helper.to_array(b.proto), numpy_helper.to_array(a.proto).T)


# ------------------------------------------------------------------ inputs
def _fed(
    where: str,
    declared: Sequence[onnx.ValueInfoProto],
    asked: Sequence[spec.Input],
    dims: dict[str, int],
) -> tuple[spec.Input, ...]:
    """Shapes of all inputs that the graph declares, from those that the caller gives."""
    if not declared:
        raise BadInput(f"{where}: the graph has no inputs; there is nothing to run")
    names = [i.name for i in declared]
    unknown = next((i.name for i in asked if i.name and i.name not in names), None)
    if unknown is not None:
        raise BadInput(f"{where}: no input {unknown!r}; inputs: {', '.join(names)}")
    by_name = {i.name: i for i in asked if i.name}
    in_order = iter([i for i in asked if not i.name])
    fed = tuple(
        _one_input(where, i, by_name.get(i.name) or next(in_order, None), dims) for i in declared
    )
    if next(in_order, None) is not None:
        raise BadInput(
            f"{where}: takes {len(names)} inputs ({', '.join(names)}); {len(asked)} were given"
        )
    return fed


def _one_input(
    where: str, declared: onnx.ValueInfoProto, given: spec.Input | None, dims: dict[str, int]
) -> spec.Input:
    tensor, dtype = declared.type.tensor_type, format_of(declared.type.tensor_type.elem_type)
    axes = [
        Axis(d.dim_value if d.HasField("dim_value") else None, d.dim_param)
        for d in tensor.shape.dim
    ]
    shown = "x".join(str(a.size or a.name or "?") for a in axes)
    if given is not None:
        if tensor.HasField("shape") and not _fits(given.shape, axes):
            raise BadInput(
                f"{where}: input {declared.name} is {shown}; {spec.written([given])} does not"
                " fit it"
            )
        return spec.Input(declared.name, given.shape, dtype)
    sizes = [
        a.size or dims.get(a.name) or (1 if place == 0 else None) for place, a in enumerate(axes)
    ]
    shape = tuple(n for n in sizes if n is not None)
    if not shape or len(shape) < len(sizes):
        example = "x".join(str(n or "N") for n in sizes)
        raise BadInput(
            f"{where}: input {declared.name} is {shown}; give the sizes of its open axes, --input"
            f" {declared.name}={example}"
        )
    return spec.Input(declared.name, shape, dtype)


def _fits(shape: tuple[int, ...], axes: list[Axis]) -> bool:
    """Whether a shape has the declared dimensions; the first one, the batch, may differ."""
    return len(shape) == len(axes) and all(
        a.size in (None, n) for a, n in zip(axes[1:], shape[1:], strict=True)
    )
