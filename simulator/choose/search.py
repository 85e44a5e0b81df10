"""Many layouts at once: columns of degrees in, columns of step times and memory out, through the
formulas that predict uses.

Layouts that differ only in dp, pp, vpp, zero or the number of micro-batches share one trace of a
rank and the seconds of its units; what is left broadcasts over them. A layout that cannot be is
marked, not dropped.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import msgspec
import numpy as np

from roofcast import hwdb
from roofcast.hwdb.constants import kernels as constants
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.records import Device
from roofcast.simulator import models
from roofcast.simulator.forecast.resolve import recipe_of
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.parallel.fabric import fabric_of
from roofcast.simulator.parallel.holdings import Share, holdings, share
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.parallel.pipeline.schedule import Stages, in_flight, pipeline, possible
from roofcast.simulator.parallel.stages import Unit, passes, stages, units
from roofcast.simulator.parallel.step import ends, updating
from roofcast.simulator.parallel.traffic import Placement, crossing, joined, network, reduction
from roofcast.simulator.times import roofline
from roofcast.simulator.times.dispatch import between_steps
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.step import Recipe, Step, trace

GRID = ("tp", "cp", "micro_batch", "recompute", "dp", "pp", "vpp", "zero")


class Columns(NamedTuple):
    """Layouts, a column a degree, of one group: tp, cp and micro-batch alike."""

    tp: int
    cp: int
    ep: int
    etp: int
    dp: np.ndarray
    pp: np.ndarray
    vpp: np.ndarray
    zero: np.ndarray
    shard: np.ndarray
    reshard: np.ndarray
    micro_batches: np.ndarray

    @property
    def sp(self) -> bool:
        """Sequence parallelism wherever there is tensor parallelism."""
        return self.tp > 1


class Found(NamedTuple):
    """One entry a layout of the grid; refused ones have infinite time."""

    layouts: dict[str, np.ndarray]
    step_s: np.ndarray
    peak_bytes: np.ndarray
    refused: np.ndarray  # cannot be, whatever the memory
    fits: np.ndarray

    def best(self) -> int:
        """The fastest that fits."""
        return int(np.argmin(np.where(self.fits, self.step_s, np.inf)))


def search(scenario: Scenario, grid: dict[str, list]) -> Found:
    """Every combination of the grid's columns (of GRID; one left out is 1, recompute none, zero 0)
    for a global batch.

    Schedules: interleaved where vpp > 1, else 1F1B.
    """
    unknown = set(grid) - set(GRID)
    if unknown:
        raise BadInput(f"search: no column {sorted(unknown)[0]!r}; there are: {', '.join(GRID)}")
    default = {"recompute": ["none"], "zero": [0]}
    values = {name: list(grid.get(name, default.get(name, [1]))) for name in GRID}
    fixed = {"ep": scenario.ep, "etp": scenario.etp, "shard": scenario.shard}
    for name, value in fixed.items():
        if value not in (None, 1):
            raise BadInput(f"search: {name} {value} is not searched; leave it out")
    device, model = hwdb.device(scenario.device, scenario.set), models.resolve(scenario.model)
    recipe, _ = recipe_of(scenario, model, device)
    inner = [a.ravel() for a in np.meshgrid(*(values[n] for n in GRID[4:]), indexing="ij")]
    parts = []
    for tp, cp, micro, how in itertools.product(*(values[n] for n in GRID[:4])):
        parts.append(
            _group(
                model,
                device,
                msgspec.structs.replace(recipe, recompute=how),
                recipe.batch,
                tp,
                cp,
                micro,
                inner,
            )
        )
    outer = list(itertools.product(*(values[n] for n in GRID[:4])))
    layouts = {
        n: np.repeat(np.array([o[i] for o in outer]), len(inner[0])) for i, n in enumerate(GRID[:4])
    }
    layouts |= {n: np.tile(inner[i], len(outer)) for i, n in enumerate(GRID[4:])}
    step_s, peak, refused = (np.concatenate(column) for column in zip(*parts, strict=True))
    capacity = device.memory.capacity or np.inf
    return Found(layouts, step_s, peak, refused, ~refused & (peak <= capacity))


class _Rank(NamedTuple):
    """What all layouts of a group share: one rank's step and the seconds and bytes of its units."""

    step: Step
    units: list[Unit]
    handed: float


def _rank(model: Model, device: Device, recipe: Recipe, tp: int, cp: int) -> _Rank:
    layout = Layout(tp=tp, cp=cp, sp=tp > 1, micro_batch=recipe.batch)
    step = trace(model, recipe, layout.parallel)
    at = Placement(step, device, layout, network(layout, fabric_of(None, device, tp * cp)))
    us = units(at, roofline.time_all(step, device))
    return _Rank(step, us, max((b.carried for b in step.blocks), default=0.0))


@functools.lru_cache(maxsize=4096)
def _dealt(counts: tuple[int, ...], pp: int, vpp: int) -> tuple[list[list[int]], np.ndarray] | None:
    """Units of each stage, and how often each stands in each (stages x units); None where there are
    more stages than layers.
    """
    us = [Unit("", c, None, None, {}, 0, 0, 0, 0, 0) for c in counts]
    try:
        dealt = stages(us, Layout(pp=pp, vpp=vpp))
    except BadInput:
        return None
    return dealt, np.stack([np.bincount(s, minlength=len(counts)) for s in dealt]).astype(float)


def _group(
    model: Model, device: Device, recipe: Recipe, batch: int, tp: int, cp: int, micro: int, inner
):
    """Step seconds, peak bytes and refusals of the layouts of one group."""
    dp, pp, vpp, zero = inner
    seconds, peak, refused = (
        np.full(len(dp), np.inf),
        np.full(len(dp), np.inf),
        np.ones(len(dp), dtype=bool),
    )
    if cp > 1 and recipe.size % (2 * cp) or tp > 1 and (recipe.size // cp) % tp:
        return seconds, peak, refused
    m = batch // (dp * micro)
    can = (
        (batch % (dp * micro) == 0) & (m > 0) & ~((zero == 2) & (pp > 1)) & ((vpp == 1) | (pp > 1))
    )
    can &= np.where(vpp > 1, possible("interleaved", pp, vpp, np.maximum(m, 1)), True)
    try:
        rank = _rank(model, device, msgspec.structs.replace(recipe, batch=micro), tp, cp)
    except BadInput:
        return seconds, peak, refused
    counts = tuple(u.count for u in rank.units)
    pair, at = np.unique(pp * 1024 + vpp, return_inverse=True)
    dealt = [_dealt(counts, int(key) // 1024, int(key) % 1024) for key in pair]
    can &= np.array([d is not None for d in dealt])[at]
    gathered = can & (zero == 3) & (pp == 1)
    flat, folded = can & (vpp == 1) & ~gathered, can & (vpp > 1)
    for here, schedule in ((gathered, "none"), (flat, "1f1b"), (folded, "interleaved")):
        if here.any():
            x = Columns(
                tp,
                cp,
                1,
                1,
                dp[here],
                pp[here],
                vpp[here],
                zero[here],
                dp[here] * cp,
                pp[here] == 1,
                m[here],
            )
            seconds[here], peak[here] = _several(rank, dealt, at[here], x, schedule, device)
    return seconds, peak, ~can


def _several(rank: _Rank, dealt: list, at: np.ndarray, x: Columns, schedule: str, device: Device):
    """Step seconds and peak bytes of layouts; `at` says which of `dealt` each has."""
    us, step = rank.units, rank.step
    fabric = fabric_of(None, device, int((x.dp * x.pp).max()) * x.tp * x.cp)
    placed = Placement(step, device, x, network(x, fabric))
    sharded = schedule == "none"
    forward, backward, _, _ = passes(
        us, placed._replace(layout=x._replace(zero=3 if sharded else 0))
    )
    # then a pass depends on how many micro-batches there are
    spared = not step.recipe.stack.accumulate_first
    _, chosen, place = np.unique(
        at * 2**32 + (x.micro_batches if spared else 0), return_index=True, return_inverse=True
    )
    columns = []
    for j in chosen:
        members, matrix = dealt[at[j]]
        f, b = (
            matrix @ np.array([np.broadcast_to(v, at.shape)[j] for v in side])
            for side in (forward, backward)
        )
        dense, expert = (
            matrix @ np.array([getattr(u, what) for u in us]) for what in ("dense", "expert")
        )
        update = matrix @ np.array([u.update for u in us])
        shares = [
            share(members[s], us, step.recipe.recompute)
            for s in (0, 1 % len(members), len(members) - 1)
        ]
        columns.append((ends(schedule, f, b), dense.max(), expert.max(), update.max(), shares))
    # one stage; its seconds differ from layout to layout with the ranks that weights are gathered
    # from
    if sharded:
        repeats = dealt[at[0]][1][0]
        run = Stages(
            *(sum(n * side[u] for u, n in enumerate(repeats)) for side in (forward, backward)), 0.0
        )
    else:
        run = _columns([c[0] for c in columns], place)
    hop = crossing(placed, rank.handed, schedule).seconds
    total = pipeline(schedule, run, x.pp, x.vpp, x.micro_batches, hop).total
    dense, expert, update = (np.array([c[i] for c in columns])[place] for i in (1, 2, 3))
    reduced = reduction(placed, dense, expert)
    update = updating(placed, update, dense + expert)
    peak = np.zeros(len(x.dp))
    for which, stage in enumerate((0, np.minimum(1, x.pp - 1), x.pp - 1)):
        mine = Share(
            *(np.array(v)[place] for v in zip(*(c[4][which] for c in columns), strict=True))
        )
        flying = in_flight(schedule, x.pp, x.vpp, x.micro_batches, stage)
        peak = np.maximum(peak, sum(holdings(mine, placed, flying)))
    between = between_steps(step.recipe.stack, device, constants())
    return joined(total, reduced.seconds, placed.hide["dp"]) + update + between, peak


def _columns(rows: list[Stages], place: np.ndarray) -> Stages:
    """Records of stages as one record of columns, one entry a layout."""
    middle = [np.array([s[i] for s in rows])[place] for i in range(3)]
    first, last = (
        tuple(np.array([s[e][i] for s in rows])[place] for i in range(3)) for e in (3, 4)
    )
    return Stages(*middle, first, last)
