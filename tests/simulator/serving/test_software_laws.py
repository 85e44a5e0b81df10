"""What software does with memory, prompts and experts, and how benchmarks ask it."""

import importlib.util
from pathlib import Path

import msgspec
import numpy as np
import pytest

from roofcast.scenarios.fits.serving_memory import table
from roofcast.scenarios.measured.serving.predicted import load_of, waited
from roofcast.scenarios.measured.serving.protocols import protocol
from roofcast.scenarios.measured.serving.rows import ran
from roofcast.simulator.serving.capacity import room
from roofcast.simulator.serving.experts import experts_hit, experts_met
from roofcast.simulator.serving.load import Load, Requests
from roofcast.simulator.serving.means import mean
from roofcast.simulator.serving.profiles import profile
from roofcast.simulator.serving.replay import replay
from roofcast.simulator.serving.server import Degrees, Server
from roofcast.simulator.serving.steps import Steps

_spec = importlib.util.spec_from_file_location("toy", Path(__file__).parent / "toy.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
Toy = _module.Toy

ROW = {
    "source_name": "InferenceX", "engine": "trtllm", "engine_version": "1.2", "tp": "2",
    "model": "meta-llama/Llama-3.1-70B", "device": "H200-SXM-141GB", "roofcast_device": "h200-sxm",
    "n_devices": "2", "pp": "1", "ep": "1", "w_prec": "fp8", "kv_prec": "", "notes": "",
    "load_kind": "concurrency", "load": "16", "input_len": "1024", "output_len": "1024",
    "mode": "agg", "phase": "e2e",
}  # fmt: skip


def found(server, load, ramp=0.0):
    held = room(server, load.input_len, load.input_len + load.output_len)
    return mean(server, load, held, ramp=ramp)


@pytest.mark.parametrize("users", [2, 16, 100])
def test_requests_in_step_take_the_time_of_their_prompts_and_steps(users):
    """A cycle of the loop is the prompts of all, then the steps of all; with lengths of many kinds
    nobody is in step.
    """
    server = Toy()
    load = Load(kind="concurrency", amount=users, input_len=2048, output_len=256, spread=0.0)
    same = found(server, load, ramp=1.0)
    each = min(4, users)  # prompts of a chunk
    prompts = users / each * float(server.prefill(each, 2048))
    cycle = prompts + 255 * float(server.decode(users, load.context))
    assert users / same.requests_per_s == pytest.approx(cycle, rel=0.01)
    assert same.ttft + 255 * same.tpot == pytest.approx(same.e2e)
    assert same.ttft > found(server, load).ttft
    mixed = msgspec.structs.replace(load, spread=0.1)
    assert found(server, mixed, ramp=1.0) == found(server, mixed)


def test_a_batch_that_does_not_fit_takes_turns():
    """Twice what fits takes twice as long, and no batch has more throughput than one that fits."""
    server = Toy()
    fits = room(server, 1024, 1536).sequences(1536)
    loads = [Load(kind="batch", amount=n, input_len=1024, output_len=512) for n in (fits, 2 * fits)]
    once, twice = (found(server, load) for load in loads)
    assert twice.e2e == pytest.approx(2 * once.e2e)
    assert (twice.step, twice.decoding) == (once.step, once.decoding)
    one_more = found(server, msgspec.structs.replace(loads[0], amount=fits + 1))
    assert one_more.requests_per_s < once.requests_per_s
    assert one_more.e2e > once.e2e


def test_a_cache_reserved_whole_is_never_lost():
    """It holds fewer sequences at once, preempts none, and still serves all."""
    ones = np.ones(300, dtype=np.int64)
    asked = Requests(np.zeros(300), 500 * ones, 1500 * ones, 0 * ones)
    kept, lost = Toy(evicts=False, memory_bytes=30e9), Toy(memory_bytes=30e9)
    runs = {}
    for server in (kept, lost):
        held = room(server, 500, 2000)
        runs[server.evicts] = replay(Steps(server, held.sequences(500), 2000, 500), asked, held)
    assert runs[False].preempted == 0 < runs[True].preempted
    assert runs[False].mean_decoding < runs[True].mean_decoding
    assert np.isfinite(runs[False].e2e).all()
    offline = Load(kind="offline", input_len=500, output_len=1500)
    assert found(kept, offline).decoding < found(lost, offline).decoding


def test_experts_are_unevenly_popular():
    """One token meets k of them; more meet fewer than if all were alike, as drawn ones do."""
    tokens = np.array([1.0, 2.0, 17.0, 64.0, 500.0, 1e6])
    met, alike = (f(128, 8 / 128, tokens) for f in (experts_met, experts_hit))
    assert met[0] == pytest.approx(8) == alike[0]
    assert (np.diff(met) > 0).all() and (met <= alike + 1e-9).all()
    assert met[-1] == pytest.approx(128, rel=1e-3)
    random = np.random.default_rng(3)
    popular = random.exponential(size=(400, 128))
    chosen = random.random((400, 128)) > np.exp(-popular * -np.log1p(-8 / 128) * 63)
    first = 8 / 128 + (1 - 8 / 128) * chosen.mean()
    assert met[3] == pytest.approx(128 * first, rel=0.02)


def test_products_of_experts_and_of_fp4_are_slower_where_it_limits():
    """Rows of many prompts pay for grouped products, one hardly; fp4 pays where it streams."""
    plain = msgspec.structs.replace(profile("vllm"), grouped=1.0, fp4=1.0)

    def slower(model, device, weights, rows, part):
        times = [
            Server(model, device, weights=weights, stack=stack).prefilling(1, rows).seconds[part]
            for stack in ("vllm", plain)
        ]
        return float(times[0] / times[1])

    assert slower("qwen3-30b-a3b", "h100-sxm5", "fp8", 8192, "experts") > 1.3
    assert slower("qwen3-30b-a3b", "h100-sxm5", "fp8", 1, "experts") < 1.1
    assert slower("llama-3.1-8b", "b200", "nvfp4", 1, "products") > 1.1
    assert slower("llama-3.1-8b", "b200", "fp8", 1, "products") == 1.0


def test_limits_of_ranks_with_attention_of_their_own():
    """Chunks and sequences are of each rank, but in software that has one scheduler for all."""
    cut = Degrees(tp=1, dp=4, ep=4)
    servers = {
        name: Server("qwen3-30b-a3b", "h100-sxm5", cut, stack=name) for name in ("vllm", "sglang")
    }
    assert servers["vllm"].chunk_tokens == 4 * 8192
    assert servers["sglang"].chunk_tokens == 8192
    sending = msgspec.structs.replace(profile("vllm"), to_experts=True)
    other = Server("qwen3-30b-a3b", "h100-sxm5", cut, stack=sending)
    rows = np.array([4.0, 64.0, 1000.0])
    gathered, sent = (s.decoding(rows, 100).seconds["exchanges"] for s in (servers["vllm"], other))
    assert (sent <= gathered).all()


def test_a_benchmark_is_asked_as_it_was_run():
    """InferenceX draws lengths from 0.8 to 1; TensorRT-LLM waits there 20 steps for prompts."""
    run = protocol(ROW)
    assert (run.lengths, run.waits, run.processes) == (0.9, 20, True)
    assert protocol(ROW | {"tp": "8"}).waits == 0
    assert protocol(ROW | {"source_name": "mine"}) == protocol({})
    at = ran(ROW)
    load = load_of(ROW, at)
    assert (load.input_len, load.output_len, load.spread) == (922, 922, 0.111)
    server = Toy()
    held = room(server, load.input_len, 2 * load.input_len)
    none, late = (waited(server, load, held, waits, ramp=0.0) for waits in (0.0, 20.0))
    assert late.ttft - none.ttft == pytest.approx(20 * late.tpot, rel=0.05)
    overview = {"source_name": "TensorRT-LLM perf-overview", "input_len": "128"}
    assert protocol(overview | {"output_len": "4096"}).requests == 1500


def test_memory_of_vllm_is_that_of_published_starts():
    """The constants of the profiles are those that the script derives from the rows shipped."""
    for name, values in table().items():
        for key, value in values.items():
            assert getattr(profile(name), key) == value
