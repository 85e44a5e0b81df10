"""roofcast devices"""

import difflib

import click

from roofcast import hwdb
from roofcast.hwdb.errors import UnknownName
from roofcast.hwdb.units import pretty
from roofcast.reports.format import binary, si
from roofcast.reports.option_types import Whole, setting
from roofcast.reports.options import print_json


@click.group("devices", invoke_without_command=True)
@click.option("--vendor", metavar="NAME", help="Only this vendor: nvidia, amd, google, intel ...")
@click.option("--kind", type=click.Choice(("gpu", "tpu", "npu", "cpu")), help="Only this kind.")
@click.option("--year", type=Whole(), help="Only this year of release.")
@click.option("--family", metavar="NAME", help="Only this family: hopper, ampere ...")
@click.option("--links", is_flag=True, help="List the links instead.")
@click.option("--systems", is_flag=True, help="List the systems instead.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
@click.pass_context
def command(ctx, links: bool, systems: bool, as_json: bool, **wanted) -> None:
    """List the devices that are known by name; or `roofcast devices show NAME`."""
    if ctx.invoked_subcommand:
        return
    if links or systems:
        names = hwdb.links() if links else hwdb.systems()
        (
            print_json({"links" if links else "systems": names})
            if as_json
            else click.echo("\n".join(names))
        )
        return
    rows = [hwdb.summary(name) for name in hwdb.devices()]
    for key, value in wanted.items():
        if value is not None:
            rows = _only(rows, key, str(value))
    if as_json:
        print_json({"devices": rows})
        return
    from roofcast.reports.console import page, plain_table

    table = plain_table(
        ("device", "left"),
        ("year", "right"),
        ("peak FLOP/s", "right"),
        ("", "left"),
        ("bandwidth", "right"),
        ("memory", "right"),
        ("price", "right"),
    )
    for row in rows:
        price = (
            f"${row.cloud_usd_per_hour:.2f}/h"
            if row.cloud_usd_per_hour
            else f"${row.launch_usd:,.0f}"
            if row.launch_usd
            else "—"
        )
        table.add_row(
            row.id,
            str(row.year or "—"),
            si(row.peak_flops),
            row.format,
            si(row.bandwidth, "B/s"),
            binary(row.capacity),
            price,
        )
    with page() as out:
        out.print(table)
        out.print(f"{len(rows)} devices. One with its sources: roofcast devices show NAME")


def _only(rows: list, key: str, value: str) -> list:
    """The rows whose `key` is that value, whatever the case; at least one."""
    left = [row for row in rows if str(getattr(row, key)).lower() == value.lower()]
    if not left:
        known = sorted({str(getattr(row, key)) for row in rows} - {"None", ""})
        alike = difflib.get_close_matches(
            value.lower(), [each.lower() for each in known], n=3, cutoff=0.5
        )
        close = [each for each in known if each.lower() in alike] or known[:30]
        raise UnknownName(
            f"--{key} {value}: there is none; among the devices left there are: {', '.join(close)}"
        )
    return left


def _shown(figure: float, unit: str) -> str:
    """To five digits; what is held in powers of two, as it is made and sold."""
    if unit != "B":
        return pretty(figure, unit)
    number, unit = binary(figure, 5).split()
    return f"{float(number):g} {unit}"


@command.command("show")
@click.argument("name", metavar="DEVICE")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help='Change one number: memory.bandwidth="8 TB/s". May be repeated.',
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
def show_one(name: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Every number of DEVICE with its source and how sure it is. What is unknown is absent."""
    device = hwdb.device(name, setting(changes))
    figures = hwdb.figures(device)
    if as_json:
        print_json(
            {
                "device": device.id,
                "name": device.name,
                "figures": [
                    {
                        "key": key,
                        "value": float(f),
                        "unit": unit,
                        "status": f.status,
                        "source": f.source,
                        "where": f.where,
                    }
                    for key, f, unit in figures
                ],
                "sources": dict(device.sources),
                "notes": list(device.notes),
            }
        )
        return
    from roofcast.reports.console import page, plain_table, say, show

    made = ", ".join(
        str(part) for part in (device.vendor, device.architecture, device.year) if part
    )
    table = plain_table(
        ("figure", "left"), ("value", "right"), ("status", "left"), ("source", "fold")
    )
    for key, figure, unit in figures:
        table.add_row(
            key,
            _shown(figure, unit),
            figure.status,
            ": ".join(part for part in (figure.source, figure.where) if part),
        )
    with page() as out:
        out.print(f"{device.id}: {device.name}" + (f" ({made})" if made else ""), style="bold")
        show(out, table)
        for key, text in device.sources.items():
            say(out, text, first=f"{key}: ")
        for note in (*device.edits, *device.notes):
            say(out, note, first="note: ")
