"""Fit the constants of a board's power to measured watts.

    python -m roofcast.scenarios.fits.power [--write] [FILE.csv[.gz] ...]

Rows: those of scenarios/measured/power/boards.csv, or of FILEs with the same columns, that
measured/watts.py chooses. Writes hwdb/kernels.toml and hwdb/families/*.toml with --write.

    idle       [power] idle of hwdb/kernels.toml: watts of NCF, which hardly uses the board
    limits     [power] active, lowest_voltage, knee and hbm, and joule_per_vector_flop of Volta and
               Pascal: time and watts of fp32 training at 6 or 7 power limits (Zeus)
    decoding   [power] cached, and joule_per_flop of the 4N chips: watts of H100 in decoding
               (ML.ENERGY), at the measured rates

Loss: mean |ln(forecast / measured)|, of watts, and of the time at a limit over that at the highest.
Each constant is held by a weak prior at its present value. Prints values, errors by source, and the
errors of the nodes of MLPerf with one constant for what is not a GPU.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from scipy.optimize import minimize

from roofcast import hwdb
from roofcast.hwdb import constants
from roofcast.hwdb.constants import HERE, Kernels
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.records import Device
from roofcast.scenarios.fits.writing import put
from roofcast.scenarios.measured.watts import TABLE, Watts, measured
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.resolve import resolve
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.times import power, roofline
from roofcast.simulator.times.dispatch import phases_of
from roofcast.simulator.times.power import Board, Energy
from roofcast.simulator.work.step import Step, of_one_batch, trace

PULL = 3e-3  # of the logarithm of a constant towards its present value
EVALUATIONS = 300
LARGEST = 512  # requests at a time
TOKENS = 256  # of a sequence of SQuAD; only ratios over limits are compared
PROMPT = 150.0  # mean tokens before a reply, which the leaderboard does not state; assumed
FINE = np.linspace(1.0, power.SLOWEST, 13)  # shares of the highest clock
LIMITS = ("power.active", "power.lowest_voltage", "power.knee", "power.hbm", "volta", "pascal")
DECODING = ("power.cached", "hopper")
FOUR_N = ("hopper", "ada", "blackwell", "blackwell-gddr")  # families that share the value of Hopper


class Case(NamedTuple):
    """A step of training, and what was measured at each limit."""

    step: Step
    device: Device
    seconds: np.ndarray  # of each kernel at FINE clocks, count included
    flops: np.ndarray  # vector FLOPs, and those of fp32 products
    moved: np.ndarray  # bytes
    rows: list[Watts]


def chip_tdp(device: Device) -> float:
    """TDP of the largest board with the same chip [W]."""
    tdp = device.power.chip_tdp or device.power.tdp
    assert tdp, "measured boards have a TDP"
    return float(tdp)


def training(rows: Sequence[Watts]) -> list[Case]:
    """Steps of the rows under power limits, by device, model and batch."""
    found: dict[tuple[str, str, float], list[Watts]] = {}
    for row in rows:
        if row.kind == "power_cap_training" and row.model != "ncf":
            found.setdefault((row.device, row.model, row.batch), []).append(row)
    cases = []
    for (device, model, batch), mine in found.items():
        tokens = TOKENS if "bert" in model else None
        asked = resolve(
            Scenario(
                model=model, device=device, batch=int(batch), precision="fp32", sequence=tokens
            )
        )
        step = of_one_batch(trace(asked.model, asked.recipe))
        cases.append(_case(step, asked.device, mine))
    return cases


def _case(step: Step, device: Device, rows: list[Watts]) -> Case:
    unit = Board(1e12, 0.0, 0.0, 0.0, {n: 1.0 for n in roofline.WIDTH}, 1.0, 0.0, 0.0, ())
    count = np.array([k.count for k in step.kernels])
    timed = roofline.clocked(step, device, unit, FINE)
    moved = np.array([k.read + k.written for k in step.kernels])
    return Case(
        step, device, timed.seconds * count, timed.energy.switching * count, moved * count, rows
    )


def at_limit(case: Case, limit: float, c: Kernels, vector: float) -> tuple[float, float]:
    """Seconds and watts of a step at a power limit."""
    p = c.power
    chip = chip_tdp(case.device)
    board = Board(
        limit, p.idle * chip, p.active * chip, 0.0, {}, vector, p.hbm, p.hbm, ()
    )  # fmt: skip
    grid, nodes = 1.0 / FINE, 1.0 / power.clocks(p)
    left = np.clip(np.searchsorted(grid, nodes) - 1, 0, len(grid) - 2)
    part = ((nodes - grid[left]) / (grid[left + 1] - grid[left]))[:, None]
    seconds = (1.0 - part) * case.seconds[left] + part * case.seconds[left + 1]
    energy = Energy(vector * case.flops, p.hbm * case.moved)
    found = power.held(seconds, energy, board, p)
    whole = float(phases_of(case.step, found.seconds, case.device).total_s.sum())
    rest = max(whole - float(found.seconds.sum()), 0.0)
    return whole, (float(found.joules.sum()) + board.idle * rest) / whole


def limit_errors(cases: Sequence[Case], c: Kernels, vector: dict[str, float]) -> np.ndarray:
    """ln(forecast / measured) of each row: of the time over that at the highest limit, of watts."""
    errors = []
    for case in cases:
        top = max(case.rows, key=lambda r: r.limit)
        first = at_limit(case, top.limit, c, vector[case.device.family])[0]
        for row in case.rows:
            time, watts = at_limit(case, row.limit, c, vector[case.device.family])
            ratio = time / first / (row.seconds / top.seconds)
            errors.append((np.log(ratio), np.log(watts / row.watts)))
    return np.array(errors)


class Decoded(NamedTuple):
    """One step of decoding on one board."""

    row: Watts
    flops: float
    vector: float
    moved: float  # bytes, without keys and values
    cached: float  # bytes of keys and values


def decoding(rows: Sequence[Watts]) -> list[Decoded]:
    """Steps of the rows of decoding."""
    return [decoded(r) for r in rows if r.kind == "inference_serving" and r.batch <= LARGEST]


def decoded(row: Watts) -> Decoded:
    """The step of a row of decoding."""
    batch = max(round(row.batch), 1)
    scenario = Scenario(model=row.model, device=row.device, mode="infer", batch=batch, sequence=1)
    if row.devices > 1:
        scenario = msgspec.structs.replace(scenario, tp=row.devices, sp=False)
    asked = resolve(scenario)
    recipe = msgspec.structs.replace(asked.recipe, batch=batch)
    if asked.layout is not None:
        step = trace(asked.model, recipe, asked.layout.parallel)
    else:
        step = of_one_batch(trace(asked.model, recipe))
    columns = PROMPT + row.output_tokens / 2.0
    flops = vector = moved = cached = 0.0
    for k in step.kernels:
        flops += k.matrix * k.count
        vector += (k.vector + 2.0 * k.special) * k.count
        moved += (k.read + k.written) * k.count
        if k.kind == "attention":
            _, heads, kv_heads, _, _, dim, _ = k.shape
            flops += 4.0 * batch * heads * columns * dim * k.count
            cached += 4.0 * batch * kv_heads * columns * dim * k.count
    return Decoded(row, flops, vector, moved, cached)


def decoded_watts(step: Decoded, c: Kernels, flop: float, vector: float) -> float:
    """Watts of one board at the measured rate."""
    p, tdp = c.power, chip_tdp(hwdb.device(step.row.device))
    seconds = step.row.batch / step.row.tokens_per_s
    joules = flop * step.flops + vector * step.vector + p.hbm * step.moved + p.cached * step.cached
    watts = (p.idle + p.active) * tdp + joules / seconds
    return min(watts, tdp)


def decoding_errors(steps: Sequence[Decoded], c: Kernels, flop: float) -> np.ndarray:
    """ln(forecast / measured watts) of each row."""
    vector = constants.family("hopper").joule_per_vector_flop
    assert vector is not None
    return np.array(
        [
            np.log(decoded_watts(s, c, flop, vector.value) * s.row.devices / s.row.watts)
            for s in steps
        ]
    )


def nodes(rows: Sequence[Watts]) -> list[tuple[str, float, float]]:
    """Nodes of 8 H100 in training: workload, forecast watts of the boards, watts of the node."""
    found = []
    eight = Scenario(model="bert-large", device="h100-sxm5", devices=8)
    recipes: dict[str, dict[str, Any]] = {
        "bert-large": {"sequence": 512, "stack": "nvidia-tuned", "batch": 8 * 48},
        "resnet50": {"stack": "nvidia-tuned", "batch": 8 * 400},
        "llama-2-70b": {"sequence": 8192, "stack": "te-nemo-2024", "batch": 8, "tp": 4},
    }
    for model, recipe in recipes.items():
        mine = [r for r in rows if r.kind == "node_power_training" and r.model == model]
        for source in sorted({r.source for r in mine}):
            watts = float(np.mean([r.watts for r in mine if r.source == source]))
            one = forecast(msgspec.structs.replace(eight, model=model, **recipe))
            found.append((f"{model} {source[27:33]}", 8.0 * float(one.power_w or 0.0), watts))
    return found


def descend(loss: Callable[[np.ndarray], float], start: np.ndarray) -> np.ndarray:
    """The minimum near `start`: Nelder-Mead on logarithms, held at the start by PULL."""
    x = np.log(start)
    simplex = np.vstack([x, x + 0.1 * np.eye(len(x))])
    options = {"initial_simplex": simplex, "maxfev": EVALUATIONS, "xatol": 1e-3, "fatol": 1e-5}

    def pulled(y: np.ndarray) -> float:
        return loss(np.exp(y)) + PULL * float(np.sum((y - x) ** 2))

    return np.exp(minimize(pulled, x, method="Nelder-Mead", options=options).x)


def _with(c: Kernels, names: Sequence[str], values: np.ndarray) -> Kernels:
    mine = {n[6:]: float(v) for n, v in zip(names, values, strict=True) if n.startswith("power.")}
    return msgspec.structs.replace(c, power=msgspec.structs.replace(c.power, **mine))


def _start(c: Kernels, name: str) -> float:
    """The present value of a constant of LIMITS or DECODING."""
    if name.startswith("power."):
        value: float = getattr(c.power, name[6:])
        return value
    family = constants.family(name)
    if name == DECODING[-1]:
        return family.joule_per_flop["bf16"].value
    assert family.joule_per_vector_flop is not None, "families that are fitted have this one"
    return family.joule_per_vector_flop.value


def mean(errors: np.ndarray) -> float:
    """Mean of |forecast / measured - 1| [%]."""
    return 100.0 * float(np.mean(np.abs(np.expm1(errors))))


class Limits(NamedTuple):
    """What the rows under power limits tell."""

    c: Kernels
    vector: dict[str, float]  # by family [J/FLOP]
    residual: str


class Decoding(NamedTuple):
    """What the rows of decoding tell."""

    c: Kernels
    flop: float  # of the 4N chips, 16-bit [J/FLOP]
    residual: str


def _said(errors: np.ndarray) -> str:
    return f"time {mean(errors[:, 0]):.1f} %, watts {mean(errors[:, 1]):.1f} %"


def at_rest(rows: Sequence[Watts]) -> float:
    """Power at rest with clocks up, as a share of the chip's TDP: watts of NCF."""
    watts = [r.watts / chip_tdp(hwdb.device(r.device)) for r in rows if r.model == "ncf"]
    return float(np.mean(watts))


def fit_limits(
    rows: Sequence[Watts], c: Kernels, start: dict[str, float] | None = None, quiet: bool = False
) -> Limits:
    """Idle power, then what acts under limits; idle power with them where no row tells it alone.

    start: energy of a vector FLOP by family from which the fit starts; default: as shipped.
    """
    names: tuple[str, ...] = LIMITS
    if any(r.model == "ncf" for r in rows):
        c = msgspec.structs.replace(c, power=msgspec.structs.replace(c.power, idle=at_rest(rows)))
    else:
        names = ("power.idle", *LIMITS)
    cases = training(rows)
    if not cases:
        raise BadInput("no rows of training under power limits; boards.csv has some")
    first = np.array([_start(c, n) if start is None or n not in start else start[n] for n in names])

    def vector_of(x: np.ndarray) -> dict[str, float]:
        return dict(zip(names[-2:], map(float, x[-2:]), strict=True))

    def loss(x: np.ndarray) -> float:
        p = _with(c, names, x).power
        if not (0.3 < p.lowest_voltage < 1.0 and power.SLOWEST < p.knee < 0.98 and p.idle < 0.3):
            return 10.0
        return float(np.abs(limit_errors(cases, _with(c, names, x), vector_of(x))).mean())

    x = descend(loss, first)
    c, vector = _with(c, names, x), vector_of(x)
    errors = limit_errors(cases, c, vector)
    text = f"{_said(errors)} of {len(errors)} rows"
    if not quiet:
        print(f"idle {c.power.idle:.3f};", *(f"{n} {v:.4g}" for n, v in zip(names, x, strict=True)))
        places = [(case.device.id, case.rows[0].model) for case in cases for _ in case.rows]
        for place in dict.fromkeys(places):
            own = np.array([p == place for p in places])
            print(f"  {' '.join(place)}: {_said(errors[own])}")
        print(f"  all: {text}")
    return Limits(c, vector, text)


def fit_decoding(
    steps: Sequence[Decoded], c: Kernels, start: float | None = None, quiet: bool = False
) -> Decoding:
    """Energy of bytes, and of 16-bit FLOPs of the 4N chips.

    start: energy of a FLOP from which the fit starts; default: as shipped.
    """
    first = np.array([_start(c, n) for n in DECODING])
    if start is not None:
        first[-1] = start

    def loss(x: np.ndarray) -> float:
        return float(np.abs(decoding_errors(steps, _with(c, DECODING, x), x[1])).mean())

    x = descend(loss, first)
    c = _with(c, DECODING, x)
    errors = decoding_errors(steps, c, x[1])
    text = f"watts {mean(errors):.1f} % of {len(errors)} rows"
    if not quiet:
        print(*(f"{n} {v:.4g}" for n, v in zip(DECODING, x, strict=True)))
        for model in dict.fromkeys(s.row.model for s in steps):
            e = errors[np.array([s.row.model == model for s in steps])]
            print(f"  {model}: {mean(e):.1f}, bias {100 * np.expm1(e).mean():+.1f}")
        print(f"  all: {text}")
    return Decoding(c, float(x[1]), text)


def write(limits: Limits, last: Decoding) -> None:
    """Put the constants into hwdb/kernels.toml and hwdb/families/*.toml."""
    power_of, families = last.c.power, HERE / "families"
    for name in ("idle", *(n[6:] for n in LIMITS if n.startswith("power."))):
        put(HERE / "kernels.toml", "power", name, getattr(power_of, name), limits.residual)
    for name in (n[6:] for n in DECODING if n.startswith("power.")):
        put(HERE / "kernels.toml", "power", name, getattr(power_of, name), last.residual)
    for family, value in limits.vector.items():
        put(families / f"{family}.toml", "", "joule_per_vector_flop", value, limits.residual)
    put(families / "hopper.toml", "joule_per_flop", "bf16", last.flop, last.residual)
    for path in (families / f"{family}.toml" for family in FOUR_N[1:]):
        head, mark, tail = path.read_text(encoding="utf-8").partition("[joule_per_flop]")
        tail = re.sub(r"bf16 = {value = [0-9.e-]+", f"bf16 = {{value = {last.flop:.4g}", tail)
        path.write_text(head + mark + tail, encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, default=[TABLE], metavar="FILE")
    parser.add_argument("--write", action="store_true", help="put the constants into their files")
    options = parser.parse_args()
    rows = [row for file in options.files for row in measured(file)]
    limits = fit_limits(rows, constants.kernels())
    found = fit_decoding(decoding(rows), limits.c)
    for name, boards, node in nodes(rows):
        print(f"{name}: boards {boards:.0f} W, node {node:.0f} W, rest {node - boards:.0f} W")
    if options.write:
        write(limits, found)


if __name__ == "__main__":
    main()
