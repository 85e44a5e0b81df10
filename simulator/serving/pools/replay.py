"""A replay of requests on two pools, event by event: an instance computes a prompt, its cache
passes over the link, an instance of the other pool decodes.

Every instance has a clock of its own, which stands where its last step ends. The one whose next
step starts first is always the next to go, and decodes no further than to the earliest moment at
which another may hand it a request. Nothing is drawn at random here. A router gives a request to
the instance with the fewest.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from functools import partial

import msgspec
import numpy as np

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.parallel.layout import divisors
from roofcast.simulator.serving.capacity import Room
from roofcast.simulator.serving.load import Load, Requests
from roofcast.simulator.serving.pools.asked import Pair
from roofcast.simulator.serving.pools.means import prompts_of
from roofcast.simulator.serving.pools.transfer import Transfer
from roofcast.simulator.serving.replay import MOST_EVENTS, Batching, Replayed
from roofcast.simulator.serving.sample import Sample, alike, at_rate, in_loop
from roofcast.simulator.serving.steps import Steps

MOST = 16  # instances that are replayed together


class Lengths(NamedTuple):
    """The steps of both pools in tables, and how many instances of each are replayed."""

    prefill: Steps
    decode: Steps
    passing: Room
    room: Room
    prefills: int
    decodes: int
    sent: Transfer
    mean_input: float  # tokens of the prompt that `sent` is of
    again: bool  # whether the decode pool makes the first token
    request_s: float


class _Instance(Batching):
    """An instance of a pool, to which requests are handed."""

    def __init__(self, steps: Steps, asked: Requests, held: Room) -> None:
        super().__init__(steps, asked, held, 0, 0.0)
        self.handed: list[tuple[float, int]] = []  # a heap, by the time at which they are there
        self.done: list[tuple[float, int]] = []
        self.open = 0  # requests that it was given and has not done
        self.free = 0.0  # when its link is free

    def give(self, at: float, i: int) -> None:
        heapq.heappush(self.handed, (at, i))
        self.open += 1

    def arrive(self) -> None:
        while self.handed and self.handed[0][0] <= self.now:
            self.waiting.append(heapq.heappop(self.handed)[1])

    def starts(self) -> float:
        """When its next step starts."""
        if self.waiting or self.end_of:
            return self.now
        return max(self.now, self.handed[0][0]) if self.handed else math.inf

    def hands(self) -> float:
        """The earliest at which it may be done with a request, without the pass of a prompt."""
        return self.starts()

    def go(self, until: float) -> None:
        """One step, or several that start before `until`."""
        raise NotImplementedError

    def _ended(self, i: int) -> None:
        self.end[i] = self.now
        self.open -= 1
        self.done.append((self.now, i))


class _Prefill(_Instance):
    """Prompts alone: a request is done with its first token."""

    def go(self, until: float) -> None:
        self.mixed_step(self.admitted())


class _Decode(_Instance):
    """Sequences whose prompts are computed."""

    def __init__(self, steps: Steps, asked: Requests, held: Room, again: bool) -> None:
        end = asked.input - 1 if again else asked.input
        super().__init__(steps, asked._replace(cached=end), held)
        self.again, self.least = again, steps.decode(1.0, 1.0)

    def go(self, until: float) -> None:
        chunk = self.admitted() if self.waiting else []
        if not self.again:  # the first token came with the cache
            for i, _, _ in [each for each in chunk if each[1] == 0]:
                self.taken[i] = self.now
                self._started(i)
            chunk = [each for each in chunk if each[1] > 0]
        if chunk:
            self.mixed_step(chunk)
        elif self.end_of:
            nearest = min(until, self.handed[0][0]) if self.handed else until
            self.decode_steps(bool(self.waiting), nearest)

    def hands(self) -> float:
        if self.waiting or not self.ending:
            return self.starts()
        left = (self.ending[0][0] - self.count) / self.per_step - 1.0
        coming = self.handed[0][0] if self.handed else math.inf
        return min(self.now + max(left, 0.0) * self.least, coming)

    def preempt(self) -> None:
        super().preempt()
        self.computed[self.waiting[0]] = 0  # its cache is computed again, here


def replayed(
    of: Lengths, asked: Requests, users: int | None = None, needed: int | None = None
) -> Replayed:
    """What each request meets. users: of a closed loop, whose first requests arrive as `asked` says
    and whose others are issued as the ones before end; else all arrive as it says. needed: the
    replay ends when so many first requests have, all by default.
    """
    one = asked._replace(output=np.ones_like(asked.output))
    prefills = [_Prefill(of.prefill, one, of.passing) for _ in range(of.prefills)]
    decodes = [_Decode(of.decode, asked, of.room, of.again) for _ in range(of.decodes)]
    count = len(asked.input)
    issued = asked.arrival.tolist()
    sizes = (asked.input / of.mean_input).tolist()
    first = count if users is None else min(users, count)
    for i in range(first):
        _fewest(prefills).give(issued[i] + of.request_s, i)
    least = of.prefill.new[0]  # tokens of a pass: the last chunk of a prompt may be that short
    nearest = 0.9 * of.prefill.added(0, least, least * least / 2)
    needed = count if needed is None else min(needed, count)
    left, coming, events = needed, first, 0
    every: list[_Instance] = [*prefills, *decodes]
    most = MOST_EVENTS * count
    taken = [math.nan] * count
    while left and events < most:
        events += 1
        starts = [each.starts() for each in every]
        at = min(range(len(every)), key=starts.__getitem__)
        chosen = every[at]
        chosen.now = starts[at]
        chosen.arrive()
        chosen.go(_until(chosen, prefills, decodes if users is not None else ()) + nearest)
        for time, i in chosen.done:
            if isinstance(chosen, _Prefill):
                taken[i] = chosen.taken[i]
                target = _fewest(decodes)
                target.give(_sent(of.sent, sizes[i], (taken[i], time), chosen, target), i)
                continue
            left -= i < needed
            if coming < count:
                issued[coming] = time
                _fewest(prefills).give(time + of.request_s, coming)
                coming += 1
        chosen.done.clear()
    return _found(decodes, np.array(issued), np.array(taken), asked, of.request_s)


def _until(chosen: _Instance, prefills: Sequence[_Instance], decodes: Sequence[_Instance]) -> float:
    """The earliest at which a prompt may be taken that is handed to an instance that decodes."""
    if chosen in prefills:
        return math.inf
    every = [*prefills, *(each for each in decodes if each is not chosen)]
    return min(each.hands() for each in every)


def _fewest(instances: Sequence[_Instance]) -> _Instance:
    """The instance with the fewest requests."""
    return min(instances, key=lambda each: each.open)


def _sent(
    sent: Transfer, size: float, pass_: tuple[float, float], source: _Instance, target: _Instance
) -> float:
    """When the cache of a prompt is there; size: tokens, as a multiple of what `sent` is of; pass_:
    when its prompt was taken and when it was computed.
    """
    wire, now = size * sent.wire, pass_[1]
    hidden = (now - pass_[0]) * (sent.pieces - 1) / sent.pieces
    begin = max(now - hidden, source.free, target.free)
    end = max(begin + wire, now + wire / sent.pieces)
    source.free = begin + size * sent.each_sender
    target.free = begin + size * sent.each_receiver
    return end + sent.start


def _found(
    decodes: Sequence[_Decode],
    issued: np.ndarray,
    taken: np.ndarray,
    asked: Requests,
    request_s: float,
) -> Replayed:
    """The times of all requests."""
    first = np.fmax.reduce([each.first for each in decodes])
    end = np.fmax.reduce([each.end for each in decodes])
    more = asked.output - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot = np.where(more > 0, (end - first) / more, np.nan)
    worked = sum(each.worked for each in decodes)
    return Replayed(
        first - issued, tpot, end - issued, float(np.nanmax(end) - issued.min()),
        sum(each.preempted for each in decodes),
        sum(each.filled for each in decodes) / worked if worked else 0.0,
        worked / sum(max(each.now, 1e-12) for each in decodes),
        np.maximum(taken - issued - request_s, 0.0),
    )  # fmt: skip


def sample(
    of: Lengths,
    load: Load,
    count: int,
    there: float,
    share: float,
    trace: Requests | None = None,
    taken: float = 0.0,
) -> Sample:
    """`count` requests of a load that count, of these instances.

    there: requests under way at once, about, at a rate; of a closed loop seconds of a request.
    share: of requests of a closed loop that come together. taken: sequences of each instance that
    decode where others wait, else 0.
    """
    if trace is not None:
        return alike(replayed(of, trace))
    run, own = partial(replayed, of), load.requests is None
    if load.kind == "concurrency":
        return in_loop(load, count, share, there, run, own, taken * of.decodes)
    return at_rate(load, count, there, run, own)


def lengths(of: Pair, load: Load, longest: float, way: float, whole: bool = False) -> Lengths:
    """Steps of both pools for sequences up to `longest` tokens, of as many instances as stand for
    all, or, with `whole`, of all; way: seconds from the client to the engine.
    """
    sets, tokens = 1 if whole else groups(of), load.input_len
    passes = prompts_of(of.prefill.server, of.passing, load).grid * load.new
    prefill = Steps(of.prefill.server, 2, longest, load.new, chunks=passes.tolist())
    most = of.room.sequences(tokens) or 1
    decode = Steps(of.decode.server, most, longest, 1.0, of.decode.spec)
    return Lengths(
        prefill, decode, of.passing, of.room, of.prefill.cut.replicas // sets,
        of.decode.cut.replicas // sets, of.sent, float(tokens),
        of.decode.server.profile.first_again, way,
    )  # fmt: skip


def groups(of: Pair) -> int:
    """Sets of instances that stand beside each other, alike: one, but where they are too many."""
    n = of.prefill.cut.replicas, of.decode.cut.replicas
    most = math.gcd(*n)
    return next(sets for sets in divisors(most) if sum(n) <= MOST * sets or sets == most)


def part(load: Load, sets: int) -> Load:
    """The part of a load that one set of instances gets."""
    if sets == 1 or load.kind not in ("concurrency", "rate"):
        return load
    amount = load.amount / sets
    if load.kind == "concurrency":
        amount = float(math.ceil(amount))
    number = None if load.requests is None else max(load.requests // sets, 1)
    return msgspec.structs.replace(load, amount=amount, requests=number)
