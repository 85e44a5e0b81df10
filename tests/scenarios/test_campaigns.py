"""Whole trainings as published: what a table writes, forecasts beside them, stated causes."""

import csv
import gzip
import math
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from roofcast.reports.command import main
from roofcast.scenarios import campaigns
from roofcast.scenarios.campaigns import spread, words
from roofcast.scenarios.campaigns.forecasts import SHIPPED, lines, read, score
from roofcast.scenarios.campaigns.plans import plan
from roofcast.scenarios.fits import campaigns as fit
from roofcast.simulator import models
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.scenario import Scenario

ROWS = read(SHIPPED)
EXPLAINED = tomllib.loads(
    (Path(campaigns.__file__).parent / "explained.toml").read_text(encoding="utf-8")
)
NAMES = Path(campaigns.__file__).parent / "names.toml"
RESERVED = ("pythia", "falcon", "starcoder", "smollm", "openclip", "olmo-2", "glm-130b", "yalm",
            "nanochat", "stylegan3", "gopher", "phi-2", "electra", "bloomberg")  # fmt: skip


def test_at_least_twenty_runs_ship_each_with_its_citation():
    assert len(ROWS) >= 20
    assert all(row["source"] and row["where"] and row["source_name"] for row in ROWS)
    assert {words.kind_of(row) for row in ROWS} == set(words.KINDS)
    assert not [row for row in ROWS if any(word in row["model"].lower() for word in RESERVED)]
    recipes = tomllib.loads(NAMES.read_text(encoding="utf-8"))["recipes"]
    named = [" ".join(recipe["where"]).lower() for recipe in recipes]
    assert not [text for text in named if any(word in text for word in RESERVED)]


@pytest.fixture(scope="module")
def scored():
    """Every shipped run and its forecast."""
    return [score(row) for row in ROWS]


def test_rows_are_forecast_with_intervals(scored):
    assert all(t.hours and not t.refused for t in scored)
    for t in scored:
        assert t.hours.low < t.hours.value < t.hours.high
        assert 0 < t.goodput.low <= t.goodput.value <= t.goodput.high <= 1.0
    assert sum(line.forecast for line in lines(scored)) == len(scored)


def test_wall_times_of_single_runs_are_forecast_without_bias(scored):
    """The issue's bar: stated over forecast between 0.9 and 1.15 in the median."""
    of = {(line.kind, line.group): line for line in lines(scored)}
    for group in ("language model", "net"):
        line = of["wall", group]
        assert line.compared >= 8 and 0.9 <= line.ratio <= 1.15, (group, line)
    assert {t.group for t in scored} == {"language model", "net"}


@pytest.mark.parametrize("group", ["language model", "net"])
def test_the_interval_of_other_sources_holds_as_many_runs_as_it_says(scored, group):
    by_source = fit.errors(scored, group)
    assert 0.75 <= fit.left_out(by_source) <= 0.85
    # what was written is what these runs say
    low, high = (math.exp(v) for v in fit.ends(by_source))
    assert spread.ends(group) == pytest.approx((low, high), rel=0.02)


def test_a_rate_times_a_length_has_no_overhead(scored):
    found = next(t for t in scored if t.row["model"].startswith("swav"))
    assert found.kind == "rate" and found.goodput.value == 1.0


def test_a_wall_time_without_device_hours_is_multiplied_by_the_devices_of_the_note():
    row = {"model": "PyTorch/Segmentation/nnUNet", "device": "A100-SXM4-80GB", "devices": "8",
           "precision": "tf32", "wall_hours": "0.5", "device_hours": "",
           "source": "github:NVIDIA/DeepLearningExamples",
           "note": "Dimension=3; GPUs=8; Batch size / GPU=2"}  # fmt: skip
    found = score(row)
    assert found.stated == 4.0 and found.hours is not None, found.refused
    assert any("600 epochs of 387 volumes" in line for line in found.assumed)
    several = row | {"device_hours": "4", "note": "DGX System=48 x DGX A100; GPUs=8; Dimension=3"}
    assert words.devices_of(several) == 384 and words.of_one_node(several)
    assert score(several).stated == 192.0


@pytest.mark.parametrize(
    ("note", "precision", "batch"),
    [
        ("Batch size per GPU=10@FP16, 4@TF32", "amp-fp16", 80),
        ("Batch size per GPU=10@FP16, 4@TF32", "tf32", 32),
        ("Batch size / GPU (FP32 : mixed precision)=8 : 16", "fp32", 64),
        ("Batch size / GPU (FP32 : mixed precision)=8 : 16", "amp-fp16", 128),
        ("Batch size (TF32, BF16)=192, 320", "bf16", 320),
        ("Batch size / GPU=131,072", "tf32", 1048576),
        ("Batch size / GPU (Phase 1 and Phase 2)=176 and 24", "amp-fp16", None),
    ],
)
def test_batches_that_notes_tell(note, precision, batch):
    assert words.batch_of({"note": note, "precision": precision}, 8, None) == batch


def test_two_phases_have_their_own_batches_and_accumulations():
    row = {"model": "TensorFlow/LanguageModeling/BERT/biobert", "device": "V100-SXM3-32GB",
           "source": "github:NVIDIA/DeepLearningExamples:TensorFlow/LanguageModeling/BERT/biobert",
           "where": "Pre-training accuracy", "precision": "fp16",
           "note": "DGX System=DGX2H; Nodes=4; Batch Size/GPU: Phase1, Phase2=128, 16;"
                   " Accumulation Steps: Phase1, Phase2=8, 32"}  # fmt: skip
    first, second = plan(row).phases
    assert (first.batch, first.micro_batch, first.sequence) == (65536, 128, 128)
    assert (second.batch, second.micro_batch, second.sequence) == (32768, 16, 512)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("ResNet-50", "resnet50"),
        ("RegNetX-4.0GF", "regnetx_040"),
        ("regnety-800mf", "regnety_008"),
        ("mae vit-large/16", "vit-mae-large"),
        ("clip ViT-B/32", "clip-vit-base-patch32"),
        ("llama-2-7b", "llama-2-7b"),
        ("EfficientNet-B2", "efficientnet_b2"),
        ("bert-large pretrain", "bert-large"),
        ("some-model-9b", ""),
    ],
)
def test_names_of_tables(name, ours):
    found = words.model_named({"model": name}).name
    assert found == ours and (not ours or ours in models.names())


def test_a_model_that_is_not_shipped_is_a_plain_transformer_of_its_size():
    row = {"model": "some-model-9b", "params": "9e9", "tokens": "1e12", "device": "H100-SXM5-80GB",
           "devices": "64", "seq": "4096"}  # fmt: skip
    found = plan(row)
    assert any("a plain transformer of 9e+09 parameters" in line for line in found.assumed)
    assert any(line.startswith("layout: the fastest that fits") for line in found.assumed)
    refused = score(row | {"params": ""})
    assert "not a shipped model" in refused.refused and refused.hours is None
    assert "its length is not told" in score(row | {"tokens": ""}).refused


def test_overhead_of_bloom_by_its_stated_causes():
    e = EXPLAINED["bloom-176b"]
    c = forecast(Scenario(**e["scenario"], campaign=e["campaign"])).campaign
    hours = sum(e["incidents"].values())
    explained = c.time_s / c.steps_s + 3600 * hours / c.steps_s
    # checkpoints, evaluation, failures and longer steps; and what the chronicles tell beside
    assert c.time_s / c.steps_s == pytest.approx(1.036, abs=0.005)
    assert 0.55 < (explained - 1) / (e["ratio"] - 1) <= 1.0
    # "costs about 0.7 % of training", of the evaluation; 0.37 % of the checkpoints
    assert c.eval_s / c.steps_s == pytest.approx(0.007, abs=0.002)
    assert c.checkpoint_s / c.steps_s == pytest.approx(0.0037, abs=0.001)


def test_llama_3_was_effective_more_than_90_percent_of_the_time():
    e = EXPLAINED["llama-3-405b"]
    c = forecast(Scenario(**e["scenario"], campaign=e["campaign"])).campaign
    assert e["goodput"] < c.goodput < e["goodput"] + 0.03


def test_validate_campaigns_writes_every_row(tmp_path):
    few = [r for r in ROWS if r["model"].startswith(("ResNet-18", "swav", "dinov2"))]
    source, target = tmp_path / "runs.csv.gz", tmp_path / "out.csv"
    bad = dict.fromkeys(few[0], "") | {"id": "x", "model": "unknown net", "device": "a100"}
    with gzip.open(source, "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, few[0].keys())
        writer.writeheader()
        writer.writerows([*few, bad])
    done = CliRunner().invoke(
        main, ["validate", "--campaigns", str(source), "-o", str(target)], catch_exceptions=False
    )
    assert done.exit_code == 0 and "stated / forecast" in done.output
    with target.open(encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert len(written) == len(few) + 1
    for row in written[:-1]:
        assert float(row["predicted_device_hours_low"]) < float(row["predicted_device_hours"])
        assert float(row["predicted_energy_mwh"]) > 0 and float(row["predicted_goodput"]) <= 1
        assert not row["refused_because"]
    assert "not a shipped model" in written[-1]["refused_because"]


def test_campaigns_go_with_no_other_table(tmp_path):
    done = CliRunner().invoke(main, ["validate", "--campaigns", "x.csv", "--regret"])
    assert done.exit_code == 2 and "leave the others out" in done.output
    missing = CliRunner().invoke(main, ["validate", "--campaigns", str(tmp_path / "no.csv")])
    assert missing.exit_code == 2 and "Traceback" not in missing.output
