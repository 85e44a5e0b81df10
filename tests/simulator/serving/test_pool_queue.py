"""Laws of the queue of prompts on instances that compute as many at once as a chunk holds."""

import heapq
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roofcast.simulator.serving.pools.bulk import LOADS, alone, shared
from roofcast.simulator.serving.pools.prompts import parts
from roofcast.simulator.serving.pools.router import beside


def found(seconds, use, instances=1):
    """Wait and pass at a share of the capacity, as `Prompts.served` has them."""
    k = np.arange(1, len(seconds) + 1)
    capacity = float(np.max(k / seconds))
    of = alone(seconds, capacity)
    busy, wait, own = shared(of, float(seconds[0]), capacity, use * capacity, instances)
    own = np.interp(own, k, seconds)
    return float(busy), float(busy * wait), float(busy * own + (1.0 - busy) * seconds[0])


def simulated(seconds, use, instances, count):
    """The same, request by request."""
    k, random = len(seconds), np.random.default_rng(1)
    rate = use * instances * np.max(np.arange(1, k + 1) / seconds)
    arrival = np.cumsum(random.exponential(1.0 / rate, count)).tolist()
    waiting, inside = [[] for _ in range(instances)], [0] * instances
    ends, waits, passes = [], [], []

    def start(j, now):
        batch, waiting[j] = waiting[j][:k], waiting[j][k:]
        inside[j] = len(batch)
        waits.extend(now - t for t in batch)
        passes.extend(float(seconds[len(batch) - 1]) for _ in batch)
        heapq.heappush(ends, (now + float(seconds[len(batch) - 1]), j))

    for now in arrival:
        while ends and ends[0][0] <= now:
            end, j = heapq.heappop(ends)
            inside[j] = 0
            if waiting[j]:
                start(j, end)
        j = min(range(instances), key=lambda j: len(waiting[j]) + inside[j])
        waiting[j].append(now)
        if not inside[j]:
            start(j, now)
    return float(np.mean(waits)), float(np.mean(passes))


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 0.89), st.floats(1e-3, 10.0))
def test_one_at_a_time_is_a_queue_of_constant_service(use, service):
    """M/D/1: r s / (2 (1 - r)) in the mean; between the loads that are solved too."""
    busy, wait, own = found(np.array([service]), use)
    assert busy == pytest.approx(use, rel=0.01)
    assert wait == pytest.approx(use * service / (2.0 * (1.0 - use)), rel=0.02)
    assert own == pytest.approx(service)


@pytest.mark.parametrize("use", [0.2, 0.5, 0.7])
@pytest.mark.parametrize("most", [1, 2, 7, 30])
@pytest.mark.parametrize(("instances", "within"), [(1, 0.03), (2, 0.08), (3, 0.08), (6, 0.12)])
def test_it_is_what_a_simulation_finds(most, use, instances, within):
    """To the end of the pass: one instance within the noise of 10,000 requests; of several, one
    number does not say what each of them holds, and what a router evens out is estimated.
    """
    seconds = 5.0 + 3.0 * np.arange(1, most + 1)
    _, wait, own = found(seconds, use, instances)
    waited, took = simulated(seconds, use, instances, 10_000)
    assert wait + own == pytest.approx(waited + took, rel=within)


@pytest.mark.parametrize(("m", "k"), [(3, 4), (2, 7), (3, 2)])
def test_a_pass_may_hold_a_part_of_a_request(m, k):
    """k parts a pass, m a request, against a simulation of one instance to the end of its last."""
    seconds = 2.0 + np.arange(1, k + 1)
    capacity = k / m / float(seconds[-1])
    one = sum(float(seconds[min(k, m - start) - 1]) for start in range(0, m, k))
    random, use = np.random.default_rng(2), 0.6
    arrival = np.cumsum(random.exponential(1.0 / (use * capacity), 20_000))
    now, met, left = 0.0, [], []  # left: arrivals and parts of those that wait
    coming = iter([*arrival.tolist(), np.inf])
    nearest = next(coming)
    while len(met) < len(arrival):
        now = max(now, nearest) if not left else now
        while nearest <= now:
            left.append([nearest, m])
            nearest = next(coming)
        room, done = k, []
        while left and room:
            took = min(room, left[0][1])
            left[0][1] -= took
            room -= took
            if left[0][1] == 0:
                done.append(left.pop(0)[0])
        now += float(seconds[k - room - 1])
        met += [now - at for at in done]
    of = alone(seconds, capacity, m)
    busy, wait, own = shared(of, one, capacity, use * capacity, 1.0)
    own = np.interp(own * m, np.arange(1, k + 1), seconds)
    assert busy * (wait + own) + (1.0 - busy) * one == pytest.approx(np.mean(met), rel=0.03)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.05, 300.0))
def test_parts_of_a_prompt_fill_most_of_a_chunk(share):
    m, k = parts(share)
    assert 1 <= m <= 6 and k >= 1
    assert k / m <= share * (1 + 1e-6) or share < 1 / 6
    assert k / m > 0.8 * share


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(1, 12), st.floats(0.0, 1.0))
def test_sequences_beside_one_are_the_mean_over_a_binomial(users, instances, share):
    """E[max(K + 1 - n, 0)] / n, K others of whom each decodes with the same probability."""
    k = np.arange(users)
    ways = np.array([math.comb(users - 1, int(j)) for j in k], dtype=float)
    probability = ways * share**k * (1.0 - share) ** (users - 1 - k)
    wanted = float(probability @ np.maximum(k + 1 - instances, 0)) / instances
    found = float(beside(share * (users - 1), float(instances), float(users)))
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.floats(0.0, 20.0), st.floats(0.05, 5.0), st.floats(0.02, 0.9),
    st.integers(2, 8),
)  # fmt: skip
def test_laws_of_random_queues(most, start, each, use, instances):
    seconds = start + each * np.arange(1, most + 1)
    busy, wait, own = found(seconds, use)
    assert 0.0 < busy < 1.0 and wait > 0.0
    assert seconds[0] * (1 - 1e-9) <= own <= seconds[-1] * (1 + 1e-9)
    assert busy >= use * (1 - 0.02)  # passes that are not full take more of the time
    more = found(seconds, min(use * 1.05, 0.95))
    assert more[1] > wait and more[0] > busy
    # a router keeps requests from an instance that is busy while another is not
    several = found(seconds, use, instances)
    assert several[1] <= wait * (1 + 1e-9) and several[2] <= own * (1 + 1e-9)
    assert np.all(np.diff(LOADS) > 0)
