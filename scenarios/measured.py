"""Measured runs of single devices, from a CSV, as scenarios beside their measured times.

Columns (others are ignored): model, input, batch_per_device, n_devices, device, precision, layout, framework, mode, and
step_time_ms or throughput_samples_s; id, source_name for the report. A missing optional column has the default given here.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import NamedTuple

from hwdb.errors import BadInput
from simulator.scenario import Scenario

REQUIRED = ("model", "device", "batch_per_device", "precision", "mode")
PRECISION = {"amp-fp16": "amp-fp16", "amp-bf16": "amp-bf16", "fp32": "fp32", "tf32": "tf32", "bf16": "bf16", "fp16": "fp16", "amp": "amp-fp16"}
LAYOUT = {"nchw": "contiguous", "nhwc": "channels_last", "": None}
COMPILED = ("dynamo", "compile", "xla", "inductor")
OPTIMIZER = "momentum"  # where no column says: vision benchmarks train with it


class Run(NamedTuple):
    """One measured step."""

    id: str
    source: str
    scenario: Scenario | None  # None where the row cannot be asked for
    measured_s: float | None
    refused: str  # why not
    row: dict[str, str]


def read(path: str | Path) -> list[Run]:
    """Every row of a CSV (or .csv.gz) of measured runs, those that cannot be forecast with the reason."""
    path = Path(path)
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") if path.suffix == ".gz" else path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [c for c in REQUIRED if c not in (reader.fieldnames or ())]
            if missing:
                raise BadInput(f"{path}: no column {missing[0]!r}; wanted: {', '.join(REQUIRED)}, and step_time_ms or throughput_samples_s")
            return [run(row) for row in reader]
    except (OSError, UnicodeDecodeError, gzip.BadGzipFile, csv.Error) as error:
        raise BadInput(f"{path}: not a CSV of measured runs ({error})") from None


def run(row: dict[str, str]) -> Run:
    """One row as a scenario, or the reason why it is none."""
    get = lambda key: (row.get(key) or "").strip()  # noqa: E731
    name, source = get("id"), get("source_name")

    def refuse(why: str) -> Run:
        return Run(name, source, None, None, why, row)

    if get("n_devices") not in ("", "1", "1.0"):
        return refuse("several devices")
    if get("precision") not in PRECISION:
        return refuse(f"precision {get('precision')!r} not known")
    try:
        batch = float(get("batch_per_device"))
        seconds = float(get("step_time_ms")) / 1e3 if get("step_time_ms") else batch / float(get("throughput_samples_s"))
    except (ValueError, ZeroDivisionError):
        return refuse("no batch, or no step time or throughput")
    image = _image(get("input"))
    framework = get("framework").lower()
    compiled = any(word in framework for word in COMPILED)
    training = get("mode") == "train"
    scenario = Scenario(
        model=get("model"), device=get("device"), batch=int(batch), image=image, precision=PRECISION[get("precision")],
        mode=get("mode"), optimizer=(get("optimizer") or OPTIMIZER) if training else None,
        stack="pytorch-compiled" if compiled else "pytorch-eager", memory_format=LAYOUT.get(get("layout").lower()),
    )  # fmt: skip
    return Run(name, source, scenario, seconds, "", row)


def _image(text: str) -> int | None:
    """224x224x3 -> 224; None where it is not a square picture."""
    parts = text.lower().split("x")
    return int(parts[0]) if len(parts) == 3 and parts[0] == parts[1] and parts[0].isdigit() else None
