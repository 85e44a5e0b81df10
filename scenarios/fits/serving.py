"""Fits the constants of serving profiles to measured servers, those that come with Roofcast or a
table of others, and shows the errors.

    python -m roofcast.scenarios.fits.serving [TABLE.csv.gz] [--write]

The physics of every step has no constant of its own here (kernel times, collectives and bandwidths
are those of training and kernels); fitted is what the software adds. A constant is fitted to the
rows of its own profile, by the mean absolute log error, rows flagged by stated rules left out
(`measured.serving.cases.suspect`). With --write, the profiles are rewritten.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from roofcast.hwdb.constants import kernels
from roofcast.hwdb.errors import BadInput, RoofcastError, UnknownName
from roofcast.scenarios.measured.cells import Row, rows
from roofcast.scenarios.measured.serving.cases import Case, Step, case
from roofcast.scenarios.measured.serving.fitted import FITTED
from roofcast.scenarios.measured.serving.forecasts import shipped
from roofcast.simulator.serving.profiles import HERE, Profile, profile
from roofcast.simulator.times.host import combine

PRIOR = 0.02  # pull towards the start, in logarithms: what rows do not tell apart stays put
ITERATIONS = 300
WITHIN = (0.8, 1.25)


def cases(table: Iterable[dict[str, str]]) -> tuple[list[Case], Counter[str]]:
    """The cases of rows, and why others have none."""
    found, why = [], Counter[str]()
    for row in table:
        try:
            found.append(case(row))
        except (BadInput, UnknownName) as error:
            why[f"{row['source_name']}: {str(error)[:90]}"] += 1
    return found, why


def seconds(c: Case, p: Profile) -> float:
    """The forecast of a case under a profile."""
    return sum(s.weight * _step(s, p) for s in c.steps)


def _step(s: Step, p: Profile) -> float:
    parts = dict(s.parts)
    if s.dotted:
        parts["products"] = parts.get("products", 0.0) + s.dotted * (1.0 / p.dots - 1.0)
    if s.prompt:
        for name in ("products", "experts"):
            parts[name] = parts.get(name, 0.0) / p.products
        parts["attention"] = parts.get("attention", 0.0) / p.attention
    elif p.gemv and s.streamed:
        least = s.streamed / p.gemv, s.counted / p.gemv_weights if p.gemv_weights else 0.0
        parts["products"] = max(parts.get("products", 0.0) / p.stream, *least)
    elif s.streamed:
        parts["products"] = parts.get("products", 0.0) / p.stream
    exchanges = s.library
    if p.sum_s and s.sums:
        exchanges = min(exchanges, s.own + s.sums * p.sum_s)
    device = sum(parts.values()) + exchanges + p.expert_s * s.layers
    launches = p.dispatch_s * s.launches
    whole = float(combine(device, launches, kernels())) if p.ahead else device + launches
    return whole + p.step_s + p.seq_s * s.rows


def errors(found: Iterable[Case], of: Callable[[str], Profile]) -> np.ndarray:
    """Logarithms of forecast over measured."""
    return np.array([np.log(seconds(c, of(c.at.stack)) / c.measured) for c in found])


def with_constants(name: str, values: dict[str, float]) -> Profile:
    """A profile with other constants."""
    import msgspec

    return msgspec.structs.replace(profile(name), **values)


def fitted(name: str, found: list[Case]) -> dict[str, float]:
    """The constants of a profile from the cases of it that are not suspect."""
    start = FITTED[name]
    own = [c for c in found if c.at.stack == name]
    mine = [c for c in own if not c.suspect] or own  # where all are suspect, a rough value
    if not mine:
        return dict(start)
    first = np.log(list(start.values()))
    top = [0.0 if key in ("products", "attention", "dots") else 9.0 for key in start]

    def loss(x: np.ndarray) -> float:
        x = np.minimum(x, top)
        p = with_constants(name, dict(zip(start, np.exp(x), strict=True)))
        off = np.array([np.log(seconds(c, p) / c.measured) for c in mine])
        return float(np.abs(off).mean() + PRIOR * np.square(x - first).mean())

    best = minimize(loss, first, method="Nelder-Mead", options={"maxiter": ITERATIONS})
    x = np.minimum(best.x, top)
    return {key: float(f"{value:.3g}") for key, value in zip(start, np.exp(x), strict=True)}


def left_out(found: list[Case], key: Callable[[Case], str]) -> np.ndarray:
    """Errors of each group of cases under constants fitted without it."""
    out = np.zeros(len(found))
    for name in {c.at.stack for c in found}:
        mine = [i for i, c in enumerate(found) if c.at.stack == name]
        groups = {key(found[i]) for i in mine}
        for group in groups:
            inside = [i for i in mine if key(found[i]) == group]
            rest = [found[i] for i in mine if key(found[i]) != group]
            values = fitted(name, rest) if name in FITTED and rest else {}
            p = with_constants(name, values)
            for i in inside:
                out[i] = np.log(seconds(found[i], p) / found[i].measured)
    return out


def line(label: str, off: np.ndarray) -> str:
    """A row of the printed table."""
    error = np.abs(np.expm1(off))
    ratio = np.exp(off)
    inside = np.mean((ratio >= WITHIN[0]) & (ratio <= WITHIN[1]))
    return (
        f"{label:58s} {len(off):5d}  {100 * np.median(error):6.1f} {100 * error.mean():6.1f}"
        f" {np.exp(np.median(off)):6.2f} {100 * inside:5.0f} %"
    )


def show(found: list[Case], off: np.ndarray, title: str) -> None:
    """Errors by source and quantity."""
    print(f"\n{title}\n{'source, profile, quantity':58s}  rows  median   mean   bias  within")
    groups: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for c, e in zip(found, off, strict=True):
        groups[c.source, c.at.stack, c.quantity].append(e)
    for group, values in sorted(groups.items()):
        print(line(f"{group[0][:28]}, {group[1]}, {group[2]}", np.array(values)))
    totals: dict[str, list[float]] = defaultdict(list)
    for c, e in zip(found, off, strict=True):
        kind = "llama.cpp " if c.at.stack.startswith("llama.cpp") else "servers "
        totals[kind + c.quantity].append(e)
    for name, values in sorted(totals.items()):
        print(line(f"all {name}", np.array(values)))


def write(constants: dict[str, dict[str, float]], script: str = "serving.py") -> None:
    """Put constants into the profiles' files."""
    for name, values in constants.items():
        path = HERE / f"{name}.toml"
        text = path.read_text(encoding="utf-8")
        for key, value in values.items():
            new = f"{key} = {value!r}  # fitted: scenarios/fits/{script}"
            text, count = re.subn(rf"(?m)^{key} = .*$", new, text)
            if not count:
                text = text.rstrip("\n") + f"\n{new}\n"
        path.write_text(text, encoding="utf-8")


def measured(arguments: list[str]) -> Iterable[Row]:
    """The rows of the file among the arguments of a script, or what is shipped. Raises BadInput
    where there are several files.
    """
    files = [a for a in arguments if not a.startswith("--")]
    if len(files) > 1:
        raise BadInput(f"give one table of measured servers at most, not {len(files)}")
    return rows(Path(files[0]), "measured servers") if files else shipped()


def main(arguments: list[str]) -> None:
    """Fit, show and perhaps write."""
    options = [a for a in arguments if a.startswith("--")]
    everything, why = cases(measured(arguments))
    found = [c for c in everything if not c.suspect]
    counts = Counter(c.suspect for c in everything if c.suspect)
    constants = {name: fitted(name, everything) for name in FITTED}
    for name, values in constants.items():
        print(f"{name}: {', '.join(f'{k} = {v:.3g}' for k, v in values.items())}")
    of: dict[str, Any] = {c.at.stack: profile(c.at.stack) for c in everything}
    of |= {name: with_constants(name, values) for name, values in constants.items()}
    show(found, errors(found, of.__getitem__), "fitted")
    if "--left-out" in options:
        show(found, left_out(found, lambda c: c.source), "each source left out")
        show(found, left_out(found, lambda c: c.device), "each device left out")
    off = errors(everything, of.__getitem__)
    print("\n" + line(f"all rows, {sum(counts.values())} suspect ones too", off))
    for reason, n in (counts + why).most_common(40):
        print(f"{n:5d}  {reason}")
    if "--write" in options:
        write(constants)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RoofcastError as error:
        sys.exit(f"roofcast: {error}")
