"""Fine-tuning of denoisers: counts equal PyTorch's with diffusers and PEFT, to the byte; laws."""

import csv
import json
from pathlib import Path

import pytest

from roofcast.simulator import models
from roofcast.simulator.forecast.counts import tally
from roofcast.simulator.models.catalog import from_config
from roofcast.simulator.software.stack import stack
from roofcast.simulator.work.step import Recipe, Step, trace
from roofcast.simulator.work.tuning import Tuning

ORACLE = Path(__file__).parents[1] / "oracle" / "diffusion_lora.csv"
ROWS = list(
    csv.DictReader(line for line in ORACLE.read_text().splitlines() if not line.startswith("#"))
)
COUNTED = (
    "parameters", "trainable_parameters", "flops_forward", "flops_backward", "saved_bytes",
    "saved_input_bytes",
)  # fmt: skip


def step_of(row: dict[str, str]) -> Step:
    """The step of a row of the table."""
    name = row["model"]
    model = from_config("inline", json.loads(name)) if name[0] == "{" else models.resolve(name)
    recipe = Recipe(
        mode="train",
        batch=int(row["batch"]),
        size=int(row["size"]),
        precision=row["precision"],
        optimizer=None,
        recompute=row["recompute"],
        stack=stack("pytorch-eager"),
        tuning=Tuning(int(row["lora"]), row["targets"]) if int(row["lora"]) else None,
    )
    return trace(model, recipe)


def counted(row: dict[str, str]) -> dict[str, int]:
    """What Roofcast counts of a row of the table, in its columns."""
    step = step_of(row)
    flops = dict.fromkeys(("forward", "backward", "recompute"), 0.0)
    for k in step.kernels:
        flops[k.phase] += k.matrix * k.count
    saved = dict.fromkeys(("activation", "input", "weight_copy"), 0.0)
    for s in step.saved:
        saved[s.kind] += s.bytes * s.count
    return {
        "parameters": step.parameters,
        "trainable_parameters": step.trainable_parameters,
        "flops_forward": int(flops["forward"]),
        "flops_backward": int(flops["backward"] + flops["recompute"]),
        "saved_bytes": int(saved["activation"]),
        "saved_input_bytes": int(saved["input"]),
    }


def label(row: dict[str, str]) -> str:
    """A row in words."""
    name = row["model"] if row["model"][0] != "{" else json.loads(row["model"])["_class_name"] + "*"
    return f"{name}-{row['batch']}x{row['size']}-r{row['lora']}-{row['recompute']}"


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_counts_equal_pytorch_diffusers_and_peft(row):
    found = counted(row)
    assert {k: found[k] for k in COUNTED} == {k: int(row[k]) for k in COUNTED}
