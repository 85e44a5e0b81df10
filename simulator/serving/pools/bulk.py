"""A queue whose server takes all that wait, up to k at once, as an instance that computes prompts.

Requests arrive at random, L per second and instance, each of m equal parts; a pass of b parts takes
S(b) seconds, so that one may hold a part of a request, the rest of which comes first in the next.
The number n of parts that wait when a pass ends is a Markov chain: the next pass takes
b = min(n, k), before which an idle server waits for a request, n = m, and leaves

    n' = n - b + m Poisson(L S(b))

Its stationary distribution, solved as linear equations, gives the time that an instance computes,
and by Little's law the mean wait; for k = 1 they are those of M/D/1. Where a router gives a request
to the instance with the fewest of c, one waits only where all are busy. While n < c are, each has
one request; all of them end at the rate at which one that is alone would:

    P(n) / P(n-1) = c L S(1) / n,   n < c;      P(c) / P(c-1) = busy / (1 - busy) of one alone

for k = 1 the formula of Erlang for c servers; what is ahead of a request is then served by all. A
router that does not know when a pass ends does worse than one queue for all instances, and better
than that: for k = 1 the wait is taken half-way between, within 5 % of simulations of 2 to 4.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.protocol import Numbers

# shares of the capacity at which the chain is solved; between them and beyond what is interpolated
# changes little
LOADS = np.array([0.001, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
LEAST = 1e-12  # probability that is not told from none
TAIL = 16.0  # -ln of the probability of more that wait than states


class At(NamedTuple):
    """What `Alone` is interpolated in, at shares of the capacity."""

    odds: np.ndarray  # ln of the odds over the share
    rest: np.ndarray
    ahead: np.ndarray  # times the share that is idle
    own: np.ndarray
    loose: np.ndarray


class Queue(Protocol):
    """An instance by itself under any load."""

    def at(self, use: Numbers) -> At:
        """At shares of its capacity, up to the last of `LOADS`."""
        ...


class Alone(NamedTuple):
    """One instance by itself, at each of `LOADS`."""

    odds: np.ndarray  # time that it computes over time that it is idle
    rest: np.ndarray  # of the pass that a request meets [s]
    ahead: np.ndarray  # the passes of those before it, where it meets one [s]
    own: np.ndarray  # requests of its pass, where it meets one
    loose: np.ndarray  # probability that a pass takes all that wait and could take one more
    many: np.ndarray  # requests of a pass

    @property
    def curves(self) -> At:
        """What is interpolated."""
        return At(
            np.log(self.odds / LOADS), self.rest, self.ahead * (1.0 - LOADS), self.own, self.loose
        )

    def at(self, use: Numbers) -> At:
        """As `Queue` has it."""
        return At(*(np.interp(use, LOADS, each) for each in self.curves))


def alone(seconds: np.ndarray, capacity: float, parts: int = 1) -> Alone:
    """seconds: passes of 1 to k parts; capacity: requests per second, at most; parts: of a request,
    m.
    """
    return Alone(*np.array([_solved(seconds, u * capacity, u, parts) for u in LOADS]).T)


def _solved(seconds: np.ndarray, rate: float, use: float, m: int) -> tuple[float, ...]:
    """The chain at a rate that is this share of the capacity."""
    k, each = len(seconds), float(seconds[0])
    usual, upto = 1.0, np.arange(1.0, k + 1.0)
    for _ in range(20):
        usual = min(max(m * rate * each, 1.0), float(k))
        each = float(np.interp(usual, upto, seconds))
    # parts of a pass, about
    several = int(min(usual + 6.0 * m * np.sqrt(usual / m) + 8.0 * m, k))
    states = several + m * int(TAIL / (2.0 * (1.0 - use)) + TAIL)
    n = np.arange(states)
    b = np.clip(n, 1, k)
    b[0] = min(m, k)
    took, left = seconds[b - 1], np.maximum(n - b, 0)
    left[0] = m - b[0]
    sizes, kind = np.unique(b, return_inverse=True)  # of passes
    met = rate * seconds[sizes - 1][:, None]
    j = np.arange(-(-states // m) + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, len(j))))])  # ln j!
    coming = np.exp(j * np.log(met) - met - logs)
    moves = np.zeros((states, states))
    place = n - left[:, None]
    there = (place >= 0) & (place % m == 0)
    moves[there] = coming[kind[:, None], np.maximum(place // m, 0)][there]
    moves[:, -1] += 1.0 - moves.sum(axis=1)
    equations = moves.T - np.eye(states)
    equations[-1] = 1.0
    share = np.linalg.solve(equations, np.append(np.zeros(states - 1), 1.0))
    busy, idle = float(share @ took), max(float(share[0]), LEAST) / rate
    whole = -(-left // m)  # requests of which a part is left
    done = -(-np.where(n > 0, n, m) // m) - whole
    waits = float(share @ (whole * took + rate * took * took / 2.0)) / rate / (busy + idle)
    rest = float(share @ (took * took)) / 2.0 / busy
    works = busy / (busy + idle)
    # of one that finds the server idle: passes before the last one of its own parts, and that one
    before = (m - 1) // int(b[0])
    wait = (waits - (1.0 - works) * before * float(took[0])) / works
    own = float(share @ (done * b)) / float(share @ done)
    own = (own - (1.0 - works) * (m - before * int(b[0]))) / works / m
    many, loose = float(share @ b) / m, float(share[: max(k - m, 0) + 1].sum())
    return busy / idle, rest, max(wait - rest, 0.0), own, loose if k >= 2 * m else 0.0, many


def shared(
    of: Queue,
    first: Numbers,
    capacity: Numbers,
    rate: Numbers,
    instances: Numbers,
    single: Numbers | None = None,
) -> tuple[Numbers, Numbers, Numbers]:
    """Probability that all instances are busy, and where they are, the wait [s] and the requests of
    the pass. One that arrives meets m + 1 others in the pass behind m in the mean; where instances
    take them in turns, m + 1 / c.

    first: the pass of one request; rate: of an instance; single: whether a pass takes one at
    most, where that is known.
    """
    use = rate / capacity
    at = of.at(np.minimum(use, LOADS[-1]))
    odds, ahead = use * np.exp(at.odds), at.ahead / (1.0 - use)
    rest, own, loose = at.rest, at.own, at.loose
    n, offered = np.asarray(instances, dtype=float), rate * instances * first
    full: Numbers = np.ones_like(n + offered)  # that all but one are busy, of one fewer instances
    blocked = full
    for others in range(1, int(np.max(n))):
        blocked = offered * blocked / (others + offered * blocked)
        full = np.where(n > others, blocked, full)
    busy = full * odds / (1.0 + full * odds)
    least, wait = np.minimum(own, 1.0), rest + ahead / n
    if single is None:
        single = np.isclose(first * capacity, 1.0, rtol=1e-9, atol=0.0)
    if np.any(single):
        common = _common(np.maximum(use, LOADS[0]), n) * first / (n * (1.0 - use))
        less = single & (n > 1.0)
        wait = np.where(less, (wait + np.minimum(common, wait)) / 2.0, wait)
    return busy, wait, np.maximum(own - loose * (1.0 - 1.0 / n), least)


def _common(use: Numbers, n: Numbers) -> Numbers:
    """The wait in one queue for n servers of constant service, as a share of that of exponential
    service, M/D/n over M/M/n [cosmetatos1975].
    """
    more = (1.0 - use) * (n - 1.0) * (np.sqrt(4.0 + 5.0 * n) - 2.0) / (16.0 * use * n)
    return (1.0 + more) / 2.0
