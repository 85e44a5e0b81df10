"""Mean values of two pools: prompts wait for an instance that computes them, their cache passes to
one that decodes, and no prompt delays a token.

An instance of the prefill pool takes as many waiting prompts into a pass as a chunk holds: the
queue of `bulk.py`, whose router gives a prompt to the instance with the fewest.

An instance of the decode pool with B sequences makes a token of each in a step of d(B) seconds, and
X = B / ((output - 1) d(B)) requests per second (Little's law).
"""

from __future__ import annotations

import math
from functools import cached_property

import msgspec
import numpy as np

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.capacity import Room
from roofcast.simulator.serving.costs import Costs
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.means import WAVE, Mean, solve
from roofcast.simulator.serving.pools.asked import Pair
from roofcast.simulator.serving.pools.bulk import LOADS, Alone, alone, shared
from roofcast.simulator.serving.protocol import Numbers, Server
from roofcast.simulator.serving.speculation import Speculation
from roofcast.simulator.serving.steps import FINE, grid

NEAR = 0.999  # of what the pools can serve, that a closed loop reaches at most
MOST_PARTS, LOST = 4, 0.03  # of a prompt; share of a chunk
BINDS = ("prefill", "transfer", "decode")


class Prompts:
    """An instance of the prefill pool, at the lengths of a load."""

    def __init__(self, server: Server, load: Load, places: float) -> None:
        self.request_s, self.user_s = float(server.request_s), float(server.user_s)
        chunk = max(int(server.chunk_tokens), 1)
        self.parts, most = parts(chunk / load.new)
        k = int(max(min(most, self.parts * places), 1))
        full = 1 < most <= k
        self.most = k / self.parts
        """Prompts of a pass, at most."""
        units = np.array(grid(1, max(k, 2), FINE)) / self.parts
        sizes = np.append(units[:-1], chunk / load.new) if full else units  # a full chunk
        if load.new > chunk:
            starts = np.arange(0, load.new, chunk)
            own = server.prefill(1, np.minimum(chunk, load.new - starts), load.hit + starts)
            self.grid = np.append(units[units < 1.0], 1.0)
            self.seconds = float(np.sum(own)) * self.grid
        else:
            self.grid = units
            new = load.new * np.minimum(sizes, 1.0)
            spent = server.prefill(np.maximum(sizes, 1.0), new, load.hit)
            self.seconds = np.broadcast_to(np.asarray(spent, float), self.grid.shape)
        self.capacity = self.most / float(self.takes(self.most))
        """Prompts per second, at most."""

    def takes(self, prompts: Numbers) -> Numbers:
        """Seconds of a pass of so many prompts."""
        return np.interp(prompts, self.grid, self.seconds)

    @cached_property
    def alone(self) -> Alone:
        """One instance by itself, under any load."""
        k = round(self.most * self.parts)
        passes = self.takes(np.arange(1.0, k + 1.0) / self.parts)
        return alone(passes, self.capacity, self.parts)

    def served(self, rate: Numbers, instances: Numbers = 1.0) -> tuple[Numbers, Numbers, Numbers]:
        """Seconds until a pass takes a prompt, and of that pass, and its prompts, at so many
        prompts per second of each of the instances.
        """
        one, each = float(self.takes(1.0)), np.minimum(rate, NEAR * self.capacity)
        busy, wait, own = shared(self.alone, one, self.capacity, each, instances)
        spent = busy * self.takes(own) + (1.0 - busy) * one
        return busy * wait, spent, busy * own + (1.0 - busy)

    def first_wave(self, users: Numbers) -> Numbers:
        """Seconds to the end of the pass of a prompt, in the mean over those of so many users of an
        instance that come all together.
        """
        full = np.minimum(users, self.most)
        passes = np.ceil(users / full - 1e-9)
        before, each = full * (passes - 1.0), self.takes(full)
        last = (passes - 1.0) * each + self.takes(users - before)
        return (before * each * passes / 2.0 + (users - before) * last) / users

    def together(self, rate: Numbers) -> Numbers:
        """Prompts of a pass in the mean, at so many per second of an instance."""
        return np.interp(rate / self.capacity, LOADS, self.alone.many)


def parts(share: float) -> tuple[int, int]:
    """Equal parts of a prompt, and how many of them a chunk holds, where it is `share` prompts long:
    the fewest that lose little of it, or those that lose the least.

    >>> parts(8.0), parts(8192 / 6006), parts(0.1)
    ((1, 8), (3, 4), (1, 1))
    """
    if share < 1.0 / MOST_PARTS:
        return 1, 1
    ways = [(m, int(share * m + 1e-9)) for m in range(1, MOST_PARTS + 1)]
    lost = [1.0 - k / (m * share) for m, k in ways]
    few = [way for way, loss in zip(ways, lost, strict=True) if loss < LOST]
    return few[0] if few else ways[int(np.argmin(lost))]


def places_of(room: Room, load: Load) -> float:
    """Sequences that an instance of the decode pool holds at once."""
    return float(max(room.sequences(load.input_len + room.reserved * load.output_len), 1))


def prompts_of(server: Server, passing: Room, load: Load) -> Prompts:
    """An instance of the prefill pool."""
    return Prompts(server, load, passing.sequences(load.input_len + 1))


def costs_of(server: Server, room: Room, load: Load, spec: Speculation) -> Costs:
    """An instance of the decode pool."""
    lengths = msgspec.structs.replace(load, kind="offline", amount=1.0, cached=0.0)
    return Costs(server, lengths, places_of(room, load), spec)


class Apart(NamedTuple):
    """Mean values of both pools, and what the time to the first token has beside queue and server
    [s].
    """

    mean: Mean
    prefill: Numbers  # the pass with the prompt
    transfer: Numbers  # until the cache is at the decode pool
    joins: Numbers  # until the decode pool makes the first token, or hands it on


class Totals(NamedTuple):
    """The most requests per second of all instances, by what binds."""

    prefill: Numbers
    transfer: Numbers
    decode: Numbers

    @property
    def highest(self) -> Numbers:
        """The most of all."""
        return np.minimum(np.minimum(self.prefill, self.transfer), self.decode)

    @property
    def binds(self) -> str:
        """The pool, or the link, that serves the least."""
        return BINDS[int(np.argmin(self))]


class Costing:
    """Seconds of both pools at the lengths of a load, and what they serve at most.

    instances: of each pool, numbers or arrays; those of the pair where it is left out. prompts,
    costs: those of each pool, where they are known already.
    """

    def __init__(
        self,
        of: Pair,
        instances: tuple[Numbers, Numbers] | None = None,
        prompts: Prompts | None = None,
        costs: Costs | None = None,
    ) -> None:
        self.of, self.load, self.places = of, of.load, places_of(of.room, of.load)
        self.prompts = prompts or prompts_of(of.prefill.server, of.passing, of.load)
        self.costs = costs or costs_of(of.decode.server, of.room, of.load, of.decode.spec)
        self.prefills: Numbers = of.prefill.cut.replicas
        self.n: Numbers = of.decode.cut.replicas
        if instances is not None:
            self.prefills, self.n = instances
        self.more = self.costs.more
        self.again, sent = of.decode.server.profile.first_again, of.sent
        link = np.minimum(self.prefills / sent.each_sender, self.n / sent.each_receiver)
        step = self.costs.grid / (self.more * self.costs.steps)
        self.rates = np.maximum.accumulate(step)  # of an instance, by sequences at once
        self.totals = Totals(
            self.prefills * self.prompts.capacity, link, self.n * float(self.rates[-1])
        )

    def rate(self, decoding: Numbers, users: Numbers) -> Numbers:
        """Requests per second of a closed loop while so many sequences decode on each instance."""
        return self.n * decoding / (self.more * self._tpot(decoding, users))

    def _tpot(self, decoding: Numbers, users: Numbers) -> Numbers:
        """Seconds per token of a sequence, which meets the others alone."""
        return self.costs.decode(1.0 + decoding * (1.0 - 1.0 / users))

    def means(self, decoding: Numbers, users: Numbers, wave: Numbers) -> Apart:
        """Mean values of a closed loop of users while `decoding` sequences decode on each instance.

        wave: share of prompts that come all together.
        """
        rate, tpot = self.rate(decoding, users), self._tpot(decoding, users)
        return self.at(rate, decoding, tpot, users, wave)

    def at(
        self, rate: Numbers, decoding: Numbers, tpot: Numbers, users: Numbers, wave: Numbers
    ) -> Apart:
        """Mean values at a rate of requests, sequences that decode and their time per token.

        users: infinite where requests come by themselves.
        """
        p, others = self.prompts, 1.0 - 1.0 / users
        instances = self.prefills
        each = np.minimum(rate / instances, NEAR * p.capacity)
        wait, own, _ = p.served(each * others, instances)
        if np.all(np.isfinite(users)):  # those that come all together
            together = p.first_wave(np.maximum(users / instances, 1.0))
            wait = (1.0 - wave) * wait + wave * np.maximum(together - own, 0.0)
        passing = self.passing(rate * others, own)
        whole = self.costs.spec.tokens * tpot
        there = 1.0 - np.exp(-decoding * others)
        joins = there * whole / 2.0 + (whole if self.again else 0.0)
        inside = wait + own + passing + joins
        there = users - 1.0 if np.all(np.isfinite(users)) else rate * (inside + self.more * tpot)
        outside = p.request_s + p.user_s * there
        ttft = outside + inside
        e2e = ttft + self.more * tpot
        found = Mean(
            ttft, tpot, e2e, decoding, rate, 0.0, tpot, 1.0 / p.capacity, p.takes(1.0),
            rate / self.totals.highest, outside, wait,
        )  # fmt: skip
        return Apart(found, own, passing, joins)

    def passing(self, rate: Numbers, prefill_s: Numbers) -> Numbers:
        """Seconds from the end of a prompt until its cache is at the other pool."""
        busy = np.minimum(rate / self.totals.transfer, NEAR)
        held = self.of.sent
        slower = max(held.each_sender, held.each_receiver)
        return held.exposed(prefill_s) + busy * slower / (2.0 * (1.0 - busy))


def closed(of: Costing, users: Numbers) -> Apart:
    """C users of all instances together, each with one request under way."""
    users = np.asarray(users, dtype=float)
    start: Numbers = WAVE
    if of.load.requests:
        start = users / np.maximum(of.load.requests, users)
    wave = np.where(users > 1, start, 0.0)
    fastest = NEAR * of.totals.highest + 0.0 * users
    most = solve(lambda b: of.rate(b, users), fastest, of.places)

    def under_way(decoding: Numbers) -> Numbers:
        found = of.means(decoding, users, wave).mean
        return of.n * decoding + found.requests_per_s * found.ttft

    bound = under_way(most) <= users
    solved = solve(under_way, users, of.places)
    met = of.means(np.where(bound, most, np.minimum(solved, most)), users, wave)
    found = met.mean
    late = np.where(bound, np.maximum(users / found.requests_per_s - found.e2e, 0.0), 0.0)
    use: Numbers = np.where(bound, 1.0, np.minimum(found.use, 1.0))
    return met._replace(mean=found.delayed(late)._replace(use=use))


def _sequences(of: Costing, rate: float) -> float:
    """Sequences that decode on an instance at a rate of all, at most `places`."""
    if rate >= of.n * float(of.rates[-1]):
        return of.places
    return float(np.interp(rate / of.n, of.rates, of.costs.grid))


def arriving(of: Costing, rate: float) -> Apart:
    """Requests that arrive at random, so many per second. Raises BadInput for more than the pools
    can serve, and says what binds.
    """
    highest = of.totals.highest
    if rate >= highest:
        raise BadInput(too_many(of, rate))
    decoding = _shared(of, rate)
    tpot = decoding * of.n / (rate * of.more)
    return of.at(rate, decoding, tpot, np.inf, 0.0)


def _shared(of: Costing, rate: float) -> float:
    """Sequences that decode on an instance in the mean: n of them finish at the rate X(n), so that
    P(n) = P(n-1) rate / X(n), whatever the lengths (processor sharing [kelly1979]).
    """
    n = np.arange(1, int(of.places) + 1)
    served = n / (of.more * of.costs.decode(n))
    logs = np.concatenate([[0.0], np.cumsum(np.log(rate / of.n / served))])
    weights = np.exp(logs - logs.max())
    return float(max((np.arange(len(weights)) * weights).sum() / weights.sum(), 1e-9))


def full(of: Costing) -> Apart:
    """All requests queued: as many per second as the pools can serve, without the queue."""
    rate = of.totals.highest
    decoding = _sequences(of, rate)
    tpot = decoding * of.n / (rate * of.more)
    found = of.at(0.0, decoding, tpot, np.inf, 0.0)
    return found._replace(mean=found.mean._replace(requests_per_s=rate, use=1.0))


def too_many(of: Costing, rate: float) -> str:
    """That a rate is more than the pools can serve."""
    highest, binds = of.totals.highest, of.totals.binds
    scale = 10.0 ** (math.floor(math.log10(highest)) - 2)
    most = math.floor(0.999 * highest / scale) * scale
    where = {"transfer": "the link between the pools"}.get(binds, f"the {binds} pool")
    return (
        f"rate {rate:g}/s: more than {where} can serve; the highest is {most:.3g}/s; prefill"
        f" {of.totals.prefill:.3g}, transfer {of.totals.transfer:.3g}, decode"
        f" {of.totals.decode:.3g} requests/s"
    )
