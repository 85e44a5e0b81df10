"""How much a user's own runs help a forecast, measured on runs of left-out sources; writes nothing.

    python -m roofcast.scenarios.fits.own_runs [--shipped-errors] [FILE.csv..]

Rows: the shipped runs with their errors without their source (hwdb/residuals.csv), or those of
FILEs, in the columns of `roofcast validate --runs`. Of every source of LEAST rows or more, one, two
and three rows are drawn at random among rows that are alike (own_runs.ALIKE), DRAWS times; they
calibrate the forecasts of the other rows that are alike. A source's error is the mean over draws of
the median of |predicted / measured - 1|. Prints, by source and over sources, that error without and
with calibration, and the share of the others inside the calibrated 80 % interval. --shipped-errors:
take the errors of the forecasts as they are, for rows that no fit has read.
"""

from __future__ import annotations

import argparse
from statistics import fmean, median
from typing import NamedTuple

import numpy as np

from roofcast.scenarios.fits.left_out import known, rows
from roofcast.simulator.forecast import interval
from roofcast.simulator.forecast.own_runs import ALIKE, Own, posterior, shares

LEAST = 6  # rows of a source
DRAWS = 60
GIVEN = (1, 2, 3)  # rows


class Helped(NamedTuple):
    """The others of a source when some rows are given."""

    before: float  # mean over draws of the median error
    after: float
    inside: float  # share of the others inside the calibrated interval


class Table(NamedTuple):
    """Runs in columns."""

    source: np.ndarray
    traits: list[interval.Traits]
    parameters: np.ndarray
    seconds: np.ndarray  # of the forecast
    error: np.ndarray
    found: list[interval.Interval]


def table_of(r: interval.Residuals, left_out: bool) -> Table:
    """The runs whose error is known; left_out: without their source."""
    error = r.left_out["source"] if left_out else r.error
    mine = np.flatnonzero(~np.isnan(error))
    traits = [interval.Traits(*(r.traits[f][i] for f in interval.FIELDS)) for i in mine]
    known_ = interval.residuals()
    found = []
    for t, i in zip(traits, mine, strict=True):
        others = known_._replace(blind=known_.blind | (known_.source == r.source[i]))
        klass = interval.class_of(t, others)
        effect = interval.effects().classes[klass]
        found.append(interval.Interval(klass, effect.bias, effect.half_width))
    seconds = r.seconds * np.exp(-r.error)
    return Table(r.source[mine], traits, r.parameters[mine], seconds[mine], error[mine], found)


def helped(of: Table, source: str, given: int, rng: np.random.Generator) -> Helped | None:
    """The others of a source, with `given` rows known; None where no rows are that much alike."""
    mine = np.flatnonzero(of.source == source)
    cells: dict[tuple[str, ...], list[int]] = {}
    for i in mine:
        cells.setdefault(tuple(getattr(of.traits[i], key) for key in ALIKE), []).append(int(i))
    pools = [pool for pool in cells.values() if len(pool) > given]
    if not pools:
        return None
    sizes = np.array([len(pool) for pool in pools])
    numbers, found = shares(), []
    for _ in range(DRAWS):
        pool = rng.permutation(pools[rng.choice(len(pools), p=sizes / sizes.sum())])
        own = [
            Own(of.traits[i], of.parameters[i], of.seconds[i], of.error[i]) for i in pool[:given]
        ]
        others = pool[given:]
        after = [posterior((of.parameters[i], of.seconds[i]), own, of.found[i], numbers)
                 for i in others]  # fmt: skip
        left = of.error[others] - np.array([p.shift for p in after])
        half = np.array([of.found[i].half_width for i in others])
        off = np.abs(left - [p.bias for p in after]) / (half * [p.narrowing for p in after])
        found.append((
            float(np.median(np.abs(np.expm1(-of.error[others])))),
            float(np.median(np.abs(np.expm1(-left)))),
            float(np.mean(off <= 1.0)),
        ))  # fmt: skip
    return Helped(*map(fmean, zip(*found, strict=True)))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="tables; default: the shipped")
    parser.add_argument(
        "--shipped-errors", action="store_true", help="errors of the forecasts as they are"
    )
    options = parser.parse_args()
    r = interval.columns(rows(known(options.files))) if options.files else interval.residuals()
    of = table_of(r, not (options.shipped_errors or options.files))
    rng, names = np.random.default_rng(0), dict.fromkeys(of.source)
    sources = [name for name in names if (of.source == name).sum() >= LEAST]
    several = {s: fmean(of.traits[i].scale != "one" for i in np.flatnonzero(of.source == s)) > 0.5
               for s in sources}  # fmt: skip
    print("rows given:", *(f"{given:>22d}" for given in GIVEN))
    every: dict[int, dict[str, Helped]] = {given: {} for given in GIVEN}
    for source in sources:
        cells = []
        for given in GIVEN:
            one = helped(of, source, given, rng)
            if one is not None:
                every[given][source] = one
            cells.append(
                f"{100 * one.before:5.1f} -> {100 * one.after:5.1f} % ({100 * one.inside:3.0f})"
                if one
                else ""
            )
        print(f"{source[:44]:44s}", *(f"{cell:>22s}" for cell in cells))
    many = [s for s in sources if several[s]]
    for words, chosen in (("all sources", sources), ("several devices", many)):
        for given in GIVEN:
            print_sum(f"{words}, {given} given", [every[given].get(s) for s in chosen])


def print_sum(words: str, of: list[Helped | None]) -> None:
    """The errors over sources, each with the same weight."""
    mine = [h for h in of if h is not None]
    if not mine:
        return
    before, after = [100 * h.before for h in mine], [100 * h.after for h in mine]
    worse = sum(b > a + 0.5 for a, b in zip(before, after, strict=True))
    print(
        f"{words}: median of {len(mine)} sources {median(before):.1f} -> {median(after):.1f} %,"
        f" mean {fmean(before):.1f} -> {fmean(after):.1f} %; worse by over half a point: {worse};"
        f" inside {100 * fmean(h.inside for h in mine):.0f} %"
    )


if __name__ == "__main__":
    main()
