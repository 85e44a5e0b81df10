"""Laws of prefill and decode on separate pools: transfer, what binds, mean values and replay."""

import importlib.util
import math
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.serving.asked import Level, Serving
from roofcast.simulator.serving.capacity import room
from roofcast.simulator.serving.chain import replica
from roofcast.simulator.serving.load import Load, Requests, of_trace
from roofcast.simulator.serving.means import mean
from roofcast.simulator.serving.pools import chain
from roofcast.simulator.serving.pools.asked import Pools
from roofcast.simulator.serving.pools.means import Prompts, closed
from roofcast.simulator.serving.pools.search import bound, search
from roofcast.simulator.serving.pools.slo import with_level
from roofcast.simulator.serving.pools.transfer import Link, transfer
from roofcast.simulator.serving.server import Degrees, Server

_spec = importlib.util.spec_from_file_location("draws", Path(__file__).parent / "draws.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
drawn = _module.drawn

changed = msgspec.structs.replace


def asked(prefill=None, decode=None, kind="concurrency", amount=16.0, bandwidth=None, **both):
    lengths = {name: both.pop(name) for name in ("input_len", "output_len") if name in both}
    load = Load(kind=kind, amount=amount, **lengths)
    both = {"model": "llama-3.1-8b", "device": "h100-sxm5", "load": load} | both
    pools = [Serving(**(both | (each or {}))) for each in (prefill, decode)]
    return Pools(prefill=pools[0], decode=pools[1], bandwidth=bandwidth)


def means(of, **load):
    return chain.serve(chain.at_lengths(of, changed(of.decode.load, **load)), replays=False)


# ------------------------------------------------------------------ the transfer
@pytest.mark.parametrize(
    ("model", "tp", "per_token"),
    [  # bytes of all ranks: heads that ranks share, and latents, come to each of them
        ("llama-3.1-8b", 1, 131072), ("llama-3.1-8b", 8, 131072), ("llama-3.1-8b", 16, 2 * 131072),
        ("deepseek-v3", 1, 70272), ("deepseek-v3", 4, 4 * 70272),
    ],
)  # fmt: skip
def test_the_cache_that_is_sent_is_counted_byte_by_byte(model, tp, per_token):
    decode = Server(model, "h200-sxm", Degrees(tp=tp))
    prefill = Server(model, "h200-sxm", Degrees(tp=2))
    found = transfer(prefill, decode, Link("", 1e9, 1e9, 0.0, ()), Load(kind="rate"))
    assert found.bytes == 1024 * per_token
    # the slower side sets the rate
    assert found.wire == pytest.approx(found.bytes / (min(2, tp) * 1e9))


def test_a_window_or_a_state_sends_what_it_holds():
    one, two = (Server(m, "h100-sxm5") for m in ("mistral-7b", "mamba2-1.3b"))
    link = Link("", 1e9, 1e9, 0.0, ())
    for server in (one, two):
        long, longer = (transfer(server, server, link, Load(kind="rate", input_len=n)).bytes
                        for n in (16_384, 32_768))  # fmt: skip
        assert long <= longer <= 2 * long
    assert transfer(two, two, link, Load(kind="rate", input_len=64)).bytes == long == longer


def test_pieces_hide_behind_the_prompt_but_for_the_last():
    server = Server("llama-3.1-8b", "h100-sxm5", stack="sglang")
    load = Load(kind="rate", input_len=32_768)
    slow, fast = (
        transfer(server, server, Link("", speed, speed, 1e-3, ()), load) for speed in (1e8, 1e12)
    )
    assert fast.pieces == 4  # chunks of 8192
    assert fast.exposed(1.0) == pytest.approx(1e-3 + fast.wire / 4)
    assert slow.exposed(1.0) == pytest.approx(1e-3 + slow.wire - 0.75)
    whole = transfer(Server("llama-3.1-8b", "h100-sxm5"), server, Link("", 1e8, 1e8, 0, ()), load)
    assert whole.pieces == 1 and whole.exposed(1.0) == whole.wire


def test_a_slower_link_is_never_faster():
    for stack in ("vllm", "sglang"):
        found = [
            means(asked(bandwidth=speed, stack=stack, input_len=8192), amount=32.0)
            for speed in (1e8, 1e9, 1e10, 1e11, 1e12)
        ]
        for slow, fast in zip(found, found[1:], strict=False):
            assert slow.ttft_s.mean >= fast.ttft_s.mean
            assert slow.requests_per_s <= fast.requests_per_s * (1 + 1e-9)
            assert slow.e2e_s.mean >= fast.e2e_s.mean * (1 - 1e-9)
    assert found[0].ttft_s.mean > 2 * found[-1].ttft_s.mean


def test_pools_in_one_node_use_its_links_and_others_the_network():
    near = chain.run(asked({"devices": 4}, {"devices": 4})).of.link
    far = chain.run(asked({"devices": 8}, {"devices": 8})).of.link
    other = chain.run(asked({"device": "h200-sxm"}, {})).of.link
    assert near.send > 5 * far.send and other.send == far.send
    rack = chain.run(asked({"device": "gb200", "devices": 8}, {"device": "gb200", "devices": 32}))
    assert rack.of.link.name == "rack"


# ------------------------------------------------------------------ what binds
@pytest.mark.parametrize("lengths", [(1024, 512), (8000, 64), (100, 2000)], ids=str)
def test_no_load_is_served_faster_than_the_smaller_pool_allows(lengths):
    of = asked({"devices": 2, "tp": 1}, {"devices": 2, "tp": 1}, input_len=lengths[0],
               output_len=lengths[1])  # fmt: skip
    last = 0.0
    for users in (1.0, 4.0, 30.0, 200.0, 2000.0):
        f = means(of, amount=users)
        p = f.pools
        most = [
            p.prefill.highest_requests_per_s,
            p.transfer_requests_per_s,
            p.decode.highest_requests_per_s,
        ]
        assert f.requests_per_s <= min(most) and f.highest_requests_per_s == min(most)
        assert p.binds == ("prefill", "transfer", "decode")[int(np.argmin(most))]
        assert f.requests_per_s * f.e2e_s.mean == pytest.approx(users, rel=2e-3)  # Little's law
        assert f.requests_per_s >= last * (1 - 1e-5)  # of a bisection
        last = f.requests_per_s
        assert sum(f.ttft_parts_s.values()) == pytest.approx(f.ttft_s.mean, rel=1e-6)
        assert f.output_tokens_per_s_per_device == pytest.approx(f.output_tokens_per_s / 4)
        assert f.devices == p.prefill.devices + p.decode.devices == 4
    assert last > 0.85 * min(most)


def test_tokens_are_never_slower_than_with_prompts_among_them():
    """At the same number of decoding sequences per device."""
    for model, device in (("llama-3.1-8b", "h100-sxm5"), ("qwen3-30b-a3b", "h200-sxm")):
        load = Load(kind="concurrency", amount=1.0)
        mixed = replica(Serving(model=model, device=device, load=load))
        held = room(mixed.server, 1024, 1536)
        costing = chain.run(asked(model=model, device=device)).costing
        for users in (1.0, 8.0, 64.0, 150.0):
            found = mean(mixed.server, changed(load, amount=users), held)
            alone = costing.means(found.decoding, users).mean
            assert alone.tpot <= found.tpot * (1 + 1e-9)
            assert users == 1 or alone.tpot < found.tpot


def test_one_prompt_a_pass_is_a_queue_of_constant_service():
    """M/D/1: a prompt of more than half a chunk waits r s / (2 (1 - r)) in the mean."""
    server = Server("llama-3.1-8b", "h100-sxm5")
    prompts = Prompts(server, Load(kind="rate", input_len=8192), math.inf)
    s = float(server.prefill(1, 8192))
    for r in (0.1, 0.5, 0.9):
        wait, own, _ = prompts.served(r / s)
        assert wait == pytest.approx(r * s / (2 * (1 - r))) and own == pytest.approx(s)
    short = Prompts(server, Load(kind="rate", input_len=500), math.inf)
    assert short.most == 16 and short.capacity > 1.0 / float(server.prefill(1, 500))


# ------------------------------------------------------------------ the replay
@pytest.mark.parametrize("stack", ["vllm", "sglang"])
@pytest.mark.parametrize(("kind", "amount"), [("concurrency", 100.0), ("rate", 9.0)])
def test_mean_values_agree_with_the_replay(stack, kind, amount):
    """Where neither pool is near its most."""
    of = asked({}, {"devices": 2, "tp": 1}, stack=stack, kind=kind, amount=amount)
    made = chain.run(of)
    met = chain.means(made, made.of.load)
    found = chain.replayed(made, made.of.load, met)
    assert met.mean.use < 0.7
    assert met.mean.tpot == pytest.approx(found.mean("tpot"), rel=0.05)
    assert met.mean.e2e == pytest.approx(found.mean("e2e"), rel=0.05)
    assert met.mean.ttft == pytest.approx(found.mean("ttft"), rel=0.05)
    again = chain.replayed(made, made.of.load, met)
    assert np.array_equal(found.found.e2e, again.found.e2e)


@pytest.mark.parametrize(
    ("model", "stack", "lengths", "pools", "use"),
    [
        ("llama-3.1-8b", "vllm", (6855, 104), (2, 1), 0.35),
        ("gpt-oss-20b", "vllm", (300, 150), (1, 2), 0.6),
        ("qwen3-30b-a3b", "trt-llm", (2803, 658), (3, 2), 0.42),
        ("llama-3.1-8b", "sglang", (66, 67), (1, 3), 0.3),
        ("qwen3-30b-a3b", "vllm", (1817, 963), (2, 1), 0.65),
        ("gpt-oss-20b", "vllm", (6006, 400), (2, 1), 0.6),
    ],
)  # fmt: skip
def test_rates_of_several_instances_agree_with_the_replay(model, stack, lengths, pools, use):
    """Chunks that hold many prompts, one, or a part of one; a router over the instances."""
    both = {"model": model, "stack": stack, "tp": 1, "device": "h100-sxm5", "kind": "rate"}
    both |= {"input_len": lengths[0], "output_len": lengths[1], "amount": 0.01}
    of = asked({"devices": pools[0]}, {"devices": pools[1]}, **both)
    highest = float(chain.run(of).costing.totals.highest)
    load = changed(of.decode.load, amount=use * highest, requests=3000)
    made = chain.run(chain.at_lengths(of, load))
    met = chain.means(made, load)
    found = chain.replayed(made, load, met)
    for name in ("ttft", "tpot", "e2e"):
        assert getattr(met.mean, name) == pytest.approx(found.mean(name), rel=0.05), name


@pytest.mark.parametrize(
    ("model", "stack", "lengths", "pools", "users"),
    [
        ("llama-3.1-8b", "vllm", (45, 119), (1, 1), 200),
        ("gpt-oss-20b", "vllm", (193, 60), (2, 2), 100),
        ("qwen3-30b-a3b", "trt-llm", (1271, 413), (3, 1), 49),
        ("gpt-oss-20b", "sglang", (6006, 400), (2, 1), 12),
    ],
)  # fmt: skip
def test_closed_loops_of_several_instances_agree_with_the_replay(
    model, stack, lengths, pools, users
):
    """First requests that come together, and those of users who are mixed."""
    both = {"model": model, "stack": stack, "tp": 1, "device": "h100-sxm5"}
    both |= {"input_len": lengths[0], "output_len": lengths[1], "amount": float(users)}
    made = chain.run(asked({"devices": pools[0]}, {"devices": pools[1]}, **both))
    met = chain.means(made, made.of.load)
    found = chain.replayed(made, made.of.load, met)
    assert met.mean.use < 0.7
    for name in ("ttft", "tpot", "e2e"):
        assert getattr(met.mean, name) == pytest.approx(found.mean(name), rel=0.05), name


def test_other_users_delay_the_first_token_as_on_one_pool():
    """Their tokens go through the same loop of the server: `user_s` for each other user."""
    for users in (1.0, 9.0, 65.0):
        f = means(asked(amount=users))
        server = chain.run(asked()).of.prefill.server
        assert server.user_s > 0
        outside = server.request_s + (users - 1) * server.user_s
        assert f.ttft_parts_s["server"] == pytest.approx(outside)
    f = means(asked(kind="rate", amount=4.0))
    there = f.requests_per_s * (f.e2e_s.mean - f.ttft_parts_s["server"])
    assert f.ttft_parts_s["server"] == pytest.approx(server.request_s + there * server.user_s)


def test_a_trace_is_served_once_each_and_a_full_cache_takes_it_from_the_newest():
    count = 60
    sent = Requests(np.zeros(count), *(np.full(count, n) for n in (4000, 3000, 0)))
    load = of_trace(sent, 0.0)
    edits = {"memory.capacity": "30GiB"}
    small = asked({}, {"set": edits})
    f = chain.serve(chain.at_lengths(small, load), sent)
    assert f.replayed == count and f.preempted > 0
    assert f.ttft_s.p50 < f.ttft_s.p99 <= f.e2e_s.p99
    large = chain.serve(chain.at_lengths(asked({}, {"devices": 4, "tp": 1}), load), sent)
    assert large.e2e_s.mean < f.e2e_s.mean and not large.preempted


def test_a_service_level_holds_at_the_rate_that_is_found():
    of = asked({}, {}, kind="rate", amount=1.0, input_len=512, output_len=64)
    of = chain.at_lengths(of, changed(of.decode.load, requests=100))
    f = with_level(of, Level({"ttft": 0.3, "tpot": 0.012}))
    assert f.ttft_s.p90 <= 0.301 and f.tpot_s.p90 <= 0.01205
    assert 1.0 < f.requests_per_s < f.highest_requests_per_s
    with pytest.raises(BadInput, match="no rate holds it"):
        with_level(of, Level({"tpot": 0.001}))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kind": "batch", "amount": 4.0}, "static batch"),
        ({"output_len": 1}, "nothing to do"),
        ({"bandwidth": 0.0}, "transfer bandwidth"),
        ({"prefill": {"device": "rtx-4060"}}, "prefill pool: llama-3.1-8b does not fit"),
        ({"decode": {"tp": 3}}, "decode pool: tp 3"),
        ({"kind": "rate", "amount": 1e4}, "pool can serve; the highest is"),
    ],
    ids=str,
)
def test_what_two_pools_cannot_do_is_one_line(given, says):
    with pytest.raises(BadInput, match=says) as caught:
        chain.serve(asked(**given))
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------ the search
def test_every_split_is_there_once_and_is_what_serve_forecasts():
    of = Serving(model="llama-3.1-8b", device="", load=Load(kind="concurrency"), devices=6, pp=1)
    found = search(of, "h100-sxm5", goal="cost", level=Level({"tpot": 0.02}))
    sizes = (1, 2, 4)  # 3 does not divide the heads
    ways = {
        (a, b, p, (6 - p * a) // b)
        for a in sizes for b in sizes for p in range(1, 6)
        if 6 - p * a >= b and (6 - p * a) % b == 0
    }  # fmt: skip
    mine = {(s.prefill.size, s.decode.size, s.prefills, s.decodes) for s in found.splits}
    assert mine == ways and len(found.splits) == len(ways)
    assert all(sum(s.devices) == 6 for s in found.splits)
    for i in [*found.best(3), *found.front()[::40]]:
        split, users = found.splits[found.layout[i]], found.rows["amount"][i]
        f = chain.serve(split.asked(users), replays=False)
        for name in ("requests_per_s", "output_tokens_per_s_per_device", "tokens_per_s_per_user"):
            assert getattr(f, name) == pytest.approx(found.rows[name][i], rel=1e-9)
        assert f.ttft_s.mean == pytest.approx(found.rows["ttft_s"][i], rel=1e-9)
        cost = found.rows["usd_per_million_output_all"][i]
        assert f.usd_per_million_output_all == pytest.approx(cost, rel=1e-9)
        assert bound(found, i) == f.pools.binds
    best = found.rows["usd_per_million_output_all"][found.best(1)[0]]
    assert best == np.min(found.rows["usd_per_million_output_all"][found.holds])
    assert np.all(found.rows["tpot_s"][found.best(50)] <= 0.02)


@pytest.mark.parametrize(
    ("model", "lengths", "users"),
    [
        ("qwen3-30b-a3b", (6006, 100), None),  # a pass takes parts of prompts
        ("llama-3.1-8b", (20_000, 60), None),  # a prompt takes several passes
        ("gpt-oss-20b", (60, 40), (1, 7, 300, 5000)),  # many prompts to a pass; too many users
    ],
)
def test_splits_that_are_solved_together_are_those_of_serve(model, lengths, users):
    load = Load(kind="concurrency", input_len=lengths[0], output_len=lengths[1])
    of = Serving(model=model, device="", load=load, devices=8, pp=1)
    found = search(of, "h200-sxm", users)
    for i in np.random.default_rng(2).choice(len(found.layout), 12, replace=False).tolist():
        f = chain.serve(found.splits[found.layout[i]].asked(found.rows["amount"][i]), replays=False)
        for name, value in {
            "ttft_s": f.ttft_s.mean, "tpot_s": f.tpot_s.mean, "e2e_s": f.e2e_s.mean, "use": f.use,
            "output_tokens_per_s_per_device": f.output_tokens_per_s_per_device,
            "output_tokens_per_s_per_device_low": f.output_tokens_per_s_range[0] / f.devices,
            "prefill_devices": f.pools.prefill.devices, "decode_devices": f.pools.decode.devices,
            "usd_per_million_output_all": f.usd_per_million_output_all,
        }.items():  # fmt: skip
            assert found.rows[name][i] == pytest.approx(value, rel=1e-9), name
        assert bound(found, i) == f.pools.binds


# ------------------------------------------------------------------ random pools
def test_laws_of_random_pools():
    """Models, devices, layouts, formats, software and lengths of all kinds: more users never lower
    the throughput by more than a step of a graph nor shorten a token, and Little's law holds.
    """
    random, seen = Random(11), 0
    while seen < 8:
        one = changed(drawn(random), devices=None)
        size = (one.tp or 1) * (one.pp or 1)
        pools = [changed(one, devices=size * random.choice((1, 2, 3))) for _ in range(2)]
        of = Pools(prefill=pools[0], decode=pools[1])
        try:
            made = chain.run(of)
        except BadInput:
            continue
        seen += 1
        users = np.array([1.0, 3.0, 12.0, 60.0, 300.0, 2000.0])
        found = closed(made.costing, users).mean
        assert np.all(found.requests_per_s <= made.costing.totals.highest)
        assert found.requests_per_s * found.e2e == pytest.approx(users, rel=3e-3)
        assert np.all(found.requests_per_s[1:] >= 0.9 * found.requests_per_s[:-1]), one
        if not made.of.decode.server.profile.gemv:
            assert np.all(found.tpot[1:] >= found.tpot[:-1] * (1 - 1e-5)), one
