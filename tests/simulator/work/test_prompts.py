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
