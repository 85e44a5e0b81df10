"""roofcast trace"""

from __future__ import annotations

import json
from typing import Any

import click

from roofcast.reports.console import tell
from roofcast.reports.options import Sectioned, scenario_options, scenarios


@click.command("trace", cls=Sectioned)
@scenario_options(length=False)
@click.option(
    "-o", "--output", "target", required=True, metavar="FILE", help="The .json file to write."
)
@click.option("--plot", metavar="FILE", help="Also draw it: .png, .svg or .pdf.")
def command(target: str, plot: str | None, **asked: Any) -> None:
    """Write the timeline of one step of MODEL as a trace for Perfetto (https://ui.perfetto.dev).

    MODEL is as for roofcast predict; loading a .py runs it.

    On one device, the trace has every op of every layer; on several, every micro-batch of every
    pipeline stage.
    """
    from roofcast.reports.files import PICTURES, check_target, replacing
    from roofcast.reports.format import seconds
    from roofcast.simulator.forecast.timeline import timeline
    from roofcast.simulator.parallel.pipeline.trace import length, trace

    path = check_target(target, (".json",))
    if plot is not None:
        check_target(plot, PICTURES)
    (scenario,) = scenarios(**asked)
    events = timeline(scenario)
    document = trace(events, scenario.model)
    if plot is not None:
        from roofcast.reports.pages.layout import on_what
        from roofcast.reports.pictures.style import write
        from roofcast.reports.pictures.timeline import draw
        from roofcast.simulator.forecast.chain import forecast

        found = forecast(scenario)
        write(plot, lambda: draw(events, f"{found.model} on {on_what(found)}"))
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document), encoding="utf-8")
    size = f"{len(document['traceEvents']):,} events, {seconds(length(document))}"
    tell(f"wrote {target} ({size}); open it at https://ui.perfetto.dev")
    if plot is not None:
        tell(f"wrote {plot}")
