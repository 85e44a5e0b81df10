"""The forecast of a scenario as commands print it: with its largest batch, what had no effect, and
what each remedy would save.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from roofcast.simulator.forecast.result import Forecast
    from roofcast.simulator.forecast.scenario import Scenario


def answer(scenario: Scenario, remedies: bool | None = False) -> Forecast:
    """The Forecast of a scenario, with the largest batch that fits and what had no effect; of one
    that does not fit, with the nearest that does in its diagnosis.

    remedies: with what each would save; None: for a net of at most MANY_OPS ops.
    """
    from roofcast.reports.pages.limits import MANY_OPS
    from roofcast.scenarios.own_runs import forecast_with_runs
    from roofcast.scenarios.unused import with_unused
    from roofcast.simulator.forecast.chain import with_largest_batch

    step = scenario
    if scenario.campaign.get("stages"):
        from roofcast.simulator.forecast.whole_run import of_first_stage

        step = of_first_stage(scenario)
    found = with_unused(with_largest_batch(forecast_with_runs(scenario), step), scenario)
    if remedies or (remedies is None and len(found.layers) <= MANY_OPS):
        from roofcast.simulator.choose.remedies import with_remedies

        found = with_remedies(found, step)
    if found.memory.fits is not False:
        return found
    from roofcast.reports.pages.memory import said_of
    from roofcast.reports.pages.search import fitting

    near = fitting(step, found)
    words = f"{found.diagnosis} {said_of(near)}".strip()
    return msgspec.structs.replace(found, diagnosis=words, fitting=near)
