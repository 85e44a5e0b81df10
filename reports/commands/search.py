"""roofcast search"""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click
import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.reports.files import PICTURES, check_target
from roofcast.reports.option_serving import SearchDoor, serving_flag
from roofcast.reports.option_types import Whole
from roofcast.reports.options import print_json, scenario_options, scenarios


@click.command("search", cls=SearchDoor)
@scenario_options()
@serving_flag("Layouts of a server of generated text; options: roofcast search --serving --help.")
@click.option("--top", type=Whole(), default=10, metavar="N", help="Layouts shown. Default: 10.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
@click.option(
    "-o",
    "path",
    metavar="FILE",
    help="Also write every valid layout to a .csv or .parquet file, or a page to send (.html).",
)
@click.option("--plot", metavar="FILE", help="Draw time against memory: a .png, .svg or .pdf file.")
def command(top: int, as_json: bool, path: str | None, plot: str | None, **asked: Any) -> None:
    """Find the fastest layout of MODEL on a number of devices.

    Every tensor, pipeline, data, context and expert parallel degree, ZeRO stage, micro-batch and
    recompute policy is forecast as roofcast predict forecasts it; a layout option that is given
    holds for all. Give --devices, or --system for all of its devices.
    """
    from roofcast.reports.tables.written import check_table, write_table
    from roofcast.simulator.choose.explore import explore
    from roofcast.simulator.choose.tables import layouts_table
    from roofcast.simulator.forecast.chain import forecast

    if path is not None:
        check_table(path, page=True)
    if plot is not None:
        check_target(plot, PICTURES)
    scenario = scenarios(**asked)[0]
    devices = scenario.devices or scenario.dp
    if devices is None:
        raise BadInput("--devices is missing; give a number, for example --devices 64")
    found = explore(msgspec.structs.replace(scenario, devices=None), devices)
    best = [forecast(found.scenario_of(i)) for i in found.best(top)]
    if path is not None and path.lower().endswith(".html"):
        from roofcast.reports.html.answers import write_layouts

        write_layouts(found, best, path, shlex.join(["roofcast", *sys.argv[1:]]))
    elif path is not None:
        write_table(layouts_table(found), path)
    if plot is not None:
        from roofcast.reports.pictures.front import draw_layouts
        from roofcast.reports.pictures.style import write

        write(plot, lambda: draw_layouts(found))
    if as_json:
        print_json(_json(found, top))
        return
    from roofcast.reports.pages.search import print_search

    print_search(found, best)


def _json(found: Any, top: int) -> dict[str, Any]:
    """What --json prints."""

    def rows(indices: list[int]) -> list[dict[str, Any]]:
        return [
            {
                "options": found.options[i],
                "step_time_s": float(found.step_s[i]),
                "peak_bytes": float(found.peak_bytes[i]),
                "fits": bool(found.fits[i]),
            }
            for i in indices
        ]

    return {
        "scenario": msgspec.to_builtins(found.scenario),
        "considered": found.considered,
        "fit": int(found.fits.sum()),
        "need_more_memory": int((~found.fits).sum()),
        "invalid": found.invalid,
        "reasons": found.reasons,
        "left_out": found.left_out,
        "best": rows(found.best(top)),
        "front": rows(found.front()),
    }
