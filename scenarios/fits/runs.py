"""Fit what only whole training steps can tell, to the published runs: run by hand, `python -m
roofcast.scenarios.fits.runs [--write]`.

    what products hold inside training steps, a device family and format      hwdb/families/*.toml
                                                                              [trained]
    one factor on products, the rate of an old attention kernel, what a launch or a wait for token
    counts costs the host,
    how sharply gathered weights hide behind compute                          simulator/software/stacks/*.toml

Everything else comes from kernels and collectives and is not touched. Least squares on ln(predicted
/ measured), soft beyond 4 %, the weight of a source's dense rows capped at 40, each constant held
by a weak prior at its present value. With a source left out the constants take one step from there
without its rows, and its rows are forecast anew.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from contextlib import contextmanager

import msgspec
import numpy as np

from roofcast import hwdb
from roofcast.hwdb import constants
from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.measured.training import LlmRun, published
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.software import stack as stacks
from roofcast.simulator.times import roofline

SOFT, STEP, CAP = 0.04, 0.05, 40
MOST = 1.0  # of the rate alone is what products can hold in training; Volta's few rows ask for more
# (where, which, or which ones share it): name of the constant -> width of the prior on its
# logarithm
CONSTANTS = {
    ("trained", "ampere"): {"bf16": 0.1},
    ("trained", "hopper"): {"bf16": 0.3, "fp8": 0.3},
    ("trained", "blackwell"): {"fp8": 0.3, "fp4": 0.3},
    ("trained", "volta"): {"bf16": 0.3},
    ("trained", "trainium"): {"bf16": 0.3},
    ("stack", "deepspeed-megatron-2022"): {"dispatch_s": 0.3},
    ("stack", "fsdp-eager"): {"attention": 0.3, "factor": 0.3},
    ("stack", "fsdp-torchtitan fsdp-fused internevo-2023"): {"attention": 0.1},
    ("stack", "internevo-2023"): {"factor": 0.3},
    ("stack", "maxtext"): {"attention": 0.15, "factor": 0.3, "overlap.fsdp": 0.3},
    ("stack", "megatron-bridge-2026"): {"overlap.ep": 0.3},
    ("stack", "te-nemo-2024 te-nemo-2023 megatron internevo-2023"): {"sync_s": 1.0},
    ("stack", "te-nemo-graphs"): {"sync_s": 1.0},
    ("stack", "te-nemo-2024 te-nemo-graphs te-nemo-2023 megatron internevo-2023"): {
        "expert_launches": 1.0
    },
}
NEUTRAL = {  # shares: 1
    "factor": 1.0,
    "attention": 1.0,
    "dispatch_s": 1e-5,
    "sync_s": 1e-6,
    "expert_launches": 1.0,
    "overlap.fsdp": 6.0,
    "overlap.ep": 1.0,
}
"""What a constant is where no run tells."""
Key = tuple[str, str, str]


def present() -> dict[Key, float]:
    """The constants as the files have them."""
    found = {}
    for (where, which), names in CONSTANTS.items():
        for name in names:
            if where == "trained":
                found[where, which, name] = constants.family(which).trained[name].value
            else:
                stack = stacks.stack(which.split()[0])
                found[where, which, name] = (
                    stack.overlap[name[8:]] if name.startswith("overlap.") else getattr(stack, name)
                )
    return found


@contextmanager
def trial(values: dict[Key, float]):
    """Inside, stacks and families have these values."""
    read_stack, read_family = stacks.stack, constants.family
    made_stacks, made_families = {}, {}

    def stack(name):
        if name not in made_stacks:
            s = read_stack(name)
            for (where, which, field), value in values.items():
                if where == "stack" and name in which.split():
                    new = (
                        {"overlap": {**s.overlap, field[8:]: value}}
                        if field.startswith("overlap.")
                        else {field: value}
                    )
                    s = msgspec.structs.replace(s, **new)
            made_stacks[name] = s
        return made_stacks[name]

    def family(name):
        if name not in made_families:
            f = read_family(name)
            new = {
                field: constants.Fraction(value, "trial")
                for (where, which, field), value in values.items()
                if (where, which) == ("trained", name)
            }
            made_families[name] = msgspec.structs.replace(f, trained={**f.trained, **new})
        return made_families[name]

    stacks.stack, constants.family = stack, family
    roofline.rates_of.cache_clear()
    try:
        yield
    finally:
        stacks.stack, constants.family = read_stack, read_family
        roofline.rates_of.cache_clear()


def log_errors(runs: list[LlmRun]) -> np.ndarray:
    """ln(predicted / measured) of each run; NaN where it is refused."""
    found = []
    for run in runs:
        try:
            found.append(np.log(forecast(run.scenario).step_time_s / run.measured_s))
        except RoofcastError:
            found.append(np.nan)
    return np.array(found)


def touches(run: LlmRun, key: Key) -> bool:
    """Can the constant change the run's forecast?"""
    where, which, name = key
    if where == "stack":
        return run.scenario.stack in which.split()
    kind = {"fp16": "bf16", "nvfp4": "fp4"}.get(run.scenario.precision, run.scenario.precision)
    return hwdb.device(run.scenario.device).family == which and (kind == name or name == "bf16")


def jacobian(runs: list[LlmRun], values: dict[Key, float], base: np.ndarray) -> np.ndarray:
    """Change of ln(predicted) a change of ln(constant)."""
    matrix = np.zeros((len(runs), len(values)))
    for j, key in enumerate(values):
        rows = [i for i, run in enumerate(runs) if touches(run, key)]
        with trial({**values, key: values[key] * float(np.exp(STEP))}):
            matrix[rows, j] = (log_errors([runs[i] for i in rows]) - base[rows]) / STEP
    return matrix


def weights(runs: list[LlmRun]) -> np.ndarray:
    """A source counts as many dense rows as it has, at most CAP; mixtures of experts come from one
    source in the main: each row counts.
    """
    group = [(run.source, run.family == "moe") for run in runs]
    size = {key: group.count(key) for key in set(group)}
    return np.array([1.0 if key[1] else np.sqrt(min(size[key], CAP) / size[key]) for key in group])


def moved(matrix, errors, weight, prior, offset) -> np.ndarray:
    """The step of the logarithms that least squares asks for, held by the prior."""
    w = weight * (1.0 + (errors / SOFT) ** 2) ** -0.25
    held = SOFT / prior
    a = np.vstack([matrix * w[:, None], np.diag(held)])
    return np.linalg.lstsq(a, np.concatenate([-errors * w, -offset * held]), rcond=None)[0]


def fit(runs: list[LlmRun], rounds: int = 8):
    """Fitted constants, errors there, and the Jacobian."""
    start = present()
    prior = np.array([CONSTANTS[where, which][name] for where, which, name in start])
    at = np.zeros(len(start))
    for turn in range(rounds + 1):
        values = {
            key: value * float(np.exp(move))
            for (key, value), move in zip(start.items(), at, strict=True)
        }
        with trial(values):
            errors = log_errors(runs)
        matrix = jacobian(runs, values, errors)
        if turn == rounds:
            return values, errors, matrix, prior, at
        step = np.clip(moved(matrix, errors, weights(runs), prior, at), -0.3, 0.3)
        print(
            f"round {turn}: mean error {100 * np.mean(np.abs(np.expm1(errors))):.2f} %, largest"
            f" step {np.abs(step).max():.3f}",
            flush=True,
        )
        at = at + step


def left_out(runs: list[LlmRun], values, errors, matrix, prior, at) -> dict[str, float]:
    """Mean error of each source where the constants are fitted without it; one that it alone tells
    is then neutral.
    """
    weight, found = weights(runs), {}
    for source in dict.fromkeys(run.source for run in runs):
        own = np.array([run.source == source for run in runs])
        step = moved(matrix[~own], errors[~own], weight[~own], prior, at)
        untold = ~matrix[~own].any(axis=0)
        others = {
            key: NEUTRAL.get(key[2], 1.0) if alone else value * float(np.exp(move))
            for (key, value), move, alone in zip(values.items(), step, untold, strict=True)
        }
        with trial(others):
            found[source] = float(
                np.mean(np.abs(np.expm1(log_errors([run for run in runs if run.source == source]))))
            )
    return found


def stated(text: str, name: str, value: float) -> str:
    """A stack profile that states the constant: where it stands, or, where it was inherited, above
    the first table.

    >>> stated('like = "megatron"\\n\\n[implementations]\\nattention = "flash"\\n', "attention", 0.5)
    'like = "megatron"\\nattention = 0.5\\n\\n[implementations]\\nattention = "flash"\\n'
    >>> stated("overlap = {tp = 4.0}\\n", "overlap.ep", 1.6)
    'overlap = {tp = 4.0, ep = 1.6}\\n'
    """
    head, mark, tables = text.partition("\n[")
    key, line = name, f"{name} = {value:.3g}"
    if name.startswith("overlap."):
        own = {**tomllib.loads(head).get("overlap", {}), name[8:]: round(value, 1)}
        key, line = (
            "overlap",
            f"overlap = {{{', '.join(f'{kind} = {power}' for kind, power in own.items())}}}",
        )
    if re.search(rf"^{key} = ", head, re.M):
        head = re.sub(
            rf"^{key} = [^#\n]*[^#\s]", line, head, flags=re.M
        )  # what is said behind a # stays
    else:
        head = f"{head.rstrip()}\n{line}\n"
    return head + mark + tables


def written(values: dict[Key, float]) -> None:
    """Put the constants into their files."""
    for (where, which, name), value in values.items():
        if where == "stack":
            for path in map(stacks.path_of, which.split()):
                path.write_text(
                    stated(path.read_text(encoding="utf-8"), name, value), encoding="utf-8"
                )
            continue
        path = constants.HERE / "families" / f"{which}.toml"
        head, mark, tail = path.read_text(encoding="utf-8").partition("[trained]")
        tail = re.sub(
            rf"^{name} = {{value = [\d.]+",
            f"{name} = {{value = {min(value, MOST):.3f}",
            tail,
            flags=re.M,
        )
        path.write_text(head + mark + tail, encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put the constants into their files")
    asked = parser.parse_args()
    runs = [run for run in published() if run.measured_s and run.scenario and not run.excluded]
    values, errors, matrix, prior, at = fit(runs)
    for (where, which, name), value in values.items():
        print(f"{where} {which} {name} = {value:.3g}")
    print("source: mean error, with the source left out [%]")
    for source, error in left_out(runs, values, errors, matrix, prior, at).items():
        own = [run.source == source for run in runs]
        print(f"{source}: {100 * np.mean(np.abs(np.expm1(errors[own]))):.1f}, {100 * error:.1f}")
    if asked.write:
        written(values)


if __name__ == "__main__":
    main()
