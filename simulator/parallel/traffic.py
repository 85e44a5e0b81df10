"""What the ranks of a layout send each other: seconds and bytes of each exchange, and how much of
it compute hides.

A placement joins what a forecast over several devices consists of: one rank's step, its device, the
layout, and the network that the layout lies on. All formulas broadcast over columns of layouts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.collective_constants import collectives as network_constants
from roofcast.hwdb.records import Device
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.parallel import collectives
from roofcast.simulator.parallel.fabric import Fabric, Group, Groups, groups
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.step import Step

# exponent w with which traffic hides behind compute, (compute^w + traffic^w)^(1/w): 1 not at all,
# a large one almost completely. A stack may set its own.
HIDE = {
    "tp": 1.0, "ep": 1.0, "etp": 1.0, "cp": 1.0, "behind": 6.0, "dp": 6.0, "params": 1.0,
    "fsdp": 6.0, "copies": 6.0, "offload": 6.0,
}  # fmt: skip


SIXTEEN = 2.0  # bytes of a 16-bit weight


class Cost(NamedTuple):
    """Seconds and bytes of traffic. Floats, or arrays over layouts."""

    seconds: Any
    bytes: Any

    def plus(self, other: Cost) -> Cost:
        """Both, one after the other."""
        return Cost(self.seconds + other.seconds, self.bytes + other.bytes)

    def times(self, n: ArrayLike) -> Cost:
        """The same n times."""
        return Cost(self.seconds * n, self.bytes * n)


NOTHING = Cost(0.0, 0.0)


class Network(NamedTuple):
    """A fabric with the process groups of one layout on it."""

    fabric: Fabric
    groups: Groups

    @property
    def contention(self) -> float:
        """Compute that a collective takes from what runs beside it, per second of its time."""
        return network_constants().networks[self.fabric.levels[0].constants].contention

    def slowest(self, name: str) -> np.ndarray:
        """Time of the slowest node of a group for a layer, as a multiple of the mean."""
        z = largest_of(self.group(name).nodes)
        return 1.0 + network_constants().kinds.straggling * z

    def group(self, name: str) -> Group:
        """The process group that traffic of that name stays within."""
        g = self.groups
        return {
            "tp": g.tensor,
            "cp": g.context,
            "ep": g.expert,
            "etp": g.expert_tensor,
            "pp": g.pipeline,
            "dp": g.gradient,
            "expert": g.expert_gradient,
            "shard": g.shard,
            "copies": g.copies,
            "expert shard": g.expert_shard,
            "expert copies": g.expert_copies,
        }[name]

    def cost(
        self, kind: str, name: str, bytes_: ArrayLike, copies: int = 1, deduplicated: bool = False
    ) -> Cost:
        """One collective of `bytes_` over a group.

        kind: a function of collectives.py, "send", or "ring", which passes the buffer round in as
        many pieces as the group has members. In an all-to-all between experts, copies: of each
        token; deduplicated: only one copy per domain crosses the network.
        """
        group, c = self.group(name), network_constants()
        sent = sent_bytes(kind, bytes_, group.size)
        if kind == "ring":
            piece = np.asarray(bytes_) / group.size
            once = collectives.send_recv(piece, group, self.fabric, c)
            return Cost(once * (group.size - 1.0), sent)
        if kind == "send":
            return Cost(collectives.send_recv(bytes_, group, self.fabric, c), sent)
        if kind == "all_to_all":
            n = float(copies)
            seconds = collectives.all_to_all(bytes_, group, self.fabric, c, n, deduplicated)
            return Cost(seconds, sent)
        return Cost(getattr(collectives, kind)(bytes_, group, self.fabric, c), sent)


def sent_bytes(kind: str, bytes_: ArrayLike, members: ArrayLike) -> np.ndarray:
    """Bytes that each member of a group sends in one collective of `bytes_`.

    >>> float(sent_bytes("all_gather", 8.0, 4.0)), float(sent_bytes("all_reduce", 8.0, 4.0))
    (6.0, 12.0)
    >>> float(sent_bytes("send", 8.0, 4.0))
    8.0
    """
    size, n = np.asarray(bytes_), np.asarray(members)
    if kind == "send":
        return size * (n > 1)
    return size * (n - 1.0) / n * (2.0 if kind == "all_reduce" else 1.0)


def largest_of(n: ArrayLike) -> np.ndarray:
    """Mean of the largest of n standard normal numbers: the quantile (n - 3/8) / (n + 1/4)
    [blom1958], within 0.03, by the rational approximation 26.2.23 of Abramowitz and Stegun 1964.

    >>> [round(float(largest_of(n)), 2) for n in (1, 2, 8, 1024)]
    [0.0, 0.59, 1.43, 3.23]
    """
    t = np.sqrt(-2.0 * np.log(0.625 / (np.asarray(n, dtype=float) + 0.25)))
    above = 2.515517 + t * (0.802853 + t * 0.010328)
    below = 1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308))
    return np.maximum(t - above / below, 0.0)


def network(x: Any, fabric: Fabric) -> Network:
    """The groups of a Layout, or of columns of layouts, on a fabric."""
    return Network(fabric, groups(fabric, x.tp, x.cp, x.dp, x.pp, x.ep, x.etp, x.shard))


class Placement(NamedTuple):
    """One rank's step, where it runs, and how the ranks are laid out."""

    step: Step
    device: Device
    layout: Any  # a Layout, or columns of its degrees
    network: Network

    @property
    def hide(self) -> dict[str, float]:
        """Overlap exponents of each kind of traffic under the step's stack."""
        return {**HIDE, **self.step.recipe.stack.overlap}


def joined(compute: ArrayLike, traffic: ArrayLike, w: float) -> np.ndarray:
    """Seconds of compute with traffic hidden behind it: (compute^w + traffic^w)^(1/w)."""
    most = np.maximum(np.maximum(compute, traffic), 1e-30)
    c, t = np.asarray(compute) / most, np.asarray(traffic) / most
    return most * (c**w + t**w) ** (1.0 / w)


def beside(compute: ArrayLike, traffic: ArrayLike, w: float, contention: float) -> np.ndarray:
    """Seconds of compute with traffic behind it, whose kernels take multiprocessors and memory
    bandwidth from it as long as both run. Traffic that hides nothing (w = 1) takes none.
    """
    taken = contention if w > 1.0 else 0.0
    return joined(np.asarray(compute) + taken * np.minimum(compute, traffic), traffic, w)


def sharded_pass(
    at: Placement, compute: ArrayLike, gather: ArrayLike, scatter: ArrayLike, first: int, phase: str
) -> np.ndarray:
    """Seconds of one pass of a layer under ZeRO-3, with its weights gathered and its gradients
    scattered meanwhile; the mean over equal layers.

    Weights are gathered one layer ahead, and gradients scattered one layer behind: both hide behind
    the compute of the neighbours and share the links [zhao2023]. Nothing is left to hide the first
    layer's gather in the forward, and its scatter at the end of the backward.

    first: number of equal layers, where the model's first layer is one of them; else 0.
    """
    w, contention = at.hide["fsdp"], at.network.contention
    compute = np.asarray(compute) * at.network.slowest("dp")
    steady = beside(compute, np.asarray(gather) + scatter, w, contention)
    if not first:
        return steady
    last = np.asarray(gather if phase == "forward" else scatter)  # frozen weights scatter nothing
    alone = beside(compute, np.asarray(gather) + scatter - last, w, contention) + last
    return steady + np.maximum(alone - steady, 0.0) / first


def crossing(at: Placement, handed: ArrayLike, schedule: str) -> Cost:
    """Sending a micro-batch's activation of `handed` bytes to the next stage: seconds that a stage
    is held up, and bytes that a rank sends.

    Where the stack scatters activations, each rank of a tensor-parallel group sends its part and
    the receiving side gathers the whole ([narayanan2021], section 4.1). Interleaved schedules send
    behind compute where the stack overlaps sends, but while they fill and drain (`filling`).
    """
    cost = _handing_on(at, handed)
    return Cost(0.0, cost.bytes) if hidden_sends(at, schedule) else cost


def hidden_sends(at: Placement, schedule: str) -> bool:
    """Do the stages of a pipeline send behind compute?"""
    return schedule == "interleaved" and at.step.recipe.stack.overlap_p2p


def filling(at: Placement, handed: ArrayLike, schedule: str) -> np.ndarray:
    """Seconds that sends hold a pipeline up which hides them behind compute: those of its filling
    and draining.

    A rank passes p micro-batches through one of its v parts before it takes the next part. The
    first of them returns after p parts and p sends of other ranks, and nothing else is to do
    meanwhile: until the first backward, and again after the last forward, each of p v - 1 sends
    holds up all ranks. In between, backward passes fill the gaps.
    """
    x = at.layout
    if not hidden_sends(at, schedule):
        return np.zeros(())
    return 2.0 * (x.pp * np.asarray(x.vpp) - 1.0) * _handing_on(at, handed).seconds


def _handing_on(at: Placement, handed: ArrayLike) -> Cost:
    """One send to the next stage, exposed."""
    x, stack = at.layout, at.step.recipe.stack
    if not stack.scattered:
        return at.network.cost("send", "pp", handed)
    apart = np.logical_not(x.sp)
    cost = at.network.cost("send", "pp", np.asarray(handed) / np.where(apart, x.tp, 1))
    gather = at.network.cost("all_gather", "tp", handed).seconds
    return Cost(cost.seconds + gather * (apart & np.greater(x.pp, 1)), cost.bytes)


def wire_bytes(step: Step) -> tuple[float, float]:
    """Bytes of a weight that ranks gather, and of a gradient that they reduce.

    Weights travel as kernels read them, gradients as they are accumulated. A stack whose shards
    have another format than its 16-bit compute says what it sends (FSDP: `param_dtype` and
    `reduce_dtype` [zhao2023]); a step in fp32 sends fp32. Weights that are stored in fewer than 16
    bits are gathered as they are stored.
    """
    stack, width = step.recipe.stack, step.weight_width
    grad = stack.gradient_bytes if stack.master and width < 4.0 else step.trained_width
    policy = precision(step.recipe.precision)
    if policy.autocast is None and width >= 4.0:
        return width, grad
    gather = stack.gather_bytes or width
    return min(gather, width) if width < SIXTEEN else gather, stack.reduce_bytes or grad


def gathers(x: Any) -> bool:
    """Does the layout gather weights for each micro-batch? A pipeline that keeps them gathers once
    per step.
    """
    return bool(np.all(np.equal(x.zero, 3) & (np.equal(x.pp, 1) | x.reshard)))


def gathered(
    at: Placement,
    weights: tuple[ArrayLike, ArrayLike],
    trained: tuple[ArrayLike, ArrayLike],
    phase: str,
) -> tuple[Cost, Cost, Cost]:
    """ZeRO-3 traffic of one layer in one pass: weights gathered, gradients scattered, and what of
    the sums over the copies of a shard hides behind nothing.

    weights: outside experts, and of experts; trained: of both, those that have gradients. Weights
    are gathered before each pass, unless they stay from the forward; gradients are scattered after
    the backward [rajbhandari2019], and under hybrid sharding summed over the copies of the shard
    [zhao2023]: beside the scatters, or under stacks that hide no such sum (overlap.copies = 1)
    after them.
    """
    x, (gather, reduce) = at.layout, wire_bytes(at.step)
    down = up = alone = NOTHING
    hidden = at.hide["copies"] > 1.0
    for i, (group, n) in enumerate((("", x.shard), ("expert ", expert_shard(x)))):
        if np.any(weights[i]) and (phase == "forward" or np.all(x.reshard)):
            whole = gather * np.asarray(weights[i])
            down = down.plus(at.network.cost("all_gather", f"{group}shard", whole))
        if np.any(trained[i]) and phase == "backward":
            sent = reduce * np.asarray(trained[i])
            if hidden:
                up = up.plus(scattered(sent, n, group, at.network))
                continue
            up = up.plus(at.network.cost("reduce_scatter", f"{group}shard", sent))
            alone = alone.plus(at.network.cost("all_reduce", f"{group}copies", sent / n))
    return down, up, alone


def scattered(bytes_: ArrayLike, ranks: ArrayLike, group: str, net: Network) -> Cost:
    """Gradients scattered over the ranks of a shard, then summed over its copies. Where the shard
    lies within a node the two use different links, and the second half of one bucket overlaps with
    the first half of the next.
    """
    first = net.cost("reduce_scatter", f"{group}shard", bytes_)
    if not np.any(net.group(f"{group}copies").size > 1.0):
        return first
    second = net.cost("all_reduce", f"{group}copies", np.asarray(bytes_) / ranks)
    within_node = net.group(f"{group}shard").nodes <= 1.0
    beside = np.maximum(first.seconds, second.seconds)
    both = np.where(within_node, beside, first.seconds + second.seconds)
    return Cost(both, first.bytes + second.bytes)


def expert_shard(x: Any) -> np.ndarray:
    """Ranks that the states of an expert are sharded over."""
    return np.minimum(x.shard, np.maximum(x.tp * x.cp * x.dp // (x.ep * x.etp), 1))
