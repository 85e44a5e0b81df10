"""Which requests a replay sends, and which of them count: those that meet the load in full.

At a rate, requests before the ones that count fill the system, and requests behind them keep it
full. In a closed loop the first requests of all users come together; they count as much as the mean
values take them to. The others are replayed apart, of users who are mixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.capacity import Room
from roofcast.simulator.serving.load import Load, Requests, requests
from roofcast.simulator.serving.means import Mean
from roofcast.simulator.serving.replay import Replayed, replay
from roofcast.simulator.serving.result import Spread
from roofcast.simulator.serving.steps import Steps

FILL = 3  # times as many requests as are under way, before those that count
PERCENT = (50, 90, 99)
TIMES = ("ttft", "tpot", "e2e", "queued")


class Sample(NamedTuple):
    """Requests that count, and the weight of each; the sum of the weights is 1."""

    found: Replayed
    weight: np.ndarray
    means: bool = False  # whether the mean values of the forecast are those of these requests

    def mean(self, name: str) -> float:
        """Mean of a time over the requests that have it [s]."""
        values, weight = self._having(name)
        return float(weight @ values / weight.sum()) if len(values) else 0.0

    def percentile(self, name: str, percent: float) -> float:
        """The least value of a time that this share of the requests does not exceed [s]."""
        values, weight = self._having(name)
        order = np.argsort(values, kind="stable")
        reached = np.cumsum(weight[order]) / weight.sum()
        place = min(int(np.searchsorted(reached, percent / 100 - 1e-9)), len(order) - 1)
        return float(values[order[place]])

    def _having(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        values = getattr(self.found, name)
        there = np.isfinite(values)
        return values[there], self.weight[there]


def alike(found: Replayed) -> Sample:
    """All requests of a replay, with the same weight."""
    count = len(found.e2e)
    return Sample(found, np.full(count, 1.0 / count))


def together(samples: list[Sample]) -> Sample:
    """The requests of several replicas."""
    parts: dict[str, Any] = {
        name: np.concatenate([getattr(s.found, name) for s in samples]) for name in TIMES
    }
    sizes = np.concatenate([s.weight * len(s.weight) for s in samples])
    last = max(s.found.seconds for s in samples)
    lost = sum(s.found.preempted for s in samples)
    every = samples[0].found._replace(**parts, seconds=last, preempted=lost)
    return Sample(every, sizes / sizes.sum())


def at_rate(steps: Steps, load: Load, count: int, held: Room, there: float, way: float) -> Sample:
    """`count` requests that arrive at random at exactly the rate of the load.

    there: requests under way at once, about; way: seconds from the client to the engine.
    """
    before, behind = math.ceil(FILL * there), math.ceil(there)
    sent = requests(load, before + count + behind)
    start = float(sent.arrival[before - 1]) if before else 0.0
    span = float(sent.arrival[before + count - 1]) - start
    sent = sent._replace(arrival=sent.arrival * (count / load.amount / max(span, 1e-12)))
    return alike(replay(steps, sent, held, None, way).part(before, before + count))


def in_loop(
    load: Load, count: int, share: float, cycle: float, run: Callable[[Requests, int], Replayed]
) -> Sample:
    """`count` requests of users who wait for their answers.

    share: of the requests that come all together, one of each user; the others are those of users
    of whom each is at another point of a request, as they are where lengths differ and time has
    passed: each starts at a random time in `cycle` seconds, those of a request, and the first one
    of each does not count. As many requests behind the last ones keep the others busy. run: a
    replay of requests for so many users.
    """
    users = int(load.amount)
    together = min(users, count) if share else 0
    others = max(count - together, 0 if share >= 1.0 else 1)
    sent = requests(load, 2 * users + others)
    both = []
    if together:
        both.append(run(Requests(*(v[: 2 * users] for v in sent)), users).part(0, together))
    if others:
        sent.arrival[:users] = cycle * np.sort(np.random.default_rng((load.seed, 1)).random(users))
        both.append(run(sent, users).part(users, users + others))
    return alike(both[0]) if len(both) == 1 else _both(both[0], both[1], share)


def _both(first: Replayed, rest: Replayed, share: float) -> Sample:
    """The requests of two replays; share: of the first."""
    parts: dict[str, Any] = {
        name: np.concatenate([getattr(first, name), getattr(rest, name)]) for name in TIMES
    }
    counts = len(first.e2e), len(rest.e2e)
    weight = np.repeat([share / counts[0], (1.0 - share) / counts[1]], counts)
    lost = first.preempted + rest.preempted
    return Sample(rest._replace(**parts, preempted=lost), weight)


def seen(found: Mean, sample: Sample, way: float) -> Mean:
    """The mean values of a replay that goes by them: of a rate, and of a trace.

    Little's law gives the sequences that decode: requests per second times the time from the first
    to the last token of one.
    """
    ttft, e2e = sample.mean("ttft"), sample.mean("e2e")
    return found._replace(
        ttft=ttft,
        tpot=sample.mean("tpot"),
        e2e=e2e,
        decoding=found.requests_per_s * (e2e - ttft),
        waiting=0.0,
        overhead=way,
        queue=sample.mean("queued"),
    )


def spreads(found: Mean, sample: Sample | None) -> dict[str, Spread]:
    """Mean times with their percentiles: those of the sample, around these means."""
    means = {"ttft": found.ttft, "tpot": found.tpot, "e2e": found.e2e}
    if sample is None:
        return {name: Spread(mean=value) for name, value in means.items()}
    made = {}
    for name, value in means.items():
        own = sample.mean(name)
        if own <= 0.0:
            made[name] = Spread(mean=value)
            continue
        p50, p90, p99 = (value / own * sample.percentile(name, p) for p in PERCENT)
        made[name] = Spread(mean=value, p50=p50, p90=p90, p99=p99)
    return made
