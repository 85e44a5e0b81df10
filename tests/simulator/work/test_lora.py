"""LoRA and frozen weights: counts equal PyTorch's with PEFT, to the byte; laws; bad inputs."""

import csv
import json
from pathlib import Path

import msgspec
import pytest

from roofcast import predict
from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.hwdb.formats import WIDTH
from roofcast.simulator import models
from roofcast.simulator.forecast.counts import count, tally
from roofcast.simulator.models.catalog import from_config
from roofcast.simulator.software.stack import stack
from roofcast.simulator.work.step import Recipe, Step, trace
from roofcast.simulator.work.tuning import NF4, Tuning, named_by

ORACLE = Path(__file__).parents[1] / "oracle" / "lora.csv"
ROWS = list(
    csv.DictReader(line for line in ORACLE.read_text().splitlines() if not line.startswith("#"))
)
COUNTED = (
    "parameters", "trainable_parameters", "flops_forward", "flops_backward", "saved_bytes",
    "saved_input_bytes", "saved_weight_copy_bytes",
)  # fmt: skip
EAGER = stack("pytorch-eager")


def step_of(name: str, tuning: Tuning | None, **changes: object) -> Step:
    """A training step of a shipped model."""
    usual = {"batch": 2, "size": 256, "precision": "bf16", "optimizer": "adamw"}
    recipe = Recipe(mode="train", recompute="none", stack=EAGER, tuning=tuning, **usual)
    return trace(models.resolve(name), msgspec.structs.replace(recipe, **changes))


def counted(row: dict[str, str]) -> dict[str, int]:
    """What Roofcast counts of a row of the table, in its columns."""
    config = json.loads(row["model"])
    model = from_config(config["model_type"], config)
    attention = "eager" if row["attention"] == "eager" else "flash"
    adapters = "fp32" if row["adapters"] == "peft" else row["adapters"]
    recipe = Recipe(
        mode="train",
        batch=int(row["batch"]),
        size=int(row["sequence"]) if model.takes == "sequence" else config["image_size"],
        precision=row["precision"],
        optimizer=None,
        recompute=row["recompute"],
        stack=EAGER.changed(attention, None),
        tuning=Tuning(int(row["lora"]), row["targets"], adapters, float(row["dropout"])),
    )
    step = trace(model, recipe)
    flops = dict.fromkeys(("forward", "backward", "recompute"), 0.0)
    for k in step.kernels:
        flops[k.phase] += k.matrix * k.count
    saved, _ = tally(step)
    return {
        **saved,
        "trainable_parameters": step.trainable_parameters,
        "flops_forward": int(flops["forward"]),
        "flops_backward": int(flops["backward"] + flops["recompute"]),
    }


def label(row: dict[str, str]) -> str:
    """A row in words."""
    keys = ("precision", "targets", "adapters", "dropout", "recompute")
    return "-".join([json.loads(row["model"])["model_type"], *(row[k] for k in keys)])


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_counts_equal_pytorch_and_peft(row):
    found = counted(row)
    assert {k: found[k] for k in COUNTED} == {k: int(row[k]) for k in COUNTED}


def test_the_table_has_many_families_with_and_without_checkpoints():
    kinds = {json.loads(row["model"])["model_type"] for row in ROWS}
    assert len(kinds) >= 15
    full = {json.loads(r["model"])["model_type"] for r in ROWS if r["recompute"] == "full"}
    assert len(full) >= 15


def test_llama_3_8b_has_the_trainable_parameters_that_peft_prints():
    # 32 layers x 16 x ((4096 + 4096) + (4096 + 1024))
    assert step_of("llama-3-8b", Tuning(16, "q,v")).trainable_parameters == 6_815_744


def test_a_frozen_weight_has_no_gradient_product():
    """4 N FLOPs per token instead of 6 N, but for the layer below the first adapter."""

    def products(step: Step, phase: str) -> float:
        return sum(
            k.matrix * k.count for k in step.kernels if (k.phase, k.kind) == (phase, "matmul")
        )

    tuned = step_of("llama-3-8b", Tuning(1, "q,v"), recompute="full")
    forward, backward = products(tuned, "forward"), products(tuned, "backward")
    assert backward == pytest.approx(forward, rel=1e-3)
    whole = step_of("llama-3-8b", None)
    assert products(whole, "backward") == pytest.approx(2 * forward, rel=1e-2)


@pytest.mark.parametrize("rows, columns", [(4096, 4096), (1024, 4096), (14336, 4096), (3, 50)])
def test_nf4_takes_the_bytes_of_bitsandbytes(rows, columns):
    """Half a byte per weight, a byte per block of 64, 4 bytes per 256 of these [dettmers2023]."""
    n = rows * columns
    blocks = -(-n // 64)
    stored = n / 2 + blocks + 4 * -(-blocks // 256)
    assert NF4.per_weight(rows, columns) * n / 8 == pytest.approx(stored, rel=1e-12)


def test_nf4_is_4_127_bits_per_weight_of_the_matrices():
    step = step_of("llama-2-7b", Tuning(8, weights="nf4"))
    stored = [w for w in step.weights if w.dtype.endswith("-bit")]
    weights = sum(w.size * w.count for w in stored)
    assert weights == 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    bits = 8 * sum(w.size * w.count * WIDTH[w.dtype] for w in stored) / weights
    assert bits == pytest.approx(4.127, abs=5e-4)


MEMORY = [
    ("llama-3-8b", {"recompute": "full"}),
    ("llama-3-8b", {"recompute": "none"}),
    ("gemma-2-9b", {"recompute": "full"}),
    ("gpt2-large", {"recompute": "full"}),
    ("gpt2-large", {"recompute": "full", "optimizer": "sgd"}),
    ("mixtral-8x7b", {"recompute": "full", "devices": 8, "zero": 3}),
]


@pytest.mark.parametrize("model, asked", MEMORY, ids=str)
def test_qlora_needs_at_most_the_memory_of_lora_and_lora_that_of_full_training(model, asked):
    def peak(**tuned):
        given = {"batch": 8, "sequence": 512, "precision": "bf16", **asked, **tuned}
        return predict(model, "h100-sxm5", **given).memory.peak_bytes

    targets = {"lora": 16, "lora_targets": "attention"}
    qlora, lora, full = peak(**targets, weights="nf4"), peak(**targets), peak()
    assert qlora <= lora <= full


LAYOUTS = [
    {},
    {"devices": 8},
    {"devices": 64, "zero": 1},
    {"devices": 64, "zero": 2},
    {"devices": 64, "zero": 3},
    {"devices": 64, "tp": 8},
    {"devices": 64, "pp": 4, "batch": 128},
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("weights", [None, "nf4"])
def test_frozen_weights_add_no_gradients_states_or_reductions(layout, weights):
    """Gradients and states are those of the adapters, and only theirs are reduced."""
    usual = {"batch": 64, "sequence": 256, "precision": "bf16", "optimizer": "adamw"}
    asked = usual | {"lora": 8, "weights": weights, "recompute": "full"} | layout
    found = predict("llama-3-8b", "h100-sxm5", **asked)
    trained = 2 * found.trainable_parameters * layout.get("tp", 1)  # bytes in bf16, at most
    assert found.memory.gradients_bytes <= trained
    assert found.memory.optimizer_bytes <= 2 * trained
    sent = found.communication_bytes.get("data", 0.0)
    if layout.get("zero") == 3:
        assert sent <= 2.05 * 2 * found.parameters + 2 * trained  # weights gathered in both passes
    else:
        assert sent <= 2 * trained


def test_the_frozen_part_of_a_net_is_what_freeze_names():
    whole, frozen = (count("gpt2", batch=1, sequence=64, freeze=f) for f in (None, "wte|wpe"))
    assert whole.parameters == frozen.parameters == whole.trainable_parameters
    tables = (50257 + 1024) * 768
    assert frozen.trainable_parameters == whole.parameters - tables


def test_train_alone_freezes_all_that_it_does_not_name():
    found = count("bert-base", batch=1, sequence=64, train="decoder")
    assert 0 < found.trainable_parameters < 0.05 * found.parameters
    assert found.flops_backward < 0.2 * found.flops_forward


def test_train_adds_whole_layers_to_adapters():
    plain = count("llama-3-8b", batch=1, sequence=64, lora=8)
    more = count("llama-3-8b", batch=1, sequence=64, lora=8, train="lm_head")
    assert more.trainable_parameters - plain.trainable_parameters == 128256 * 4096


def test_dequantized_weights_are_held_while_they_are_multiplied():
    """The largest matrix in 16 bits is in flight, in each pass."""
    tuned = Tuning(8, "q,v", weights="nf4")
    kernels = [k for k in step_of("llama-3-8b", tuned).kernels if k.kind == "dequantize"]
    assert {k.phase for k in kernels} == {"forward", "backward"}
    largest = max(k.written for k in kernels)
    assert largest == 2 * 4096 * 14336


BAD = [
    ({"lora": 0}, "at least 1"),
    ({"lora": 20000}, "above the width"),
    ({"lora": 8, "lora_targets": "foo"}, "q_proj, k_proj"),
    ({"lora": 8, "lora_targets": "(q"}, "not a regular expression"),
    ({"lora_targets": "q"}, "there are no adapters"),
    ({"lora": 8, "weights": "int3"}, "nf4, int8"),
    ({"weights": "nf4"}, "--lora 16"),
    ({"lora": 8, "mode": "infer"}, "trains nothing"),
    ({"freeze": "nothing-has-this"}, "embed_tokens"),
    ({"freeze": "."}, "it names all weights of llama-3-8b"),
    ({"freeze": "mlp", "train": "mlp"}, "only what train names trains; leave one of them out"),
    ({"freeze": "embed", "train": "mlp"}, "leave one of them out"),
    ({"freeze": "mlp", "lora": 8}, "--lora-targets says which layers"),
    ({"freeze": "mlp", "prompt_tuning": 8}, "leave freeze out"),
    ({"freeze": ""}, "freeze: no name is given"),
    ({"train": " "}, "train: no name is given"),
    ({"lora": 8, "lora_targets": ","}, "lora_targets: no name is given"),
    ({"freeze": "embed", "weights": "int8"}, "no matrix of a linear layer of llama-3-8b is frozen"),
    ({"dora": True}, "dora: there are no adapters"),
    ({"teacher": ""}, "the name of a model is empty"),
    ({"lora": 8, "lora_dropout": 1.5}, "probability"),
    ({"lora": 8, "weights": "bf16", "precision": "fp16"}, "weights bf16"),
    ({"weights": "nf4", "mode": "infer", "precision": "fp8"}, "leave one"),
]


@pytest.mark.parametrize("asked, said", BAD, ids=lambda x: str(x))
def test_what_cannot_be_is_refused_in_one_line(asked, said):
    with pytest.raises(RoofcastError) as error:
        predict("llama-3-8b", "h100-sxm5", batch=1, sequence=128, **asked)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "model, asked, said",
    [
        ("gpt2", {"lora_targets": "c_attn,zz"}, "no linear layer has the name 'zz'; left out"),
        ("mixtral-8x7b", {}, "experts have no adapters"),
        ("resnet50", {}, "convolutions have no adapters"),
        ("gpt2", {"lora_targets": "c_attn"}, ""),
        ("mixtral-8x7b", {"lora_targets": "attention"}, ""),
    ],
)
def test_what_has_no_adapters_is_said(model, asked, said):
    size = {} if model == "resnet50" else {"sequence": 64}
    found = predict(model, "b200-sxm", batch=1, lora=8, **size, **asked)
    about = [a for a in found.assumptions if a.startswith("lora: ") or "no linear layer" in a]
    assert any(said in a for a in about) if said else not about


def test_a_text_encoder_that_trains_runs_whatever_encoders_are_named():
    asked = {"model": "sdxl", "device": "a100", "batch": 1, "train_text_encoder": True}
    named, alone = (predict(**asked, encoders=e) for e in ("vae", "vae,text"))
    assert any("text by CLIP, trained and so run" in a for a in named.assumptions)
    assert named.step_time_s == alone.step_time_s


def test_a_traced_module_keeps_its_own_adapters(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "net.py").write_text("from torch import nn\nnet = nn.Linear(8, 8)\n")
    with pytest.raises(BadInput, match="requires_grad"):
        predict(f"{tmp_path}/net.py:net", "h100-sxm5", inputs=["4x8"], lora=2)


def test_names_of_targets_know_the_projections_of_attention():
    assert named_by("q,v", "bert.encoder.layer.attention.self.query")
    assert not named_by("q,v", "bert.encoder.layer.attention.self.key")
