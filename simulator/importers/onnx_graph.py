"""An ONNX graph -> Model: nodes become ops of the tape, so that backward and what is kept are
PyTorch's for the same ops.

A file is only data: nothing in it runs. Initializers that reach an op as floating operands are
parameters, a batch norm's statistics apart; whether one was a buffer where it was exported, ONNX
does not say. What depends on shapes alone (Shape, Gather, Concat before a Reshape ...) is computed;
an op we have no formula for moves its bytes and is listed. Floating tensors take the precision of
the step, whatever the file was exported in.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from roofcast.hwdb.errors import BadInput, one_line
from roofcast.simulator.importers import spec
from roofcast.simulator.importers.onnx_call import Call, Named, Stored, moved
from roofcast.simulator.importers.onnx_ops import HANDLERS
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.tape import Tape, Value
from roofcast.simulator.work.traced import ALONE

try:
    import onnx
    from google.protobuf.message import EncodeError
    from onnx import numpy_helper, shape_inference
except ImportError:
    raise BadInput(
        "reading an .onnx file needs the onnx package, which is not installed: pip install"
        " 'roofcast[onnx]'"
    ) from None

FORMATS = {
    "FLOAT": None,
    "FLOAT16": None,
    "BFLOAT16": None,
    "DOUBLE": None,
    "INT64": "int64",
    "INT32": "int32",
    "INT16": "fp16",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
    "UINT64": "int64",
    "UINT32": "int32",
}
BROKEN = (IndexError, ValueError, TypeError, AttributeError, KeyError, ZeroDivisionError)
REFUSED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What ONNX's reference implementation raises where it has no such op (NotImplementedError, a
RuntimeError), where an attribute or an operand is missing or does not fit, or where the result
would not fit into memory.
"""
SMALL = 1 << 14  # elements: constants up to here are computed with
FOLDED = 64  # elements: floating constants up to here may be computed with


class Axis(NamedTuple):
    """One length of an input: a number, or a name that is open."""

    size: int | None
    name: str


def from_onnx(
    source, inputs=(), *, dims: dict[str, int] | None = None, name: str | None = None
) -> Model:
    """Model of an ONNX file (or of a ModelProto in hand).

    `inputs`: shapes as `spec.Input` or text, by name ("x=64x3x224x224") or in the graph's order.
    `dims`: lengths of open axes by their name ({"batch": 64}). An open first axis is the batch, 1
    where nothing is said; any other open axis must be given.
    """
    proto = source if isinstance(source, onnx.ModelProto) else _read(Path(source))
    where = (
        str(source)
        if not isinstance(source, onnx.ModelProto)
        else proto.graph.name or "the ONNX graph"
    )
    graph = proto.graph
    stored = _stored(graph)
    asked = [spec.parse(i) if isinstance(i, str) else i for i in inputs]
    fed = _fed(where, [i for i in graph.input if i.name not in stored], asked, dims or {})
    axes = spec.axes(fed)

    def program(tape: Tape, batch: int, size: int | None):
        if tape.parallel != ALONE:
            raise BadInput(
                f"{where}: an imported graph runs whole on every device; use data parallelism (dp,"
                " ZeRO), not tp, sp, cp or ep"
            )
        _run(tape, proto, stored, spec.resized(fed, batch, size), where)

    return Model(
        name or (where if isinstance(source, onnx.ModelProto) else Path(source).stem),
        "onnx",
        axes.takes,
        axes.size,
        program,
        None,
        where,
        axes.batch,
    )


def _read(path: Path):
    if not path.is_file():
        raise BadInput(f"{path}: no such file; wanted an ONNX model")
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's, its parsers', the file system's
        raise BadInput(
            f"{path}: is not an ONNX model, or was cut off ({one_line(error)})"
        ) from None
    if not proto.graph.node:
        raise BadInput(f"{path}: is not an ONNX model, or was cut off: there are no nodes in it")
    written = {o for n in proto.graph.node for o in n.output} | {
        i.name for i in (*proto.graph.initializer, *proto.graph.input)
    }
    missing = next((o.name for o in proto.graph.output if o.name not in written), None)
    if not proto.graph.output or missing is not None:
        raise BadInput(
            f"{path}: the graph is not whole: "
            + (f"nothing computes its output {missing!r}" if missing else "it has no outputs")
            + "; was it cut off?"
        )
    if proto.functions:
        from onnx import inliner

        proto = inliner.inline_local_functions(proto)
    return proto


def _stored(graph) -> dict[str, Stored]:
    """Initializers by name. A matrix that is another one turned over, number by number, is the same
    parameter: tied embeddings.
    """
    stored = {
        i.name: Stored(i.name, tuple(i.dims), onnx.TensorProto.DataType.Name(i.data_type), i)
        for i in graph.initializer
    }
    matrices: dict[tuple, list[Stored]] = {}
    for s in stored.values():
        if (
            s.floating
            and len(s.shape) == 2
            and min(s.shape) > 1
            and s.proto.data_location != onnx.TensorProto.EXTERNAL
        ):
            matrices.setdefault(s.shape, []).append(s)
    for shape, found in matrices.items():
        for s in found if shape[0] > shape[1] else ():
            turned = [
                o
                for o in matrices.get(shape[::-1], ())
                if np.array_equal(numpy_helper.to_array(o.proto), numpy_helper.to_array(s.proto).T)
            ]
            for other in turned:
                stored[other.name] = other._replace(name=s.name)
    return stored


# ------------------------------------------------------------------ what it is fed
def _fed(
    where: str, declared, asked: list[spec.Input], dims: dict[str, int]
) -> tuple[spec.Input, ...]:
    if not declared:
        raise BadInput(f"{where}: the graph takes no input; there is nothing to run")
    names = [i.name for i in declared]
    unknown = next((i.name for i in asked if i.name and i.name not in names), None)
    if unknown is not None:
        raise BadInput(f"{where}: no input {unknown!r}; inputs: {', '.join(names)}")
    by_name = {i.name: i for i in asked if i.name}
    in_order = iter([i for i in asked if not i.name])
    fed = tuple(_one(where, i, by_name.get(i.name) or next(in_order, None), dims) for i in declared)
    if next(in_order, None) is not None:
        raise BadInput(
            f"{where}: takes {len(names)} inputs ({', '.join(names)}); {len(asked)} were given"
        )
    return fed


def _one(where: str, declared, given: spec.Input | None, dims: dict[str, int]) -> spec.Input:
    tensor = declared.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
    axes = [
        Axis(d.dim_value if d.HasField("dim_value") else None, d.dim_param)
        for d in tensor.shape.dim
    ]
    shown = "x".join(str(a.size or a.name or "?") for a in axes)
    if given is not None:
        wrong = len(given.shape) != len(axes) or any(
            a.size not in (None, n) for a, n in zip(axes[1:], given.shape[1:], strict=True)
        )
        if wrong and tensor.HasField("shape"):
            raise BadInput(
                f"{where}: input {declared.name} is {shown}; {spec.written([given])} does not"
                " fit it"
            )
        return spec.Input(declared.name, given.shape, FORMATS.get(kind))
    shape = [
        a.size or dims.get(a.name) or (1 if place == 0 else None) for place, a in enumerate(axes)
    ]
    if None in shape or not shape:
        raise BadInput(
            f"{where}: input {declared.name} is {shown}: say how long what is open is, --input"
            f" {declared.name}=" + "x".join(str(n or "N") for n in shape)
        )
    return spec.Input(declared.name, tuple(shape), FORMATS.get(kind))


# ------------------------------------------------------------------ running
def _run(tape: Tape, proto, stored: dict, fed: tuple[spec.Input, ...], where: str):
    t = Named(tape)
    known: dict[str, object] = dict(stored)
    for i in fed:
        known[i.name] = tape.input(i.shape, i.dtype)
    inferred: dict[str, tuple] | None = None
    unknown: dict[str, list] = {}
    uncomputed: dict[str, list] = {}
    for place, node in enumerate(_unfolded(proto.graph.node, known)):
        call = Call(t, node, [known.get(n) if n else None for n in node.input], _attributes(node))
        outs = folded(call, uncomputed)
        if outs is None:
            name = label(node, place)
            t.announced.clear()
            with tape.op(name, node.op_type.lower()):
                try:
                    outs = HANDLERS[node.op_type](call) if node.op_type in HANDLERS else None
                except BadInput as error:
                    raise BadInput(f"{where}: node {name} ({node.op_type}): {error}") from None
                except (
                    BROKEN
                ) as error:  # shapes that hang on numbers: ONNX may have written them down
                    problem = f"{type(error).__name__}: {error}"
                else:
                    problem = ""
                if outs is None:
                    inferred = _inferred(proto, fed, tape.said) if inferred is None else inferred
                    if problem and any(n and n not in inferred for n in node.output):
                        raise BadInput(
                            f"{where}: node {name} ({node.op_type}) does not fit what arrives at"
                            f" it: {problem}"
                        )
                    outs = _unknown(call, inferred, unknown)
        known.update(
            zip(node.output, outs if isinstance(outs, (list, tuple)) else [outs], strict=False)
        )
    if uncomputed:
        listed = ", ".join(f"{op} x{n} ({why})" for op, (n, why) in sorted(uncomputed.items()))
        tape.said.append(
            f"numbers of the graph that onnx could not compute, taken as tensors: {listed}"
        )
    if unknown:
        total = sum(k.read + k.written for k in tape.kernels) or 1.0
        share = 100 * sum(b for _, b in unknown.values()) / total
        listed = ", ".join(
            f"{op} x{n}" for op, (n, _) in sorted(unknown.items(), key=lambda item: -item[1][1])
        )
        tape.said.append(
            f"ops without a formula, costed as the bytes they touch ({share:.2g} % of all bytes):"
            f" {listed}"
        )


def _unfolded(nodes, known: dict):
    """The nodes in their order; of an If whose condition is known, those of its branch."""
    for node in nodes:
        condition = known.get(node.input[0]) if node.op_type == "If" else None
        if not isinstance(condition, np.ndarray):
            yield node
            continue
        branch = _attributes(node)["then_branch" if condition.all() else "else_branch"]
        known.update({i.name: numpy_helper.to_array(i) for i in branch.initializer})
        yield from _unfolded(branch.node, known)
        known.update(zip(node.output, (known.get(o.name) for o in branch.output), strict=False))


def _attributes(node) -> dict:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _unknown(call: Call, inferred: dict[str, tuple], unknown: dict[str, list]) -> list[Value]:
    """An op without a formula: reads its operands, writes results of the shapes that ONNX infers
    (else of its first operand's).
    """
    given = call.values()
    like = given[0].shape if given else (1,)
    outs = [call.t.new(*inferred.get(n, (like, None)), grad=call.grad) for n in call.node.output]
    entry = unknown.setdefault(call.node.op_type, [0, 0.0])
    entry[0], entry[1] = entry[0] + 1, entry[1] + moved(call, "elementwise", outs)
    return outs


def label(node, place: int) -> str:
    """/layer1/conv/Conv -> layer1.conv; a node without a name is called by its kind and place."""
    parts = [p for p in node.name.strip("/").split("/") if p]
    if len(parts) > 1 and parts[-1].rstrip("0123456789_") == node.op_type:
        parts.pop()
    return ".".join(parts) or f"{node.op_type.lower()}{place}"


def folded(call: Call, uncomputed: dict[str, list]):
    """The numbers that a node computes from numbers; None where it computes with tensors, or where
    ONNX refuses: then `uncomputed` counts it under its op, with the first reason.
    """
    node = call.node
    if node.op_type == "Constant":
        value = call.attributes.get("value")
        if value is not None:
            return [numpy_helper.to_array(value)]
        return [np.array(next(iter(call.attributes.values())))]
    if node.op_type == "Shape":
        x = call.ins[0]
        shape = np.array(x.shape if x is not None else (), dtype=np.int64)
        return [shape[call.attributes.get("start", 0) : call.attributes.get("end", len(shape))]]
    if node.op_type == "Size" and call.ins[0] is not None:
        return [np.array(int(np.prod(call.ins[0].shape)), dtype=np.int64)]
    numbers = [_number(i) for i in call.ins if i is not None]
    if not numbers or any(n is None for n in numbers):
        return None
    from onnx.reference import ReferenceEvaluator

    try:
        done = ReferenceEvaluator(node).run(
            None, {n: _number(i) for n, i in zip(node.input, call.ins, strict=True) if n}
        )
    except REFUSED as error:
        uncomputed.setdefault(node.op_type, [0, _reason(error)])[0] += 1
        return None
    return done if all(isinstance(d, np.ndarray) and d.size <= SMALL for d in done) else None


def _number(value):
    if isinstance(value, np.ndarray):
        return value
    if (
        isinstance(value, Stored)
        and np.prod(value.shape) <= (FOLDED if value.floating else SMALL)
        and not value.learned
    ):
        return numpy_helper.to_array(value.proto)
    return None


def _reason(error: Exception) -> str:
    """An error of others on one line, no longer than 120 characters."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 120 else f"{words[:117]}..."


def _inferred(proto, fed, said: list[str]) -> dict[str, tuple]:
    """Shapes that ONNX itself infers, once the inputs are fixed; where it cannot, none, and `said`
    has the reason.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    sizes = {i.name: i.shape for i in fed}
    for i in fixed.graph.input:
        for d, n in zip(i.type.tensor_type.shape.dim, sizes.get(i.name, ()), strict=False):
            d.dim_value = n
    try:
        fixed = shape_inference.infer_shapes(fixed, data_prop=True)
    except (
        shape_inference.InferenceError,
        EncodeError,
        ValueError,
    ) as error:  # the last two: more than protobuf's 2 GB
        said.append(
            "onnx could not infer shapes, so an op without a formula gives what its first operand"
            f" is: {_reason(error)}"
        )
        return {}
    found = {}
    for i in (*fixed.graph.value_info, *fixed.graph.output):
        tensor = i.type.tensor_type
        if all(d.HasField("dim_value") for d in tensor.shape.dim):
            found[i.name] = (
                tuple(d.dim_value for d in tensor.shape.dim),
                FORMATS.get(onnx.TensorProto.DataType.Name(tensor.elem_type)),
            )
    return found
