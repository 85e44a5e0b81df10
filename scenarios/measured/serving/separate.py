"""Measured servers whose prompts have devices of their own: a row -> two pools and their forecast.

A row may state each pool (columns prefill_devices, prefill_tp ... decode_dp, or "2P4D" in its
notes: instances). What it does not state is that of the row; devices that it does not deal out are
dealt so that both pools together serve the most at this load, as whoever measures a server does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from roofcast.hwdb.errors import BadInput
from roofcast.scenarios.measured.cells import LARGEST
from roofcast.scenarios.measured.serving.rows import UNSTATED, Ran, server_of
from roofcast.simulator.serving.answer import Replica
from roofcast.simulator.serving.asked import Degrees as Cut
from roofcast.simulator.serving.asked import Serving
from roofcast.simulator.serving.capacity import Room
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.pools.asked import Pair, Pools
from roofcast.simulator.serving.pools.means import Apart, Costing, arriving, closed, full
from roofcast.simulator.serving.pools.transfer import between, transfer
from roofcast.simulator.serving.server import Degrees, Server
from roofcast.simulator.serving.speculation import NONE

POOLS = ("prefill", "decode")
DEGREES = ("tp", "pp", "ep", "dp")
COLUMNS = tuple(f"{pool}_{name}" for pool in POOLS for name in ("devices", *DEGREES))
_INSTANCES = re.compile(r"(?<![\w.])(\d{1,3})\s?p\s?[:+x]?\s?(\d{1,3})\s?d(?!\w)", re.I)


class Dealt(NamedTuple):
    """The degrees of an instance of each pool, and the instances of each; None: not stated."""

    degrees: tuple[Degrees, Degrees]
    instances: tuple[int, int] | None
    devices: int


def separate(row: Mapping[str, str]) -> bool:
    """Whether prompts and decoding have devices of their own."""
    return "disagg" in row["mode"].lower()


def dealt(row: Mapping[str, str]) -> Dealt:
    """The two pools of a row, as far as it states them. Raises BadInput for pools of which no whole
    instances make up the devices.
    """
    degrees = _degrees(row, "prefill"), _degrees(row, "decode")
    sizes = [d.tp * d.pp * d.dp for d in degrees]
    stated = [_whole(row, f"{pool}_devices") for pool in POOLS]
    every = _whole(row, "n_devices") or 1
    if found := _INSTANCES.search(row.get("notes") or ""):
        prefills, decodes = int(found[1]), int(found[2])
        return Dealt(degrees, (prefills, decodes), prefills * sizes[0] + decodes * sizes[1])
    if stated[0] is None and stated[1] is not None and every > stated[1]:
        stated[0] = every - stated[1]
    if stated[1] is None and stated[0] is not None and every > stated[0]:
        stated[1] = every - stated[0]
    if stated[0] is None or stated[1] is None:
        return Dealt(degrees, None, every)
    for pool, size, n in zip(POOLS, sizes, stated, strict=True):
        if not n or n % size:
            raise BadInput(f"{pool}_devices {n}: not a multiple of the {size} of an instance")
    counts = stated[0] // sizes[0], stated[1] // sizes[1]
    return Dealt(degrees, counts, stated[0] + stated[1])


def _whole(row: Mapping[str, str], name: str) -> int | None:
    """A whole number of a cell; None where there is none."""
    text = (row.get(name) or "").strip().lower()
    if text in (*UNSTATED, "nan", "none"):
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value < LARGEST:
        raise BadInput(f"{name} {text[:40]!r}: a whole number above 0 is wanted")
    return int(value)


def _degrees(row: Mapping[str, str], pool: str) -> Degrees:
    """The layout of an instance: its ranks beyond tensor parallelism share the experts, each with
    sequences of its own.
    """
    tp, pp, ep = (_whole(row, f"{pool}_{name}") or _whole(row, name) or 1 for name in DEGREES[:3])
    own = _whole(row, f"{pool}_dp")
    if ep > 1 and "attention-DP" in (row.get("notes") or ""):
        return Degrees(1, pp, max(tp, ep), ep)
    dp = (own or max(ep // tp, 1)) if ep > 1 else 1
    return Degrees(tp, pp, dp, min(ep, tp * dp))


def two(
    at: Ran, given: Dealt, load: Load, room_of: Callable[[Server], Room]
) -> tuple[Costing, Dealt, str]:
    """Both pools of a row, costed; its devices dealt; what was taken for that, or nothing."""
    one, other = (server_of(at._replace(degrees=d)) for d in given.degrees)
    asked = Serving(model=at.model, device=at.device, load=load)
    rooms: list[Room] = []
    sides: list[Replica] = []
    for server, d in zip((one, other), given.degrees, strict=True):
        rooms.append(room_of(server))
        cut = Cut(d.tp, d.pp, d.ep, d.dp, 1, ())
        sides.append(Replica(asked, server, server.device, cut, NONE, ()))
    sizes = one.devices, other.devices
    ways = _ways(given, sizes)
    first, second = (
        side._replace(cut=side.cut._replace(replicas=n))
        for side, n in zip(sides, ways[0], strict=True)
    )
    link = between(first, second)
    sent = transfer(one, other, link, load)
    pair = Pair(Pools(prefill=asked, decode=asked), first, second, rooms[1], rooms[0], link, sent)
    some, rest = (np.array([way[k] for way in ways], dtype=float)[:, None] for k in (0, 1))
    costing = Costing(pair, (some, rest))
    if len(ways) == 1:
        best, taken = 0, ""
    else:
        rates = served(costing, load).mean.requests_per_s
        best = int(np.argmax(np.ravel(rates)))
        taken = f"{ways[best][0] * sizes[0]} of {given.devices} devices for prefill"
    prefills, decodes = ways[best]
    if given.instances is None and len(ways) == 1:
        taken = f"{prefills * sizes[0]} devices for prefill, {decodes * sizes[1]} for decode"
    chosen = Costing(pair, (float(prefills), float(decodes)), costing.prompts, costing.costs)
    return chosen, given._replace(instances=(prefills, decodes)), taken


def _ways(given: Dealt, sizes: tuple[int, int]) -> list[tuple[int, int]]:
    """Instances of both pools, in every way that the row leaves open."""
    if given.instances is not None:
        return [given.instances]
    found = []
    for p in range(1, given.devices // sizes[0] + 1):
        left = given.devices - p * sizes[0]
        if left >= sizes[1] and left % sizes[1] == 0:
            found.append((p, left // sizes[1]))
    # devices of one pool alone: as many as they hold, and an instance for prompts beside them
    return found or [(1, max(given.devices // sizes[1], 1))]


def served(costing: Costing, load: Load) -> Apart:
    """Mean values of a load."""
    if load.kind == "concurrency":
        return closed(costing, load.amount + 0.0 * np.asarray(costing.totals.highest))
    if np.ndim(costing.n):
        return _most(costing)
    return full(costing) if load.kind == "offline" else arriving(costing, load.amount)


def _most(costing: Costing) -> Apart:
    """What is compared of splits where users do not wait for answers: the most that they serve."""
    found = closed(costing, 1.0 + 0.0 * np.asarray(costing.totals.highest))
    return found._replace(mean=found.mean._replace(requests_per_s=costing.totals.highest))
