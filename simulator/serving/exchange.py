"""Collectives of a forward over the ranks of a replica."""

from __future__ import annotations

import functools

import msgspec
import numpy as np

from roofcast.hwdb.collective_constants import Collectives, collectives
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.parallel.collectives import all_gather, all_reduce, all_to_all, send_recv
from roofcast.simulator.parallel.fabric import Fabric, Group, is_torus, kind_of, placed
from roofcast.simulator.serving.kinds import Point
from roofcast.simulator.work.generation import Forward

QUEUED = ("gaudi2-roce", "gaudi3-roce")
"""Networks whose constants come from a thousand calls in a queue (hccl_demo --loop 1000), each of
which fills its pipeline of chunks behind the one before.
"""


@functools.cache
def in_turn() -> Collectives:
    """Constants of collectives that wait for the kernel before, as those of a step do: each fills
    its pipeline of chunks alone, on networks that were measured in a queue as on others.
    """
    c = collectives()
    usual = c.networks["switch"].chunk
    alone = {name: msgspec.structs.replace(c.networks[name], chunk=usual) for name in QUEUED}
    return msgspec.structs.replace(c, networks=c.networks | alone)


ONE_HOP = ("switch", "mesh")  # topologies where a rank reads what any other holds


class Links(NamedTuple):
    """The process groups of a replica."""

    fabric: Fabric
    tensor: Group
    everyone: Group  # of one pipeline stage: all that share the experts
    stages: Group
    dp: int
    own_s: float  # start of the engine's own kernel that adds up in one step; inf: it has none
    to_experts: bool = True  # whether tokens may be sent to the ranks of their experts alone


def links(
    fabric: Fabric, tp: int, dp: int, pp: int, own_s: float = np.inf, to_experts: bool = True
) -> Links:
    """The groups of tp x dp x pp ranks, tp innermost."""
    return Links(
        fabric, placed(tp, 1, fabric), placed(tp * dp, 1, fabric), placed(pp, tp * dp, fabric), dp,
        own_s, to_experts,
    )  # fmt: skip


def alike(over: Links) -> tuple[object, ...]:
    """The same for links over which the ranks of a stage exchange at the same cost."""
    fabric, sizes = over.fabric, (float(over.tensor.size), float(over.everyone.size))
    levels = fabric.levels if is_torus(fabric) else kind_of(fabric)
    return (levels, *sizes, over.dp, over.own_s, over.to_experts)


def summed(bytes_: np.ndarray, group: Group, over: Links, c: Collectives) -> np.ndarray:
    """Seconds of a sum of `bytes_` over a group: the library's, or one step of the engine's own
    kernel, in which every rank reads the parts of all others: on one switch, or where each pair
    has a link (vllm-project/vllm, custom_all_reduce.py: NVLink, or xGMI of one hop between all).

        own = start + (n - 1) (hop + bytes / (share x bandwidth))
    """
    library = all_reduce(bytes_, group, over.fabric, c)
    level = over.fabric.levels[0]
    if not np.isfinite(over.own_s) or level.topology not in ONE_HOP or float(group.nodes) > 1.0:
        return library
    k, peers = c.networks[level.constants], group.size - 1.0
    own = over.own_s + peers * (k.hop + bytes_ / (k.share * level.bandwidth))
    return np.minimum(library, np.where(peers > 0.0, own, 0.0))


def exchanges(forward: Forward, at: Point, over: Links, c: Collectives) -> np.ndarray:
    """Seconds of a forward's collectives, for every point.

    Tokens reach their experts and return in the cheaper of two forms: gathered and scattered on
    all ranks, or, by software that can, sent to the ranks of their experts. Ranks with the same
    tokens add up instead.
    """
    total = np.zeros(at.tokens.shape)
    every = np.array([send.bytes for send in forward.sends]).reshape(-1, 3, 1, 1)
    bytes_ = every[:, 0] + every[:, 1] * at.sequences + every[:, 2] * at.tokens
    kinds = [(send.kind, send.copies) for send in forward.sends]
    found = [total] * len(kinds)
    for kind, copies in dict.fromkeys(kinds):  # those of one kind in one call
        places = [i for i, each in enumerate(kinds) if each == (kind, copies)]
        some = bytes_[places, 0]
        if kind == "all_gather":
            seconds = all_gather(some, over.tensor, over.fabric, c)
        elif kind != "exchange" or over.dp == 1:
            group = over.everyone if kind == "exchange" else over.tensor
            seconds = summed(some, group, over, c)
        else:
            seconds = _between_experts(some, copies, at, over, c)
        for i, one in zip(places, np.broadcast_to(seconds, some.shape), strict=True):
            found[i] = one
    for send, one in zip(forward.sends, found, strict=True):
        total = total + send.count * one
    return total


def _between_experts(
    bytes_: np.ndarray, copies: int, at: Point, over: Links, c: Collectives
) -> np.ndarray:
    """Seconds to bring tokens to their experts and back; bytes_: of one rank's tokens."""
    tensor = over.tensor.size
    whole = bytes_ * at.everywhere / np.maximum(at.tokens, 1e-30)
    gathered = 2.0 * all_gather(whole, over.everyone, over.fabric, c)
    sent = 2.0 * all_to_all(
        copies * bytes_ / tensor, over.everyone, over.fabric, c, topk=copies, deduplicated=True
    )
    return np.minimum(gathered, sent) if over.to_experts else gathered


def between_stages(forward: Forward, at: Point, over: Links, c: Collectives) -> np.ndarray:
    """Seconds to pass a micro-batch on to the next stage of a pipeline."""
    a, b, t = forward.carried
    bytes_ = a + b * at.sequences + t * at.tokens
    return np.asarray(send_recv(bytes_, over.stages, over.fabric, c)) + np.zeros(at.tokens.shape)
