"""An ONNX graph run on a tape, node by node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

import roofcast.simulator.importers.spec as spec
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.importers.onnx_call import Call, NamedTape, Operand, Result, Stored, moved
from roofcast.simulator.importers.onnx_extra import EncodeError, numpy_helper, onnx, shape_inference
from roofcast.simulator.importers.onnx_fold import folded, reason
from roofcast.simulator.importers.onnx_ops import HANDLERS
from roofcast.simulator.work.tape import Tape, Value

FORMATS = {  # ONNX's formats in ours; None: floating-point, in the precision of the step
    "FLOAT": None, "FLOAT16": None, "BFLOAT16": None, "DOUBLE": None, "INT64": "int64",
    "INT32": "int32", "INT16": "fp16", "INT8": "int8", "UINT8": "uint8", "BOOL": "bool",
    "UINT64": "int64", "UINT32": "int32",
}  # fmt: skip
PRODUCTS = frozenset("MatMul Gemm Conv ConvTranspose Einsum MatMulInteger ConvInteger".split())
# raised by a handler if a node's shapes do not fit, or depend on values that are not known
BROKEN = (IndexError, ValueError, TypeError, AttributeError, KeyError, ZeroDivisionError)


class Inferred(NamedTuple):
    """Shape and format of a tensor as ONNX infers them."""

    shape: tuple[int, ...]
    dtype: str | None


def format_of(elem_type: int) -> str | None:
    """Our name of an ONNX element type; None: floating-point, in the precision of the step."""
    return FORMATS.get(onnx.TensorProto.DataType.Name(elem_type))


class Run:
    """One run of a graph: what is known of its tensors so far."""

    def __init__(
        self,
        tape: Tape,
        proto: onnx.ModelProto,
        stored: dict[str, Stored],
        fed: Sequence[spec.Input],
        where: str,
    ):
        self.tape, self.named = tape, NamedTape(tape)
        self.proto, self.fed, self.where = proto, fed, where
        self.known: dict[str, Operand] = dict(stored)
        for i in fed:
            assert i.name is not None, "an input of a graph has a name"
            self.known[i.name] = tape.input(i.shape, i.dtype)
        self.inferred: dict[str, Inferred] | None = None  # only once it is needed
        self.unknown: dict[str, tuple[int, float]] = {}  # op -> calls, bytes
        self.uncomputed: dict[str, tuple[int, str]] = {}  # op -> calls, first reason

    def run(self) -> None:
        """Run every node and note what had to be assumed. Raises BadInput at a node that fails."""
        written = list(self.proto.graph.node)
        named = {id(n): label for n, label in zip(written, labels(written), strict=True)}
        for node in self._unfolded(written):
            ins = [self.known.get(n) if n else None for n in node.input]
            call = Call(self.named, node, ins, attributes_of(node))
            results: Sequence[Operand] | None = folded(call, self.uncomputed)
            if results is None:
                label = named.get(id(node)) or labels([node])[0]  # of a branch: alone
                result = self._computed(call, label)
                results = result if isinstance(result, list) else [result]
            self.known.update(zip(node.output, results, strict=False))
        self.tape.assumptions += self._notes()

    def _computed(self, call: Call, label: Label) -> Result:
        """The results of a node that computes with tensors."""
        node, name, problem = call.node, label.name, ""
        self.named.announced.clear()
        with self.tape.op(*label):
            try:
                if node.op_type in HANDLERS:
                    return HANDLERS[node.op_type](call)
            except BadInput as error:
                raise BadInput(f"{self.where}: node {name} ({node.op_type}): {error}") from None
            except BROKEN as error:  # the file may state shapes that depend on values
                problem = f"{type(error).__name__}: {error}"
            if self.inferred is None:
                self.inferred = _inferred(self.proto, self.fed, self.tape.assumptions)
            if problem and any(n and n not in self.inferred for n in node.output):
                raise BadInput(
                    f"{self.where}: node {name} ({node.op_type}) does not fit its inputs: {problem}"
                )
            return self._without_formula(call, self.inferred)

    def _without_formula(self, call: Call, inferred: dict[str, Inferred]) -> list[Value]:
        """Results of the shapes that ONNX infers, else of the first operand's; counted by op."""
        given = call.values()
        like = Inferred(given[0].shape if given else (1,), None)
        outs = [call.t.new(*inferred.get(n, like), grad=call.grad) for n in call.node.output]
        calls, bytes_ = self.unknown.get(call.node.op_type, (0, 0.0))
        self.unknown[call.node.op_type] = calls + 1, bytes_ + moved(call, "elementwise", outs)
        return outs

    def _unfolded(self, nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
        """The nodes in order; for an If whose condition is known, those of its branch."""
        for node in nodes:
            condition = self.known.get(node.input[0]) if node.op_type == "If" else None
            if not isinstance(condition, np.ndarray):
                yield node
                continue
            branch = attributes_of(node)["then_branch" if condition.all() else "else_branch"]
            for i in branch.initializer:
                self.known[i.name] = numpy_helper.to_array(i)
            yield from self._unfolded(branch.node)
            for name, out in zip(node.output, branch.output, strict=False):
                self.known[name] = self.known.get(out.name)

    def _notes(self) -> list[str]:
        lines = []
        if self.uncomputed:
            by_name = sorted(self.uncomputed.items())
            listed = ", ".join(f"{op} x{n} ({why})" for op, (n, why) in by_name)
            lines.append(
                f"constants of the graph that onnx could not compute, treated as tensors: {listed}"
            )
        if self.unknown:
            total = sum(k.read + k.written for k in self.tape.kernels) or 1.0
            share = 100 * sum(b for _, b in self.unknown.values()) / total
            by_bytes = sorted(self.unknown.items(), key=lambda item: -item[1][1])
            listed = ", ".join(f"{op} x{n}" for op, (n, _) in by_bytes)
            lines.append(
                "ops without a formula, costed by the bytes that they move"
                f" ({share:.{0 if share >= 10 else 1}f} % of all bytes): {listed}"
            )
        return lines


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes of a node as Python values."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


class Label(NamedTuple):
    """Name and kind of the row in which a node stands."""

    name: str
    op: str


def labels(nodes: Sequence[onnx.NodeProto]) -> list[Label]:
    """Names of nodes in our style: /layer1/conv/Conv -> layer1.conv; kind and place without a name.

    The nodes of a submodule with one product are one row of that kind. One with several products,
    such as attention written out, has a row for each node: /attn/MatMul_1 -> attn.MatMul_1.
    """
    paths = [_path(node) for node in nodes]
    products: dict[str, list[str]] = {}
    for node, (scope, _) in zip(nodes, paths, strict=True):
        if scope and node.op_type in PRODUCTS:
            products.setdefault(scope, []).append(node.op_type.lower())
    found = []
    for place, (node, (scope, own)) in enumerate(zip(nodes, paths, strict=True)):
        op, here = node.op_type.lower(), products.get(scope, [])
        if len(here) == 1:
            found.append(Label(scope, here[0]))
        elif here:
            found.append(Label(f"{scope}.{own}", op))
        else:
            found.append(Label(scope or own or f"{op}{place}", op))
    return found


def _path(node: onnx.NodeProto) -> tuple[str, str]:
    """The submodule of a node, if its name tells it, and its own name in it."""
    parts = [p for p in node.name.strip("/").split("/") if p]
    if len(parts) > 1 and parts[-1].rstrip("0123456789_") == node.op_type:
        return ".".join(parts[:-1]), parts[-1]
    return "", ".".join(parts)


def _inferred(
    proto: onnx.ModelProto, fed: Sequence[spec.Input], assumptions: list[str]
) -> dict[str, Inferred]:
    """Shapes that ONNX infers for these inputs; if it cannot, none, and `assumptions` says why."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    sizes = {i.name: i.shape for i in fed}
    for i in fixed.graph.input:
        for d, n in zip(i.type.tensor_type.shape.dim, sizes.get(i.name, ()), strict=False):
            d.dim_value = n
    try:
        fixed = shape_inference.infer_shapes(fixed, data_prop=True)
    # the last two are raised for files above protobuf's limit of 2 GB
    except (shape_inference.InferenceError, EncodeError, ValueError) as error:
        assumptions.append(
            "onnx could not infer shapes, so the results of an op without a formula have the shape"
            f" of its first operand: {reason(error)}"
        )
        return {}
    found = {}
    for i in (*fixed.graph.value_info, *fixed.graph.output):
        tensor = i.type.tensor_type
        if all(d.HasField("dim_value") for d in tensor.shape.dim):
            shape = tuple(d.dim_value for d in tensor.shape.dim)
            found[i.name] = Inferred(shape, format_of(tensor.elem_type))
    return found
