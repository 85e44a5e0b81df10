"""Writes the shipped tables of measured fine-tuning, scenarios/measured/finetune/*.csv.

    python benchmarks/finetune_tables.py FINETUNE.csv.gz MEMORY.csv

FINETUNE: rows in the columns of `roofcast validate --finetune`, of several sources; MEMORY: rows of
measured peaks, of which those of LitGPT and torchtune are taken. Both hold facts read in the public
documents that each row names. Rows that no scenario describes, and rows without a measured number,
are left out.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

from roofcast.scenarios.measured.cells import Row, rows, text
from roofcast.scenarios.measured.finetune.rows import HERE, tuned

COLUMNS = (
    "id", "source_name", "source", "where", "model", "method", "device", "n_devices", "seq",
    "lengths", "micro_batch", "grad_accum", "precision", "checkpointing", "optimizer", "stack",
    "rank", "targets", "offload", "mem_kind", "peak_mem_gib", "samples_per_s", "tokens_per_s",
    "note",
)  # fmt: skip
FILES = {  # words of source_name -> file, and what the head says of it
    "ms-swift": ("ms-swift", "lengths of samples differ; a peak is the largest of a run"),
    "PEFT README": ("peft", "32-bit weights"),
    "unsloth": ("unsloth", "LLaMA-Factory's comparison, as unsloth's README quotes it"),
    "axolotl": ("axolotl", "as nvidia-smi shows it"),
    "optimum-habana": ("optimum-habana", "baselines of tests; those of Gaudi 3 are loose"),
    "litgpt": ("litgpt", "allocated, of the longest sample of Alpaca: 1,034 to 1,304 tokens"),
    "torchtune": ("torchtune", "allocated (active); settings add up from row to row"),
    "fms": ("fms-acceleration", "allocated"),
}
LENGTH = {"phi-1.5": 1044, "StableLM Alpha": 1034, "Llama 2": 1304, "Falcon": 1079}  # Alpaca's
GB = 1e9 / 2**30
LADDER: dict[str, dict[str, str]] = {  # torchtune's README: words of its steps -> settings
    "Baseline": {"stack": "torchtune-eager", "lengths": "200,1024", "seq": ""},
    "Packed": {"stack": "torchtune-eager"},
    "Compile": {"stack": "torchtune-compiled"},
    "Chunked": {"stack": "torchtune"},
    "Checkpointing": {"stack": "torchtune", "checkpointing": "yes"},
    "Fuse optimizer": {"stack": "torchtune-in-backward", "checkpointing": "yes"},
    "Offloading": {
        "stack": "torchtune-in-backward", "checkpointing": "yes", "offload": "activations",
    },
    "8-bit": {
        "stack": "torchtune-in-backward", "checkpointing": "yes", "offload": "activations",
        "optimizer": "adam8bit",
    },
    "LoRA": {"stack": "torchtune", "checkpointing": "yes", "offload": "activations"},
}  # fmt: skip
ALL_BUT_KEYS = "q_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
# github foundation-model-stack/fms-acceleration, scripts/benchmarks/refs/a100_80gb.csv; pytorch/
# torchtune, pull request 961: of one A100-80GB; n_devices, method, batch, GB allocated, tokens/s of
# a device
OTHERS = (
    ("FMS0001", "fms-acceleration benchmarks", "mistral-7b", "LoRA", 1, 4, 4096, 26.11, 3598),
    ("FMS0002", "fms-acceleration benchmarks", "mistral-7b", "LoRA", 1, 8, 4096, 37.10, 3632),
    ("FMS0003", "fms-acceleration benchmarks", "mistral-7b", "full", 1, 4, 4096, 72.97, 2775),
    ("FMS0004", "fms-acceleration benchmarks", "mistral-7b", "full", 1, 8, 4096, 72.97, 3049),
    ("TUN0961", "torchtune pull request 961", "llama-2-7b", "full", 1, 4, 2048, 20.2, 0),
)


def main() -> None:
    """Write the tables."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    found: dict[str, list[Row]] = {}
    read = [*_finetune(Path(sys.argv[1])), *_memory(Path(sys.argv[2])), *_others()]
    for row in read:
        t = tuned(row)
        if t.refused or not (t.peak_gib or t.samples_per_s or t.tokens_per_s):
            continue
        for word in FILES:
            if word.lower() in row["source_name"].lower():
                found.setdefault(word, []).append(row)
                break
    for word, each in found.items():
        _write(word, each)


def _finetune(path: Path) -> list[Row]:
    """Rows of the first file, with the measured peak in GiB."""
    made = []
    for row in rows(path, "measured fine-tuning"):
        peak = tuned(row).peak_gib
        kind = text(row, "mem_kind").lower()
        name = text(row, "source_name").replace(" via unsloth README", " (unsloth)")
        made.append(
            row
            | {
                "peak_mem_gib": f"{peak:.4g}" if peak else "",
                "mem_kind": "reserved" if "reserved" in kind else "",
                "note": _note(row),
                "seq": text(row, "seq").partition(" ")[0],
                "source_name": name,
            }
        )
    return made


def _note(row: Row) -> str:
    """What of a note is a setting."""
    kept = "Quantization|LoRA Rank|LoRA Target Modules|Use Flash Attn|Gradient Checkpointing"
    settings = re.findall(f"(?:{kept})=[^;]*", text(row, "note"))
    return "; ".join(settings)


def _memory(path: Path) -> list[Row]:
    """Training rows of LitGPT and torchtune in the second file."""
    made = []
    for row in rows(path, "measured peaks of memory"):
        config = text(row, "config")
        source, name = text(row, "source"), text(row, "model")
        if text(row, "mode") != "train" or text(row, "oom") == "True":
            continue
        if source.startswith("litgpt") and "LoRA on 1 GPU" in config:
            made.append(_litgpt(row, config, name))
        elif source.startswith("torchtune README optimization"):
            made.append(_torchtune(row, config, name))
    return made


def _litgpt(row: Row, config: str, name: str) -> Row:
    quantized = "nf4" in config
    return {
        "id": row["id"],
        "source_name": "litgpt resource tables (2023)",
        "source": row["url"],
        "model": name,
        "method": "QLoRA nf4" if quantized else "LoRA",
        "device": "a100-sxm4-40gb",
        "n_devices": "1",
        "seq": str(next(n for word, n in LENGTH.items() if name.startswith(word))),
        "micro_batch": re.search(r"microbatch=(\d+)", config)[1],  # type: ignore[index]
        "precision": "bf16",
        "checkpointing": "no",
        "optimizer": "adamw",
        "rank": "8",
        "mem_kind": "allocated",
        "peak_mem_gib": f"{float(row['mem_gb']) * GB:.4g}",
        "note": "double quantization" if "nf4-dq" in config else "",
    }


def _torchtune(row: Row, config: str, name: str) -> Row:
    settings = next(found for word, found in LADDER.items() if word in config)
    step = config.partition(";")[0].removeprefix("cumulative: ")
    method = step if "LoRA" in step else "full"
    adapters = {"rank": "8", "targets": ALL_BUT_KEYS} if method != "full" else {}
    return {
        "id": row["id"],
        "source_name": "torchtune README, optimization flags",
        "source": row["url"],
        "where": step,
        "model": name,
        "method": method,
        "device": "a100-sxm4-80gb",
        "n_devices": "1",
        "seq": "4096",
        "micro_batch": "2",
        "precision": "bf16",
        "checkpointing": "no",
        "optimizer": "adamw",
        "mem_kind": "allocated",
        "peak_mem_gib": row["mem_gib"],
        "tokens_per_s": row["tokens_per_s"],
        **settings,
        **adapters,
    }


def _others() -> list[Row]:
    """Single rows, with their sources."""
    made = []
    for id_, source, model, method, devices, batch, seq, gb, tokens in OTHERS:
        fms = id_.startswith("FMS")
        made.append(
            {
                "id": id_,
                "source_name": source,
                "source": "github:foundation-model-stack/fms-acceleration" if fms else "",
                "where": "scripts/benchmarks/refs/a100_80gb.csv" if fms else "",
                "model": model,
                "method": method,
                "device": "a100-sxm4-80gb",
                "n_devices": str(devices),
                "seq": str(seq),
                "micro_batch": str(batch),
                "precision": "bf16",
                "checkpointing": "yes",
                "optimizer": "adamw" if fms else "paged adamw 8bit",
                "stack": "pytorch-eager" if fms else "torchtune-2024-in-backward",
                "rank": "16" if method == "LoRA" else "",
                "targets": "attention" if method == "LoRA" else "",
                "mem_kind": "allocated",
                "peak_mem_gib": f"{gb * GB:.4g}",
                "tokens_per_s": str(tokens or ""),
            }
        )
    return made


def _write(word: str, each: list[Row]) -> None:
    name, said = FILES[word]
    with (HERE / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        file.write(f"# Measured fine-tuning: {said}.\n")
        file.write("# Facts read in the documents that the columns source and where name;\n")
        file.write("# written by benchmarks/finetune_tables.py.\n")
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(each)


if __name__ == "__main__":
    main()
