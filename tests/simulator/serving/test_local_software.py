"""Local software: what llama.cpp's kernels do on GPUs, CPUs and Vulkan; exchanges of Gaudi."""

import msgspec
import numpy as np
import pytest

from roofcast import hwdb
from roofcast.hwdb.collective_constants import collectives
from roofcast.hwdb.constants import kernels
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.serving.converted import copies, in_half, kept
from roofcast.simulator.serving.engine import DOTS
from roofcast.simulator.serving.exchange import QUEUED, in_turn
from roofcast.simulator.serving.profiles import profile
from roofcast.simulator.serving.server import Degrees, Server
from roofcast.simulator.times.roofline import rates_of


def served(model, device, weights=None, stack="llama.cpp", **other):
    return Server(model, device, weights=weights, stack=stack, **other)


def changed(stack, **values):
    return msgspec.structs.replace(profile(stack), **values)


@pytest.mark.parametrize("device", ["rtx-4090", "rtx-3090"])
def test_boards_at_half_rate_add_up_in_fp16_at_the_rate_they_were_built_for(device):
    rates = rates_of(hwdb.device(device), "fp16").rates
    half = in_half(rates, kernels())
    assert half.matrix == pytest.approx(2 * rates.matrix)
    assert half.matrix * half.sustained > 1.5 * rates.matrix * rates.sustained
    assert half.feed == pytest.approx(half.sustained * half.matrix)


@pytest.mark.parametrize("device", ["a100-sxm4-80gb", "rx-7900-xtx", "l4"])
def test_other_boards_add_up_in_fp16_as_in_fp32(device):
    rates = rates_of(hwdb.device(device), "fp16").rates
    if rates.fed == 1.0:
        assert in_half(rates, kernels()) is rates


def test_conversions_move_what_a_cache_does_not_keep():
    m, n, k = (np.array([float(x)]) for x in (512, 4096, 4096))
    weights, sixteen = np.array([0.5625]), np.array([2.0])
    nothing_held = copies(m, n, k, weights, 0.0)
    assert nothing_held == pytest.approx(2.5625 * n * k + 6.0 * m * (n + k))
    assert copies(m, n, k, sixteen, 0.0) == pytest.approx(6.0 * m * (n + k))
    assert copies(m, n, k, weights, np.inf) == pytest.approx(0.5625 * n * k)
    held = [float(copies(m, n, k, weights, size)[0]) for size in (0, 1e6, 5e6, 1e7, 1e8, 1e9)]
    assert held == sorted(held, reverse=True)


def test_half_of_the_last_cache_is_kept():
    device = hwdb.device("rtx-4090")
    assert kept(device) == pytest.approx(device.cache["l2"].capacity / 2)
    assert kept(hwdb.device("graviton4")) >= 0.0


def test_prompts_of_few_bits_pay_for_their_unpacking_in_2024():
    quick, slow = (served("llama-3-8b", "a100-sxm4-80gb", w, "llama.cpp-2024") for w in
                   ("f16", "q4_k_m"))  # fmt: skip
    assert slow.prefill(1, 512) > quick.prefill(1, 512)
    assert slow.decode(1, 512) < quick.decode(1, 512)


def test_prompts_look_over_latents_as_the_cache_holds_them():
    """llama.cpp absorbs the projections whatever the batch: 576 + 512 elements of a head for the
    192 + 128 of DeepSeek-V3, 3.4 times the products of attention.
    """
    plain = changed("llama.cpp", absorbed=False)
    both = [
        served("deepseek-v3", "mi300x", "q8_0", stack, degrees=Degrees(tp=8))
        for stack in ("llama.cpp", plain)
    ]
    long = [float(s.prefilling(1, 2048, 65536).seconds["attention"]) for s in both]
    assert 2.2 < long[0] / long[1] < 4.5
    assert both[0].decode(1, 4096) == pytest.approx(float(both[1].decode(1, 4096)))
    assert both[0].cache_bytes(1024) == pytest.approx(float(both[1].cache_bytes(1024)))


def test_vulkan_multiplies_bf16_without_matrix_units_and_amdvlk_everything():
    stacks = ("llama.cpp-rocm", "llama.cpp-vulkan", "llama.cpp-amdvlk")
    for weights, slower in (("bf16", (True, True)), ("q8_0", (False, True))):
        rocm, vulkan, amdvlk = (
            float(served("llama-3-8b", "strix-halo", weights, s).prefill(1, 512)) for s in stacks
        )
        assert (vulkan > 1.3 * rocm) is slower[0]
        assert (amdvlk > 1.3 * rocm) is slower[1]


def test_an_unknown_kind_of_vector_products_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nabout = "x"\nsource = "x"\nlike = "vllm"\nvector = "fp8"\n',
        encoding="utf-8",
    )
    with pytest.raises(BadInput, match="vector is 'fp8'"):
        profile(str(path))


def test_gguf_files_of_gpt_oss_hold_other_tensors_in_8_bits():
    """ggml-org/gpt-oss-20b-GGUF: a file of 12.1 GB."""
    local = served("gpt-oss-20b", "rtx-4090", None, "llama.cpp")
    server = served("gpt-oss-20b", "h100-sxm5", None, "vllm")
    assert local.weight_bytes == pytest.approx(12.1e9, rel=0.06)
    assert local.weight_bytes < server.weight_bytes
    assert any("q8_0" in text for text in local.assumptions)


@pytest.mark.parametrize(("weights", "seconds"), [("q4_k_m", 10.88e-3), ("q8_0", 12.40e-3)])
def test_a_token_on_graviton4_takes_what_was_measured(weights, seconds):
    """Llama 3.2 3B, one sequence of 640 tokens (AmpereComputing, llama.cpp on AWS Graviton4)."""
    step = float(served("llama-3.2-3b", "graviton4", weights, "llama.cpp-cpu").decode(1, 640))
    assert step == pytest.approx(seconds, rel=0.12)


def test_products_of_a_cpu_cost_their_dot_products_in_decode_steps_too():
    """Eight sequences take eight times the dot products of one, which are not hidden behind the
    weights' way from memory; so do prompts.
    """
    cpu = served("llama-3.2-3b", "graviton4", "q4_k_m", "llama.cpp-cpu")
    one, eight = (float(cpu.decoding(b, 640).seconds["products"]) for b in (1, 8))
    dots = cpu.profile.dots * DOTS * hwdb.device("graviton4").vector_flops["fp32"]
    flops = sum(
        k.count * (k.matrix[1] + k.matrix[2])
        for k in cpu.engines["decode"].forward.launches
        if k.kind == "matmul"
    )
    assert eight - one == pytest.approx(7 * flops / dots, rel=0.05)
    assert cpu.prefill(1, 512) > 512 * 0.8 * flops / dots  # logits of the last token alone


def test_weights_in_16_bits_are_multiplied_by_a_library_on_a_cpu():
    cpu = served("llama-3.2-3b", "graviton4", "bf16", "llama.cpp-cpu")
    assert all(engine.how.dots == 0.0 for engine in cpu.engines.values())


def test_exchanges_of_a_step_on_gaudi_fill_their_own_pipelines():
    usual, alone = collectives().networks, in_turn().networks
    changed_ones = {name for name in usual if usual[name] != alone[name]}
    assert changed_ones == set(QUEUED)
    assert all(alone[name].chunk == usual["switch"].chunk for name in QUEUED)
    gaudi = Server("llama-3.1-70b", "gaudi3", Degrees(tp=8), weights="fp8", stack="gaudi")
    sent = float(gaudi.decoding(600, 1152).seconds["exchanges"])
    ring = 160 * 2 * (600 * 8192 * 2) * 7 / 8 / 525e9  # bytes of 160 sums alone
    assert 1.4 * ring < sent < 4 * ring
