"""Laws of serving on random models, devices, layouts, formats, software and lengths."""

import importlib.util
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.serving.asked import Serving
from roofcast.simulator.serving.chain import held_of, replica, serve, steps_of, trusted
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.means import mean
from roofcast.simulator.serving.replay import replay
from roofcast.simulator.serving.sample import at_rate
from roofcast.simulator.serving.server import Degrees, Server

_spec = importlib.util.spec_from_file_location("draws", Path(__file__).parent / "draws.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
drawn = _module.drawn

GRAPH_STEP = 0.10  # by which a step of tiles or graphs may lower the throughput
changed = msgspec.structs.replace


def means(of, held, load):
    return mean(of.server, load, held, of.spec, of.server.profile.ramp)


def test_more_users_never_lower_the_throughput_nor_shorten_a_token_nor_longer_contexts_a_step():
    """Up to as many users as fit. llama.cpp has kernels of its own for up to eight rows, slower
    than those for more, and says so.
    """
    random, seen = Random(17), 0
    for _ in range(50):
        asked = drawn(random)
        of = replica(asked)
        held, load = held_of(of, asked.load), asked.load
        most = max(held.sequences(load.input_len + load.output_len), 1)
        users = sorted({max(1, int(n)) for n in np.geomspace(1, most, 5)})
        found = [means(of, held, changed(load, kind="concurrency", amount=float(n))) for n in users]
        for few, many in zip(found, found[1:], strict=False):
            assert many.requests_per_s >= (1 - GRAPH_STEP) * few.requests_per_s, asked
            if not of.server.profile.gemv:
                assert many.tpot >= few.tpot * (1 - 1e-6), asked
                seen += 1
        batch = changed(load, kind="batch", amount=float(random.choice((1, 3, 17, 64))))
        longer = changed(batch, input_len=int(load.input_len * random.uniform(1.05, 3.0)))
        short, long = means(of, held, batch), means(of, held, longer)
        assert long.tpot >= short.tpot * (1 - 1e-6), asked
        assert long.ttft >= short.ttft * (1 - 1e-6), asked
    assert seen > 80


def test_mean_values_agree_with_a_replay_below_70_percent_load_or_are_not_used():
    """Within 5 %. Where mean values do not hold, a rate without percentiles is replayed too."""
    random, compared, replayed = Random(5), 0, 0
    while compared < 15:
        asked = drawn(random)
        of = replica(asked)
        held = held_of(of, asked.load)
        rate = random.uniform(0.05, 0.7) * means(of, held, asked.load).requests_per_s
        load = changed(asked.load, kind="rate", amount=rate)
        found = means(of, held, load)
        if not trusted(of, load, held, found):
            if replayed < 5:
                plain = serve(changed(asked, load=changed(load, requests=50)), replays=False)
                assert plain.replayed == 50
                replayed += 1
            continue
        steps = steps_of(of, load, held, 1.1 * (load.input_len + load.output_len))

        def run(sent, users, needed, of=(steps, held, found.overhead)):
            return replay(of[0], sent, of[1], users, of[2], needed)

        met = at_rate(load, 2500, rate * found.e2e, run, means=True)
        for name in ("ttft", "tpot", "e2e"):
            assert getattr(found, name) == pytest.approx(met.mean(name), rel=0.05), (name, asked)
        compared += 1
    assert replayed == 5


def test_energy_and_cost_are_positive_and_consistent_and_time_is_the_sum_of_its_parts():
    random = Random(23)
    for _ in range(50):
        asked = drawn(random)
        kind = random.choice(("batch", "concurrency", "offline"))
        load = changed(asked.load, kind=kind, amount=float(random.choice((1, 4, 30))))
        f = serve(changed(asked, load=load), replays=False)
        dollars = f.price_usd_per_hour * f.devices / 3600 if f.price_usd_per_hour else None
        if dollars is not None:  # per second, by the price of tokens
            by_tokens = f.usd_per_million_output_all / 1e6 * f.output_tokens_per_s
            assert by_tokens == pytest.approx(dollars) and dollars > 0
            apart = f.usd_per_million_input * f.input_len
            apart += f.usd_per_million_output * f.output_len
            assert apart / 1e6 * f.requests_per_s == pytest.approx(dollars)
        if f.power_w is not None:
            joules = f.energy_j_per_output_token * f.output_tokens_per_s
            assert joules == pytest.approx(f.power_w * f.devices) and joules > 0
        assert all(part >= 0 for part in f.ttft_parts_s.values())
        assert sum(f.ttft_parts_s.values()) == pytest.approx(f.ttft_s.mean)
        assert f.ttft_s.mean + f.decode_s == pytest.approx(f.e2e_s.mean)
        more = max(f.output_len - 1, 0)
        assert f.decode_s == pytest.approx(more * f.tpot_s.mean, abs=1e-12)
        assert f.under_way == pytest.approx(f.requests_per_s * f.e2e_s.mean)
        if kind != "offline":  # Little's law: the users, on all replicas
            assert f.under_way == pytest.approx(f.amount, rel=2e-3)


def test_fewer_bits_and_more_ranks_never_take_more_bytes_of_a_device():
    random, compared = Random(3), 0
    for _ in range(30):
        asked = drawn(random, pp=1, stack="vllm")
        sizes = []
        for weights in ("bf16", "fp8", "int4"):
            server = Server(asked.model, asked.device, Degrees(tp=asked.tp), weights=weights)
            sizes.append(server.weight_bytes + server.runtime_bytes)
        assert sizes[0] >= sizes[1] >= sizes[2], asked
        try:
            more = Server(asked.model, asked.device, Degrees(tp=2 * asked.tp))
        except BadInput:  # heads, groups or widths that do not divide
            continue
        compared += 1
        less = Server(asked.model, asked.device, Degrees(tp=asked.tp))
        halves = Server(asked.model, asked.device, Degrees(tp=asked.tp, pp=2))
        for server in (more, halves):
            assert server.weight_bytes <= less.weight_bytes, asked
            for tokens in (10, 3000):
                assert float(server.cache_bytes(tokens)) <= float(less.cache_bytes(tokens)), asked
    assert compared > 10


def test_a_faster_link_is_never_slower():
    """Twice the bandwidth of every level between devices, for all random layouts of several."""
    random, compared = Random(31), 0
    for _ in range(25):
        asked: Serving = drawn(random, tp=random.choice((2, 4, 8)))
        server = Server(asked.model, asked.device, Degrees(tp=asked.tp, pp=asked.pp))
        slow = server.decode([1, 30, 200], 1000), server.prefill([1, 4], 700)
        fabric = server.links.fabric
        levels = tuple(x._replace(bandwidth=2 * x.bandwidth) for x in fabric.levels)
        server.links = server.links._replace(fabric=fabric._replace(levels=levels))
        fast = server.decode([1, 30, 200], 1000), server.prefill([1, 4], 700)
        for before, after in zip(slow, fast, strict=True):
            assert np.all(after <= before * (1 + 1e-9)), asked
            compared += int(np.any(after < before))
    assert compared > 12


def test_a_step_that_more_sequences_shorten_is_said():
    """llama.cpp's kernels for few rows, where a library's for more rows are faster."""
    load = Load(kind="batch", amount=8.0)
    asked = Serving(model="llama-3-8b", device="b200-sxm", load=load, stack="llama.cpp")
    assert any("more than 8 sequences" in line for line in serve(asked).assumptions)
    other = serve(changed(asked, stack="vllm"))
    assert not any("more than 8 sequences" in line for line in other.assumptions)
