"""Recomputation: which activations are dropped after the forward and made again before the backward
[chen2016].

none           everything is kept
selective      attention cores run again: their scores, masks and statistics are not kept
               [korthikanti2022]
modules:A,B    parts of each layer whose name has A or B in it run again: modules:mlp,norm
full           each layer keeps only what is handed to it, and runs forward again before its
               backward
uniform:N      as full, but only every Nth layer's input is kept, and N layers run again at once
every:N        every Nth layer as under full, the others keep all
block:N        the first N layers of each pipeline stage as under full, the others keep all
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from roofcast.hwdb.errors import BadInput, unknown
from roofcast.simulator.work.traced import Block, Kept, Kernel, Node

KINDS = ("none", "selective", "full", "modules", "uniform", "every", "block")
FORMS = "none, selective, full, uniform:N, every:N, block:N, modules:NAME,NAME"


class Policy(NamedTuple):
    """What a scenario's `recompute` says."""

    kind: str
    n: int = 1  # layers, of uniform, every and block
    modules: tuple[str, ...] = ()

    @property
    def by_layer(self) -> bool:
        """Are whole layers made again?"""
        return self.kind in ("full", "uniform", "every", "block")

    def layers(self, of: float, stages: int = 1) -> float:
        """How many of so many alike layers, dealt to so many stages, are made again.

        >>> policy("every:2").layers(33), policy("block:3").layers(32, stages=4), policy("uniform:4").layers(32)
        (16, 12, 32)
        """
        if self.kind == "every":
            return of // self.n
        return min(of, self.n * stages) if self.kind == "block" else of if self.by_layer else 0

    def inputs(self, of: float) -> float:
        """How many of so many layers made again keep their input."""
        return -(-of // self.n) if self.kind == "uniform" else of


@functools.cache
def policy(text: str) -> Policy:
    """What the words mean.

    >>> policy("block:4")
    Policy(kind='block', n=4, modules=())
    """
    kind, _, rest = text.partition(":")
    if kind not in KINDS:
        raise unknown("recompute", text, KINDS, f"known: {FORMS}")
    if kind == "modules":
        names = tuple(filter(None, (name.strip() for name in rest.split(","))))
        if not names:
            raise BadInput(
                f"recompute {text}: which parts of a layer? for example modules:mlp,norm"
            )
        return Policy(kind, modules=names)
    if kind not in ("uniform", "every", "block"):
        if rest:
            raise BadInput(f"recompute {text}: {kind} takes no number; known: {FORMS}")
        return Policy(kind)
    if not rest.isdecimal() or int(rest) < 1:
        raise BadInput(
            f"recompute {text}: a whole number of layers of at least 1 is wanted, for example"
            f" {kind}:2"
        )
    return Policy(kind, int(rest))


def recomputed(
    nodes: list[Node],
    blocks: list[Block],
    kernels: list[Kernel],
    saved,
    how: str,
    name: str,
    stages: int = 1,
):
    """Kernels that run again, and what is still kept. `stages`: parts of the pipeline that layers
    are dealt to.
    """
    p = policy(how)
    return (
        _layers(nodes, blocks, kernels, saved, p, name, stages)
        if p.by_layer
        else _parts(nodes, kernels, saved, p, name)
    )


def _layers(nodes, blocks, kernels, saved, p: Policy, name: str, stages: int):
    """Whole layers: of each run of alike layers a share is made again."""
    again = {i: p.layers(block.count, stages) for i, block in enumerate(blocks) if block.count > 1}
    if not again:
        raise BadInput(f"recompute {p.kind}: {name} has no repeated blocks to recompute; use none")
    most = max(block.count for block in blocks)
    if p.kind in ("uniform", "every", "block") and p.n > most:
        raise BadInput(
            f"recompute {p.kind}:{p.n}: {name} has {most} alike layers in a row; use"
            f" {p.kind}:{most} or less"
        )
    of = [node.layer for node in nodes]
    left = {b: blocks[b].count - n for b, n in again.items()}  # layers that keep all
    kept = [s for s in saved if left.get(of[s.node], 1)]
    kept = [
        (
            s._replace(count=s.count * left[of[s.node]] / blocks[of[s.node]].count)
            if of[s.node] in left
            else s
        )
        for s in kept
    ]
    first = {of[i]: i for i in range(len(nodes) - 1, -1, -1)}
    kept += [
        Kept(first[b], blocks[b].carried, p.inputs(n), "activation", -b)
        for b, n in again.items()
        if n
    ]
    runs = [
        k._replace(phase="recompute", count=k.count * again[of[k.node]] // blocks[of[k.node]].count)
        for k in kernels
        if k.phase == "forward" and again.get(of[k.node])
    ]
    return runs, tuple(kept)


def _parts(nodes, kernels, saved, p: Policy, name: str):
    """Parts of layers: what they keep for themselves is dropped; what others read or hand them
    stays.
    """
    if p.kind == "selective":
        within = {i for i, node in enumerate(nodes) if node.op == "attention"}
        if not within:
            raise BadInput(
                f"recompute selective: {name} has no attention to recompute; use none or full"
            )
    else:
        within = {
            i
            for i, node in enumerate(nodes)
            if node.layer and any(m in node.name for m in p.modules)
        }
        for module in p.modules:
            if not any(module in nodes[i].name for i in within):
                parts = sorted(
                    {part for node in nodes if node.layer for part in node.name.split(".")[1:]}
                )
                raise unknown(
                    "recompute modules",
                    module,
                    parts,
                    f"no part of a layer of {name} has that in its name",
                )
    outside = {v.storage for k in kernels if k.node not in within for v in (*k.inputs, *k.outputs)}
    kept = tuple(s for s in saved if s.node not in within or s.storage in outside)
    return [
        k._replace(phase="recompute") for k in kernels if k.node in within and k.phase == "forward"
    ], kept
