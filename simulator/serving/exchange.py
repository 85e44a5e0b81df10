"""Collectives of a forward over the ranks of a replica."""

from __future__ import annotations

import numpy as np

from roofcast.hwdb.collective_constants import Collectives
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.parallel.collectives import all_gather, all_reduce, all_to_all, send_recv
from roofcast.simulator.parallel.fabric import Fabric, Group, placed
from roofcast.simulator.serving.engine import Point
from roofcast.simulator.work.generation import Forward


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


def summed(bytes_: np.ndarray, group: Group, over: Links, c: Collectives) -> np.ndarray:
    """Seconds of a sum of `bytes_` over a group: the library's, or one step of the engine's own
    kernel, in which every rank reads the parts of all others, on one switch.

        own = start + (n - 1) (hop + bytes / (share x bandwidth))
    """
    library = all_reduce(bytes_, group, over.fabric, c)
    level = over.fabric.levels[0]
    if not np.isfinite(over.own_s) or level.topology != "switch" or float(group.nodes) > 1.0:
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
    for send in forward.sends:
        a, b, t = send.bytes
        bytes_ = a + b * at.sequences + t * at.tokens
        if send.kind != "exchange":
            if send.kind == "all_gather":
                total = total + send.count * all_gather(bytes_, over.tensor, over.fabric, c)
            else:
                total = total + send.count * summed(bytes_, over.tensor, over, c)
        elif over.dp == 1:
            total = total + send.count * summed(bytes_, over.everyone, over, c)
        else:
            total = total + send.count * _between_experts(bytes_, send.copies, at, over, c)
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
