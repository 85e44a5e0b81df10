"""Many layouts at once: columns of degrees in, columns of step times and memory out, through the
formulas that predict uses.

Layouts that differ only in dp, pp, vpp, zero or the number of micro-batches share one trace of a
rank and the seconds of its units; the rest broadcasts over them. An invalid layout is marked, not
dropped.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from roofcast import hwdb
from roofcast.hwdb.constants import kernels as constants
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.records import Device
from roofcast.simulator import models
from roofcast.simulator.forecast.recipes import recipe_of
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.parallel.holdings import Share, holdings, share
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.parallel.networks import fabric_of
from roofcast.simulator.parallel.pipeline.schedule import Stages, in_flight, pipeline, possible
from roofcast.simulator.parallel.stages import Passes, Unit, passes, stages, units
from roofcast.simulator.parallel.step import ends, updating
from roofcast.simulator.parallel.traffic import Placement, crossing, joined, network, reduction
from roofcast.simulator.times import roofline
from roofcast.simulator.times.dispatch import between_steps
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.step import Recipe, Step, trace

OUTER = ("tp", "cp", "micro_batch", "recompute")  # each combination has a trace of its own
INNER = ("dp", "pp", "vpp", "zero")  # columns
GRID = (*OUTER, *INNER)
Dealt = tuple[list[list[int]], np.ndarray]  # units of each stage; stages x units, how often each


class Columns(NamedTuple):
    """Layouts with the same tp, cp and micro-batch, one column per degree."""

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
    """One entry per layout of the grid; invalid layouts have infinite time."""

    layouts: dict[str, np.ndarray]
    step_s: np.ndarray
    peak_bytes: np.ndarray
    refused: np.ndarray  # invalid, whatever the memory
    fits: np.ndarray

    def best(self) -> int:
        """Index of the fastest layout that fits."""
        return int(np.argmin(np.where(self.fits, self.step_s, np.inf)))


class _Rank(NamedTuple):
    """What all layouts of a group share: one rank's step, with the seconds and bytes of its
    units.
    """

    step: Step
    units: list[Unit]
    handed: float  # bytes of an activation between two layers


class _Stage(NamedTuple):
    """What one way to distribute the units over stages gives."""

    run: Stages
    dense: float  # weights of the stage with the most
    expert: float
    update: float  # seconds of the slowest update
    shares: tuple[Share, Share, Share]  # of the first, the second and the last stage


def search(scenario: Scenario, grid: Mapping[str, Sequence]) -> Found:
    """Every combination of the grid's columns for a global batch.

    grid: values of the columns named in GRID; one left out is 1, recompute "none", zero 0. The
    schedule is interleaved where vpp > 1, else 1F1B. Raises BadInput for an unknown column, or a
    degree that is not searched.
    """
    unknown = set(grid) - set(GRID)
    if unknown:
        raise BadInput(f"search: no column {sorted(unknown)[0]!r}; there are: {', '.join(GRID)}")
    for name in ("ep", "etp", "shard"):
        value = getattr(scenario, name)
        if value not in (None, 1):
            raise BadInput(f"search: {name} {value} is not searched; leave it out")
    default: dict[str, list[Any]] = {"recompute": ["none"], "zero": [0]}
    values = {name: list(grid.get(name, default.get(name, [1]))) for name in GRID}
    device, model = hwdb.device(scenario.device, scenario.set), models.resolve(scenario.model)
    recipe, _ = recipe_of(scenario, model, device)
    inner = [a.ravel() for a in np.meshgrid(*(values[n] for n in INNER), indexing="ij")]
    outer = list(itertools.product(*(values[n] for n in OUTER)))
    parts = []
    for tp, cp, micro, how in outer:
        asked = msgspec.structs.replace(recipe, recompute=how)
        parts.append(_group(model, device, asked, tp, cp, micro, inner))
    layouts = {
        n: np.repeat(np.array([o[i] for o in outer]), len(inner[0])) for i, n in enumerate(OUTER)
    }
    layouts |= {n: np.tile(inner[i], len(outer)) for i, n in enumerate(INNER)}
    step_s, peak, refused = (np.concatenate(column) for column in zip(*parts, strict=True))
    capacity = device.memory.capacity or np.inf
    return Found(layouts, step_s, peak, refused, ~refused & (peak <= capacity))


def _rank(model: Model, device: Device, recipe: Recipe, tp: int, cp: int) -> _Rank:
    layout = Layout(tp=tp, cp=cp, sp=tp > 1, micro_batch=recipe.batch)
    step = trace(model, recipe, layout.parallel)
    at = Placement(step, device, layout, network(layout, fabric_of(None, device, tp * cp)))
    rows = units(at, roofline.time_all(step, device))
    return _Rank(step, rows, max((b.carried for b in step.blocks), default=0.0))


@functools.lru_cache(maxsize=4096)
def _dealt(
    places: tuple[tuple[int, ...], ...], products: tuple[float, ...], pp: int, vpp: int
) -> Dealt | None:
    """Units of each stage; None where there are more stages than layers.

    places, products: of each unit, as Unit has them; no products where stages are not balanced.
    """
    nothing, work = np.zeros(4), products or (0.0,) * len(places)
    rows = [
        Unit("", len(p), nothing, nothing, {}, *(0,) * 7, places=p, products=w)
        for p, w in zip(places, work, strict=True)
    ]
    try:
        dealt = stages(rows, Layout(pp=pp, vpp=vpp), bool(products))
    except BadInput:
        return None
    return dealt, np.stack([np.bincount(s, minlength=len(places)) for s in dealt]).astype(float)


def _group(
    model: Model,
    device: Device,
    recipe: Recipe,
    tp: int,
    cp: int,
    micro: int,
    inner: list[np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Step seconds, peak bytes and refusals of the layouts of one group."""
    dp, pp, vpp, zero = inner
    seconds, peak = np.full((2, len(dp)), np.inf)
    nothing = seconds, peak, np.ones(len(dp), dtype=bool)
    size = recipe.size or 0
    if (cp > 1 and size % (2 * cp)) or (tp > 1 and (size // cp) % tp):
        return nothing
    batch = recipe.batch
    m = batch // (dp * micro)
    can = (batch % (dp * micro) == 0) & (m > 0)
    can &= ~((zero == 2) & (pp > 1)) & ((vpp == 1) | (pp > 1))
    can &= np.where(vpp > 1, possible("interleaved", pp, vpp, np.maximum(m, 1)), True)
    try:
        rank = _rank(model, device, msgspec.structs.replace(recipe, batch=micro), tp, cp)
    except BadInput:
        return nothing
    places = tuple(u.places for u in rank.units)
    pair, at = np.unique(pp * 1024 + vpp, return_inverse=True)
    balanced = recipe.stack.implementations.get("stages") == "balanced"
    work = tuple(u.products for u in rank.units) if balanced else ()
    dealt = [_dealt(places, work, int(key) // 1024, int(key) % 1024) for key in pair]
    can &= np.array([d is not None for d in dealt])[at]
    gathered = can & (zero == 3) & (pp == 1)
    flat, folded = can & (vpp == 1) & ~gathered, can & (vpp > 1)
    for here, schedule in ((gathered, "none"), (flat, "1f1b"), (folded, "interleaved")):
        if here.any():
            degrees = (tp, cp, 1, 1, dp[here], pp[here], vpp[here], zero[here])
            x = Columns(*degrees, dp[here] * cp, pp[here] == 1, m[here])
            seconds[here], peak[here] = _several(rank, dealt, at[here], x, schedule, device)
    return seconds, peak, ~can


def _several(
    rank: _Rank,
    dealt: list[Dealt | None],
    at: np.ndarray,
    x: Columns,
    schedule: str,
    device: Device,
) -> tuple[np.ndarray, np.ndarray]:
    """Step seconds and peak bytes of layouts; `at` says which of `dealt` each has."""
    step = rank.step
    fabric = fabric_of(None, device, int((x.dp * x.pp).max()) * x.tp * x.cp)
    placed = Placement(step, device, x, network(x, fabric))
    sharded = schedule == "none"
    run = passes(rank.units, placed._replace(layout=x._replace(zero=np.array(3 if sharded else 0))))
    # with a first micro-batch that adds no gradients, a pass depends on their number
    each = x.micro_batches if not step.recipe.stack.accumulate_first else 0
    _, chosen, place = np.unique(at * 2**32 + each, return_index=True, return_inverse=True)
    rows = [_stage(rank, dealt, at, j, run, schedule) for j in chosen]
    dense, expert, update = (
        np.array([getattr(row, what) for row in rows])[place]
        for what in ("dense", "expert", "update")
    )
    if sharded:
        # one stage; its seconds depend on the ranks that weights are gathered from
        whole = dealt[at[0]]
        assert whole is not None, "a layout without stages was refused"
        f, b = (sum(n * side[u] for u, n in enumerate(whole[1][0])) for side in run[:2])
        times = Stages(f, b, 0.0)
    else:
        times = _columns([row.run for row in rows], place)
    hop = crossing(placed, rank.handed, schedule).seconds
    total = pipeline(schedule, times, x.pp, x.vpp, x.micro_batches, hop).total
    reduced = reduction(placed, dense, expert)
    update = updating(placed, update, dense + expert)
    peak = np.zeros(len(x.dp))
    for which, stage in enumerate((0, np.minimum(1, x.pp - 1), x.pp - 1)):
        columns = zip(*(row.shares[which] for row in rows), strict=True)
        mine = Share._make(np.array(v)[place] for v in columns)
        flying = in_flight(schedule, x.pp, x.vpp, x.micro_batches, stage)
        kinds = (np.asarray(v) for v in holdings(mine, placed, flying))
        peak = np.maximum(peak, sum(kinds, np.zeros(())))
    rest = joined(total, reduced.seconds, placed.hide["dp"]) + update
    return rest + between_steps(step.recipe.stack, device, constants(), rest), peak


def _stage(
    rank: _Rank, dealt: list[Dealt | None], at: np.ndarray, j: int, run: Passes, schedule: str
) -> _Stage:
    """Stages of layout `j` of a group, its passes as `run` has them."""
    distributed = dealt[at[j]]
    assert distributed is not None, "a layout without stages was refused"
    members, matrix = distributed
    rows = rank.units
    f, b = (matrix @ np.array([np.broadcast_to(v, at.shape)[j] for v in side]) for side in run[:2])
    dense, expert, update = (
        float((matrix @ np.array(column)).max())
        for column in (
            [u.trained for u in rows],
            [u.trained_expert for u in rows],
            [u.update for u in rows],
        )
    )
    how, width = rank.step.recipe.recompute, rank.step.weight_width
    first, second, last = (
        share(members[s], rows, how, width) for s in (0, 1 % len(members), len(members) - 1)
    )
    return _Stage(ends(schedule, f, b), dense, expert, update, (first, second, last))


def _columns(rows: list[Stages], place: np.ndarray) -> Stages:
    """Records of stages as one record of columns, one entry per layout."""
    forward, inputs, weights = (np.array([s[i] for s in rows])[place] for i in range(3))
    first = tuple(np.array([s.first[i] for s in rows])[place] for i in range(3))
    last = tuple(np.array([s.last[i] for s in rows])[place] for i in range(3))
    return Stages(forward, inputs, weights, first, last)
