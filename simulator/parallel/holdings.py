"""Bytes that the ranks of each pipeline stage hold at peak, by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.memory import (
    GATHERED,
    IN_FLIGHT,
    UPDATE,
    WIDENED,
    asides,
    copy_width,
    fp32_copies,
    held,
    held_gradient,
    narrow_buffers,
    state_width,
)
from roofcast.simulator.parallel.pipeline.schedule import in_flight
from roofcast.simulator.parallel.stages import Unit
from roofcast.simulator.parallel.traffic import Placement, expert_shard, wire_bytes
from roofcast.simulator.times.offload import Beside, Widths, host_bytes
from roofcast.simulator.work.recompute import policy


class Rank(NamedTuple):
    """What the ranks of one pipeline stage hold at peak [bytes]."""

    stage: int
    layers: int
    moment: str  # of the peak; empty: a pass of a micro-batch
    parameters: float
    gradients: float
    optimizer: float
    activations: float
    transient: float
    buffers: float  # communication
    framework: float

    @property
    def total(self) -> float:
        """All kinds together [bytes]."""
        return sum(self[3:])


class Holdings(NamedTuple):
    """Bytes of a rank by kind. Floats, or arrays over layouts."""

    parameters: ArrayLike
    gradients: ArrayLike
    optimizer: ArrayLike
    activations: ArrayLike
    transient: ArrayLike
    buffers: ArrayLike
    framework: ArrayLike
    updating: ArrayLike = False  # whether the peak is in the optimizer step

    @property
    def total(self) -> np.ndarray:
        """All kinds together [bytes]."""
        return sum((np.asarray(v) for v in self[:-1]), np.zeros(()))


class Share(NamedTuple):
    """What the units of a stage hold, all repetitions: weights, and bytes of one micro-batch.
    Floats, or arrays over layouts.
    """

    dense: ArrayLike  # weights that data-parallel ranks share
    expert: ArrayLike  # weights of experts
    trained: ArrayLike  # of `dense`: those that are not frozen
    trained_expert: ArrayLike  # of `expert`
    kept: ArrayLike  # bytes for backward
    # bytes of the largest tensors in flight; under full recomputation with a layer's inside
    transient: ArrayLike
    largest_unit: ArrayLike  # weights of the largest unit, which ZeRO-3 gathers at once
    resident: ArrayLike  # bytes kept where those of layers are in host memory
    twice: ArrayLike = 0.0  # bytes of the gradients of weights that two ops use
    leaving: ArrayLike = 0.0  # of `resident`: layers on their way to host memory or back


def share(members: list[int], units: list[Unit], recompute: str, width: float = 2.0) -> Share:
    """The share of a stage that consists of these units (indices into `units`). Broadcasts over the
    numbers of the units.

    width: bytes per weight.
    """
    mine = [(units[u], n) for u, n in Counter(members).items()]
    layers = [u for u, _ in mine if u.layers]
    transient = _most(u.largest for u, _ in mine)
    again = policy(recompute)
    if again.by_layer and layers:
        inside: Any = layers[0].inside  # of the layer with the most inside
        largest: Any = layers[0].largest
        for u in layers[1:]:
            largest = np.where(u.inside > inside, u.largest, largest)
            inside = np.maximum(inside, u.inside)
        remade = again.n if again.kind == "uniform" else 1
        transient = np.maximum(transient, largest + inside * remade)
    stays = sum(u.kept * n for u, n in mine if not u.layers)
    leaving = IN_FLIGHT * _most(u.kept for u in layers)
    dense, trained = sum(u.dense * n for u, n in mine), sum(u.trained * n for u, n in mine)
    if len(units) - 1 in members and 0 not in members:
        # a table that embeds and gives the logits: the last stage has a copy [narayanan2021]
        dense += units[0].twice / width
        trained += units[0].twice / width
    return Share(
        dense=dense,
        expert=sum(u.expert * n for u, n in mine),
        trained=trained,
        trained_expert=sum(u.trained_expert * n for u, n in mine),
        kept=sum(u.kept * n for u, n in mine),
        transient=transient,
        largest_unit=_most(u.dense + u.expert for u, _ in mine),
        resident=stays + leaving,
        twice=sum(u.twice * n for u, n in mine),
        leaving=leaving,
    )


def _most(values: Iterable[ArrayLike]) -> Any:
    """The largest of the values, at least 0. Broadcasts."""
    found: Any = 0.0
    for value in values:
        found = np.maximum(found, value)
    return found


def rank(stage: int, members: list[int], units: list[Unit], at: Placement) -> Rank:
    """A rank of the stage that consists of these units, at peak."""
    x = at.layout
    flying = in_flight(x.schedule, x.pp, x.vpp, x.micro_batches, stage)
    kinds = holdings(
        share(members, units, at.step.recipe.recompute, at.step.weight_width), at, flying
    )
    layers = sum(1 for u in members if units[u].layers)
    *bytes_, updating = (float(np.asarray(v)) for v in kinds)
    return Rank(stage, layers, UPDATE if updating else "", *bytes_)


def beside_device(stage: int, members: list[int], units: list[Unit], at: Placement) -> Beside:
    """What a rank of the stage that consists of these units has offloaded [bytes]."""
    x, recipe = at.layout, at.step.recipe
    mine = share(members, units, recipe.recompute, at.step.weight_width)
    ranks = np.where(np.greater(x.zero, 0), x.shard, 1)
    own = ranks if "parameters" not in recipe.offload else np.where(np.equal(x.zero, 3), ranks, 1)
    weights = np.asarray(mine.dense) / own + np.asarray(mine.expert) / np.minimum(
        own, expert_shard(x)
    )
    trained = np.asarray(mine.trained) / ranks + np.asarray(mine.trained_expert) / np.minimum(
        ranks, expert_shard(x)
    )
    width = at.step.trained_width
    widths = Widths(at.step.weight_width, width, held_gradient(recipe.stack, width))
    found = host_bytes(recipe, weights, trained, widths)
    if "activations" not in recipe.offload:
        return found
    flying = in_flight(x.schedule, x.pp, x.vpp, x.micro_batches, stage)
    left = np.maximum(np.asarray(mine.kept) * flying - np.asarray(mine.resident), 0.0)
    return found._replace(host=found.host + left)


def alone(layers: int, at: Placement) -> Rank:
    """One device with one micro-batch: its step at peak."""
    h = held(at.step, _framework(at), at.step.recipe.stack.slack)
    kinds = (h.parameters, h.gradients, h.optimizer, h.activations, h.transient, 0.0, h.framework)
    return Rank(0, layers, h.moment, *map(float, kinds))


def _framework(at: Placement) -> float:
    """Bytes of context, kernels and workspaces; a CPU has none."""
    return at.step.recipe.stack.framework_bytes if at.device.kind != "cpu" else 0.0


def _at_peak(gradients: np.ndarray, mine: Share, at: Placement, gone: ArrayLike) -> np.ndarray:
    """Bytes of gradients at peak, of all weights' `gradients`. gone: bytes that are freed until the
    last of them are computed.
    """
    x, stack, width = at.layout, at.step.recipe.stack, at.step.trained_width
    if not stack.master:
        # a table used twice: the output layer's gradient; at the end the embedding's, and their sum
        whole = np.less(x.zero, 2) | np.equal(x.shard, 1)
        table = np.where(np.equal(x.pp, 1) & whole, mine.twice, 0.0)
        gradients = gradients + table + np.maximum(table - gone, 0.0)
    if stack.implementations.get("update") == "in_backward":
        # each unit's gradients are used up as soon as they are there, unless they are accumulated
        one = np.minimum(gradients, held_gradient(stack, width) * np.asarray(mine.largest_unit))
        gradients = np.where(np.equal(x.micro_batches, 1), one, gradients)
    if "parameters" in at.step.recipe.offload:  # of two units: computed, and leaving for the host
        most = GATHERED * held_gradient(stack, width) * np.asarray(mine.largest_unit)
        gradients = np.minimum(gradients, most)
    return gradients


def _weights(
    mine: Share, at: Placement, stay_gathered: np.ndarray, shard: np.ndarray, width: float
) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of a rank's weights, and of those that ZeRO-3 has gathered beside its shard.

    stay_gathered: whether weights stay between passes; shard: bytes of a rank's own; width: bytes
    of a weight.
    """
    step = at.step
    whole = width * (np.asarray(mine.dense) + np.asarray(mine.expert))
    gather = wire_bytes(step)[0]
    units = GATHERED * gather * np.asarray(mine.largest_unit)
    units = np.maximum(units, np.minimum(gather * step.recipe.stack.live_weights, whole))
    if "parameters" in step.recipe.offload:  # a rank's own shard is in host memory
        parameters = np.where(stay_gathered, whole, np.minimum(units, whole))
        return parameters, 0.0 * parameters
    # a rank's own shard is part of the weights that stay gathered
    parameters = np.where(stay_gathered, whole, shard)
    return parameters, np.where(stay_gathered, 0.0, units * np.equal(at.layout.zero, 3))


def holdings(mine: Share, at: Placement, flying: ArrayLike) -> Holdings:
    """Bytes of a rank that holds a share, with `flying` micro-batches in flight. Broadcasts over
    layouts.

    ZeRO shards optimizer states (stage 1), gradients (2) and parameters (3) over the ranks that
    hold the same weights [rajbhandari2019].
    """
    step, x, recipe = at.step, at.layout, at.step.recipe
    stack, width, zero = recipe.stack, step.weight_width, np.asarray(x.zero)
    updated = step.trained_width
    training = recipe.mode == "train"
    weights = np.asarray(mine.dense), np.asarray(mine.expert)
    trained = np.asarray(mine.trained), np.asarray(mine.trained_expert)
    transient = np.asarray(mine.transient)

    def sharded(of: tuple[np.ndarray, ...], bytes_per_weight: float, since: int) -> np.ndarray:
        """Bytes of weights where ZeRO shards them from stage `since` on (4: never)."""
        of_dense = of[0] / np.where(zero >= since, np.asarray(x.shard), 1)
        if not np.any(of[1]):
            return bytes_per_weight * of_dense
        return bytes_per_weight * (of_dense + of[1] / np.where(zero >= since, expert_shard(x), 1))

    stay_gathered = np.logical_not(x.reshard) & (zero == 3)
    grad = held_gradient(stack, updated)
    kept = np.asarray(mine.kept) * flying
    stays = np.asarray(step.input_bytes)  # until the end of the backward
    if "activations" in recipe.offload:
        stays = stays + np.minimum(kept, np.asarray(mine.leaving))
        kept = np.minimum(kept, mine.resident)
    activations = (kept if training else 0.0) + step.input_bytes
    parameters, gathered = _weights(mine, at, stay_gathered, sharded(weights, width, 3), width)
    replicated = (zero == 0) & (np.asarray(x.dp * x.cp) > 1)
    buckets = grad * sum(trained) * (replicated & (not stack.master) & training)
    if stack.implementations.get("gradients") == "ddp" and training:
        # PyTorch's DistributedDataParallel around a model whose sums are kept elsewhere
        buckets = updated * sum(trained) * np.greater(np.asarray(x.dp * x.cp), 1)
    # with weights that stay gathered, gradients are reduced after the last micro-batch
    late = np.greater(x.pp, 1) & stay_gathered
    gradients = np.where(late, sharded(trained, grad, 4), sharded(trained, grad, 2)) * training
    if training:
        gradients = _at_peak(gradients, mine, at, activations + transient - stays)
    slack = stack.slack * (activations + transient)
    # the update, once the activations and gathered weights are gone
    copied = sharded(trained, copy_width(recipe, updated), 1)
    copied = copied + fp32_copies(step) / np.where(zero >= 1, np.asarray(x.shard), 1)
    widened = sharded(trained, WIDENED if narrow_buffers(stack) else 0.0, 1)
    gone = activations + transient + slack + gathered
    more = np.maximum(step.input_bytes + copied + widened - gone, 0.0) * training
    updating, more = _with_asides(at, more, gone)
    return Holdings(
        parameters,
        gradients,
        sharded(trained, state_width(recipe, updated), 1),
        activations,
        transient + more,
        gathered + buckets,
        _framework(at) + slack,
        updating,
    )


def _with_asides(at: Placement, more: np.ndarray, gone: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Whether the peak is in the optimizer step, which takes `more` bytes than the passes, and what
    is taken then or while frozen models run first. gone: bytes of the passes, free by then.
    """
    updating = np.greater(more, 0.0)
    if not at.step.asides:
        return updating, more
    live = max(live for _, live in asides(at.step))
    first = (1.0 + at.step.recipe.stack.slack) * (at.step.input_bytes + live) - np.asarray(gone)
    return updating & np.greater(more, first), np.maximum(more, np.maximum(first, 0.0))
