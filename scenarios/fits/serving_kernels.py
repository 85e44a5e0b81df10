"""Fits what serving needs of kernels that a training step does not run, to a table of measured
kernels.

    python -m roofcast.scenarios.fits.serving_kernels TABLE.csv.gz [--write]

`grouped`: rate of the products of experts where multiplications limit, as a fraction of plain
ones; `expert_s`: what a layer of experts takes beyond its kernels, rows sorted and aligned; both
from rows of `moe`, two grouped products with all that an engine runs around them: rows gathered,
the activation, rows added up. These are of all choices of all tokens, on every rank of those that
hold different experts, too (vLLM, fused_moe.py: buffers of tokens x topk rows). `fp4`: share of
the bandwidth of other formats that products in fp4 with few rows of a large matrix reach, from rows
of `gemm`; their quantisation takes a start of its own, which is fitted beside it and not kept.
Columns: op, system, kernel_source, gemm_dtype, m, n, k, moe_dtype, num_tokens, hidden_size,
inter_size, topk, num_experts, moe_tp_size, moe_ep_size, latency_ms. The mean absolute log error is
made least over grids.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from roofcast import hwdb
from roofcast.hwdb.constants import kernels
from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.hwdb.formats import WIDTH
from roofcast.scenarios.fits.serving import write
from roofcast.scenarios.measured.cells import rows
from roofcast.simulator.serving.experts import experts_hit
from roofcast.simulator.times.matmul import matmul
from roofcast.simulator.times.rates import Rates
from roofcast.simulator.times.roofline import computed_in, rates_of
from roofcast.simulator.times.stream import class_of, stream

DEVICES = {
    "h100_sxm": "h100-sxm5", "b200_sxm": "b200", "a100_sxm": "a100-sxm4-80gb", "l40s": "l40s",
}  # fmt: skip
# what a table calls a format -> that of the product, and bytes of a weight where these are others
FORMATS: dict[str, tuple[str, float | None]] = {
    "bfloat16": ("bf16", None), "fp8": ("fp8", None), "fp8_block": ("fp8", None),
    "nvfp4": ("fp4", None), "w4a16_mxfp4": ("bf16", WIDTH["mxfp4"]),
    "int4_wo": ("bf16", WIDTH["int4"]), "w4a8_mxfp4_mxfp8": ("fp8", WIDTH["mxfp4"]),
}  # fmt: skip
UNGATED = "nongate"  # of kernels of experts with one product less
GROUPED = np.round(np.geomspace(0.15, 1.0, 39), 3)
BEYOND = np.arange(0.0, 105e-6, 5e-6)  # seconds
FP4 = np.round(np.arange(0.4, 1.01, 0.02), 2)
LARGE, FEW = 8e6, 256  # elements of a matrix, rows, of the products that tell `fp4`


class Fit(NamedTuple):
    """Constants of a grid, with the mean absolute log error at them, and without them."""

    first: float
    second: float
    error: float
    without: float


def resolved(row: Mapping[str, str], dtype: str) -> tuple[Rates, float, float]:
    """Rates of a row's device for its format, and bytes of an operand and of a weight."""
    form, stored = FORMATS[dtype]
    device = hwdb.device(DEVICES[row["system"]])
    rates = rates_of(device, computed_in(form, device)).rates
    width = max(rates.width, WIDTH[form])
    return rates, width, width if stored is None else stored


def experts(row: Mapping[str, str]) -> np.ndarray:
    """Seconds of the kernels of a layer of experts, for every rate of GROUPED."""
    names = ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size")
    tokens, hidden, inner, chosen, number, tp = (float(row[name]) for name in names)
    rates, width, stored = resolved(row, row["moe_dtype"])
    own = number / float(row["moe_ep_size"])
    hit = float(experts_hit(own, chosen / number, tokens))
    m = tokens * chosen / number * own / hit
    total = np.full(len(GROUPED), around(tokens, hidden, tokens * chosen, inner / tp, width, rates))
    for n, k in ((2.0 * inner / tp, hidden), (hidden, inner / tp)):
        moved = hit * (stored * n * k + m * (width * k + 2.0 * n))
        for i, share in enumerate(GROUPED):
            at = rates._replace(sustained=share * rates.sustained, feed=share * rates.feed)
            total[i] += float(
                matmul(m, n, k, hit, width, 2.0, at, kernels(), moved, few=True, held=stored)
            )
    return total


def around(
    tokens: float, hidden: float, rows: float, inner: float, width: float, rates: Rates
) -> float:
    """Seconds of the three kernels around the products, as a server's forward has them."""
    moved = np.array([
        2.0 * tokens * hidden + width * rows * hidden,
        (2.0 + width) * rows * inner,
        2.0 * rows * hidden + 4.0 * tokens * hidden,
    ])  # fmt: skip
    none, c = np.zeros(len(moved)), kernels()
    own = class_of(["fused"] * len(moved), c)
    return float(stream(own, moved, none, none, rates, c).sum())


def streamed(row: Mapping[str, str]) -> np.ndarray:
    """Seconds of a plain product in fp4, for every share of FP4."""
    m, n, k = (float(row[name]) for name in ("m", "n", "k"))
    rates, width, _ = resolved(row, row["gemm_dtype"])
    moved = (width * (m * k + k * n) + 2.0 * m * n) / FP4
    return np.asarray(matmul(m, n, k, 1.0, width, 2.0, rates, kernels(), moved, few=True))


def least(forecast: np.ndarray, measured: np.ndarray, grid: np.ndarray) -> Fit:
    """The constants with the least error; forecast: [rows, grid], to which seconds are added."""

    def error(i: int, added: float) -> float:
        return float(np.abs(np.log((forecast[:, i] + added) / measured)).mean())

    ways = itertools.product(range(len(grid)), BEYOND)
    i, added = min(ways, key=lambda way: error(*way))
    return Fit(float(grid[i]), float(added), error(i, added), error(len(grid) - 1, 0.0))


def main(arguments: list[str]) -> None:
    """Fit, show and perhaps write."""
    files = [a for a in arguments if not a.startswith("--")]
    if len(files) != 1:
        raise BadInput("give one table of measured kernels, .csv or .csv.gz")
    every = rows(Path(files[0]), "measured kernels")
    table = [r for r in every if r["system"] in DEVICES]
    layers = [
        r
        for r in table
        if r["op"] == "moe" and r["moe_dtype"] in FORMATS and UNGATED not in r["kernel_source"]
    ]
    plain = [
        r
        for r in table
        if r["op"] == "gemm" and r["gemm_dtype"] == "nvfp4" and float(r["m"]) <= FEW
        and float(r["n"]) * float(r["k"]) >= LARGE
    ]  # fmt: skip
    found = {}
    for name, of, forecast, grid in (
        ("experts", layers, experts, GROUPED),
        ("fp4", plain, streamed, FP4),
    ):
        seconds = np.array([forecast(r) for r in of])
        measured = np.array([float(r["latency_ms"]) / 1e3 for r in of])
        found[name] = fit = least(seconds, measured, grid)
        print(
            f"{name}: {fit.first:g} and {fit.second * 1e6:.0f} us from {len(of)} rows, mean |log|"
            f" error {fit.error:.2f}; without {fit.without:.2f}"
        )
    values = {
        "grouped": found["experts"].first,
        "expert_s": float(f"{found['experts'].second:.3g}"),
        "fp4": found["fp4"].first,
    }
    print(values)
    if "--write" in arguments:
        write({"vllm": values}, "serving_kernels.py")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RoofcastError as error:
        sys.exit(f"roofcast: {error}")
