"""roofcast plan"""

from __future__ import annotations

import json

import click
import msgspec

from roofcast.reports.completion import completing
from roofcast.reports.option_power import Ratio
from roofcast.reports.option_types import Count, Once, Priced, Whole
from roofcast.reports.options import print_json


@click.command("plan", cls=Once)
@click.option(
    "--budget",
    required=True,
    metavar="BUDGET",
    help="1e23FLOP, 2MUSD, or devices and days: 64xh100-sxm5x30d.",
)
@click.option(
    "--on",
    multiple=True,
    metavar="DEVICE",
    shell_complete=completing("device"),
    help="Device: a name (see roofcast devices). May be repeated. Default: h100-sxm5.",
)
@click.option(
    "--family",
    default="llama",
    metavar="NAME",
    help="Pattern of the architecture: llama, qwen3 or gpt3. Default: llama.",
)
@click.option(
    "--inference-tokens",
    type=Count(as_written=False),
    default=None,
    help="Tokens that the model will read and write in use, paid from the budget: 1T.",
)
@click.option(
    "--days",
    type=Ratio("90"),
    default=90.0,
    metavar="DAYS",
    help="Longest training, which sets the number of devices. Default: 90.",
)
@click.option(
    "--seq", "sequence", type=Whole(), metavar="N", help="Sequence length [tokens]. Default: 4096."
)
@click.option(
    "--price",
    type=Priced(),
    metavar="USD",
    help="USD per device-hour. Default: the median rent on demand.",
)
@click.option(
    "--save",
    metavar="FILE",
    help="Write the best plan's model as a config.json, which predict takes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
def command(
    budget: str,
    on: tuple[str, ...],
    family: str,
    inference_tokens: float | None,
    days: float,
    sequence: int | None,
    price: float | None,
    save: str | None,
    as_json: bool,
) -> None:
    """Plan a training: the model size and the tokens that a budget buys best.

    By the scaling law of Besiroglu et al. 2024, on the step times and layouts of predict.
    """
    from roofcast.simulator.campaign.plan import plan

    if save is not None:
        from roofcast.reports.files import check_target

        check_target(save, (".json",))
    found = plan(budget, on, family, inference_tokens or 0.0, days, sequence or 4096, price)
    if save is not None:
        from roofcast.reports.files import replacing

        with replacing(save) as part:
            part.write_text(json.dumps(found.plans[0].config, indent=2) + "\n", encoding="utf-8")
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    from roofcast.reports.pages.plan import print_planned

    print_planned(found)
