"""Measured watts: time and power under power limits, power of decoding, power of whole nodes.

    python -m roofcast.scenarios.measured.watts FILE.csv[.gz]     transcribe the rows of a table

FILE has the columns of COLUMNS and more; what is transcribed into power/boards.csv is chosen by
KEPT. Watts of a row are those of all its boards together, or of the whole node where `scope` says
so.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path
from typing import NamedTuple

from roofcast.scenarios.measured.cells import Row, positive, rows, text

TABLE = Path(__file__).parent / "power" / "boards.csv"
COLUMNS = (
    "id", "kind", "device", "n_devices", "workload", "model", "batch", "power_limit_w", "time_s",
    "time_unit", "avg_power_w", "energy_j", "avg_batch", "tokens_per_s", "output_tokens",
    "utilisation_pct", "scope", "source_name", "source",
)  # fmt: skip
HEAD = """\
# Watts of boards, nodes and processors. Facts of public sources, transcribed by \
scenarios/measured/watts.py:
# Zeus (You, Chung, Chowdhury, NSDI 2023), github ml-energy/zeus@75a8b9398034, \
examples/research_reproducibility/zeus_nsdi23/trace: time of an epoch and mean
#   NVML watts of a V100 and a P100 at each power limit; ncf hardly uses the board. fp32. \
BERT is padded per batch, so that only ratios over limits compare.
# ML.ENERGY leaderboard v3, github ml-energy/leaderboard@0cd52dab897c, public/data: vLLM on \
H100, mean NVML watts of all boards while so many requests run.
# codecarbon, github mlco2/codecarbon@b05965e43b69, data/hardware/cpu_load_profiling: watts of \
processor packages (RAPL) against load; the second file of
#   the Xeon E3-1240 v2 shows twice the first, above its TDP: nested domains added up.
# Patterson et al. 2021 (arXiv:2104.10350), OLMo 1, BLOOM, ROCm blogs, Uptime Institute, Google: \
single figures, each with its source.
# MLPerf Training v4.0, github mlcommons/training_results_v4.0@6fe954378efe, smc-dc-power \
and smc-ac-power: mean watts of one node of 8 H100 from run_start to run_stop.
"""
KEPT = {  # kind -> patterns of columns
    "power_cap_training": {
        "source_name": "Zeus NSDI23",
        "workload": "resnet50 on imagenet|bert_base_uncased on squad|^ncf ",
    },
    "inference_serving": {
        "source_name": "ML.ENERGY",
        "workload": "lm-arena-chat",
        "model": "Qwen3-(8|14|32)B|gemma-3|Llama-3.[13]-(8|70)B",
    },
    "node_power_training": {"source_name": "1xSMC-H100", "model": "bert|resnet|llama2_70b_lora"},
    "cpu_load": {"source_name": "codecarbon"},
    "accelerator_power_with_host": {"source_name": "Patterson"},
    "run_energy": {"source_name": "OLMo 1|BLOOM"},
    "gpu_power_training": {"source_name": "ROCm"},
    "pue": {"source_name": "."},
}
DEVICES = {"V100": "v100-pcie-32gb", "P100": "p100-pcie-16gb", "H100": "h100-sxm5"}
MODELS = {
    "Qwen3-8B": "qwen3-8b", "Qwen3-14B": "qwen3-14b", "Qwen3-32B": "qwen3-32b",
    "gemma-3-12b": "gemma-3-12b", "gemma-3-27b": "gemma-3-27b", "Llama-3.1-8B": "llama-3.1-8b",
    "Llama-3.1-70B": "llama-3.1-70b", "Llama-3.3-70B": "llama-3.1-70b", "resnet": "resnet50",
    "bert_base": "bert-base", "bert": "bert-large", "llama2_70b_lora": "llama-2-70b",
}  # fmt: skip


class Watts(NamedTuple):
    """A measured power. SI units; nan where the row does not say."""

    id: str
    kind: str
    source: str
    device: str
    devices: int
    model: str
    batch: float  # requests at a time in decoding, samples per step in training
    limit: float
    seconds: float
    watts: float
    tokens_per_s: float
    output_tokens: float  # mean tokens of a reply
    workload: str = ""


def is_kept(row: Row, but: str = "") -> bool:
    """Whether KEPT chooses a row; but: a column whose pattern is not asked of it."""
    wanted = KEPT.get(text(row, "kind"))
    return wanted is not None and all(
        re.search(pattern, text(row, column)) for column, pattern in wanted.items() if column != but
    )


def measured(path: Path = TABLE) -> list[Watts]:
    """The rows that KEPT chooses of a table which have watts, with the names of hwdb and of the
    models.
    """
    return [
        of_row(row)
        for row in rows(path, "a table of measured watts")
        if is_kept(row) and positive(text(row, "avg_power_w")) is not None
    ]


def of_row(row: Row) -> Watts:
    """A row that has watts."""
    batch = _number(row, "avg_batch")
    return Watts(
        text(row, "id"), text(row, "kind"), text(row, "source_name"),
        _known(text(row, "device"), DEVICES), int(positive(text(row, "n_devices")) or 1),
        _known(text(row, "model"), MODELS), batch if batch == batch else _number(row, "batch"),
        _number(row, "power_limit_w"), _number(row, "time_s"), _number(row, "avg_power_w"),
        _number(row, "tokens_per_s"), positive(text(row, "output_tokens")) or _output(row),
        text(row, "workload"),
    )  # fmt: skip


def _output(row: Row) -> float:
    """Mean tokens of a reply, of a note; nan where it does not say."""
    found = re.search(r"avg output ([\d.]+)", text(row, "note"))
    return float(found[1]) if found else float("nan")


def _number(row: Row, column: str) -> float:
    return positive(text(row, column)) or float("nan")


def _known(words: str, names: dict[str, str]) -> str:
    return next((name for key, name in names.items() if key in words), words.lower())


def transcribe(path: Path, target: Path = TABLE) -> int:
    """Write the rows of `path` that KEPT chooses to `target`; how many there are."""
    chosen = []
    for row in rows(path, "a table of measured watts"):
        if is_kept(row):
            output = _output(row)
            chosen.append({**row, "output_tokens": f"{output:.1f}" if output == output else ""})
    with target.open("w", encoding="utf-8", newline="") as file:
        file.write(HEAD)
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(chosen)
    return len(chosen)


if __name__ == "__main__":
    print(transcribe(Path(sys.argv[1])), "rows")
