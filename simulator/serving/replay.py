"""A replay of requests on one replica, event by event: continuous batching with chunked prefill.

The state of an engine changes where a request arrives, a prompt's chunk is computed, a request
ends, or the cache is full. Between two of these every step is like the one before it but for the
context, in which its time is linear, so that all of them are taken at once. Nothing is drawn at
random here: the same requests give the same times.
"""

from __future__ import annotations

import math
from collections import deque
from heapq import heappop, heappush
from math import ceil

import numpy as np

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.capacity import BLOCK, WATERMARK, Room
from roofcast.simulator.serving.load import Requests
from roofcast.simulator.serving.steps import Steps

MOST_EVENTS = 400  # per request, above which a load cannot be served at all


class Replayed(NamedTuple):
    """What each request met, in the order of arrival; seconds."""

    ttft: np.ndarray  # from the request to its first token
    tpot: np.ndarray  # per token after the first; NaN where there is no other
    e2e: np.ndarray
    seconds: float  # from the first request to the last token
    preempted: int  # times that a request lost its cache to others
    mean_decoding: float  # sequences in a decode step, over the time that the engine worked
    busy: float  # share of the time that the engine worked
    queued: np.ndarray  # of ttft: in the engine, before the first step with its prompt

    def part(self, first: int, end: int) -> Replayed:
        """Times of these requests alone, in the order of arrival."""
        names = ("ttft", "tpot", "e2e", "queued")
        return self._replace(**{name: getattr(self, name)[first:end] for name in names})


class Batching:
    """One replica in the course of a replay."""

    def __init__(
        self,
        steps: Steps,
        asked: Requests,
        held: Room,
        users: int | None,
        request_s: float,
        needed: int | None = None,
    ) -> None:
        self.steps, self.asked, self.held, self.request_s = steps, asked, held, request_s
        self.per_step = steps.spec.tokens
        count = len(asked.input)
        self.input: list[int] = asked.input.tolist()
        self.output: list[int] = asked.output.tolist()
        self.cached: list[int] = asked.cached.tolist()
        self.issued: list[float] = asked.arrival.tolist()
        self.opened = count if users is None else min(users, count)
        # when requests are at the engine, two rising rows: those that were sent at first, and those
        # that a closed loop sends as others end; and which of each is next
        self.at_first = [*(t + request_s for t in self.issued[: self.opened]), math.inf]
        self.later: list[float] = []
        self.next_first = self.next_later = 0
        self.soonest = self.at_first[0]
        self.waiting: deque[int] = deque()
        self.computed = list(self.cached)  # tokens of each prompt
        self.made = [0] * count  # tokens of each answer before it lost its cache
        self.ending: list[tuple[float, int]] = []  # decoding requests by the count at their end
        self.order: list[int] = []  # decoding requests, the newest last
        self.end_of: dict[int, float] = {}
        self.whole = held.reserved >= 1.0  # a sequence holds cache for its whole length
        self.kept = 0.0  # bytes of it
        self.partial: int | None = None  # a prompt of which some chunks are computed
        self.count = 0.0  # tokens that a request decoding from the start would have
        self.base = 0.0  # sum over decoding requests of their tokens, less the count
        self.now = 0.0
        self.taken = [math.nan] * count
        self.first = [math.nan] * count
        self.end = [math.nan] * count
        self.needed = self.left = count if needed is None else min(needed, count)
        self.preempted = 0
        self.worked = self.filled = 0.0
        # finite where the memory of the device is unknown
        self.capacity = min(max(held.cache_bytes, 0.0), 1e18) * held.groups
        longest = held.of_sequence(float((asked.input + asked.output).max()) + BLOCK)
        # so many sequences fit, however long: the cache cannot be full
        self.sure = self.capacity * (1.0 - WATERMARK) / longest if longest > 0 else math.inf

    @property
    def used(self) -> float:
        """Bytes of the cache that decoding requests hold."""
        if self.whole:
            return self.kept
        b, held = len(self.end_of), self.held
        return held.fixed * b + held.per_token * (self.base + b * (self.count + BLOCK / 2))

    def arrive(self) -> None:
        """Take the requests that are there by now."""
        now, first, later = self.now, self.at_first, self.later
        while self.soonest <= now:
            if self.soonest == first[self.next_first]:
                i = self.next_first
                self.next_first += 1
            else:
                i = self.opened + self.next_later
                self.next_later += 1
            self.waiting.append(i)
            self.soonest = first[self.next_first]
            if self.next_later < len(later) and later[self.next_later] < self.soonest:
                self.soonest = later[self.next_later]

    def admitted(self) -> list[tuple[int, int, int]]:
        """The chunk of the next step: requests, their new tokens, and the tokens before them."""
        waiting, running = self.waiting, len(self.end_of)
        budget, limit = max(self.steps.chunk - running, 1), self.held.limit
        taken, free = 0.0, math.nan  # bytes of the cache
        found: list[tuple[int, int, int]] = []
        while budget > 0 and waiting and running < limit:
            i = waiting[0]
            prompt, before = self.input[i] + self.made[i], self.computed[i]
            need = self._need(i)
            running += 1
            if running > self.sure:
                if free != free:  # not a number: not known yet
                    free = self.capacity * (1.0 - WATERMARK) - self.used
                alone = not self.end_of and not found  # the longest one that there is must run
                if need > free - taken and not (alone or i == self.partial):
                    break
            new = prompt - before
            if new > budget:
                new = budget
            found.append((i, new, before))
            budget -= new
            taken += need
            if before + new < prompt:
                self.partial = i
                break
            waiting.popleft()
        return found

    def _need(self, i: int) -> float:
        """Bytes of cache without which a request does not start."""
        tokens = self.input[i] + (self.output[i] if self.whole else self.made[i] + 1)
        held = self.held
        return held.fixed + held.per_token * BLOCK * -(-tokens // BLOCK)

    def mixed_step(self, chunk: list[tuple[int, int, int]]) -> None:
        """One step of the decoding requests with a chunk of prompts in it."""
        b, taken, steps = len(self.end_of), self.taken, self.steps
        new, pairs = 0, 0.0
        for i, tokens, before in chunk:
            new += tokens
            pairs += tokens * (before + tokens / 2)
            if taken[i] != taken[i]:  # not a number: not taken yet
                taken[i] = self.now
        many = self._alike(chunk) if len(chunk) == 1 else 1
        further = (many - 1) / 2
        seconds = steps.added(b, new, pairs + further * new * new)
        if b:
            seconds += steps.decode(b, self.base / b + self.count + further * self.per_step)
        self._pass(many * seconds, many if b else 0)
        for i, tokens, before in chunk:
            done = self.computed[i] = before + many * tokens
            if done == self.input[i] + self.made[i]:
                self._started(i)

    def _alike(self, chunk: list[tuple[int, int, int]]) -> int:
        """Steps from here on that have a chunk of the same prompt alone and the same sequences that
        decode. Their times are linear in the tokens before them, so that all are taken at once.
        """
        i, tokens, before = chunk[0]
        left = self.input[i] + self.made[i] - before
        if tokens >= left:
            return 1
        many = (left - 1) // tokens  # the last chunk is another
        ending, end_of = self.ending, self.end_of
        if end_of:
            while end_of.get(ending[0][1]) != ending[0][0]:
                heappop(ending)
            until = ceil((ending[0][0] - self.count) / self.per_step - 1e-9)
            many = min(many, max(until, 1))
        return many

    def _started(self, i: int) -> None:
        """The last chunk of a prompt gives the first token, or the next one after a loss."""
        if self.partial == i:
            self.partial = None
        made = self.made[i]
        if not made:
            self.first[i] = self.now
        made = self.made[i] = made + 1
        left = self.output[i] - made
        if left <= 0:
            self._ended(i)
            return
        end = self.end_of[i] = self.count + left
        if self.whole:
            self.kept += self._need(i)
        heappush(self.ending, (end, i))
        self.order.append(i)
        self.base += self.input[i] + made - self.count

    def _ended(self, i: int) -> None:
        self.end[i] = now = self.now
        if i < self.needed:
            self.left -= 1
        coming = self.opened + len(self.later)
        if coming < len(self.input):
            self.issued[coming] = now
            there = now + self.request_s
            self.later.append(there)
            if there < self.soonest:
                self.soonest = there

    def _pass(self, seconds: float, steps: float) -> None:
        """Time passes, and each decoding request makes its tokens."""
        self.now += seconds
        self.worked += seconds
        end_of, ending = self.end_of, self.ending
        self.filled += seconds * len(end_of)
        self.count = count = self.count + steps * self.per_step
        while ending and ending[0][0] <= count + 1e-9:
            end, i = heappop(ending)
            if end_of.get(i) != end:  # it lost its cache meanwhile
                continue
            del end_of[i]
            if self.whole:
                self.kept -= self._need(i)
            self.base -= self.input[i] + self.output[i] - end
            self._ended(i)

    def decode_steps(self, blocked: bool, until: float = math.inf) -> None:
        """Steps without a prompt, up to the next event; blocked: an arrival changes nothing. None
        but one starts after the time `until`.
        """
        end_of, ending, per_step, count = self.end_of, self.ending, self.per_step, self.count
        b = len(end_of)
        context = self.base / b + count
        while end_of.get(ending[0][1]) != ending[0][0]:
            heappop(ending)
        pieces = self.steps.lines.get(b) or self.steps.line(b)
        n = ceil((ending[0][0] - count) / per_step - 1e-9)
        if n <= 1:
            n = 1
        elif not blocked:
            next_one = self.soonest if self.soonest < until else until
            if next_one < math.inf:
                for piece in pieces:
                    if context < piece[0]:
                        break
                most = ceil((next_one - self.now) / (piece[1] + piece[2] * context))
                if most < n:
                    n = most if most > 1 else 1
        if b > self.sure and b > 1 and not self.whole:
            grown = self.held.per_token * b * per_step
            free = self.capacity - self.used
            if grown > 0 and free < (n + 1) * grown:
                n = min(n, math.floor(free / grown))
                if n < 1:
                    self.preempt()
                    return
        context += per_step * (n - 1) / 2
        for piece in pieces:
            if context < piece[0]:
                break
        self._pass(n * (piece[1] + piece[2] * context), n)

    def preempt(self) -> None:
        """The newest request loses its cache, and is computed again first."""
        while self.order and self.order[-1] not in self.end_of:
            self.order.pop()
        i = self.order.pop()
        end = self.end_of.pop(i)
        left = max(int(round(end - self.count)), 1)
        self.base -= self.input[i] + self.output[i] - end
        self.made[i] = max(self.output[i] - left, 0)
        self.computed[i] = self.cached[i]
        self.waiting.appendleft(i)
        self.partial = None
        self.preempted += 1

    def run(self) -> None:
        """All requests that are needed, from the first to the last."""
        events, waiting, end_of = 0, self.waiting, self.end_of
        most = MOST_EVENTS * len(self.input) + sum(self.input) // self.steps.chunk
        while self.left and events < most:
            events += 1
            if self.soonest <= self.now:
                self.arrive()
            if waiting:
                chunk = self.admitted()
                if chunk:
                    self.mixed_step(chunk)
                else:
                    self.decode_steps(True)
            elif end_of:
                self.decode_steps(False)
            else:
                self.now = max(self.now, self.soonest)


def replay(
    steps: Steps,
    asked: Requests,
    held: Room,
    users: int | None = None,
    request_s: float = 0.0,
    needed: int | None = None,
) -> Replayed:
    """What each request meets on one replica.

    users: of a closed loop, whose first requests arrive as `asked` says and whose others are issued
    as the ones before end; else all arrive as it says. request_s: from the client to the engine.
    needed: the replay ends when so many first requests have, all by default; times that others have
    not reached are not numbers.

    The newest requests lose their cache where it is full, and their prompt and answer so far are
    computed again. A request too long for the whole cache runs alone.
    """
    engine = Batching(steps, asked, held, users, request_s, needed)
    engine.run()
    issued, first, end = (np.array(v) for v in (engine.issued, engine.first, engine.end))
    queued = np.maximum(np.round(np.array(engine.taken) - issued - request_s, 6), 0.0)
    more = asked.output - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot = np.where(more > 0, (end - first) / more, np.nan)
    return Replayed(
        first - issued,
        tpot,
        end - issued,
        float(np.nanmax(end) - issued.min()),
        engine.preempted,
        engine.filled / engine.worked if engine.worked else 0.0,
        engine.worked / engine.now if engine.now else 0.0,
        queued,
    )
