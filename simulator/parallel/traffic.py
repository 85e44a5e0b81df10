"""What the ranks of a layout send each other: seconds and bytes of each exchange, and how much of
it hides behind compute.

A placement joins what a forecast over several devices is made of: one rank's step, its device, the
layout and the network that the layout lies on. All formulas broadcast over columns of layouts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from roofcast.hwdb.collective_constants import collectives as network_constants
from roofcast.hwdb.records import Device
from roofcast.simulator.parallel import collectives
from roofcast.simulator.parallel.fabric import Fabric, Group, Groups, groups
from roofcast.simulator.work.step import Step

HIDE = {
    "tp": 1.0,
    "ep": 1.0,
    "etp": 1.0,
    "cp": 1.0,
    "behind": 6.0,
    "dp": 1.6,
    "fsdp": 6.0,
    "offload": 6.0,
}
"""How traffic hides behind compute: (compute^w + traffic^w)^(1/w); 1 not at all, large almost all.

Fitted to published runs: w 1.6 for gradient reduction on 64 to 10752 GPUs, 6 for FSDP's gathers; a
stack may set its own.
"""


class Cost(NamedTuple):
    """Seconds and bytes of traffic."""

    seconds: float
    bytes: float

    def plus(self, other: Cost) -> Cost:
        """Both, one after the other."""
        return Cost(self.seconds + other.seconds, self.bytes + other.bytes)

    def times(self, n: float) -> Cost:
        """The same n times."""
        return Cost(self.seconds * n, self.bytes * n)


NOTHING = Cost(0.0, 0.0)


class Network(NamedTuple):
    """A fabric with the process groups of one layout laid on it."""

    fabric: Fabric
    groups: Groups

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
        self, kind: str, name: str, bytes_: float, copies: int = 1, deduplicated: bool = False
    ) -> Cost:
        """One collective of `bytes_` over a group; `ring` hands them round in as many pieces as the
        group has members.

        copies: of each token that experts exchange; `deduplicated`, one a domain crosses the
        network.
        """
        group, c = self.group(name), network_constants()
        sent = sent_bytes(kind, bytes_, group.size)
        if kind == "ring":
            return Cost(
                collectives.send_recv(bytes_ / group.size, group, self.fabric, c)
                * (group.size - 1.0),
                sent,
            )
        if kind == "send":
            return Cost(collectives.send_recv(bytes_, group, self.fabric, c), sent)
        if kind == "all_to_all":
            return Cost(
                collectives.all_to_all(bytes_, group, self.fabric, c, float(copies), deduplicated),
                sent,
            )
        return Cost(getattr(collectives, kind)(bytes_, group, self.fabric, c), sent)


def sent_bytes(kind: str, bytes_, members):
    """Bytes that each member of a group sends in one collective of `bytes_`.

    >>> sent_bytes("all_gather", 8.0, 4.0), sent_bytes("all_reduce", 8.0, 4.0), sent_bytes("send", 8.0, 4.0)
    (6.0, 12.0, 8.0)
    """
    if kind == "send":
        return bytes_ * (members > 1)
    return bytes_ * (members - 1.0) / members * (2.0 if kind == "all_reduce" else 1.0)


def network(x, fabric: Fabric) -> Network:
    """The groups of a layout, or of columns of layouts, on a fabric."""
    return Network(fabric, groups(fabric, x.tp, x.cp, x.dp, x.pp, x.ep, x.etp, x.shard))


class Placement(NamedTuple):
    """One rank's step, where it runs, and how the ranks are laid out."""

    step: Step
    device: Device
    layout: Any  # a Layout, or columns of its degrees
    network: Network

    @property
    def hide(self) -> dict[str, float]:
        """How sharply each kind of traffic hides behind compute under the step's stack."""
        return {**HIDE, **self.step.recipe.stack.overlap}


def joined(compute, traffic, w):
    """Seconds of compute with traffic hidden behind it: (compute^w + traffic^w)^(1/w)."""
    most = np.maximum(np.maximum(compute, traffic), 1e-30)
    return most * ((compute / most) ** w + (traffic / most) ** w) ** (1.0 / w)


def crossing(at: Placement, handed: float, schedule: str) -> Cost:
    """Handing a micro-batch's `handed` bytes to the next stage: seconds that a stage is held up,
    and bytes that a rank sends.

    Where the stack scatters them, each rank of a tensor-parallel group sends its part and the other
    side gathers the whole ([narayanan2021], section 4.1). Interleaved schedules send behind compute
    where the stack lets them.
    """
    x, stack = at.layout, at.step.recipe.stack
    apart = stack.scattered and not x.sp
    cost = at.network.cost("send", "pp", handed / (x.tp if apart else 1))
    if schedule == "interleaved" and stack.overlap_p2p:
        return Cost(0.0, cost.bytes)
    gathered = at.network.cost("all_gather", "tp", handed).seconds if apart else 0.0
    return Cost(cost.seconds + gathered * np.greater(x.pp, 1), cost.bytes)


def gathers(x) -> bool:
    """Are weights gathered for each micro-batch? In a pipeline that keeps them, once a step."""
    return bool(np.all(np.equal(x.zero, 3) & (np.equal(x.pp, 1) | x.reshard)))


def gathered(at: Placement, dense: float, expert: float, phase: str) -> Cost:
    """ZeRO-3: a layer's weights, so many dense and of experts, are gathered before each pass,
    unless they stay from the forward; its gradients are scattered after the backward
    [rajbhandari2019], and under hybrid sharding summed over the copies of the shard [zhao2023].
    """
    x, total = at.layout, NOTHING
    for weights, group, n in ((dense, "", x.shard), (expert, "expert ", expert_shard(x))):
        if weights and (phase == "forward" or np.all(x.reshard)):
            total = total.plus(at.network.cost("all_gather", f"{group}shard", 2.0 * weights))
        if weights and phase == "backward":
            total = total.plus(_scattered(2.0 * weights, n, group, at.network))
    return total


def _scattered(bytes_, ranks, group: str, net: Network) -> Cost:
    """Gradients scattered over a shard's ranks, then summed over its copies. Where the shard lies
    within a node the two use different links, and one bucket's second half runs beside the next
    one's first.
    """
    first, second = (
        net.cost("reduce_scatter", f"{group}shard", bytes_),
        net.cost("all_reduce", f"{group}copies", bytes_ / ranks),
    )
    apart = net.group(f"{group}shard").nodes <= 1.0
    both = np.where(
        apart, np.maximum(first.seconds, second.seconds), first.seconds + second.seconds
    )
    return Cost(both, first.bytes + second.bytes)


def expert_shard(x):
    """Ranks that the states of an expert are sharded over."""
    return np.minimum(x.shard, np.maximum(x.tp * x.cp * x.dp // (x.ep * x.etp), 1))


def reduction(at: Placement, dense, expert) -> Cost:
    """Gradients of the fullest stage, of so many dense weights and so many of experts, over the
    data-parallel ranks: all-reduced once a step (ZeRO-0), or scattered, once or each micro-batch
    (ZeRO-2), summed over the copies of a shard, and the updated weights gathered. ZeRO-3 has done
    it layer by layer, but in a pipeline that keeps its weights over the step. Inference has none.
    """
    if at.step.recipe.mode == "infer":
        return NOTHING
    x, net, stack, width = at.layout, at.network, at.step.recipe.stack, at.step.weight_width
    grad = stack.gradient_bytes if stack.master else width
    total = NOTHING
    done = np.equal(x.zero, 3) & (np.equal(x.pp, 1) | x.reshard)
    for n, whole, group, ranks in (
        (dense, "dp", "", x.shard),
        (expert, "expert", "expert ", expert_shard(x)),
    ):
        if not np.any(n):
            continue
        reduced, scattered = (
            net.cost("all_reduce", whole, grad * n),
            _scattered(grad * n, ranks, group, net),
        )
        back, repeats = (
            net.cost("all_gather", f"{group}shard", width * n),
            np.where(np.equal(x.zero, 2), x.micro_batches, 1),
        )
        seconds = np.where(
            np.equal(x.zero, 0), reduced.seconds, scattered.seconds * repeats + back.seconds
        )
        bytes_ = np.where(
            np.equal(x.zero, 0), reduced.bytes, scattered.bytes * repeats + back.bytes
        )
        total = total.plus(Cost(seconds, bytes_).times(np.where(done, 0.0, 1.0)))
    return total
