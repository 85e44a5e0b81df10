"""roofcast choose --serving"""

from __future__ import annotations

from typing import Any

import click
import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.market import CLASSES, RENTS
from roofcast.reports.choose_types import Limit, Sure, chosen_devices, prices_of
from roofcast.reports.completion import completing
from roofcast.reports.option_serving import layouts, lengths, serving_of
from roofcast.reports.option_types import Once, Whole
from roofcast.reports.options import print_json
from roofcast.reports.serving_types import Rate

GOALS = ("cost", "devices")


@click.command("choose --serving", cls=Once)
@click.argument("model", shell_complete=completing("model"))
@click.option(
    "--rate", type=Rate(), metavar="RATE",
    help="Requests that arrive at random, which the devices have to hold: 5/s, 180/min.",
)  # fmt: skip
@click.option(
    "--concurrency", type=Whole(), metavar="N",
    help="Instead of --rate: sequences at once that have to fit at full length. Default: 1.",
)  # fmt: skip
@click.option(
    "--slo", metavar="LIMITS",
    help="Times to hold: ttft=500ms,tpot=30ms (or e2e=10s). With --rate for 90 % of the requests"
    " (add p99 for 99 %), with --concurrency in the mean.",
)  # fmt: skip
@click.option(
    "--sure", type=Sure(), metavar="PERCENT",
    help="Probability with which --slo holds on real servers. Default: as forecast.",
)  # fmt: skip
@lengths
@click.option(
    "--for", "goal", type=click.Choice(GOALS),
    help="What choices are ranked by: cost, or the number of devices and then their memory."
    " Default: cost.",
)  # fmt: skip
@click.option(
    "--under", type=Limit("USD"), metavar="USD",
    help="Budget: rent of all devices per hour; with --buy their purchase.",
)  # fmt: skip
@click.option(
    "--on", multiple=True, metavar="DEVICE[,..]", shell_complete=completing("device"),
    help="Choose among these devices: names or .toml files, with commas or repeated, or all."
    " Default: all but CPUs.",
)  # fmt: skip
@click.option("--vendor", multiple=True, metavar="NAME", help="Choose among a vendor's devices.")
@click.option("--devices", type=Whole(), metavar="N", help="Devices, at most. Default: 1024.")
@layouts
@click.option("--rent", "contract", type=click.Choice(RENTS), help="Default: on-demand.")
@click.option(
    "--provider", type=click.Choice(CLASSES),
    help="Class of cloud providers. Default: specialised, else hyperscaler, else marketplace.",
)  # fmt: skip
@click.option("--buy", is_flag=True, help="Buy the devices with their servers, not rent them.")
@click.option(
    "--price", "price", multiple=True, metavar="DEVICE=USD",
    help="Your rent of a device, in USD per device-hour; may be repeated.",
)  # fmt: skip
@click.option("--prices", metavar="FILE", help="Your prices: a .toml file with a table per device.")
@click.option("--top", type=Whole(), default=5, metavar="N", help="Choices shown. Default: 5.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
@click.option(
    "-o", "path", metavar="FILE", help="Also write the choices to a .csv or .parquet file."
)
def command(
    rate: float | None,
    concurrency: int | None,
    slo: str | None,
    sure: int | None,
    goal: str | None,
    on: tuple[str, ...],
    vendor: tuple[str, ...],
    top: int,
    as_json: bool,
    path: str | None,
    **given: Any,
) -> None:
    """Choose devices, how many, and the layout for MODEL as a server of generated text.

    The cheapest hardware that holds a rate of requests under a service level, or a number of
    sequences at once in memory, in whole replicas: of every device with a price, or those that are
    named, the layout that takes the least. Without --serving: hardware for a training run.
    """
    from roofcast.reports.tables.written import check_table, write_table
    from roofcast.simulator.serving.hardware_chosen import choose
    from roofcast.simulator.serving.slo import level

    if path is not None:
        check_table(path)
    if rate is not None and concurrency is not None:
        raise BadInput("--rate and --concurrency: two loads; give one of them")
    wanted = level(slo) if slo is not None else None
    named = [name.strip() for each in on for name in each.split(",") if name.strip()]
    devices = chosen_devices(named, vendor) or _usual()
    kind, amount = ("rate", rate) if rate is not None else ("concurrency", concurrency or 1)
    asked = serving_of(given)
    load = msgspec.structs.replace(asked.load, kind=kind, amount=float(amount or 1))
    asked = msgspec.structs.replace(asked, load=load)
    surely = None if sure is None else sure / 100.0
    found = choose(asked, devices, _wanted(**given), goal or "cost", wanted, top, surely)
    if rate is None and concurrency is None:
        default = "1 sequence at once (no load given): --rate or --concurrency gives another"
        found = msgspec.structs.replace(found, assumptions=(default, *found.assumptions))
    if path is not None:
        from roofcast.reports.tables.serving_chosen import choices_table

        write_table(choices_table(found), path)
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    from roofcast.reports.pages.serving_chosen import print_chosen

    print_chosen(found)


def _usual() -> list[str]:
    """All devices but CPUs."""
    from roofcast import hwdb

    return [name for name in hwdb.devices() if hwdb.device(name).kind != "cpu"]


def _wanted(
    under: float | None,
    devices: int | None,
    contract: str | None,
    provider: str | None,
    buy: bool,
    price: tuple[str, ...],
    prices: str | None,
    **_: Any,
) -> Any:
    """Prices and limits of the options."""
    from roofcast.simulator.choose.wanted import MOST_DEVICES, Wanted

    if buy and contract is not None:
        raise BadInput("--buy and --rent: two ways to pay; give one of them")
    return Wanted(
        under_usd=under,
        devices=devices or MOST_DEVICES,
        contract=contract or RENTS[0],
        provider=provider,
        buy=buy,
        prices=prices_of(prices, price),
    )
