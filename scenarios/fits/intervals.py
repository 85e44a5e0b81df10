"""Write the errors of the shipped measured runs, and the intervals that follow from them.

    python -m roofcast.scenarios.fits.intervals [--runs FILE.csv.. | --table] [--write]

Rows: every table of measured runs in scenarios/measured/runs and scenarios/measured/published,
those for blind tests too; or those of FILEs. With --table no run is forecast: the errors are those
of hwdb/residuals.csv. --write puts

    hwdb/residuals.csv     ln(measured / forecast) of every row, as it is and left out in three ways
                           (scenarios/fits/left_out.py), and what makes runs similar
    hwdb/intervals.toml    bias and half-width of each class of forecasts

A class has the left-out errors of `interval.class_of`, which sees only the runs that were not left
out. Every source has the same weight in each way of leaving out, as in the method of moments of a
meta-analysis [hedges1985]: a source of 360 runs tells what a source of 6 tells. bias: the median
over sources of the source's median, 0 where that is within two standard errors. half_width: holds
80 % of |error - bias|, those of steps other than the training of transformers divided by one
factor, nets, with which 80 % of these lie inside, too. A class of fewer than FEW sources is
calibrated together with the next wider one (CLASSES). degrees: Student's t distribution whose
quantiles fit those of all classes. SHARES, of source and model in the variance: those with which a
user's own runs help most and hardly ever harm (fits.own_runs).

Prints, by class and way, what the 80 % interval holds when the source is left out of the
calibration as well.
"""

from __future__ import annotations

import argparse
import csv
import functools
import math
import sys
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from roofcast.scenarios.fits.left_out import known, rows
from roofcast.scenarios.measured.nets import blind, shipped
from roofcast.simulator.forecast import interval

TARGET = 0.8  # part of the left-out runs that the 80 % interval holds
FEW = 5  # sources; a class of fewer is calibrated together with the next wider
CLASSES = {
    "known device and stack": "known device, another stack",
    "known device, another stack": "known family",
    interval.UNSTATED: "known device, another stack",
    "known family": "inherited device",
    "inherited device": "unfitted maker",
    "unfitted maker": "inherited device",
    "bound by the host": "unfitted maker",
    "mixture of experts": "bound by the host",
}  # each with the next wider of its kind: mixtures, too, wait for the host
SHARES = {"source": 0.3, "model": 0.4, "reach": 1.0}  # fits.own_runs --shares shows the others
ROUNDS = 6  # of calibrating classes and nets
DEGREES = (2, 3, 4, 5, 6, 8, 10, 20)  # tried
STANDARD_ERROR = math.sqrt(math.pi / 2)  # of a median, in standard deviations / sqrt(n)


class Held(NamedTuple):
    """Left-out runs in columns: one entry per run and way."""

    way: np.ndarray  # of interval.WAYS
    source: np.ndarray
    klass: np.ndarray
    error: np.ndarray  # ln(measured / forecast), left out
    run: np.ndarray  # index in the residuals
    net: np.ndarray  # interval.is_net

    def only(self, mask: np.ndarray) -> Held:
        """The entries where the mask is true."""
        return Held(*(column[mask] for column in self))


class Class(NamedTuple):
    """The interval of a class, for training of transformers."""

    bias: float
    half_width: float
    sources: int
    runs: int
    pooled: str  # the class it is calibrated together with, if any


class Calibrated(NamedTuple):
    """The interval of each class, and the factor on the half-width of nets."""

    classes: dict[str, Class]
    nets: float

    def off(self, h: Held) -> np.ndarray:
        """|error - bias| of each entry over its half-width."""
        bias = np.array([self.classes[klass].bias for klass in h.klass])
        half = np.array([self.classes[klass].half_width for klass in h.klass])
        return np.asarray(np.abs(h.error - bias) / (half * np.where(h.net, self.nets, 1.0)))


def held(r: interval.Residuals) -> Held:
    """Every run, left out in each way that exists for it."""
    fields = interval.FIELDS
    traits = [interval.Traits(*each) for each in zip(*(r.traits[f] for f in fields), strict=True)]
    net = np.array([interval.is_net(t) for t in traits])
    keys = {"source": r.source, "device": r.traits["family"], "software": r.traits["stack"]}
    parts = []
    for way, errors in r.left_out.items():
        told = np.flatnonzero(~np.isnan(errors))
        unstated = way == "software"  # the default stack, as where nobody states one
        classes = np.array(_classes(r, keys[way], told, traits, unstated), dtype=object)
        name = np.full(len(told), way, dtype=object)
        parts.append((name, r.source[told], classes, errors[told], told, net[told]))
    return Held(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _classes(
    r: interval.Residuals,
    key: np.ndarray,
    of: np.ndarray,
    traits: list[interval.Traits],
    unstated: bool = False,
) -> list[str]:
    """Class of each run when the runs of the same key are left out, or where no stack is stated."""

    @functools.cache
    def klass(value: str, t: interval.Traits) -> str:
        without = r._replace(blind=r.blind | (key == value))
        return interval.class_of(t, without, unstated=unstated)

    return [klass(key[i], traits[i]) for i in of]


def weights(h: Held) -> np.ndarray:
    """Weight of each entry: every source the same in each way."""
    groups = [f"{way}|{source}" for way, source in zip(h.way, h.source, strict=True)]
    _, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / counts[inverse])


def quantile(values: np.ndarray, w: np.ndarray, share: float) -> float:
    """The weighted quantile: the least value up to which lies that share of the weight."""
    order = np.argsort(values)
    place = np.cumsum(w[order]) / w.sum()
    return float(values[order][min(int(np.searchsorted(place, share - 1e-12)), len(order) - 1)])


def middle(h: Held) -> float:
    """The median over sources of each source's median; 0 within two standard errors of it."""
    groups: dict[tuple[str, str], list[float]] = {}
    for way, source, error in zip(h.way, h.source, h.error, strict=True):
        groups.setdefault((way, source), []).append(error)
    medians = np.array([np.median(errors) for errors in groups.values()])
    sources = len(set(h.source))
    found = float(np.median(medians))
    spread = 1.4826 * float(np.median(np.abs(medians - found)))  # as a standard deviation
    return found if abs(found) > 2.0 * STANDARD_ERROR * spread / math.sqrt(sources) else 0.0


def telling(h: Held) -> np.ndarray:
    """Whether each entry counts in the calibration. A new source is what a user brings, so runs
    left out by source tell every class. Those left out with the whole family of their device tell
    a class of which fewer than FEW sources were left out; those left out by software, which have
    the default stack, the class without a stated stack alone.
    """
    by_source = h.way == "source"
    few = [k for k in CLASSES if len(set(h.source[by_source & (h.klass == k)])) < FEW]
    by_device = (h.way == "device") & np.isin(h.klass, few)
    by_software = (h.way == "software") & (h.klass == interval.UNSTATED)
    return np.asarray(by_source | by_device | by_software)


def calibrated(h: Held) -> Calibrated:
    """The interval of each class, for a hypothetical device that of the widest, and the factor of
    nets: alternately, until both hold 80 %.
    """
    h, nets = h.only(telling(h)), 1.0
    for _ in range(ROUNDS):
        found = Calibrated(_of_classes(h, nets), nets)
        part = h.only(h.net)
        if not len(part.error):
            break
        nets *= quantile(found.off(part), weights(part), TARGET)
    classes = _of_classes(h, nets)
    widest = max(classes, key=lambda klass: classes[klass].half_width)
    imagined = classes[widest]._replace(bias=0.0, pooled=widest)
    return Calibrated({**classes, interval.IMAGINED: imagined}, nets)


def _of_classes(h: Held, nets: float) -> dict[str, Class]:
    found = {}
    for klass, wider in CLASSES.items():
        mine, pooled = h.klass == klass, ""
        if len(set(h.source[mine])) < FEW:
            mine, pooled = mine | (h.klass == wider), wider
        of = h.only(mine)
        bias, sources = middle(of), len(set(of.source))
        off = np.abs(of.error - bias) / np.where(of.net, nets, 1.0)
        half = quantile(off, weights(of), TARGET) * new_source(sources)
        found[klass] = Class(bias, half, sources, len(of.error), pooled)
    return found


def new_source(known: int) -> float:
    """How much wider an interval is for one more source than for those that it was calibrated with:
    a few sources tell their own spread too small, and their middle is not that of all sources.

        t(0.9, n - 1) / t(0.9, infinity) x sqrt(1 + 1 / n)

    the prediction interval of a normal mean. n: `known` sources, at least 2.

    >>> round(new_source(4), 2), round(new_source(16), 2)
    (1.43, 1.08)
    """
    n = max(known, 2)
    tail = 0.5 + TARGET / 2
    return float(student.ppf(tail, n - 1) / student.ppf(tail, 1e9) * math.sqrt(1 + 1 / n))


def nested(h: Held) -> np.ndarray:
    """|error - bias| over the half-width of each entry, calibrated without its source."""
    found = np.empty(len(h.error))
    for source in dict.fromkeys(h.source):
        mine = h.source == source
        found[mine] = calibrated(h.only(~mine)).off(h.only(mine))
    return found


@functools.cache
def without_source(t: interval.Traits, source: str) -> interval.Interval:
    """The interval that the shipped runs of all other sources give a forecast."""
    r = interval.residuals()
    klass = interval.class_of(t, r._replace(blind=r.blind | (r.source == source)))
    without = _calibrated_without(source)
    found = without.classes[klass]
    wider = without.nets if interval.is_net(t) else 1.0
    return interval.Interval(klass, found.bias, found.half_width * wider)


@functools.cache
def _shipped() -> Held:
    return held(interval.residuals())


@functools.cache
def _calibrated_without(source: str) -> Calibrated:
    h = _shipped()
    return calibrated(h.only(h.source != source))


def degrees(h: Held, of: Calibrated) -> int:
    """Degrees of freedom of Student's t whose 50 and 95 % quantiles, over that of 80 %, fit."""
    ratio = of.off(h)
    seen = [math.log(quantile(ratio, weights(h), level)) for level in (0.5, 0.95)]

    def off(nu: int) -> float:
        wanted = [math.log(level(nu, p) / level(nu, TARGET)) for p in (0.5, 0.95)]
        return sum((a - b) ** 2 for a, b in zip(seen, wanted, strict=True))

    return min(DEGREES, key=off)


def level(nu: float, share: float) -> float:
    """Half-width of the interval of Student's t that holds a share, in units of its scale."""
    return float(student.ppf(0.5 + share / 2.0, nu))


def common(h: Held, of: Calibrated) -> dict[str, tuple[float, str]]:
    """The numbers that hold for all classes, with their sources."""
    nu = degrees(h, of)
    found = {"degrees": (float(nu), f"{len(h.error)} left-out runs")}
    found |= {
        f"level_{percent}": (
            level(nu, percent / 100) / (1.0 if percent == 80 else level(nu, TARGET)),
            "printed: quantile of Student's t distribution",
        )
        for percent in interval.LEVELS
    }
    nets = len(set(h.source[h.net])), int(h.net.sum())
    found["nets"] = (of.nets, "{} sources, {} left-out runs".format(*nets))
    return found | {name: (value, "chosen: fits.own_runs") for name, value in SHARES.items()}


def write_residuals(table: list[dict[str, str]]) -> None:
    """Write hwdb/residuals.csv."""
    with (interval.HERE / "residuals.csv").open("w", encoding="utf-8", newline="") as file:
        file.write(
            "# Written by `python -m roofcast.scenarios.fits.intervals --write` from the tables of"
            " scenarios/measured/runs and published, whose heads name the sources.\n"
        )
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


def write_effects(of: Calibrated, everywhere: dict[str, tuple[float, str]]) -> None:
    """Write hwdb/intervals.toml; the comments at its head stay."""
    path = interval.HERE / "intervals.toml"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    lines += ["", "[common]"]
    lines += [
        f'{name} = {{value = {value:.4g}, source = "{source}"}}'
        for name, (value, source) in everywhere.items()
    ]
    for klass, c in of.classes.items():
        source = f"{c.sources} sources, {c.runs} left-out runs"
        if c.pooled:
            source = f"with {c.pooled}: {source}"
        if klass == interval.IMAGINED:
            source = f"assumed: as {c.pooled}, the widest class"
        lines += ["", f'[classes."{klass}"]', f"bias = {c.bias:.4f}"]
        lines += [f"half_width = {c.half_width:.4f}", f'source = "{source}"']
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def report(h: Held, of: Calibrated, everywhere: dict[str, tuple[float, str]]) -> None:
    """Print what the 80 % intervals hold, by class and way, sources weighing alike."""
    ratio = nested(h)
    inside = {"": ratio <= 1.0}
    inside |= {str(n): ratio <= everywhere[f"level_{n}"][0] for n in (50, 95)}
    print(f"{'class':28s} {'left out by':9s} {'sources':>7s} {'runs':>5s} inside 50 / 80 / 95 %")
    for klass in (*CLASSES, None):
        for way in (None, *interval.WAYS):
            mine = (h.klass == klass if klass else True) & (h.way == way if way else True)
            mine = np.broadcast_to(mine, h.error.shape)
            if not mine.any() or (klass is None and way is None):
                continue
            part = h.only(mine)
            w = weights(part)
            held_ = " / ".join(
                f"{100 * np.average(inside[n][mine], weights=w):.0f}" for n in ("50", "", "95")
            )
            print(f"{klass or 'all':28s} {way or 'any':9s} {len(set(part.source)):7d}"
                  f" {len(part.error):5d} {held_}")  # fmt: skip
    for klass, c in of.classes.items():
        low, high = (100 * math.expm1(c.bias + side * c.half_width) for side in (-1, 1))
        print(f"{klass:28s} {low:+.0f} to {high:+.0f} %  {c.pooled and f'with {c.pooled}'}")
    for name, (value, source) in everywhere.items():
        print(f"{name:10s} {value:.4g} ({source})")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", nargs="+", metavar="FILE", help="tables of measured runs; default: every one"
    )
    parser.add_argument(
        "--write", action="store_true", help="write hwdb/residuals.csv and hwdb/intervals.toml"
    )
    parser.add_argument(
        "--table", action="store_true", help="errors of hwdb/residuals.csv; forecast nothing"
    )
    options = parser.parse_args()
    table = [] if options.table else rows(known(options.runs or (*shipped(), *blind())))
    if not table and not options.table:
        sys.exit("fits.intervals: no run could be forecast, so there is nothing to write")
    r = interval.columns(table) if table else interval.residuals()
    h = held(r)
    of = calibrated(h)
    everywhere = common(h, of)
    report(h, of, everywhere)
    if options.write:
        if table:
            write_residuals(table)
        write_effects(of, everywhere)


if __name__ == "__main__":
    main()
