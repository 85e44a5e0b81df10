"""roofcast search --serving"""

from __future__ import annotations

from typing import Any

import click

from roofcast.hwdb.errors import BadInput
from roofcast.reports.completion import completing
from roofcast.reports.option_serving import layouts, lengths, serving_of
from roofcast.reports.option_types import Once, Whole
from roofcast.reports.options import options, print_json
from roofcast.reports.serving_types import Several

GOALS = ("throughput", "speed", "ttft", "cost")


@click.command("search --serving", cls=Once)
@click.argument("model", shell_complete=completing("model"))
@click.option(
    "--on", required=True, multiple=True, metavar="DEVICE", shell_complete=completing("device"),
    help="Device: a name (see roofcast devices) or a .toml file. May be repeated.",
)  # fmt: skip
@click.option(
    "--devices", type=Whole(), metavar="N", help="Number of devices. Default: those of a node."
)
@lengths
@click.option(
    "--concurrency", type=Several(), metavar="N[,N..]",
    help="Users of all replicas together, each with one request under way. Default: from one for"
    " each replica to as many as fit.",
)  # fmt: skip
@click.option(
    "--slo", metavar="LIMITS",
    help="Mean times that a row may take: ttft=500ms,tpot=30ms (or e2e=10s).",
)  # fmt: skip
@click.option(
    "--for", "goal", type=click.Choice(GOALS), default=GOALS[0],
    help="What layouts are ranked by: output tokens/s per device, tokens/s per user, time to the"
    " first token, cost of the output tokens. Default: throughput.",
)  # fmt: skip
@click.option(
    "--disaggregated", is_flag=True,
    help="Prompts on devices of their own: every split of the devices into a pool for prefill and"
    " one that decodes. Degrees hold for both.",
)  # fmt: skip
@layouts
@options("set", "power_cap", "system", "price")
@click.option("--top", type=Whole(), default=10, metavar="N", help="Layouts shown. Default: 10.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
@click.option(
    "-o", "path", metavar="FILE",
    help="Also write every layout under every number of users to a .csv or .parquet file.",
)  # fmt: skip
@click.option(
    "--plot", metavar="FILE",
    help="Draw the front of throughput per device against speed per user (.png, .svg, .pdf).",
)  # fmt: skip
def command(
    on: tuple[str, ...],
    goal: str,
    disaggregated: bool,
    slo: str | None,
    concurrency: tuple[int, ...] | None,
    top: int,
    as_json: bool,
    path: str | None,
    plot: str | None,
    **given: Any,
) -> None:
    """Find the best layout of MODEL as a server of generated text.

    Every tensor, pipeline and expert parallel degree, data-parallel attention, replicas and the
    formats asked for, each under many numbers of users, is forecast as roofcast serving forecasts
    it: the best, the front of output tokens/s per device against tokens/s per user, and why the
    rest was refused. Without --serving: layouts of a training or inference step.
    """
    from roofcast.reports.files import check_target
    from roofcast.reports.tables.serving_search import rows_of
    from roofcast.reports.tables.written import check_table, write_table
    from roofcast.simulator.serving.chain import serve
    from roofcast.simulator.serving.search import search
    from roofcast.simulator.serving.settled import settled
    from roofcast.simulator.serving.slo import level

    if path is not None:
        check_table(path)
    if plot is not None:
        check_target(plot, (".png", ".svg", ".pdf"))
    wanted = level(slo) if slo is not None else None
    if slo is not None and "p" in {part.strip()[:1] for part in slo.split(",")}:
        raise BadInput("--slo: a search holds mean times, without a percentile; leave it out")
    given = {**given, "model": given.pop("model")}
    asked = serving_of(
        given, devices=given["devices"], system=given["system"],
        price_per_hour=given["price_per_hour"],
    )  # fmt: skip
    if disaggregated:
        if plot is not None or len(set(on)) > 1:
            raise BadInput("--disaggregated: give one --on, and no --plot")
        _splits(asked, on[0], concurrency, goal, wanted, top, path, as_json)
        return
    every = search(asked, list(dict.fromkeys(on)), concurrency, goal, wanted)
    found, shown = settled(every, lambda f, i: serve(f.asked_of(i), replays=None), top)
    if path is not None:
        write_table(rows_of(found, shown, range(len(found.layout))), path)
    if plot is not None:
        from roofcast.reports.pictures.serving_front import draw

        draw(every, plot)
    if as_json:
        print_json(_json(found, shown))
        return
    from roofcast.reports.pages.serving_search import print_found

    print_found(found, shown)


def _splits(
    asked: Any,
    device: str,
    users: tuple[int, ...] | None,
    goal: str,
    level: Any,
    top: int,
    path: str | None,
    as_json: bool,
) -> None:
    """Search, write and print splits into two pools."""
    from roofcast.reports.pages.serving_splits import print_splits, rows_of
    from roofcast.reports.tables.written import write_table
    from roofcast.simulator.serving.pools.chain import serve
    from roofcast.simulator.serving.pools.search import search
    from roofcast.simulator.serving.settled import settled

    every = search(asked, device, users, goal, level)
    found, shown = settled(every, lambda f, i: serve(f.asked_of(i), replays=None), top)
    if path is not None:
        write_table(rows_of(found, shown, range(len(found.layout))), path)
    if as_json:
        print_json(
            {
                "model": asked.model,
                "devices": asked.devices,
                "splits": len(found.splits),
                "forecasts": len(found.layout),
                "best": rows_of(found, shown, shown.best),
                "front": rows_of(found, shown, shown.whole),
                "reasons": found.reasons,
                "assumptions": found.assumptions,
            }
        )
        return
    print_splits(found, shown)


def _json(found: Any, shown: Any) -> dict[str, Any]:
    """What --json prints."""
    from roofcast.reports.tables.serving_search import rows_of

    return {
        "model": found.asked.model,
        "input_len": found.asked.load.input_len,
        "output_len": found.asked.load.output_len,
        "objective": found.goal,
        "limits_s": dict(found.level.limits) if found.level else {},
        "layouts": found.considered,
        "hold_the_model": len(found.layouts),
        "forecasts": len(found.layout),
        "reasons": found.reasons,
        "left_out": found.left_out,
        "best": rows_of(found, shown, shown.best),
        "front": rows_of(found, shown, shown.whole),
        "assumptions": found.assumptions,
    }
