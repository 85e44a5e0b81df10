"""Fit how fast attention kernels of some release are on A100, to published speeds.

    python -m roofcast.scenarios.fits.ages [--write]

Rows: scenarios/measured/attention. For every kernel of software/kernels.toml that the rows measure
on A100, its rate is the geometric mean of measured over formula; --write puts it there. Rows of
H100 take no part: they show whether a kernel of Ampere runs there at Ampere's rate per core and
clock (simulator/times/ages.py). Prints median and mean error, and bias, by device and kernel.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import msgspec
import numpy as np

from roofcast import hwdb
from roofcast.hwdb import constants
from roofcast.scenarios.measured import cells
from roofcast.simulator.software import kernels
from roofcast.simulator.software.stack import stack
from roofcast.simulator.times.ages import aged
from roofcast.simulator.times.attention import attention
from roofcast.simulator.times.rates import resolve

TABLES = Path(__file__).parent.parent / "measured" / "attention"
TOKENS, FEATURES = 16384, 2048  # of every row of the figure
PRODUCTS = 3.5  # forward and backward over forward: (2 + 5) / 2 products
FITTED = "ampere"  # the generation whose rates are fitted


class Speed(NamedTuple):
    """A measured speed of forward and backward."""

    device: str
    kernel: str
    causal: bool
    head_dim: int
    sequence: int
    flops: float  # [FLOP/s]


def rows() -> list[Speed]:
    """Every labelled bar."""
    found = []
    for path in sorted(TABLES.glob("*.csv")):
        for row in cells.rows(path, "a table of attention speeds"):
            lengths = [column for column in row if column.isdecimal()]
            for length in lengths:
                found.append(
                    Speed(
                        row["device"],
                        row["kernel"],
                        row["causal"] == "yes",
                        int(row["head_dim"]),
                        int(length),
                        float(row[length]) * 1e12,
                    )
                )
    return found


def forecast(speed: Speed, rate: float | None = None) -> float:
    """The forecast speed of a row [FLOP/s]; `rate` for that of its kernel on its own generation."""
    device, c = hwdb.device(speed.device), constants.kernels()
    named = msgspec.structs.replace(stack("pytorch-eager"), kernels={"attention": speed.kernel})
    rates, share, _ = aged("attention", False, resolve(device, "bf16").rates, device, named)
    if rate is not None:
        share = rate
    batch, heads = TOKENS // speed.sequence, FEATURES // speed.head_dim
    sizes = (batch, heads, heads, speed.sequence, speed.sequence, speed.head_dim)
    seconds = sum(
        float(attention(*sizes, speed.causal, 2.0, rates, c, backward=backward))
        for backward in (False, True)
    )
    work = PRODUCTS * 4.0 * TOKENS * speed.sequence * FEATURES / (2.0 if speed.causal else 1.0)
    return share * work / seconds


def fitted(data: list[Speed]) -> dict[str, float]:
    """The rate of each kernel on FITTED: geometric mean of measured over formula."""
    ratios: dict[str, list[float]] = {}
    for speed in data:
        if kernels.generation_of(hwdb.device(speed.device).family or "") == FITTED:
            ratios.setdefault(speed.kernel, []).append(speed.flops / forecast(speed, rate=1.0))
    return {kernel: float(np.exp(mean(np.log(values)))) for kernel, values in ratios.items()}


def write(found: dict[str, float]) -> None:
    """Put the rates into kernels.toml: into the lines marked `fit ages`, of a kernel itself and of
    those that fall back to FlashAttention 2.
    """
    text = kernels.FILE.read_text(encoding="utf-8")
    head, *sections = re.split(r"(?m)^(?=\[)", text)
    for i, section in enumerate(sections):
        name = section[1 : section.index("]")].removeprefix("attention.").strip('"')
        rate = found.get(name, found["flash-2"])
        if "# fit ages" in section:
            sections[i] = re.sub(rf"{FITTED} = [\d.]+", f"{FITTED} = {rate:.3g}", section)
    kernels.FILE.write_text(head + "".join(sections), encoding="utf-8")
    kernels.table.cache_clear()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put the rates into kernels.toml")
    options = parser.parse_args()
    data = rows()
    found = fitted(data)
    for kernel, rate in found.items():
        print(f"{kernel}: {rate:.3g}")
    if options.write:
        write(found)
    print("| device, kernel | rows | median / mean | bias |\n|---|---:|---|---:|")
    for key in dict.fromkeys((speed.device, speed.kernel) for speed in data):
        errors = [forecast(s) / s.flops - 1.0 for s in data if (s.device, s.kernel) == key]
        sizes = [100 * abs(error) for error in errors]
        line = f"{median(sizes):.1f} / {mean(sizes):.1f} | {100 * mean(errors):+.1f}"
        print(f"| {', '.join(key)} | {len(errors)} | {line} |")


if __name__ == "__main__":
    main()
