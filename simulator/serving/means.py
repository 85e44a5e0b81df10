"""Mean values of a load on one replica: Little's law, prompts mixed into decode steps, first wave.

A step with B decoding sequences takes d(B) seconds; a prompt in it adds p(B). With X requests per
second, a token of each sequence takes tpot = d + X p tpot, and B = X (output - 1) tpot, so that

    X(B) = B / ((output - 1) d(B) + B p(B))

requests per second finish while B sequences decode. A closed loop of C users asks for the B with
B + X(B) ttft(B) = C (own prompts do not delay a user's own tokens), an offline run for the B that
memory allows. Requests that arrive at random share the engine: n of them finish at the rate X(n),
so that n follows P(n) = P(n-1) rate / X(n), whatever the lengths (processor sharing [kelly1979]),
and the mean of n over the rate is their time in the system.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.arrivals import at_random, first_wave, meets, returned
from roofcast.simulator.serving.capacity import Room
from roofcast.simulator.serving.costs import Costs
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.protocol import Numbers, Server
from roofcast.simulator.serving.speculation import NONE, Speculation

HALVINGS = 100  # of a bracket, at most
NARROW, LEAST = 1e-8, 1e-9  # width of a bracket over its middle; its lower end over its upper
WAVE = 0.1


class Mean(NamedTuple):
    """Mean values on one replica; times in seconds."""

    ttft: float  # from the request to its first token, waiting included
    tpot: float  # per output token after the first
    e2e: float
    decoding: float  # sequences in a decode step
    requests_per_s: float
    waiting: float  # of ttft, in the queue before the prompt is taken
    step: float  # of a decode step without a prompt
    prompt: float  # what a prompt adds to decode steps
    alone: float  # a prompt's pass where nothing decodes
    use: float  # requests per second over the most that this replica can serve
    overhead: float = 0.0  # of ttft, outside the engine: the client's way, tokenization
    queue: float = 0.0  # of ttft, in the engine before the step with its prompt, `waiting` included

    @property
    def prefill(self) -> Numbers:
        """Of ttft, in the steps that compute the prompt."""
        return np.maximum(self.ttft - self.overhead - self.queue, 0.0)

    def delayed(self, waiting: Numbers) -> Mean:
        """The same where requests wait for a place as well [s]."""
        return self._replace(
            ttft=self.ttft + waiting, e2e=self.e2e + waiting, waiting=waiting,
            queue=self.queue + waiting,
        )  # fmt: skip


def mean(
    server: Server,
    load: Load,
    held: Room,
    spec: Speculation = NONE,
    ramp: float = 0.0,
    made: Callable[..., Costs] = Costs,
) -> Mean:
    """The mean values of a load on one replica; of a trace, those of its mean rate and lengths.

    ramp: share of the requests of a closed loop that start and end together, where all have one
    length and the software keeps them so. made: makes the Costs; one that remembers them saves
    time over many loads of the same lengths.
    Raises BadInput for a rate that the replica cannot hold, with the highest that it can.
    """
    if load.kind == "batch":
        fitting = max(held.sequences(load.input_len + load.output_len), 1)
        fitting = min(fitting, math.ceil(load.amount))
        return _floats(_static(made(server, load, fitting, spec, 0.0), fitting))
    most = most_of(server, load, held, spec)
    costs = made(server, load, most, spec, ramp)
    if load.kind == "offline":
        return _floats(_steady(costs, most))
    return _floats(_closed(costs) if load.kind == "concurrency" else _open(costs))


def _floats(found: Mean) -> Mean:
    """The mean values as plain numbers."""
    return Mean(*(float(value) for value in found))


def too_many(rate: float, highest: float, on: str) -> str:
    """That a rate is more than the devices can hold, with the highest, rounded down.

    >>> too_many(20.0, 12.49, "8 devices")
    'rate 20/s: more than 8 devices can hold; the highest is 12.4/s'
    """
    scale = 10.0 ** (math.floor(math.log10(highest)) - 2)
    most = math.floor(0.999 * highest / scale) * scale
    return f"rate {rate:g}/s: more than {on} can hold; the highest is {most:.3g}/s"


def _static(costs: Costs, fitting: int) -> Mean:
    """A batch of prompts in one pass, then decode steps of all; in turns, where they do not fit:
    then a token of each takes a step of every turn, and the prompts those of all.
    """
    asked = costs.load.amount
    b = min(asked, fitting)
    turns, rest = divmod(asked, b)
    step = costs.decode(b)
    alone, tpot = turns * costs.alone(b), turns * step
    if rest:
        alone, tpot = alone + costs.alone(rest), tpot + costs.decode(rest)
    e2e = alone + costs.more * tpot
    return Mean(alone, tpot, e2e, b, asked / e2e, 0.0, step, alone / asked, alone, 1.0)


def _steady(
    costs: Costs, decoding: Numbers, first: tuple[Numbers, Numbers, Numbers] | None = None
) -> Mean:
    """While `decoding` sequences decode. first: of requests that come all together their share,
    seconds to the first token, and of these in the queue.
    """
    (step, added), alone = costs.step_of(decoding), costs.first
    rate = np.minimum(costs.rate_of(decoding, step, added), costs.highest())
    tpot = decoding / (rate * costs.more) if costs.more else 0.0
    queue, prefill = _prompt_s(costs, rate, decoding, (tpot, step, added))
    if first is not None:
        share, passed, waited = first
        queue = share * waited + (1.0 - share) * queue
        prefill = share * (passed - waited) + (1.0 - share) * prefill
    ttft = costs.outside + queue + prefill
    use = rate / costs.highest()
    e2e = ttft + costs.more * tpot
    return Mean(ttft, tpot, e2e, decoding, rate, 0.0, step, added, alone, use, costs.outside, queue)


def _prompt_s(
    costs: Costs, rate: Numbers, decoding: Numbers, times: tuple[Numbers, Numbers, Numbers]
) -> tuple[Numbers, Numbers]:
    """From the arrival of a prompt at random to the step that takes it, and to its first token.

    It waits for the rest of a step, shares the next ones with the prompts that arrived meanwhile,
    and waits for those before it where a chunk does not hold all (M/D/k, k prompts to a chunk,
    [sakasegawa1977]). times: per token, of a step, and what a prompt adds to it.
    """
    (tpot, step, added), alone = times, costs.first
    arriving = rate * costs.others
    whole = costs.spec.tokens * step  # a step of all drafted tokens
    took = np.maximum(costs.spec.tokens * tpot, whole)  # with the prompts in it
    rest = at_random(took, arriving, added)
    own = costs.parts * whole + added
    k = costs.served
    shared = 2.0 * rest * arriving * added * (1.0 - 1.0 / k)
    busy = np.minimum(arriving * own / k, 0.98)
    ahead = busy**costs.bends * own / (2.0 * k * (1.0 - busy))
    # of a prompt that takes several chunks, the other chunks of the one under way
    rest += busy * own * (1.0 - 1.0 / costs.parts) / 2.0
    # probability that others decode while the prompt is computed
    many = meets(costs, decoding)
    return many * rest + ahead, many * (shared + own) + (1.0 - many) * alone


def _closed(costs: Costs) -> Mean:
    """C users, each with one request under way."""
    users, most = costs.users, costs.most
    start: Numbers = WAVE
    if costs.load.requests:
        start = users / np.maximum(costs.load.requests, users)
    wave = np.where(np.greater(users, 1), start, 0.0), *first_wave(costs)

    def under_way(decoding: Numbers) -> Numbers:
        found = _steady(costs, decoding, wave)
        return decoding + found.requests_per_s * found.ttft

    if costs.more == 0:
        return _prompts_alone(costs)
    # where it is bound by memory or the stack's limit, the others wait
    fullest = under_way(most)
    bound = fullest <= users
    solved = most if np.all(bound) else solve(under_way, users, most, fullest)
    found = _steady(costs, np.where(bound, most, solved), wave)
    found = _coming_back(costs, found, np.where(bound, 0.0, 1.0 - wave[0]))
    late = np.maximum(users / found.requests_per_s - found.e2e, 0.0)
    found = found.delayed(np.where(bound, late, 0.0))
    use: Numbers = np.where(bound, 1.0, found.use)
    found = found._replace(use=use)
    if costs.load.spread or not costs.ramp:
        return found
    same = _in_step(costs, found)
    share = np.where(bound, 0.0, costs.ramp)
    both: list[Numbers] = [share * a + (1.0 - share) * b for a, b in zip(same, found, strict=True)]
    return Mean(*both)


def _prompts_alone(costs: Costs) -> Mean:
    """C users whose answers are the token that the pass of the prompt makes: no more are served
    than passes take, and no faster than without a queue.
    """
    users, highest = costs.users, costs.highest()
    found = _steady(costs, np.ones_like(users, dtype=float))
    rate = np.minimum(users / (costs.outside + costs.first), highest)
    ttft = users / rate
    queue = ttft - costs.outside - costs.first
    return found._replace(
        ttft=ttft, e2e=ttft, queue=queue, requests_per_s=rate, use=rate / highest,
        waiting=(rate >= highest) * np.maximum(queue, 0.0),
    )  # fmt: skip


def _coming_back(costs: Costs, found: Mean, share: Numbers) -> Mean:
    """With the rest of a step that requests meet which come back a fixed time after one ended.

    share: of these requests. What they wait longer or shorter is a part of one step in the time of
    a request, so that the steps stay as they are.
    """
    took = np.maximum(costs.spec.tokens * found.tpot, costs.spec.tokens * found.step)
    longer = share * returned(costs, found.decoding, found.requests_per_s, took)
    longer = np.maximum(longer, -found.queue)
    e2e = found.e2e + longer
    rate = found.requests_per_s * found.e2e / e2e
    return found._replace(
        ttft=found.ttft + longer, e2e=e2e, queue=found.queue + longer, requests_per_s=rate,
        decoding=found.decoding * rate / found.requests_per_s,
        use=found.use * rate / found.requests_per_s,
    )  # fmt: skip


def _in_step(costs: Costs, found: Mean) -> Mean:
    """C users whose requests, of one length, start and end together: software that computes all
    waiting prompts before it decodes on keeps them so. Of the time of all prompts, half passes
    before a first token in the mean, and half before the second.
    """
    users, more = costs.users, costs.more
    most = np.maximum(np.minimum(costs.together, users), 1.0)  # prompts of a pass
    each = costs.each_of(most)
    groups = np.ceil(users / most)
    before = users * each * (groups + 1.0) / (2.0 * groups)
    step = costs.decode(users)
    tpot = step + (users * each - before) / more
    ttft = costs.outside + before
    e2e = ttft + more * tpot
    rate = users / e2e
    return found._replace(
        ttft=ttft, tpot=tpot, e2e=e2e, decoding=rate * more * tpot, requests_per_s=rate, step=step,
        use=rate / costs.highest(), queue=before - each * most,
    )  # fmt: skip


def closed_loops(
    server: Server,
    load: Load,
    held: Room,
    users: np.ndarray,
    spec: Speculation = NONE,
    ramp: float = 0.0,
) -> Mean:
    """The mean values of closed loops of so many users each, arrays: those of `mean`."""
    load = msgspec.structs.replace(load, kind="concurrency")
    users = np.asarray(users, dtype=float)
    return loops_of(Costs(server, load, most_of(server, load, held, spec), spec, ramp, users))


def loops_of(costs: Costs) -> Mean:
    """The mean values of the closed loops of costs whose users are an array."""
    found = _closed(costs)
    every: list[Numbers] = [np.broadcast_to(value, np.shape(costs.users)) for value in found]
    return Mean(*every)


def most_of(server: Server, load: Load, held: Room, spec: Speculation = NONE) -> float:
    """Sequences that decode at once, at most: as many as fit where they are of every age, and no
    more than are kept up by the prompts of a step. B sequences end B t / m a step, of m more tokens
    each and t a step, and a step of c tokens takes c - B of prompts of n:

        B t / m <= (c - B) / n,    B <= m c / (n t + m)
    """
    places = held.sequences(load.input_len + held.reserved * load.output_len)
    more, chunk = load.output_len - 1, max(int(server.chunk_tokens), 1)
    kept = more * chunk / (load.new * spec.tokens + more) if more > 0 else math.inf
    return float(max(min(places, kept), 1.0))


def mean_of(costs: Costs, rate: float) -> Mean:
    """The mean values where requests arrive at random, so many per second; of costs of a load of
    that kind. Raises BadInput for more than the replica can hold.
    """
    return _open(costs, rate)


def _open(costs: Costs, rate: float | None = None) -> Mean:
    """Requests that arrive at random at a rate: that of the load, or another one."""
    rate, most = costs.load.amount if rate is None else rate, costs.most
    highest = costs.highest()
    if rate >= highest:
        n = costs.server.devices
        raise BadInput(too_many(rate, highest, f"{n} device{'s' if n > 1 else ''}"))
    there, queued = _sharing(costs, rate, most)
    decoding = solve(costs.rate, rate, most)
    found = _steady(costs, decoding)
    found = found.delayed(queued / rate)
    way = costs.request_s + costs.user_s * there
    ttft = found.ttft + way - costs.request_s
    e2e = max(way + there / rate, ttft)
    tpot = 0.0
    if costs.more:
        # prompts behind its own, which are first: all of them delay its tokens
        behind = (ttft - way) * rate * found.prompt / costs.more
        stalled = min(rate * found.prompt, 0.98)
        tpot = max((e2e - ttft) / costs.more, found.step, (found.step + behind) / (1.0 - stalled))
    return found._replace(
        ttft=ttft, overhead=way, tpot=tpot, e2e=ttft + costs.more * tpot, requests_per_s=rate,
        use=rate / highest, decoding=max(rate * costs.more * tpot, 1e-9),
    )  # fmt: skip


def _sharing(costs: Costs, rate: float, most: float) -> tuple[float, float]:
    """Mean number of requests in the system, and of those that wait for a place."""
    n = np.arange(1, int(most) + 1)
    step, stall = (np.interp(n, costs.grid, each) for each in (costs.steps, costs.stalls))
    served = n / (costs.more * step + n * stall) if costs.more else costs.passing(1.0 * n)
    ratio = np.log(rate / served)
    logs = np.concatenate([[0.0], np.cumsum(ratio)])
    weights = np.exp(logs - logs.max())
    last = rate / float(served[-1])  # of each one that waits beyond the places
    tail = weights[-1] * last / (1.0 - last)
    beyond = weights[-1] * last / (1.0 - last) ** 2
    total = float(weights.sum() + tail)
    inside = float((np.arange(int(most) + 1) * weights).sum())
    return float((inside + most * tail + beyond) / total), float(beyond / total)


def solve(
    rising: Callable[[Numbers], Numbers],
    wanted: Numbers,
    most: Numbers,
    fullest: Numbers | None = None,
) -> Numbers:
    """The arguments above 0 and up to `most` at which a rising function is `wanted`: inverse
    quadratic interpolation within a bracket, halved where that is not safe [chandrupatla1997].

    fullest: the function at `most`, where it is known.
    """
    wanted = np.asarray(wanted, dtype=float)
    x1, x2 = most + 0.0 * wanted, LEAST * most + 0.0 * wanted
    f1, f2 = (rising(x1) if fullest is None else fullest) - wanted, rising(x2) - wanted
    found = np.where(f2 >= 0.0, x2, x1)  # beyond the ends
    moves, share = (f1 > 0.0) & (f2 < 0.0), 0.5 + 0.0 * wanted
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(HALVINGS):
            if not np.any(moves):
                break
            x = np.where(moves, x1 + share * (x2 - x1), found)
            f = rising(x) - wanted
            same = (f > 0.0) == (f1 > 0.0)
            x3, f3 = np.where(same, x1, x2), np.where(same, f1, f2)
            x2, f2 = np.where(same, x2, x1), np.where(same, f2, f1)
            x1, f1 = x, f
            found = np.where(moves, np.where(np.abs(f1) < np.abs(f2), x1, x2), found)
            least = NARROW * found / np.abs(x2 - x1)
            moves = moves & (least < 0.5) & (f1 != 0.0)
            xi, phi = (x1 - x2) / (x3 - x2), (f1 - f2) / (f3 - f2)
            safe = (phi * phi < xi) & ((1.0 - phi) ** 2 < 1.0 - xi)
            inverse = f1 / (f2 - f1) * f3 / (f2 - f3)
            inverse = inverse + (x3 - x1) / (x2 - x1) * f1 / (f3 - f1) * f2 / (f3 - f2)
            share = np.clip(np.where(safe, inverse, 0.5), least, 1.0 - least)
    return found
