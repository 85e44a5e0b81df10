"""roofcast trace"""

import json

import click

from roofcast.reports.options import Sectioned, scenario_options, scenarios


@click.command("trace", cls=Sectioned)
@scenario_options()
@click.option(
    "-o",
    "--output",
    "target",
    required=True,
    metavar="FILE",
    help="Where the trace goes, a .json file.",
)
def command(target: str, **asked) -> None:
    """Write the timeline of a step of MODEL as a trace that Perfetto (ui.perfetto.dev) opens.

    MODEL is as for roofcast predict; loading a .py runs it.

    On one device every op of every layer, on several every micro-batch of every pipeline stage. It
    is as long as the forecast step.
    """
    from roofcast.reports.files import check_target, replacing
    from roofcast.simulator.forecast.timeline import timeline
    from roofcast.simulator.parallel.pipeline.trace import length, trace

    path = check_target(target, (".json",))
    (scenario,) = scenarios(**asked)
    document = trace(timeline(scenario), scenario.model)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document), encoding="utf-8")
    click.echo(
        f"wrote {target}: {len(document['traceEvents'])} events, {length(document):.6g} s; open it"
        " in ui.perfetto.dev"
    )
