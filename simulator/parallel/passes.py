"""Forward and backward of a rank's layers with what they send and copy to the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.constants import kernels as constants
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.memory import held_gradient
from roofcast.simulator.parallel.stages import Unit, in_pipeline
from roofcast.simulator.parallel.traffic import (
    Cost,
    Placement,
    expert_shard,
    gathered,
    gathers,
    joined,
    sharded_pass,
    wire_bytes,
)
from roofcast.simulator.times import offload as host_memory
from roofcast.simulator.times.dispatch import runs_ahead
from roofcast.simulator.times.host import combine


class Passes(NamedTuple):
    """Seconds of each unit's passes with its traffic, and of the whole model what is exposed [s]
    and sent [bytes] by kind of traffic. Floats, or arrays over layouts.
    """

    forward: list
    backward: list
    exposed: dict
    sent: dict


def passes(units: list[Unit], at: Placement) -> Passes:
    """Forward and backward of each unit with its traffic. Broadcasts over layouts.

    The host launches ahead of device and network together: where it is slower than both, traffic
    costs nothing. It runs ahead over layers of one kind, unless it waits in each of them for the
    device, as for the token counts of experts; that wait adds, since nothing runs meanwhile.
    """
    x = at.layout
    found = Passes([0.0] * len(units), [0.0] * len(units), {}, {})
    recipe = at.step.recipe
    copies = host_memory.Rates(np.inf)
    if recipe.offload:
        copies = host_memory.rates(recipe, at.device)
    if "activations" in recipe.offload and not any(u.layers for u in units):
        raise BadInput(
            "offload activations: those of repeated layers are offloaded, and this model has none;"
            " leave it out"
        )
    piped = in_pipeline(at)
    for i, u in enumerate(units):
        back = u.compute[1] + u.compute[2] - u.added / x.micro_batches
        host = u.host[0] + piped * u.called[0]
        forward = _pass(u, at, "forward", u.compute[0], host, copies, found)
        host = u.host[1] + u.host[2] + piped * u.called[1]
        backward = _pass(u, at, "backward", back, host, copies, found)
        found.forward[i], found.backward[i] = forward + u.waits[0], backward + u.waits[1]
    return found


def _pass(
    u: Unit,
    at: Placement,
    phase: str,
    base: ArrayLike,
    host: ArrayLike,
    copies: host_memory.Rates,
    found: Passes,
) -> np.ndarray:
    """Seconds of one pass of a unit with its traffic; adds what is exposed and sent to `found`.

    base, host: device and host seconds without traffic; copies: bandwidths to host memory.
    """
    times = max(u.layers, 1)
    stack = at.step.recipe.stack
    how = constants(), runs_ahead(u.layers, np.any(u.expert), stack), stack.blocking
    alone = combine(base, host, *how)
    seconds: Any = base
    waits: dict = {}
    for name, cost, with_it in _traffic_of_pass(u, at, phase, copies):
        after = with_it(seconds)
        waits[name] = waits.get(name, 0.0) + (after - seconds)
        found.sent[name] = found.sent.get(name, 0.0) + cost.bytes * times
        seconds = after
    whole = combine(seconds, host, *how)
    # how much of the device's wait the step feels
    felt = (whole - alone) / np.maximum(seconds - base, 1e-30)
    for name, wait in waits.items():
        found.exposed[name] = found.exposed.get(name, 0.0) + wait * felt * times
    return whole


def _traffic_of_pass(
    u: Unit, at: Placement, phase: str, copies: host_memory.Rates
) -> list[tuple[str, Cost, Callable[[ArrayLike], np.ndarray]]]:
    """Kind and cost of what one pass of a unit sends, and seconds of compute with it."""
    hide = at.hide
    phases = (phase,) if phase == "forward" else ("backward", "recompute")
    here = []

    def add(kind: str, cost: Cost, power: float) -> None:
        here.append((kind, cost, lambda seconds: joined(seconds, cost.seconds, power)))

    for (when, group, behind), cost in u.traffic.items():
        if when in phases:
            add(group, cost, 1.0 if behind is None else hide["behind" if behind else group])
    if gathers(at.layout) and np.any(np.greater(u.dense, 0.0) | np.greater(u.expert, 0.0)):
        trained = (u.trained, u.trained_expert)
        down, up, alone = gathered(at, (u.dense, u.expert), trained, phase)
        first = u.layers if 0 in u.places else 0
        sends = down.seconds, up.seconds, first, phase
        here.append(("fsdp", down.plus(up), lambda seconds: sharded_pass(at, seconds, *sends)))
        if np.any(alone.bytes):
            add("fsdp", alone, 1.0)
    if copies.link < np.inf:
        cost = offloaded(u, at, phase, copies)
        if np.any(cost.bytes):
            add("offload", cost, hide["offload"])
    return here


def offloaded(u: Unit, at: Placement, phase: str, copies: host_memory.Rates) -> Cost:
    """What one pass of a unit copies between the device and its host: activations of layers, the
    rank's shard of the weights, and in backward of their gradients. Broadcasts.
    """
    x, recipe = at.layout, at.step.recipe
    kept = u.kept if "activations" in recipe.offload and u.layers else 0.0
    weights: Any = 0.0
    gradients: Any = 0.0
    if "parameters" in recipe.offload:
        once = phase == "forward" or np.all(x.reshard)  # weights that stay come once
        weights = wire_bytes(at.step)[0] * shard_of(at, u.dense, u.expert) * once
        if phase == "backward":
            width = held_gradient(recipe.stack, at.step.trained_width)
            gradients = width * shard_of(at, u.trained, u.trained_expert)
    return Cost(*host_memory.copied(kept, weights, gradients, phase, copies))


def shard_of(at: Placement, dense: ArrayLike, expert: ArrayLike) -> np.ndarray:
    """Of so many weights outside and of experts, those that are a rank's own under ZeRO-3."""
    x = at.layout
    three = np.equal(x.zero, 3)
    found = np.asarray(dense) / np.where(three, x.shard, 1)
    if not np.any(expert):
        return found
    return found + np.asarray(expert) / np.where(three, expert_shard(x), 1)
