"""roofcast compress"""

from __future__ import annotations

from typing import Any

import click
import msgspec

from roofcast.reports.completion import completing
from roofcast.reports.options import Sectioned, options, print_json, scenarios


@click.command("compress", cls=Sectioned)
@click.argument("model", metavar="MODEL", shell_complete=completing("model"))
@click.option(
    "--on",
    metavar="DEVICE",
    shell_complete=completing("device"),
    help="Device: a name (see roofcast devices) or a .toml file.",
)
@options(
    "batch", "seq", "image", "precision", "attention", "stack", "memory_format", "set", "power_cap"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
@click.option("-o", "path", metavar="FILE", help="Also write the table to a .csv or .parquet file.")
def command(as_json: bool, path: str | None, **asked: Any) -> None:
    """Forecast one inference pass of MODEL as it is and in every compressed form.

    In 8 and 4 bits, with weights alone in few bits, with 2 of every 4 weights, pruned, and as a
    student of half the size: memory, time, energy, what each needs of the device, and why one is
    refused. Each row is what roofcast predict forecasts with the same options. Accuracy is not
    forecast.
    """
    from roofcast.reports.tables.written import check_table, write_table
    from roofcast.simulator.choose.compress import NOT_SAID, compress, table

    if path is not None:
        check_table(path)
    found = compress(msgspec.structs.replace(scenarios(**asked)[0], mode="infer"))
    if path is not None:
        write_table(table(found), path)
    if as_json:
        scenario = msgspec.to_builtins(found.scenario)
        print_json({"scenario": scenario, "forms": table(found), "not_said": NOT_SAID})
        return
    from roofcast.reports.pages.compress import print_compressed

    print_compressed(found)
