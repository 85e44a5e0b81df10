"""The scenario of a forecast, its assumptions and the basis of its interval, for reading."""

from __future__ import annotations

import math
import re

from roofcast.reports.console import say, section
from roofcast.reports.format import words
from roofcast.reports.parts import Console
from roofcast.simulator.forecast.counts import Counts
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.work.tuning import short_name

_ADAPTED = 7  # names of adapted layers that are listed
_SIDES = re.compile(r"(?:volumes|slices) of (\d+(?:x\d+)+),")
_EDIT = re.compile("hypothetical: ")  # how the assumption about a changed number starts
# interval_class of a forecast: what was measured, and the errors that the interval is as wide as
AS_WIDE = "as wide as held 80 % of such published runs, kept out of the fits"
INTERVALS = {
    "known device and stack": (
        f"constants were fitted to runs of such models on this device and stack; {AS_WIDE}"
    ),
    "known device, another stack": (
        "constants were fitted to runs on this device, none of this kind of model under this stack;"
        f" {AS_WIDE}"
    ),
    "no stack stated": f"no stack was given; {AS_WIDE}, under the stack of unknown frameworks",
    "known family": f"constants were fitted to runs on other devices of its family; {AS_WIDE}",
    "inherited device": (
        "no constant was fitted to runs on devices of this family, only to others of its vendor;"
        f" {AS_WIDE}"
    ),
    "unfitted maker": f"no constant was fitted to runs on devices of this vendor; {AS_WIDE}",
    "bound by the host": f"the host's launches take most of the step; {AS_WIDE}",
    "mixture of experts": f"a mixture of experts; {AS_WIDE}",
    "imagined device": "a hypothetical device: the widest of all intervals",
}
NARROWER = "measured steps of your own narrow it (--runs)"


def interval_basis(forecast: Forecast) -> str:
    """The 80 % interval as a range of percent, and the measured runs that it rests on."""
    basis = INTERVALS.get(forecast.interval_class, forecast.interval_class)
    if forecast.own_runs:
        basis = f"{basis}; calibrated on {forecast.own_runs} of your runs"
    elif forecast.interval_class in INTERVALS:
        basis = f"{basis}; {NARROWER}"
    if forecast.low_s is None or forecast.high_s is None or not forecast.step_time_s:
        return basis
    low, high = (
        100.0 * (bound / forecast.step_time_s - 1.0) for bound in (forecast.low_s, forecast.high_s)
    )
    return f"{low:+.0f} to {high:+.0f} %: {basis}"


def pass_or_step(mode: str) -> str:
    """What one forecast is of: `training step` or `inference pass`."""
    return "training step" if mode == "train" else "inference pass"


def edited(forecast: Forecast) -> str:
    """` with changes` where numbers of the device were changed; the assumptions list them."""
    return " with changes" if any(map(_EDIT.match, forecast.assumptions)) else ""


def what(forecast: Forecast) -> str:
    """The step without model and device.

    batch 1 × 8192 tokens, bf16, adamw, no recomputation, flash attention, pytorch-eager
    """
    whole = "global batch" if forecast.devices > 1 else "batch"
    parts = [f"{whole} {forecast.batch:,}{_size(forecast)}", forecast.precision]
    if forecast.mode == "train":
        parts.append(forecast.optimizer or "no optimizer")
        recompute = forecast.recompute
        parts.append("no recomputation" if recompute == "none" else f"recompute {recompute}")
    if any(layer.op == "attention" for layer in forecast.layers):
        parts.append(f"{forecast.attention} attention")
    return ", ".join([*parts, forecast.stack])


def trained(forecast: Forecast | Counts) -> str:
    """What trains, where not everything does; else "".

    LoRA r=16 on q_proj, v_proj: 6.82 million of 8.04 billion parameters train (0.085 %)
    """
    trains, all_ = forecast.trainable_parameters, forecast.parameters
    held = f"frozen weights in {forecast.weights}" if forecast.weights else ""
    if trains is None or trains >= all_:
        return held.replace("frozen ", "")
    text = f"{words(trains)} of {words(all_)} parameters train ({_part(trains / all_)})"
    if forecast.lora:
        last = dict.fromkeys(map(short_name, forecast.adapted))
        names = list(last)[:_ADAPTED]
        more = f" and {len(last) - len(names)} more" if len(last) > len(names) else ""
        text = f"LoRA r={forecast.lora} on {', '.join(names)}{more}: {text}"
    return f"{text}; {held}" if held else text


def _part(share: float) -> str:
    """A fraction below 1 as a percentage: two digits, or one of what is left to 100 %.

    >>> _part(0.00085), _part(0.81), _part(0.9958)
    ('0.085 %', '81 %', '99.6 %')
    """
    left = 100.0 * (1.0 - share)
    places = 0 if left >= 1 else -math.floor(math.log10(left))
    return f"{100.0 * share:.2g} %" if share < 0.5 else f"{100.0 * share:.{places}f} %"


def _size(forecast: Forecast) -> str:
    """The size of a sample; that of a volume, or of one of its slices, is among the assumptions."""
    if forecast.sequence:
        return f" × {forecast.sequence} tokens"
    for found in filter(None, map(_SIDES.match, forecast.assumptions)):
        unit = "voxels" if found[1].count("x") > 1 else "pixels"
        return f" × {found[1].replace('x', '×')} {unit}"
    return f" × {forecast.image}×{forecast.image} pixels" if forecast.image else ""


def assumptions(out: Console, forecast: Forecast) -> None:
    """Defaults and assumptions of a forecast, as a list."""
    if forecast.assumptions:
        section(out, "Assumed")
        for each in forecast.assumptions:
            say(out, each, first="- ")
