"""What engines do around products of experts, and to decode steps that are captured."""

import msgspec
import numpy as np
import pytest

from roofcast import hwdb
from roofcast.scenarios.measured.serving.bench import limits
from roofcast.scenarios.measured.serving.rows import degrees_of
from roofcast.simulator.models import catalog
from roofcast.simulator.models.released import in_blocks
from roofcast.simulator.serving.experts import blocked, experts_met
from roofcast.simulator.serving.passes import padded
from roofcast.simulator.serving.profiles import profile
from roofcast.simulator.serving.server import Degrees, Server
from roofcast.simulator.times.matmul import _high
from roofcast.simulator.times.roofline import computed_in, rates_of

LARGE = ("deepseek-v3", "kimi-k2", "qwen3-235b-a22b", "minimax-m2")
USERS = np.array([1.0, 4, 16, 64, 100, 150, 300, 1000])


def served(stack, model="qwen3-235b-a22b", device="h200-sxm", degrees=None, weights="fp8", **keys):
    made = msgspec.structs.replace(profile(stack), **keys)
    return Server(model, device, degrees or Degrees(4), weights=weights, stack=made)


def test_captured_steps_are_padded_to_the_next_size():
    assert padded(np.array([128.0, 129, 2048, 2049]), (128, 256, 2048)).tolist() == [
        128, 256, 2048, 2049,
    ]  # fmt: skip
    graphs, none = (served("trt-llm", graphs=sizes) for sizes in ((128, 512), ()))
    steps = [s.decode(np.array([100.0, 200, 500, 600]), 1024) for s in (graphs, none)]
    assert steps[0][[0, 3]] == pytest.approx(steps[1][[0, 3]])
    assert steps[0][1] > 1.05 * steps[1][1] and steps[0][2] >= steps[1][2]
    mixed = [float(s.mixed(200, 1024, 512)) for s in (graphs, none)]
    assert mixed[0] == mixed[1]  # with prompts in them they are not


def test_limits_of_trtllm_bench_are_rounded_up():
    """tuning.py: by 32 below 256 sequences, 128 below 1,024, 256 from there on, at most 4,096."""
    assert limits(3.0, 128, 128) == (64, 2048)
    assert limits(257.0, 2048, 128)[0] == 384
    assert limits(1e6, 128, 128) == (4096, 8192)
    assert limits(1e6, 20000, 100)[1] == 32768


def test_blocks_of_all_experts_are_computed_whoever_is_met():
    """vLLM up to 0.13, fp8 in blocks: a step of one sequence multiplies a block of each expert."""
    old, new = (served(stack, degrees=Degrees(2)) for stack in ("vllm-0.12", "vllm"))
    times = [s.decoding(USERS, 1024).seconds["experts"] for s in (old, new)]
    assert (times[0] >= times[1]).all() and times[0][0] > 3 * times[1][0]
    assert times[0][3] < 1.5 * times[0][0]  # nearly the same for 1 and for 64
    assert float(blocked(8.0, 128.0, 128.0)) == 128 * 128
    plain = [served("vllm-0.12", degrees=Degrees(8)), served("vllm", degrees=Degrees(8))]
    of = [s.decoding(4, 1024).seconds["experts"] for s in plain]
    assert of[0] == of[1]  # experts cut over 8 ranks are multiplied otherwise


def test_blocks_are_of_checkpoints_with_scales_per_block():
    assert all(in_blocks(catalog.resolve(name)) for name in LARGE)
    assert not any(in_blocks(catalog.resolve(n)) for n in ("mixtral-8x7b", "llama-4-maverick"))


def test_widening_mxfp4_takes_instructions_where_there_are_no_units_for_it():
    """As many for each tile of rows; none on Blackwell."""
    for device, wider in (("h100-sxm5", True), ("b200", False)):
        model, of = "gpt-oss-120b", ("experts",)
        times = [
            served("vllm", model, device, Degrees(1), None, converts=n).decoding(8, 512).seconds
            for n in (profile("vllm").converts, 0.0)
        ]
        assert all((float(times[0][x]) > float(times[1][x])) == wider for x in of), device


def test_gathered_tokens_pass_all_ranks():
    """Kernels around the products see the tokens of all ranks where these are gathered."""
    cut = Degrees(tp=1, dp=8, ep=8)
    gathered, sent = (served("vllm", degrees=cut, to_experts=x) for x in (False, True))
    streams = [float(s.decoding(2048, 512).seconds["streams"]) for s in (gathered, sent)]
    assert streams[0] > 1.5 * streams[1]


def test_rows_of_experts_fill_more_tiles_than_their_mean():
    """As drawn from an exponential distribution."""
    drawn = np.random.default_rng(5).exponential(size=200_000)
    for mean in (2.0, 40.0, 700.0):
        tiles = np.ceil(mean * drawn / 64.0).mean()
        assert float(_high(np.array(mean), np.array(64.0), True)) == pytest.approx(tiles, rel=0.01)
    assert float(_high(np.array(65.0), np.array(64.0), False)) == 2.0


def test_a_part_of_a_core_keeps_the_paths_of_a_whole_one():
    """An H20 moves as many operands per clock and core as an H100, at a quarter of its products."""
    found = []
    for name in ("h20", "h100-sxm5"):
        device = hwdb.device(name)
        r = rates_of(device, computed_in("bf16", device)).rates
        found.append((r.feed / r.sustained / r.cores / r.clock, r.matrix / r.cores / r.clock))
    assert found[0][0] == pytest.approx(found[1][0], rel=0.12)  # peaks are printed at other clocks
    assert found[0][1] < 0.3 * found[1][1]


@pytest.mark.parametrize("device", ["gb200", "b300-sxm", "mi300x", "h20"])
def test_steps_of_large_mixtures_stay_above_their_roofline(device):
    """Weights that are met and the cache, over the bandwidth; more sequences never take less."""
    for model in LARGE:
        for cut in (Degrees(8), Degrees(8, ep=8), Degrees(dp=8, ep=8)):
            server = served("vllm", model, device, cut)
            share = 0.0
            for k in server.engines["decode"].forward.launches:
                if k.kind == "expert_matmul":
                    met = experts_met(k.shape[0], k.shape[1], USERS) / k.shape[0]
                    share = share + k.count * k.weights * met
                else:
                    share = share + k.count * k.weights
            cache = float(server.cache_bytes(4096)) * np.maximum(USERS / cut.dp, 1.0)
            bound = (share + cache) / float(server.device.memory.bandwidth)
            steps = server.decode(USERS, 4096)
            assert (steps > bound).all() and (np.diff(steps) >= 0).all(), (model, cut)


def test_columns_that_are_products_are_undone():
    row = {
        "source_name": "InferenceX (via aiconfigurator)", "engine": "vllm", "n_devices": "16",
        "tp": "4", "pp": "1", "ep": "16", "dp": "4", "w_prec": "fp8", "notes": "attention dp 4",
    }  # fmt: skip
    assert degrees_of(row, 1.0) == (Degrees(4, ep=4), 1)
    assert degrees_of(row | {"w_prec": "fp4"}, 1.0) == (Degrees(4, dp=4, ep=16), 1)
    assert degrees_of(row | {"engine": "trtllm"}, 1.0) == (Degrees(4, dp=4, ep=16), 1)
