"""Collectives of a forward over the ranks of a replica."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from roofcast.hwdb.collective_constants import Collectives
from roofcast.simulator.parallel.collectives import all_gather, all_reduce, all_to_all, send_recv
from roofcast.simulator.parallel.fabric import Fabric, Group, placed
from roofcast.simulator.times.generation import Point
from roofcast.simulator.work.generation import Forward


class Links(NamedTuple):
    """The process groups of a replica."""

    fabric: Fabric
    tensor: Group
    everyone: Group  # of one pipeline stage: all that share the experts
    stages: Group
    dp: int


def links(fabric: Fabric, tp: int, dp: int, pp: int) -> Links:
    """The groups of tp x dp x pp ranks, tp innermost."""
    return Links(
        fabric, placed(tp, 1, fabric), placed(tp * dp, 1, fabric), placed(pp, tp * dp, fabric), dp
    )


def exchanges(forward: Forward, at: Point, over: Links, c: Collectives) -> np.ndarray:
    """Seconds of a forward's collectives, for every point.

    Tokens reach their experts and return in the cheaper of two forms: gathered and scattered on
    all ranks, or sent to the ranks of their experts. Ranks with the same tokens add up instead.
    """
    total = np.zeros(at.tokens.shape)
    for send in forward.sends:
        a, b, t = send.bytes
        bytes_ = a + b * at.sequences + t * at.tokens
        if send.kind != "exchange":
            kind = all_gather if send.kind == "all_gather" else all_reduce
            total = total + send.count * kind(bytes_, over.tensor, over.fabric, c)
        elif over.dp == 1:
            total = total + send.count * all_reduce(bytes_, over.everyone, over.fabric, c)
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
    return np.minimum(gathered, sent)


def between_stages(forward: Forward, at: Point, over: Links, c: Collectives) -> np.ndarray:
    """Seconds to pass a micro-batch on to the next stage of a pipeline."""
    a, b, t = forward.carried
    bytes_ = a + b * at.sequences + t * at.tokens
    return np.asarray(send_recv(bytes_, over.stages, over.fabric, c)) + np.zeros(at.tokens.shape)
