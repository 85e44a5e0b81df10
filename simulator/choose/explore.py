"""`roofcast search`: every layout of a model on so many devices, the best of them, and the front of
time against memory.

First the grid of space.py. Then what the grid leaves at its defaults (schedules, virtual stages,
sharding groups, offload ...) is varied for the layouts that are best so far, and at last the
micro-batches between powers of two are tried for the best, until none of them is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from roofcast.hwdb.errors import BadInput, number_of
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.choose.front import front
from roofcast.simulator.choose.search import Found, search_layouts
from roofcast.simulator.choose.sieve import Sieve
from roofcast.simulator.choose.space import Shape, Space
from roofcast.simulator.forecast.lengths import varied_of
from roofcast.simulator.forecast.resolve import named
from roofcast.simulator.forecast.scenario import Scenario

VARIED = 12  # layouts whose other options are varied, in a round
ROUNDS = 2
CLOSED = 4  # of the best, for which micro-batches between powers of two are tried
MOST = 2_000_000  # layouts that one search forecasts
PER_DEVICE = {"sequence": 8, "image": 32, "table": 1024}  # samples per device, where none is given


class Explored(NamedTuple):
    """Layouts of a model on devices of one kind, each with its time and memory."""

    scenario: Scenario  # with its batch
    devices: int
    options: list[dict[str, Any]]  # as predict takes them
    step_s: np.ndarray
    peak_bytes: np.ndarray
    fits: np.ndarray
    reasons: dict[str, int]  # why layouts are invalid: an example, and how many are like it
    invalid: int
    capacity: float | None
    varied: int  # layouts whose other options were varied; 0: none
    left_out: tuple[str, ...]
    assumptions: tuple[str, ...]

    @property
    def considered(self) -> int:
        """Layouts considered."""
        return len(self.step_s) + self.invalid

    def best(self, top: int = 10) -> list[int]:
        """Indices of the fastest layouts that fit."""
        order = np.argsort(np.where(self.fits, self.step_s, np.inf), kind="stable")
        return order[: min(top, int(self.fits.sum()))].tolist()

    def front(self) -> list[int]:
        """Indices of the layouts that no other beats in both time and memory, the fastest first;
        those that do not fit too.
        """
        return front(np.column_stack([self.step_s, self.peak_bytes])).tolist()

    def smallest(self) -> int | None:
        """Index of the layout with the lowest peak memory; None where every layout is invalid."""
        return int(np.argmin(self.peak_bytes)) if len(self.peak_bytes) else None

    def scenario_of(self, i: int) -> Scenario:
        """The scenario with the i-th layout, as predict takes it."""
        return msgspec.structs.replace(self.scenario, **self.options[i])


def with_batch(scenario: Scenario, devices: int, takes: str) -> tuple[Scenario, tuple[str, ...]]:
    """The scenario with a global batch, which all layouts share, and the assumption of one that was
    not given.
    """
    if scenario.batch is not None:
        return scenario, ()
    batch = PER_DEVICE[takes] * devices
    said = f"batch {batch:,} (not given): {PER_DEVICE[takes]} samples per device"
    return msgspec.structs.replace(scenario, batch=batch), (said,)


def explore(scenario: Scenario, devices: int, few: bool = False) -> Explored:
    """Every layout of the scenario on so many devices.

    few: a coarser grid. Raises BadInput for a scenario that is invalid under every layout, or where
    the grid has more than MOST layouts.
    """
    names = named(scenario)
    scenario, assumed = with_batch(scenario, devices, names.model.takes)
    if (varied := varied_of(scenario)) is not None:
        assumed = (*assumed, varied.in_short())
    space = Space(scenario, names)
    shapes, policies = space.shapes(devices, few), space.policies(few)
    if not shapes:
        raise BadInput(
            f"batch {scenario.batch}: no layout of {number_of(devices, 'device')} divides it;"
            f" use a multiple of {devices}"
        )
    refuse_more_than(MOST, len(shapes) * len(policies))
    parts, count = varied_twice(space, shapes, policies, few)
    options = [o for part in parts for o in part.options]
    reasons: dict[str, int] = {}
    for part in parts:
        for text, n in part.reasons.items():
            reasons[text] = reasons.get(text, 0) + n
    capacity = names.device.memory.limit
    return Explored(
        scenario=scenario,
        devices=devices,
        options=options,
        step_s=np.concatenate([p.step_s for p in parts]),
        peak_bytes=np.concatenate([p.peak_bytes for p in parts]),
        fits=np.concatenate([p.fits for p in parts]),
        reasons=reasons,
        invalid=sum(p.invalid for p in parts),
        capacity=float(capacity) if capacity else None,
        varied=count,
        left_out=tuple(space.left_out()),
        assumptions=assumed,
    )


def varied_twice(
    space: Space,
    shapes: Sequence[Shape],
    policies: Sequence[str],
    few: bool = False,
    sieve: Sieve | None = None,
) -> tuple[list[Part], int]:
    """The grid, then variations of the best of it, then of the best of these, then other
    micro-batches: valid layouts of each pass, and how many were varied. few: one round.
    """
    parts = [valid(search_layouts(space.scenario, shapes, policies, sieve))]
    varied, tried = 0, {_key(o) for o in parts[0].options}
    for _ in range(1 if few else ROUNDS):
        chosen, wanted = _varied(space, parts, tried, few)
        if not wanted:
            break
        varied += chosen
        tried |= set(map(_key, wanted))
        parts.append(valid(search_layouts(space.scenario, wanted, sieve=sieve)))
    while wanted := [] if few else _between(space, parts, tried):
        tried |= set(map(_key, wanted))
        parts.append(valid(search_layouts(space.scenario, wanted, sieve=sieve)))
    return parts, varied


def _between(space: Space, parts: list[Part], tried: set[tuple]) -> list[Shape]:
    """Of the best layouts that fit, those with other micro-batches that were not tried."""
    options = [o for part in parts for o in part.options]
    step_s = np.concatenate([np.where(p.fits, p.step_s, np.inf) for p in parts])
    best = np.argsort(step_s, kind="stable")[: min(CLOSED, int(np.isfinite(step_s).sum()))]
    every = [each for i in best.tolist() for each in space.between(options[i])]
    return [each for each in {_key(e): e for e in every}.values() if _key(each) not in tried]


def refuse_more_than(most: int, count: int) -> None:
    """Raises BadInput for a grid of more layouts than one search forecasts."""
    if count > most:
        raise BadInput(
            f"a grid of {count:,} layouts: one search forecasts {most:,} at most; give fewer values"
            " of some columns, for example --tp 8 --micro-batch 1"
        )


class Part(NamedTuple):
    """The valid layouts of one pass."""

    options: list[dict[str, Any]]
    step_s: np.ndarray
    peak_bytes: np.ndarray
    fits: np.ndarray
    reasons: dict[str, int]
    invalid: int


def valid(found: Found) -> Part:
    """The layouts of a pass that are not refused."""
    keep = np.flatnonzero(~found.refused)
    return Part(
        [_given(found.layout(i)) for i in keep.tolist()],
        found.step_s[keep],
        found.peak_bytes[keep],
        found.fits[keep],
        found.reasons,
        int(found.refused.sum()),
    )


def _given(options: Shape) -> Shape:
    """The options without those that are left at their defaults."""
    return {n: v for n, v in options.items() if v is not None and (n != "offload" or v)}


def _varied(
    space: Space, parts: list[Part], tried: set[tuple], few: bool
) -> tuple[int, list[Shape]]:
    """How many layouts are varied, and their variations that were not tried: of the fastest that
    fit, and of the smallest where few fit.
    """
    options = [o for part in parts for o in part.options]
    step_s = np.concatenate([p.step_s for p in parts])
    peak = np.concatenate([p.peak_bytes for p in parts])
    fits = np.concatenate([p.fits for p in parts])
    fast = np.argsort(np.where(fits, step_s, np.inf), kind="stable")
    chosen = fast[: min(VARIED, int(fits.sum()))].tolist()
    small = np.argsort(peak, kind="stable")[: VARIED - len(chosen)].tolist()
    # and of the fastest of each tensor- and pipeline-parallel degree
    each_of: dict[tuple[int, int], int] = {}
    for i in fast[: int(fits.sum())].tolist():
        each_of.setdefault((options[i]["tp"], options[i]["pp"]), i)
    every = list(dict.fromkeys([*chosen, *small, *([] if few else each_of.values())]))
    found: dict[tuple, Shape] = {}
    for i in every:
        for each in space.variations(options[i]):
            if _key(each) not in tried:
                found.setdefault(_key(each), each)
    return len(every), list(found.values())


def _key(options: Shape) -> tuple:
    """What tells two layouts apart."""
    return tuple(sorted((name, value) for name, value in options.items()))
