"""Closed loops of more users than have a place: no more is served than at the highest rate."""

import msgspec
import numpy as np
import pytest

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.serving import chain
from roofcast.simulator.serving.asked import Serving
from roofcast.simulator.serving.costs import Costs
from roofcast.simulator.serving.load import Load, requests
from roofcast.simulator.serving.pools import chain as two_pools
from roofcast.simulator.serving.pools.asked import Pools
from roofcast.simulator.serving.replay import Batching
from roofcast.simulator.serving.sample import loop_rate

changed = msgspec.structs.replace
SERVERS = {
    ("llama-3.1-8b", "l40s"): (130, 150, 180, 400, 1500),  # 147 places
    ("llama-3.1-8b", "rtx-4090"): (30, 40, 100, 700),  # 33
    ("llama-3-8b", "h100-sxm5"): (320, 400, 600, 2000),  # 330
    ("gpt-oss-20b", "h100-sxm5"): (1000, 1100, 1800),  # 1,024
    ("mistral-7b", "a100-sxm4-80gb"): (300, 500, 1300),
}
CASES = [(model, device, users) for (model, device), many in SERVERS.items() for users in many]


def asked_of(model, device, users, **given):
    load = Load(kind="concurrency", amount=float(users), **given)
    return Serving(model=model, device=device, load=load)


def highest_of(of, load, held):
    """Requests per second with all requests queued."""
    return chain._means(of, changed(load, kind="offline"), held).requests_per_s


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_users_are_never_served_faster_than_at_the_highest_rate(case):
    asked = asked_of(*case)
    of, load = chain.replica(asked), asked.load
    held = chain.held_of(of, load)
    highest, found = highest_of(of, load, held), chain._means(of, load, held)
    assert found.requests_per_s <= 1.01 * highest
    met = chain.replayed(of, load, held, found, None)
    assert loop_rate(load, met, found.waiting > 0.0) <= 1.01 * highest
    forecast = chain.serve(asked)
    assert forecast.requests_per_s <= (1.0 + 1e-9) * highest
    assert forecast.highest_requests_per_s == pytest.approx(highest, rel=1e-9)
    assert forecast.requests_per_s * forecast.e2e_s.mean == pytest.approx(load.amount, rel=1e-9)
    assert forecast.requests_per_s > 0.9 * highest


@pytest.mark.parametrize(
    ("device", "users"), [("l40s", 400), ("h100-sxm5", 600), ("rtx-4090", 100)]
)
def test_a_full_loop_is_that_of_a_long_run(device, users):
    """Of twelve requests from each user, without those of the beginning and of the end; sequences
    that lose their cache become more for some requests of each.
    """
    asked = asked_of("llama-3.1-8b", device, users)
    of, load = chain.replica(asked), asked.load
    held = chain.held_of(of, load)
    found = chain._means(of, load, held)
    steps = chain.steps_of(of, load, held, 1.1 * (load.input_len + load.output_len))
    run = Batching(steps, requests(load, 12 * users), held, users, found.overhead, 11 * users)
    run.run()
    long = (np.array(run.end) - np.array(run.issued))[4 * users : 11 * users].mean()
    assert chain.serve(asked).e2e_s.mean == pytest.approx(float(long), rel=0.06)


def test_first_requests_alone_are_served_no_faster():
    asked = asked_of("llama-3.1-8b", "l40s", 400, requests=400)
    of = chain.replica(asked)
    highest = highest_of(of, asked.load, chain.held_of(of, asked.load))
    assert 0.7 * highest < chain.serve(asked).requests_per_s <= 1.01 * highest


@pytest.mark.parametrize("users", [300, 1133])
def test_two_pools_are_served_no_faster_than_the_slower_one_serves(users):
    load = Load(kind="concurrency", amount=float(users), input_len=1978, output_len=113)
    one = Serving(model="llama-3.2-1b", device="l40s", load=load)
    asked = Pools(prefill=one, decode=changed(one, devices=2))
    made = two_pools.run(asked)
    found = two_pools.means(made, load)
    met, highest = two_pools.replayed(made, load, found), float(made.costing.totals.highest)
    assert loop_rate(load, met, found.mean.waiting > 0.0) <= 1.02 * highest
    forecast = two_pools.serve(asked)
    assert 0.97 * highest < forecast.requests_per_s <= (1.0 + 1e-9) * highest
    assert forecast.under_way == pytest.approx(users, rel=1e-9)


@pytest.mark.parametrize("new", [600, 1024, 20_000])
def test_answers_of_one_token_have_one_highest_rate(new):
    """That of full passes of prompts, whatever the load."""
    given = {"input_len": new, "output_len": 1}
    asked = asked_of("llama-3.1-8b", "l40s", 1, **given)
    server = chain.replica(asked).server
    k = max(server.chunk_tokens / new, 1.0)
    of_chunk = float(server.prefill(k, new)) / k
    loads = [Load(kind="offline", **given), Load(kind="rate", amount=0.1, **given)]
    loads += [asked_of("llama-3.1-8b", "l40s", users, **given).load for users in (1, 4, 8, 60)]
    found = [chain.serve(changed(asked, load=load)) for load in loads]
    every = {f"{f.highest_requests_per_s:.9g}" for f in found}
    assert len(every) == 1
    highest = found[0].highest_requests_per_s
    if new <= server.chunk_tokens:
        assert highest == pytest.approx(1.0 / of_chunk, rel=1e-6)
    assert all(f.requests_per_s <= highest * (1.0 + 1e-9) for f in found)
    assert found[-1].requests_per_s == pytest.approx(highest, rel=0.02)
    rate = Load(kind="rate", amount=1.01 * highest, **given)
    with pytest.raises(BadInput, match="the highest is"):
        chain.serve(changed(asked, load=rate))
    assert chain.serve(changed(asked, load=changed(rate, amount=0.97 * highest))).use < 1.0


@pytest.mark.parametrize(
    ("model", "tp", "users", "new"),
    [("llama-3.1-8b", 1, 6, 30_000), ("gpt-oss-20b", 1, 4, 50_000), ("llama-3.1-8b", 8, 1, 2e6)],
)
def test_chunks_taken_at_once_are_those_taken_one_by_one(model, tp, users, new, monkeypatch):
    """Where a prompt takes a step for each of its chunks, and others decode in these steps."""
    asked = asked_of(model, "h100-sxm5", users, input_len=int(new), output_len=120, requests=40)
    asked = changed(asked, tp=tp)
    of, load = chain.replica(asked), asked.load
    held = chain.held_of(of, load)
    found = chain._means(of, load, held)
    met = chain.replayed(of, load, held, found)
    monkeypatch.setattr(Batching, "_alike", lambda self, chunk: 1)
    each = chain.replayed(of, load, held, found)
    for name in ("ttft", "e2e", "queued"):
        one, other = getattr(met.found, name), getattr(each.found, name)
        assert one == pytest.approx(other, rel=1e-6, abs=1e-5), name


def test_chunks_of_a_long_prompt_take_what_each_of_them_takes():
    server = chain.replica(asked_of("llama-3.1-8b", "h100-sxm5", 1)).server
    load = Load(kind="offline", input_len=50_000, output_len=100, cached=0.1)
    costs = Costs(server, load, 8.0)
    size, start = int(server.chunk_tokens), load.hit
    first = stall = 0.0
    plain = float(server.decode(4, load.context))
    while start < load.input_len:
        new = min(size, load.input_len - start)
        first += float(server.prefill(1, new, start))
        stall += float(server.mixed(4, load.context, new, start)) - plain
        start += new
    assert costs.first == pytest.approx(first, rel=1e-9)
    assert float(costs.added(4)) == pytest.approx(stall, rel=1e-9)
