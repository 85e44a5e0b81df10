"""roofcast choose"""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click
import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.market import CLASSES, RENTS
from roofcast.reports.choose_types import Limit, chosen_devices, pool, prices_of
from roofcast.reports.completion import completing
from roofcast.reports.files import PICTURES, check_target
from roofcast.reports.option_power import SITE
from roofcast.reports.option_serving import ChooseDoor, serving_flag
from roofcast.reports.option_tuning import TUNED
from roofcast.reports.option_types import Whole
from roofcast.reports.options import options, print_json
from roofcast.simulator.choices import GOALS

KINDS = ("gpu", "tpu", "npu", "cpu")  # of devices
LENGTH = ("tokens", "samples", "epochs")
STEP = (
    "input", "batch", "seq", "image", "precision", "optimizer", "recompute", "offload",
    "offload_to", "nvme_bandwidth", "attention", "mode", "stack", "memory_format", *TUNED,
    "lengths", "packing",
)  # fmt: skip


@click.command("choose", cls=ChooseDoor)
@click.argument("model", shell_complete=completing("model"))
@serving_flag("Hardware for a server of generated text; options: roofcast choose --serving --help.")
@click.option("--within", type=Limit("s"), metavar="TIME", help="Deadline of the run: 10d, 36h.")
@click.option(
    "--under",
    type=Limit("USD"),
    metavar="USD",
    help="Budget: 50k, 1.5M. Rent of the run; with --buy purchase and electricity.",
)
@click.option(
    "--max-power",
    type=Limit("W"),
    metavar="POWER",
    help="Printed power of all devices together: 300W, 200kW.",
)
@click.option(
    "--max-energy", type=Limit("J"), metavar="ENERGY", help="Energy of the run: 500kWh, 20MWh."
)
@click.option(
    "--sure",
    type=click.IntRange(50, 99),
    metavar="PERCENT",
    help="Probability with which deadline and budget hold. Default: at the forecast time.",
)
@click.option(
    "--for",
    "goal",
    type=click.Choice(GOALS),
    help="What choices are ranked by. Default: cost with --within or without any limit, else time.",
)
@click.option(
    "--on",
    multiple=True,
    metavar="DEVICE",
    shell_complete=completing("device"),
    help=(
        "Choose among these devices: names or .toml files, or all; may be repeated. Default: all of"
        " makers on whose devices runs were measured."
    ),
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(KINDS),
    help=(
        "Choose among devices of this kind; may be repeated. Default: those that --on names, else"
        " all but CPUs."
    ),
)
@click.option("--vendor", multiple=True, metavar="NAME", help="Choose among a vendor's devices.")
@click.option(
    "--owned",
    metavar="FILE",
    help="Choose among devices you have: a .toml file with a table [devices] of name = number.",
)
@click.option("--devices", type=Whole(), metavar="N", help="Devices, at most. Default: 1024.")
@click.option("--rent", "contract", type=click.Choice(RENTS), help="Default: on-demand.")
@click.option(
    "--provider",
    type=click.Choice(CLASSES),
    help="Class of cloud providers. Default: specialised, else hyperscaler, else marketplace.",
)
@click.option("--buy", is_flag=True, help="Buy the devices with their servers, not rent them.")
@click.option(
    "--price",
    "price",
    multiple=True,
    metavar="DEVICE=USD",
    help="Your rent of a device, in USD per device-hour; may be repeated.",
)
@click.option("--prices", metavar="FILE", help="Your prices: a .toml file with a table per device.")
@options(*LENGTH, *STEP, *SITE)
@click.option("--top", type=Whole(), default=5, metavar="N", help="Choices shown. Default: 5.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
@click.option(
    "-o",
    "path",
    metavar="FILE",
    help="Also write the choices to a .csv or .parquet file, or a page to send (.html).",
)
@click.option("--plot", metavar="FILE", help="Draw cost against time: a .png, .svg or .pdf file.")
def command(
    top: int,
    as_json: bool,
    path: str | None,
    plot: str | None,
    kinds: tuple[str, ...],
    **asked: Any,
) -> None:
    """Choose devices, how many, and the layout for a run of MODEL.

    Of every device in the database, or those that are named, the numbers and layouts that meet all
    constraints, ranked: time with the probability that it holds, cost, energy, memory.
    """
    from roofcast.reports.tables.written import check_table, write_table
    from roofcast.simulator.choose.chosen import choose

    if path is not None:
        check_table(path, page=True)
    if plot is not None:
        check_target(plot, PICTURES)
    scenario, devices, wanted = _asked(**asked)
    found = choose(scenario, devices, wanted, top, kinds)
    if path is not None and path.lower().endswith(".html"):
        from roofcast.reports.html.answers import write_choices

        write_choices(found, path, shlex.join(["roofcast", *sys.argv[1:]]))
    elif path is not None:
        from roofcast.simulator.choose.tables import choices_table

        write_table(choices_table(found), path)
    if plot is not None:
        from roofcast.reports.pictures.front import draw_choices
        from roofcast.reports.pictures.style import write

        write(plot, lambda: draw_choices(found))
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    from roofcast.reports.pages.choose import print_chosen

    print_chosen(found)


def _asked(
    model: str,
    on: tuple[str, ...],
    vendor: tuple[str, ...],
    owned: str | None,
    price: tuple[str, ...],
    prices: str | None,
    within: float | None,
    under: float | None,
    max_power: float | None,
    max_energy: float | None,
    devices: int | None,
    contract: str | None,
    sure: int | None,
    **given: Any,
) -> tuple[Any, list[str] | None, Any]:
    """The scenario, the devices and the constraints of the options."""
    from roofcast.simulator.choose.wanted import MOST_DEVICES, Wanted
    from roofcast.simulator.forecast.scenario import Scenario

    if not model.strip():
        raise BadInput(
            "MODEL is empty; give a model, for example llama-3-8b (list: roofcast models)"
        )
    if owned is not None and (on or vendor):
        raise click.UsageError(
            "--owned names the devices to choose from; leave --on and --vendor out"
        )
    there = pool(owned) if owned is not None else {}
    names = list(there) or chosen_devices(on, vendor)
    wanted = Wanted(
        within_s=within,
        under_usd=under,
        max_power_w=max_power,
        max_energy_j=max_energy,
        sure=sure / 100 if sure is not None else None,
        goal=given.pop("goal"),
        contract=contract or RENTS[0],
        provider=given.pop("provider"),
        buy=given.pop("buy"),
        devices=devices or max([MOST_DEVICES, *there.values()]),
        owned=there,
        prices=prices_of(prices, price),
    )
    fields = {key: value for key, value in given.items() if value not in (None, ())}
    # the device of the scenario is not read
    return Scenario(model=model, device="", **fields), names, wanted
