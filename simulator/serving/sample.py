"""Which requests a replay sends, and which of them count: those that meet the load in full.

At a rate, requests before the ones that count fill the system, and requests behind them keep it
full. In a closed loop the first requests of all users come together; they count as much as the mean
values take them to. The others are replayed apart, of users who are mixed, and where users fall in
step several times, since each time they do so otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.load import Load, Requests, requests
from roofcast.simulator.serving.means import Mean
from roofcast.simulator.serving.replay import Replayed
from roofcast.simulator.serving.result import CLOSED, REPLAY, Spread

FILL = 3  # times as many requests as are under way, before those that count
PERCENT = (50, 90, 99)
TIMES = ("ttft", "tpot", "e2e", "queued")
KNOWN = 0.03  # error of mean times at which requests are drawn no more
DRAWS, MOST = 16, 20_000  # of requests, at most; requests of all draws
PARTS = 8  # of a draw, whose means tell the error, too
MEANS = ("ttft", "tpot")  # end to end follows
Run = Callable[[Requests, int | None, int], Replayed]
"""A replay of requests for so many users, of which so many first ones are needed."""


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


def at_rate(load: Load, count: int, there: float, run: Run, means: bool = False) -> Sample:
    """`count` requests that arrive at random at exactly the rate of the load.

    there: requests under way at once, about. means: that the mean values are wanted, too: requests
    are drawn again until these are known.
    """
    before, behind = math.ceil(FILL * there), math.ceil(there)

    def draw(number: int) -> Replayed:
        sent = requests(load, before + count + behind, number)
        start = float(sent.arrival[before - 1]) if before else 0.0
        span = float(sent.arrival[before + count - 1]) - start
        sent = sent._replace(arrival=sent.arrival * (count / load.amount / max(span, 1e-12)))
        return run(sent, None, before + count).part(before, before + count)

    return _joined([], _drawn(draw, 1, MOST // count if means else 1), 0.0)


def in_loop(
    load: Load,
    count: int,
    share: float,
    cycle: float,
    run: Run,
    means: bool = False,
    taken: float = 0.0,
) -> Sample:
    """`count` requests of users who wait for their answers.

    share: of the requests that come all together, one of each user; the others are those of users
    of whom each is at another point of a request, as they are where lengths differ and time has
    passed: each starts at a random time in `cycle` seconds, those of a request, and the first one
    of each does not count. Requests behind the last ones keep the others busy. means: that the
    mean values are wanted, too: the others are drawn several times, as many requests in two draws,
    and more until these are known.

    taken: places of users of whom others wait for one; 0 where none does. These are decoding at the
    start, each at another token of its answer, and the others stand in the queue. The queue that
    requests which come together meet is still filling: they are counted as if they had waited for
    as long as the others, so that users at once = requests per second x end to end.
    """
    users = int(load.amount)
    together = min(users, count) if share else 0
    others = max(count - together, 0 if share >= 1.0 else 1)
    first = []
    if together:
        sent = requests(load, 2 * users)._replace(arrival=np.zeros(2 * users))
        first.append(run(sent, users, users).part(0, together))
    if not others:
        return alike(first[0])

    def mixed(draw: int) -> Replayed:
        sent = requests(load, 2 * users + each, draw)
        starts = np.random.default_rng((load.seed, draw, 1)).random(users)
        if taken:
            sent = _under_way(sent, starts[: max(round(taken), 1)])
        else:
            sent.arrival[:users] = cycle * np.sort(starts)
        return run(sent, users, users + each).part(users, users + each)

    several = means and users > 1
    each = math.ceil(others / 2) if several else others
    drawn = _drawn(mixed, 2, MOST // each) if several else [mixed(0)]
    if first and taken:
        first = [_waited(first[0], float(np.mean([one.e2e.mean() for one in drawn])))]
    return _joined(first, drawn, share)


def _under_way(sent: Requests, shares: np.ndarray) -> Requests:
    """Requests of which the first ones are decoding at the start, of each a share of its answer is
    there already: all but the last token of that is in the cache.
    """
    first = slice(len(shares))
    made = np.floor(shares * (sent.output[first] - 1)).astype(np.int64)
    asked, left, cached = (values.copy() for values in (sent.input, sent.output, sent.cached))
    asked[first] += made
    left[first] -= made
    cached[first] = asked[first] - 1
    return sent._replace(input=asked, output=left, cached=cached)


def _waited(found: Replayed, e2e: float) -> Replayed:
    """Requests that wait longer, all alike, until they take at least so long in the mean [s]."""
    late = max(e2e - float(found.e2e.mean()), 0.0)
    longer = {name: getattr(found, name) + late for name in ("ttft", "e2e", "queued")}
    return found._replace(**longer)


def loop_rate(load: Load, found: Sample, waits: bool) -> float:
    """Requests per second of users who send one each in the time of one (Little's law).

    waits: whether users wait for a place. Where all requests that count are the first ones, the
    queue only empties: then from the first request to the last answer.
    """
    burst = load.requests is not None and load.requests <= load.amount
    return load.amount / (found.found.seconds if burst and waits else found.mean("e2e"))


def looped(found: Mean, load: Load, met: Sample, highest: float) -> tuple[Mean, float]:
    """Mean values with the rate of a replayed closed loop, and the share of a request by which each
    is later than replayed: as mean values, no loop is above the highest rate.
    """
    if load.kind != "concurrency":
        return found, 0.0
    rate = loop_rate(load, met, found.waiting > 0.0)
    capped = min(rate, highest)
    return found._replace(requests_per_s=capped, use=capped / highest), rate / capped - 1.0


def _drawn(draw: Callable[[int], Replayed], fewest: int, most: int) -> list[Replayed]:
    """So many draws of requests, and more until their mean times are known, but not over `most`."""
    found = [draw(number) for number in range(fewest)]
    while len(found) < min(most, DRAWS) and _error(found) > KNOWN:
        found.append(draw(len(found)))
    return found


def _error(drawn: Sequence[Replayed]) -> float:
    """Two standard errors of a mean time, the largest, as a share of it: between draws, and at
    least as between parts of them.
    """
    found = []
    for name in MEANS:
        each = [_having(getattr(one, name)) for one in drawn]
        if not all(len(one) for one in each):
            continue
        parts = [float(p.mean()) for one in each for p in np.array_split(one, PARTS) if len(p)]
        own = [float(one.mean()) for one in each]
        found.append(max(_spread(own), _spread(parts)) / float(np.mean(own)))
    return 2.0 * max(found, default=0.0)


def _having(values: np.ndarray) -> np.ndarray:
    """The numbers among values."""
    return values[np.isfinite(values)]


def _spread(values: Sequence[float]) -> float:
    """Standard error of the mean of values; 0 of a single one."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _joined(first: Sequence[Replayed], rest: Sequence[Replayed], share: float) -> Sample:
    """The requests of several replays; share: of the first one, where there is one."""
    every = [*first, *rest]
    parts: dict[str, Any] = {
        name: np.concatenate([getattr(each, name) for each in every]) for name in TIMES
    }
    behind = sum(len(each.e2e) for each in rest)
    before = len(parts["e2e"]) - behind
    share = share if before else 0.0
    weight = np.repeat([share / max(before, 1), (1.0 - share) / behind], [before, behind])
    lost = sum(each.preempted for each in every)
    return Sample(rest[0]._replace(**parts, preempted=lost), weight)


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


def means_of(sample: Sample | None) -> str:
    """What the means of a forecast are from."""
    return REPLAY if sample is not None and sample.means else CLOSED


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
