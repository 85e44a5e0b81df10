"""Recomputation of the parts that a model's own framework checkpoints, where these are not the
repeated blocks: the residual blocks and transformer blocks of diffusers' U-Nets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from roofcast.simulator.work.traced import Checkpoint, Kept, Kernel, Node


def active(checkpoints: Sequence[Checkpoint], kernels: Sequence[Kernel]) -> list[Checkpoint]:
    """The checkpoints with a backward pass; those below everything that trains keep nothing."""
    trained = {k.node for k in kernels if k.phase == "backward"}
    return [c for c in checkpoints if any(i in trained for i in range(c.first, c.last))]


def checkpointed(
    nodes: Sequence[Node],
    kernels: Sequence[Kernel],
    saved: Sequence[Kept],
    checkpoints: Sequence[Checkpoint],
    savers: Mapping[int, tuple[int, ...]],
    carried: Mapping[int, int],
) -> tuple[list[Kernel], tuple[Kept, ...]]:
    """Kernels that run again, and the storages that are still kept, where every checkpoint keeps
    what it reads in place of what is inside.

    savers: storage -> ops that keep it; carried: storage that the first of repeated blocks reads
    -> storage that the others read.
    """
    checkpoints = active(checkpoints, kernels)
    inside = {i for c in checkpoints for i in range(c.first, c.last)}
    forward = [k for k in kernels if k.phase == "forward"]
    elsewhere = {v.storage for k in forward if k.node not in inside for v in k.outputs}
    there = {v.storage for k in forward for v in k.inputs} - {
        v.storage for k in forward for v in k.outputs
    }  # passed in from outside
    read = {v.storage for c in checkpoints for v in c.read}
    read |= {carried[s] for s in read if s in carried}
    kept: list[Kept] = []
    for s in saved:
        if s.behind is not None and s.node in inside:  # the output of the last block
            node, copies = s.behind
            if node not in inside:
                kept.append(s._replace(node=node, count=copies, behind=None))
            continue
        outside = [i for i in savers.get(s.storage, (s.node,)) if i not in inside]
        if outside:
            kept.append(s._replace(node=s.node if s.node in outside else outside[0]))
        elif s.storage not in read and s.storage in (elsewhere | there):
            kept.append(s)  # an argument of the checkpoint
    held = {s.storage for s in kept}
    for c in checkpoints:
        for v in c.read:
            if v.storage not in held and v.kind == "activation":
                held.add(v.storage)
                count = nodes[c.first].count if v.storage in carried else v.repeats
                kept.append(Kept(c.first, v.held, count, "activation", v.storage))
    runs = [k._replace(phase="recompute") for k in forward if k.node in inside]
    return runs, tuple(kept)
