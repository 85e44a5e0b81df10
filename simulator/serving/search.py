"""Every layout of a server under many numbers of users: the best, the front of throughput per
device against speed per user, and why the others were refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput, unknown
from roofcast.simulator.choose.offers import offer
from roofcast.simulator.choose.wanted import Wanted
from roofcast.simulator.models.catalog import resolve
from roofcast.simulator.serving.answer import Replica, beyond
from roofcast.simulator.serving.asked import Level, Serving
from roofcast.simulator.serving.capacity import Room
from roofcast.simulator.serving.chain import held_of, replica
from roofcast.simulator.serving.likeness import bases
from roofcast.simulator.serving.load import MOST
from roofcast.simulator.serving.loops import Loops
from roofcast.simulator.serving.many import numbers, rows
from roofcast.simulator.serving.pricing import Price, price_of
from roofcast.simulator.serving.remember import Shared
from roofcast.simulator.serving.space import LEFT_OUT, candidates, check_formats
from roofcast.simulator.work.model import Model

GOALS = {  # objective: column
    "throughput": "output_tokens_per_s_per_device",
    "speed": "tokens_per_s_per_user",
    "ttft": "ttft_s",
    "cost": "usd_per_million_output_all",
}
LESS = ("ttft", "cost")  # objectives of which less is better
LIMITED = {"ttft": "ttft_s", "tpot": "tpot_s", "e2e": "e2e_s"}  # of a service level


class Laid(NamedTuple):
    """A layout that holds the model."""

    asked: Serving  # as `serve` takes it, but for the number of users
    replica: Replica
    held: Room
    price: Price


class Found(NamedTuple):
    """Layouts, and a row for each of them under each number of users."""

    asked: Serving
    goal: str
    level: Level | None
    layouts: list[Laid]
    rows: dict[str, np.ndarray]
    layout: np.ndarray  # of each row
    considered: int
    reasons: dict[str, int]  # why layouts were refused: an example, and how many are like it
    smallest_bytes: float | None  # weights and runtime of a device, the least of all that fail
    left_out: tuple[str, ...]
    assumptions: tuple[str, ...]

    @property
    def holds(self) -> np.ndarray:
        """Which rows hold the service level; all where there is none."""
        return holding(self.rows, self.level)

    def best(self, top: int = 10) -> list[int]:
        """Rows of the best layouts by the objective that hold the level, each with its best number
        of users.
        """
        return ranked(self.rows, self.layout, self.holds, self.goal, top)

    def front(self) -> list[int]:
        """Rows that hold the level and that no other beats in both throughput per device and speed
        per user, the fastest for a user first.
        """
        return unbeaten(self.rows, self.holds)

    def asked_of(self, i: int) -> Serving:
        """What `serve` is asked for a row."""
        asked = self.layouts[self.layout[i]].asked
        load = msgspec.structs.replace(
            asked.load, kind="concurrency", amount=float(self.rows["amount"][i])
        )
        return msgspec.structs.replace(asked, load=load)

    def nearest(self, name: str) -> int | None:
        """The row with the least of a limited quantity."""
        if not len(self.layout):
            return None
        return int(np.argmin(self.rows[LIMITED[name]]))


def holding(rows: Mapping[str, np.ndarray], level: Level | None) -> np.ndarray:
    """Which rows hold a service level in the mean; all where there is none."""
    kept = np.ones(len(rows["ttft_s"]), dtype=bool)
    for name, most in level.limits.items() if level else ():
        kept &= rows[LIMITED[name]] <= most
    return kept


def ranked(
    rows: Mapping[str, np.ndarray], layout: np.ndarray, holds: np.ndarray, goal: str, top: int
) -> list[int]:
    """The best row of each of the `top` best layouts by an objective, of the rows that hold.

    layout: that of each row.
    """
    column = rows[GOALS[goal]]
    value = np.where(holds, column if goal in LESS else -column, np.inf)
    order = np.argsort(value, kind="stable")
    order = order[np.isfinite(value[order])]
    _, first = np.unique(layout[order], return_index=True)
    return order[np.sort(first)][:top].tolist()


def unbeaten(rows: Mapping[str, np.ndarray], holds: np.ndarray) -> list[int]:
    """Rows that hold and that no other beats in both throughput per device and speed per user."""
    kept = np.flatnonzero(holds)
    per_device = rows["output_tokens_per_s_per_device"][kept]
    per_user = rows["tokens_per_s_per_user"][kept]
    order = np.lexsort((-per_device, -per_user))
    highest = np.maximum.accumulate(per_device[order]) if len(order) else per_device
    before = np.concatenate([[-np.inf], highest[:-1]]) if len(order) else highest
    return kept[order[per_device[order] > before]].tolist()


def usual(device: str, edits: dict[str, str | float | int] | None = None) -> int:
    """Devices of a node of the usual system of a device."""
    return offer(hwdb.device(device, edits or {}), Wanted()).node


def search(
    asked: Serving,
    devices: Sequence[str],
    users: Sequence[int] | None = None,
    goal: str = "throughput",
    level: Level | None = None,
) -> Found:
    """Every layout of what is asked, on so many (asked.devices) of each kind of device.

    asked: its device is not read; degrees and formats that it states hold for all layouts, formats
    being several with commas or "any". users: numbers of users of all replicas together; None: from
    1 for each replica to as many as fit. Raises BadInput where the model does not generate text.
    """
    if goal not in GOALS:
        raise unknown("goal", goal, tuple(GOALS), f"known: {', '.join(GOALS)}")
    model = resolve(asked.model)
    refused = Refused()
    found: list[Laid] = []
    considered = 0
    for name in devices:
        check_formats(asked, hwdb.device(name, asked.set))
        named = msgspec.structs.replace(asked, device=name)
        number, shared = asked.devices or usual(name, asked.set), Shared()
        price = price_of(hwdb.device(name, asked.set), asked.price_per_hour)
        every = candidates(named, model, number)
        considered += len(every)
        laid_out = (refused.laid(one, model, price, shared) for one in every)
        found += [laid for laid in laid_out if laid is not None]
    loops = [_loops(laid, users) for laid in found]
    table = rows(loops, [laid.price.usd_per_hour for laid in found])
    said = once(line for laid in found for line in laid.replica.server.assumptions)
    said += [line for laid in found[:1] for line in beyond(laid.replica, asked.load)]
    wide = bases([(laid.replica.server.likeness, laid.replica.device.id) for laid in found])
    several = len(devices) > 1
    prices = [
        f"{laid.replica.device.id}: {laid.price.said[0]}" if several else laid.price.said[0]
        for laid in found
        if laid.price.said
    ]
    numbered = [] if asked.devices else ["devices: those of the usual node; --devices gives others"]
    return Found(
        asked,
        goal,
        level,
        found,
        table,
        np.repeat(np.arange(len(found)), [len(each.users) for each in loops]),
        considered,
        refused.reasons,
        refused.least,
        LEFT_OUT,
        tuple(dict.fromkeys([*numbered, *said, *prices, *wide])),
    )


def once(lines: Iterable[str]) -> list[str]:
    """Lines, of those that differ between layouts in counts alone the first, without these."""
    first: dict[str, str] = {}
    for line in lines:
        plain = re.sub(r"[\d,]+ of [\d,]+ weights(?: of a device)?", "most weights", line)
        first.setdefault(re.sub(r"\d", "#", plain), plain)
    return list(first.values())


def _loops(laid: Laid, users: Sequence[int] | None) -> Loops:
    """The numbers of users of each replica of a layout."""
    held, load = laid.held, laid.asked.load
    if users is None:
        most = min(
            held.sequences(load.input_len + load.output_len), MOST // laid.replica.cut.replicas
        )
        each = numbers(max(most, 1))
        return Loops(laid.replica, held, each)
    each = np.array([math.ceil(u / laid.replica.cut.replicas) for u in users], dtype=float)
    return Loops(laid.replica, held, each, np.array(users, dtype=float))


class Refused:
    """Layouts that cannot be, with the reasons."""

    def __init__(self) -> None:
        self.reasons: dict[str, int] = {}
        self.least: float | None = None
        self._example: dict[str, str] = {}

    def laid(self, one: Serving, model: Model, price: Price, shared: Shared) -> Laid | None:
        """A layout that holds the model; None where it is refused.

        shared: the engines of its device.
        """
        try:
            of = replica(one, model, shared)
            held = held_of(of, one.load)
            need = one.load.input_len + one.load.output_len
            if held.sequences(need) < 1:
                raise BadInput(f"does not fit: no room for the cache of one sequence of {need:,}")
        except BadInput as error:
            self.add(str(error).replace(one.device, "the device"))
            return None
        return Laid(one, of, held, price)

    def add(self, text: str) -> None:
        """Count a reason with those that differ in numbers alone."""
        if ": weights of " in text:
            text = text.split(";")[0]
        like = re.sub(r"[\d.,]+", "#", text)
        example = self._example.setdefault(like, text)
        self.reasons[example] = self.reasons.get(example, 0) + 1
