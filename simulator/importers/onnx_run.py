"""An ONNX graph run on a tape, node by node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

import roofcast.simulator.importers.onnx_quantized as quantized
import roofcast.simulator.importers.spec as spec
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.importers.onnx_call import (
    Call,
    Dequantized,
    Handler,
    NamedTape,
    NotKnown,
    Operand,
    Result,
    Several,
    Stored,
    moved,
    quoted,
)
from roofcast.simulator.importers.onnx_checks import STANDARD
from roofcast.simulator.importers.onnx_contrib import CONTRIB
from roofcast.simulator.importers.onnx_control import CONTROL, Control
from roofcast.simulator.importers.onnx_extra import EncodeError, onnx, shape_inference
from roofcast.simulator.importers.onnx_fold import FOLDED, folded, reason
from roofcast.simulator.importers.onnx_names import Label, labels
from roofcast.simulator.importers.onnx_ops import HANDLERS
from roofcast.simulator.work.tape import Tape, Value

FORMATS = {  # ONNX's formats in ours; None: floating-point, in the precision of the step
    "FLOAT": None, "FLOAT16": None, "BFLOAT16": None, "DOUBLE": None, "INT64": "int64",
    "INT32": "int32", "INT16": "fp16", "INT8": "int8", "UINT8": "uint8", "BOOL": "bool",
    "UINT64": "int64", "UINT32": "int32",
}  # fmt: skip
ELEMENTS = {"int64": 7, "int32": 6, "int8": 3, "uint8": 2, "bool": 9}  # ONNX's numbers of formats
# raised by a handler if a node's shapes do not fit, or depend on values that are not known
BROKEN = (IndexError, ValueError, TypeError, AttributeError, KeyError, ArithmeticError)
RUNS = 60_000  # nodes that are run at most, those of loops and branches each time
ONE_BY_ONE = 4000  # nodes that loops run in every repetition, rather than once and multiplied

DOMAINS: dict[str, dict[str, Handler]] = {**dict.fromkeys(STANDARD, HANDLERS), **CONTRIB}


class Inferred(NamedTuple):
    """Shape and format of a tensor as ONNX infers them."""

    shape: tuple[int, ...]
    dtype: str | None


def format_of(elem_type: int) -> str | None:
    """Our name of an ONNX element type; None: floating-point, in the precision of the step."""
    return FORMATS.get(onnx.TensorProto.DataType.Name(elem_type))


class Inner(NamedTuple):
    """A graph and what is known of it before it runs."""

    graph: onnx.GraphProto
    labels: list[Label]
    stored: dict[str, Stored]
    readers: dict[str, list[str]]  # operators that read a tensor, by its name


class Run:
    """One run of a graph: what is known of its tensors so far."""

    def __init__(
        self,
        tape: Tape,
        proto: onnx.ModelProto,
        stored: dict[str, Stored],
        fed: Sequence[spec.Input],
        where: str,
        values: dict[str, np.ndarray] | None = None,
        inner: dict[int, Inner] | None = None,
    ):
        self.tape, self.named = tape, NamedTape(tape)
        self.proto, self.fed, self.where = proto, fed, where
        self.known: dict[str, Operand] = dict(stored)
        for i in fed:
            assert i.name is not None, "an input of a graph has a name"
            self.known[i.name] = tape.input(i.shape, i.dtype)
        self.known.update(values or {})
        self._stated: dict[str, Inferred] | None = None  # only once it is needed
        self.unknown: dict[str, tuple[int, float]] = {}  # op -> calls, bytes
        self.uncomputed: dict[str, tuple[int, str]] = {}  # op -> calls, first reason
        self.said: dict[str, int] = {}  # assumption -> nodes
        self.left, self.one_by_one = RUNS, ONE_BY_ONE
        self._inner = {} if inner is None else inner  # by identity of the graph
        self.wide: dict[int, Operand] = {}  # storage in 8 bits -> its floating-point numbers
        self._top = proto.graph
        if id(self._top) not in self._inner:
            self._inner[id(self._top)] = _inner(self._top, stored)

    def run(self) -> None:
        """Run every node and note what had to be assumed. Raises BadInput at a node that fails."""
        self.graph(self._top)
        self.tape.assumptions += self._notes()

    def say(self, line: str) -> None:
        """Note an assumption, once for all nodes that make it."""
        self.said[line] = self.said.get(line, 0) + 1

    # ------------------------------------------------------------------ nodes
    def graph(self, graph: onnx.GraphProto) -> None:
        """Run the nodes of the graph, or of one within it."""
        inner = self.inner(graph)
        for node, label in zip(graph.node, inner.labels, strict=True):
            self.left -= 1
            if self.left < 0:
                raise BadInput(
                    f"{self.where}: loops and branches run more than {RUNS:,} nodes; node"
                    f" {quoted(label.name)} is one of them"
                )
            self._node(node, label, inner.readers)

    def inner(self, graph: onnx.GraphProto) -> Inner:
        """What is known of a graph before it runs. Its weights are known from then on."""
        found = self._inner.get(id(graph))
        if found is None:
            own = {
                i.name: Stored(
                    f"{i.name} of graph {len(self._inner)}",
                    tuple(i.dims),
                    onnx.TensorProto.DataType.Name(i.data_type),
                    i,
                )
                for i in graph.initializer
            }
            found = self._inner[id(graph)] = _inner(graph, own)
        self.known.update(found.stored if graph is not self._top else {})
        return found

    def _node(self, node: onnx.NodeProto, label: Label, readers: dict[str, list[str]]) -> None:
        ins = [self.known.get(n) if n else None for n in node.input]
        narrow = "int8" if quantized.narrows(node, readers) else None
        call = Call(self.named, node, ins, attributes_of(node), narrow)
        try:
            results: Sequence[Operand] | None = folded(call, self.uncomputed)
            if results is None:
                result = self._computed(call, label)
                results = result if isinstance(result, list) else [result]
        except BadInput as error:
            if str(error).startswith(self.where):
                raise
            raise BadInput(
                f"{self.where}: node {label.name} ({node.op_type[:40]}): {error}"
            ) from None
        except BROKEN as error:
            raise BadInput(
                f"{self.where}: node {label.name} ({node.op_type[:40]}) does not fit its inputs:"
                f" {problem_of(error)}"
            ) from None
        self.known.update(zip(node.output, results, strict=False))

    def _computed(self, call: Call, label: Label) -> Result:
        """The results of a node that computes with tensors."""
        node = call.node
        self.named.announced.clear()
        handler = DOMAINS.get(node.domain, {}).get(node.op_type)
        if node.domain in STANDARD and node.op_type in CONTROL:
            return CONTROL[node.op_type](Control(self, call, label))
        with self.tape.op(*label):
            call = self._widened(call)
            if handler is not None:
                try:
                    return handler(call)
                except NotKnown:  # the file may state shapes that depend on values
                    shapes = self._declared(node)
                    if any(n and n not in shapes for n in node.output):
                        raise
            else:
                shapes = self._declared(node)
                if any(n and n not in shapes for n in node.output):
                    shapes = {**self._inferred(call), **shapes}
            return self._without_formula(call, shapes)

    def _declared(self, node: onnx.NodeProto) -> dict[str, Inferred]:
        """Shapes that the file states of a node's results."""
        if self._stated is None:
            graph = self.proto.graph
            self._stated = _shapes_in((*graph.value_info, *graph.output))
        return {n: self._stated[n] for n in node.output if n in self._stated}

    def _inferred(self, call: Call) -> dict[str, Inferred]:
        """Shapes that ONNX infers of a node's results; if it cannot, none, which is said once."""
        try:
            return _inferred(call, self.proto)
        # the last three are raised for files above protobuf's limit of 2 GB, or by C++
        except (shape_inference.InferenceError, EncodeError, ValueError, RuntimeError) as error:
            self.say(
                "onnx could not infer shapes, so the results of an op without a formula have the"
                f" shape of its first operand: {reason(error)}"
            )
            return {}

    def _widened(self, call: Call) -> Call:
        """The call with floating-point numbers where its op does not read those of 8 bits."""
        if not any(isinstance(i, Dequantized) for i in call.ins) or quantized.takes(call):
            return call
        ins = list(call.ins)
        for place, i in enumerate(ins):
            if isinstance(i, Dequantized):
                known = self.wide.get(i.x.storage)
                if known is None or known.shape != i.shape:
                    known = self.wide[i.x.storage] = quantized.widened(call.t, i.x)
                ins[place] = known
        return call._replace(ins=ins)

    def _without_formula(self, call: Call, inferred: dict[str, Inferred]) -> Result:
        """Results of the shapes that ONNX infers, else of the first operand's; counted by op."""
        call = call._replace(ins=[None if isinstance(i, Several) else i for i in call.ins])
        given = call.values()
        like = Inferred(given[0].shape if given else (1,), None)
        outs = [call.t.new(*inferred.get(n, like), grad=call.grad) for n in call.node.output]
        node = call.node
        name = node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"
        name = quoted(name)[1:-1]
        calls, bytes_ = self.unknown.get(name, (0, 0.0))
        self.unknown[name] = calls + 1, bytes_ + moved(call, "elementwise", outs)
        return outs

    # ------------------------------------------------------------------ notes
    def _notes(self) -> list[str]:
        lines = [line if n == 1 else f"{line} ({n} nodes)" for line, n in self.said.items()]
        if self.uncomputed:
            lines.append(
                "constants of the graph that onnx could not compute, treated as tensors: "
                + _shortened(
                    [f"{op} x{n} ({why})" for op, (n, why) in sorted(self.uncomputed.items())]
                )
            )
        if self.unknown:
            total = sum(k.read + k.written for k in self.tape.kernels) or 1.0
            share = 100 * sum(b for _, b in self.unknown.values()) / total
            by_bytes = sorted(self.unknown.items(), key=lambda item: -item[1][1])
            lines.append(
                "ops without a formula, costed by the bytes that they move"
                f" ({share:.{0 if share >= 10 else 1}f} % of all bytes): "
                + _shortened([f"{op} x{n}" for op, (n, _) in by_bytes])
            )
        return lines


def _shortened(items: list[str], most: int = 12) -> str:
    rest = len(items) - most
    return ", ".join(items[:most]) + (f", and {rest} more" if rest > 0 else "")


def problem_of(error: BaseException) -> str:
    """What an exception of a handler says about a node, in words of the file."""
    if isinstance(error, KeyError):
        return f"the attribute {str(error.args[0])[:60]} is missing"
    if isinstance(error, IndexError):
        return "an input or an axis is missing"
    if isinstance(error, (TypeError, AttributeError, ArithmeticError)):
        return "an input or attribute is missing, or has another form than the operator takes"
    return reason(error) if isinstance(error, Exception) else ""


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes of a node as Python values."""
    return {
        a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if not a.ref_attr_name
    }


def _inner(graph: onnx.GraphProto, stored: dict[str, Stored]) -> Inner:
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    for clamp in reversed(
        graph.node
    ):  # one that alone reads a tensor passes on what reads its own result
        if clamp.op_type in quantized.PASSING and clamp.input and clamp.output:
            if readers.get(clamp.input[0]) == [clamp.op_type]:
                readers[clamp.input[0]] = readers.get(clamp.output[0], [])
    for o in graph.output:
        readers.setdefault(o.name, []).append("")
    return Inner(graph, labels(graph.node, stored), stored, readers)


def _inferred(call: Call, proto: onnx.ModelProto) -> dict[str, Inferred]:
    """Shapes that ONNX infers of the results of one node, from those of its inputs."""
    node, graph = call.node, onnx.GraphProto(name="one")
    graph.node.append(node)
    for name, i in dict(zip(node.input, call.ins, strict=True)).items():
        if i is None or isinstance(i, Several):
            continue
        if isinstance(i, np.ndarray) and i.size <= FOLDED:
            graph.initializer.append(onnx.numpy_helper.from_array(i, name))
            continue
        form = ELEMENTS.get(i.dtype, 1) if isinstance(i, Value) else 1
        if isinstance(i, Stored):
            form = i.proto.data_type
        elif isinstance(i, np.ndarray):
            form = onnx.helper.np_dtype_to_tensor_dtype(i.dtype)
        graph.input.append(onnx.helper.make_tensor_value_info(name, form, i.shape))
    graph.output.extend(onnx.ValueInfoProto(name=n) for n in node.output if n)
    alone = onnx.ModelProto(ir_version=proto.ir_version, graph=graph)
    alone.opset_import.extend(proto.opset_import)
    done = shape_inference.infer_shapes(alone)
    return _shapes_in((*done.graph.value_info, *done.graph.output))


def _shapes_in(values: Iterable[onnx.ValueInfoProto]) -> dict[str, Inferred]:
    """Shapes without open axes."""
    found = {}
    for i in values:
        tensor = i.type.tensor_type
        known = i.type.HasField("tensor_type") and tensor.HasField("shape")
        if known and all(d.HasField("dim_value") for d in tensor.shape.dim):
            shape = tuple(d.dim_value for d in tensor.shape.dim)
            found[i.name] = Inferred(shape, format_of(tensor.elem_type))
    return found
