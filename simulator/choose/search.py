"""Many layouts at once: columns of degrees in, columns of step times and memory out.

Each row is decided as predict decides it, and goes through the functions that predict calls: rows
that share one rank's step, network and stages as one layout whose other degrees are columns. An
invalid layout is marked, not dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from roofcast.hwdb.errors import BadInput, RoofcastError, quoted
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.choose.columns import forecast_rows
from roofcast.simulator.choose.decide import Refusal, decide
from roofcast.simulator.choose.distinct import Column, column, narrow
from roofcast.simulator.choose.sieve import Peaks, Sieve
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.lengths import at_longest, varied_of
from roofcast.simulator.forecast.resolve import named
from roofcast.simulator.forecast.scenario import Scenario

GRID = (
    "devices", "tp", "sp", "cp", "cp_kind", "ep", "etp", "dp", "pp", "vpp", "schedule", "stages",
    "zero", "shard", "reshard", "micro_batch", "offload", "recompute",
)  # fmt: skip

NUMBER = re.compile(r"\d[\d,.]*")


class Found(NamedTuple):
    """One entry per layout of the grid; invalid layouts have infinite time."""

    options: dict[str, Column]  # the columns of the grid
    step_s: np.ndarray
    peak_bytes: np.ndarray
    refused: np.ndarray  # invalid, whatever the memory
    fits: np.ndarray
    reasons: dict[str, int] = {}  # of invalid layouts: one of the messages, how many are like it

    def layout(self, i: int) -> dict[str, Any]:
        """The options of the i-th layout, as predict takes them."""
        return _of_row(self.options, i)

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
    return _forecast(scenario, _combined(columns))


def search_layouts(
    scenario: Scenario,
    shapes: Sequence[Mapping[str, Any]],
    policies: Sequence[str] = (),
    sieve: Sieve | None = None,
    peaks: Peaks | None = None,
) -> Found:
    """Each of these layouts, as options of predict, under each recompute policy, which varies
    fastest. Without policies, each layout under its own, or the scenario's. Errors as `search`.

    sieve: where given, layouts that it holds back have infinite memory, as if they were refused.
    peaks: of searches on other devices with the same sieve's traces; where given, so have layouts
    that are known not to fit.
    """
    times = max(len(policies), 1)
    options = {}
    for name in GRID:
        usual = getattr(scenario, name)
        if any(name in s for s in shapes):
            values, codes = column(_as_tuple(s.get(name, usual)) for s in shapes)
            options[name] = Column(values, np.repeat(codes, times))
    if policies:
        options["recompute"] = Column(
            list(policies), np.tile(np.arange(len(policies)), len(shapes))
        )
    return _forecast(scenario, options, sieve, peaks)


def _refuse_teacher(scenario: Scenario) -> None:
    """Raises BadInput for a distillation, whose layouts are not searched."""
    if scenario.teacher is not None:
        raise BadInput(
            f"teacher {scenario.teacher}: layouts with a teacher are not searched; give one to"
            " predict, with --tp, --dp and --zero up to 2"
        )
    if scenario.encoders is not None or scenario.train_text_encoder:
        raise BadInput(
            f"encoders {scenario.encoders or 'text'}: layouts with encoders are not searched; give"
            " them to predict, with --tp, --dp and --zero up to 2"
        )


def _forecast(
    scenario: Scenario,
    options: dict[str, Column],
    sieve: Sieve | None = None,
    peaks: Peaks | None = None,
) -> Found:
    """What is found of layouts with these options."""
    _refuse_teacher(scenario)
    count = len(next(iter(options.values())).codes) if options else 1
    same = np.zeros(count, dtype=np.uint8)
    every = {name: Column([getattr(scenario, name)], same) for name in GRID} | options
    names = named(scenario)
    decided = decide(at_longest(scenario), names, every)
    step_s, peak = np.full((2, count), np.inf)
    refusals = list(decided.refusals)
    for row in decided.alone.tolist():
        try:
            alone = forecast(msgspec.structs.replace(scenario, **_of_row(every, row)))
        except RoofcastError as error:
            refusals.append(Refusal(row, error, 1))
            continue
        step_s[row], peak[row] = alone.step_time_s, alone.memory.peak_bytes
    refusals.sort(key=lambda each: each.first)
    varied = varied_of(scenario)
    refusals += forecast_rows(decided, names, step_s, peak, sieve, peaks, varied)
    refused = np.isinf(peak)
    capacity = names.device.memory.limit or np.inf
    fits = ~refused & (peak <= capacity)
    return Found(options, step_s, peak, refused, fits, _reasons(refusals))


def _reasons(refusals: Iterable[Refusal]) -> dict[str, int]:
    """Of each kind of message, the first, and how many rows it holds for."""
    found: dict[str, tuple[str, int]] = {}  # by message without numbers
    for each in refusals:
        text = str(each.error)
        kind = NUMBER.sub("", text.split(";")[0])
        first, count = found.get(kind, (text, 0))
        found[kind] = first, count + each.rows
    return dict(found.values())


def _of_row(options: dict[str, Column], row: int) -> dict[str, Any]:
    """The options of a row."""
    return {name: values[codes[row]] for name, (values, codes) in options.items()}


def _plain(value: Any) -> Any:
    """A value as Python has it."""
    return value.item() if isinstance(value, np.generic) else value


def _as_tuple(value: Any) -> Any:
    """A list as a tuple, which can be told from others."""
    return tuple(value) if isinstance(value, list) else value


def _combined(columns: dict[str, list]) -> dict[str, Column]:
    """Every combination of the columns' values, the last column varying fastest."""
    shape = [len(values) for values in columns.values()]
    found = {}
    for i, (name, values) in enumerate(columns.items()):
        along = narrow(range(len(values)), len(values)).reshape(
            [-1 if j == i else 1 for j in range(len(shape))]
        )
        found[name] = Column(values, np.broadcast_to(along, shape).ravel())
    return found
