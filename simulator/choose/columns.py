"""Times and memory of the layouts of a search, by the functions that predict calls.

A rank is traced once for all layouts that have it. Layouts whose ranks have one structure are one
layout whose degrees are columns, and whose rank's numbers are columns too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np

from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.choose.decide import Decided, Refusal
from roofcast.simulator.choose.distinct import Column, column, together
from roofcast.simulator.choose.sieve import Sieve, key_of
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
from roofcast.simulator.forecast.resolve import Named
from roofcast.simulator.parallel.fabric import Fabric, beside, is_torus, kind_of
from roofcast.simulator.parallel.holdings import Share
from roofcast.simulator.parallel.layout import check
from roofcast.simulator.parallel.networks import fabric_of
from roofcast.simulator.parallel.stages import Unit, sending, units
from roofcast.simulator.parallel.step import SPLIT_BACKWARD, peak_bytes, timed
from roofcast.simulator.parallel.traffic import Network, Placement, network
from roofcast.simulator.times import roofline
from roofcast.simulator.work.recompute import policy
from roofcast.simulator.work.step import Recipe, Step, trace
from roofcast.simulator.work.traced import Kernel

FAMILY = ("tp", "sp", "cp", "cp_kind", "ep", "etp", "micro_batch")  # what shapes a rank
DEGREES = (
    "tp", "sp", "cp", "pp", "vpp", "dp", "ep", "etp", "zero", "shard", "reshard", "micro_batches",
)  # fmt: skip
SHARDING = ("zero", "shard", "reshard")  # which changes neither a rank's passes nor its pipeline
RANKS = 128  # traced at a time
CHUNK = 16384  # layouts of a call, so that their columns stay in the cache of a core


def forecast_rows(
    decided: Decided, names: Named, step_s: np.ndarray, peak: np.ndarray, sieve: Sieve | None = None
) -> list[Refusal]:
    """Writes step seconds and peak bytes of rows at their places; those of an invalid row are left
    as they are, and the reasons are returned. Left as they are is also what a sieve holds back.
    """
    if not len(decided.rows):
        return []
    run = _Run(decided, names, sieve)
    for rows in run.batches() if sieve is None else _sifted(run, sieve):
        run.forecast(rows)
    step_s[decided.rows], peak[decided.rows] = run.step_s, run.peak
    run.refusals.sort(key=lambda each: (run.rank[each.first], each.first))
    return run.refusals


class _Rank(NamedTuple):
    """Layouts with one rank: their rows among those decided, and what the rank depends on."""

    rows: np.ndarray
    family: tuple  # what ranks share that differ in recomputation and offload only
    recipe: Recipe  # of the global batch


class _Traced:
    """A rank's step of one micro-batch, with the seconds of its kernels."""

    def __init__(self, step: Step, times: roofline.OpTimes) -> None:
        self.step, self.times = step, times
        self.units: dict[tuple, list[Unit]] = {}  # by network, and by whether submodules are units

    def _seconds(self, counts: Callable[[Kernel], bool]) -> float:
        kernels = zip(self.step.kernels, self.times.seconds.tolist(), strict=True)
        return sum(seconds for kernel, seconds in kernels if counts(kernel))

    @property
    def work(self) -> float:
        """Seconds of the kernels, without the update."""
        return self._seconds(lambda kernel: kernel.phase != "update")

    @property
    def spared(self) -> float:
        """Seconds of adding gradients up, which the first micro-batch of a step may do without."""
        return self._seconds(lambda kernel: kernel.kind == "accumulate")


def _sifted(run: _Run, sieve: Sieve) -> Iterator[np.ndarray]:
    """The rows that may be the fastest, rank by rank, those whose kernels take least time first.
    The first rank of a family is traced for that: recomputation and offload add to its work.
    """
    for i, rank in enumerate(run.ranks):
        if rank.family not in sieve.work:
            first = run.trace(i)
            sieve.work[rank.family] = first.work - first.spared if first else 0.0

    def least(i: int) -> float:
        rank = run.ranks[i]
        return float(run.least(rank.rows, sieve.work[rank.family]).min())

    for i in sorted(range(len(run.ranks)), key=least):
        rank = run.ranks[i]
        at_best = run.least(rank.rows, sieve.work[rank.family])
        if not np.any(at_best < sieve.fastest(run.devices[rank.rows])):
            continue
        if (traced := run.trace(i)) is not None:
            at_best = run.least(rank.rows, traced.work, traced.spared)
            yield rank.rows[at_best < sieve.fastest(run.devices[rank.rows])]
            del run.traced[i]


class _Run:
    """The rows of a search while they are forecast: those decided; arrays are over these."""

    def __init__(self, decided: Decided, names: Named, sieve: Sieve | None) -> None:
        self.decided, self.names, self.sieve = decided, names, sieve
        self.step_s, self.peak = np.full((2, len(decided.rows)), np.inf)
        self.refusals: list[Refusal] = []
        self.numbers = n = {name: decided.fields[name].array for name in DEGREES}
        self.devices = n["tp"] * n["cp"] * n["pp"] * n["dp"]
        self.gathers = (n["zero"] == 3) & ((n["pp"] == 1) | n["reshard"])  # traffic.gathers
        self.fabrics: dict[int, Fabric] = {}  # by number of devices
        self.fabric = self._kinds_of_fabrics()
        self.ranks, self.rank = self._ranks()
        self.traced: dict[int, _Traced | None] = {}
        self.structures: dict[tuple, Structure] = {}
        self.networks: dict[tuple, Network] = {}  # by kind of network and groups inside the model
        self.alike = self._alike()
        apart = [decided.fields[name] for name in ("pp", "vpp", "dp", "schedule", "stages")]
        every = np.arange(len(self.rank))
        self.apart = together([_numbered(self.rank), *apart], every).codes  # but for SHARDING

    def _kinds_of_fabrics(self) -> np.ndarray:
        """The kind of network of each row, numbered."""
        degrees = [self.decided.fields[name] for name in ("tp", "cp", "pp", "dp")]
        first, of = together(degrees, np.arange(len(self.devices)))
        counts = self.devices[first].tolist()
        for n in set(counts):
            self.fabrics[n] = fabric_of(self.names.system, self.names.device, n)
        return column(kind_of(self.fabrics[n]) for n in counts).codes[of]

    def _ranks(self) -> tuple[list[_Rank], np.ndarray]:
        """The ranks, and of each row which it has."""
        recipes, recipe = self.decided.recipes, self.decided.recipe
        columns = [self.decided.fields[name] for name in FAMILY]
        by_stage = np.array([policy(r.recompute).kind == "block" for r in recipes])[recipe.array]
        parts = np.where(by_stage, self.numbers["pp"] * self.numbers["vpp"], 1)
        columns.append(_numbered(parts))
        first, of = together([*columns, recipe], np.arange(len(parts)))
        rows = np.split(np.argsort(of, kind="stable"), np.cumsum(np.bincount(of))[:-1])
        ranks = []
        for mine, i in zip(rows, first.tolist(), strict=True):
            family = tuple(c.values[c.codes[i]] for c in columns)
            ranks.append(_Rank(mine, family, recipes[recipe.values[recipe.codes[i]]]))
        return ranks, of

    def _alike(self) -> np.ndarray:
        """Of each row a number that is equal where rows may be columns of one layout, if their
        ranks have one structure.
        """
        n, schedule = self.numbers, self.decided.fields["schedule"]
        gathers = np.where(self.gathers, 1 + n["reshard"], 0)  # whether, and in the backward too
        replayed = np.array([s in SPLIT_BACKWARD for s in schedule.values])[schedule.codes]
        # one device with one micro-batch has the memory of a step alone
        single = (self.devices == 1) & (n["micro_batches"] == 1)
        keys = [gathers, np.where(replayed, n["pp"], 0), np.where(single, self.rank + 1, 0)]
        columns = [schedule, *map(_numbered, (self.fabric, *keys))]
        return together(columns, np.arange(len(gathers))).codes

    def least(self, rows: np.ndarray, work: float, spared: float = 0.0) -> np.ndarray:
        """Seconds that rows of a rank take at least, as Sieve.least."""
        return Sieve.least(
            self.numbers["pp"][rows], self.numbers["micro_batches"][rows], work, spared
        )

    def batches(self) -> Iterator[np.ndarray]:
        """The rows of a few ranks at a time, which are traced."""
        for start in range(0, len(self.ranks), RANKS):
            some = range(start, min(start + RANKS, len(self.ranks)))
            self._trace(some)
            rows = [self.ranks[i].rows for i in some if self.traced[i] is not None]
            if rows:
                yield np.concatenate(rows)
            self.traced.clear()

    def trace(self, i: int) -> _Traced | None:
        """The i-th rank; None where it cannot be, which refuses its rows."""
        if i not in self.traced:
            self._trace([i])
        return self.traced[i]

    def _trace(self, ranks: Iterable[int]) -> None:
        """Trace ranks. The kernels of all of them are timed together."""
        steps: dict[tuple, list[tuple[int, Step]]] = {}  # by what kernels run under
        for i in ranks:
            try:
                step = self._step(i)
                how = id(step.recipe.stack), step.recipe.mode
                steps.setdefault(how, []).append((i, step))
            except RoofcastError as error:
                self._cannot_be(i, error)
        for same in steps.values():
            kernels = tuple(kernel for _, step in same for kernel in step.kernels)
            try:
                times = roofline.time_all(same[0][1]._replace(kernels=kernels), self.names.device)
            except RoofcastError as error:
                for i, _ in same:
                    self._cannot_be(i, error)
                continue
            end = 0
            for i, step in same:
                start, end = end, end + len(step.kernels)
                each = (of_all[start:end] for of_all in times[:3])
                self.traced[i] = _Traced(step, roofline.OpTimes(*each, times.assumptions))

    def _step(self, i: int) -> Step:
        """The step of the i-th rank."""
        rank, sieve = self.ranks[i], self.sieve
        micro_batch = rank.family[FAMILY.index("micro_batch")]
        recipe = msgspec.structs.replace(rank.recipe, batch=micro_batch)
        parallel = self.decided.layout(int(rank.rows[0])).parallel
        if sieve is None:
            return trace(self.names.model, recipe, parallel)
        key = (self.names.device.kind, key_of(recipe), *rank.family)
        if key not in sieve.traces:
            sieve.traces[key] = trace(self.names.model, recipe, parallel)
        return sieve.traces[key]

    def _cannot_be(self, i: int, error: RoofcastError) -> None:
        """Refuse the rows of the i-th rank."""
        self.refuse(error, self.ranks[i].rows)
        self.traced[i] = None

    def refuse(self, error: RoofcastError, rows: np.ndarray) -> None:
        """Remember why rows, which are ordered by rank, are invalid."""
        self.refusals.append(Refusal(int(rows[0]), error, len(rows)))

    def forecast(self, rows: np.ndarray) -> None:
        """Forecast rows whose ranks are traced, ordered by rank."""
        for structure, mine in self._by_structure(rows):
            deals, deal, mine = self._dealt(structure, mine)
            ranks, rank = np.unique(self.rank[mine], return_inverse=True)
            steps, of_ranks = [], []
            for i, at in zip(ranks.tolist(), np.searchsorted(rank, range(len(ranks))), strict=True):
                steps.append(self._of(i).step)
                of_ranks.append(self._units(i, mine[at : at + 1, None]))
            shares = structure.shares(steps, of_ranks) if steps else None
            if shares is not None:
                stages = _Stages(deals, deal, shares, rank)
                for alike in _split(self.alike[mine]):
                    self._of_group(mine[alike], stages.of(alike))

    def _of_group(self, rows: np.ndarray, stages: _Stages) -> None:
        """Forecast rows that may be columns of one layout, ordered by rank: as a table with what
        ZeRO shards along its second axis, on which much does not depend.
        """
        order = np.lexsort((self.apart[rows], self.rank[rows]))
        first = np.flatnonzero(np.diff(self.apart[rows[order]], prepend=-1))
        each = np.diff(first, append=len(order))
        # entries that a row of the table lacks repeat its first one
        along = np.arange(each.max())
        table = order[first[:, None] + np.where(along < each[:, None], along, 0)]
        high = max(CHUNK // len(along), 1)
        for start in range(0, len(table), high):
            some = table[start : start + high]
            self._columns(rows[some], stages.of(some[:, :1]))

    def _of(self, i: int) -> _Traced:
        """The i-th rank, which is traced."""
        traced = self.traced[i]
        assert traced is not None, "rows of other ranks are refused"
        return traced

    def _by_structure(self, rows: np.ndarray) -> Iterator[tuple[Structure, np.ndarray]]:
        """The rows that share a structure. A model without layers has another where ZeRO 3 gathers
        its weights: submodules are its units.
        """
        found: dict[tuple, list[tuple[np.ndarray, list[Unit]]]] = {}
        for part in _split(self.rank[rows]):
            i = int(self.rank[rows[part[0]]])
            step = self._of(i).step
            mine = self._checked(rows[part], step)
            gathers = self.gathers[mine] & (len(step.blocks) == 1)
            recipe = key_of(msgspec.structs.replace(step.recipe, batch=1, recompute="none"))
            for some in (mine[~gathers], mine[gathers]):
                if len(some):
                    of_rank = self._units(i, some[:1, None])
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
        kept, pipelined = [], self.numbers["pp"][rows] > 1
        for some in (rows[~pipelined], rows[pipelined]):
            try:
                if len(some):
                    check(self.decided.layout(int(some[0])), step, self.names.model.name)
                kept.append(some)
            except RoofcastError as error:
                self.refuse(error, some)
        return np.sort(np.concatenate(kept)) if kept else rows[:0]

    def _dealt(
        self, structure: Structure, rows: np.ndarray
    ) -> tuple[list[Dealt], np.ndarray, np.ndarray]:
        """How layers are dealt to stages, of each row which way, and the rows where they can be."""
        columns = [self.decided.fields[name] for name in ("pp", "vpp", "schedule", "stages")]
        first, codes = together(columns, rows)
        deals: list[Dealt] = []
        place = np.full(len(first), -1)
        for i, row in enumerate(first.tolist()):
            try:
                deals.append(structure.dealt(self.decided.layout(row)))
                place[i] = len(deals) - 1
            except RoofcastError as error:
                self.refuse(error, rows[codes == i])
        deal = place[codes]
        return deals, deal[deal >= 0], rows[deal >= 0]

    def _units(self, i: int, rows: np.ndarray) -> list[Unit]:
        """The units of the i-th rank on the network of a table of rows; on a torus what they send
        is a column.
        """
        traced, first = self._of(i), int(rows[0, 0])
        where = self.fabric[first], bool(self.gathers[first]) and len(traced.step.blocks) == 1
        torus = is_torus(self.fabrics[int(self.devices[first])])
        if torus or where not in traced.units:
            at = self._placed(rows, traced.step) if torus else self._of_rank(first, traced.step)
            known = next((us for (_, g), us in traced.units.items() if g == where[1]), None)
            traced.units[where] = sending(known, at) if known else units(at, traced.times)
        return traced.units[where]

    def _of_rank(self, row: int, step: Step) -> Placement:
        """Where a rank of a row lies. The network is that of one of the rows with the same groups
        inside the model, which are all that units look at.
        """
        x = self.decided.layout(row)
        groups = self.fabric[row], x.tp, x.cp, x.ep, x.etp
        if groups not in self.networks:
            self.networks[groups] = network(x, self.fabrics[x.devices])
        return Placement(step, self.names.device, x, self.networks[groups])

    def _placed(self, rows: np.ndarray, step: Step) -> Placement:
        """A table of rows as one layout: columns of what its first axis differs in, tables of what
        ZeRO shards; what is equal is one number.
        """
        columns: dict[str, Any] = {}
        for name, numbers in self.numbers.items():
            mine = numbers[rows if name in SHARDING else rows[:, :1]]
            columns[name] = mine if mine.min() != mine.max() else mine[0, 0].item()
        x: Any = msgspec.structs.replace(self.decided.layout(int(rows[0, 0])), **columns)
        fabric = self.fabrics[int(self.devices[rows[0, 0]])]
        if is_torus(fabric):
            fabric = beside([self.fabrics[n] for n in self.devices[rows[:, 0]].tolist()])
        return Placement(step, self.names.device, x, network(x, fabric))

    def _columns(self, rows: np.ndarray, stages: _Stages) -> None:
        """Forecast a table of rows; with a sieve, the times of those only that fit."""
        try:
            at, parts = self._stacked(rows)
            if self.sieve is None:
                self.step_s[rows] = timed(at, parts, stages.often()).step_s
                self.peak[rows] = peak_bytes(at, stages.held())
                return
            self.peak[rows] = peak_bytes(at, stages.held())
            fits = np.any(self.peak[rows] <= self.sieve.capacity, axis=1)
            if np.any(fits):
                at, parts = self._stacked(rows[fits])
                step_s = timed(at, parts, stages.of(fits).often()).step_s
                rows = rows[fits]
                peak = self.peak[rows]
                self.step_s[rows] = np.where(peak <= self.sieve.capacity, step_s, np.inf)
                self.sieve.found(self.devices[rows], self.step_s[rows], peak)
        except RoofcastError as error:
            self.refuse(error, np.unique(rows))

    def _stacked(self, rows: np.ndarray) -> tuple[Placement, list[Unit]]:
        """Where a table of rows of ranks with one structure lies, and its units."""
        steps, of_ranks, counts = [], [], []
        for part in _split(self.rank[rows[:, 0]]):
            mine = rows[part]
            i = int(self.rank[mine[0, 0]])
            steps.append(self._of(i).step)
            of_ranks.append(self._units(i, mine))
            counts.append(len(part))
        return self._placed(rows, stacked_step(steps, counts)), stacked_units(of_ranks, counts)


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


def _numbered(codes: np.ndarray) -> Column:
    """Whole numbers as a column."""
    return Column(list(range(int(codes.max()) + 1)), codes)


def _split(codes: np.ndarray) -> list[np.ndarray]:
    """Indices of equal codes, ascending, code by code."""
    order = np.argsort(codes, kind="stable")
    ends = np.flatnonzero(np.diff(codes[order])) + 1
    return np.split(order, ends) if len(order) else []
