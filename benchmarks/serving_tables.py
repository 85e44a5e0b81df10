"""Writes the shipped tables of measured servers, scenarios/measured/serving/published/*.csv.

    python benchmarks/serving_tables.py SERVING.csv.gz

SERVING: rows in the columns of `roofcast validate --serving`, of several sources: facts read in the
public documents that each row names. Rows without a measured value are left out, and so are columns
that no forecast needs. What a rule reads in the notes of a row is kept, the rest is not.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections import defaultdict
from pathlib import Path

from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.scenarios.measured.cells import Row, rows, text
from roofcast.scenarios.measured.serving.forecasts import QUANTITIES
from roofcast.scenarios.measured.serving.rows import PUBLISHED

COLUMNS = (
    "id", "where", "model", "w_prec", "kv_prec", "engine", "engine_version", "device",
    "roofcast_device", "n_devices", "tp", "pp", "ep", "dp", "phase", "mode", "load_kind", "load",
    "input_len", "output_len", "context_len", *QUANTITIES, "e2e_s", "speculative", "flags",
    "repeat_of", "notes",
)  # fmt: skip
FILES = {  # how source_name begins -> file
    "AWS Neuron": "aws-neuron",
    "Ampere": "ampere-llama.cpp",
    "Argonne": "argonne",
    "ExLlamaV2": "exllamav2",
    "FasterTransformer": "faster-transformer",
    "GPUStack": "gpustack",
    "InferenceX": "inferencex",
    "Intel Gaudi 3": "gaudi3",
    "LMDeploy": "lmdeploy",
    "ML.ENERGY": "ml-energy",
    "MLPerf": "mlperf-v4.1",
    "NVIDIA gap": "gap-analysis",
    "Splitwise": "splitwise",
    "TensorRT-LLM perf-overview": "trt-llm-overview",
    "TensorRT-LLM performance": "trt-llm-v0.6.1",
    "XiongjieDai": "xiongjiedai",
    "kyuz0": "strix-halo",
    "optimum-habana": "optimum-habana",
    "premAI": "premai",
    "vLLM CI": "vllm-ci",
}
RULES = re.compile(r"\btask [\w-]+|\b(?:n_)?ubatch \d+|attention-DP|amdvlk\S*|epnone", re.I)
DIGITS = 5  # of measured values


def main(arguments: list[str]) -> None:
    """Write the tables."""
    if len(arguments) != 1:
        raise BadInput("give one table: python benchmarks/serving_tables.py SERVING.csv.gz")
    of: dict[str, list[Row]] = defaultdict(list)
    for row in rows(Path(arguments[0]), "measured servers"):
        if any(text(row, name) for name in QUANTITIES):
            of[text(row, "source_name")].append(row)
    PUBLISHED.mkdir(exist_ok=True)
    heads = ["# What holds for all rows of a table; written by benchmarks/serving_tables.py."]
    for source, table in sorted(of.items()):
        name = next((file for key, file in FILES.items() if source.startswith(key)), None)
        if name is None:
            raise BadInput(f"{source}: no file in FILES")
        same = write(PUBLISHED / f"{name}.csv", source, table)
        heads += [
            "",
            f'["{name}"]',
            *(f"{key} = {json.dumps(value)}" for key, value in same.items()),
        ]
        print(f"{name}.csv: {len(table):,} rows")
    (PUBLISHED / "sources.toml").write_text("\n".join(heads) + "\n", encoding="utf-8")


def write(path: Path, source: str, table: list[Row]) -> dict[str, str]:
    """One table; what all of its rows share is returned and stands in no row."""
    places = [text(row, "source_ref") for row in table]
    start = os.path.commonprefix(places)
    start = start[: max(map(start.rfind, "/#:@")) + 1] if len(set(places)) > 1 else start
    found = [ours(row, len(start)) for row in table]
    same = {name: found[0][name] for name in COLUMNS if len({row[name] for row in found}) == 1}
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"# Measured servers: {source}. Facts read in {start}\n")
        file.write(
            "# Written by benchmarks/serving_tables.py; sources.toml has what all rows share.\n"
        )
        columns = [name for name in COLUMNS if name not in same]
        writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(found)
    stated = {name: value for name, value in same.items() if value}
    return {"source_name": source, "source_ref": start} | stated


def ours(row: Row, start: int) -> dict[str, str]:
    """A row in the columns that are shipped."""
    found = {name: text(row, name) for name in COLUMNS}
    found["where"] = text(row, "source_ref")[start:]
    words = f"{text(row, 'notes')}; {'epnone' if '_epnone' in text(row, 'source_ref') else ''}"
    found["notes"] = "; ".join(dict.fromkeys(m[0] for m in RULES.finditer(words)))
    for name in (*QUANTITIES, "e2e_s"):
        if found[name]:
            found[name] = f"{float(found[name]):.{DIGITS}g}"
    return found


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RoofcastError as error:
        sys.exit(f"roofcast: {error}")
