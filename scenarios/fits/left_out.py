"""Errors of measured runs when what they taught is left out: the rows of hwdb/residuals.csv.

Every run is forecast as it is, and

    without_source     with the constants of fits.runs refitted without the runs of its source
    without_device     the same without every run on any device of its family
    without_software   under the stack of a framework without a profile: the default of its device,
                       or what `usual_stack` says of the layout of many devices

The refit is one Gauss-Newton step from the shipped constants, less the step that all runs together
would make; a constant that no other run constrains becomes NEUTRAL. It is taken for runs of many
devices alone, since no other run constrains those constants. Constants of fits.nets, kernels and
collectives are not refitted: a run that fits.nets reads therefore has no error without its source.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.fits import nets, runs
from roofcast.scenarios.measured import training
from roofcast.scenarios.measured.nets import Run, read
from roofcast.scenarios.measured.stack_words import usual_stack
from roofcast.simulator.forecast import interval
from roofcast.simulator.forecast.chain import without_interval
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario

UNTOLD = float("nan")


class Known(NamedTuple):
    """A measured run and its forecast."""

    run: Run
    scenario: Scenario
    measured_s: float
    traits: interval.Traits
    name: str  # "resnet50, batch 256, training in fp16"
    devices: int
    parameters: int
    error: float  # ln(measured / forecast)
    status: str  # blind: in a table that fits do not read; many: fits.runs reads it; net: fits.nets


def known(paths: Iterable[str | Path]) -> list[Known]:
    """Every run that can be forecast; reasons for the others go to stderr."""
    found = []
    for path in paths:
        blind, many = training.is_blind(path), Path(path).parent == training.HERE
        for run in read(path):
            if run.scenario is None or run.measured_s is None:
                continue
            net = any(nets.selects(stage, run) for stage in nets.STAGES.values())
            status = "blind" if blind else "many" if many else "net" if net else ""
            try:
                found.append(_known(run, run.scenario, run.measured_s, status))
            except RoofcastError as error:
                print(f"{run.id}: left out: {error}", file=sys.stderr)
    return found


def _known(run: Run, scenario: Scenario, measured_s: float, status: str) -> Known:
    f, traits, _ = without_interval(scenario)
    mode = "training" if f.mode == "train" else "inference"
    tokens = f" × {f.sequence} tokens" if f.sequence else ""
    name = f"{called(f)}, batch {f.batch}{tokens}, {mode} in {f.precision}"
    error = float(np.log(measured_s / f.step_time_s))
    return Known(run, scenario, measured_s, traits, name, f.devices, f.parameters, error, status)


def called(found: Forecast) -> str:
    """The name of a model; with its size where benchmarks cut the model that it is named after.

    >>> from roofcast import predict
    >>> called(predict("llama-3-8b", device="h100-sxm5"))
    'llama-3-8b'
    """
    named = re.search(r"(\d+(?:\.\d+)?)b\b", found.model.lower())
    if named is None or found.parameters > 0.7e9 * float(named[1]):
        return found.model
    return f"{found.model} reduced to {found.parameters / 1e9:.3g} billion parameters"


def left_out(of: list[Known]) -> dict[str, np.ndarray]:
    """Errors of the runs by each of interval.WAYS; UNTOLD where a way does not exist for a run."""
    own = np.array([UNTOLD if k.status == "net" else k.error for k in of])
    found = {"source": own, "device": np.full(len(of), UNTOLD), "software": _default(of)}
    many = [i for i, k in enumerate(of) if k.status == "many"]
    if not many:
        return found
    folds = Folds([of[i] for i in many])
    for way, of_run in (("source", lambda k: k.run.source), ("device", lambda k: k.traits.family)):
        values = np.array([of_run(of[i]) for i in many])
        for value in dict.fromkeys(values):
            gone = np.flatnonzero(values == value)
            if len(gone) < len(many):
                found[way][[many[i] for i in gone]] = folds.without(gone)
    return found


def unprofiled(scenario: Scenario) -> str | None:
    """The stack that a framework without a profile gets; None: the default of its device."""
    s = scenario
    if not s.devices or s.devices == 1:
        return None
    split = any((degree or 1) > 1 for degree in (s.tp, s.pp, s.cp, s.ep))
    split = split or s.precision in ("fp8", "nvfp4")
    return usual_stack(hwdb.device(s.device), split, s.zero == 3)


def _default(of: list[Known]) -> np.ndarray:
    """Errors under the stack of a framework without a profile, where the run has another."""
    found = np.full(len(of), UNTOLD)
    for i, k in enumerate(of):
        if k.scenario.stack is None:
            continue
        try:
            plain, traits, _ = without_interval(
                msgspec.structs.replace(k.scenario, stack=unprofiled(k.scenario), attention=None)
            )
        except RoofcastError:
            continue
        if traits.stack != k.traits.stack:
            found[i] = np.log(k.measured_s / plain.step_time_s)
    return found


class Folds:
    """The fit of fits.runs, ready to leave runs out."""

    def __init__(self, of: list[Known]) -> None:
        moe = [k.traits.model_kind == "moe" for k in of]
        self.data = [
            runs.Step(k.run.source, m, k.scenario, k.measured_s)
            for k, m in zip(of, moe, strict=True)
        ]
        self.values = runs.present()
        self.errors = -np.array([k.error for k in of])
        self.jacobian = runs.jacobian(self.data, self.values, self.errors)
        self.prior = np.array([runs.CONSTANTS[a, b][name] for a, b, name in self.values])
        self.weight = runs.weights(self.data)
        self.whole = self._step(np.ones(len(of), dtype=bool))

    def _step(self, kept: np.ndarray) -> np.ndarray:
        still = np.zeros(len(self.values))
        return runs.least_squares_step(
            self.jacobian[kept], self.errors[kept], self.weight[kept], self.prior, still
        )

    def without(self, gone: np.ndarray) -> np.ndarray:
        """ln(measured / forecast) of the runs `gone` under constants that were fitted without them.

        Linear in the constants; where one becomes NEUTRAL, the runs are forecast again.
        """
        kept = np.ones(len(self.data), dtype=bool)
        kept[gone] = False
        constrained = np.asarray(self.jacobian[kept].any(axis=0))
        moved = np.where(constrained, self._step(kept) - self.whole, 0.0)
        change = self.jacobian[gone] @ moved
        values = runs.scaled(self.values, moved)
        for key, told in zip(values, constrained.tolist(), strict=True):
            if not told:
                values[key] = runs.neutral(key)
        again = np.flatnonzero(self.jacobian[gone][:, ~constrained].any(axis=1))
        errors = self.errors[gone] + change
        if len(again):
            with runs.trial(values):
                errors[again] = runs.log_errors([self.data[gone[i]] for i in again])
        return -errors


def rows(of: list[Known]) -> list[dict[str, str]]:
    """The rows of hwdb/residuals.csv."""
    ways = left_out(of)
    return [
        {
            "name": k.name,
            "source": k.run.source,
            "blind": "yes" if k.status == "blind" else "no",
            **k.traits._asdict(),
            "devices": str(k.devices),
            "parameters": str(k.parameters),
            "measured_s": f"{k.measured_s:.5g}",
            "error": f"{k.error:.4f}",
            **{f"without_{way}": _cell(float(errors[i])) for way, errors in ways.items()},
        }
        for i, k in enumerate(of)
    ]


def _cell(error: float) -> str:
    return "" if np.isnan(error) else f"{error:.4f}"
