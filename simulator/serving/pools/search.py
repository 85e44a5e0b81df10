"""Every split of so many devices into a pool for prompts and one that decodes: layouts of an
instance of each, how many instances, and numbers of users.

An instance is costed once for each pool; all splits of a pair of layouts under all numbers of users
are arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput, unknown
from roofcast.simulator.models.catalog import resolve
from roofcast.simulator.parallel.layout import divisors
from roofcast.simulator.serving.answer import Replica
from roofcast.simulator.serving.asked import Degrees, Level, Serving
from roofcast.simulator.serving.capacity import Room
from roofcast.simulator.serving.chain import held_of, replica
from roofcast.simulator.serving.costs import Costs
from roofcast.simulator.serving.interval import around
from roofcast.simulator.serving.likeness import Likeness
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.many import numbers
from roofcast.simulator.serving.means import Mean
from roofcast.simulator.serving.pools.asked import Pair, Pools
from roofcast.simulator.serving.pools.means import (
    BINDS,
    Prompts,
    Totals,
    costs_of,
    places_of,
    prompts_of,
)
from roofcast.simulator.serving.pools.pairs import Asked, closed_loops
from roofcast.simulator.serving.pools.transfer import between, transfer
from roofcast.simulator.serving.pricing import HOUR, MILLION, price_of
from roofcast.simulator.serving.remember import Shared
from roofcast.simulator.serving.search import GOALS, Refused, holding, ranked, unbeaten
from roofcast.simulator.serving.space import candidates, check_formats
from roofcast.simulator.work.model import Model

MOST_PAIRS = 2000  # of layouts, in one search


class Side(NamedTuple):
    """A layout of one instance of a pool."""

    of: Replica
    room: Room
    size: int  # devices
    prompts: Prompts | None = None
    costs: Costs | None = None


class Split(NamedTuple):
    """So many instances of two layouts."""

    prefill: Side
    decode: Side
    prefills: int
    decodes: int

    @property
    def devices(self) -> tuple[int, int]:
        """Devices of each pool."""
        return self.prefills * self.prefill.size, self.decodes * self.decode.size

    def asked(self, users: float) -> Pools:
        """What `chain.serve` is asked for it."""
        load = msgspec.structs.replace(
            self.decode.of.asked.load, kind="concurrency", amount=float(users)
        )
        sides = zip((self.prefill, self.decode), self.devices, strict=True)
        pools = [msgspec.structs.replace(side.of.asked, load=load, devices=n) for side, n in sides]
        return Pools(prefill=pools[0], decode=pools[1])


class FoundSplits(NamedTuple):
    """Splits, and a row for each of them under each number of users."""

    asked: Serving
    goal: str
    level: Level | None
    splits: list[Split]
    rows: dict[str, np.ndarray]
    layout: np.ndarray  # the split of each row
    layouts: int  # of an instance, that hold the model
    reasons: dict[str, int]  # why others do not
    assumptions: tuple[str, ...]

    @property
    def holds(self) -> np.ndarray:
        """Which rows hold the service level in the mean."""
        return holding(self.rows, self.level)

    def best(self, top: int = 10) -> list[int]:
        """Rows of the best splits by the objective, each with its best number of users."""
        return ranked(self.rows, self.layout, self.holds, self.goal, top)

    def front(self) -> list[int]:
        """Rows that no other beats in both throughput per device and speed per user."""
        return unbeaten(self.rows, self.holds)

    def asked_of(self, i: int) -> Pools:
        """What `chain.serve` is asked for a row."""
        return self.splits[int(self.layout[i])].asked(float(self.rows["amount"][i]))


def search(
    asked: Serving,
    device: str,
    users: Sequence[int] | None = None,
    goal: str = "throughput",
    level: Level | None = None,
) -> FoundSplits:
    """Every split of asked.devices; degrees and formats that are asked for hold for both pools.

    Raises BadInput where no two pools hold the model.
    """
    if goal not in GOALS:
        raise unknown("goal", goal, tuple(GOALS), f"known: {', '.join(GOALS)}")
    if asked.devices is None or asked.devices < 2:
        raise BadInput("two pools: give --devices 2 or more")
    named = msgspec.structs.replace(asked, device=device)
    check_formats(named, hwdb.device(device, asked.set))
    refused, model = Refused(), resolve(asked.model)
    sides = _sides(named, model, asked.devices, refused)
    if not sides:
        first = next(iter(refused.reasons), "no layout")
        raise BadInput(f"two pools of {asked.devices} {device}: {first}")
    if len(sides) ** 2 > MOST_PAIRS:
        raise BadInput(
            f"{len(sides) ** 2:,} pairs of layouts: more than {MOST_PAIRS:,}; give degrees (--tp,"
            " --pp), or fewer formats"
        )
    splits: list[Split] = []
    every: list[_Row] = []
    for prefill, decode in ((p, d) for p in sides for d in sides):
        if not _alike(prefill, decode):
            continue
        ways = _ways(asked.devices, prefill.size, decode.size)
        if ways:
            every += _splits(prefill, decode, ways, users, len(splits))
            splits += [Split(prefill, decode, p, d) for p, d in ways]
    if not splits:
        raise BadInput(f"{asked.devices} devices: no two pools of whole instances have as many")
    rows = _rows(every)
    layout = rows.pop("layout").astype(int)
    said = [line for side in sides for line in side.of.server.assumptions]
    price = price_of(sides[0].of.device, asked.price_per_hour).said
    return FoundSplits(
        asked, goal, level, splits, rows, layout, len(sides), refused.reasons,
        tuple(dict.fromkeys([*said, *price])),
    )  # fmt: skip


def _sides(asked: Serving, model: Model, devices: int, refused: Refused) -> list[Side]:
    """Layouts of one instance, costed for both pools."""
    shared, found = Shared(), []
    sizes = sorted({*divisors(devices), *(2**k for k in range(int(math.log2(devices)) + 1))})
    for size in (n for n in sizes if n < devices):
        try:
            every = candidates(asked, model, size)
        except BadInput as error:
            refused.add(str(error))
            continue
        for one in every:
            if (one.tp or 1) * (one.pp or 1) * (one.dp or 1) != size:
                continue
            try:
                of = replica(one, model, shared)
                room = held_of(of, one.load)
                need = one.load.input_len + one.load.output_len
                if room.sequences(need) < 1:
                    raise BadInput(f"no room for the cache of one sequence of {need:,}")
            except BadInput as error:
                refused.add(str(error).replace(one.device, "the device"))
                continue
            prompts = prompts_of(of.server, room, one.load)
            costs = costs_of(of.server, room, one.load, of.spec)
            found.append(Side(of, room, size, prompts, costs))
    return found


def _alike(prefill: Side, decode: Side) -> bool:
    """Whether two layouts have the formats of one model."""
    a, b = prefill.of.asked, decode.of.asked
    return (a.weights, a.kv) == (b.weights, b.kv)


def _ways(devices: int, prefill: int, decode: int) -> list[tuple[int, int]]:
    """Numbers of instances of both sizes that make up all devices."""
    found = []
    for p in range(1, (devices - decode) // prefill + 1):
        left = devices - p * prefill
        if left >= decode and left % decode == 0:
            found.append((p, left // decode))
    return found


def _with(side: Side, instances: int) -> Replica:
    """So many instances of a layout."""
    cut: Degrees = side.of.cut._replace(replicas=instances)
    return side.of._replace(cut=cut)


class _Row(NamedTuple):
    """A split, with an entry for each number of users."""

    asked: Asked
    layout: int  # its number
    prefill: int  # devices of an instance
    decode: int
    usd: float  # per device-hour; nan where unknown
    likeness: Likeness
    load: Load
    again: bool


def _splits(
    prefill: Side,
    decode: Side,
    ways: Sequence[tuple[int, int]],
    users: Sequence[int] | None,
    first: int,
) -> list[_Row]:
    """All splits of a pair of layouts; first: the number of the first of them."""
    load, costs = decode.of.asked.load, decode.costs
    if prefill.prompts is None or costs is None:
        raise ValueError("a layout that is not costed")
    one, two = _with(prefill, ways[0][0]), _with(decode, ways[0][1])
    link = between(one, two)
    sent = transfer(one.server, two.server, link, load)
    asked = Pools(prefill=one.asked, decode=two.asked)
    likeness = Pair(asked, one, two, decode.room, prefill.room, link, sent).likeness
    places, again = places_of(decode.room, load), two.server.profile.first_again
    usd = price_of(decode.of.device, decode.of.asked.price_per_hour).usd_per_hour
    each = numbers(int(places)) if users is None else np.array(users, dtype=float)
    found = []
    for k, (p, d) in enumerate(ways):
        amount = each * d if users is None else each
        of_each, on_each = (np.full(len(amount), float(n)) for n in (p, d))
        found.append(
            _Row(
                Asked(prefill.prompts, costs, places, sent, of_each, on_each, amount),
                first + k, prefill.size, decode.size, math.nan if usd is None else usd, likeness,
                load, again,
            )
        )  # fmt: skip
    return found


def _rows(every: Sequence[_Row]) -> dict[str, np.ndarray]:
    """Columns of all splits, in their order."""
    # what a number of instances costs is what the most of those solved together do
    order = sorted(every, key=lambda row: float(max(row.asked.prefills[0], row.asked.decodes[0])))
    found = closed_loops([row.asked for row in order], every[0].load, every[0].again)
    columns = [_columns(order[part], totals, met.mean) for part, totals, met in found]
    rows = {name: np.concatenate([c[name] for c in columns]) for name in columns[0]}
    place = np.argsort(rows["layout"], kind="stable")
    return {name: column[place] for name, column in rows.items()}


def _columns(pairs: Sequence[_Row], totals: Totals, found: Mean) -> dict[str, np.ndarray]:
    """Columns of some splits."""
    counts, load = [len(pair.asked.users) for pair in pairs], pairs[0].load
    p, d = (
        np.concatenate([getattr(pair.asked, name) for pair in pairs])
        for name in ("prefills", "decodes")
    )
    layout, of_prefill, of_decode, usd, low, high = (
        np.repeat(np.array(values, dtype=float), counts)
        for values in zip(
            *(
                (x.layout, x.prefill, x.decode, x.usd, *around(1.0, "output", x.likeness))
                for x in pairs
            ),
            strict=True,
        )
    )
    total = p * of_prefill + d * of_decode
    rate = np.asarray(found.requests_per_s)
    output = rate * load.output_len / total
    rows: dict[str, Any] = {
        "layout": layout,
        "amount": np.concatenate([pair.asked.users for pair in pairs]),
        "ttft_s": found.ttft,
        "tpot_s": found.tpot,
        "e2e_s": found.e2e,
        "requests_per_s": rate,
        "output_tokens_per_s": rate * load.output_len,
        "output_tokens_per_s_per_device": output,
        "output_tokens_per_s_per_device_low": output * low,
        "output_tokens_per_s_per_device_high": output * high,
        "tokens_per_s_per_user": 1.0 / np.asarray(found.tpot),
        "use": found.use,
        "binds": np.argmin(np.stack(totals), axis=0),
        "prefill_devices": p * of_prefill,
        "decode_devices": d * of_decode,
        "usd_per_million_output_all": MILLION * usd / HOUR / output,
    }
    return {name: np.asarray(value) for name, value in rows.items()}


def bound(found: FoundSplits, i: int) -> str:
    """What binds in a row: prefill | transfer | decode."""
    return BINDS[int(found.rows["binds"][i])]
