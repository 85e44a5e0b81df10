"""Names of the rows of an ONNX graph: submodules of the net, and repeated layers where names are
flat.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from roofcast.simulator.importers.onnx_call import Stored
from roofcast.simulator.importers.onnx_extra import onnx

PRODUCTS = frozenset(
    "MatMul Gemm Conv ConvTranspose Einsum MatMulInteger ConvInteger QLinearConv QLinearMatMul"
    " QGemm FusedMatMul FusedGemm FusedConv NhwcConv MatMulNBits MatMulBnb4 MatMulIntegerToFloat"
    " DynamicQuantizeMatMul".split()
)
SCOPES = "pkg.torch.onnx.name_scopes"  # where PyTorch's newer exporter writes the submodules
OUTPUTS = ("duplicated",)  # parts of names that onnxruntime adds behind those of tensors
LONGEST_NAME = 120  # characters of a row's name
LONGEST_LAYER = 3000  # nodes of the longest repeated layer that is looked for
SHORTEST_LAYER = 3  # nodes


class Label(NamedTuple):
    """Name and kind of the row in which a node stands."""

    name: str
    op: str


def labels(nodes: Sequence[onnx.NodeProto], stored: Mapping[str, Stored] = {}) -> list[Label]:
    """Names of nodes in our style: /layer1/conv/Conv -> layer1.conv; kind and place without a name.

    The nodes of a submodule with one product are one row of that kind. One with several products,
    such as attention written out, has a row for each node: /attn/MatMul_1 -> attn.MatMul_1. Where
    most nodes have no submodule in their names, equal stretches of nodes are layers: MatMul_17 of
    the second of them is layers.1.matmul2.
    """
    paths = _numbered(nodes, [_path(node) for node in nodes])
    products: dict[str, list[str]] = {}
    for node, (scope, _) in zip(nodes, paths, strict=True):
        if scope and node.op_type in PRODUCTS:
            products.setdefault(scope, []).append(node.op_type.lower())
    scoped = sum(bool(scope) for scope, _ in paths)
    layers = {} if 2 * scoped > len(nodes) else _layers(nodes, stored)
    found = []
    for place, (node, (scope, own)) in enumerate(zip(nodes, paths, strict=True)):
        op, here = _plain(node.op_type.lower()), products.get(scope, [])
        if place in layers:
            found.append(Label(layers[place], op))
        elif len(here) == 1:
            found.append(Label(scope, here[0]))
        elif here:
            found.append(Label(f"{scope}.{own}", op))
        else:
            found.append(Label(scope or own or f"{op}{place}", op))
    return found


def _numbered(
    nodes: Sequence[onnx.NodeProto], paths: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Paths whose own names are given where the file has none: MatMul, MatMul_1 in a submodule."""
    taken: dict[tuple[str, str], int] = {}
    found = []
    for node, (scope, own) in zip(nodes, paths, strict=True):
        if scope and not own:
            op = _plain(node.op_type)
            n = taken[scope, op] = taken.get((scope, op), -1) + 1
            own = f"{op}_{n}" if n else op
        found.append((scope, own))
    return found


def _plain(name: str) -> str:
    """A name without control characters, and not too long."""
    shown = "".join(c if c.isprintable() else "?" for c in name[:LONGEST_NAME])
    return shown if len(name) <= LONGEST_NAME else f"{shown[:-3]}..."


def _path(node: onnx.NodeProto) -> tuple[str, str]:
    """The submodule of a node, if its name or its metadata tells it, and its own name in it.

    The own name is empty where its number may count all nodes of the graph.
    """
    for entry in node.metadata_props:
        if entry.key == SCOPES:
            scopes = re.findall(r"'([^']*)'", entry.value[:4000])
            if len(scopes) > 1 and scopes[-2]:
                return _plain(scopes[-2]), ""
    name = _plain(node.name)
    parts = [p for p in name.removeprefix("fused ").strip("/").split("/") if p]
    if len(parts) > 1:
        own = parts[-1] if parts[-1].rstrip("0123456789_") == node.op_type else ""
        return ".".join(p for p in parts[:-1] if p not in OUTPUTS and "_output_" not in p), own
    weight = re.fullmatch(r"([\w.]+)\.\w+_(De|Q)uantizeLinear", name)  # of a weight
    return (weight[1], "") if weight else ("", ".".join(parts))


def _layers(nodes: Sequence[onnx.NodeProto], stored: Mapping[str, Stored]) -> dict[int, str]:
    """Names of the nodes of repeated layers, by the node's place: layers.0.matmul1."""
    kinds: dict[Hashable, int] = {}
    looks = np.array([kinds.setdefault(_look(n, stored), len(kinds)) for n in nodes])
    heavy = np.array([n.op_type in PRODUCTS or "Attention" in n.op_type for n in nodes])
    found: dict[int, str] = {}
    todo, stacks = [(0, len(nodes))], 0
    while todo and stacks < 64:
        start, end = todo.pop()
        at, period, count = _longest(looks[start:end], heavy[start:end])
        if not count:
            continue
        at += start
        stack = f"layers{stacks + 1}" if stacks else "layers"
        stacks += 1
        for i in range(period):
            op = nodes[at + i].op_type
            before = sum(n.op_type == op for n in nodes[at : at + i])
            several = sum(n.op_type == op for n in nodes[at : at + period]) > 1
            own = _plain(op.lower()) + (str(before + 1) if several else "")
            for k in range(count):
                found[at + k * period + i] = f"{stack}.{k}.{own}"
        todo += [(at + count * period, end), (start, at)]
    return found


def _look(node: onnx.NodeProto, stored: Mapping[str, Stored]) -> Hashable:
    """What makes two nodes alike: the operator, and the shapes of its weights."""
    weights = tuple(stored[n].shape if n in stored else None for n in node.input)
    return node.domain, node.op_type, weights, len(node.output)


def _longest(looks: np.ndarray, heavy: np.ndarray) -> tuple[int, int, int]:
    """Begin, length and number of the equal stretches in a row that cover most nodes.

    Each has a product. (0, 0, 0) if there are none.
    """
    best, n = (0, 0, 0), len(looks)
    for period in range(SHORTEST_LAYER, min(n // 2, LONGEST_LAYER) + 1):
        if 2 * (n - n % period) <= best[1] * best[2]:
            break
        same = np.concatenate(([False], looks[period:] == looks[:-period], [False]))
        edges = np.flatnonzero(same[1:] != same[:-1])
        starts, lengths = edges[::2], edges[1::2] - edges[::2]
        if not len(starts):
            continue
        longest = int(np.argmax(lengths))
        count, at = int(lengths[longest]) // period + 1, int(starts[longest])
        more = count > 1 and period * count > best[1] * best[2]
        if more and heavy[at : at + period].any():
            best = at, period, count
    return best
