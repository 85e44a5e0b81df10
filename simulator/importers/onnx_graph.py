"""An ONNX graph -> Model. Nodes become ops of the tape, so backward and memory follow PyTorch.

A file is only data: nothing in it is executed. Initializers that reach an op as floating-point
operands are parameters, except the statistics of a batch norm; ONNX does not say which ones were
buffers in the exported module. Values that depend on shapes alone (Shape, Gather, Concat before a
Reshape ...) are computed. An op without a formula is costed by its bytes and reported.
Floating-point tensors take the precision of the step, whatever that of the file; quantized weights
are held as they are stored, in inference.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import roofcast.simulator.importers.spec as spec
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.formats import is_stored
from roofcast.simulator.importers.folding import fold
from roofcast.simulator.importers.onnx_call import HELD, Stored
from roofcast.simulator.importers.onnx_checks import checked
from roofcast.simulator.importers.onnx_extra import onnx
from roofcast.simulator.importers.onnx_file import read
from roofcast.simulator.importers.onnx_inputs import asked, fed
from roofcast.simulator.importers.onnx_run import Inner, Run
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.traced import ALONE


def from_onnx(
    source: str | Path | onnx.ModelProto,
    inputs: Iterable[str | spec.Input] = (),
    *,
    dims: dict[str, int] | None = None,
    name: str | None = None,
) -> Model:
    """Model of an ONNX file, or of a ModelProto, whose nodes are put in the order they run in.

    `inputs`: shapes as `spec.Input` or text, by name ("x=64x3x224x224") or in the graph's order;
    "batch=64" for an open axis of that name, and "step=3" for an input that is one number. `dims`:
    sizes of open axes by their name ({"batch": 64}). An open first axis is the batch, 1 by default;
    any other open axis must be given. Raises BadInput if the file cannot be read or the inputs do
    not fit.
    """
    if isinstance(source, onnx.ModelProto):
        where = default_name = source.graph.name or "the ONNX graph"
        proto = checked(source, where)
    else:
        proto, where = read(Path(source)), str(source)
        default_name = Path(source).stem
    stored = _stored(proto.graph)
    declared = [i for i in proto.graph.input if i.name not in stored]
    given = fed(where, declared, asked(declared, inputs, dims or {}))
    first = next((i for i in given.inputs if i.shape), given.inputs[0])
    axes = spec.axes([first]) if first.shape else spec.Axes("table", 1, None)
    inner: dict[int, Inner] = {}  # graphs within the graph, for every run

    def program(tape: Tape, batch: int, size: int | None) -> None:
        if tape.parallel._replace(stages=1) != ALONE:
            raise BadInput(
                f"{where}: the ops of an imported graph are not split over devices; use data"
                " parallelism (dp, ZeRO) or a pipeline (pp), not tp, sp, cp or ep"
            )
        resized = iter(spec.resized([i for i in (first, *given.inputs) if i.shape], batch, size))
        if first.shape:
            next(resized)  # it stands in front, since it has the batch
        shaped = [next(resized) if i.shape else i for i in given.inputs]
        tape.assumptions += given.notes if batch == axes.batch else ()
        Run(tape, proto, stored, shaped, where, given.values, inner).run()
        tape.assumptions += _said(stored, tape)
        fold(tape)

    name = name or default_name
    return Model(name, "onnx", axes.takes, axes.size, program, None, where, axes.batch)


_NAMES = {"FLOAT": "fp32", "FLOAT16": "fp16", "BFLOAT16": "bf16", "DOUBLE": "fp64"}


def _said(stored: dict[str, Stored], tape: Tape) -> list[str]:
    """What is assumed of the formats of the file, once the graph has run."""
    p, weights = tape.precision, tape._parameters
    used = [(s, weights[n]) for n, s in stored.items() if n in weights and len(s.shape) > 1]
    floating = {_NAMES[s.format] for s, _ in used if s.format in _NAMES} - {"fp32"}
    lines = []
    if floating and floating != {p.weights}:
        lines.append(
            f"weights that the file holds in {', '.join(sorted(floating))} are held in {p.weights},"
            " the precision of the step"
        )
    quantized = [(HELD[s.format], v) for s, v in used if s.format in HELD]
    few = [v for _, v in quantized if is_stored(v.dtype)]
    whole = {name for name, v in quantized if not is_stored(v.dtype)}
    bits = 8 * sum(v.bytes for v in few) / max(sum(v.size for v in few), 1)
    named = sorted(whole) + ([f"{bits:.4g} bits each, scales included,"] if few else [])
    if not named:
        return lines
    held = f"weights that the file holds in {' and in '.join(named)}"
    if tape.training:
        return [
            *lines,
            f"{held} are trained in {p.weights} behind a DequantizeLinear, and not trained"
            " elsewhere",
        ]
    return [
        *lines,
        f"{held} stay so" + ("; products of 8-bit operands run in int8" if whole else ""),
    ]


# ------------------------------------------------------------------ tied matrices
def _stored(graph: onnx.GraphProto) -> dict[str, Stored]:
    """Initializers by name.

    A matrix that is the transpose of another, number by number, is the same parameter: exporters
    write tied embeddings so.
    """
    stored = {
        i.name: Stored(i.name, tuple(i.dims), onnx.TensorProto.DataType.Name(i.data_type), i)
        for i in graph.initializer
    }
    for i in graph.sparse_initializer:
        name = i.values.name
        form = onnx.TensorProto.DataType.Name(i.values.data_type)
        stored[name] = Stored(name, tuple(i.dims), form, i.values)
    for name, s in stored.items():
        of = name.removesuffix("_scale")
        if of != name and (f"{of}_zero_point" in stored or f"{of}_quantized" in stored):
            stored[name] = s._replace(role="scale")
    matrices: dict[tuple[int, ...], list[Stored]] = {}
    for s in stored.values():
        internal = s.proto.data_location != onnx.TensorProto.EXTERNAL
        if s.floating and len(s.shape) == 2 and min(s.shape) > 1 and internal:
            matrices.setdefault(s.shape, []).append(s)
    for shape, found in matrices.items():
        others = matrices.get(shape[::-1], [])
        if shape[0] <= shape[1] or not others:
            continue
        columns = [(other, _numbers(other)) for other in others]
        for s in found:
            ours = _numbers(s)
            for other, theirs in columns:
                if _transposed(ours, theirs):
                    stored[other.name] = other._replace(name=s.name)
    return stored


def _numbers(s: Stored) -> np.ndarray:
    """The numbers of a matrix, without a copy where that is possible."""
    raw: Any = s.proto.raw_data
    width = {"FLOAT": "<u4", "FLOAT16": "<u2", "BFLOAT16": "<u2", "DOUBLE": "<u8"}[s.format]
    if not raw:
        return s.numbers()
    return np.frombuffer(raw, dtype=width).reshape(s.shape)


def _transposed(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether b holds the numbers of a, transposed; a matrix of one number is no such pair."""
    if a.dtype != b.dtype or not np.array_equal(a[0], b[:, 0]):
        return False
    return bool((a != a[0, 0]).any()) and np.array_equal(a, b.T)
