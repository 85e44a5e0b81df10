"""Forecasts of training steps and kernels compared with measurements on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.machine.crosscheck import measure
from roofcast.simulator.machine.crosscheck.measure import Session
from roofcast.simulator.machine.crosscheck.net_list import NETS, Net

STACK = {"torch": "pytorch-eager", "numba": str(Path(__file__).with_name("numba-stack.toml"))}
DIFFERENT = 1.2  # minimum ratio of the times of a pair whose order is checked


class Trained(NamedTuple):
    """One training step: forecast and measured."""

    net: Net
    predicted_s: float
    measured_s: float
    noise: float  # relative difference between two halves of the rounds
    threads: int = 1

    @property
    def error(self) -> float:
        """predicted / measured - 1."""
        return self.predicted_s / self.measured_s - 1.0


class Ran(NamedTuple):
    """One kernel of one size: forecast and measured."""

    op: str  # name of the kernel
    size: str
    threads: int
    predicted_s: float
    measured_s: float
    noise: float

    @property
    def error(self) -> float:
        """predicted / measured - 1."""
        return self.predicted_s / self.measured_s - 1.0


def scenario(net: Net, device: str) -> Scenario:
    """The scenario that forecasts the training step of a net."""
    return Scenario(
        model=net.model,
        device=device,
        batch=net.batch,
        precision="fp32",
        optimizer=net.optimizer,
        stack=STACK[net.by],
        image=net.size if net.takes == "image" else None,
        sequence=net.size if net.takes == "sequence" else None,
    )


def training(session: Session, device: str, threads: int = 1) -> list[Trained]:
    """Every measured net with its forecast on this machine (name or file of the device)."""
    rows = []
    for net in NETS:
        found = session.found.get(measure.key(net))
        if found:
            predicted = forecast(scenario(net, device)).step_time_s
            rows.append(Trained(net, predicted, found.seconds, found.noise, threads))
    return rows


def median(values: Iterable[float]) -> float:
    """The median.

    >>> median([3.0, 1.0, 2.0])
    2.0
    """
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else 0.5 * (ordered[half - 1] + ordered[half])


def ranked(rows: Sequence[Trained]) -> tuple[int, int]:
    """Pairs in the right order, and pairs whose measured times differ by more than a fifth.

    >>> net = NETS[0]
    >>> ranked([Trained(net, 1, 1, 0), Trained(net, 3, 2, 0), Trained(net, 2, 2.1, 0)])
    (2, 2)
    """
    right = pairs = 0
    for a, b in combinations(rows, 2):
        slow, fast = (a, b) if a.measured_s > b.measured_s else (b, a)
        if slow.measured_s > DIFFERENT * fast.measured_s:
            pairs += 1
            right += slow.predicted_s > fast.predicted_s
    return right, pairs


def to_json(kernels: list[Ran], trained: list[Trained]) -> dict:
    """The output of --json."""
    shared = ("predicted_s", "measured_s", "error", "noise")
    own = ("op", "size", "threads")
    return {
        "kernels": [{key: getattr(r, key) for key in (*own, *shared)} for r in kernels],
        "training": [
            {"model": measure.key(r.net), "threads": r.threads}
            | {key: getattr(r, key) for key in shared}
            for r in trained
        ],
    }
