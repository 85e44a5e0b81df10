"""Fit the share of fans in a node's power to measured nodes.

    python -m roofcast.scenarios.fits.nodes [--write] [FILE.csv[.gz]]

Rows: node_power_training of FILE, default scenarios/measured/power/boards.csv: one node of eight
devices, behind its supplies and at the plug. Loss: mean |ln(forecast / measured)| over workloads,
each with the same weight. Prints the value, the error by workload, and the error of each workload
with the value of the others.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np

from roofcast.hwdb.sites import FOLDER, nodes
from roofcast.scenarios.measured.cells import text
from roofcast.scenarios.measured.power_answers import answers, number
from roofcast.scenarios.measured.watts import TABLE

SHARES = np.arange(0.05, 0.2001, 0.001)  # that are tried


def errors(path: Path) -> dict[str, np.ndarray]:
    """ln(forecast / measured) of single nodes by workload, with the shipped share."""
    found: dict[str, list[float]] = {}
    for each in answers(path):
        row, watts = each.row, number(each.row, "avg_power_w")
        single = text(row, "kind") == "node_power_training" and number(row, "n_devices") == 8
        if single and watts is not None and each.answer.power_w is not None:
            name = text(row, "model")
            found.setdefault(name, []).append(float(np.log(each.answer.power_w / watts)))
    return {name: np.array(values) for name, values in found.items()}


def fitted(found: dict[str, np.ndarray], shipped: float) -> float:
    """The share of the least loss."""
    moved = np.log((1.0 - shipped) / (1.0 - SHARES))
    loss = [np.mean([np.abs(e + m).mean() for e in found.values()]) for m in moved]
    return float(SHARES[int(np.argmin(loss))])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path, default=TABLE)
    parser.add_argument("--write", action="store_true", help="put the share into nodes.toml")
    options = parser.parse_args()
    shipped = nodes().fans
    found = errors(options.file)
    share = fitted(found, shipped)
    print(f"fans {share:.3f} (shipped {shipped:.3f})")
    for name, values in found.items():
        others = fitted({n: e for n, e in found.items() if n != name}, shipped)
        here, there = (values + np.log((1.0 - shipped) / (1.0 - x)) for x in (share, others))
        own, left = (100.0 * float(np.expm1(e).mean()) for e in (here, there))
        print(f"  {name}: {own:+.1f} %, left out {left:+.1f} %")
    if options.write:
        path = FOLDER / "nodes.toml"
        words = re.sub(
            r"(?m)^fans = [0-9.]+$", f"fans = {share:.3f}", path.read_text(encoding="utf-8")
        )
        path.write_text(words, encoding="utf-8")


if __name__ == "__main__":
    main()
