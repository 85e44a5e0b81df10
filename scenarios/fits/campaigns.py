"""How far whole trainings lie from their forecasts: the spread of scenarios/campaigns/spread.toml.

    python -m roofcast.scenarios.fits.campaigns [--write]

For language models and for nets: the ends of the interval that holds 80 % of ln(stated / forecast)
of the shipped rows (scenarios/campaigns/published.csv), each source with the same weight. Rows of a
fleet's accounting are left out, since what else was run is in them, and so are hours that were
derived from an assumed rate. As of few sources the extremes are
not seen, the ends are those of a level of 0.8 (1 + 1 / sources). Prints the coverage of each source
by the others.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import numpy as np

from roofcast.scenarios.campaigns.forecasts import SHIPPED, Trained, read, score
from roofcast.scenarios.campaigns.spread import PATH

LEVEL = 0.8
HEAD = (
    "# Ends of the 80 % interval of a whole training, as factors of its forecast device-hours: how"
    " far published\n# runs of other sources lie from theirs. Written by `python -m"
    " roofcast.scenarios.fits.campaigns --write`.\n"
)


def errors(found: Sequence[Trained], group: str) -> dict[str, list[float]]:
    """ln(stated / forecast) by source."""
    by_source: dict[str, list[float]] = {}
    for each in found:
        if each.group == group and each.kind in ("wall", "rate") and each.ratio:
            by_source.setdefault(each.source, []).append(math.log(each.ratio))
    return by_source


def ends(by_source: dict[str, list[float]]) -> tuple[float, float]:
    """The interval's ends, of ln(stated / forecast), each source with the same weight."""
    values = np.array([v for some in by_source.values() for v in some])
    weights = np.array([1.0 / len(some) for some in by_source.values() for _ in some])
    order = np.argsort(values)
    shares = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
    level = min(LEVEL * (1 + 1 / len(by_source)), 0.98)
    low, high = np.interp([(1 - level) / 2, (1 + level) / 2], shares, values[order])
    return float(low), float(high)


def left_out(by_source: dict[str, list[float]]) -> float:
    """Share of rows within the interval of the other sources, the mean over sources."""
    shares = []
    for name, some in by_source.items():
        low, high = ends({k: v for k, v in by_source.items() if k != name})
        shares.append(sum(low <= v <= high for v in some) / len(some))
    return sum(shares) / len(shares)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the ends and the coverage; with --write, write the file."""
    parser = argparse.ArgumentParser(description="Spread of whole trainings about their forecasts.")
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args(argv).write
    found = [score(row) for row in read(SHIPPED)]
    parts = []
    for group in ("language model", "net"):
        by_source = errors(found, group)
        low, high = (math.exp(v) for v in ends(by_source))
        held, rows = left_out(by_source), sum(map(len, by_source.values()))
        print(f"{group}: {low:.3f} to {high:.3f}; {len(by_source)} sources, {rows} rows;"
              f" left out, {100 * held:.0f} % of their rows lie within")  # fmt: skip
        parts.append(
            f'["{group}"]\nlow = {low:.3f}\nhigh = {high:.3f}\nsources = {len(by_source)}\n'
            f"held = {held:.2f} # of a source, by the others\n"
        )
    if write:
        PATH.write_text(HEAD + "\n" + "\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
