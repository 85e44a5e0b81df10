"""Fit the constants that only whole training steps can tell, to the published training runs.

    python -m roofcast.scenarios.fits.runs [--write]

Rows: every table of scenarios/measured/published whose first line does not keep it for blind tests.
CONSTANTS names what is fitted, and --write puts it into

    hwdb/kernels.toml matmul.in_steps       rate of products inside training steps, of the rate of
                                            the same product alone; the board's power is apart
    hwdb/kernels.toml matmul.in_steps_others   the same of other makers than NVIDIA
    simulator/software/stacks/*.toml        factor: rate of matrix products
                                            dispatch_s, sync_s, expert_launches: host time

All other constants come from kernels, collectives and nets, and stay as they are. Gauss-Newton on
ln(predicted / measured): least squares, linear beyond 4 %; the dense rows of a source weigh as 40
at most; each constant is held by a weak prior at its present value. Prints the mean error of every
source in the fit, and left out: the constants then take one step without its rows, and its rows are
forecast again.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from unittest.mock import patch

import msgspec
import numpy as np

from roofcast import hwdb
from roofcast.hwdb import constants
from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.fits.writing import put_in_profile
from roofcast.scenarios.measured.training import published
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.resolve import resolve
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.parallel.dealing import counted
from roofcast.simulator.parallel.layout import check
from roofcast.simulator.parallel.networks import fabric_of
from roofcast.simulator.parallel.stages import units
from roofcast.simulator.parallel.step import dealt, timed
from roofcast.simulator.parallel.traffic import Placement, network
from roofcast.simulator.software import stack as stacks
from roofcast.simulator.times import inside, power, roofline
from roofcast.simulator.work import step as work

SOFT = 0.04  # errors beyond this count linearly
STEP = 0.05  # of the logarithm of a constant, for differences
CAP = 40  # rows that the dense rows of one source weigh at most
LONGEST_STEP = 0.3  # of the logarithm of a constant, in one round
ROUNDS = 8
# (kernels, section), (table of a family's file, family) or (stack, stacks that share the value) ->
# constant: width of the prior on its logarithm
CONSTANTS = {
    ("kernels", "matmul"): {"in_steps": 0.1, "in_steps_others": 0.3},
    ("stack", "deepspeed-megatron-2022"): {"dispatch_s": 0.3},
    ("stack", "fsdp-torchtitan fsdp-torchtitan-compiled fsdp-fused"): {"factor": 0.3},
    ("stack", "internevo-2023"): {"factor": 0.3},
    (
        "stack",
        "megatron megatron-grouped internevo-2023 te-nemo-2023 te-nemo-2024 te-nemo-2024-experts"
        " te-nemo-2404",
    ): {"sync_s": 1.0},
    (
        "stack",
        "megatron internevo-2023 te-nemo-2023 te-nemo-2024 te-nemo-2024-experts te-nemo-2404"
        " te-nemo-graphs"
        " te-nemo-graphs-a2a te-nemo-capacity",
    ): {"expert_launches": 1.0},
}
# values of constants that no run constrains, where `neutral` has no nearer one; shares are 1
NEUTRAL = {"sync_s": 1e-6, "expert_launches": 1.0}
# stacks on many devices that run PyTorch's products from Python, one per source of steps
PLAIN = ("fsdp-eager", "fsdp-torchtitan", "internevo-2023")
# of CONSTANTS: kernels | table of a family | stack, which, and the constant
Key = tuple[str, str, str]
# traces of the runs of this process, by the identity of their scenarios
TRACES: dict[int, tuple[Scenario, work.Step]] = {}


class Step(NamedTuple):
    """A measured training step."""

    source: str
    experts: bool  # of a mixture of experts
    scenario: Scenario
    measured_s: float


class Fit(NamedTuple):
    """Where the fit ended."""

    values: dict[Key, float]
    errors: np.ndarray  # ln(predicted / measured) of each step
    jacobian: np.ndarray  # change of ln(predicted) per change of ln(constant)
    prior: np.ndarray  # width of the prior of each constant
    moved: np.ndarray  # ln(value / value at the start)


def steps() -> list[Step]:
    """The published steps that the constants are fitted to."""
    return [
        Step(run.source, run.family == "moe", run.scenario, run.measured_s)
        for run in published()
        if run.measured_s and run.scenario and not run.excluded
    ]


def present() -> dict[Key, float]:
    """The constants as the files have them."""
    found = {}
    for (where, which), names in CONSTANTS.items():
        for name in names:
            if where == "kernels":
                found[where, which, name] = getattr(getattr(constants.kernels(), which), name)
                continue
            if where != "stack":
                table = getattr(constants.family(which), where)
                found[where, which, name] = table[name].value
                continue
            stack = stacks.stack(which.split()[0])
            kind = name.removeprefix("overlap.")
            value = getattr(stack, name) if kind == name else stack.overlap[kind]
            found[where, which, name] = value
    return found


@contextmanager
def trial(values: dict[Key, float]) -> Iterator[None]:
    """A context in which stacks and device families have these values."""
    read_stack, read_family = stacks.stack, constants.family
    made_stacks: dict[str, stacks.Stack] = {}
    made_families: dict[str, constants.Family] = {}

    def stack(name: str) -> stacks.Stack:
        if name not in made_stacks:
            made_stacks[name] = _stack_with(read_stack(name), name, values)
        return made_stacks[name]

    def family(name: str) -> constants.Family:
        if name not in made_families:
            made_families[name] = _family_with(read_family(name), name, values)
        return made_families[name]

    kernels = _kernels_with(constants.kernels(), values)
    roofline.rates_of.cache_clear()
    power.board_of.cache_clear()
    try:
        with (
            patch.object(stacks, "stack", stack),
            patch.object(constants, "family", family),
            patch.object(roofline, "constants", lambda: kernels),
        ):
            yield
    finally:
        roofline.rates_of.cache_clear()
        power.board_of.cache_clear()


def _stack_with(stack: stacks.Stack, name: str, values: dict[Key, float]) -> stacks.Stack:
    for (where, which, field), value in values.items():
        if where == "stack" and name in which.split():
            kind = field.removeprefix("overlap.")
            change = (
                {field: value} if kind == field else {"overlap": {**stack.overlap, kind: value}}
            )
            stack = msgspec.structs.replace(stack, **change)
    return stack


def _kernels_with(kernels: constants.Kernels, values: dict[Key, float]) -> constants.Kernels:
    for (where, which, field), value in values.items():
        if where == "kernels":
            section = msgspec.structs.replace(getattr(kernels, which), **{field: value})
            kernels = msgspec.structs.replace(kernels, **{which: section})
    return kernels


def _family_with(family: constants.Family, name: str, values: dict[Key, float]) -> constants.Family:
    for (where, which, field), value in values.items():
        if where not in ("kernels", "stack") and which == name:
            table = {**getattr(family, where), field: constants.Fraction(value, "trial")}
            family = msgspec.structs.replace(family, **{where: table})
    return family


def step_seconds(scenario: Scenario) -> float:
    """Seconds of a step as `forecast` gives them, without the rest of the forecast. No fitted
    constant changes a trace, so that each is made once.
    """
    asked = resolve(scenario)
    x, device = asked.layout, asked.device
    if x is None:
        return forecast(scenario).step_time_s
    recipe = msgspec.structs.replace(asked.recipe, batch=x.micro_batch)
    if id(scenario) not in TRACES:
        traced = work.trace(asked.model, recipe, x.parallel)
        check(x, traced, asked.model.name)
        TRACES[id(scenario)] = scenario, traced
    step = TRACES[id(scenario)][1]._replace(recipe=recipe)
    fabric = fabric_of(asked.system, device, x.devices)
    at = Placement(step, device, x, network(x, fabric))
    rows = units(at, roofline.time_all(step, device))
    return float(timed(at, rows, counted(dealt(at, rows), len(rows))).step_s)


def log_errors(data: list[Step]) -> np.ndarray:
    """ln(predicted / measured) of each step; NaN where it cannot be forecast."""
    found = []
    for step in data:
        try:
            seconds = step_seconds(step.scenario)
            found.append(np.log(seconds / step.measured_s))
        except RoofcastError:
            found.append(np.nan)
    return np.array(found)


def touches(step: Step, key: Key) -> bool:
    """Whether the constant can change the step's forecast."""
    where, which, name = key
    scenario = step.scenario
    if where == "stack":
        return scenario.stack in which.split()
    if where == "kernels":
        device = hwdb.device(scenario.device)
        nvidia = device.vendor == inside.NVIDIA
        return device.kind in ("gpu", "npu") and nvidia == (name == "in_steps")
    precision = scenario.precision or ""
    kind = {"fp16": "bf16", "nvfp4": "fp4"}.get(precision, precision)
    return hwdb.device(scenario.device).family == which and (kind == name or name == "bf16")


def jacobian(data: list[Step], values: dict[Key, float], base: np.ndarray) -> np.ndarray:
    """Change of ln(predicted) per change of ln(constant): a row per step, a column per constant.

    base: `log_errors` at these values.
    """
    matrix = np.zeros((len(data), len(values)))
    for j, key in enumerate(values):
        rows = [i for i, step in enumerate(data) if touches(step, key)]
        with trial({**values, key: values[key] * float(np.exp(STEP))}):
            matrix[rows, j] = (log_errors([data[i] for i in rows]) - base[rows]) / STEP
    return matrix


def neutral(key: Key) -> float:
    """The value of a constant that no run tells: other makers' steps keep what NVIDIA's keep, a
    launch is as long as under the profile that the stack is like, a factor the mean of the other
    stacks that run PyTorch's products from Python (PLAIN); others are NEUTRAL.
    """
    where, which, name = key
    if name == "factor":
        others = [stacks.stack(plain).factor for plain in PLAIN if plain not in which.split()]
        return float(np.exp(np.mean(np.log(others))))
    if name == "in_steps_others":
        return constants.kernels().matmul.in_steps
    if name == "dispatch_s":
        first = stacks.path_of(which.split()[0])
        return stacks.stack(stacks.stated(first)["like"]).dispatch_s
    return NEUTRAL.get(name, 1.0)


def weights(data: list[Step]) -> np.ndarray:
    """Square roots of the weights of the steps.

    The dense rows of a source weigh as their number, at most CAP. Every row of a mixture of experts
    counts in full, since nearly all of them are from one source.
    """
    group = [(step.source, step.experts) for step in data]
    size = {key: group.count(key) for key in set(group)}
    return np.array([1.0 if key[1] else np.sqrt(min(size[key], CAP) / size[key]) for key in group])


def least_squares_step(
    matrix: np.ndarray, errors: np.ndarray, weight: np.ndarray, prior: np.ndarray, moved: np.ndarray
) -> np.ndarray:
    """The step of the logarithms that minimizes the errors, held by the prior."""
    w = weight * (1.0 + (errors / SOFT) ** 2) ** -0.25
    held = SOFT / prior
    a = np.vstack([matrix * w[:, None], np.diag(held)])
    return np.linalg.lstsq(a, np.concatenate([-errors * w, -moved * held]), rcond=None)[0]


def scaled(values: dict[Key, float], moved: np.ndarray) -> dict[Key, float]:
    """The constants, their logarithms moved."""
    return {
        key: value * float(np.exp(move))
        for (key, value), move in zip(values.items(), moved, strict=True)
    }


def fit(data: list[Step], rounds: int = ROUNDS) -> Fit:
    """The constants after `rounds` Gauss-Newton steps from the present values."""
    start = present()
    prior = np.array([CONSTANTS[where, which][name] for where, which, name in start])
    moved = np.zeros(len(start))
    for turn in range(rounds + 1):
        values = scaled(start, moved)
        with trial(values):
            errors = log_errors(data)
        matrix = jacobian(data, values, errors)
        if turn == rounds:
            break
        step = least_squares_step(matrix, errors, weights(data), prior, moved)
        step = np.clip(step, -LONGEST_STEP, LONGEST_STEP)
        mean = 100 * np.mean(np.abs(np.expm1(errors)))
        longest = np.abs(step).max()
        print(f"round {turn}: mean error {mean:.2f} %, largest step {longest:.3f}", flush=True)
        moved = moved + step
    return Fit(values, errors, matrix, prior, moved)


def left_out(data: list[Step], at: Fit) -> dict[str, float]:
    """Mean error of each source when the constants are fitted without it.

    A constant that no other source constrains is then `neutral`.
    """
    weight, found = weights(data), {}
    for source in dict.fromkeys(step.source for step in data):
        kept = np.array([step.source != source for step in data])
        matrix = at.jacobian[kept]
        move = least_squares_step(matrix, at.errors[kept], weight[kept], at.prior, at.moved)
        values = scaled(at.values, move)
        for key, constrained in zip(values, matrix.any(axis=0), strict=True):
            if not constrained:
                values[key] = neutral(key)
        with trial(values):
            errors = log_errors([step for step in data if step.source == source])
        found[source] = float(np.mean(np.abs(np.expm1(errors))))
    return found


def write(values: dict[Key, float]) -> None:
    """Put the constants into the files of their stacks and families."""
    for (where, which, name), value in values.items():
        if where == "stack":
            for path in map(stacks.path_of, which.split()):
                if name in stacks.stated(path):  # others inherit it
                    put_in_profile(path, name, value)
            continue
        file, section = ("kernels.toml", which) if where == "kernels" else ("", where)
        path = constants.HERE / (file or f"families/{which}.toml")
        head, mark, tail = path.read_text(encoding="utf-8").partition(f"[{section}]")
        new = rf"\g<1>{value:.3g}"
        tail = re.sub(rf"^({name}\s*= {{value = )[\d.e-]+", new, tail, count=1, flags=re.M)
        path.write_text(head + mark + tail, encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put the constants into their files")
    options = parser.parse_args()
    data = steps()
    found = fit(data)
    for (where, which, name), value in found.values.items():
        print(f"{where} {which} {name} = {value:.3g}")
    print("source: mean error, with the source left out [%]")
    for source, error in left_out(data, found).items():
        own = [step.source == source for step in data]
        mean = np.mean(np.abs(np.expm1(found.errors[own])))
        print(f"{source}: {100 * mean:.1f}, {100 * error:.1f}")
    if options.write:
        write(found.values)


if __name__ == "__main__":
    main()
