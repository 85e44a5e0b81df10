"""The ranks of a search: each is traced once for all layouts that have it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from roofcast.hwdb.errors import RoofcastError
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.choose.decide import Decided, Refusal
from roofcast.simulator.choose.distinct import numbered, together
from roofcast.simulator.choose.sieve import Peaks, Sieve, key_of
from roofcast.simulator.forecast.lengths import Varied
from roofcast.simulator.forecast.resolve import Named, mean_size
from roofcast.simulator.parallel.fabric import Fabric, beside, is_torus, kind_of
from roofcast.simulator.parallel.networks import fabric_of
from roofcast.simulator.parallel.stages import Unit, sending, units
from roofcast.simulator.parallel.traffic import Network, Placement, network
from roofcast.simulator.times import roofline
from roofcast.simulator.work.recompute import policy
from roofcast.simulator.work.step import Recipe, Step, trace
from roofcast.simulator.work.traced import Parallel

FAMILY = ("tp", "sp", "cp", "cp_kind", "ep", "etp", "micro_batch")  # what shapes a rank
DEGREES = (
    "tp", "sp", "cp", "pp", "vpp", "dp", "ep", "etp", "zero", "shard", "reshard", "micro_batches",
)  # fmt: skip
SHARDING = ("zero", "shard", "reshard")  # which changes neither a rank's passes nor its pipeline
# rows of ranks that are forecast together, at least: few at first, which hold others back
TOGETHER = (1, 64, 1024)
KEPT = 256  # ranks of a device that are kept with their times for its further searches
AT_ONCE = 128  # ranks that are traced at a time


class Rank(NamedTuple):
    """Layouts with one rank: their rows among those decided, and what the rank depends on."""

    rows: np.ndarray
    family: tuple  # what ranks share that differ in recomputation and offload only
    recipe: Recipe  # of the global batch


class Traced:
    """A rank's step of one micro-batch, with the seconds of its kernels; and the step whose memory
    is held, that of the longest samples.
    """

    def __init__(self, step: Step, times: roofline.OpTimes, longest: Step) -> None:
        self.step, self.times, self.longest = step, times, longest
        self.units: dict[tuple, list[Unit]] = {}  # by network, and by whether submodules are units

    @cached_property
    def work(self) -> float:
        """Seconds of the kernels, without the update."""
        kernels = zip(self.step.kernels, self.times.seconds.tolist(), strict=True)
        return sum([seconds for kernel, seconds in kernels if kernel.phase != "update"])

    @property
    def least(self) -> float:
        """Seconds of the kernels in any micro-batch."""
        return self.work - self.spared

    @cached_property
    def spared(self) -> float:
        """Seconds of adding gradients up, which the first micro-batch of a step may do without."""
        kernels = zip(self.step.kernels, self.times.seconds.tolist(), strict=True)
        return sum([seconds for kernel, seconds in kernels if kernel.kind == "accumulate"])


class Ranks:
    """The rows of a search that were decided, with their ranks and networks; arrays are over these
    rows.
    """

    def __init__(
        self, decided: Decided, names: Named, sieve: Sieve | None, varied: Varied | None = None
    ) -> None:
        self.decided, self.names, self.sieve = decided, names, sieve
        self.varied = None if varied is None or varied.packing else varied  # packed: whole ones
        self.refusals: list[Refusal] = []
        self.numbers = n = {name: decided.fields[name].array for name in DEGREES}
        self.gathers = (n["zero"] == 3) & ((n["pp"] == 1) | n["reshard"])  # traffic.gathers
        self.fabrics: dict[int, Fabric] = {}  # by number of devices
        self.devices, self.fabric = self._networks()
        self.ranks, self.rank = self._ranks()
        self.traced: dict[int, Traced | None] = {}
        self.networks: dict[tuple, Network] = {}  # by kind of network and groups inside the model

    def _networks(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each row its number of devices, and the kind of its network, numbered."""
        degrees = [self.decided.fields[name] for name in ("tp", "cp", "pp", "dp")]
        first, of = together(degrees, np.arange(len(self.decided.rows)))
        counts = [math.prod(c.of(row) for c in degrees) for row in first.tolist()]
        for n in set(counts):
            self.fabrics[n] = fabric_of(self.names.system, self.names.device, n)
        numbers = self.sieve.networks if self.sieve else {}
        kinds = [kind_of(self.fabrics[n]) for n in counts]
        codes = np.array([numbers.setdefault(kind, len(numbers)) for kind in kinds])
        return np.array(counts)[of], codes[of]

    def _ranks(self) -> tuple[list[Rank], np.ndarray]:
        """The ranks, and of each row which it has."""
        recipes, recipe = self.decided.recipes, self.decided.recipe
        columns = [self.decided.fields[name] for name in FAMILY]
        by_stage = np.array([policy(r.recompute).kind == "block" for r in recipes])[recipe.array]
        parts = np.where(by_stage, self.numbers["pp"] * self.numbers["vpp"], 1)
        columns.append(numbered(parts))
        first, of = together([*columns, recipe], np.arange(len(parts)))
        rows = np.split(np.argsort(of, kind="stable"), np.cumsum(np.bincount(of))[:-1])
        ranks = []
        for mine, i in zip(rows, first.tolist(), strict=True):
            family = tuple(c.values[c.codes[i]] for c in columns)
            ranks.append(Rank(mine, family, recipes[recipe.values[recipe.codes[i]]]))
        return ranks, of

    def least(self, rows: np.ndarray, work: float, spared: float = 0.0) -> np.ndarray:
        """Seconds that rows of a rank take at least, as Sieve.least."""
        return Sieve.least(
            self.numbers["pp"][rows], self.numbers["micro_batches"][rows], work, spared
        )

    def batches(self) -> Iterator[np.ndarray]:
        """The rows of a few ranks at a time, which are traced."""
        for start in range(0, len(self.ranks), AT_ONCE):
            some = range(start, min(start + AT_ONCE, len(self.ranks)))
            self._trace(some)
            rows = [self.ranks[i].rows for i in some if self.traced[i] is not None]
            if rows:
                yield np.concatenate(rows)
            self.traced.clear()

    def forget(self, ranks: Iterable[int]) -> None:
        """Drop ranks that are forecast."""
        for i in ranks:
            del self.traced[i]

    def trace(self, i: int) -> Traced | None:
        """The i-th rank; None where it cannot be, which refuses its rows."""
        if i not in self.traced:
            self._trace([i])
        return self.traced[i]

    def _trace(self, ranks: Iterable[int]) -> None:
        """Trace ranks. The kernels of all of them are timed together."""
        steps: dict[tuple, list[tuple[int, Step]]] = {}  # by what kernels run under
        keys = {i: self._key(self.asked(i, self.varied)[0], self.ranks[i].family) for i in ranks}
        known = self.sieve.timed if self.sieve else {}
        self.traced |= {i: known[key] for i, key in keys.items() if key in known}
        for i in keys:
            if i in self.traced:
                continue
            try:
                step = self._step(i, self.varied)
                how = id(step.recipe.stack), step.recipe.mode
                steps.setdefault(how, []).append((i, step))
            except RoofcastError as error:
                self._cannot_be(i, error)
        for same in steps.values():
            whole = same[0][1]
            if len(same) > 1:
                kernels = tuple(kernel for _, step in same for kernel in step.kernels)
                whole = whole._replace(kernels=kernels)
            try:
                times = self._times(whole, len(same) == 1)
            except RoofcastError as error:
                for i, _ in same:
                    self._cannot_be(i, error)
                continue
            end = 0
            for i, step in same:
                start, end = end, end + len(step.kernels)
                longest = step if self.varied is None else self._step(i, None)
                traced = Traced(step, _part(times, slice(start, end)), longest)
                self.traced[i] = traced
                if len(known) < KEPT:
                    known[keys[i]] = traced

    def _times(self, step: Step, again: bool = True) -> roofline.OpTimes:
        """The times of a step. again: it may be timed on other devices."""
        grouped = self.sieve.traces.grouped if self.sieve and again else None
        return roofline.time_all(step, self.names.device, grouped=grouped, bounds=False)

    def _step(self, i: int, varied: Varied | None) -> Step:
        """The step of the i-th rank; of samples varied in length, of the mean micro-batch."""
        return self._of(*self.asked(i, varied), self.ranks[i].family)

    def asked(self, i: int, varied: Varied | None) -> tuple[Recipe, Parallel]:
        """What the step of the i-th rank is traced with."""
        rank = self.ranks[i]
        micro_batch = rank.family[FAMILY.index("micro_batch")]
        recipe = msgspec.structs.replace(rank.recipe, batch=micro_batch)
        layout = self.decided.layout(int(rank.rows[0]))
        if varied is not None:
            recipe = msgspec.structs.replace(recipe, size=mean_size(varied, micro_batch, layout))
        return recipe, layout.parallel

    def _of(self, recipe: Recipe, parallel: Parallel, family: tuple) -> Step:
        """The step of a rank of a family."""
        if self.sieve is None:
            return trace(self.names.model, recipe, parallel)
        key, traces = self._key(recipe, family), self.sieve.traces
        if key not in traces:
            records = traces.records.setdefault(self.names.device.kind, {})
            traces[key] = trace(self.names.model, recipe, parallel, records)
        return traces[key]

    def _key(self, recipe: Recipe, family: tuple) -> tuple:
        """What the trace of a rank depends on, on all devices."""
        return self.names.device.kind, key_of(recipe), *family

    def layouts(self, peaks: Peaks) -> list[tuple]:
        """What the peak of each row depends on, on all devices."""
        of_rank = [peaks.number(self._key(rank.recipe, rank.family)) for rank in self.ranks]
        fields = [
            [values[i] for i in codes.tolist()] for values, codes in self.decided.fields.values()
        ]
        return list(zip([of_rank[i] for i in self.rank.tolist()], *fields, strict=True))

    def _cannot_be(self, i: int, error: RoofcastError) -> None:
        """Refuse the rows of the i-th rank."""
        self.refuse(error, self.ranks[i].rows)
        self.traced[i] = None

    def refuse(self, error: RoofcastError, rows: np.ndarray) -> None:
        """Remember why rows, which are ordered by rank, are invalid."""
        self.refusals.append(Refusal(int(rows[0]), error, len(rows)))

    def at_least(self, recipe: Recipe, parallel: Parallel, family: tuple) -> float:
        """Seconds of the kernels of a rank of another search in any micro-batch; 0 where it cannot
        be.
        """
        try:
            step = self._of(recipe, parallel, family)
            return Traced(step, self._times(step), step).least
        except RoofcastError:
            return 0.0

    def of(self, i: int) -> Traced:
        """The i-th rank, which is traced."""
        traced = self.traced[i]
        assert traced is not None, "rows of other ranks are refused"
        return traced

    def units(self, i: int, rows: np.ndarray) -> list[Unit]:
        """The units of the i-th rank on the network of a table of rows; on a torus what they send
        is a column.
        """
        traced, first = self.of(i), int(rows[0, 0])
        where = self.fabric[first], bool(self.gathers[first]) and len(traced.step.blocks) == 1
        torus = is_torus(self.fabrics[int(self.devices[first])])
        if torus or where not in traced.units:
            at = self.placed(rows, traced.step) if torus else self._at(first, traced.step)
            known = next((us for (_, g), us in traced.units.items() if g == where[1]), None)
            traced.units[where] = sending(known, at) if known else units(at, traced.times)
        return traced.units[where]

    def held(self, i: int, rows: np.ndarray) -> tuple[Step, list[Unit]]:
        """The step whose memory the i-th rank holds, and its units on the network of rows."""
        traced = self.of(i)
        if traced.longest is traced.step:
            return traced.step, self.units(i, rows)
        unknown = np.zeros(len(traced.longest.kernels))  # memory does not ask for seconds
        at = self._at(int(rows[0, 0]), traced.longest)
        return traced.longest, units(at, roofline.OpTimes(unknown, unknown, unknown, ()))

    def _at(self, row: int, step: Step) -> Placement:
        """Where a rank of a row lies. The network is that of one of the rows with the same groups
        inside the model, which are all that units look at.
        """
        x = self.decided.layout(row)
        groups = self.fabric[row], x.tp, x.cp, x.ep, x.etp
        if groups not in self.networks:
            self.networks[groups] = network(x, self.fabrics[x.devices])
        return Placement(step, self.names.device, x, self.networks[groups])

    def placed(self, rows: np.ndarray, step: Step) -> Placement:
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


def _part(times: roofline.OpTimes, which: slice) -> roofline.OpTimes:
    """The times of some kernels of many."""
    each = times.seconds[which], times.lower[which], times.bound[which]
    return roofline.OpTimes(*each, times.assumptions)


def sifted(run: Ranks, sieve: Sieve, wanted: np.ndarray) -> Iterator[np.ndarray]:
    """The rows that may be the fastest, rank by rank, those whose kernels take least time first.
    The rank of a family that recomputes and offloads nothing is traced for that, where it was met:
    both add to its work. Where it was not, a rank is bounded by its own kind.

    wanted: whether a row is asked for; others are left out.
    """
    ranks = {}  # those with such rows, which these are
    first: dict[tuple, int] = {}  # of a kind, where it is in this search
    for plain in (True, False):
        for i, rank in enumerate(run.ranks):
            if _is_plain(rank.recipe) is not plain:
                continue
            if (kind := _kind(rank, sieve)) not in sieve.first:
                sieve.first[kind] = run.asked(i, run.varied)
                first[kind] = i
            if len(rows := rank.rows[wanted[rank.rows]]):
                ranks[i] = rows
    kinds = {i: _kind(run.ranks[i], sieve) for i in ranks}
    for i, kind in kinds.items():
        if kind in sieve.work:
            continue
        if kind in first:
            here = run.trace(first[kind])
            sieve.work[kind] = here.least if here else 0.0
        else:
            sieve.work[kind] = run.at_least(*sieve.first[kind], run.ranks[i].family)

    def least(i: int) -> float:
        return float(run.least(ranks[i], sieve.work[kinds[i]]).min())

    some: dict[int, np.ndarray] = {}  # ranks whose rows are forecast together
    enough, *then = TOGETHER
    for i in sorted(ranks, key=least):
        rows = ranks[i]
        at_best = run.least(rows, sieve.work[kinds[i]])
        if not np.any(at_best < sieve.fastest(run.devices[rows])):
            continue
        if (traced := run.trace(i)) is not None:
            at_best = run.least(rows, traced.work, traced.spared)
            some[i] = rows[at_best < sieve.fastest(run.devices[rows])]
        if sum(map(len, some.values())) >= enough:
            yield _ordered(some)
            run.forget(some)
            some, enough = {}, then.pop(0) if then else enough
    if some:
        yield _ordered(some)


def _ordered(rows: Mapping[int, np.ndarray]) -> np.ndarray:
    """Rows of ranks, ordered by rank."""
    return np.concatenate([rows[i] for i in sorted(rows)])


def _is_plain(recipe: Recipe) -> bool:
    """Whether a rank recomputes and offloads nothing."""
    return recipe.recompute == "none" and not recipe.offload


def _kind(rank: Rank, sieve: Sieve) -> tuple:
    """What bounds the work of a rank: its family, by the rank of it that recomputes and offloads
    nothing; where that was not met, its family, recomputation and offload.
    """
    if _is_plain(rank.recipe) or rank.family in sieve.first:
        return rank.family
    return (*rank.family, rank.recipe.recompute, rank.recipe.offload)
