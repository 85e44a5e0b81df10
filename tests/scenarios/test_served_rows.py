"""Rows of measured servers: what a row says of how its software ran."""

import pytest

from roofcast.scenarios.measured.serving.cases import contradicted, suspect
from roofcast.scenarios.measured.serving.forecasts import completed, score
from roofcast.scenarios.measured.serving.predicted import in_turns
from roofcast.scenarios.measured.serving.rows import ran, server_of, turns

LOCAL = {
    "source_name": "me", "model": "Llama-3.1-8B-Instruct", "engine": "llama.cpp ROCm",
    "engine_version": "b9000", "device": "Strix Halo", "roofcast_device": "strix-halo",
    "n_devices": "1", "w_prec": "gguf:Q4_K - Medium", "phase": "prefill", "mode": "static",
    "load_kind": "batch", "load": "1", "input_len": "2048", "prefill_tokens_per_s": "1000",
}  # fmt: skip


def of(**changes):
    return completed(LOCAL | changes)[0]


@pytest.mark.parametrize(
    ("notes", "tokens"),
    [
        ("depth 0; ubatch 256; rocm", 256),
        ("fa 1; n_ubatch 2048", 2048),
        ("batch 64", 512),
        ("", 512),
    ],
)
def test_a_row_says_how_many_tokens_of_a_prompt_run_at_once(notes, tokens):
    assert server_of(ran(of(notes=notes))).profile.micro_batch == tokens


def test_experts_are_read_once_for_more_tokens_at_once():
    few, many = (
        float(server_of(ran(of(model="Qwen3-30B-A3B", notes=f"ubatch {n}"))).prefill(1, 2048))
        for n in (256, 2048)
    )
    assert many < 0.8 * few


@pytest.mark.parametrize(
    ("engine", "notes", "stack"),
    [
        ("llama.cpp Vulkan", "toolbox vulkan_radv", "llama.cpp-vulkan"),
        ("llama.cpp Vulkan", "toolbox vulkan_amdvlk; fa 1", "llama.cpp-amdvlk"),
        ("llama.cpp llama-vulkan-radv", "", "llama.cpp-vulkan"),
        ("llama.cpp llama-rocm-7.2.4", "", "llama.cpp-rocm"),
        ("llama.cpp ROCm", "rocm7-nightlies", "llama.cpp-rocm"),
    ],
)
def test_the_driver_of_vulkan_decides_the_stack(engine, notes, stack):
    assert ran(of(engine=engine, notes=notes)).stack == stack


def test_processes_on_one_cpu_take_turns_and_start_side_by_side():
    row = of(engine="llama.cpp CPU", roofcast_device="graviton4", phase="decode", tpot_s="0.02",
             context_len="640", input_len="512", dp="8", load="16",
             model="Llama-3.2-3B-Instruct-Q4_K_M")  # fmt: skip
    assert turns(row) == 8.0
    server = server_of(ran(row))
    each = float(server.decode(2, 640))
    found = score(LOCAL | row).predicted
    assert found.tpot_s == pytest.approx(in_turns(server, "decode", each, 8.0))
    assert each < found.tpot_s < 8 * each
    assert in_turns(server, "decode", each, 1.0) == each
    alone = score(LOCAL | row | {"dp": "1"}).predicted.tpot_s
    assert alone < found.tpot_s  # each process streams weights of its own


def test_a_board_slower_than_a_slower_one_of_its_chip_is_set_aside():
    row = of(source_name="XiongjieDai GPU-Benchmarks", roofcast_device="a100-sxm4-80gb",
             engine="llama.cpp CUDA", model="llama 8B F16", w_prec="gguf:F16")  # fmt: skip
    assert contradicted(row) and "slower board" in suspect(row, server_of(ran(row)))
    for other in ({"roofcast_device": "a100-pcie-80gb"}, {"phase": "decode"}, {"n_devices": "2"},
                  {"model": "llama 8B Q4_K - Medium"}, {"source_name": "me"}):  # fmt: skip
        assert not contradicted(row | other)
