"""One highest rate for every load; users who are fewer or more than there are places for."""

import pytest
from msgspec.structs import replace

from roofcast.simulator.serving.asked import Serving
from roofcast.simulator.serving.chain import serve
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.search import search

LENGTHS = {"input_len": 1024, "output_len": 512}


def of(kind, amount=1.0, **given):
    load = Load(kind=kind, amount=float(amount), **LENGTHS)
    return Serving(model="llama-3.1-8b", device="l40s", load=load, **given)


@pytest.mark.parametrize("stack", ["vllm", "sglang", "llama.cpp"])
def test_every_load_of_a_server_has_one_highest_rate(stack):
    loads = [("concurrency", 1), ("concurrency", 4), ("concurrency", 64), ("rate", 0.5)]
    found = [serve(of(*load, stack=stack), replays=False) for load in [*loads, ("offline", 1)]]
    rates = [f.highest_requests_per_s for f in found]
    assert rates == pytest.approx([rates[0]] * len(rates), rel=1e-9)
    assert all(f.requests_per_s <= rates[0] * (1 + 1e-9) for f in found)


@pytest.mark.parametrize(
    ("kind", "devices", "amount"),
    [("concurrency", 7, 4), ("concurrency", 3, 10), ("batch", 3, 10), ("batch", 7, 4)],
)
def test_replicas_together_have_the_users_that_are_asked_for(kind, devices, amount):
    found = serve(of(kind, amount, devices=devices, tp=1), replays=False)
    assert found.under_way == pytest.approx(amount)
    assert found.requests_per_s * found.e2e_s.mean == pytest.approx(amount)
    alone = serve(of(kind, -(-amount // devices)), replays=False)
    assert found.e2e_s.mean == pytest.approx(alone.e2e_s.mean)
    said = "fewer" if amount < devices else f"on {devices} replicas: times are of one with"
    assert any(said in line for line in found.assumptions)
    if found.use is not None:
        assert found.use == pytest.approx(found.requests_per_s / found.highest_requests_per_s)
        assert found.highest_requests_per_s == pytest.approx(devices * alone.highest_requests_per_s)


def test_idle_replicas_take_less_power():
    busy, idle = (serve(of("concurrency", n, devices=7, tp=1), replays=False) for n in (7, 1))
    assert idle.power_w < busy.power_w
    one = serve(of("concurrency", 1), replays=False)
    assert busy.power_w == pytest.approx(one.power_w)


def test_a_search_gives_replicas_the_users_that_are_asked_for():
    found = search(of("concurrency", devices=4), ["l40s"], users=[3, 10])
    for i in range(len(found.layout)):
        alone = serve(found.asked_of(i), replays=False)
        for name in ("requests_per_s", "output_tokens_per_s", "use", "usd_per_million_output_all"):
            assert found.rows[name][i] == pytest.approx(getattr(alone, name), rel=1e-9), name
        together = found.rows["requests_per_s"][i] * found.rows["e2e_s"][i]
        assert together == pytest.approx(found.rows["amount"][i])


@pytest.mark.parametrize("users", [2_001, 100_000, 10_000_000])
def test_a_crowd_waits_and_does_not_make_a_server_faster(users):
    found = serve(of("concurrency", users))
    assert found.requests_per_s == pytest.approx(found.highest_requests_per_s)
    assert found.under_way == pytest.approx(users)
    assert found.ttft_parts_s["server"] < 1.0  # only tokens of those with a place are sent
    assert found.replayed is None and any("no percentiles" in x for x in found.assumptions)


def test_a_cache_is_never_fuller_than_its_room():
    some = of("concurrency", 400)
    full = serve(replace(some, load=replace(some.load, requests=800)))
    assert full.memory.peak_bytes <= full.memory.usable_bytes and full.memory.fits
    turns = serve(of("batch", 1000), replays=False).memory
    assert turns.peak_bytes <= turns.usable_bytes and not turns.fits
    long = replace(of("concurrency", 4).load, input_len=1_000_000)
    none = serve(replace(of("concurrency", 4), load=long), replays=False).memory
    assert none.peak_bytes > none.usable_bytes and not none.fits
