"""How the prompts of a closed loop meet the steps of the engine: first requests, which come
together, and requests that come back a fixed time after the end of a step.
"""

from __future__ import annotations

import numpy as np

from roofcast.simulator.serving.costs import Costs
from roofcast.simulator.serving.protocol import Numbers

STEPS = 24  # while a request is outside the engine, beyond which it meets a step at random
PROMPTS = 6  # in these steps that are told apart; more are taken as so many
LEAST = 1e-12
BUSY = 0.98  # of the time, that prompts of others take at most
WIDTH = 12.0**0.5  # of an even distribution over its standard deviation
NARROW = 1e-9  # of a step, half of that width at least


def first_wave(costs: Costs) -> tuple[Numbers, Numbers]:
    """Seconds from the arrival of the first requests of all users, which come together, to their
    first tokens, and of that in the queue, in the mean. Each pass takes as many as a chunk holds,
    k, and in it those before them decode:

        T(1) = A(k),    T(i) = T(i-1) + G + g k (i - 1)

    A: a pass of prompts alone; G: a full one with one sequence that decodes; g: what another adds.
    """
    several = np.less(costs.together, 1.0)  # a prompt takes several passes
    if np.all(several):
        return _one_by_one(costs)
    if not np.any(several):
        return _in_chunks(costs)
    both = zip(_one_by_one(costs), _in_chunks(costs), strict=True)
    mean, queue = (np.where(several, one, many) for one, many in both)
    return mean, queue


def _one_by_one(costs: Costs) -> tuple[Numbers, Numbers]:
    """The same where a prompt takes several passes, in which those before it decode."""
    users = _first(costs)
    met = (users + 1.0) / 3.0
    each = costs.added(met) + costs.decode(met) * costs.spec.tokens / costs.together
    queue = each * (users - 1.0) / 2.0
    return costs.first + queue, queue


def _first(costs: Costs) -> Numbers:
    """Users whose first prompts are computed one behind the other: the rest wait for a place."""
    return np.minimum(costs.users, np.maximum(costs.most, 1.0))


def _in_chunks(costs: Costs) -> tuple[Numbers, Numbers]:
    """The same where a pass takes several prompts."""
    users, k = _first(costs), costs.together
    full = np.maximum(np.ceil(users / k - 1e-9), 1.0) - 1.0  # passes before the last one
    alone, (one, more) = costs.of_pass(np.minimum(users, k)), costs.full_pass
    others = more * k * full
    sums = full * alone + (full - 1.0) * (one * full + others * (full + 1.0) / 3.0) / 2.0
    left = users - full * k
    before = alone + (full - 1.0) * (one + others / 2.0) + others
    last = np.where(full > 0.0, before + costs.of_pass(np.maximum(left, 1.0)), alone)
    mean = (k * sums + left * last) / users
    return mean, np.maximum(mean - alone, 0.0)


def at_random(took: Numbers, rate: Numbers, added: Numbers) -> Numbers:
    """What is left of a step when a request arrives at random: E[s^2] / (2 E[s]), where some steps
    are longer by a prompt. Twice as long other prompts arrive that the next step takes as well.
    """
    return (took * took + rate * took * added * added) / (2.0 * took)


def meets(costs: Costs, decoding: Numbers) -> Numbers:
    """Probability that others decode when a prompt is computed: of the other users of a closed
    loop, each by itself.
    """
    if costs.load.kind == "offline":
        return 1.0
    if costs.load.kind != "concurrency":
        return 1.0 - np.exp(-decoding)
    idle = np.clip(1.0 - decoding / costs.users, LEAST, 1.0)
    return 1.0 - idle ** (costs.users - 1.0)


def returned(costs: Costs, decoding: Numbers, rate: Numbers, took: Numbers) -> Numbers:
    """Seconds that the rest of a step is longer for a request that comes back to the engine than
    for one that arrives at random, where others decode.

    decoding: sequences in the mean; rate: requests per second; took: seconds of a step. How many
    others decode differs between requests, and with it how long a step takes without prompts.
    """
    tokens, others = costs.spec.tokens, decoding * costs.others
    few = np.maximum(others, 1.0)
    step, coming = tokens * costs.decode(few), rate * costs.others
    added = costs.added(costs.met(decoding))
    share = np.clip(decoding / costs.users, 0.0, 1.0)
    more = few + np.sqrt(np.maximum(others * (1.0 - share), 0.0))
    wide = np.abs(tokens * costs.decode(more) - step)
    found = np.clip(rest(costs.outside, step, added, coming, wide), 0.0, step + added)
    known = costs.outside < STEPS * step
    plain = at_random(np.maximum(took, step), coming, added)
    return np.where(known, found - plain, 0.0) * meets(costs, decoding)


def rest(
    outside: Numbers, step: Numbers, prompt: Numbers, coming: Numbers, wide: Numbers = 0.0
) -> Numbers:
    """What is left of a step when a request comes to the engine w seconds after one ended.

    A step without prompts takes d; the first n have S(n) prompts in them, which come at random, of
    p seconds each. Of these steps n* - 1 have ended before the time w, so that (Wald's equation)

        rest = sum over n of E[d; n d + p S(n) < w] + p E[S(1)] P(n d + p S(n) < w) - w

    outside: w; coming: prompts per second; wide: standard deviation of d between requests, which is
    taken as spread evenly from a = d - h to d + h: for x = (w - p S) / n between these

        P(d < x) = (x - a) / 2 h,    E[d; d < x] = P(d < x) (x + a) / 2

    >>> round(float(rest(0.026, 0.010, 0.005, 0.0)), 6)
    0.004
    >>> round(float(rest(0.026, 0.010, 0.0, 0.0, 0.003)), 6)
    0.00467
    """
    took = step / np.maximum(1.0 - coming * prompt, 1.0 - BUSY)
    half = np.clip(WIDTH * wide / 2.0, NARROW * step, step / 2.0)
    least, each = step - half, coming * took
    stalls = prompt * each
    passed: Numbers = step + stalls
    for n in range(1, STEPS + 1):
        if np.all(outside <= n * least):
            break
        chance, more = np.exp(-n * each), np.ones_like(each)
        for j in range(PROMPTS + 1):
            chance = np.where(j < PROMPTS, chance, more)
            longest = np.clip((outside - j * prompt) / n, least, step + half)
            below = chance * (longest - least) / (2.0 * half)
            passed = passed + below * ((longest + least) / 2.0 + stalls)
            more = more - chance
            chance = chance * n * each / (j + 1.0)
    return passed - outside
