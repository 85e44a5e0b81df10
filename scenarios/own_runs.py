"""A user's own measured runs (`runs` of a scenario): read, forecast, and put to use.

The files have the columns of `roofcast validate --runs`. Only rows that can be like the scenario
are forecast: those on its device.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.hwdb.records import System
from roofcast.scenarios.measured.nets import Run, read
from roofcast.simulator.forecast.chain import forecast, without_interval
from roofcast.simulator.forecast.own_runs import Own, OwnRuns
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario


def forecast_with_runs(scenario: Scenario) -> Forecast:
    """The forecast of a scenario, calibrated on the measured runs that it names, if any.

    Raises BadInput for a file that cannot be read and for the first row that cannot be forecast.
    """
    return forecast(scenario, own_runs(scenario) if scenario.runs else None)


def own_runs(scenario: Scenario) -> OwnRuns:
    """The measured runs that a scenario names."""
    device = hwdb.device(scenario.device, scenario.set)
    wanted = device.base or device.id
    found: list[Own] = []
    total = 0
    for path in scenario.runs:
        runs = rows_of(path)
        total += len(runs)
        for number, run in runs:
            try:
                found += _own(run, wanted)
            except RoofcastError as error:
                raise BadInput(f"{path}: row {number}: {error}") from None
    names = ", ".join(Path(path).name for path in scenario.runs)
    return OwnRuns(names, total, tuple(found))


def rows_of(path: str) -> list[tuple[int, Run]]:
    """The runs of a file that have a step time, each with its number.

    A row that says why it is to be left out is passed over. Raises BadInput, with the number of the
    row, where another has no scenario or no step time, or where no row is left.
    """
    found = []
    for number, run in enumerate(read(path), 1):
        if run.scenario is None or run.measured_s is None:
            if (run.refused or "").startswith("excluded"):
                continue
            why = run.refused or "no step time"
            raise BadInput(f"{path}: row {number}: {why}")
        found.append((number, run))
    if not found:
        raise BadInput(f"{path}: no row with a step time; one line per measured run is wanted")
    return found


@functools.lru_cache(maxsize=4096)
def _known(scenario: bytes, measured_s: float) -> Own:
    """One run beside its forecast; scenario as JSON."""
    return _beside(Scenario.from_json(scenario), measured_s)


def _beside(scenario: Scenario, measured_s: float) -> Own:
    f, t, _ = without_interval(scenario)
    return Own(t, f.parameters, f.step_time_s, math.log(measured_s / f.step_time_s))


def _own(run: Run, wanted: str) -> list[Own]:
    """A run beside its forecast, if it ran on the device that is wanted."""
    scenario, measured_s = run.scenario, run.measured_s
    assert scenario is not None and measured_s is not None, "rows_of refuses others"
    device = hwdb.device(scenario.device, scenario.set)
    if (device.base or device.id) != wanted:
        return []
    if isinstance(scenario.model, str) and not isinstance(scenario.system, System):
        return [_known(scenario.to_json(), measured_s)]
    return [_beside(scenario, measured_s)]
