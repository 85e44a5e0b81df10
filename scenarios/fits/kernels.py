"""Fit the constants of the kernel formulas to measured kernels named on the command line.

    python -m roofcast.scenarios.fits.kernels --gemm FILE.. --attention FILE.. --streams FILE..
    --fp32 FILE.. --conv FILE.. [--write]

Loss: mean over groups of rows of the mean |ln(predicted / measured)|; products weigh four regimes
of size. Each stage prints its residuals (median / mean |predicted / measured - 1|), in the fit and
with each device left out of it. `--write` puts values and residuals into hwdb/kernels.toml and
hwdb/families/*.toml where the source says `fit`.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from scipy.optimize import minimize

from roofcast import hwdb
from roofcast.hwdb import constants
from roofcast.hwdb.constants import HERE, Kernels
from roofcast.hwdb.records import Device
from roofcast.scenarios.measured.kernel_errors import roofline, seconds
from roofcast.scenarios.measured.kernels import Group, read
from roofcast.simulator.times.rates import Rates, family_name, resolve

# cost of (ln of a family's share / the common one)^2: a share the rows cannot tell stays at the
# common one
PRIOR = 0.3
PULL = 1e-3  # the same towards the value now in hwdb, for all: what no row tells stays where it is
EVALUATIONS = 900
# shortest sequence attention is fitted to: below, a call's other kernels are most of its time
SEQUENCE = 512


class Rows(NamedTuple):
    """A group ready to be fitted."""

    group: Group
    device: Device
    family: str
    rates: Rates
    weight: np.ndarray


class Stage(NamedTuple):
    """One fit: constants by dotted name, and the field of Rates that each family has a share of its
    own in.
    """

    name: str
    knobs: tuple[str, ...]
    share: str = ""  # sustained | attention | stream
    formats: tuple[str, ...] = ()
    # constants are fitted with one share of the boost peak for all, families afterwards
    common: bool = False


STAGES = {
    "gemm": Stage(
        "gemm",
        (
            "matmul.start",
            "matmul.tile",
            "matmul.split",
            "matmul.feed",
            "matmul.footprint",
            "matmul.stream",
            "matmul.store",
        ),
        "sustained",
        ("bf16", "fp16"),
        True,
    ),
    "low": Stage("gemm", (), "sustained", ("fp8", "fp4", "int8")),
    "attention": Stage(
        "attention", ("attention.special", "attention.tile"), "attention", ("bf16", "fp16"), True
    ),
    "streams": Stage(
        "streams",
        (
            "stream.start",
            "stream.start_rows",
            "stream.elementwise",
            "stream.rows",
            "stream.norm",
            "stream.rms_norm",
            "stream.rope",
            "issue.gather",
        ),
    ),
    "fp32": Stage("fp32", (), "sustained", ("fp32",)),
    "conv": Stage(
        "conv",
        ("conv.vector", "conv.vector_backward", "conv.winograd", "conv.channels"),
        formats=("fp32",),
    ),
}
OPS = {
    "gemm": "matmul",
    "low": "matmul",
    "fp32": "matmul",
    "attention": "attention",
    "streams": "stream",
    "conv": "conv",
}


def weights(group: Group) -> np.ndarray:
    """Weights of rows that sum to 1: products by regime of size (15, 30, 25, 30 %), all else
    alike.
    """
    size = len(group.seconds)
    if group.op != "matmul":
        return np.full(size, 1.0 / size)
    m, n, k = group.args["m"], group.args["n"], group.args["k"]
    small = np.minimum(np.minimum(m, n), k) <= 512
    regime = np.where(m <= 64, 0, np.where(small, 1, np.where(2.0 * m * n * k < 2e11, 2, 3)))
    result = np.zeros(size)
    for index, share in enumerate((0.15, 0.30, 0.25, 0.30)):
        result[regime == index] = share / max((regime == index).sum(), 1)
    return result / result.sum()


def prepare(paths, stage: Stage, op: str) -> list[Rows]:
    """The groups of the files that a stage fits, without rows faster than 1 / 1.05 of the printed
    roofline.
    """
    result = []
    for group in (g for path in paths for g in read(path)):
        if group.op != op or (stage.formats and group.format not in stage.formats):
            continue
        device = hwdb.device(group.device)
        rates, said = resolve(device, group.format)
        if stage.share == "sustained" and (
            group.kind == "gemm fp8_block" or any(" allow " in text for text in said)
        ):
            # other kernels than the plain ones; boards held by their power say nothing of their
            # family's kernels
            continue
        real = (
            group.seconds >= roofline(group, rates) / 1.05
            if op != "conv"
            else np.ones(len(group.seconds), bool)
        )
        if op == "attention":
            real &= group.args["q_len"] >= SEQUENCE
        group = group._replace(
            args={k: v[real] for k, v in group.args.items()}, seconds=group.seconds[real]
        )
        result.append(Rows(group, device, family_name(device), rates, weights(group)))
    return result


def boost(device: Device, rates: Rates) -> float:
    """Peak at the advertised maximum clock over the printed 16-bit peak (Hopper's is printed at a
    lower clock).
    """
    flops = float(device.matrix_flop_per_clock_per_core or 0.0) * rates.cores * rates.clock
    return flops / rates.matrix if flops else 1.0


def with_values(c: Kernels, values: dict[str, float]) -> Kernels:
    """The constants with some replaced, by dotted name."""
    for name, value in values.items():
        section, key = name.split(".")
        c = msgspec.structs.replace(
            c, **{section: msgspec.structs.replace(getattr(c, section), **{key: value})}
        )
    return c


def with_share(rows: Rows, field: str, value: float, c: Kernels) -> Rates:
    """The rates of the group with its share replaced, and what follows from it."""
    rates = rows.rates._replace(**{field: value}) if field else rows.rates
    if field == "sustained" and rates.tensor:
        rates = rates._replace(feed=rows.rates.feed * value / rows.rates.sustained)
    if np.isfinite(rates.store):
        rates = rates._replace(store=c.matmul.store)
    return (
        rates._replace(footprint=c.matmul.footprint * np.sqrt(rates.cores * 32768.0))
        if rows.device.core == "SM"
        else rates
    )


def predicted(rows: Rows, stage: Stage, c: Kernels, share: float):
    """Seconds of every row, under the constants `c` and with `share` in place of the one that the
    stage fits.
    """
    return seconds(rows.group, rows.device, with_share(rows, stage.share, share, c), c)


def loss(rows: Rows, stage: Stage, c: Kernels, share: float) -> float:
    """Weighted mean of |ln(predicted / measured)| over the rows: their weights add up to 1."""
    return float(
        (rows.weight * np.abs(np.log(predicted(rows, stage, c, share) / rows.group.seconds))).sum()
    )


def descend(function, start: np.ndarray) -> np.ndarray:
    """Nelder-Mead on logarithms, with a simplex of 20 % steps."""
    x = np.log(start)
    simplex = np.vstack([x, x + 0.2 * np.eye(len(x))])
    options = {"initial_simplex": simplex, "maxfev": EVALUATIONS, "xatol": 1e-3, "fatol": 1e-5}
    return np.exp(
        minimize(
            lambda y: function(np.exp(y)) + PULL * np.sum((y - x) ** 2),
            x,
            method="Nelder-Mead",
            options=options,
        ).x
    )


def fit(data: list[Rows], stage: Stage) -> tuple[Kernels, dict[str, float], float]:
    """Constants, share of each family, and the share common to all (of the boost peak where the
    stage says so).
    """
    base = constants.kernels()
    names = sorted({r.family for r in data})
    start = [attribute(base, knob) for knob in stage.knobs]
    scale = [boost(r.device, r.rates) if stage.common else 1.0 for r in data]
    own = (
        {
            f: float(np.mean([getattr(r.rates, stage.share) for r in data if r.family == f]))
            for f in names
        }
        if stage.share
        else {}
    )
    level = (
        float(
            np.mean([getattr(r.rates, stage.share) / s for r, s in zip(data, scale, strict=True)])
        )
        if stage.share
        else 1.0
    )
    if stage.common or (not stage.share and stage.knobs):
        x = descend(
            lambda v: np.mean(
                [
                    loss(
                        r,
                        stage,
                        with_values(base, dict(zip(stage.knobs, v[:-1], strict=True))),
                        v[-1] * s,
                    )
                    for r, s in zip(data, scale, strict=True)
                ]
            ),
            np.array([*start, level]),
        )
        c, level = with_values(base, dict(zip(stage.knobs, x[:-1], strict=True))), float(x[-1])
    elif stage.knobs:
        x = descend(
            lambda v: np.mean(
                [
                    loss(
                        r,
                        stage,
                        with_values(base, dict(zip(stage.knobs, v[: len(start)], strict=True))),
                        v[len(start) + names.index(r.family)],
                    )
                    for r in data
                ]
            ),
            np.array([*start, *own.values()]),
        )
        c = with_values(base, dict(zip(stage.knobs, x[: len(start)], strict=True)))
        own = dict(zip(names, x[len(start) :], strict=True))
        return c, own, float(np.mean(list(own.values())))
    else:
        c = base
    if stage.share:
        for name in names:
            mine = [(r, s) for r, s in zip(data, scale, strict=True) if r.family == name]
            prior = level * float(np.mean([s for _, s in mine])) if stage.common else own[name]
            own[name] = float(
                descend(
                    lambda v, mine=mine, prior=prior: (
                        np.mean([loss(r, stage, c, v[0]) for r, _ in mine])  # noqa: B023
                        + PRIOR * np.log(v[0] / prior) ** 2
                    ),
                    np.array([prior]),
                )[0]
            )
    return c, own, level


def attribute(c: Kernels, name: str) -> float:
    """The constant of that dotted name: section.key."""
    section, key = name.split(".")
    return getattr(getattr(c, section), key)


def residual(rows: Rows, stage: Stage, c: Kernels, share: float) -> tuple[float, float]:
    """Median and mean |predicted / measured - 1| in percent."""
    error = np.abs(predicted(rows, stage, c, share) / rows.group.seconds - 1.0)
    return 100.0 * float(np.median(error)), 100.0 * float(error.mean())


def run(name: str, paths, write: bool, left_out: bool) -> None:
    """Fit one stage, print it, and write it if asked."""
    if name == "low":  # formats share nothing
        for format in STAGES[name].formats:
            stage = STAGES[name]._replace(formats=(format,))
            report(format, stage, prepare(paths, stage, "matmul"), write, left_out)
    else:
        report(name, STAGES[name], prepare(paths, STAGES[name], OPS[name]), write, left_out)


def report(name: str, stage: Stage, data: list[Rows], write: bool, left_out: bool) -> None:
    """Fit a stage, print values and residuals, and write them."""
    c, own, level = fit(data, stage)
    print(f"\n{name}: {sum(len(r.group.seconds) for r in data)} rows")
    for knob in stage.knobs:
        print(
            f"  {knob:24s} {attribute(c, knob):10.4g}   was"
            f" {attribute(constants.kernels(), knob):.4g}"
        )
    for family, value in own.items():
        print(f"  {family}.{stage.share:12s} {value:.3f}")
    figures = [residual(rows, stage, c, own.get(rows.family, 1.0)) for rows in data]
    for rows, (median, mean) in zip(data, figures, strict=True):
        what = (
            f"{rows.group.device:16s} {rows.group.format:5s} {rows.group.kind:18s}"
            f" {len(rows.group.seconds):5d} rows"
        )
        print(f"    {what}  {median:5.1f} / {mean:5.1f} %")
    devices = sorted({r.group.device for r in data})
    if left_out and len(devices) > 2 and stage.knobs:
        for device in devices:
            rest = [r for r in data if r.group.device != device]
            other, shares, level = fit(rest, stage)
            for rows in (r for r in data if r.group.device == device):
                share = level * boost(rows.device, rows.rates) if stage.common else level
                median, mean = residual(rows, stage, other, share)
                print(
                    f"    left out: {device:16s} {rows.group.kind:18s} {median:5.1f} /"
                    f" {mean:5.1f} %"
                )
    if write:
        text = "{:.1f} / {:.1f} % median / mean over {} groups".format(
            *np.mean(figures, axis=0), len(figures)
        )
        for knob in stage.knobs:
            section, key = knob.split(".")
            put(HERE / "kernels.toml", section, key, attribute(c, knob), text)
        for family, value in own.items():
            of = [f for r, f in zip(data, figures, strict=True) if r.family == family]
            mine = "{:.1f} / {:.1f} % median / mean".format(*np.mean(of, axis=0))
            formats = {r.group.format.replace("fp16", "bf16") for r in data if r.family == family}
            for format in formats:
                where = ("sustained", format) if stage.share == "sustained" else ("", stage.share)
                put(HERE / "families" / f"{family}.toml", *where, value, mine)


def put(path: Path, section: str, key: str, value: float, text: str) -> None:
    """Replace a fitted value and its residual in a TOML file, leaving all else as it is. section ""
    is the head of the file.
    """
    lines, inside = path.read_text(encoding="utf-8").splitlines(), section == ""
    for i, line in enumerate(lines):
        if line.startswith("["):
            inside = line.startswith(f"[{section}]")
        if inside and re.match(rf"{key}\s*= \{{", line) and 'source = "fit' in line:
            line = re.sub(r"value = [0-9.e+-]+", f"value = {value:.4g}", line)
            line = re.sub(r', residual = "[^"]*"', "", line)
            lines[i] = re.sub(r'(source = "[^"]*")', rf'\1, residual = "{text}"', line)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for read_once in (
        constants.kernels,
        constants.constants,
        constants.family,
    ):  # a later stage starts from what this one wrote
        read_once.cache_clear()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in STAGES:
        parser.add_argument(f"--{name}", nargs="+", default=[], metavar="FILE")
    parser.add_argument(
        "--write", action="store_true", help="write constants, shares and residuals into hwdb"
    )
    parser.add_argument(
        "--left-out", action="store_true", help="also fit with each device left out"
    )
    options = parser.parse_args()
    for name in STAGES:
        if getattr(options, name):
            run(name, getattr(options, name), options.write, options.left_out)
