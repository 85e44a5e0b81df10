"""Fit the constants of the kernel formulas to measured kernels.

    python -m roofcast.scenarios.fits.kernels --gemm FILE.. --low FILE.. --attention FILE..
        --streams FILE.. --fp32 FILE.. --conv FILE.. [--left-out] [--write]

FILEs hold measured kernels in a layout that scenarios/measured/kernels.py reads; the head of
hwdb/kernels.toml names the sources behind the shipped constants, and
scenarios/measured/runs/kernels-*.csv hold a part of their rows. The stages (STAGES) fit

    gemm       [matmul] from bf16 and fp16 products
    low        matmul.sustained_fp8 and _fp4 from products in these formats
    attention  [attention] from fused attention of at least 512 tokens
    streams    [stream] and issue.gather from memory-bound kernels
    fp32       sustained.fp32 of each family from fp32 products
    conv       vector, vector_backward, winograd and channels of [conv] from fp32 convolutions

Loss: mean over groups of rows of the weighted mean |ln(predicted / measured)|. Each stage prints
values and residuals (median / mean of |predicted / measured - 1|); --left-out also fits without
each device and prints the errors there. --write puts values and residuals into hwdb/kernels.toml
and hwdb/families/*.toml, where the source of the constant is "fit STAGE".
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from scipy.optimize import minimize

from roofcast import hwdb
from roofcast.hwdb import constants
from roofcast.hwdb.constants import HERE, Kernels
from roofcast.hwdb.records import Device
from roofcast.scenarios.fits.writing import put
from roofcast.scenarios.measured.kernel_errors import roofline, seconds
from roofcast.scenarios.measured.kernels import Group, read
from roofcast.simulator.times.rates import Rates, at_highest_clock, family_name, resolve

# penalty on (ln of a family's share / the common share)^2: few rows leave it near the common one
PRIOR = 0.3
# the same towards the present value of every constant: what no row constrains stays as it is
PULL = 1e-3
EVALUATIONS = 900  # of the loss, at most
SEQUENCE = (
    512  # shortest attention that is fitted: of shorter ones the call's other kernels prevail
)
# share of the loss of products by size: m <= 64, an edge <= 512, below 2e11 FLOPs, larger
REGIMES = (0.15, 0.30, 0.25, 0.30)


class Rows(NamedTuple):
    """A group of measured kernels, ready to be fitted."""

    group: Group
    device: Device
    family: str
    rates: Rates
    weight: np.ndarray  # of each row; sums to 1


class Stage(NamedTuple):
    """What one fit sets: constants common to all devices, then a share of each device family."""

    op: str  # of the groups it is fitted to
    knobs: tuple[str, ...] = ()  # constants, by dotted name
    share: str = ""  # field of Rates that each family has a value of: sustained | attention
    formats: tuple[str, ...] = ()  # of the groups; empty: all
    # constants are fitted together with one share of the peak at the highest clock for all families
    common: bool = False
    level: str = ""  # the constant that this share is, where families have none of their own


STAGES = {
    "gemm": Stage(
        "matmul",
        ("matmul.start", "matmul.tile", "matmul.split", "matmul.feed", "matmul.footprint",
         "matmul.stream", "matmul.store"),
        "sustained", ("bf16", "fp16"), common=True, level="matmul.sustained",
    ),
    "low": Stage("matmul", share="sustained", formats=("fp8", "fp4"), common=True,
                 level="matmul.sustained_"),
    "attention": Stage(
        "attention", ("attention.special", "attention.tile"), "attention", ("bf16", "fp16"),
        common=True, level="attention.sustained",
    ),
    "streams": Stage(
        "stream",
        ("stream.start", "stream.start_rows", "stream.rows", "stream.norm", "stream.rms_norm",
         "stream.rope", "issue.gather"),
    ),
    "fp32": Stage("matmul", share="sustained", formats=("fp32",)),
    "conv": Stage(
        "conv", ("conv.vector", "conv.vector_backward", "conv.winograd", "conv.channels"),
        formats=("fp32",),
    ),
}  # fmt: skip


def weights(group: Group) -> np.ndarray:
    """Weights of the rows, which sum to 1: products by REGIMES of size, all other rows equal."""
    size = len(group.seconds)
    if group.op != "matmul":
        return np.full(size, 1.0 / size)
    m, n, k = group.args["m"], group.args["n"], group.args["k"]
    small = np.minimum(np.minimum(m, n), k) <= 512
    regime = np.where(m <= 64, 0, np.where(small, 1, np.where(2.0 * m * n * k < 2e11, 2, 3)))
    result = np.zeros(size)
    for index, share in enumerate(REGIMES):
        result[regime == index] = share / max((regime == index).sum(), 1)
    return result / result.sum()


def prepare(paths: Iterable[str | Path], stage: Stage) -> list[Rows]:
    """The groups of the files that a stage is fitted to.

    Rows more than 5 % faster than the roofline at datasheet peaks are left out, except
    convolutions. Shares of families are not fitted to other kernels than the plain ones
    (fp8_block).
    """
    result = []
    for group in (g for path in paths for g in read(path)):
        if group.op != stage.op or (stage.formats and group.format not in stage.formats):
            continue
        device = hwdb.device(group.device)
        rates = resolve(device, group.format).rates
        if stage.share == "sustained" and group.kind == "gemm fp8_block":
            continue
        kept = np.ones(len(group.seconds), bool)
        if stage.op != "conv":
            kept = group.seconds >= roofline(group, rates) / 1.05
        if stage.op == "attention":
            kept &= group.args["q_len"] >= SEQUENCE
        args = {name: values[kept] for name, values in group.args.items()}
        group = group._replace(args=args, seconds=group.seconds[kept])
        result.append(Rows(group, device, family_name(device), rates, weights(group)))
    return result


def attribute(c: Kernels, name: str) -> float:
    """The constant of a dotted name: section.key."""
    section, key = name.split(".")
    return getattr(getattr(c, section), key)


def with_values(c: Kernels, values: dict[str, float]) -> Kernels:
    """The constants with some replaced, by dotted name."""
    for name, value in values.items():
        section, key = name.split(".")
        replaced = msgspec.structs.replace(getattr(c, section), **{key: value})
        c = msgspec.structs.replace(c, **{section: replaced})
    return c


def with_share(rows: Rows, field: str, value: float, c: Kernels) -> Rates:
    """The rates of a group with another share, and what follows from it and from the constants."""
    changes: dict[str, float] = {field: value} if field else {}
    if field == "sustained" and rows.rates.tensor:
        changes["feed"] = rows.rates.feed * value / rows.rates.sustained
    if np.isfinite(rows.rates.store):
        changes["store"] = c.matmul.store
    if rows.device.core == "SM" and np.isfinite(rows.rates.footprint):
        changes["footprint"] = c.matmul.footprint * np.sqrt(rows.rates.cores * 32768.0)
    return Rates(**(rows.rates._asdict() | changes))


def predicted(rows: Rows, stage: Stage, c: Kernels, share: float) -> np.ndarray:
    """Seconds of every row under the constants `c`, with `share` for the one that is fitted."""
    return seconds(rows.group, rows.device, with_share(rows, stage.share, share, c), c)


def loss(rows: Rows, stage: Stage, c: Kernels, share: float) -> float:
    """Weighted mean of |ln(predicted / measured)| over the rows."""
    error = np.log(predicted(rows, stage, c, share) / rows.group.seconds)
    return float((rows.weight * np.abs(error)).sum())


def descend(function: Callable[[np.ndarray], float], start: np.ndarray) -> np.ndarray:
    """The minimum near `start`: Nelder-Mead on logarithms, from a simplex of 20 % steps."""
    x = np.log(start)
    simplex = np.vstack([x, x + 0.2 * np.eye(len(x))])
    options = {"initial_simplex": simplex, "maxfev": EVALUATIONS, "xatol": 1e-3, "fatol": 1e-5}

    def held(y: np.ndarray) -> float:
        return function(np.exp(y)) + PULL * np.sum((y - x) ** 2)

    return np.exp(minimize(held, x, method="Nelder-Mead", options=options).x)


class Fitted(NamedTuple):
    """The result of a stage."""

    c: Kernels
    own: dict[str, float]  # share of each family
    level: float  # share common to all families; of the boost peak where the stage says so


def fit(data: list[Rows], stage: Stage) -> Fitted:
    """The constants first, then the share of each family."""
    scale = [at_highest_clock(r.device) if stage.common else 1.0 for r in data]
    shares = [getattr(r.rates, stage.share) if stage.share else 1.0 for r in data]
    level = float(np.mean([share / s for share, s in zip(shares, scale, strict=True)]))
    c = constants.kernels()
    if stage.knobs or stage.level:
        c, level = _fit_common(data, stage, scale, level)
    own = {}
    if stage.level:
        c = with_values(c, {stage.level: level})
    for family in sorted({r.family for r in data}) if stage.share and not stage.level else ():
        mine = [i for i, r in enumerate(data) if r.family == family]
        if stage.common:
            prior = level * float(np.mean([scale[i] for i in mine]))
        else:
            prior = float(np.mean([shares[i] for i in mine]))
        own[family] = _fit_share([data[i] for i in mine], stage, c, prior)
    return Fitted(c, own, level)


def _fit_common(
    data: list[Rows], stage: Stage, scale: list[float], level: float
) -> tuple[Kernels, float]:
    """Constants, and the share `level` x `scale` of every group, fitted together."""
    base = constants.kernels()

    def mean_loss(v: np.ndarray) -> float:
        c = with_values(base, dict(zip(stage.knobs, v[:-1], strict=True)))
        return float(
            np.mean([loss(r, stage, c, v[-1] * s) for r, s in zip(data, scale, strict=True)])
        )

    start = [attribute(base, knob) for knob in stage.knobs]
    x = descend(mean_loss, np.array([*start, level]))
    return with_values(base, dict(zip(stage.knobs, x[:-1], strict=True))), float(x[-1])


def _fit_share(rows: list[Rows], stage: Stage, c: Kernels, prior: float) -> float:
    """The share of one family, held near `prior`."""

    def penalized(v: np.ndarray) -> float:
        error = np.mean([loss(r, stage, c, v[0]) for r in rows])
        return float(error + PRIOR * np.log(v[0] / prior) ** 2)

    return float(descend(penalized, np.array([prior]))[0])


def share_of(rows: Rows, stage: Stage, found: Fitted) -> float:
    """The fitted share of a group."""
    if stage.level:
        return found.level * at_highest_clock(rows.device)
    return found.own.get(rows.family, 1.0)


def residual(rows: Rows, stage: Stage, c: Kernels, share: float) -> tuple[float, float]:
    """Median and mean of |predicted / measured - 1| [%]."""
    error = np.abs(predicted(rows, stage, c, share) / rows.group.seconds - 1.0)
    return 100.0 * float(np.median(error)), 100.0 * float(error.mean())


def run(name: str, paths: Iterable[str | Path], write: bool, left_out: bool) -> None:
    """Fit a stage, print it, and write it if asked; the formats of "low" share nothing."""
    stage, paths = STAGES[name], list(paths)
    for formats in zip(stage.formats) if name == "low" else (stage.formats,):
        level = stage.level + formats[0] if name == "low" else stage.level
        part = stage._replace(formats=formats, level=level)
        title = f"{name} {formats[0]}" if name == "low" else name
        data = prepare(paths, part)
        if data:
            report(title, part, data, write, left_out)
        else:
            print(f"\n{title}: no rows")


def report(title: str, stage: Stage, data: list[Rows], write: bool, left_out: bool) -> None:
    """Fit a stage to prepared rows, print values and residuals, and write them if asked."""
    found = fit(data, stage)
    print(f"\n{title}: {sum(len(r.group.seconds) for r in data)} rows")
    for knob in stage.knobs:
        before, after = attribute(constants.kernels(), knob), attribute(found.c, knob)
        print(f"  {knob:24s} {after:10.4g}   was {before:.4g}")
    for family, value in found.own.items():
        print(f"  {family}.{stage.share:12s} {value:.3f}")
    if stage.level:
        print(f"  {stage.level:24s} {found.level:10.4g}")
    residuals = [residual(r, stage, found.c, share_of(r, stage, found)) for r in data]
    for rows, (median, mean) in zip(data, residuals, strict=True):
        group = rows.group
        what = f"{group.device:16s} {group.format:5s} {group.kind:18s} {len(group.seconds):5d} rows"
        print(f"    {what}  {median:5.1f} / {mean:5.1f} %")
    if left_out and stage.knobs:
        report_left_out(stage, data)
    if write:
        write_constants(stage, data, found, residuals)


def report_left_out(stage: Stage, data: list[Rows]) -> None:
    """Print the errors of each device under a fit without it."""
    devices = sorted({r.group.device for r in data})
    for device in devices if len(devices) > 2 else ():
        found = fit([r for r in data if r.group.device != device], stage)
        for rows in (r for r in data if r.group.device == device):
            scale = at_highest_clock(rows.device) if stage.common else 1.0
            median, mean = residual(rows, stage, found.c, found.level * scale)
            what = f"left out: {device:16s} {rows.group.kind:18s}"
            print(f"    {what} {median:5.1f} / {mean:5.1f} %")


def write_constants(
    stage: Stage, data: list[Rows], found: Fitted, residuals: list[tuple[float, float]]
) -> None:
    """Put constants into hwdb/kernels.toml and shares into hwdb/families/*.toml."""
    median, mean = np.mean(residuals, axis=0)
    text = f"{median:.1f} / {mean:.1f} % median / mean over {len(residuals)} groups"
    for knob in (*stage.knobs, *([stage.level] if stage.level else [])):
        section, key = knob.split(".")
        put(HERE / "kernels.toml", section, key, attribute(found.c, knob), text)
    for family, value in found.own.items():
        mine = [i for i, r in enumerate(data) if r.family == family]
        median, mean = np.mean([residuals[i] for i in mine], axis=0)
        text = f"{median:.1f} / {mean:.1f} % median / mean"
        for format in {data[i].group.format.replace("fp16", "bf16") for i in mine}:
            where = ("sustained", format) if stage.share == "sustained" else ("", stage.share)
            put(HERE / "families" / f"{family}.toml", *where, value, text)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in STAGES:
        parser.add_argument(f"--{name}", nargs="+", default=[], metavar="FILE")
    parser.add_argument("--write", action="store_true", help="write the constants into hwdb")
    parser.add_argument("--left-out", action="store_true", help="also fit without each device")
    options = parser.parse_args()
    for name in STAGES:
        if getattr(options, name):
            run(name, getattr(options, name), options.write, options.left_out)


if __name__ == "__main__":
    main()
