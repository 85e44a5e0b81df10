"""How much a user's own runs help a forecast, measured on runs of left-out sources; writes nothing.

    python -m roofcast.scenarios.fits.own_runs [--shares] [FILE.csv..]

Rows: the shipped runs with their errors without their source (hwdb/residuals.csv), or those of
FILEs, in the columns of `roofcast validate --runs`. Of every source of LEAST rows or more, one, two
and three rows are drawn at random among rows that are alike (own_runs.ALIKE), DRAWS times; they
calibrate the forecasts of the other rows that are alike. A source's error is the mean over draws of
the median of |predicted / measured - 1|. Prints, by source and over sources, that error without and
with calibration, and the share of the others inside the calibrated 80 % interval. Rows of FILEs
have the errors of the forecasts as they are. --shares prints the sums for other shares of source
and model in the variance (TRIED) than the shipped.
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
# source, model, reach
TRIED = (
    (0.5, 0.4, 1.0), (0.3, 0.5, 1.0), (0.3, 0.4, 1.0), (0.2, 0.5, 1.0), (0.2, 0.4, 1.0),
    (0.3, 0.4, 0.5), (0.3, 0.3, 2.0),
)  # fmt: skip


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
        wider = interval.effects().common["nets"].value if interval.is_net(t) else 1.0
        found.append(interval.Interval(klass, effect.bias, effect.half_width * wider))
    seconds = r.seconds * np.exp(-r.error)
    return Table(r.source[mine], traits, r.parameters[mine], seconds[mine], error[mine], found)


def helped(
    of: Table, source: str, given: int, numbers: dict[str, float], rng: np.random.Generator
) -> Helped | None:
    """The others of a source, with `given` rows known; None where no rows are that much alike."""
    mine = np.flatnonzero(of.source == source)
    cells: dict[tuple[str, ...], list[int]] = {}
    for i in mine:
        cells.setdefault(tuple(getattr(of.traits[i], key) for key in ALIKE), []).append(int(i))
    pools = [pool for pool in cells.values() if len(pool) > given]
    if not pools:
        return None
    sizes = np.array([len(pool) for pool in pools])
    found = []
    for _ in range(DRAWS):
        pool = rng.permutation(pools[rng.choice(len(pools), p=sizes / sizes.sum())])
        found.append(_drawn(of, pool[:given], pool[given:], numbers))
    return Helped(*map(fmean, zip(*found, strict=True)))


def _drawn(
    of: Table, given: np.ndarray, others: np.ndarray, numbers: dict[str, float]
) -> tuple[float, float, float]:
    """Median error of the others without and with the rows given, and the share inside."""
    own = [Own(of.traits[i], of.parameters[i], of.seconds[i], of.error[i]) for i in given]
    after = [
        posterior((of.parameters[i], of.seconds[i]), own, of.found[i], numbers) for i in others
    ]
    left = of.error[others] - np.array([p.shift for p in after])
    half = np.array(
        [of.found[i].half_width * p.narrowing for i, p in zip(others, after, strict=True)]
    )
    inside = np.abs(left - [p.bias for p in after]) <= half
    before = np.median(np.abs(np.expm1(-of.error[others])))
    return float(before), float(np.median(np.abs(np.expm1(-left)))), float(inside.mean())


def every(of: Table, numbers: dict[str, float]) -> dict[str, list[Helped | None]]:
    """By source of LEAST rows or more, for each number of rows given."""
    rng = np.random.default_rng(0)
    return {
        source: [helped(of, source, given, numbers, rng) for given in GIVEN]
        for source in dict.fromkeys(of.source)
        if (of.source == source).sum() >= LEAST
    }


def print_sums(of: Table, found: dict[str, list[Helped | None]]) -> None:
    """The errors over sources, each with the same weight; over those on several devices too."""
    several = [s for s in found if _several(of, s)]
    for words, sources in (("all sources", list(found)), ("several devices", several)):
        for k, given in enumerate(GIVEN):
            mine = [h for source in sources if (h := found[source][k]) is not None]
            if not mine:
                continue
            before, after = [100 * h.before for h in mine], [100 * h.after for h in mine]
            worse = sum(b > a + 0.5 for a, b in zip(before, after, strict=True))
            inside = 100 * fmean(h.inside for h in mine)
            print(
                f"{words}, {given} given: median of {len(mine)} sources {median(before):.1f} ->"
                f" {median(after):.1f} %, mean {fmean(before):.1f} -> {fmean(after):.1f} %;"
                f" worse by over half a point: {worse}; inside {inside:.0f} %"
            )


def _several(of: Table, source: str) -> bool:
    mine = np.flatnonzero(of.source == source)
    return fmean(of.traits[i].scale != "one" for i in mine) > 0.5


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="tables; default: the shipped")
    parser.add_argument("--shares", action="store_true", help="try other shares of the variance")
    options = parser.parse_args()
    r = interval.columns(rows(known(options.files))) if options.files else interval.residuals()
    of = table_of(r, left_out=not options.files)
    if options.shares:
        for tried in TRIED:
            print("source {:g}, model {:g}, reach {:g}".format(*tried))
            numbers = shares() | dict(zip(("source", "model", "reach"), tried, strict=True))
            print_sums(of, every(of, numbers))
        return
    found = every(of, shares())
    print(f"{'rows given:':44s}", *(f"{given:>22d}" for given in GIVEN))
    for source, given in found.items():
        cells = [
            f"{100 * h.before:5.1f} -> {100 * h.after:5.1f} % ({100 * h.inside:3.0f})" if h else ""
            for h in given
        ]
        print(f"{source[:44]:44s}", *(f"{cell:>22s}" for cell in cells))
    print_sums(of, found)


if __name__ == "__main__":
    main()
