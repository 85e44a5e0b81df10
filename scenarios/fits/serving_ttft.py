"""Fits what a first token takes beside the steps, from closed loops of users,
of the measured servers that come with Roofcast or of a table of others.

    python -m roofcast.scenarios.fits.serving_ttft [TABLE.csv.gz] [--write]

`ttft_s`: tokenization, HTTP and scheduling. Two constants: of servers whose API is a process of
its own (vllm; TensorRT-LLM where a benchmark's script says so), and of those that do it beside the
engine's work (trt-llm, sglang). `user_s`: what each other user adds, whose tokens the same loop
sends; one constant. What the scripts of a benchmark say of its lengths, and of steps
for which a prompt waits, holds. The mean absolute error is made least, relative to what was
measured, as the tables of errors give it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.fits.serving import measured, write
from roofcast.scenarios.measured.cells import Row
from roofcast.scenarios.measured.serving.cases import suspect
from roofcast.scenarios.measured.serving.fitted import APART, FIRST, WITHIN
from roofcast.scenarios.measured.serving.forecasts import completed
from roofcast.scenarios.measured.serving.predicted import load_of, number, roomy, waited
from roofcast.scenarios.measured.serving.protocols import protocol
from roofcast.scenarios.measured.serving.rows import ran, server_of
from roofcast.simulator.serving.capacity import room

WRITTEN = ("vllm", "trt-llm", "sglang")  # the others take over what `like` names
START = {APART: 0.03, WITHIN: 0.12, "user_s": 7e-4}  # where the search begins [s]


class Point(NamedTuple):
    """A closed loop: what was measured, and what the steps alone take."""

    constant: str
    stack: str
    source: str
    measured: float
    alone: float
    others: float  # users beside this one


def points(table: Iterable[Row]) -> list[Point]:
    """The closed loops of some rows that are not suspect and wait for no place."""
    found = []
    for row in table:
        measured = number(row, "ttft_s")
        if row["load_kind"] != "concurrency" or measured is None:
            continue
        try:
            whole, _ = completed(row)
            at = ran(whole)
            server = server_of(at)
            if at.stack not in FIRST or suspect(whole, server):
                continue
            load, run = load_of(whole, at), protocol(whole)
            held = roomy(server, room(server, load.input_len, load.input_len + load.output_len), at)
            met = waited(server, load, held, run.waits)
        except RoofcastError:
            continue
        if met.waiting == 0.0:
            constant = APART if run.processes else FIRST[at.stack]
            others = max(load.amount - 1.0, 0.0)
            alone = met.ttft - server.request_s - server.user_s * others
            found.append(Point(constant, at.stack, row["source_name"], measured, alone, others))
    return found


def forecast(found: list[Point], values: dict[str, float]) -> np.ndarray:
    """Seconds to the first token of some points."""
    own = np.array([values[p.constant] for p in found])
    alone, others = (np.array([p[k] for p in found]) for k in (4, 5))
    return alone + own + values["user_s"] * others


def fitted(found: list[Point]) -> dict[str, float]:
    """The constants of some points [s]."""
    measured = np.array([p.measured for p in found])

    def loss(x: np.ndarray) -> float:
        values = dict(zip(START, np.exp(x), strict=True))
        return float(np.abs(forecast(found, values) / measured - 1.0).mean())

    first = np.log(list(START.values()))
    best = minimize(loss, first, method="Nelder-Mead", options={"maxiter": 1000, "fatol": 1e-6})
    return {name: float(f"{np.exp(x):.2g}") for name, x in zip(START, best.x, strict=True)}


def main(arguments: list[str]) -> None:
    """Fit, show and perhaps write."""
    found = points(measured(arguments))
    values = fitted(found)
    for stack, constant, source in sorted({(p.stack, p.constant, p.source) for p in found}):
        mine = [p for p in found if (p.stack, p.constant, p.source) == (stack, constant, source)]
        error = forecast(mine, values) / np.array([p.measured for p in mine]) - 1
        off = np.abs(error)
        print(
            f"{stack}, {source}, {values[constant]:g} s: {len(off)} rows, median"
            f" {100 * np.median(off):.1f} %, mean {100 * off.mean():.1f} %, bias"
            f" {100 * error.mean():+.1f} %"
        )
    print(values)
    if "--write" in arguments:
        constants = {name: {"ttft_s": values[FIRST[name]]} for name in WRITTEN}
        constants[APART]["user_s"] = values["user_s"]
        write(constants, "serving_ttft.py")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RoofcastError as error:
        sys.exit(f"roofcast: {error}")
