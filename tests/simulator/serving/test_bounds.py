"""What no server can beat, and what hardware that nobody fitted has to keep to."""

import numpy as np
import pytest

from roofcast import hwdb
from roofcast.scenarios.measured.serving.protocols import looked_back, protocol
from roofcast.scenarios.measured.serving.rows import degrees_of
from roofcast.simulator.models import catalog
from roofcast.simulator.serving.experts import busiest, experts_met
from roofcast.simulator.serving.server import Degrees, Server

SERVED = (  # model, device, layout, weights, software
    ("llama-3.1-8b", "mi300x", Degrees(), "bf16", "vllm"),
    ("llama-3.1-8b", "mi355x", Degrees(), "fp8", "vllm"),
    ("llama-3.1-8b", "gaudi3", Degrees(), "bf16", "gaudi"),
    ("llama-3.1-8b", "gb10", Degrees(), "q4_k_m", "llama.cpp"),
    ("llama-3.1-8b", "m1", Degrees(), "q4_k_m", "llama.cpp-metal"),
    ("llama-3.1-8b", "m3-ultra", Degrees(), "q4_k_m", "llama.cpp-metal"),
    ("llama-3.1-8b", "strix-halo", Degrees(), "q4_k_m", "llama.cpp-rocm"),
    ("llama-3.1-8b", "epyc-9654", Degrees(), "int8", "llama.cpp-cpu"),
    ("llama-3.1-8b", "xeon-8480", Degrees(), "int8", "vllm"),
    ("llama-3.1-8b", "jetson-agx-orin", Degrees(), "int4", "vllm"),
    ("llama-3.1-70b", "l40s", Degrees(tp=4), "fp8", "vllm"),
    ("llama-3.1-70b", "rtx-4090", Degrees(tp=4), "int4", "vllm"),
    ("llama-3.1-70b", "tpu-v5e", Degrees(tp=8), "bf16", "vllm"),
    ("llama-3.1-405b", "gb200", Degrees(tp=4), "nvfp4", "trt-llm"),
    ("llama-3.1-405b", "b300-sxm", Degrees(tp=4), "nvfp4", "trt-llm"),
    ("gpt-oss-120b", "m3-ultra", Degrees(), "mxfp4", "llama.cpp-metal"),
    ("deepseek-v3", "mi300x", Degrees(tp=8), "fp8", "sglang"),
    ("deepseek-v3", "h100-sxm5", Degrees(tp=8, dp=2, ep=16), "fp8", "vllm"),
)
WITH_STATES = {
    "nemotron-h-8b": "h100-sxm5", "mamba2-1.3b": "mi300x", "qwen3-next-80b-a3b": "b200-sxm",
    "kimi-linear-48b-a3b": "h200-sxm", "falcon-mamba-7b": "a100-sxm4-80gb",
}  # fmt: skip


def least(server: Server, sequences: float, context: float) -> float:
    """Seconds in which memory streams the weights that a step needs, and the cache."""
    bytes_ = float(server.cache_bytes(context)) * sequences / server.attention_groups
    for k in server.engines["decode"].forward.launches:
        if k.kind == "matmul":
            bytes_ += k.count * k.weights
        elif k.kind == "expert_matmul":
            met = float(experts_met(k.shape[0], k.shape[1], sequences)) / k.shape[0]
            bytes_ += k.count * k.weights * met
    return bytes_ / float(server.device.memory.bandwidth)


@pytest.mark.parametrize(("model", "device", "degrees", "weights", "stack"), SERVED)
def test_a_step_is_above_its_bound_and_not_far(model, device, degrees, weights, stack):
    """A decode step of a few sequences takes what memory streams, at 20 to 95 % of its rate where
    one dense model is on one device; several ranks and experts add latency.
    """
    server = Server(model, device, degrees, weights=weights, stack=stack)
    for sequences in (1.0, 16.0):
        share = least(server, sequences, 1024.0) / float(server.decode(sequences, 1024.0))
        alone = degrees == Degrees() and server.model.name.startswith("llama")
        assert (0.2 if alone else 0.05) < share < 0.95, (sequences, share)


@pytest.mark.parametrize("model", WITH_STATES)
def test_states_are_read_and_written_every_step(model):
    """Whatever is fused with the kernel that updates them."""
    server = Server(model, WITH_STATES[model])
    made = server.engines["decode"].forward
    held = sum(s.count * s.bytes for s in made.states)
    assert held > 0
    few, many = server.decode(np.array([256.0, 1256.0]), 1.0)
    assert many - few > 1000.0 * 1.8 * held / float(server.device.memory.bandwidth)


def test_more_bandwidth_decodes_faster():
    """An MI300X has 1.6 times the bandwidth of an H100."""
    for batch in (1, 32, 128):
        amd, nvidia = (
            float(Server("llama-3.1-8b", d).decode(batch, 1024)) for d in ("mi300x", "h100-sxm5")
        )
        assert 1.1 < nvidia / amd < 1.7


def test_the_rank_with_most_experts_is_waited_for():
    """As many distinct experts per rank are met in the mean; the busiest has more, at most all."""
    assert busiest(1) == pytest.approx(0.0, abs=1e-12)
    assert np.all(np.diff([busiest(n) for n in range(1, 300)]) > 0)
    alone = Server("qwen3-235b-a22b", "h200-sxm", Degrees(tp=8))
    spread = Server("qwen3-235b-a22b", "h200-sxm", Degrees(tp=8, ep=8))
    few = [float(s.decoding(8, 100).seconds["experts"]) for s in (alone, spread)]
    many = [float(s.decoding(4000, 100).seconds["experts"]) for s in (alone, spread)]
    assert few[1] > few[0]  # the same bytes per rank in the mean
    assert many[1] < 1.15 * many[0]  # all ranks need all of theirs


@pytest.mark.parametrize(
    ("ranks", "measured"), [(8, 191e-6), (16, 313e-6), (32, 428e-6), (64, 487e-6)]
)
def test_exchanges_of_experts_take_what_deepep_prints(ranks, measured):
    """deepseek-ai/DeepEP, README: dispatch and combine of 128 tokens a rank by the low-latency
    kernels, on H800 with 400 Gb/s InfiniBand; hidden 7168, 8 experts of each token.
    """
    server = Server("deepseek-v3", "h800-sxm5", Degrees(dp=ranks, ep=ranks), weights="fp8",
                    stack="sglang")  # fmt: skip
    exchange = float(server.decoding(128.0 * ranks, 1024.0).seconds["exchanges"]) / 58
    assert 0.6 < exchange / measured < 1.5


@pytest.mark.parametrize("device", ["a100-sxm4-80gb", "l40s", "rtx-4090", "l4"])
def test_vllm_runs_fewer_sequences_on_smaller_devices(device):
    """vllm-project/vllm, tests/engine/test_arg_utils.py, test_defaults_with_usage_context."""
    small, large = (Server("llama-3.1-8b", d) for d in (device, "h100-sxm5"))
    assert (small.most_sequences, small.chunk_tokens) == (256, 2048)
    assert (large.most_sequences, large.chunk_tokens) == (1024, 8192)
    other = Server("llama-3.1-8b", device, stack="sglang")
    assert other.chunk_tokens == 8192


def test_ranks_without_data_parallelism_cut_attention():
    row = {"n_devices": "8", "tp": "1", "pp": "1", "ep": "8", "dp": "1", "notes": ""}
    assert degrees_of(row, 1.0) == (Degrees(tp=8, ep=8), 1)
    assert degrees_of(row | {"dp": "8"}, 1.0) == (Degrees(dp=8, ep=8), 1)
    assert degrees_of(row | {"tp": "8", "source_ref": "x_tp8_epnone_1"}, 1.0) == (Degrees(8), 1)


def test_few_questions_leave_answers_short():
    """All start together: the fewer waves there are, the less of an answer is there."""
    shares = [looked_back(198, at_once) for at_once in (1.0, 8.0, 64.0, 128.0, 198.0)]
    assert np.all(np.diff(shares) < 0)
    assert 0.99 < shares[0] < 1 and shares[-1] < 0.01
    assert looked_back(198, 512.0, repeats=True) == pytest.approx(looked_back(792, 512.0))
    row = {"source_name": "ML.ENERGY leaderboard v3", "notes": "task gpqa; GPQA problems"}
    assert protocol(row).requests == 198 and protocol(row).repeats


def test_every_device_serves_faster_with_a_narrower_cache():
    """On a sample of all devices that hold the model."""
    for name in list(hwdb.devices())[::7]:
        device = hwdb.device(name)
        if not device.memory.bandwidth or not device.peak_flops:
            continue
        model = catalog.resolve("llama-3.2-1b")
        wide, narrow = (float(Server(model, device, kv=kv).decode(8, 8192)) for kv in (None, "fp8"))
        assert narrow < wide, name
