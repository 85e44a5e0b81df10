"""Fit what nanotron's host and its collectives over nodes cost, to a table of its runs.

    python -m roofcast.scenarios.fits.playbook FILE [--write]

Rows: the layouts of the Ultra-Scale Playbook (Hugging Face, 2025: Llama-like models of 1B and 8B on
8 to 512 H100) in the columns of `roofcast validate --runs`; those that the column `exclude` marks
and those of more than MOST_DEVICES devices are left out (benchmarks/playbook.py says why). Fitted:
dispatch_s, far_s and piped_s of the stack, by Gauss-Newton on ln(predicted / measured), linear
beyond 4 %, every row weighing alike. Prints the errors of rows without and with a pipeline, and the
errors on each model when the constants are fitted to the other. --write puts the constants into the
profile.
"""

from __future__ import annotations

import argparse
from statistics import median

import numpy as np

from roofcast.scenarios.fits.runs import (
    LONGEST_STEP,
    Key,
    Step,
    jacobian,
    least_squares_step,
    log_errors,
    scaled,
    trial,
)
from roofcast.scenarios.fits.writing import put_in_profile
from roofcast.scenarios.measured.training import read
from roofcast.simulator.software import stack as stacks

STACK = "nanotron"
FITTED = ("dispatch_s", "far_s", "piped_s")
MOST_DEVICES = 256
ROUNDS = 4
WEAK = 3.0  # width of the prior on the logarithm of a constant: the rows alone decide


def steps(path: str) -> list[Step]:
    """The runs of the table that the constants are fitted to; the source of each is its model."""
    return [
        Step(run.row["model_name"], False, run.scenario, run.measured_s)
        for run in read(path)
        if run.measured_s and run.scenario and not run.excluded
        if int(run.row["n_devices"]) <= MOST_DEVICES
    ]


def fit(data: list[Step], start: dict[Key, float]) -> dict[Key, float]:
    """The constants after ROUNDS Gauss-Newton steps."""
    moved = np.zeros(len(start))
    prior, weight = np.full(len(start), WEAK), np.ones(len(data))
    for _ in range(ROUNDS):
        values = scaled(start, moved)
        with trial(values):
            errors = log_errors(data)
        matrix = jacobian(data, values, errors)
        step = least_squares_step(matrix, errors, weight, prior, moved)
        moved = moved + np.clip(step, -LONGEST_STEP, LONGEST_STEP)
    return scaled(start, moved)


def line(name: str, data: list[Step], values: dict[Key, float]) -> str:
    """Median / mean of |predicted / measured - 1| and the bias [%] of some rows."""
    with trial(values):
        ratios = np.exp(log_errors(data))
    size = 100.0 * np.abs(ratios - 1.0)
    bias = 100.0 * (median(ratios) - 1.0)
    return f"{name}: {len(data)} rows, {np.median(size):.1f} / {size.mean():.1f}, bias {bias:+.1f}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", metavar="FILE", help="runs of nanotron, CSV")
    parser.add_argument("--write", action="store_true", help="put the constants into the profile")
    options = parser.parse_args()
    found, profile = steps(options.file), stacks.stack(STACK)
    data = [s for s, e in zip(found, log_errors(found), strict=True) if np.isfinite(e)]
    start: dict[Key, float] = {("stack", STACK, name): getattr(profile, name) for name in FITTED}
    values = fit(data, start)
    for (_, _, name), value in values.items():
        print(f"{name} = {value:.3g}")
    for name, piped in (("without a pipeline", False), ("with a pipeline", True)):
        print(line(name, [s for s in data if ((s.scenario.pp or 1) > 1) == piped], values))
    for model in dict.fromkeys(s.source for s in data):
        own = [s for s in data if s.source == model]
        rest = fit([s for s in data if s.source != model], start)
        for name, piped in (("without", False), ("with", True)):
            mine = [s for s in own if ((s.scenario.pp or 1) > 1) == piped]
            print(line(f"{model} left out, {name} a pipeline", mine, rest))
    if options.write:
        for (_, _, name), value in values.items():
            put_in_profile(stacks.path_of(STACK), name, value)


if __name__ == "__main__":
    main()
