"""Mean values of two pools: prompts wait for an instance that computes them, their cache passes to
one that decodes, and no prompt delays a token.

An instance of the prefill pool takes as many waiting prompts into a pass as a chunk holds: the
queue of `bulk.py`, whose router gives a prompt to the instance with the fewest.

An instance of the decode pool with B sequences makes a token of each in a step of d(B) seconds, and
X = B / ((output - 1) d(B)) requests per second (Little's law).
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.capacity import Room
from roofcast.simulator.serving.costs import Costs
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.means import WAVE, Mean, solve
from roofcast.simulator.serving.pools.asked import Pair
from roofcast.simulator.serving.pools.prompts import NEAR, Prompts
from roofcast.simulator.serving.pools.router import beside, even
from roofcast.simulator.serving.protocol import Numbers, Server
from roofcast.simulator.serving.speculation import Speculation

BINDS = ("prefill", "transfer", "decode")


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
        self.of, self.load, self.sent = of, of.load, of.sent
        self.places: Numbers = places_of(of.room, of.load)
        self.prompts = prompts or prompts_of(of.prefill.server, of.passing, of.load)
        self.costs = costs or costs_of(of.decode.server, of.room, of.load, of.decode.spec)
        self.prefills: Numbers = of.prefill.cut.replicas
        self.n: Numbers = of.decode.cut.replicas
        if instances is not None:
            self.prefills, self.n = instances
        self.more = self.costs.more
        self.again, sent = of.decode.server.profile.first_again, self.sent
        link = np.minimum(self.prefills / sent.each_sender, self.n / sent.each_receiver)
        step = self.costs.grid / (self.more * self.costs.steps)
        self.rates = np.maximum.accumulate(step)  # of an instance, by sequences at once
        self.totals = Totals(
            self.prefills * self.prompts.capacity, link, self.n * float(self.rates[-1])
        )

    def fullest(self, users: Numbers, fastest: Numbers, kept: np.ndarray) -> Numbers:
        """Sequences of an instance at which a closed loop has the rate `fastest`, where `kept`."""
        return solve(lambda b: self.rate(b, users), fastest, self.places)

    def rate(self, decoding: Numbers, users: Numbers) -> Numbers:
        """Requests per second of a closed loop while so many sequences decode on each instance."""
        return self.n * decoding / (self.more * self.token(decoding, users))

    def token(self, decoding: Numbers, users: Numbers) -> Numbers:
        """Seconds per token of a sequence, which meets the others alone: those that the router has
        given to its instance, and those whose prompts were computed in one pass with its own.
        """
        others = self.n * decoding * (1.0 - 1.0 / users)
        met = 1.0 + beside(others, self.n, users)
        rate = self.n * decoding / (self.more * self.costs.decode(met))
        own = self._pass(rate, users)[2]
        apart = 1.0 - self.n * decoding / users
        return self.costs.decode(met + np.maximum(own - 1.0, 0.0) * apart / self.n)

    def _pass(self, rate: Numbers, users: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Seconds until a pass takes a prompt, those of the pass, and its prompts."""
        each = np.minimum(rate / self.prefills, NEAR * self.prompts.capacity)
        return self.prompts.served(each * (1.0 - 1.0 / users), self.prefills)

    def means(self, decoding: Numbers, users: Numbers) -> Apart:
        """Mean values of a closed loop of users while `decoding` sequences decode on each
        instance.
        """
        tpot = self.token(decoding, users)
        rate = self.n * decoding / (self.more * tpot)
        return self.at(rate, decoding, tpot, users)

    def at(self, rate: Numbers, decoding: Numbers, tpot: Numbers, users: Numbers) -> Apart:
        """Mean values at a rate of requests, sequences that decode and their time per token.

        users: infinite where requests come by themselves.
        """
        p, others = self.prompts, 1.0 - 1.0 / users
        wait, own, many = self._pass(rate, users)
        passing = self.passing(rate * others, own, many)
        joins = self.joins(decoding * others, tpot)
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

    def joins(self, others: Numbers, tpot: Numbers) -> Numbers:
        """Seconds until the decode pool makes the first token, or hands it on; others: sequences
        that decode on the instance in the mean.
        """
        whole = self.costs.spec.tokens * tpot
        there = 1.0 - np.exp(-others)
        return there * whole / 2.0 + (whole if self.again else 0.0)

    def passing(self, rate: Numbers, prefill_s: Numbers, many: Numbers) -> Numbers:
        """Seconds from the end of a prompt until its cache is at the other pool, behind those of
        half of the others of its pass.
        """
        busy = np.minimum(rate / self.totals.transfer, NEAR)
        held = self.sent
        slower = np.maximum(held.each_sender, held.each_receiver)
        ahead = np.maximum(many - 1.0, 0.0) * np.maximum(
            held.each_sender, held.each_receiver / self.n
        )
        return held.exposed(prefill_s) + busy * slower / (2.0 * (1.0 - busy)) + ahead / 2.0

    def first(self, found: Apart, users: Numbers) -> Apart:
        """Mean values of the first requests of all users, which come together; found: of those that
        come later.
        """
        p, mean = self.prompts, found.mean
        each = np.maximum(users / self.prefills, 1.0)
        ends, apart = p.first_wave(each), p.spacing(each)
        decode_s = self.more * mean.tpot
        off = np.maximum(mean.e2e - decode_s, 0.0)
        # of the time that one decodes, another does not where its prompt came so much earlier or
        # later
        missed = (apart + np.minimum(apart, off)) / (2.0 * decode_s)
        share = np.maximum(1.0 - missed, np.minimum(decode_s / mean.e2e, 1.0))
        others = np.maximum(users / self.n - 1.0, 0.0) * share
        tpot = np.maximum(self.costs.decode(1.0 + others), mean.tpot)
        passing = self.passing(0.0, found.prefill, np.minimum(each, p.most))
        sent = self.sent  # behind half of the others whose prompts do not take longer
        link = np.maximum(each * sent.each_sender, users / self.n * sent.each_receiver)
        alone = self.passing(0.0, found.prefill, 1.0)
        passing = np.maximum(passing, alone + (link - p.last_wave(each)) / 2.0)
        joins = self.joins(others, tpot)
        wait = np.maximum(ends - found.prefill, 0.0)
        ttft = mean.overhead + wait + found.prefill + passing + joins
        met = mean._replace(ttft=ttft, tpot=tpot, e2e=ttft + self.more * tpot, queue=wait)
        return Apart(met, found.prefill, passing, joins)


def closed(of: Costing, users: Numbers) -> Apart:
    """C users of all instances together, each with one request under way: their first requests come
    together, and the others from users of whom each is at another point of a request.
    """
    users = np.asarray(users, dtype=float)
    start: Numbers = WAVE
    if of.load.requests:
        start = users / np.maximum(of.load.requests, users)
    wave = np.where(users > 1, start, 0.0)
    fastest = NEAR * of.totals.highest + 0.0 * users

    def under_way(decoding: Numbers) -> Numbers:
        found = of.means(decoding, users).mean
        return of.n * decoding + found.requests_per_s * found.ttft

    # as many at least as decode are under way
    decoding = solve(under_way, users, np.minimum(of.places, users / of.n))
    bound = of.rate(decoding, users) >= fastest
    if np.any(bound):
        decoding = np.where(bound, of.fullest(users, fastest, bound), decoding)
    bound |= decoding >= of.places
    met = of.means(decoding, users)
    found = met.mean
    late = np.where(bound, np.maximum(users / found.requests_per_s - found.e2e, 0.0), 0.0)
    use: Numbers = np.where(bound, 1.0, np.minimum(found.use, 1.0))
    met = met._replace(mean=found.delayed(late)._replace(use=use))
    return _both(of, met, users, np.where(bound, 0.0, wave))


def _both(of: Costing, met: Apart, users: Numbers, wave: Numbers) -> Apart:
    """The mean over first requests, whose share is `wave`, and those of the steady state."""
    first, mean = of.first(met, users), met.mean

    def over(a: Numbers, b: Numbers) -> Numbers:
        return wave * a + (1.0 - wave) * b

    ttft, tpot, queue = (
        over(getattr(first.mean, name), getattr(mean, name)) for name in ("ttft", "tpot", "queue")
    )
    e2e = ttft + of.more * tpot
    under_way = mean.requests_per_s * mean.e2e
    rate = np.minimum(under_way / e2e, NEAR * of.totals.highest)
    late = np.maximum(under_way / rate - e2e, 0.0)
    use: Numbers = np.where(mean.use < 1.0, rate / of.totals.highest, 1.0)
    found = mean._replace(
        ttft=ttft, tpot=tpot, e2e=e2e, queue=queue, requests_per_s=rate,
        decoding=rate * of.more * tpot / of.n, use=use,
    )  # fmt: skip
    found = found.delayed(late)._replace(waiting=mean.waiting + late)
    return Apart(
        found, met.prefill, over(first.transfer, met.transfer), over(first.joins, met.joins)
    )


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
    return of.at(rate, decoding, tpot, np.inf)


def _shared(of: Costing, rate: float) -> float:
    """Sequences that decode on an instance in the mean: N of all, evenly, finish at the rate X(N),
    so that P(N) = P(N-1) rate / X(N), whatever the lengths (processor sharing [kelly1979]). Those
    whose prompts were computed in one pass decode beside each other for longer.
    """
    one, n = np.arange(0, int(of.places) + 1), int(of.n)
    served = one / (of.more * of.costs.decode(np.maximum(one, 1)))
    usual = _sequences(of, rate)
    most = int(min(n * of.places, n * (usual + 10.0 * math.sqrt(usual) + 50.0)))
    every = even(np.arange(1, most + 1), n, served)
    logs = np.concatenate([[0.0], np.cumsum(np.log(rate / every))])
    weights = np.exp(logs - logs.max())
    found = float(max((np.arange(len(weights)) * weights).sum() / weights.sum() / n, 1e-9))
    return min(found * _with_pass(of, rate, found), of.places)


def _with_pass(of: Costing, rate: float, decoding: float) -> float:
    """Sequences that decode where those of a pass are together, as a multiple of those where they
    are not.
    """
    own = float(of._pass(rate, np.inf)[2])
    more = max(own - 1.0, 0.0) / float(of.n)

    def held(beside: float) -> float:
        def gap(b: Numbers) -> Numbers:
            return of.n * b / (of.more * of.costs.decode(1.0 + b + beside))

        return float(solve(gap, rate, of.places))

    return held(more) / held(0.0)


def full(of: Costing) -> Apart:
    """All requests queued: as many per second as the pools can serve, without the queue."""
    rate = of.totals.highest
    decoding = _sequences(of, rate)
    tpot = decoding * of.n / (rate * of.more)
    found = of.at(0.0, decoding, tpot, np.inf)
    return found._replace(mean=found.mean._replace(requests_per_s=rate, use=1.0))


def too_many(of: Costing, rate: float) -> str:
    """That a rate is more than the pools can serve."""
    highest, binds = of.totals.highest, of.totals.binds
    scale = 10.0 ** (math.floor(math.log10(highest)) - 2)
    most = math.floor(0.999 * highest / scale) * scale
    where = {"transfer": "the link between the pools"}.get(binds, f"the {binds} pool")
    return (
        f"rate {rate:g}/s: more than {where} can serve; the highest is {most:.3g}/s; prefill"
        f" {_short(of.totals.prefill)}, transfer {_short(of.totals.transfer)}, decode"
        f" {_short(of.totals.decode)} requests/s"
    )


def _short(rate: float) -> str:
    """Three digits of a rate, without a power of ten."""
    return f"{rate:,.0f}" if rate >= 1000 else f"{rate:.3g}"
