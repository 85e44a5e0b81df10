"""What the ranks of each pipeline stage hold at their fullest, by kind."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from roofcast.simulator.memory import IN_FLIGHT, MASTER, held
from roofcast.simulator.parallel.pipeline.schedule import in_flight
from roofcast.simulator.parallel.stages import Unit
from roofcast.simulator.parallel.traffic import Placement, expert_shard
from roofcast.simulator.work.ops.optimizer import optimizer
from roofcast.simulator.work.recompute import policy


class Rank(NamedTuple):
    """What the ranks of one pipeline stage hold at their fullest [B]."""

    stage: int
    layers: int
    parameters: float
    gradients: float
    optimizer: float
    activations: float
    transient: float
    buffers: float  # communication
    framework: float

    @property
    def total(self) -> float:
        """All kinds together [B]."""
        return sum(self[2:])


class Share(NamedTuple):
    """What a stage's units hold, all repetitions: weights, and bytes of one micro-batch. Broadcasts
    over layouts.
    """

    dense: float
    expert: float
    kept: float
    # the largest tensors in flight; under full recomputation a layer's inside with them
    transient: float
    largest_unit: float  # weights of the largest unit: what ZeRO-3 gathers at once
    resident: float  # bytes kept where those of layers are with the host
    twice: float = 0.0  # bytes of the gradients of weights that two ops use


def share(members: list[int], us: list[Unit], recompute: str) -> Share:
    """The share of a stage with these units."""
    dense, expert, kept = (
        sum(getattr(us[u], what) for u in members) for what in ("dense", "expert", "kept")
    )
    transient = max((us[u].largest for u in members), default=0.0)
    layer = max((us[u] for u in members if us[u].count), key=lambda u: u.inside, default=None)
    again = policy(recompute)
    if again.by_layer and layer is not None:
        transient = max(
            transient, layer.largest + layer.inside * (again.n if again.kind == "uniform" else 1)
        )
    largest = max((us[u].dense + us[u].expert for u in members), default=0.0)
    stays = sum(us[u].kept for u in members if not us[u].count)
    leaving = IN_FLIGHT * max((us[u].kept for u in members if us[u].count), default=0.0)
    return Share(
        dense, expert, kept, transient, largest, stays + leaving, sum(us[u].twice for u in members)
    )


def rank(stage: int, members: list[int], us: list[Unit], at: Placement) -> Rank:
    """A rank of the stage with these units at its fullest."""
    x = at.layout
    flying = in_flight(x.schedule, x.pp, x.vpp, x.micro_batches, stage)
    kinds = holdings(share(members, us, at.step.recipe.recompute), at, flying)
    return Rank(stage, sum(1 for u in members if us[u].count), *(float(v) for v in kinds))


def alone(layers: int, at: Placement) -> Rank:
    """One device with one micro-batch: the fullest moment of its step."""
    stack = at.step.recipe.stack
    h = held(at.step, stack.framework_bytes if at.device.kind != "cpu" else 0.0, stack.slack)
    return Rank(
        0,
        layers,
        h.parameters,
        h.gradients,
        h.optimizer,
        h.activations,
        h.transient,
        0.0,
        h.framework,
    )


def holdings(mine: Share, at: Placement, flying) -> tuple:
    """Bytes of a rank that holds a share with `flying` micro-batches in flight: parameters,
    gradients, optimizer, activations, transient, buffers, framework. Broadcasts over layouts.

    ZeRO shards optimizer states (1), gradients (2) and parameters (3) over the ranks that hold the
    same [rajbhandari2019].
    """
    step, x, recipe = at.step, at.layout, at.step.recipe
    stack, width, zero = recipe.stack, step.weight_width, np.asarray(x.zero)
    copies, experts = np.asarray(x.shard), expert_shard(x)

    def sharded(bytes_a_weight: float, since: int):
        return bytes_a_weight * (
            mine.dense / np.where(zero >= since, copies, 1)
            + mine.expert / np.where(zero >= since, experts, 1)
        )

    # gathered weights stay
    training, whole = (recipe.mode == "train", np.logical_not(x.reshard) & (zero == 3))
    grad = stack.gradient_bytes if stack.master else width
    o = optimizer(recipe.optimizer) if recipe.optimizer else None
    # the update makes its part of 16-bit gradients fp32 first
    widened = 4.0 if stack.gradient_bytes < 4.0 else 0.0
    states = (
        0.0
        if o is None or "optimizer" in recipe.offload
        else MASTER + widened
        if stack.master
        else o.states * width + o.fixed
    )
    kept = mine.kept * flying
    if "activations" in recipe.offload:
        kept = np.minimum(kept, mine.resident)
    activations = (kept if training else 0.0) + step.input_bytes
    # a rank's shard is a part of what stays gathered
    parameters = np.where(whole, sharded(width, 4), sharded(width, 3))
    gathered = np.where(whole, 0.0, 2 * 2.0 * mine.largest_unit * (zero == 3))
    buckets = (
        grad
        * (mine.dense + mine.expert)
        * ((zero == 0) & (np.asarray(x.dp * x.cp) > 1) & (not stack.master) & training)
    )
    framework = (stack.framework_bytes if at.device.kind != "cpu" else 0.0) + stack.slack * (
        activations + mine.transient
    )
    late = np.greater(x.pp, 1) & whole  # gradients are reduced when the last micro-batch is through
    gradients = np.where(late, sharded(grad, 4), sharded(grad, 2)) if training else 0.0
    if (
        training and not stack.master
        # a table used twice: the output layer's new gradient, at the end the embedding's and their sum
    ):
        table = np.where(np.equal(x.pp, 1) & (zero < 2), mine.twice, 0.0)
        gradients = gradients + table + np.maximum(table - activations - mine.transient, 0.0)
    return (
        parameters,
        gradients,
        sharded(states, 1),
        activations,
        mine.transient,
        gathered + buckets,
        framework,
    )
