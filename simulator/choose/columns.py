"""Rows of a search that share one rank's step, network and stages, as one layout of columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.choose.decide import Decided, Refusal
from roofcast.simulator.choose.sieve import Sieve, key_of
from roofcast.simulator.forecast.resolve import Named
from roofcast.simulator.parallel.fabric import Fabric, beside, is_torus, kind_of
from roofcast.simulator.parallel.layout import Layout, check
from roofcast.simulator.parallel.networks import fabric_of
from roofcast.simulator.parallel.stages import Unit, sending, units
from roofcast.simulator.parallel.step import dealt, peak_bytes, timed
from roofcast.simulator.parallel.traffic import Placement, gathers, network
from roofcast.simulator.times import roofline
from roofcast.simulator.work.recompute import policy
from roofcast.simulator.work.step import Recipe, Step, trace

FAMILY = 7  # entries of the key of a rank before its recomputation and offload
COLUMNS = ("dp", "zero", "shard", "reshard", "micro_batches")  # what rows of a group differ in


class Row(NamedTuple):
    """One layout of a search."""

    place: int  # in the search
    recipe: Recipe  # of the global batch
    layout: Layout


class _Group(NamedTuple):
    """What rows with the same rank, network and stages share."""

    fabric: tuple
    pp: int
    vpp: int
    schedule: str
    stages: tuple[int, ...]
    gathers: tuple[bool, bool]  # weights for each micro-batch, and again for the backward


Refused = Callable[[RoofcastError, int], None]  # told why so many rows are invalid
Laid = dict[tuple, list[Unit]]  # units by network, and by whether ZeRO 3 gathers
Fabrics = dict[int, tuple[tuple, Fabric]]  # by number of devices, with what tells them apart


class _Rank(NamedTuple):
    """Rows with one rank, by what they share beyond it."""

    key: tuple
    first: Row
    groups: dict[_Group, list[Row]]

    @property
    def family(self) -> tuple:
        """What ranks share that differ in recomputation and offload only."""
        return self.key[:FAMILY]

    @property
    def rows(self) -> list[Row]:
        """All of them."""
        return [row for group in self.groups.values() for row in group]


class _Traced(NamedTuple):
    """A rank's step of one micro-batch, and the seconds of its kernels."""

    step: Step
    times: roofline.OpTimes

    @property
    def work(self) -> float:
        """Seconds of the kernels, without the update."""
        kernels = zip(self.step.kernels, self.times.seconds.tolist(), strict=True)
        return sum(seconds for k, seconds in kernels if k.phase != "update")

    @property
    def spared(self) -> float:
        """Seconds of adding gradients up, which the first micro-batch of a step may do without."""
        kernels = zip(self.step.kernels, self.times.seconds.tolist(), strict=True)
        return sum(seconds for k, seconds in kernels if k.kind == "accumulate")


def forecast_rows(
    decided: Decided, names: Named, step_s: np.ndarray, peak: np.ndarray, sieve: Sieve | None = None
) -> list[Refusal]:
    """Writes step seconds and peak bytes of rows at their places; those of an invalid row are left
    as they are, and returned is why. Left as they are is also what a sieve holds back.
    """
    found: list[Refusal] = []

    def refused(error: RoofcastError, rows: int) -> None:
        found.append(Refusal(0, error, rows))

    lists = [[c.values[i] for i in c.codes[decided.rows].tolist()] for c in decided.fields.values()]
    fields = tuple(decided.fields)
    recipe = decided.recipe
    rows = [
        Row(row, decided.recipes[recipe.values[r]], Layout(**dict(zip(fields, each, strict=True))))
        for row, r, each in zip(
            decided.rows.tolist(),
            recipe.codes[decided.rows].tolist(),
            zip(*lists, strict=True),
            strict=True,
        )
    ]
    fabrics: Fabrics = {}
    ranks: dict[tuple, _Rank] = {}
    gathering: dict[tuple, tuple[bool, bool]] = {}
    for row in rows:
        x = row.layout
        if x.devices not in fabrics:
            fabric = fabric_of(names.system, names.device, x.devices)
            fabrics[x.devices] = kind_of(fabric), fabric
        how = x.zero, x.pp == 1, x.reshard
        if how not in gathering:
            once = gathers(x)
            gathering[how] = once, once and x.reshard
        key = (
            *(x.tp, x.sp, x.cp, x.cp_kind, x.ep, x.etp, x.micro_batch, id(row.recipe)),
            x.pp * x.vpp if policy(row.recipe.recompute).kind == "block" else 1,
        )
        group = _Group(fabrics[x.devices][0], x.pp, x.vpp, x.schedule, x.stages, gathering[how])
        rank = ranks.setdefault(key, _Rank(key, row, {}))
        rank.groups.setdefault(group, []).append(row)
    run = _Run(names, fabrics, (step_s, peak), refused)
    if sieve is None:
        for rank in ranks.values():
            if (traced := run.traced(rank)) is not None:
                on: Laid = {}
                for group, members in rank.groups.items():
                    run.forecast(group, members, traced, on)
        return found
    for group, members, traced, on in _sifted(list(ranks.values()), run, sieve):
        run.forecast(group, members, traced, on, sieve)
    return found


def _sifted(
    ranks: list[_Rank], run: _Run, sieve: Sieve
) -> Iterator[tuple[_Group, list[Row], _Traced, Laid]]:
    """The rows that may be the fastest, rank by rank, those whose kernels take least time first.
    The first rank of a family is traced for that: recomputation and offload add to its work.
    """
    known: dict[tuple, _Traced | None] = {}
    for rank in ranks:
        if rank.family not in sieve.work:
            known[rank.key] = traced = run.traced(rank, sieve)
            sieve.work[rank.family] = traced.work - traced.spared if traced else 0.0

    def least(rank: _Rank) -> float:
        work = sieve.work[rank.family]
        return min(sieve.least(row.layout, work) for row in rank.rows)

    for rank in sorted(ranks, key=least):
        work = sieve.work[rank.family]
        if not any(sieve.may_win(row.layout, work) for row in rank.rows):
            continue
        traced = known.pop(rank.key) if rank.key in known else run.traced(rank, sieve)
        if traced is None:
            continue
        work, spared, on = traced.work, traced.spared, dict[tuple, list[Unit]]()
        for group, rows in rank.groups.items():
            left = [row for row in rows if sieve.may_win(row.layout, work, spared)]
            if left:
                yield group, left, traced, on


class _Run(NamedTuple):
    """Forecasts rows rank by rank."""

    names: Named
    fabrics: Fabrics
    out: tuple[np.ndarray, np.ndarray]  # seconds, bytes
    refused: Refused

    def traced(self, rank: _Rank, sieve: Sieve | None = None) -> _Traced | None:
        """The rank's step; None where there is none."""
        first, model = rank.first, self.names.model
        recipe = msgspec.structs.replace(first.recipe, batch=first.layout.micro_batch)
        try:
            if sieve is None:
                step = trace(model, recipe, first.layout.parallel)
            else:
                key = (self.names.device.kind, key_of(recipe), *rank.family, rank.key[-1])
                if key not in sieve.traces:
                    sieve.traces[key] = trace(model, recipe, first.layout.parallel)
                step = sieve.traces[key]
        except RoofcastError as error:
            self.refused(error, len(rank.rows))
            return None
        return _Traced(step, roofline.time_all(step, self.names.device))

    def forecast(
        self, group: _Group, rows: list[Row], traced: _Traced, on: Laid, sieve: Sieve | None = None
    ) -> None:
        """A group of rows that share a rank. on: the units of that rank, which are added to."""
        at, torus = self._placed(rows, traced.step)
        # ZeRO 3 has units of its own where there are no layers
        where = (group.fabric, gathers(at.layout))
        if torus or where not in on:
            known = next((us for (_, whole), us in on.items() if whole == where[1]), None)
            on[where] = sending(known, at) if known else units(at, traced.times)
        try:
            check(rows[0].layout, traced.step, self.names.model.name)
            members = dealt(at, on[where])
            if sieve is not None:
                self._fitting(rows, traced, (at, on[where], members), sieve)
                return
            step_s = timed(at, on[where], members).step_s
        except RoofcastError as error:
            self.refused(error, len(rows))
            return
        places = [row.place for row in rows]
        self.out[0][places] = step_s
        self.out[1][places] = peak_bytes(at, on[where], members)

    def _placed(self, rows: Sequence[Row], step: Step) -> tuple[Placement, bool]:
        """Rows as one layout of columns, and whether their network is a torus."""
        columns: dict[str, Any] = {
            n: np.array([getattr(r.layout, n) for r in rows]) for n in COLUMNS
        }
        x: Any = msgspec.structs.replace(rows[0].layout, **columns)
        fabric = self.fabrics[rows[0].layout.devices][1]
        torus = is_torus(fabric)
        if torus:
            fabric = beside([self.fabrics[row.layout.devices][1] for row in rows])
        return Placement(step, self.names.device, x, network(x, fabric)), torus

    def _fitting(
        self,
        rows: list[Row],
        traced: _Traced,
        placed: tuple[Placement, list[Unit], list[list[int]]],
        sieve: Sieve,
    ) -> None:
        """Peaks of all rows, and times of those that fit."""
        at, parts, members = placed
        shape = np.shape(at.layout.dp)
        peak = np.broadcast_to(peak_bytes(at, parts, members), shape)
        self.out[1][[row.place for row in rows]] = peak
        fits = np.flatnonzero(peak <= sieve.capacity)
        if not len(fits):
            return
        if len(fits) < len(rows):
            rows = [rows[i] for i in fits.tolist()]
            at, torus = self._placed(rows, traced.step)
            parts = sending(parts, at) if torus else parts
        step_s = np.broadcast_to(timed(at, parts, members).step_s, (len(rows),))
        self.out[0][[row.place for row in rows]] = step_s
        sieve.found([row.layout for row in rows], step_s, peak[fits])
