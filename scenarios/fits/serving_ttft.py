"""Fits what a first token takes beside the steps, from closed loops of users.

    python -m roofcast.scenarios.fits.serving_ttft TABLE.csv.gz [--write]

Of each profile: `ttft_s`, tokenization, HTTP and scheduling. Of software that computes all waiting
prompts before it decodes on, so that requests of like length stay together, also `ramp`: the share
of prompts that come together. Elsewhere a tenth do, those of a benchmark's start, which sends ten
requests for each user. The mean absolute log error is made least.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from scipy.optimize import minimize

from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.fits.serving import write
from roofcast.scenarios.measured.cells import rows
from roofcast.scenarios.measured.serving.cases import suspect
from roofcast.scenarios.measured.serving.forecasts import completed, load_of, number, roomy
from roofcast.scenarios.measured.serving.rows import ran, server_of
from roofcast.simulator.serving.capacity import room
from roofcast.simulator.serving.means import WAVE, mean

RAMPED = {"vllm": False, "trt-llm": False, "sglang": True}  # profiles; whether prompts come first


class Point(NamedTuple):
    """A closed loop: what was measured, and what the steps alone take."""

    stack: str
    source: str
    measured: float
    alone: float  # without a wave
    wave: float  # what a wave of all users adds


def points(path: str) -> list[Point]:
    """The closed loops of a table that are not suspect and wait for no place."""
    found = []
    for row in rows(Path(path), "measured servers"):
        measured = number(row, "ttft_s")
        if row["load_kind"] != "concurrency" or measured is None:
            continue
        try:
            whole, _ = completed(row)
            at = ran(whole)
            server = server_of(at)
            if at.stack not in RAMPED or suspect(whole, server):
                continue
            load = load_of(whole, at)
            held = roomy(server, room(server, load.input_len, load.input_len + load.output_len), at)
            # the whole run as one wave, and a run without a start
            none = mean(server, msgspec.structs.replace(load, requests=10**7), held)
            every = mean(server, load, held, ramp=1.0)
        except RoofcastError:
            continue
        if none.waiting == 0.0:
            alone = none.ttft - server.request_s
            found.append(
                Point(at.stack, row["source_name"], measured, alone, every.ttft - none.ttft)
            )
    return found


def fitted(mine: list[Point], ramped: bool) -> dict[str, float]:
    """The constants of a profile."""
    measured, alone, wave = (np.array([p[k] for p in mine]) for k in (2, 3, 4))

    def loss(x: np.ndarray) -> float:
        ramp = float(np.exp(min(x[1], 0.0))) if ramped else WAVE
        return float(np.abs(np.log((alone + np.exp(x[0]) + ramp * wave) / measured)).mean())

    start = [np.log(0.05), np.log(0.3)] if ramped else [np.log(0.05)]
    best = minimize(loss, start, method="Nelder-Mead")
    values = {"ttft_s": float(f"{np.exp(best.x[0]):.2g}")}
    return values | ({"ramp": float(f"{np.exp(min(best.x[1], 0.0)):.2g}")} if ramped else {})


def main(arguments: list[str]) -> None:
    """Fit, show and perhaps write."""
    found = points(arguments[0])
    constants = {}
    for name, ramped in RAMPED.items():
        mine = [p for p in found if p.stack == name]
        if not mine:
            continue
        constants[name] = values = fitted(mine, ramped)
        ramp = values.get("ramp", WAVE)
        for source in sorted({p.source for p in mine}):
            error = np.array(
                [
                    (p.alone + values["ttft_s"] + ramp * p.wave) / p.measured - 1
                    for p in mine
                    if p.source == source
                ]
            )
            off = np.abs(error)
            print(
                f"{name}, {source}: {len(off)} rows, median {100 * np.median(off):.1f} %, mean"
                f" {100 * off.mean():.1f} %, bias {100 * error.mean():+.1f} %"
            )
        print(f"{name}: {values}")
    if "--write" in arguments:
        write(constants, "serving_ttft.py")


if __name__ == "__main__":
    main(sys.argv[1:])
