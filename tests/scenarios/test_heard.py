"""What a row of measured runs says is heard: names, recomputation, overlap, siblings, versions."""

import csv

import pytest
from click.testing import CliRunner

from roofcast import hwdb
from roofcast.hwdb.errors import UnknownName
from roofcast.reports.command import main
from roofcast.scenarios.measured import net_words, nets, training
from roofcast.scenarios.measured.architectures import model_of, names
from roofcast.scenarios.measured.device_words import device_named
from roofcast.scenarios.measured.heard import COLUMNS
from roofcast.scenarios.measured.recompute_words import recompute_of
from roofcast.scenarios.measured.siblings import GRAPHS, SAID, filled
from roofcast.scenarios.measured.training_rows import precision_of
from roofcast.scenarios.measured.versions import dated
from roofcast.simulator.forecast import chain
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.recompute import policy
from roofcast.simulator.work.tape import Tape

ROW = {
    "n_devices": "16",
    "device": "H100-SXM5-80GB",
    "seq_len": "4096",
    "global_batch_seqs": "64",
    "layers": "8",
    "hidden": "4096",
    "iter_time_s": "1.0",
}


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("Blackwell GPU (GB200)", "gb200"),
        ("Blackwell GPU (B200)", "b200-sxm"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm5"),
        ("NVIDIA H200 141GB HBM3e", "h200-sxm"),
        ("HGX B200", "b200-sxm"),
        ("A100-SXM4-80GB (Jean Zay)", "a100-sxm4-80gb"),
        ("A100 80GB PCIe", "a100-pcie-80gb"),
        ("A100 40GB", "a100-sxm4-40gb"),
        ("V100-SXM2-16GB", "v100-sxm2-16gb"),
        ("TPU v5p-128", "tpu-v5p"),
        ("v5litepod-256", "tpu-v5e"),
        ("v6e-256", "tpu-v6e"),
        ("TPU7x-64", "tpu-v7"),
        ("MI300X OAM 192GB", "mi300x"),
        ("Habana Gaudi2", "gaudi2"),
    ],
)
def test_a_device_is_known_by_any_spelling(words, name):
    assert hwdb.device(device_named(words, names().devices)).id == name


def test_an_unknown_device_is_one_line():
    with pytest.raises(UnknownName) as error:
        device_named("Foo 9000", names().devices)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "billions"), [("gemma3-12b", 11.8), ("deepseek3-671b", 671), ("llama3.1_405b", 405.9)]
)
def test_a_model_is_known_by_any_spelling(name, billions):
    """Parameters: Gemma team 2025 (11.77 of the language model); DeepSeek-AI 2024; Meta 2024."""
    tape = model_of({"model_name": name}, 4096, []).run(Tape(precision("bf16")), 1, 64)
    assert sum(w.size * w.count for w in tape.weights) / 1e9 == pytest.approx(billions, rel=0.01)


@pytest.mark.parametrize("words", ["relu^2", "squared relu", "Squared-ReLU", "relu2", "sq_relu"])
def test_a_squared_relu_is_known_by_any_spelling(words):
    config = model_of(ROW | {"activation": words}, 4096, []).config
    assert config.hidden_act == "relu2"


def test_dense_layers_of_a_cut_mixture_are_those_of_the_row():
    row = {"model_name": "deepseek-v3", "layers": "8"}
    assert model_of(row, 4096, []).config.first_k_dense_replace == 3
    assert model_of(row | {"first_k_dense": "1"}, 4096, []).config.first_k_dense_replace == 1


def test_a_head_width_of_the_row_counts():
    """MaxText's default of 52 billion: 32 heads of 256 at a width of 12288."""
    row = {"layers": "32", "hidden": "12288", "heads": "32", "ffn_hidden": "49152"}
    row |= {"vocab": "32768", "activation": "relu", "tied_embeddings": "yes"}
    for more, billions in (({"head_dim": "256"}, 51.9), ({}, 58.4)):
        tape = model_of(row | more, 2048, []).run(Tape(precision("bf16")), 1, 64)
        found = sum(w.size * w.count for w in tape.weights) / 1e9
        assert found == pytest.approx(billions, rel=0.01)


@pytest.mark.parametrize(
    ("framework", "cell", "notes", "found"),
    [
        ("MaxText", "selective", "x; remat_policy=qkv_proj_offloaded; y", "qkv_proj_offloaded"),
        ("MaxText", "minimal", "", "minimal"),
        ("MaxText", "custom: query_proj, key_proj, mlpwo", "", "keep:qkv,mlp_out"),
        ("MaxText", "custom", "", "full"),
        ("MaxText", "full", "remat_policy=full", "full"),
        ("torchtitan", "selective", "AC=selective op; WPS as printed", "selective-ops"),
        ("torchtitan", "selective", "AC=selective layer; WPS", "every:2"),
        ("torchtitan", "selective 2", "", "every:2"),
        ("Megatron-LM", "selective", "", "selective"),
        ("Megatron-LM", "--recompute-modules core_attn", "", "selective"),
        ("Megatron-Bridge", "selective", "recompute_modules=['layernorm', 'moe_act'], x",
         "discard:layernorm"),
        ("Megatron-Bridge", "selective",
         "recompute_modules empty => none; recompute_modules=['layernorm'], x",
         "discard:layernorm"),
        ("Megatron-Bridge", "full", "recompute_modules=None, recompute_num_layers=5", "block:5"),
        ("llm-foundry", "activation_checkpointing", "", "full"),
        ("any", "modules:mlp", "", "modules:mlp"),
        ("any", "none", "remat_policy=full", "none"),
    ],
)  # fmt: skip
def test_recomputation_means_what_the_framework_means(framework, cell, notes, found):
    row = {"framework": framework, "recompute": cell, "notes": notes, "model_name": "llama"}
    assumptions = []
    assert recompute_of(row, assumptions) == found and not assumptions
    policy(found)


def test_the_column_recompute_policy_goes_before_recompute():
    row = {"framework": "MaxText", "recompute": "full", "recompute_policy": "save_qkv_proj"}
    assert recompute_of(row, []) == "save_qkv_proj"


def test_only_mixtures_with_compressed_queries_have_a_second_query_product():
    row = {"framework": "Megatron-Core", "recompute": "mla_up_proj"}
    for name, found in (
        ("DeepSeekV3", "q_b_proj,kv_b_proj,rotary"),
        ("v2-lite", "kv_b_proj,rotary"),
    ):
        assert recompute_of(row | {"model_name": name}, []) == f"discard:{found}"


def test_virtual_stages_come_from_a_sibling_and_are_said():
    alike = {"source_name": "S", "model_name": "M", "tp": "2", "pp": "4"}
    rows = [alike | {"id": "a", "vpp": "5"}, alike | {"id": "b"}, alike | {"id": "c", "pp": "2"}]
    first, second, third = filled(rows)
    assert (first.get(SAID), second["vpp"], second[SAID]) == (None, "5", "a")
    assert "vpp" not in third
    more = [*rows, alike | {"id": "d", "vpp": "10"}]  # siblings that differ say nothing
    assert "vpp" not in filled(more)[1]
    run = training.run(ROW | {"pp": "4", "vpp": "2", SAID: "a"})
    assert "2 virtual stages (not given; as row a)" in run.assumptions


@pytest.mark.parametrize(
    ("row", "stack"),
    [
        ({"framework": "NeMo 24.07"}, "te-nemo-2024"),
        ({"framework": "NeMo 24.07", "overlap": "off"}, "te-nemo-2023"),
        ({"framework": "Megatron-Core", "overlap": "on"}, "te-nemo-2024"),
        ({"framework": "Megatron-Core", "notes": "TP_COMM_OVERLAP=True; x"}, "te-nemo-2024"),
        ({"framework": "Megatron-Core"}, "megatron"),
        ({"framework": "a loop of our own"}, "pytorch-eager"),
        ({"framework": "llm.c"}, "llm.c"),
        ({"framework": "nanoGPT (PyTorch 2.1)"}, "pytorch-compiled-2023"),
        ({"framework": "modded-nanogpt, PyTorch 2.7"}, "pytorch-compiled"),
        ({"framework": "GPT-NeoX 2.0"}, "deepspeed-megatron-2022"),
        ({"framework": "Transformers 4.40, FSDP"}, "fsdp-torchtitan"),
        ({"framework": "Hugging Face Transformers 4.40"}, "pytorch-eager"),
        ({"framework": "a loop of our own", "zero_stage": "3"}, "fsdp-torchtitan"),
        ({"framework": ""}, "pytorch-eager"),
        ({"framework": "a loop of our own", "tp": "2"}, "megatron"),
        ({"framework": "a loop of our own", "dtype": "float8"}, "megatron"),
        ({"framework": "a loop of our own", "tp": "2", "device": "A100 80GB"}, "pytorch-eager"),
        ({"framework": "NeMo AutoModel"}, "fsdp-torchtitan"),
        ({"framework": "torchtitan 2025", "notes": "AC op, compile"}, "fsdp-torchtitan-compiled"),
        ({"framework": "torchtitan 2025, no compile"}, "fsdp-torchtitan"),
        ({"framework": "Megatron-Bridge 26.04", "model_name": "x (tokendrop)"},
         "te-nemo-capacity"),
        ({"framework": "Megatron-Bridge 26.04", "notes": "cuda_graph=full_iteration/[]"},
         "megatron-bridge-2026"),
        ({"framework": "Megatron-Bridge 26.04", "notes": "cuda_graph=transformer_engine/['attn'],"
          " moe_a2a_overlap=True"}, "te-nemo-graphs-a2a"),
        ({"framework": "Megatron-Bridge / NeMo container 26.06", "notes": "cuda_graph=None/None"},
         "te-nemo-2024"),
        ({"framework": "MaxText (JAX)", "device": "H100-SXM5-80GB"}, "maxtext-gpu"),
        ({"framework": "of our own", "tp": "2", "device": "H100-SXM5-80GB"}, "megatron"),
        ({"framework": "of our own", "tp": "2", "device": "GB200"}, "megatron-grouped"),
        # a stack of GPUs runs on no other kind of device
        ({"source_name": "MLPerf Training v4.0", "framework": "PAX", "device": "TPU v5e"},
         "maxtext"),
        ({"source_name": "MLPerf Training v4.0", "framework": "PyTorch 2.1", "device": "Gaudi2"},
         "gaudi-megatron"),
    ],
)  # fmt: skip
def test_the_stack_of_a_row(row, stack):
    assert training.run(ROW | row).scenario.stack == stack


def test_rows_of_a_model_that_do_not_say_how_graphs_are_used_are_as_those_that_do():
    alike = {"framework": "Megatron-Bridge 26.04", "model_name": "M", "device": "GB200"}
    partial = alike | {"notes": "cuda_graph=transformer_engine/['attn']"}
    assert filled([alike, partial])[0][GRAPHS] == "partial"
    full = alike | {"notes": "cuda_graph=full_iteration/[]"}
    assert GRAPHS not in filled([alike, partial, full])[0]  # siblings that differ say nothing
    assert GRAPHS not in filled([alike | {"device": "B200"}, partial])[0]


def test_deepspeed_shards_states_of_bf16_under_stage_0_and_says_so():
    row = ROW | {"framework": "Megatron-DeepSpeed", "pp": "4", "zero_stage": "0"}
    run = training.run(row | {"dtype": "bf16"})
    assert run.scenario.zero == 1 and any("BF16_Optimizer" in said for said in run.assumptions)
    assert training.run(row | {"dtype": "fp16"}).scenario.zero == 0


def test_megatron_bridge_keeps_experts_whole():
    row = ROW | {"framework": "Megatron-Bridge 26.04", "experts": "8", "tp": "2", "ep": "4"}
    assert training.run(row).scenario.etp == 1
    assert training.run(row | {"framework": "Megatron-Core"}).scenario.etp is None


def test_a_stack_is_that_of_the_version_of_pytorch():
    assert dated("pytorch-compiled", "PyTorch 2.0.1 torch.compile") == "pytorch-compiled-2023"
    assert dated("pytorch-eager", "PyTorch 2.2.0") == dated("pytorch-eager", "") == "pytorch-eager"
    assert net_words.stack_of("PyTorch 2.1.0 cu121 eager") == "pytorch-eager-2023"


def test_a_compiler_that_converts_images_beats_the_layout_column():
    """What tables call NCHW is how the input was made; inductor computes channels-last."""
    row = {
        "model": "resnet50", "device": "rtx-3090", "batch_per_device": "64", "precision": "amp",
        "mode": "train", "layout": "nchw", "step_time_ms": "100", "input": "224x224x3",
    }  # fmt: skip
    formats = [
        nets.run(row | {"framework": f"PyTorch 2.4.0 {how}"}).scenario.memory_format
        for how in ("eager", "torch.compile")
    ]
    assert formats == ["contiguous", None]


def test_what_was_heard_is_in_the_written_table(tmp_path):
    table, out = tmp_path / "runs.csv", tmp_path / "out.csv"
    row = ROW | {"model_name": "deepseek-v2-lite", "framework": "torchtitan", "zero_stage": "3"}
    row |= {"recompute": "selective op", "layers": "4", "hidden": "", "tp": "1"}
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    result = CliRunner().invoke(main, ["validate", "--runs", str(table), "-o", str(out)])
    assert result.exit_code == 0, result.output
    (found,) = csv.DictReader(out.open(encoding="utf-8"))
    assert [found[column] for column in COLUMNS] == ["selective-ops", "1", "fsdp", "ampere"]


def test_a_run_that_ran_near_the_limit_is_not_taken_to_recompute():
    """GPT-3 175B in NVIDIA's NeMo 24.07 summary: forecast 1 % beyond what an H100 has, where four
    of five measured peaks are up to 2.4 % lower than forecast.
    """
    (run,) = (r for r in training.read(training.HERE / "nemo-2407.csv") if r.id == "NEMO0010")
    assert run.scenario is not None
    memory = chain.forecast(run.scenario).memory
    assert run.scenario.recompute == "none" and memory.fits is False
    assert memory.low_bytes < memory.capacity_bytes < memory.peak_bytes


@pytest.mark.parametrize(
    "words, found", [("amp-bf16", "amp-bf16"), ("bf16", "bf16"), ("amp_bf16", "bf16")]
)
def test_autocast_is_heard_where_a_table_says_it(words, found):
    """llm-foundry writes amp_bf16 and holds 16-bit parameters under FSDP."""
    assert precision_of(words, []) == found
