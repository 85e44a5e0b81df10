"""Fit what only whole nets can tell to measured runs named on the command line, through the real
engine.

    python -m roofcast.scenarios.fits.nets STAGE --runs FILE.csv[.gz] .. [--left-out] [--write]

Stages and what they fit are in STAGES. Loss: soft absolute ln(predicted / measured), every row
alike, and a weak pull towards the present values, so that what no row tells stays where it is.
`--left-out` fits half of the models and reports the other half, both ways round. `--write` puts
values and residuals into hwdb/kernels.toml and hwdb/families/*.toml where the source says `fit`,
and values of stacks into their profiles.
"""

from __future__ import annotations

import argparse
import re
from typing import NamedTuple

import msgspec
import numpy as np

from roofcast import hwdb
from roofcast.hwdb.constants import HERE, Kernels
from roofcast.hwdb.constants import kernels as constants
from roofcast.hwdb.errors import RoofcastError
from roofcast.hwdb.records import Device
from roofcast.scenarios.fits.runs import stated
from roofcast.scenarios.measured.nets import read_to_fit
from roofcast.simulator import models
from roofcast.simulator.forecast.resolve import recipe_of
from roofcast.simulator.software import stack as stacks
from roofcast.simulator.times.dispatch import PHASES, between_steps, by_phase
from roofcast.simulator.times.roofline import rates_of, time_all
from roofcast.simulator.work.step import Step, trace

PULL = 0.02  # weight of (ln of a value / the present one)^2 against the mean loss of the rows
SOFT = 0.05  # errors beyond this count linearly
OF_STACKS = ("step_s",)  # constants that stand in a stack's profile


class Stage(NamedTuple):
    """Constants by dotted name (section of kernels.toml, or stack), shares of the device's family
    (fields of Rates), and the rows they are fitted to.
    """

    knobs: tuple[str, ...]
    shares: tuple[str, ...]
    device: str  # of the rows, as a pattern
    framework: str
    mode: str
    precision: str
    batch: int  # smallest
    most: int = 10**9  # largest batch
    without: str = "never"  # models and layouts, as "model layout", that no constant could explain
    family: str = ""


STAGES = {
    "nets": Stage(
        (
            "conv.rate",
            "conv.transpose",
            "conv.transpose_backward",
            "conv.grouped",
            "conv.grouped_rate",
            "issue.pool",
            "issue.depthwise",
            "issue.depthwise_input",
            "issue.depthwise_weight",
        ),
        ("sustained",),
        "RTX 3090",
        "PyTorch",
        ".*",
        "amp-fp16",
        2,
        without=r"regnet\w+ nhwc|vgg16 nchw|tf_efficientnet_b7 nhwc|efficientnet_b4 nhwc",
        family="ampere-gddr",
    ),
    "tf32": Stage(
        ("conv.tf32",),
        (),
        "A100",
        "TensorFlow",
        "train",
        "tf32",
        8,
        without="(?i)ssd|bert",
        family="ampere",
    ),
    "host": Stage(
        ("host.ageing",), (), "V100", "^PyTorch", "infer", "fp32|amp-fp16", 1, 16, family="volta"
    ),
    "session": Stage(
        ("tensorflow.step_s",),
        (),
        "V100",
        "TensorFlow",
        "train",
        "fp32|amp-fp16",
        1,
        without="^(?!nnUNet|V-?Net)",
    ),
    "cpu": Stage(
        ("cpu.start_most", "cpu.start_stream", "cpu.traffic"),
        ("sustained",),
        "i9-10940X",
        "compile",
        "infer",
        "fp32",
        1,
        without="vgg",
        family="any-cpu",
    ),
}


class Measured(NamedTuple):
    """A row, traced."""

    model: str
    layout: str
    step: Step
    device: Device
    phase: np.ndarray
    seconds: float


def prepare(paths, stage: Stage) -> list[Measured]:
    """The rows of the files that a stage is fitted to."""
    rows = []
    for run in (run for path in paths for run in read_to_fit(path)):
        s, row = run.scenario, run.row
        wanted = (
            s
            and (s.devices or 1) == 1
            and all(
                re.search(pattern, row.get(key) or "")
                for key, pattern in (
                    ("device", stage.device),
                    ("framework", stage.framework),
                    ("mode", stage.mode),
                    ("precision", stage.precision),
                )
            )
        )
        layout = row.get("layout") or ""
        if (
            not wanted
            or not stage.batch <= s.batch <= stage.most
            or re.search(stage.without, f"{row['model']} {layout}")
        ):
            continue
        try:
            device = hwdb.device(s.device)
            model = models.resolve(s.model)
            step = trace(model, recipe_of(s, model, device)[0])
        except RoofcastError:
            continue
        rows.append(
            Measured(
                row["model"],
                layout,
                step,
                device,
                np.array([PHASES.index(k.phase) for k in step.kernels]),
                run.measured_s,
            )
        )
    return rows


def predicted(rows: list[Measured], c: Kernels, own: dict[str, float]) -> np.ndarray:
    """Seconds of the rows under these constants, shares of the family, and values of their
    stack.
    """
    stack = {k: v for k, v in own.items() if k in OF_STACKS}

    def find(device, product):
        resolved = rates_of(device, product)
        shares = {
            k: v
            for k, v in own.items()
            if k not in stack
            and (k != "sustained" or resolved.rates.tensor or device.kind == "cpu")
        }
        return resolved._replace(rates=resolved.rates._replace(**shares))

    return np.array(
        [
            by_phase(r.step, time_all(r.step, r.device, c, find).seconds, r.phase, r.device, c)[
                2
            ].sum()
            + between_steps(msgspec.structs.replace(r.step.recipe.stack, **stack), r.device, c)
            for r in rows
        ]
    )


def start_of(stage: Stage, rows: list[Measured]) -> np.ndarray:
    """The present values of what the stage fits."""
    c = constants()
    rates = rates_of(
        rows[0].device, rows[0].step.kernels[0].product if rows[0].device.kind == "cpu" else "fp16"
    ).rates

    def value(knob):
        section, key = knob.split(".")
        return getattr(stacks.stack(section) if key in OF_STACKS else getattr(c, section), key)

    return np.array([value(k) for k in stage.knobs] + [getattr(rates, s) for s in stage.shares])


def changed(stage: Stage, values) -> tuple[Kernels, dict[str, float]]:
    """Constants, and shares and values of the stack, with the stage's values in place."""
    c, own = (
        constants(),
        dict(zip(stage.shares, map(float, values[len(stage.knobs) :]), strict=True)),
    )
    for name, value in zip(stage.knobs, values, strict=False):
        section, key = name.split(".")
        if key in OF_STACKS:
            own[key] = float(value)
        else:
            c = msgspec.structs.replace(
                c, **{section: msgspec.structs.replace(getattr(c, section), **{key: float(value)})}
            )
    return c, own


def fit(stage: Stage, rows: list[Measured]) -> np.ndarray:
    """Values that the rows want."""
    from scipy.optimize import least_squares

    start = np.log(start_of(stage, rows))
    measured = np.array([r.seconds for r in rows])
    pull = np.sqrt(PULL * len(rows)) * SOFT

    def residuals(x):
        error = np.log(predicted(rows, *changed(stage, np.exp(x))) / measured)
        soft = np.sign(error) * np.sqrt(2.0 * SOFT * (np.sqrt(SOFT**2 + error**2) - SOFT))
        return np.concatenate([soft, pull * (x - start)])

    return np.exp(
        least_squares(residuals, start, diff_step=0.02, max_nfev=12, xtol=1e-3, ftol=1e-4).x
    )


def figures(rows: list[Measured], values, stage: Stage) -> np.ndarray:
    """Errors of the rows."""
    return predicted(rows, *changed(stage, values)) / np.array([r.seconds for r in rows]) - 1.0


def said(errors) -> str:
    """Median and mean of the absolute errors, in words [%]."""
    return f"{100 * np.median(np.abs(errors)):.1f} / {100 * np.mean(np.abs(errors)):.1f} %"


def report(name: str, paths, left_out: bool, write: bool) -> None:
    """Fit a stage, print it, and write it if asked."""
    stage = STAGES[name]
    rows = prepare(paths, stage)
    if not rows:
        print(f"{name}: no rows")
        return
    start, values = start_of(stage, rows), fit(stage, rows)
    before, after = said(figures(rows, start, stage)), said(figures(rows, values, stage))
    print(f"{name}: {len(rows)} rows, {len({r.model for r in rows})} models: {before} -> {after}")
    for knob, old, new in zip((*stage.knobs, *stage.shares), start, values, strict=True):
        print(f"  {knob:24s} {old:8.3g} -> {new:8.3g}")
    if left_out:
        kinds = sorted({r.model for r in rows})
        errors = []
        for half in (kinds[::2], kinds[1::2]):
            inside, outside = (
                [r for r in rows if r.model in half],
                [r for r in rows if r.model not in half],
            )
            errors.append(figures(outside, fit(stage, inside), stage))
        print(f"  half of the models left out: {said(np.concatenate(errors))}")
    if write:
        from roofcast.scenarios.fits.kernels import put

        text = f"{said(figures(rows, values, stage))} median / mean over {len(rows)} runs".replace(
            " %", " %", 1
        )
        for knob, value in zip(stage.knobs, values, strict=False):
            section, key = knob.split(".")
            if key in OF_STACKS:
                path = stacks.path_of(section)
                path.write_text(
                    stated(path.read_text(encoding="utf-8"), key, value), encoding="utf-8"
                )
                stacks.stack.cache_clear()
            else:
                put(HERE / "kernels.toml", section, key, value, text)
        for share, value in zip(stage.shares, values[len(stage.knobs) :], strict=True):
            where = {
                "sustained": (
                    ("", "half_rate") if stage.family == "ampere-gddr" else ("sustained", "fp32")
                )
            }.get(share, ("", share))
            put(HERE / "families" / f"{stage.family}.toml", *where, value, text)
        rates_of.cache_clear()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="+", choices=STAGES)
    parser.add_argument("--runs", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--left-out", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    for name in options.stages:
        report(name, options.runs, options.left_out, options.write)
