"""Many layouts at once: columns of degrees in, columns of step times and memory out.

Each row is decided as predict decides it, and goes through the functions that predict calls: rows
that share one rank's step, network and stages as one layout whose other degrees are columns. An
invalid layout is marked, not dropped.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from roofcast.hwdb.errors import BadInput, RoofcastError, quoted
from roofcast.simulator.choose.columns import Row, forecast_rows
from roofcast.simulator.choose.sieve import Sieve
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.layouts import is_parallel
from roofcast.simulator.forecast.recipes import recipe_of
from roofcast.simulator.forecast.resolve import layout_asked, named, on_whole_system, routed
from roofcast.simulator.forecast.run import run_of
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.work.step import Recipe

GRID = (
    "devices", "tp", "sp", "cp", "cp_kind", "ep", "etp", "dp", "pp", "vpp", "schedule", "stages",
    "zero", "shard", "reshard", "micro_batch", "offload", "recompute",
)  # fmt: skip

NUMBER = re.compile(r"\d[\d,.]*")


class Found(NamedTuple):
    """One entry per layout of the grid; invalid layouts have infinite time."""

    layouts: dict[str, np.ndarray]  # the columns of the grid
    step_s: np.ndarray
    peak_bytes: np.ndarray
    refused: np.ndarray  # invalid, whatever the memory
    fits: np.ndarray
    reasons: dict[str, int] = {}  # of invalid layouts: one of the messages, how many are like it

    def layout(self, i: int) -> dict[str, Any]:
        """The options of the i-th layout, as predict takes them."""
        return {name: _plain(column[i]) for name, column in self.layouts.items()}

    def best(self) -> int:
        """Index of the fastest layout that fits."""
        return int(np.argmin(np.where(self.fits, self.step_s, np.inf)))


def search(scenario: Scenario, grid: Mapping[str, Sequence]) -> Found:
    """Every combination of the grid's columns for the scenario.

    grid: values of the columns named in GRID, as predict takes them. A column that is left out is
    as the scenario says, or predict's default. Raises BadInput for an unknown column or an empty
    one, and for a scenario that is invalid under every layout.
    """
    for name, values in grid.items():
        if name not in GRID:
            raise BadInput(f"search: no column {quoted(name)}; there are: {', '.join(GRID)}")
        if not len(values):
            raise BadInput(f"search: column {name} has no values; give one or leave it out")
    columns = {n: [_plain(v) for v in grid[n]] for n in GRID if n in grid}
    others = {name: values for name, values in columns.items() if name != "recompute"}
    shapes = (dict(zip(others, each, strict=True)) for each in itertools.product(*others.values()))
    policies = columns.get("recompute", [scenario.recompute])
    count = math.prod(map(len, columns.values()))
    return _forecast(scenario, shapes, policies, count, _combined(columns))


def search_layouts(
    scenario: Scenario,
    shapes: Sequence[Mapping[str, Any]],
    policies: Sequence[str] = (),
    sieve: Sieve | None = None,
) -> Found:
    """Each of these layouts, as options of predict, under each recompute policy, which varies
    fastest. Without policies, each layout under its own, or the scenario's. Errors as `search`.

    sieve: where given, layouts that it holds back have infinite memory, as if they were refused.
    """
    times = max(len(policies), 1)
    layouts = {}
    for name in GRID:
        usual = getattr(scenario, name)
        if any(name in s for s in shapes):
            layouts[name] = _repeated([s.get(name, usual) for s in shapes], times)
    if policies:
        layouts["recompute"] = np.array(list(policies) * len(shapes), dtype=object)
    return _forecast(scenario, shapes, policies, len(shapes) * times, layouts, sieve)


def _refuse_teacher(scenario: Scenario) -> None:
    """Raises BadInput for a distillation, whose layouts are not searched."""
    if scenario.teacher is not None:
        raise BadInput(
            f"teacher {scenario.teacher}: layouts with a teacher are not searched; give one to"
            " predict, with --tp, --dp and --zero up to 2"
        )


def _repeated(values: Sequence[Any], times: int) -> np.ndarray:
    """Each value so many times, as objects: a tuple is one value."""
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return np.repeat(found, times)


def _forecast(
    scenario: Scenario,
    shapes: Iterable[Mapping[str, Any]],
    policies: Sequence[str],
    count: int,
    layouts: dict[str, np.ndarray],
    sieve: Sieve | None = None,
) -> Found:
    """What is found of `count` layouts: each shape under each policy."""
    _refuse_teacher(scenario)
    decide = _Decide(scenario)
    rows, alone = [], []
    for i, (s, recipe, layout) in decide.rows(shapes, policies):
        if layout is None:
            alone.append((i, s))
        else:
            rows.append(Row(i, recipe, layout))
    step_s, peak = np.full((2, count), np.inf)
    forecast_rows(rows, decide.names, step_s, peak, decide.refused, sieve)
    for i, s in alone:
        try:
            found = forecast(s)
        except RoofcastError as error:
            decide.refused(error)
            continue
        step_s[i], peak[i] = found.step_time_s, found.memory.peak_bytes
    refused = np.isinf(peak)
    capacity = decide.names.device.memory.limit or np.inf
    fits = ~refused & (peak <= capacity)
    reasons = dict(decide.reasons.values())
    return Found(layouts, step_s, peak, refused, fits, reasons)


def _plain(value: Any) -> Any:
    """A value as Python has it."""
    return value.item() if isinstance(value, np.generic) else value


def _combined(columns: dict[str, list]) -> dict[str, np.ndarray]:
    """Every combination of the columns' values, the last column varying fastest."""
    index = np.indices([len(values) for values in columns.values()]).reshape(len(columns), -1)
    found = {}
    for i, (name, values) in enumerate(columns.items()):
        column = np.empty(len(values), dtype=object)
        column[:] = values
        kinds = {type(v) for v in values}
        plain = len(kinds) == 1 and kinds <= {int, str, bool}
        found[name] = (np.array(values) if plain else column)[index[i]]
    return found


class _Decide:
    """Decides rows as resolve() decides a scenario, each part once for the rows that share it."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.names = named(scenario)
        self.recipes: dict[tuple, Recipe | RoofcastError] = {}
        self.routed: dict[int, Recipe] = {}  # by what they were changed from
        self.reasons: dict[str, tuple[str, int]] = {}  # by message without numbers

    def refused(self, error: RoofcastError, rows: int = 1) -> None:
        """Count rows that are invalid for this reason."""
        text = str(error)
        kind = NUMBER.sub("", text.split(";")[0])
        first, count = self.reasons.get(kind, (text, 0))
        self.reasons[kind] = first, count + rows

    def rows(
        self, shapes: Iterable[Mapping[str, Any]], policies: Sequence[str]
    ) -> Iterator[tuple[int, tuple[Scenario, Recipe, Layout | None]]]:
        """Index, scenario, recipe and layout (None: one device) of every row that can be decided.
        Raises the error of a recipe where all recipes are invalid.
        """
        for i, shape in enumerate(shapes):
            own = policies or (shape.get("recompute", self.scenario.recompute),)
            for j, decided in self._of_shape(shape, own):
                yield i * len(own) + j, decided
        errors = [r for r in self.recipes.values() if isinstance(r, RoofcastError)]
        if errors and len(errors) == len(self.recipes):
            raise errors[0]

    def _of_shape(
        self, options: Mapping[str, Any], policies: Sequence[str]
    ) -> Iterator[tuple[int, tuple[Scenario, Recipe, Layout | None]]]:
        """The rows that differ in recomputation only, which changes no layout that names its
        micro-batch.
        """
        try:
            plain = msgspec.structs.replace(self.scenario, **options)
            plain = on_whole_system(plain, self.names.system)
        except RoofcastError as error:
            self.refused(error, len(policies))
            return
        given, one = plain.micro_batch is not None, not is_parallel(plain)
        fixed: Layout | None = None
        for j, policy in enumerate(policies):
            recipe = self._recipe(plain, policy)
            if isinstance(recipe, RoofcastError):
                self.refused(recipe)
                continue
            s = plain if given else msgspec.structs.replace(plain, recompute=policy)
            if one:
                yield j, (s, recipe, None)
                continue
            try:
                layout = fixed or layout_asked(s, self.names, recipe).layout
            except RoofcastError as error:
                self.refused(error, len(policies) - j if given else 1)
                if given:
                    return
                continue
            fixed = layout if given else None
            if (changed := routed(recipe, layout, self.names.model)) is not recipe:
                recipe = self.routed.setdefault(id(recipe), changed)
            yield j, (s, recipe, layout)

    def _recipe(self, s: Scenario, policy: str) -> Recipe | RoofcastError:
        """The recipe of a scenario under a policy, or why there is none."""
        degrees = () if s.batch is not None else (s.devices, s.tp, s.cp, s.pp, s.dp)
        key = (policy, s.offload, *degrees)
        if key not in self.recipes:
            try:
                s = msgspec.structs.replace(s, recompute=policy)
                recipe, _ = recipe_of(s, self.names.model, self.names.device)
                run_of(s, recipe, self.names.model, self.names.device)
                self.recipes[key] = recipe
            except RoofcastError as error:
                self.recipes[key] = error
        return self.recipes[key]
