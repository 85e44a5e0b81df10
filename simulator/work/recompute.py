"""Recomputation: activations dropped after the forward and computed again in backward [chen2016].

none           keep everything
selective      recompute attention: its scores, masks and statistics are not kept [korthikanti2022]
modules:A,B    recompute the parts of each layer whose names contain A or B: modules:mlp,norm
full           recompute every layer; keep only the input of each
uniform:N      as full, but keep the input of every Nth layer only and recompute N layers at once
every:N        recompute every Nth layer, and keep everything of the others
block:N        recompute the first N layers of each pipeline stage; keep everything of the others
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from roofcast.hwdb.errors import BadInput, unknown
from roofcast.simulator.work.traced import Block, Kept, Kernel, Node

KINDS = ("none", "selective", "full", "modules", "uniform", "every", "block")
FORMS = "none, selective, full, uniform:N, every:N, block:N, modules:NAME,NAME"


class Policy(NamedTuple):
    """The parsed `recompute` of a scenario."""

    kind: str
    n: int = 1  # layers, for uniform, every and block
    modules: tuple[str, ...] = ()

    @property
    def by_layer(self) -> bool:
        """Whether whole layers are recomputed."""
        return self.kind in ("full", "uniform", "every", "block")

    def layers(self, of: int, stages: int = 1) -> int:
        """How many of `of` identical layers, divided over pipeline stages, are recomputed.

        >>> policy("every:2").layers(33), policy("block:3").layers(32, stages=4)
        (16, 12)
        >>> policy("uniform:4").layers(32)
        32
        """
        if self.kind == "every":
            return of // self.n
        if self.kind == "block":
            return min(of, self.n * stages)
        return of if self.by_layer else 0

    def inputs(self, of: int) -> int:
        """How many of `of` recomputed layers keep their input."""
        return -(-of // self.n) if self.kind == "uniform" else of


@functools.cache
def policy(text: str) -> Policy:
    """Parse the text of a `recompute` option. Raises BadInput or UnknownName.

    >>> policy("block:4")
    Policy(kind='block', n=4, modules=())
    """
    kind, _, rest = text.partition(":")
    if kind not in KINDS:
        raise unknown("recompute", text, KINDS, f"known: {FORMS}")
    if kind == "modules":
        names = tuple(filter(None, (name.strip() for name in rest.split(","))))
        if not names:
            raise BadInput(f"recompute {text}: name parts of a layer, for example modules:mlp,norm")
        return Policy(kind, modules=names)
    if kind not in ("uniform", "every", "block"):
        if rest:
            raise BadInput(f"recompute {text}: {kind} takes no number; known: {FORMS}")
        return Policy(kind)
    if not rest.isdecimal() or int(rest) < 1:
        raise BadInput(
            f"recompute {text}: expected a number of layers of at least 1, for example {kind}:2"
        )
    return Policy(kind, int(rest))


def recomputed(
    nodes: Sequence[Node],
    blocks: Sequence[Block],
    kernels: Sequence[Kernel],
    saved: Sequence[Kept],
    how: str,
    name: str,
    stages: int = 1,
) -> tuple[list[Kernel], tuple[Kept, ...]]:
    """Kernels that run again, and the storages that are still kept.

    `how` is the text of a policy, `name` the model's name for messages, and `stages` the number of
    pipeline stages over which the layers are divided. Raises BadInput or UnknownName if the model
    has no such layers or parts.
    """
    p = policy(how)
    if p.by_layer:
        return _layers(nodes, blocks, kernels, saved, p, name, stages)
    return _parts(nodes, kernels, saved, p, name)


def _layers(
    nodes: Sequence[Node],
    blocks: Sequence[Block],
    kernels: Sequence[Kernel],
    saved: Sequence[Kept],
    p: Policy,
    name: str,
    stages: int,
) -> tuple[list[Kernel], tuple[Kept, ...]]:
    """Recompute whole layers: a share of the repetitions of each block."""
    again = {i: p.layers(block.count, stages) for i, block in enumerate(blocks) if block.count > 1}
    _check_layers(p, name, max(block.count for block in blocks), bool(again))
    of = [node.layer for node in nodes]
    complete = {b: blocks[b].count - n for b, n in again.items()}  # layers that keep everything
    kept = []
    for s in saved:
        block = of[s.node]
        if block not in complete:
            kept.append(s)
        elif complete[block]:
            kept.append(s._replace(count=s.count * complete[block] / blocks[block].count))
    first = {of[i]: i for i in reversed(range(len(nodes)))}  # block -> its first node
    for b, n in again.items():
        if n:
            kept.append(Kept(first[b], blocks[b].carried, p.inputs(n), "activation", -b))
    runs = [
        k._replace(phase="recompute", count=k.count * again[of[k.node]] // blocks[of[k.node]].count)
        for k in kernels
        if k.phase == "forward" and again.get(of[k.node])
    ]
    return runs, tuple(kept)


def _check_layers(p: Policy, name: str, most: int, repeated: bool) -> None:
    """Raise BadInput unless the model has enough identical layers in a row (`most`)."""
    if not repeated:
        raise BadInput(f"recompute {p.kind}: {name} has no repeated blocks to recompute; use none")
    if p.kind in ("uniform", "every", "block") and p.n > most:
        raise BadInput(
            f"recompute {p.kind}:{p.n}: {name} has {most} identical layers in a row; use"
            f" {p.kind}:{most} or less"
        )


def _parts(
    nodes: Sequence[Node], kernels: Sequence[Kernel], saved: Sequence[Kept], p: Policy, name: str
) -> tuple[list[Kernel], tuple[Kept, ...]]:
    """Recompute parts of layers: drop what they keep, except what other ops read or write."""
    within = _nodes_within(nodes, p, name)
    outside = {v.storage for k in kernels if k.node not in within for v in (*k.inputs, *k.outputs)}
    kept = tuple(s for s in saved if s.node not in within or s.storage in outside)
    runs = [
        k._replace(phase="recompute") for k in kernels if k.node in within and k.phase == "forward"
    ]
    return runs, kept


def _nodes_within(nodes: Sequence[Node], p: Policy, name: str) -> set[int]:
    """Nodes that a policy of parts covers. Raises BadInput or UnknownName if there are none."""
    if p.kind == "selective":
        within = {i for i, node in enumerate(nodes) if node.op == "attention"}
        if not within:
            raise BadInput(
                f"recompute selective: {name} has no attention to recompute; use none or full"
            )
        return within
    layers = {i: node.name for i, node in enumerate(nodes) if node.layer}
    within = {i for i, of in layers.items() if any(m in of for m in p.modules)}
    for module in p.modules:
        if not any(module in nodes[i].name for i in within):
            parts = sorted({part for of in layers.values() for part in of.split(".")[1:]})
            hint = f"no part of a layer of {name} has a name that contains it"
            raise unknown("recompute modules", module, parts, hint)
    return within
