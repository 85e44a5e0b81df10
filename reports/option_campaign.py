"""Options of a whole run: the table `campaign` of a scenario file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from roofcast.reports.option_types import Whole

Option = Callable[[Callable], Callable]  # what click.option returns


def _text(name: str, metavar: str, text: str) -> Option:
    return click.option(name, metavar=metavar, help=text)


class StageOf(click.ParamType):
    """A stage of the schedule: KEY=VALUE with commas, the keys of [[campaign.stages]]."""

    name = "stage"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any]:
        """The table of a stage."""
        if isinstance(value, dict):
            return value
        found: dict[str, Any] = {}
        for pair in value.split(","):
            key, equals, text = (part.strip() for part in pair.partition("="))
            key = "sequence" if key == "seq" else key
            if not equals or not text or key in found:
                self.fail(f"{pair!r} of --stage: wanted for example {STAGE}", param, ctx)
            whole = text.isdecimal() and key not in ("tokens", "samples", "name")
            found[key] = int(text) if whole else text
        return found


STAGE = "tokens=800B,seq=131072,batch=128,cp=8"
CAMPAIGN: dict[str, Option] = {
    "stage": click.option(
        "--stage",
        multiple=True,
        type=StageOf(),
        metavar="KEY=VALUE,...",
        help=(
            "A stage of the schedule, in place of --tokens; once per stage, in order. Keys: tokens"
            " or samples; seq, image, batch, micro_batch, recompute, tp, pp, cp, zero where they"
            f" differ from those of the command; name. For example {STAGE}."
        ),
    ),
    "start": _text("--start", "DATE", "First day, for dates instead of durations: 2027-03-01."),
    "deadline": _text(
        "--deadline", "DATE", "Print the probability of ending by then: a date, or 30d."
    ),
    "eval_every": click.option(
        "--eval-every", type=Whole(), metavar="N", help="Evaluate every N steps. Default: never."
    ),
    "eval_tokens": _text("--eval-tokens", "N", "Tokens of one evaluation: 4M."),
    "eval_samples": _text("--eval-samples", "N", "Samples of one evaluation: 50000."),
    "checkpoint_every": _text(
        "--checkpoint-every",
        "N",
        "Steps between checkpoints, or a time: 500, 3h. Default: the interval at which the run is"
        " shortest in the mean, by the rate of failures.",
    ),
    "checkpoint_bandwidth": _text(
        "--checkpoint-bandwidth",
        "RATE",
        "To the storage, of all devices together: '60 GB/s'. Default: 1.2 GB/s per eight devices.",
    ),
    "checkpoint_async": click.option(
        "--checkpoint-async",
        is_flag=True,
        help="The step waits for the copy to host memory alone, not for the storage.",
    ),
    "failure_rate": click.option(
        "--failure-rate",
        type=float,
        metavar="N",
        help=(
            "Failures per 1000 node-days, of nodes of eight devices; 0: none. Default: that of"
            " published runs (docs/campaigns.md)."
        ),
    ),
    "detection": _text("--detection", "TIME", "From a failure to the restart. Default: 5min."),
    "restart": _text(
        "--restart",
        "TIME",
        "From there to the next step. Default: 5min (1min on one node), plus the time to read the"
        " state.",
    ),
    "cluster_age": _text(
        "--cluster-age",
        "TIME",
        "Age of the cluster at the start, 200d or 2years: failures become rarer with it. Default:"
        " the same rate at any age.",
    ),
    "preemptions_per_hour": click.option(
        "--preemption",
        "preemptions_per_hour",
        type=float,
        metavar="N",
        help=(
            "Preemptions of the whole run per hour, on spot capacity; the rent is then that of"
            " spot. Default: none."
        ),
    ),
    "wait": _text(
        "--wait",
        "TIME",
        "From a preemption until capacity is back, in the mean; not paid. Default: no wait.",
    ),
    "spares": click.option(
        "--spares", type=click.IntRange(min=0), metavar="N", help="Idle devices that are paid for."
    ),
    "slow_steps": _text(
        "--slow-steps",
        "SHARE",
        "By how much the mean step of a run is longer than the forecast step: 2% or 0.02. Default:"
        " 1.5% on several nodes.",
    ),
    "input_rate": _text(
        "--input-rate",
        "RATE",
        "What the data loader of a node of eight devices gives: '9000 samples/s', '5M tokens/s'."
        " Default: enough.",
    ),
    "owned": click.option(
        "--owned",
        is_flag=True,
        help="You own the devices: their loss of value and electricity instead of a rent.",
    ),
    "price_date": _text(
        "--price-date", "DATE", "When --price was quoted, for the invoice: 2026-08-21."
    ),
}


def campaign_options(function: Callable) -> Callable:
    """A decorator that adds these options."""
    for option in reversed(CAMPAIGN.values()):
        function = option(function)
    return function


def gathered(given: dict[str, Any]) -> dict[str, Any]:
    """The values of these options, taken out of `given`: the table `campaign`."""
    found = {name: given.pop(name, None) for name in CAMPAIGN}
    found["stages"] = list(found.pop("stage") or ())
    return {name: value for name, value in found.items() if value not in (None, False, (), [])}
