"""Prompt and prefix tuning: counts equal PyTorch's with PEFT; laws; bad inputs."""

import csv
import json
from pathlib import Path

import pytest

from roofcast import predict
from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.forecast.counts import count
from roofcast.simulator.models.catalog import from_config

ORACLE = Path(__file__).parents[1] / "oracle" / "prompts.csv"
ROWS = list(
    csv.DictReader(line for line in ORACLE.read_text().splitlines() if not line.startswith("#"))
)
COUNTED = ("parameters", "trainable_parameters", "flops_forward", "flops_backward")


def label(row: dict[str, str]) -> str:
    """A row in words."""
    return f"{json.loads(row['model'])['model_type']}-{row['method']}"


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_counts_equal_pytorch_and_peft(row):
    config = json.loads(row["model"])
    found = count(
        from_config(config["model_type"], config),
        batch=int(row["batch"]),
        sequence=int(row["sequence"]),
        attention="eager",
        precision="bf16",
        **{f"{row['method']}_tuning": int(row["tokens"])},
    )
    assert {k: getattr(found, k) for k in COUNTED} == {k: int(row[k]) for k in COUNTED}


def test_llama_3_8b_has_the_parameters_of_published_recipes():
    prompt = count("llama-3-8b", batch=1, sequence=64, prompt_tuning=20)
    assert prompt.trainable_parameters == 20 * 4096
    prefix = count("llama-3-8b", batch=1, sequence=64, prefix_tuning=30)
    assert prefix.trainable_parameters == 30 * 32 * 2 * 1024  # keys and values of 8 heads of 128


@pytest.mark.parametrize("method", ["prompt_tuning", "prefix_tuning"])
def test_virtual_tokens_train_alone_and_cost_time(method):
    on = {"batch": 2, "sequence": 256, "precision": "bf16"}
    few, many = (predict("gpt2", "a100-sxm4-80gb", **on, **{method: n}) for n in (8, 512))
    whole = predict("gpt2", "a100-sxm4-80gb", **on)
    assert few.trainable_parameters < many.trainable_parameters < whole.trainable_parameters
    assert few.step_time_s < many.step_time_s
    assert few.memory.optimizer_bytes < 0.01 * whole.memory.optimizer_bytes
    assert few.tokens_per_s == pytest.approx(512 / few.step_time_s)  # of samples


BAD = [
    ({"prompt_tuning": 0}, "gpt2", "1 to 1,000,000"),
    ({"prompt_tuning": 4, "lora": 8}, "gpt2", "another method"),
    ({"prompt_tuning": 4, "prefix_tuning": 8}, "gpt2", "another method"),
    ({"prefix_tuning": 4, "recompute": "full"}, "gpt2", "under checkpoints"),
    ({"prefix_tuning": 4, "mode": "infer"}, "gpt2", "trains nothing"),
    ({"prompt_tuning": 4}, "t5-small", "one stack of layers"),
    ({"prefix_tuning": 4}, "mamba-130m", "no causal self-attention"),
]


@pytest.mark.parametrize("asked, model, said", BAD, ids=str)
def test_what_cannot_be_is_refused_in_one_line(asked, model, said):
    with pytest.raises(RoofcastError) as error:
        predict(model, "h100-sxm5", batch=1, sequence=64, **asked)
    assert said in str(error.value) and "\n" not in str(error.value)
