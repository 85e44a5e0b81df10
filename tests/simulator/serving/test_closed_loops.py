"""Closed loops: mean values beside replays, how prompts meet steps, and what a page has where mean
values do not hold.
"""

import importlib.util
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest

from roofcast.simulator.serving import chain
from roofcast.simulator.serving.arrivals import first_wave, rest
from roofcast.simulator.serving.asked import Serving
from roofcast.simulator.serving.capacity import room
from roofcast.simulator.serving.costs import Costs
from roofcast.simulator.serving.load import Load, Requests
from roofcast.simulator.serving.means import mean, most_of
from roofcast.simulator.serving.pools.asked import Pools
from roofcast.simulator.serving.pools.chain import serve as serve_pools
from roofcast.simulator.serving.replay import replay
from roofcast.simulator.serving.server import Server
from roofcast.simulator.serving.steps import Steps

_spec = importlib.util.spec_from_file_location("draws", Path(__file__).parent / "draws.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
drawn = _module.drawn

changed = msgspec.structs.replace
TIMES = ("ttft", "tpot", "e2e")
# the random draws of `benchmarks/serving_agree.py` that were farthest off once, by 8 to 46 %: first
# prompts that share a pass, experts, few users, users who come back at one point of a step
WORST = (
    ("qwen3-next-80b-a3b", "mi300x", 1, None, "vllm-2025", 68, 245, 34),
    ("qwen3-next-80b-a3b", "h200-sxm", 2, None, "vllm", 239, 207, 50),
    ("deepseek-v3", "mi300x", 8, "fp8", "vllm", 451, 698, 38),
    ("qwen3-30b-a3b", "l40s", 4, None, "vllm-2025", 257, 718, 16),
    ("gpt-oss-120b", "mi300x", 1, "fp8", "vllm", 187, 759, 31),
    ("gpt-oss-120b", "l40s", 4, None, "vllm-2025", 54, 697, 12),
    ("qwen3-next-80b-a3b", "b200-sxm", 1, None, "vllm-2025", 65, 911, 18),
    ("deepseek-v3", "b200-sxm", 8, "fp8", "vllm", 68, 59, 10),
    ("mixtral-8x7b", "mi300x", 4, None, "sglang", 542, 677, 25),
    ("llama-3-8b", "l40s", 1, None, "vllm", 189, 72, 2),
    ("gemma-3-27b", "h100-sxm5", 1, "fp8", "vllm", 130, 434, 43),
    ("gpt-oss-20b", "l40s", 1, None, "vllm", 985, 1305, 39),
)


def asked_of(model, device, tp, weights, stack, new, out, users):
    load = Load(kind="concurrency", amount=float(users), input_len=new, output_len=out)
    return Serving(model=model, device=device, tp=tp, weights=weights, stack=stack, load=load)


def both(asked, load):
    """Mean values, whether they hold, and a replay."""
    of = chain.replica(asked)
    held = chain.held_of(of, load)
    found = chain._means(of, load, held)
    doubt = chain.doubts(of, load, held, found)
    return (
        found,
        doubt,
        lambda seed: chain.replayed(of, changed(load, seed=seed), held, found, None),
    )


@pytest.mark.parametrize("case", WORST, ids=lambda case: f"{case[0]}-{case[1]}-{case[-1]}")
def test_mean_values_agree_with_the_replay_where_they_once_did_not(case):
    asked = asked_of(*case)
    found, doubt, met = both(asked, asked.load)
    assert not doubt and found.use < 0.7
    for name in TIMES:
        assert getattr(found, name) == pytest.approx(met(1).mean(name), rel=0.05), name


def random_loops(random):
    """Closed loops below 70 % load, of servers and lengths of all kinds."""
    while True:
        asked = drawn(random)
        held = chain.held_of(chain.replica(asked), asked.load)
        most = held.sequences(asked.load.input_len + asked.load.output_len)
        users = min(float(int(max(most, 2) ** random.uniform(0.0, 1.0))), 300.0)
        asked = changed(asked, load=changed(asked.load, kind="concurrency", amount=users))
        found, doubt, met = both(asked, asked.load)
        if found.use < 0.7:
            yield asked, found, doubt, met


def test_random_closed_loops_agree_with_a_replay_below_70_percent_load():
    """At least 95 % of them within 5 %; of 600 others two are beyond."""
    off = []
    for _, found, doubt, met in random_loops(Random(41)):
        if not doubt:
            sample = met(1)
            off.append([abs(getattr(found, n) / sample.mean(n) - 1.0) for n in TIMES])
        if len(off) == 40:
            break
    assert np.all(np.mean(np.array(off) < 0.05, axis=0) >= 0.95)
    assert np.max(off) < 0.08


@pytest.mark.parametrize(
    "case",
    [
        ("llama-3-8b", "a100-sxm4-80gb", 1, None, "vllm", 256, 300, 1),
        ("llama-3.1-70b", "a100-sxm4-80gb", 1, "fp8", "vllm", 256, 212, 1),
        ("llama-3.1-70b", "mi300x", 1, "fp8", "vllm-2025", 129, 154, 2),
        ("llama-3-8b", "rtx-4090", 1, "fp8", "vllm", 258, 96, 1),
    ],
    ids=lambda case: f"{case[0]}-{case[1]}",
)
def test_prompts_whose_passes_differ_by_a_tile_are_replayed(case):
    """A prompt of few more tokens than a tile has rows takes a fifth longer, and half of the
    prompts around 256 tokens are such: the mean pass is not that of the mean length.
    """
    found, doubt, met = both(asked_of(*case), asked_of(*case).load)
    assert "differ by tiles" in doubt and abs(found.ttft / met(1).mean("ttft") - 1.0) > 0.03
    alike = asked_of(*case)
    alike = changed(alike, load=changed(alike.load, spread=0.0))
    found, doubt, met = both(alike, alike.load)
    assert not doubt and found.ttft == pytest.approx(met(1).mean("ttft"), rel=0.01)


def test_where_mean_values_do_not_hold_a_page_has_those_of_its_replay():
    """The mean of the requests whose percentiles it shows."""
    seen = set()
    for asked, _, doubt, met in random_loops(Random(7)):
        if not doubt or doubt in seen:
            continue
        seen.add(doubt)
        f, sample = chain.serve(asked), met(0)
        assert any(line.startswith("means and percentiles of") for line in f.assumptions)
        for name in TIMES:
            told = getattr(f, f"{name}_s")
            assert told.mean == pytest.approx(sample.mean(name), rel=1e-9)
            assert told.p90 == pytest.approx(sample.percentile(name, 90), rel=1e-9)
        assert f.under_way == pytest.approx(f.amount, rel=1e-9)  # Little's law
        assert f.ttft_s.mean + f.decode_s == pytest.approx(f.e2e_s.mean)
        if len(seen) == 5:
            break


def test_mean_values_alone_say_where_a_single_load_has_others():
    asked = asked_of("mistral-7b", "h100-sxm5", 1, None, "vllm", 1500, 33, 14)
    table, single = (chain.serve(asked, replays=way) for way in (False, True))
    assert table.replayed is None and table.ttft_s.p90 is None
    why = "prompts take more than 15% of the time"
    assert any("a single load has those of a replay" in s and why in s for s in table.assumptions)
    assert any("means and percentiles" in s and why in s for s in single.assumptions)
    assert abs(table.ttft_s.mean / single.ttft_s.mean - 1.0) > 0.05
    longer = changed(asked, load=changed(asked.load, output_len=2000))
    for way in (False, True):
        assert not any(why in s for s in chain.serve(longer, replays=way).assumptions)


def test_two_pools_have_the_means_of_their_replay():
    load = Load(kind="concurrency", amount=4.0, input_len=2465, output_len=25)
    pools = [Serving(model="llama-3.1-8b", device="h100-sxm5", load=load) for _ in range(2)]
    f = serve_pools(Pools(prefill=pools[0], decode=pools[1]))
    assert f.ttft_s.p50 < f.ttft_s.mean < f.ttft_s.p99
    assert f.under_way == pytest.approx(4.0, rel=1e-9)
    assert sum(f.ttft_parts_s.values()) == pytest.approx(f.ttft_s.mean)
    assert any(line.startswith("means and percentiles of") for line in f.assumptions)


# ------------------------------------------------------------------ how prompts meet steps
@pytest.mark.parametrize(
    ("outside", "coming", "wide"),
    [(0.026, 0.0, 0.0), (0.026, 0.0, 0.002), (0.047, 3.0, 0.0), (0.123, 8.0, 0.001),
     (0.004, 5.0, 0.0)],
)  # fmt: skip
def test_the_rest_of_a_step_is_what_a_simulation_finds(outside, coming, wide):
    """Steps of 10 ms, longer by 5 ms for each prompt that came in the one before."""
    step, prompt = 0.010, 0.005
    random, count = np.random.default_rng(3), 40_000
    plain = step + wide * np.sqrt(3.0) * random.uniform(-1.0, 1.0, count)
    took = step / (1.0 - coming * prompt)
    now, ended = np.zeros(count), np.zeros(count, dtype=bool)
    while not ended.all():
        longer = plain + prompt * random.poisson(coming * took, count)
        now = np.where(ended, now, now + longer)
        ended = now >= outside
    simulated = float((now - outside).mean())
    assert float(rest(outside, step, prompt, coming, wide)) == pytest.approx(simulated, abs=1e-4)


@pytest.mark.parametrize(
    ("model", "device", "new", "users"),
    [
        ("llama-3.1-8b", "h100-sxm5", 1024, 6),  # one pass
        ("llama-3.1-8b", "h100-sxm5", 1024, 60),  # eight
        ("qwen3-30b-a3b", "h200-sxm", 70, 20),  # experts, which prompts share
        ("qwen3-30b-a3b", "h200-sxm", 500, 100),
        ("llama-3.1-8b", "h100-sxm5", 20_000, 12),  # several passes for each
    ],
)
def test_first_prompts_share_passes_as_in_a_replay(model, device, new, users):
    server = Server(model, device)
    load = Load(kind="concurrency", amount=float(users), input_len=new, output_len=300)
    held = room(server, new, new + 300)
    steps = Steps(server, max(users, 2), new + 300, new, chunks=(float(new), float(users * new)))
    ones = np.ones(users, dtype=np.int64)
    met = replay(steps, Requests(np.zeros(users), new * ones, 300 * ones, 0 * ones), held, users)
    found, queue = first_wave(Costs(server, load, most_of(server, load, held)))
    assert float(found) == pytest.approx(met.ttft.mean(), rel=0.05)
    assert float(queue) == pytest.approx(met.queued.mean(), rel=0.12, abs=1e-9)


def test_no_more_requests_are_served_than_prompts_pass():
    """Short answers to long prompts: a step takes a chunk, whatever else it decodes."""
    server = Server("mamba2-1.3b", "h200-sxm", weights="fp8")
    load = Load(kind="offline", input_len=6246, output_len=36)
    found = mean(server, load, room(server, 6246, 6282))
    full = float(server.mixed(1.0, load.context, 8191.0, 0.0, 8191.0 / 6246))
    assert found.requests_per_s <= 8192 / 6246 / full
    assert found.decoding == pytest.approx(35 * (8192 - found.decoding) / 6246)
