"""Fit the constants that only whole nets can tell to measured runs, through the real engine.

    python -m roofcast.scenarios.fits.nets STAGE.. --runs FILE.csv[.gz].. [--left-out] [--write]

The stages (STAGES), the rows of FILEs that each is fitted to, and the shipped table with them in
scenarios/measured/runs:

    nets     convolutions, pooling and depthwise kernels ([conv], [issue]), and the half_rate of
             GeForce boards: PyTorch on RTX 3090 under automatic mixed precision; timm.csv
    tf32     conv.tf32: TensorFlow nets trained in TF32 on A100; nvidia-deeplearningexamples.csv
    host     host.ageing: PyTorch inference at small batches on V100; the same table
    session  step_s of the stack tensorflow: nnU-Net and V-Net trained on V100; the same table
    cpu      [cpu] and the sustained rate of CPUs: compiled nets on i9-10940X; timm.csv

Loss: |ln(predicted / measured)|, quadratic within 5 %, all rows alike, and a weak pull towards the
present values, so that a constant that no row constrains stays as it is. --left-out fits half of
the models and prints the errors of the other half, both ways round. --write puts values and
residuals into hwdb/kernels.toml and hwdb/families/*.toml, where the source is "fit STAGE", and
constants of a stack into its profile in simulator/software/stacks.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from scipy.optimize import least_squares

from roofcast import hwdb
from roofcast.hwdb.constants import HERE, Kernels
from roofcast.hwdb.constants import kernels as constants
from roofcast.hwdb.errors import RoofcastError
from roofcast.hwdb.records import Device
from roofcast.scenarios.fits.writing import put, put_in_profile
from roofcast.scenarios.measured.nets import Run, read_to_fit
from roofcast.simulator import models
from roofcast.simulator.forecast.recipes import recipe_of
from roofcast.simulator.software import stack as stacks
from roofcast.simulator.times.dispatch import PHASES, between_steps, by_phase
from roofcast.simulator.times.rates import Rates, Resolved
from roofcast.simulator.times.roofline import rates_of, time_all
from roofcast.simulator.work.step import Step, trace

PULL = 0.02  # weight of (ln of a value / the present one)^2 against the mean loss of the rows
SOFT = 0.05  # errors beyond this count linearly
OF_STACKS = ("step_s",)  # constants that stand in the profile of a stack


class Stage(NamedTuple):
    """What one fit sets, and the rows it is fitted to."""

    knobs: tuple[str, ...]  # constants by dotted name: section of kernels.toml, or stack, and key
    shares: tuple[str, ...]  # of the device family: fields of Rates
    # patterns of the columns of the rows
    device: str
    framework: str
    mode: str
    precision: str
    batch: int  # smallest batch
    most: int = 10**9  # largest batch
    without: str = "never"  # pattern of "model layout" that no constant here can explain
    family: str = ""  # of the shares


STAGES = {
    "nets": Stage(
        ("conv.rate", "conv.transpose", "conv.transpose_backward", "conv.grouped",
         "conv.grouped_rate", "issue.pool", "issue.depthwise", "issue.depthwise_input",
         "issue.depthwise_weight"),
        ("sustained",), "RTX 3090", "PyTorch", ".*", "amp-fp16", 2,
        without=r"regnet\w+ nhwc|vgg16 nchw|tf_efficientnet_b7 nhwc|efficientnet_b4 nhwc",
        family="ampere-gddr",
    ),
    "tf32": Stage(
        ("conv.tf32",), (), "A100", "TensorFlow", "train", "tf32", 8, without="(?i)ssd|bert",
        family="ampere",
    ),
    "host": Stage(
        ("host.ageing",), (), "V100", "^PyTorch", "infer", "fp32|amp-fp16", 1, 16, family="volta",
    ),
    "session": Stage(
        ("tensorflow.step_s",), (), "V100", "TensorFlow", "train", "fp32|amp-fp16", 1,
        without="^(?!nnUNet|V-?Net)",
    ),
    "cpu": Stage(
        ("cpu.start_most", "cpu.start_stream"), ("sustained",),
        "i9-10940X", "compile", "infer", "fp32", 1, without="vgg", family="any-cpu",
    ),
}  # fmt: skip


class Measured(NamedTuple):
    """A row, its step traced."""

    model: str
    step: Step
    device: Device
    phase: np.ndarray  # of each kernel, as its place in PHASES
    seconds: float


def prepare(paths: Iterable[str | Path], stage: Stage) -> list[Measured]:
    """The rows of the files that a stage is fitted to; rows without a forecast are left out."""
    rows = []
    for run in (run for path in paths for run in read_to_fit(path)):
        scenario = run.scenario
        if scenario is None or run.measured_s is None or not wanted(run, stage):
            continue
        try:
            device = hwdb.device(scenario.device)
            model = models.resolve(scenario.model)
            step = trace(model, recipe_of(scenario, model, device)[0])
        except RoofcastError:
            continue
        phase = np.array([PHASES.index(k.phase) for k in step.kernels])
        rows.append(Measured(run.row["model"], step, device, phase, run.measured_s))
    return rows


def wanted(run: Run, stage: Stage) -> bool:
    """Whether a stage is fitted to the run."""
    scenario, row = run.scenario, run.row
    if scenario is None or (scenario.devices or 1) != 1:
        return False
    fits = all(
        re.search(getattr(stage, column), row.get(column) or "")
        for column in ("device", "framework", "mode", "precision")
    )
    in_range = stage.batch <= (scenario.batch or 0) <= stage.most
    name = f"{row['model']} {row.get('layout') or ''}"
    return fits and in_range and not re.search(stage.without, name)


def predicted(rows: list[Measured], c: Kernels, own: dict[str, float]) -> np.ndarray:
    """Seconds of the rows under the constants `c`; own: shares of the family, and values of the
    stack.
    """
    of_stack = {key: value for key, value in own.items() if key in OF_STACKS}
    shares = {key: value for key, value in own.items() if key not in OF_STACKS}

    def find(device: Device, product: str) -> Resolved:
        resolved = rates_of(device, product)
        rates = resolved.rates
        changes = shares
        if not rates.tensor and device.kind != "cpu":  # the share is that of the matrix units
            changes = {key: value for key, value in shares.items() if key != "sustained"}
        return resolved._replace(rates=Rates(**(rates._asdict() | changes)))

    seconds = []
    for row in rows:
        times = time_all(row.step, row.device, c, find).seconds
        phases = by_phase(row.step, times, row.phase, row.device, c)[2]
        stack = msgspec.structs.replace(row.step.recipe.stack, **of_stack)
        seconds.append(phases.sum() + between_steps(stack, row.device, c))
    return np.array(seconds)


def start_of(stage: Stage, rows: list[Measured]) -> np.ndarray:
    """The present values of what the stage fits: its knobs, then its shares."""
    c, device = constants(), rows[0].device
    product = rows[0].step.kernels[0].product if device.kind == "cpu" else "fp16"
    rates = rates_of(device, product).rates

    def value(knob: str) -> float:
        section, key = knob.split(".")
        return getattr(stacks.stack(section) if key in OF_STACKS else getattr(c, section), key)

    return np.array([value(k) for k in stage.knobs] + [getattr(rates, s) for s in stage.shares])


def changed(stage: Stage, values: np.ndarray) -> tuple[Kernels, dict[str, float]]:
    """The constants with the stage's values, and its shares and values of a stack."""
    names, c = (*stage.knobs, *stage.shares), constants()
    own = {}
    for name, value in zip(names, map(float, values), strict=True):
        section, _, key = name.rpartition(".")
        if not section or key in OF_STACKS:
            own[key] = value
        else:
            replaced = msgspec.structs.replace(getattr(c, section), **{key: value})
            c = msgspec.structs.replace(c, **{section: replaced})
    return c, own


def fit(stage: Stage, rows: list[Measured]) -> np.ndarray:
    """The values of the stage that fit the rows best."""
    start = np.log(start_of(stage, rows))
    measured = np.array([r.seconds for r in rows])
    pull = np.sqrt(PULL * len(rows)) * SOFT

    def residuals(x: np.ndarray) -> np.ndarray:
        error = np.log(predicted(rows, *changed(stage, np.exp(x))) / measured)
        soft = np.sign(error) * np.sqrt(2.0 * SOFT * (np.sqrt(SOFT**2 + error**2) - SOFT))
        return np.concatenate([soft, pull * (x - start)])

    found = least_squares(residuals, start, diff_step=0.02, max_nfev=12, xtol=1e-3, ftol=1e-4)
    return np.exp(found.x)


def errors_of(rows: list[Measured], values: np.ndarray, stage: Stage) -> np.ndarray:
    """predicted / measured - 1 of the rows."""
    return predicted(rows, *changed(stage, values)) / np.array([r.seconds for r in rows]) - 1.0


def in_words(errors: np.ndarray) -> str:
    """Median / mean of the absolute errors [%]."""
    return f"{100 * np.median(np.abs(errors)):.1f} / {100 * np.mean(np.abs(errors)):.1f} %"


def report(name: str, paths: Iterable[str | Path], left_out: bool, write: bool) -> None:
    """Fit a stage, print it, and write it if asked."""
    stage = STAGES[name]
    rows = prepare(paths, stage)
    if not rows:
        print(f"{name}: no rows")
        return
    start, values = start_of(stage, rows), fit(stage, rows)
    before, after = (in_words(errors_of(rows, v, stage)) for v in (start, values))
    nets = len({r.model for r in rows})
    print(f"{name}: {len(rows)} rows, {nets} models: {before} -> {after}")
    for knob, old, new in zip((*stage.knobs, *stage.shares), start, values, strict=True):
        print(f"  {knob:24s} {old:8.3g} -> {new:8.3g}")
    if left_out:
        print(f"  half of the models left out: {in_words(errors_left_out(stage, rows))}")
    if write:
        write_constants(stage, values, f"{after} median / mean over {len(rows)} runs")


def errors_left_out(stage: Stage, rows: list[Measured]) -> np.ndarray:
    """Errors of each half of the models under a fit to the other half."""
    kinds = sorted({r.model for r in rows})
    errors = []
    for half in (kinds[::2], kinds[1::2]):
        inside = [r for r in rows if r.model in half]
        outside = [r for r in rows if r.model not in half]
        errors.append(errors_of(outside, fit(stage, inside), stage))
    return np.concatenate(errors)


def write_constants(stage: Stage, values: np.ndarray, residual: str) -> None:
    """Put the values into hwdb/kernels.toml, the family's file, and the profile of the stack."""
    for name, value in zip((*stage.knobs, *stage.shares), map(float, values), strict=True):
        section, _, key = name.rpartition(".")
        if key in OF_STACKS:
            put_in_profile(stacks.path_of(section), key, value)
            stacks.stack.cache_clear()
        elif section:
            put(HERE / "kernels.toml", section, key, value, residual)
        else:  # a share; that of GeForce boards is of the rate at which their matrix units are held
            geforce = stage.family == "ampere-gddr"
            where = ("", "half_rate") if geforce else ("sustained", "fp32")
            put(HERE / "families" / f"{stage.family}.toml", *where, value, residual)
    rates_of.cache_clear()


def selects(stage: Stage, run: Run) -> bool:
    """Whether the stage is fitted to the run."""
    row, scenario = run.row, run.scenario
    if scenario is None or (scenario.devices or 1) > 1:
        return False
    patterns = {key: getattr(stage, key) for key in ("device", "framework", "mode", "precision")}
    return (
        all(re.search(pattern, row.get(key) or "") for key, pattern in patterns.items())
        and stage.batch <= (scenario.batch or 0) <= stage.most
        and not re.search(stage.without, f"{row['model']} {row.get('layout') or ''}")
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="+", choices=STAGES, metavar="STAGE")
    parser.add_argument(
        "--runs", nargs="+", required=True, metavar="FILE", help="measured runs, CSV"
    )
    parser.add_argument("--left-out", action="store_true", help="also fit half of the models")
    parser.add_argument("--write", action="store_true", help="put the constants into their files")
    options = parser.parse_args()
    for name in options.stages:
        report(name, options.runs, options.left_out, options.write)


if __name__ == "__main__":
    main()
