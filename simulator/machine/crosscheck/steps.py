"""Forecasts of training steps and kernels beside what this machine took for them."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.machine.crosscheck import measure
from roofcast.simulator.machine.crosscheck.measure import Session
from roofcast.simulator.machine.crosscheck.net_list import NETS, Net

STACK = {"torch": "pytorch-eager", "numba": str(Path(__file__).with_name("numba-stack.toml"))}
DIFFERENT = 1.2  # pairs whose times differ less are not asked for their order


class Trained(NamedTuple):
    """One training step: forecast and measured."""

    net: Net
    predicted_s: float
    measured_s: float
    noise: float  # relative difference of two halves of the rounds

    @property
    def error(self) -> float:
        """predicted / measured - 1."""
        return self.predicted_s / self.measured_s - 1.0


class Ran(NamedTuple):
    """One kernel of one size: forecast and measured."""

    op: str
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
    """The step of a net, as the forecast is asked for it."""
    size = {"image": {"image": net.size}, "sequence": {"sequence": net.size}, "table": {}}[
        net.takes
    ]
    return Scenario(
        model=net.model,
        device=device,
        batch=net.batch,
        precision="fp32",
        optimizer=net.optimizer,
        stack=STACK[net.by],
        **size,
    )


def training(session: Session, device: str) -> list[Trained]:
    """Every measured net with its forecast on `device`: the name or file of one thread of this
    machine.
    """
    rows = []
    for net in NETS:
        found = session.found.get(measure.key(net))
        if found:
            rows.append(
                Trained(
                    net, forecast(scenario(net, device)).step_time_s, found.seconds, found.noise
                )
            )
    return rows


def median(values) -> float:
    """The middle one.

    >>> median([3.0, 1.0, 2.0])
    2.0
    """
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else 0.5 * (ordered[half - 1] + ordered[half])


def ranked(rows) -> tuple[int, int]:
    """Pairs ordered right, of those whose measured times differ by more than a fifth.

    >>> from types import SimpleNamespace as Row
    >>> ranked([Row(predicted_s=1, measured_s=1), Row(predicted_s=3, measured_s=2), Row(predicted_s=2, measured_s=2.1)])
    (2, 2)
    """
    right = asked = 0
    for a, b in combinations(rows, 2):
        slow, fast = (a, b) if a.measured_s > b.measured_s else (b, a)
        if slow.measured_s > DIFFERENT * fast.measured_s:
            asked += 1
            right += slow.predicted_s > fast.predicted_s
    return right, asked


def to_json(kernels: list[Ran], trained: list[Trained]) -> dict:
    """What --json prints."""
    shared = ("predicted_s", "measured_s", "error", "noise")
    return {
        "kernels": [
            {key: getattr(r, key) for key in ("op", "size", "threads", *shared)} for r in kernels
        ],
        "training": [
            {"model": measure.key(r.net)} | {key: getattr(r, key) for key in shared}
            for r in trained
        ],
    }
