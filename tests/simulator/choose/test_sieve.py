"""What a sieve holds back is never the fastest layout that fits: against every layout forecast,
under every recomputation and in every order of searches.
"""

import msgspec
import numpy as np
import pytest

from roofcast import Scenario, hwdb, predict
from roofcast.simulator.choose.chosen import choose
from roofcast.simulator.choose.search import search_layouts
from roofcast.simulator.choose.sieve import Sieve
from roofcast.simulator.choose.space import Space
from roofcast.simulator.choose.wanted import Wanted
from roofcast.simulator.forecast.rank import most_above
from roofcast.simulator.forecast.resolve import named

POLICIES = ("none", "selective", "full", "uniform:2", "every:2", "block:2")
RUNS = [
    {"model": "llama-3.2-1b", "device": "h100-sxm5", "batch": 16, "sequence": 2048},
    {"model": "gpt2-medium", "device": "l4", "batch": 32},
    {"model": "bert-large", "device": "t4", "batch": 64, "precision": "fp16"},
]


def every(run, policies, devices=4):
    """A scenario, its shapes, and their times and memory without a sieve: [shape, policy]."""
    s = Scenario(**run)
    shapes = Space(s, named(s)).shapes(devices, few=True)
    found = search_layouts(s, shapes, policies)
    return s, shapes, found


def fastest(found, capacity):
    return float(np.where(found.peak_bytes <= capacity, found.step_s, np.inf).min())


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["model"])
def test_no_order_of_policies_hides_the_fastest_layout(run):
    """A family is bounded by the least work in it, whichever of its layouts was met first."""
    s, shapes, whole = every(run, POLICIES)
    capacity = float(hwdb.device(s.device).memory.limit)
    surely = capacity / most_above("train")
    for order in (("full", "selective", "none"), POLICIES[::-1]):
        sieve = Sieve(capacity, most_above("train"))
        met = []
        for policy in order:
            some = search_layouts(s, shapes, [policy], sieve)
            known = np.isfinite(some.step_s)
            alone = whole.step_s.reshape(len(shapes), -1)[:, POLICIES.index(policy)]
            assert np.allclose(some.step_s[known], alone[known], rtol=1e-9)
            met.append(fastest(some, surely))
        among = [POLICIES.index(policy) for policy in order]
        fits = np.where(whole.peak_bytes <= surely, whole.step_s, np.inf)
        least = float(fits.reshape(len(shapes), -1)[:, among].min())
        assert min(met) == pytest.approx(least, rel=1e-9)
        assert sieve.best.get(4, np.inf) == pytest.approx(least, rel=1e-9)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("run", RUNS[:2], ids=lambda run: run["model"])
def test_a_choice_is_the_fastest_of_all_layouts_under_a_policy(run, policy):
    asked = msgspec.structs.replace(Scenario(**run), recompute=policy, tokens="1B")
    found = choose(asked, [asked.device], Wanted(devices=4, goal="time"))
    _, shapes, whole = every({**run, "recompute": policy}, [policy])
    surely = float(hwdb.device(asked.device).memory.limit) / most_above("train")
    least = fastest(whole, surely)
    best = found.choices[0]
    assert best.options["recompute"] == policy
    assert best.step_time_s <= least * (1 + 1e-9)
    alone = predict(msgspec.structs.replace(asked, **best.options))
    assert best.step_time_s == pytest.approx(alone.step_time_s, rel=1e-9)
