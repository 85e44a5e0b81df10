"""The layout nearest to one that does not fit: the fewest options changed, of these the fastest."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from typing import NamedTuple

import msgspec

from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.choose.search import search_layouts
from roofcast.simulator.choose.space import Shape
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.parallel.layout import divisors

MOST_CHANGES = 3
DEGREES = ("tp", "pp", "dp", "cp", "zero", "micro_batch")


class Nearest(NamedTuple):
    """A layout that fits."""

    changes: Shape  # options that differ, as predict takes them
    step_s: float
    peak_bytes: float


def nearest_fit(scenario: Scenario, found: Forecast) -> Nearest | None:
    """The nearest layout that fits, of a forecast that does not; None where none was found.

    Recomputation, offload, ZeRO stage, micro-batch, and tensor- and pipeline-parallel degrees are
    changed, up to three of them; the devices and the batch stay. Parameters are offloaded where
    nothing else fits.
    """
    if found.layout is not None and scenario.batch is None and not scenario.inputs:
        scenario = msgspec.structs.replace(scenario, batch=found.batch)
    base = _base(scenario, found)
    changes = list(_changes(scenario, found, base))
    away: Shape = {"offload": ("parameters",)}
    last = scenario.mode == "train" and "parameters" not in base["offload"]
    always: list[tuple[Shape, ...]] = [(), (away,)] if last else [()]
    for with_, many in product(always, range(1, MOST_CHANGES + 1)):
        sets = (with_ + c for c in combinations(changes, many - len(with_)))
        together = [c for c in sets if _distinct(c)]
        shapes = [_applied(base, c) for c in together]
        shapes = [s for s in shapes if _keeps_devices(s, found)]
        if not shapes:
            continue
        try:
            tried = search_layouts(scenario, shapes)
        except RoofcastError:
            continue
        if tried.fits.any():
            i = tried.best()
            return Nearest(
                _changed(shapes[i], base, found), float(tried.step_s[i]), float(tried.peak_bytes[i])
            )
    return None


def _changed(shape: Shape, base: Shape, found: Forecast) -> Shape:
    """The options that differ, and the micro-batch where another option makes predict choose it."""
    changed = {n: v for n, v in shape.items() if v != base.get(n) and n not in ("dp", "devices")}
    if found.layout is None and "offload" in changed and "micro_batch" in shape:
        changed |= {"micro_batch": shape["micro_batch"]}
    return changed


def _base(scenario: Scenario, found: Forecast) -> Shape:
    """What the forecast's layout is, as options; those of one device where there is none."""
    kept: Shape = {"recompute": scenario.recompute, "offload": tuple(scenario.offload)}
    if found.layout is None:
        return kept | ({"micro_batch": found.batch} if found.mode == "train" else {})
    return kept | {"devices": found.devices} | {n: getattr(found.layout, n) for n in DEGREES}


def _changes(scenario: Scenario, found: Forecast, base: Shape) -> Iterator[Shape]:
    """Single changes that need less memory."""
    training = scenario.mode == "train"
    if training and base["recompute"] == "none":
        yield from ({"recompute": each} for each in ("selective", "full"))
    if training:
        for each in (("optimizer",), ("activations",), ("activations", "optimizer")):
            if set(each) > set(base["offload"]):
                yield {"offload": each}
    if training or found.layout is not None:
        yield from ({"micro_batch": m} for m in divisors(base["micro_batch"])[:-1])
    if found.layout is None:
        return
    if training and base["dp"] * base["cp"] > 1:
        yield from ({"zero": z} for z in range(base["zero"] + 1, 4))
    if found.sequence:
        for name in ("tp", "pp") if training else ("tp",):
            yield from ({name: base[name] * k} for k in (2, 4, 8) if base["dp"] % k == 0)


def _distinct(changes: tuple[Shape, ...]) -> bool:
    """Whether no two changes are of the same option."""
    return len({next(iter(c)) for c in changes}) == len(changes)


def _applied(base: Shape, changes: tuple[Shape, ...]) -> Shape:
    """The layout with changes; tensor and pipeline parallelism take from data parallelism."""
    shape = dict(base)
    for change in changes:
        shape |= change
    if "dp" in base:
        taken = shape["tp"] * shape["pp"] // (base["tp"] * base["pp"])
        shape["dp"] = base["dp"] // taken if base["dp"] % taken == 0 else 0
    return shape


def _keeps_devices(shape: Shape, found: Forecast) -> bool:
    """Whether a layout uses all devices, with whole micro-batches."""
    if "dp" not in shape:
        return True
    used: int = shape["tp"] * shape["pp"] * shape["dp"] * shape["cp"]
    return used == found.devices and found.batch % (shape["dp"] * shape["micro_batch"]) == 0
