"""Published training runs on many devices: how rows are read, and how accurate forecasts are."""

import csv

import pytest

from roofcast import predict
from roofcast.hwdb.errors import BadInput
from roofcast.reports.tables import accuracy
from roofcast.scenarios.measured import scores, training
from roofcast.scenarios.measured.architectures import model_of
from roofcast.scenarios.measured.networks import nic_bytes
from roofcast.scenarios.measured.training_rows import device_of
from roofcast.simulator.software.stack import stack
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.step import Recipe, trace
from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.traced import Parallel

ROW = {
    "n_devices": "16",
    "device": "H100-SXM5-80GB",
    "seq_len": "4096",
    "global_batch_seqs": "64",
    "layers": "8",
    "hidden": "4096",
    "iter_time_s": "1.0",
}


@pytest.fixture(scope="module")
def scored():
    paths = sorted(path for path in training.HERE.glob("*.csv") if not training.is_blind(path))
    return [scored for path in paths for scored in accuracy.scored(path)]


@pytest.fixture(scope="module")
def by_source(scored):
    return {line.source: line for line in scores.lines(scored)}


def test_there_are_enough_runs_of_enough_sources(scored):
    assert len(scored) >= 300
    assert len({s.run.source for s in scored}) >= 15


def test_every_table_names_its_source():
    for path in training.HERE.glob("*.csv"):
        assert path.read_text(encoding="utf-8").startswith("# "), path.name


def test_ids_are_unique(scored):
    ids = [(s.run.source, s.run.id) for s in scored]
    assert len(ids) == len(set(ids))


def test_a_row_without_a_forecast_has_the_reason_on_one_line():
    run = training.run({**ROW, "heads": "33", "activation": "swiglu", "kv_heads": "5"})
    refused = run.refused or scores.score(run).refused
    assert refused and "\n" not in refused


@pytest.mark.parametrize("missing", training.REQUIRED)
def test_a_row_without_a_required_value_is_refused(missing):
    run = training.run({**ROW, missing: ""})
    assert run.scenario is None and run.refused


@pytest.mark.parametrize("notes", ["METHOD=lora", "METHOD=qlora", "QLoRA, rank 64"])
def test_adapter_fine_tuning_is_refused(notes):
    run = training.run({**ROW, "notes": notes})
    assert run.scenario is None and "adapter fine-tuning" in run.refused


def test_defaults_are_listed_as_assumptions():
    assumptions = " ".join(training.run(ROW).assumptions)
    for word in (
        "heads",
        "activation",
        "MLP",
        "vocabulary",
        "bf16",
        "recomputation",
        "ZeRO",
        "stack",
        "micro-batch",
    ):
        assert word in assumptions, word


def test_a_row_that_states_everything_has_no_assumptions():
    stated = {
        "heads": "32", "kv_heads": "8", "ffn_hidden": "14336", "activation": "swiglu",
        "vocab": "128256", "tied_embeddings": "no", "dtype": "bf16", "recompute": "none",
        "zero_stage": "1", "stack": "te-nemo-2024", "micro_batch": "1", "tp": "2", "sp": "yes",
    }  # fmt: skip
    run = training.run(ROW | stated)
    assert run.refused == "" and run.assumptions == ()
    assert (run.scenario.tp, run.scenario.dp, run.scenario.sp) == (2, 8, True)


@pytest.mark.parametrize(
    ("cell", "found"),
    [("full uniform", "full"), ("yes", "full"), ("selective (core)", "selective"), ("?", "none")],
)
def test_words_for_recomputation(cell, found):
    assert training.run(ROW | {"recompute": cell}).scenario.recompute == found


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("DeepSeekV3", 671),
        ("Kimi-K2", 1026),
        ("Qwen3_30B_a3B", 30.5),
        ("GPT OSS 120B", 116.8),
        ("Grok 1 314b", 315),
    ],
)
def test_expert_width_comes_from_the_model_not_from_the_column(name, billions):
    """Parameters as published: DeepSeek-AI 2024; Kimi team 2025 (1.04T printed, 1.026T by its
    configuration); Qwen team 2025; OpenAI 2025; xAI 2024.
    """
    model = model_of({"model_name": name, "ffn_hidden": "18432"}, 4096, [])
    tape = model.run(Tape(precision("bf16")), 1, 64)
    assert sum(w.size * w.count for w in tape.weights) / 1e9 == pytest.approx(billions, rel=0.01)


@pytest.mark.parametrize(
    ("words", "gigabytes"),
    [
        ("8x HDR200 InfiniBand per DGX A100 (Selene)", 200),
        ("1600Gbps RoCE per node (section heading)", 200),
        ("4x OmniPath 100 Gb/s per node", 50),
        ("InfiniBand NDR 400Gb/s per GPU", 400),
        ("Storage: 2x ConnectX-7 IB NDR 400Gb/s, Compute: 8x ConnectX-7 IB NDR 400Gb/s", 400),
        ("1x Ethernet 100Gb/Sec, 8x NVIDIA Quantum-2 CX7 InfiniBand (400Gb/s)", 400),
        ("EFA 800/1600 Gbps (trn1/trn1n)", 100),
        ("InfiniBand", None),
    ],
)
def test_words_for_a_network_give_its_bandwidth(words, gigabytes):
    assert nic_bytes(words, 8) == (None if gigabytes is None else gigabytes * 1e9)


def test_two_neuron_cores_make_one_device():
    name = "Trainium1 NeuronCore-v2 (2 per chip, 16GB each)"
    assert device_of(name, 64) == ("trainium1", 32, 2)


def test_a_table_without_the_required_columns_is_refused(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("model,device\nx,y\n", encoding="utf-8")
    with pytest.raises(BadInput, match="n_devices"):
        training.read(path)


def test_the_short_layout_of_columns_is_read(tmp_path):
    path = tmp_path / "node.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([training.SHORT, (2, 16, 8, 1024, 16, 24, 1024, 1, 1, 2, 0.37)])
    (run,) = training.read(path)
    assert run.measured_s == 0.37 and run.scenario.pp == 2 and run.scenario.recompute == "full"


@pytest.mark.parametrize(
    ("source", "most"),  # largest mean error allowed [%]
    [
        ("Korthikanti et al. 2022, Table 5", 6.5),
        ("Narayanan et al. 2021, Table 1", 5.0),
        ("Megatron-DeepSpeed single node", 7.5),
        ("BigScience BLOOM-176B tuning chronicles", 9.0),
        ("NVIDIA NeMo 24.07 performance summary", 7.0),
        ("llm-foundry training benchmarks, 2024-01", 6.0),
        ("llm-foundry training benchmarks, 2023-07", 5.0),
    ],
)
def test_the_mean_error_of_a_source_stays_below_its_limit(by_source, source, most):
    assert 100 * by_source[source].mean <= most


def test_the_mean_error_of_all_sources_stays_below_its_limit(scored):
    found = scores.overall(scored)
    assert found["rows"] >= 1000 and found["refused"] < 0.02
    assert found["all rows"] <= 0.08 and found["mean of sources"] <= 0.08
    assert found["dense, mean of sources"] <= 0.065


def test_forecasts_beat_the_rule_of_thumb(by_source):
    better = [
        line.mean < line.baseline for line in by_source.values() if line.baseline and line.rows >= 4
    ]
    assert sum(better) >= 0.7 * len(better)


def test_out_of_memory_is_forecast_for_most_layouts_that_ran_out(scored):
    ran, failed = scores.told_apart(scored).values()
    assert failed[1] > 0 and ran[0] >= 0.9 * ran[1]


RUNS = {"22B": "KOR0001", "175B": "KOR0005", "530B": "KOR0009", "1T": "KOR0013"}


def korthikanti(run: str):
    """A row of Korthikanti et al. 2022, Table 5."""
    rows = training.read(training.HERE / "korthikanti2022.csv")
    return next(row for row in rows if row.id == RUNS[run])


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(
    ("sp", "recompute"), [(False, "none"), (True, "none"), (True, "selective"), (False, "full")]
)
def test_activations_of_a_layer_are_those_of_korthikanti2022(run, sp, recompute):
    """Equations 2, 4, 6 and 1 of Korthikanti et al. 2022, from which its Figure 1 is drawn: bytes
    per layer and rank. Within half a percent, since norms keep their statistics too.

        tensor parallel              s b h (10 + 24/t + 5 a s / (h t))
        and sequence parallel        s b h / t (34 + 5 a s / h)
        selective recomputation      34 s b h / t
        full recomputation           2 s b h
    """
    model, size = korthikanti(run).scenario.model, 2048
    c = model.config
    recipe = Recipe(
        mode="train",
        batch=1,
        size=size,
        precision="fp16",
        optimizer="adamw",
        recompute=recompute,
        stack=stack("megatron-2021"),
    )
    step = trace(model, recipe, Parallel(tp=8, sp=sp))
    kept = sum(k.bytes * k.count for k in step.saved if step.nodes[k.node].layer) / c.n_layer
    scores = 5 * c.n_head * size / c.n_embd
    formula = {
        (False, "none"): 10 + (24 + scores) / 8,
        (True, "none"): (34 + scores) / 8,
        (True, "selective"): 34 / 8,
        (False, "full"): 2,
    }
    assert kept == pytest.approx(size * c.n_embd * formula[sp, recompute], rel=0.005)


@pytest.mark.parametrize("run", RUNS)
def test_a_weight_takes_eighteen_bytes_of_states(run):
    """2 for the weight, 4 for its gradient, 12 for its fp32 copy and moments; what several ranks
    hold counts on each.
    """
    for rank in predict(korthikanti(run).scenario).ranks:
        assert rank.gradients_bytes == 2 * rank.parameters_bytes
        assert rank.optimizer_bytes == 6 * rank.parameters_bytes
