"""Times and memory of the layouts of a search, by the functions that predict calls.

A rank is traced once for all layouts that have it. Layouts whose ranks have one structure are one
layout whose degrees are columns, and whose rank's numbers are columns too.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from roofcast.hwdb.errors import RoofcastError
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.choose.decide import Decided, Refusal
from roofcast.simulator.choose.distinct import numbered, together
from roofcast.simulator.choose.ranks import Ranks, sifted
from roofcast.simulator.choose.sieve import Peaks, Sieve, key_of
from roofcast.simulator.choose.stacked import (
    Dealt,
    Structure,
    by_order,
    held_of,
    often_of,
    stacked_step,
    stacked_units,
    structure_of,
)
from roofcast.simulator.forecast.lengths import Varied
from roofcast.simulator.forecast.resolve import Named
from roofcast.simulator.parallel.holdings import Share
from roofcast.simulator.parallel.layout import check
from roofcast.simulator.parallel.stages import Unit
from roofcast.simulator.parallel.step import SPLIT_BACKWARD, peak_bytes, timed
from roofcast.simulator.parallel.traffic import Placement
from roofcast.simulator.work.step import Step

CHUNK = 16384  # layouts of a call, so that their columns stay in the cache of a core


def forecast_rows(
    decided: Decided,
    names: Named,
    step_s: np.ndarray,
    peak: np.ndarray,
    sieve: Sieve | None = None,
    peaks: Peaks | None = None,
    varied: Varied | None = None,
) -> list[Refusal]:
    """Writes step seconds and peak bytes of rows at their places; those of an invalid row are left
    as they are, and the reasons are returned. Left as they are is also what a sieve holds back, and
    what by `peaks` it would find not to fit.

    decided: of the longest samples, where these are `varied` in length.
    """
    if not len(decided.rows):
        return []
    ranks = Ranks(decided, names, sieve, varied)
    run = _Run(ranks)
    if sieve is None:
        for rows in ranks.batches():
            run.forecast(rows)
    else:
        layouts = ranks.layouts(peaks) if peaks else []
        wanted = np.ones(len(ranks.rank), dtype=bool)
        if peaks:
            wanted = ~(peaks.of(layouts) > sieve.capacity)
        for rows in sifted(ranks, sieve, wanted):
            run.forecast(rows)
        if peaks:
            peaks.found(layouts, run.peak)
    step_s[decided.rows], peak[decided.rows] = run.step_s, run.peak
    return sorted(ranks.refusals, key=lambda each: (ranks.rank[each.first], each.first))


class _Run:
    """The rows of a search while they are forecast; arrays are over those decided."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.step_s, self.peak = np.full((2, len(ranks.rank)), np.inf)
        self.structures: dict[tuple, Structure] = {}
        self.alike = self._alike()
        fields = [ranks.decided.fields[n] for n in ("pp", "vpp", "dp", "schedule", "stages")]
        every = np.arange(len(ranks.rank))
        self.apart = together([numbered(ranks.rank), *fields], every).codes  # but for SHARDING

    def _alike(self) -> np.ndarray:
        """Of each row a number that is equal where rows may be columns of one layout, if their
        ranks have one structure.
        """
        n, schedule = self.ranks.numbers, self.ranks.decided.fields["schedule"]
        # whether weights are gathered, and in the backward too
        gathers = np.where(self.ranks.gathers, 1 + n["reshard"], 0)
        replayed = np.array([s in SPLIT_BACKWARD for s in schedule.values])[schedule.codes]
        # one device with one micro-batch has the memory of a step alone
        single = (self.ranks.devices == 1) & (n["micro_batches"] == 1)
        keys = [gathers, np.where(replayed, n["pp"], 0), np.where(single, self.ranks.rank + 1, 0)]
        columns = [schedule, *map(numbered, (self.ranks.fabric, *keys))]
        return together(columns, np.arange(len(gathers))).codes

    def forecast(self, rows: np.ndarray) -> None:
        """Forecast rows whose ranks are traced, ordered by rank."""
        for structure, mine in self._by_structure(rows):
            deals, deal, mine = self._dealt(structure, mine)
            ranks, rank = np.unique(self.ranks.rank[mine], return_inverse=True)
            if not len(ranks):
                continue
            first = mine[np.searchsorted(rank, np.arange(len(ranks)))]
            held = [
                self.ranks.held(i, row) for i, row in zip(ranks, first[:, None, None], strict=True)
            ]
            stages = _Stages(deals, deal, structure.shares(deals, *zip(*held, strict=True)), rank)
            for alike in _split(self.alike[mine]):
                self._of_group(mine[alike], stages.of(alike))

    def _of_group(self, rows: np.ndarray, stages: _Stages) -> None:
        """Forecast rows that may be columns of one layout, ordered by rank: as a table with what
        ZeRO shards along its second axis, on which much does not depend.
        """
        order = np.lexsort((self.apart[rows], self.ranks.rank[rows]))
        first = np.flatnonzero(np.diff(self.apart[rows[order]], prepend=-1))
        each = np.diff(first, append=len(order))
        # entries that a row of the table lacks repeat its first one
        along = np.arange(each.max())
        table = order[first[:, None] + np.where(along < each[:, None], along, 0)]
        high = max(CHUNK // len(along), 1)
        for start in range(0, len(table), high):
            some = table[start : start + high]
            self._columns(rows[some], stages.of(some[:, :1]))

    def _by_structure(self, rows: np.ndarray) -> Iterator[tuple[Structure, np.ndarray]]:
        """The rows that share a structure. A model without layers has another where ZeRO 3 gathers
        its weights: submodules are its units.
        """
        found: dict[tuple, list[tuple[np.ndarray, list[Unit]]]] = {}
        for part in _split(self.ranks.rank[rows]):
            i = int(self.ranks.rank[rows[part[0]]])
            step = self.ranks.of(i).step
            mine = self._checked(rows[part], step)
            gathers = self.ranks.gathers[mine] & (len(step.blocks) == 1)
            recipe = key_of(msgspec.structs.replace(step.recipe, batch=1, recompute="none"))
            for some in (mine[~gathers], mine[gathers]):
                if len(some):
                    of_rank = self.ranks.units(i, some[:1, None])
                    key = recipe, structure_of(step, of_rank)
                    found.setdefault(key, []).append((some, of_rank))
                    if key not in self.structures:
                        self.structures[key] = Structure(step, of_rank)
        for key, parts in found.items():
            orders = by_order([of_rank for _, of_rank in parts])
            for order in sorted(set(orders)):
                same = [some for (some, _), n in zip(parts, orders, strict=True) if n == order]
                yield self.structures[key], np.concatenate(same)

    def _checked(self, rows: np.ndarray, step: Step) -> np.ndarray:
        """Those rows of a rank whose degrees cut something of its step."""
        kept, pipelined = [], self.ranks.numbers["pp"][rows] > 1
        for some in (rows[~pipelined], rows[pipelined]):
            try:
                if len(some):
                    check(
                        self.ranks.decided.layout(int(some[0])), step, self.ranks.names.model.name
                    )
                kept.append(some)
            except RoofcastError as error:
                self.ranks.refuse(error, some)
        return np.sort(np.concatenate(kept)) if kept else rows[:0]

    def _dealt(
        self, structure: Structure, rows: np.ndarray
    ) -> tuple[list[Dealt], np.ndarray, np.ndarray]:
        """How layers are dealt to stages, of each row which way, and the rows where they can be."""
        columns = [self.ranks.decided.fields[name] for name in ("pp", "vpp", "schedule", "stages")]
        first, codes = together(columns, rows)
        deals: list[Dealt] = []
        place = np.full(len(first), -1)
        for i, row in enumerate(first.tolist()):
            try:
                deals.append(structure.dealt(self.ranks.decided.layout(row)))
                place[i] = len(deals) - 1
            except RoofcastError as error:
                self.ranks.refuse(error, rows[codes == i])
        deal = place[codes]
        return deals, deal[deal >= 0], rows[deal >= 0]

    def _columns(self, rows: np.ndarray, stages: _Stages) -> None:
        """Forecast a table of rows; with a sieve, the times of those only that fit."""
        try:
            at, parts, holding = self._stacked(rows)
            if self.ranks.sieve is None:
                self.step_s[rows] = timed(at, parts, stages.often()).step_s
                self.peak[rows] = peak_bytes(holding, stages.held())
                return
            self.peak[rows] = peak_bytes(holding, stages.held())
            fits = np.any(self.peak[rows] <= self.ranks.sieve.capacity, axis=1)
            if np.any(fits):
                if not np.all(fits):
                    at, parts, _ = self._stacked(rows[fits])
                step_s = timed(at, parts, stages.of(fits).often()).step_s
                rows = rows[fits]
                peak = self.peak[rows]
                self.step_s[rows] = np.where(peak <= self.ranks.sieve.capacity, step_s, np.inf)
                self.ranks.sieve.found(self.ranks.devices[rows], self.step_s[rows], peak)
        except RoofcastError as error:
            self.ranks.refuse(error, np.unique(rows))

    def _stacked(self, rows: np.ndarray) -> tuple[Placement, list[Unit], Placement]:
        """Where a table of rows of ranks with one structure lies, and its units; and the same with
        the steps whose memory is held.
        """
        traced, of_ranks, counts = [], [], []
        for part in _split(self.ranks.rank[rows[:, 0]]):
            mine = rows[part]
            i = int(self.ranks.rank[mine[0, 0]])
            traced.append(self.ranks.of(i))
            of_ranks.append(self.ranks.units(i, mine))
            counts.append(len(part))
        at = self.ranks.placed(rows, stacked_step([each.step for each in traced], counts))
        holding = at
        if self.ranks.varied is not None:
            held = stacked_step([each.longest for each in traced], counts)
            holding = at._replace(step=held)
        return at, stacked_units(of_ranks, counts), holding


class _Stages(NamedTuple):
    """What the stages of some rows consist of."""

    deals: list[Dealt]
    deal: np.ndarray  # of each row, which of them it has
    shares: Share  # of ranks
    rank: np.ndarray  # of each row, which of these it has

    def of(self, which: np.ndarray) -> _Stages:
        """Of some of the rows."""
        return self._replace(deal=self.deal[which], rank=self.rank[which])

    def often(self) -> np.ndarray:
        """As step.timed takes it."""
        return often_of(self.deals, self.deal)

    def held(self) -> list[tuple[np.ndarray, Share]]:
        """As step.peak_bytes takes it."""
        return held_of(self.deals, self.deal, self.shares, self.rank)


def _split(codes: np.ndarray) -> list[np.ndarray]:
    """Indices of equal codes, ascending, code by code."""
    order = np.argsort(codes, kind="stable")
    ends = np.flatnonzero(np.diff(codes[order])) + 1
    return np.split(order, ends) if len(order) else []
