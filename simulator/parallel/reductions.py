"""Gradients that data-parallel ranks sum once per step, and weights that they gather after the
update: seconds and bytes, and what of it compute does not hide. Broadcasts over columns of layouts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.constants import kernels
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.parallel.fabric import Group
from roofcast.simulator.parallel.traffic import (
    NOTHING,
    SIXTEEN,
    Cost,
    Placement,
    beside,
    expert_shard,
    scattered,
    wire_bytes,
)
from roofcast.simulator.software.stack import Stack
from roofcast.simulator.work.step import Step
from roofcast.simulator.work.traced import Weight


class Reduction(NamedTuple):
    """Traffic of data-parallel ranks that layers do not exchange one by one."""

    gradients: Cost  # summed or scattered
    weights: Cost  # gathered after the update

    @property
    def both(self) -> Cost:
        """Both, one after the other."""
        return self.gradients.plus(self.weights)


def reduction(
    at: Placement,
    dense: ArrayLike,
    expert: ArrayLike,
    tensors: ArrayLike = 1.0,
    buckets: ArrayLike = 1.0,
) -> Reduction:
    """The reduction of gradients of so many trained weights, outside experts and of experts, over
    the data-parallel ranks. tensors, buckets: that they are, and that their gradients fill.

    ZeRO-0: all-reduced once per step. ZeRO-1: scattered once per step (stacks that all-reduce them
    there too say so), ZeRO-2: each micro-batch, summed over the copies of a shard; then the updated
    weights are gathered. Stacks with buckets (PyTorch's DistributedDataParallel) sum the weights of
    a bucket one by one (all_reduce_coalesced), and scatter a bucket at once, since its weights are
    flattened first; stacks without, all weights at once. ZeRO-3 has done it layer by layer, except
    in a pipeline that keeps its weights gathered. Inference: nothing.
    """
    if at.step.recipe.mode == "infer":
        return Reduction(NOTHING, NOTHING)
    x, net, (width, grad) = at.layout, at.network, wire_bytes(at.step)
    stack = at.step.recipe.stack
    if at.step.trainable_parameters < at.step.parameters:  # what comes back is what was updated
        width = stack.gather_bytes or at.step.trained_width
    unsharded, each_micro_batch = np.equal(x.zero, 0), np.equal(x.zero, 2)
    whole_sums = stack.implementations.get("reduction") == "all_reduce"
    summed_whole = unsharded | (np.equal(x.zero, 1) & whole_sums)
    done = np.equal(x.zero, 3) & (np.equal(x.pp, 1) | x.reshard)
    gradients = updated = NOTHING
    for weights, whole, group, ranks in (
        (np.asarray(dense), "dp", "", x.shard),
        (np.asarray(expert), "expert", "expert ", expert_shard(x)),
    ):
        if not np.any(weights):
            continue
        far, sent = Cost(far_steps(net.group(whole)) * stack.far_s, 0.0), grad * weights
        each, full = (np.maximum(n if stack.bucket_bytes else 1.0, 1.0) for n in (tensors, buckets))
        reduced = net.cost("all_reduce", whole, sent / each).plus(far).times(each)
        shards = scattered(sent / full, ranks, group, net).plus(far).times(full)
        shards = shards.times(np.where(each_micro_batch, x.micro_batches, 1))
        back = net.cost("all_gather", f"{group}shard", width * weights)
        summed = Cost(
            *(np.where(summed_whole, *pair) for pair in zip(reduced, shards, strict=True))
        )
        gradients = gradients.plus(summed.times(np.where(done, 0.0, 1.0)))
        updated = updated.plus(back.times(np.where(done | unsharded, 0.0, 1.0)))
    return Reduction(gradients, updated)


def pieces(step: Step, unit: list[int], count: int) -> tuple[list[int], list[int]]:
    """Of each unit, all repetitions: trained weights, counted as tensors, and the buckets of the
    stack that their gradients fill, last weights first; a bucket is reduced when it is full.

    unit: of each node, which of `count`.
    """
    most, tensors, buckets = step.recipe.stack.bucket_bytes, [0] * count, [0] * count
    mine: list[list[Weight]] = [[] for _ in range(count)]
    for w in reversed(step.weights):
        if w.trainable:
            mine[unit[w.node]].append(w)
            tensors[unit[w.node]] += w.count
    for i, weights in enumerate(mine if most else ()):
        held = 0.0
        for w in weights * max((w.count for w in weights), default=0):
            held += SIXTEEN * w.size
            if held >= most:
                buckets[i], held = buckets[i] + 1, 0.0
    return tensors, buckets


def waited(
    at: Placement, moved: Reduction, last: ArrayLike, forward: ArrayLike, backward: ArrayLike
) -> np.ndarray:
    """Seconds of a reduction that compute does not hide.

    Gradients of a step are complete only in the backward of the last micro-batch, and hide behind
    that one pass; under ZeRO-2 each micro-batch's behind its own. Those of the weights before the
    first layer (the embedding), a part `last` of all, come at its end and hide behind nothing.
    Updated weights are gathered behind the forward of the next step's first micro-batch. An
    interleaved pipeline passes as many micro-batches as it has stages through one part of the
    model before the next, so that all parts but the last have their passes to hide behind.

    forward, backward: seconds of one micro-batch on the stage that reduces.
    """
    x, hide, contention = at.layout, at.hide, at.network.contention
    passes = np.where(np.equal(x.zero, 2), x.micro_batches, 1)
    if x.schedule == "interleaved":
        passes = passes * (x.pp * (x.vpp - 1.0) + 1.0) / x.vpp
    sent, last = moved.gradients.seconds, np.asarray(last)
    room, before = np.asarray(backward) * passes, np.asarray(forward) * passes
    gradients = beside(room, (1.0 - last) * sent, hide["dp"], contention) - room + last * sent
    if in_lists(at.step.recipe.stack):
        gradients = np.where(_scatters(x), sent, gradients)
    weights = beside(before, moved.weights.seconds, hide["params"], contention) - before
    return gradients + weights


def copied(at: Placement, tensors: ArrayLike) -> np.ndarray:
    """Seconds in which the host copies each rank's part of each gradient into a list, and of each
    weight out of one, once per step of ZeRO-1 and 2. PyTorch's reduce_scatter and all_gather of
    lists launch a copy for each of them; stacks that exchange one buffer have none.
    """
    x = at.layout
    if not in_lists(at.step.recipe.stack):
        return np.zeros(())
    return np.where(_scatters(x), 2.0 * kernels().host.native * x.shard * np.asarray(tensors), 0.0)


def far_steps(group: Group) -> np.ndarray:
    """Steps of a sum over several nodes: a chain within a node, a tree over nodes, and back; none
    within a node.
    """
    steps = 2.0 * (group.members - 1.0) + 2.0 * np.log2(np.maximum(group.nodes, 1.0))
    return np.where(group.nodes > 1.0, steps, 0.0)


def in_lists(stack: Stack) -> bool:
    """Does the stack scatter gradients out of lists of parts? They are copied on the stream of the
    backward, which then hides nothing; an all-reduce of whole gradients needs no copy.
    """
    return stack.implementations.get("exchange") == "lists"


def _scatters(x: Any) -> np.ndarray:
    """Does the layout scatter gradients, and gather weights, once per step or micro-batch?"""
    return (np.equal(x.zero, 1) | np.equal(x.zero, 2)) & np.greater(x.shard, 1)
