"""Fits what a first token takes beside the steps, from closed loops of users.

    python -m roofcast.scenarios.fits.serving_ttft TABLE.csv.gz [--write]

`ttft_s`: tokenization, HTTP and scheduling. Two constants: of servers whose API is a process of
its own (vllm; TensorRT-LLM where a benchmark's script says so), and of those that do it beside the
engine's work (trt-llm, sglang). What the scripts of a benchmark say of its lengths, and of steps
for which a prompt waits, holds. The mean absolute log error is made least.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.fits.serving import write
from roofcast.scenarios.measured.cells import rows
from roofcast.scenarios.measured.serving.cases import suspect
from roofcast.scenarios.measured.serving.forecasts import completed
from roofcast.scenarios.measured.serving.predicted import load_of, number, roomy, waited
from roofcast.scenarios.measured.serving.protocols import protocol
from roofcast.scenarios.measured.serving.rows import ran, server_of
from roofcast.simulator.serving.capacity import room

APART, WITHIN = "vllm", "trt-llm"  # profiles that have the two constants
OF = {"vllm": APART, "vllm-0.12": APART, "trt-llm": WITHIN, "sglang": WITHIN}
WRITTEN = ("vllm", "trt-llm", "sglang")  # the others take over what `like` names
FIRST, LAST = np.log(1e-3), np.log(1.0)  # between which a constant is sought [ln s]


class Point(NamedTuple):
    """A closed loop: what was measured, and what the steps alone take."""

    constant: str
    stack: str
    source: str
    measured: float
    alone: float


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
            if at.stack not in OF or suspect(whole, server):
                continue
            load, run = load_of(whole, at), protocol(whole)
            held = roomy(server, room(server, load.input_len, load.input_len + load.output_len), at)
            met = waited(server, load, held, run.waits)
        except RoofcastError:
            continue
        if met.waiting == 0.0:
            constant = APART if run.processes else OF[at.stack]
            alone = met.ttft - server.request_s
            found.append(Point(constant, at.stack, row["source_name"], measured, alone))
    return found


def fitted(mine: list[Point]) -> float:
    """The constant of some points [s]."""
    measured, alone = (np.array([p[k] for p in mine]) for k in (3, 4))

    def loss(x: float) -> float:
        return float(np.abs(np.log((alone + np.exp(x)) / measured)).mean())

    best = minimize_scalar(loss, bounds=(FIRST, LAST), method="bounded")
    return float(f"{np.exp(best.x):.2g}")


def main(arguments: list[str]) -> None:
    """Fit, show and perhaps write."""
    found = points(arguments[0])
    values = {name: fitted([p for p in found if p.constant == name]) for name in (APART, WITHIN)}
    for stack, constant, source in sorted({(p.stack, p.constant, p.source) for p in found}):
        mine = [p for p in found if (p.stack, p.constant, p.source) == (stack, constant, source)]
        error = np.array([(p.alone + values[constant]) / p.measured - 1 for p in mine])
        off = np.abs(error)
        print(
            f"{stack}, {source}, {values[constant]:g} s: {len(off)} rows, median"
            f" {100 * np.median(off):.1f} %, mean {100 * off.mean():.1f} %, bias"
            f" {100 * error.mean():+.1f} %"
        )
    print(values)
    if "--write" in arguments:
        write({name: {"ttft_s": values[OF[name]]} for name in WRITTEN}, "serving_ttft.py")


if __name__ == "__main__":
    main(sys.argv[1:])
