"""Rows of a search that share one rank's step, network and stages, as one layout of columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.forecast.resolve import Named
from roofcast.simulator.parallel.fabric import Fabric, beside, is_torus, kind_of
from roofcast.simulator.parallel.layout import Layout, check
from roofcast.simulator.parallel.networks import fabric_of
from roofcast.simulator.parallel.stages import Unit, sending, units
from roofcast.simulator.parallel.step import dealt, peak_bytes, timed
from roofcast.simulator.parallel.traffic import Placement, gathers, network
from roofcast.simulator.times import roofline
from roofcast.simulator.work.recompute import policy
from roofcast.simulator.work.step import Recipe, trace

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


def forecast_rows(
    rows: list[Row],
    names: Named,
    step_s: np.ndarray,
    peak: np.ndarray,
    refused: Refused = lambda error, rows: None,
) -> None:
    """Writes step seconds and peak bytes of rows at their places; those of an invalid row are left
    as they are, and `refused` is told why.
    """
    fabrics: dict[int, tuple[tuple, Fabric]] = {}
    ranks: dict[tuple, tuple[Row, dict[_Group, list[Row]]]] = {}
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
        _, groups = ranks.setdefault(key, (row, {}))
        groups.setdefault(group, []).append(row)
    for first, groups in ranks.values():
        _of_rank(first, groups, names, fabrics, (step_s, peak), refused)


def _of_rank(
    first: Row,
    groups: dict[_Group, list[Row]],
    names: Named,
    fabrics: dict[int, tuple[tuple, Fabric]],
    out: tuple[np.ndarray, np.ndarray],
    refused: Refused,
) -> None:
    """All groups of rows that share a rank with the first."""
    recipe = msgspec.structs.replace(first.recipe, batch=first.layout.micro_batch)
    try:
        step = trace(names.model, recipe, first.layout.parallel)
    except RoofcastError as error:
        refused(error, sum(map(len, groups.values())))
        return
    times = roofline.time_all(step, names.device)
    on: dict[tuple, list[Unit]] = {}  # units by network, and by whether ZeRO 3 gathers
    for group, rows in groups.items():
        columns: dict[str, Any] = {
            n: np.array([getattr(r.layout, n) for r in rows]) for n in COLUMNS
        }
        x: Any = msgspec.structs.replace(rows[0].layout, **columns)
        fabric = fabrics[rows[0].layout.devices][1]
        torus = is_torus(fabric)
        if torus:
            fabric = beside([fabrics[row.layout.devices][1] for row in rows])
        at = Placement(step, names.device, x, network(x, fabric))
        # ZeRO 3 has units of its own where there are no layers
        where = (group.fabric, gathers(x))
        if torus or where not in on:
            known = next((us for (_, whole), us in on.items() if whole == gathers(x)), None)
            on[where] = sending(known, at) if known else units(at, times)
        try:
            check(rows[0].layout, step, names.model.name)
            members = dealt(at, on[where])
            step_s = timed(at, on[where], members).step_s
        except RoofcastError as error:
            refused(error, len(rows))
            continue
        places = [row.place for row in rows]
        out[0][places] = step_s
        out[1][places] = peak_bytes(at, on[where], members)
