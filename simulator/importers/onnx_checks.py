"""Whether an ONNX graph is sound, and its model-local functions put in place of their calls.

What a file claims costs nothing to write: a tensor of 2^40 numbers, a function that calls another
ten times, which calls another ten times. Such claims are refused before anything is computed.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import Any

from roofcast.hwdb.errors import BadInput, one_line
from roofcast.simulator.importers.onnx_call import quoted, sizes_of
from roofcast.simulator.importers.onnx_extra import inliner, onnx

NODES = 50_000  # of the largest graph, with its functions in place of their calls
DEEPEST = 16  # graphs within graphs: bodies of loops, branches
STANDARD = ("", "ai.onnx")

# bits of an element; of others, one byte
BITS = {
    "FLOAT": 32, "FLOAT16": 16, "BFLOAT16": 16, "DOUBLE": 64, "INT64": 64, "INT32": 32,
    "INT16": 16, "UINT64": 64, "UINT32": 32, "UINT16": 16, "COMPLEX64": 64, "COMPLEX128": 128,
    "INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2,
}  # fmt: skip
FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


def checked(proto: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """The same model, its nodes in the order in which they can run, functions put in place.

    Raises BadInput for anything that cannot be run.
    """
    if not proto.graph.node:
        raise BadInput(f"{where}: is not an ONNX model, or was cut off: it has no nodes")
    _check_opsets(proto, where)
    check_size(proto, where)
    for tensor in tensors_of(proto, where):
        _check_tensor(tensor, where)
    _check_graph(proto.graph, where)
    if proto.functions:
        proto = _expanded(proto, where)
    _sort(proto.graph, where, frozenset())
    return proto


# ------------------------------------------------------------------ tensors
def _graphs(nodes: Iterable[onnx.NodeProto], where: str, depth: int = 0) -> Iterator:
    """The graphs within nodes, and those within these. Raises BadInput where they are too deep."""
    for node in nodes:
        for a in node.attribute:
            for graph in (a.g, *a.graphs) if a.HasField("g") or a.graphs else ():
                if depth >= DEEPEST:
                    raise BadInput(
                        f"{where}: graphs within graphs, more than {DEEPEST} deep, at node"
                        f" {quoted(node.name or node.op_type)}"
                    )
                yield graph
                yield from _graphs(graph.node, where, depth + 1)


def _all_graphs(proto: onnx.ModelProto, where: str) -> Iterator:
    yield proto.graph
    yield from _graphs(proto.graph.node, where)
    for f in proto.functions:
        yield from _graphs(f.node, where)


def tensors_of(proto: onnx.ModelProto, where: str) -> Iterator:
    """Every tensor that a model holds: initializers and constants, also of inner graphs."""
    nodes = [f.node for f in proto.functions]
    for graph in _all_graphs(proto, where):
        yield from graph.initializer
        nodes.append(graph.node)
    for group in nodes:
        for node in group:
            for a in node.attribute:
                if a.HasField("t"):
                    yield a.t
                yield from a.tensors


def _format(tensor: onnx.TensorProto, where: str) -> str:
    try:
        return onnx.TensorProto.DataType.Name(tensor.data_type)
    except ValueError:
        raise BadInput(
            f"{where}: tensor {quoted(tensor.name)} has a format that onnx {onnx.__version__} does"
            f" not know ({tensor.data_type})"
        ) from None


def width_of(tensor: onnx.TensorProto, where: str) -> int:
    """Bits of an element. Raises BadInput for an unknown format."""
    return BITS.get(_format(tensor, where), 8)


def elements_of(tensor: onnx.TensorProto, where: str) -> int:
    """Elements that a tensor claims to have. Raises BadInput if they are too many or negative."""
    return prod(sizes_of(tensor.dims, f"{where}: tensor {quoted(tensor.name)}"))


def _check_tensor(tensor: onnx.TensorProto, where: str) -> None:
    """Whether a tensor holds as many numbers as its shape says."""
    claimed, form = elements_of(tensor, where), _format(tensor, where)
    if form == "UNDEFINED" and claimed:
        raise BadInput(f"{where}: tensor {quoted(tensor.name)} has no format")
    if tensor.data_location == onnx.TensorProto.EXTERNAL or not claimed:
        return
    if tensor.HasField("raw_data"):
        held: float = len(tensor.raw_data) * 8 // width_of(tensor, where)
        fits = len(tensor.raw_data) == -(-claimed * width_of(tensor, where) // 8)
    else:
        held = max(len(getattr(tensor, f)) for f in FIELDS)
        per = {"COMPLEX64": 2.0, "COMPLEX128": 2.0}.get(form, min(width_of(tensor, where) / 8, 1))
        fits = held == -(-claimed * per // 1)
    if not fits:
        raise BadInput(
            f"{where}: tensor {quoted(tensor.name)} claims {claimed:,} numbers"
            f" {list(tensor.dims)[:8]} and holds {held:,}; was it cut off?"
        )


# ------------------------------------------------------------------ graphs
def _check_opsets(proto: onnx.ModelProto, where: str) -> None:
    newest = onnx.defs.onnx_opset_version()
    for o in proto.opset_import:
        if o.domain in STANDARD and not 1 <= o.version <= newest:
            raise BadInput(
                f"{where}: opset {o.version} of ai.onnx is unknown; onnx {onnx.__version__} knows 1"
                f" to {newest}"
            )


def _check_graph(graph: onnx.GraphProto, where: str) -> None:
    """Whether every output of the graph is computed."""
    written = {o for n in graph.node for o in n.output}
    written |= {i.name for i in graph.initializer} | {i.name for i in graph.input}
    written |= {i.values.name for i in graph.sparse_initializer}
    missing = next((o.name for o in graph.output if o.name not in written), None)
    if not graph.output or missing is not None:
        problem = (
            "it has no outputs" if missing is None else f"nothing computes output {quoted(missing)}"
        )
        raise BadInput(f"{where}: the graph is incomplete: {problem}; was it cut off?")


def check_size(proto: onnx.ModelProto, where: str) -> None:
    """Refuse more nodes than can be run, those of functions counted at each of their calls."""
    bodies = {(f.domain, f.name): f for f in proto.functions}
    known: dict[tuple[str, str], int] = {}

    def too_many(total: int) -> BadInput:
        return BadInput(
            f"{where}: the graph has {float(total):,.6g} nodes with those of its functions; at most"
            f" {NODES:,} are run"
        )

    def nodes_in(group: Sequence[onnx.NodeProto], stack: tuple, depth: int) -> int:
        total = 0
        if len(group) > NODES:
            raise too_many(len(group))
        if depth > DEEPEST:
            raise BadInput(f"{where}: graphs within graphs, more than {DEEPEST} deep")
        for node in group:
            key = node.domain, node.op_type
            total += nodes_of(key, stack) if key in bodies else 1
            for a in node.attribute:
                for graph in (a.g, *a.graphs) if a.HasField("g") or a.graphs else ():
                    total += nodes_in(graph.node, stack, depth + 1)
        return total

    def nodes_of(key: tuple[str, str], stack: tuple) -> int:
        if key in stack:
            raise BadInput(f"{where}: the function {quoted(key[1])} calls itself")
        if len(stack) > 2 * DEEPEST:
            raise BadInput(f"{where}: functions call each other more than {2 * DEEPEST} deep")
        if key not in known:
            known[key] = 1 + nodes_in(bodies[key].node, (*stack, key), 0)
        return known[key]

    total = nodes_in(proto.graph.node, (), 0)
    if total > NODES:
        raise too_many(total)


def check_text(proto: onnx.ModelProto, where: str) -> None:
    """Refuse names that are not UTF-8, which protobuf gives as bytes."""
    groups = [proto.graph.node, *(f.node for f in proto.functions)]
    named: list[Any] = [proto.graph, *proto.functions]
    while groups:
        for node in groups.pop():
            texts = [node.name, node.op_type, node.domain, *node.input, *node.output]
            for a in node.attribute:
                texts.append(a.name)
                groups += [g.node for g in (a.g, *a.graphs) if g.node]
                named += [g for g in (a.g, *a.graphs) if g.node]
            if not all(isinstance(text, str) for text in texts):
                raise BadInput(
                    f"{where}: a node has a name that is not UTF-8; is the file damaged?"
                )
    for graph in named:
        for part in ("input", "output", "initializer", "value_info"):
            for value in getattr(graph, part, ()):
                if not isinstance(value if isinstance(value, str | bytes) else value.name, str):
                    raise BadInput(
                        f"{where}: a tensor has a name that is not UTF-8; is the file damaged?"
                    )


def _expanded(proto: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """The model with its functions in place of their calls."""
    bare = onnx.ModelProto()
    bare.CopyFrom(onnx.ModelProto(ir_version=proto.ir_version, functions=proto.functions))
    bare.opset_import.extend(proto.opset_import)
    graph = bare.graph
    graph.name = proto.graph.name or "graph"
    for part in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(graph, part).extend(getattr(proto.graph, part))
    try:
        bare = inliner.inline_local_functions(bare)
    except Exception as error:  # of onnx's C++, any
        raise BadInput(
            f"{where}: its functions cannot be put in place of their calls: {one_line(error)[:120]}"
        ) from None
    bare.graph.initializer.extend(proto.graph.initializer)
    return bare


def _sort(graph: onnx.GraphProto, where: str, outer: frozenset[str]) -> None:
    """Put nodes in the order in which they can run; the same for inner graphs.

    Raises BadInput for a name that is written twice or never, and for a cycle.
    """
    given = {i.name for i in graph.initializer} | {i.name for i in graph.input}
    given |= {i.values.name for i in graph.sparse_initializer}
    _check_written_once(graph, where, given)
    writer = {o: i for i, n in enumerate(graph.node) for o in n.output if o}
    visible = outer | given | frozenset(writer)
    waits: list[int] = []
    then: dict[int, list[int]] = {}
    for i, node in enumerate(graph.node):
        read = set(_read(node))
        for name in read:
            if name not in visible:
                raise BadInput(
                    f"{where}: node {quoted(node.name or node.op_type)} reads {quoted(name)}, which"
                    " nothing computes"
                )
        before = {writer[n] for n in read if n in writer}
        waits.append(len(before))
        for b in before:
            then.setdefault(b, []).append(i)
    order = _order(waits, then)
    if len(order) < len(waits):
        stuck = graph.node[min(set(range(len(waits))) - set(order))]
        raise BadInput(
            f"{where}: the graph has a cycle at node {quoted(stuck.name or stuck.op_type)}"
        )
    if order != list(range(len(order))):
        nodes = [graph.node[i] for i in order]
        copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
        del graph.node[:]
        graph.node.extend(copies)
    for node in graph.node:
        for a in node.attribute:
            for inner in (a.g, *a.graphs) if a.HasField("g") or a.graphs else ():
                _sort(inner, where, visible)


def _order(waits: list[int], then: dict[int, list[int]]) -> list[int]:
    """Nodes in an order in which they can run: their own, where that is one."""
    ready = [i for i, n in enumerate(waits) if not n]
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for j in then.get(i, ()):
            waits[j] -= 1
            if not waits[j]:
                heapq.heappush(ready, j)
    return order


def _check_written_once(graph: onnx.GraphProto, where: str, given: set[str]) -> None:
    for kind, names in (
        ("initializers", [i.name for i in graph.initializer]),
        ("inputs", [i.name for i in graph.input]),
    ):
        if len(set(names)) < len(names):
            ((twice, _),) = Counter(names).most_common(1)
            raise BadInput(f"{where}: two {kind} are called {quoted(twice)}")
    written: set[str] = set()
    for node in graph.node:
        for o in node.output:
            if o and (o in written or o in given):
                raise BadInput(
                    f"{where}: node {quoted(node.name or node.op_type)} writes {quoted(o)}, which"
                    " has a value already"
                )
            written.add(o)


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, also from within its inner graphs."""
    yield from (n for n in node.input if n)
    for a in node.attribute:
        for graph in (a.g, *a.graphs) if a.HasField("g") or a.graphs else ():
            own = {i.name for i in graph.initializer} | {i.name for i in graph.input}
            own |= {o for n in graph.node for o in n.output}
            for inner in graph.node:
                yield from (n for n in _read(inner) if n not in own)
            yield from (o.name for o in graph.output if o.name and o.name not in own)
