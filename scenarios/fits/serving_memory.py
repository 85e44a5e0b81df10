"""Derives what vLLM takes of a device's memory beside weights and cache from published starts.

    python -m roofcast.scenarios.fits.serving_memory [--write]

`runtime_bytes`: what torch keeps beside the peak (the driver's share is in what a device has
usable); `logit_bytes`: of the peak of the profile run, per logit of all sequences at once;
`rank_bytes`: from two ranks on. Rows: scenarios/measured/serving/peaks.csv.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from roofcast.scenarios.fits.serving import write
from roofcast.scenarios.measured import serving

FILE = Path(serving.__file__).with_name("peaks.csv")
GIB = 2.0**30


def derived(rows: list[dict[str, str]]) -> dict[str, float]:
    """The constants of the rows of one profile, those that they tell."""

    def of(what: str) -> list[float]:
        return [GIB * float(r["gib"]) for r in rows if r["what"] == what]

    logits = [float(r["vocabulary"]) * float(r["sequences"]) for r in rows if r["vocabulary"]]
    peaks, found = of("activations"), {}
    if of("buffers"):
        found["runtime_bytes"] = sum(of("buffers"))
    if peaks:
        found["logit_bytes"] = float(np.dot(peaks, logits) / np.dot(logits, logits))
    if of("ranks"):
        found["rank_bytes"] = sum(of("ranks"))
    return {name: float(f"{value:.3g}") for name, value in found.items()}


def table() -> dict[str, dict[str, float]]:
    """The constants of every profile of the file."""
    lines = [x for x in FILE.read_text(encoding="utf-8").splitlines() if not x.startswith("#")]
    rows = list(csv.DictReader(lines))
    return {
        name: derived([r for r in rows if r["stack"] == name])
        for name in sorted({r["stack"] for r in rows})
    }


def main(arguments: list[str]) -> None:
    """Show and perhaps write."""
    for name, values in table().items():
        print(f"{name}: {values}")
        if "--write" in arguments:
            write({name: values}, "serving_memory.py")


if __name__ == "__main__":
    main(sys.argv[1:])
