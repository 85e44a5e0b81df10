"""Tables of measured fine-tuning: each row as a scenario, its peak of memory and its rates.

Columns; others are ignored:

    model, method           required; method: full, LoRA, QLoRA ...
    device, n_devices       empty or not known: memory alone is forecast
    system                  of several devices, where it is not the usual one of the device
    seq                     tokens of a sample; of samples that differ in length, the longest
    micro_batch, grad_accum, precision, checkpointing (yes, no), optimizer
    peak_mem_gib, or peak_mem and mem_unit; of several devices "a+b", the largest counts
    mem_kind                reserved | allocated | nvidia-smi
    oom                     the run ran out of memory
    samples_per_s, tokens_per_s    of all devices
    stack, rank, targets, dropout, offload, lengths, tp, cp    as options of roofcast predict have
                            them
    id, source_name, source, where, note, config

What a row does not say is that of its source's scripts, or a framework's default; each is listed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput, RoofcastError, quoted
from roofcast.scenarios.measured.cells import Row, positive, rows, text
from roofcast.scenarios.measured.finetune import words
from roofcast.simulator.forecast import lengths
from roofcast.simulator.forecast.recipes import default_precision
from roofcast.simulator.forecast.scenario import Scenario

WHAT = "measured fine-tuning"
REQUIRED = ("model", "method")
ANY_DEVICE = "a100-sxm4-80gb"  # memory of a row without a device
UNIT = {"gib": 1.0, "gb": 1e9 / 2**30, "mib": 2.0**-10, "mb": 2.0**-10}  # MB: torch's, of 2^20
PURE = ("litgpt", "torchtune", "torchtune-compiled")  # weights, adapters and states in 16 bits
HERE = Path(__file__).parent


class Tuned(NamedTuple):
    """One measured run of fine-tuning."""

    id: str
    source: str
    kind: str  # full | LoRA | QLoRA
    measured: str  # what the peak counts: allocated | reserved | device
    varies: bool  # samples differ in length: the peak is the largest of the run
    scenario: Scenario | None  # None where the row cannot be forecast
    timed: bool  # the device is known, so that rates can be forecast
    sequences: int  # of the scenario that make one sample of the row: 2 of pairs of answers
    peak_gib: float | None
    samples_per_s: float | None
    tokens_per_s: float | None
    assumed: tuple[str, ...]  # what the row does not say
    refused: str
    row: Row


class _Refused(Exception):
    """Why a row cannot be forecast."""


def shipped() -> tuple[Path, ...]:
    """The shipped tables."""
    return tuple(sorted(HERE.glob("*.csv")))


def read(path: str | Path) -> list[Tuned]:
    """Every row of a CSV or .csv.gz; rows that cannot be forecast say why. Raises BadInput where
    the file cannot be read or lacks a required column.
    """
    path = Path(path)
    try:
        reader = rows(path, WHAT)
        missing = [c for c in REQUIRED if c not in (reader.fieldnames or ())]
        if missing:
            raise BadInput(
                f"{path}: no column {missing[0]!r}; wanted: {', '.join(REQUIRED)}, device, seq,"
                " micro_batch, peak_mem_gib, samples_per_s ... (docs/finetuning.md lists them)"
            )
        found = [tuned(row, path.parent) for row in reader]
    except csv.Error as error:
        raise BadInput(f"{path}: not a CSV of {WHAT} ({error})") from None
    if not found:
        raise BadInput(f"{path}: no row in it")
    return found


def tuned(row: Row, folder: Path = HERE) -> Tuned:
    """One row; where no scenario can be made of it, with the reason."""
    asked = words.settings(row)
    method = words.method_of(row, str(asked.get("method", "")))
    scenario: Scenario | None = None
    assumed: list[str] = []
    why = words.refused(row)
    if not why:
        try:
            scenario, assumed = _scenario(row, method, asked, folder)
        except (_Refused, RoofcastError) as error:
            why = " ".join(str(error).split())
    return Tuned(
        text(row, "id"),
        text(row, "source_name"),
        method.kind,
        words.measured_as(row, asked),
        scenario is not None and scenario.lengths is not None,
        scenario,
        words.device_of(row) is not None,
        int(asked.get("sequences", 1)),
        _peak(row),
        _rate(text(row, "samples_per_s")),
        _rate(text(row, "tokens_per_s")),
        tuple(assumed),
        why,
        row,
    )


def _scenario(
    row: Row, method: words.Method, asked: dict[str, Any], folder: Path
) -> tuple[Scenario, list[str]]:
    """The scenario of a row, and what the row does not say. Raises _Refused or RoofcastError."""
    model = words.model_of(row, folder)
    if model is None:
        cell = text(row, "model")
        raise _Refused(f"model {quoted(cell)} is not among the models" if cell else "no model")
    device = words.device_of(row) or ANY_DEVICE
    stack, devices = words.stack_of(row, asked), words.devices_of(row)
    micro = _count(row, "micro_batch", asked, 8)
    accumulated = _count(row, "grad_accum", asked, 1)
    layout = _layout(row, asked, devices, stack)
    ranks = devices // (layout.get("pp", 1) * layout.get("tp", 1) * layout.get("cp", 1))
    given: dict[str, Any] = {
        "model": model,
        "device": device,
        "stack": stack,
        "batch": micro * accumulated * ranks,
        "micro_batch": micro if ranks * accumulated > 1 or devices > 1 else None,
        "recompute": "full" if words.checkpointed(row, asked) else "none",
        "optimizer": _optimizer(row, asked),
        **_length(row, asked),
        **_formats(row, method, device, stack, asked),
        **layout,
    }
    if text(row, "system"):
        given["system"] = text(row, "system")
    if offload := words.offload_of(row):
        given["offload"] = offload
    fused = words.fused_attention(row)
    if attention := "eager" if fused is False else asked.get("attention"):
        given["attention"] = attention
    given |= {name: asked[name] for name in ("encoders", "train_text_encoder") if name in asked}
    if method.kind != words.FULL:
        given |= _adapters(row, method, asked)
    return Scenario(**given), _assumed(row, asked)


def _layout(row: Row, asked: dict[str, Any], devices: int, stack: str) -> dict[str, Any]:
    """Degrees of several devices: data parallel, or layers dealt to devices that compute one after
    the other (ms-swift's device_map).
    """
    if devices == 1:
        return {}
    if stack == "ms-swift":
        return {"devices": devices, "pp": devices, "schedule": "sequential"}
    zero = words.zero_of(row, asked)
    degrees = {name: _count(row, name, asked, 1) for name in ("tp", "cp")}
    degrees |= {"zero": zero}
    return {"devices": devices} | {name: n for name, n in degrees.items() if n > (name != "zero")}


def _length(row: Row, asked: dict[str, Any]) -> dict[str, Any]:
    """Tokens of a sample, or lengths that differ; nothing for images and sound."""
    if text(row, "lengths"):
        return {"lengths": text(row, "lengths")}
    found = re.match(r"\d+", text(row, "seq").replace(",", ""))
    longest = int(found[0]) if found else int(asked.get("seq", 0))
    if not longest:
        return {}
    if "spread" in asked:  # longer samples are left out
        kept = lengths.read(asked["spread"]).up_to(longest)
        return {"lengths": f"{kept.mean:.0f},{longest}"}
    mean = asked.get("mean", longest)
    if mean < longest:
        return {"lengths": f"{mean:.0f},{longest}"}
    return {"sequence": longest}


def _formats(
    row: Row, method: words.Method, device: str, stack: str, asked: dict[str, Any]
) -> dict[str, Any]:
    """Number formats. Adapters of the Trainer are in 32 bits under autocast, beside frozen weights
    in 16; LitGPT's and torchtune's are in 16.
    """
    cell = (words.stated(row, "precision") or str(asked.get("precision", ""))).lower()
    # an autocast precision has 32-bit trainable weights
    sixteen = "fp16" if re.search("fp16|float16|16-true", cell) and "bf16" not in cell else ""
    sixteen = sixteen or default_precision(hwdb.device(device)).removeprefix("amp-")
    if cell == "fp8":
        return {"precision": "fp8"}
    if re.search("fp32|float32", cell) and "/" not in cell and "16" not in cell:
        return {"precision": "fp32"} | ({"weights": method.weights} if method.weights else {})
    if method.kind == words.FULL or stack in PURE:
        mixed = re.search("amp|mixed", cell) is not None
        formats = {"precision": f"amp-{sixteen}" if mixed else sixteen}
        return formats | ({"weights": method.weights} if method.kind == words.QLORA else {})
    if method.weights in (None, "bf16"):
        held = {"weights": "bf16"} if sixteen == "bf16" else {}
        return {"precision": f"amp-{sixteen}" if held else sixteen} | held
    return {"precision": f"amp-{sixteen}", "weights": method.weights}


def _adapters(row: Row, method: words.Method, asked: dict[str, Any]) -> dict[str, Any]:
    """What trains."""
    if method.train:
        return {"train": method.train}
    noted = text(row, "note").lower()
    targets = (
        "all" if "all linear" in noted else text(row, "targets") or asked.get("targets") or None
    )
    return {
        "lora": words.rank_of(row, asked),
        "lora_targets": targets,
        "lora_dropout": positive(text(row, "dropout")) or asked.get("dropout"),
    }


def _optimizer(row: Row, asked: dict[str, Any]) -> str:
    """The optimizer: AdamW where neither the row nor its source says."""
    cell = (text(row, "optimizer") or str(asked.get("optimizer", ""))).lower()
    paged = "paged-" if "paged" in cell else ""
    if "8" in cell and "adam" in cell:
        return f"{paged}adam8bit" if not paged else "paged-adamw8bit"
    return next((name for name in ("adafactor", "lion", "sgd") if name in cell), "adamw")


def _count(row: Row, column: str, asked: dict[str, Any], default: int) -> int:
    """A whole number of a cell, else of the source's scripts."""
    cell = text(row, column)
    found = re.match(r"(\d+)(?:\.0*)?\s*$", cell)
    if cell and not found:
        raise _Refused(f"{column} {quoted(cell)}: a whole number is wanted")
    return max(1, int(found[1]) if found else int(asked.get(column, default)))


def _assumed(row: Row, asked: dict[str, Any]) -> list[str]:
    """Cells that are empty, and where their values are from."""
    empty = [
        column
        for column in ("device", "seq", "micro_batch", "precision", "checkpointing", "optimizer")
        if not words.stated(row, column)
    ]
    said = []
    if text(row, "device") and words.device_of(row) is None:
        said.append(f"device {text(row, 'device')} is not known: memory alone is forecast")
    if not empty:
        return said
    return [*said, f"not stated: {', '.join(empty)}; taken from {asked.get('say', 'the defaults')}"]


def _peak(row: Row) -> float | None:
    """The measured peak of the most loaded device [GiB]."""
    cells = (text(row, "peak_mem"), text(row, "peak_mem_gib"))
    parts = [n for part in cells[0].split("+") if (n := _number(part))]
    unit = UNIT.get(text(row, "mem_unit").lower().strip(), 0.0)
    if len(parts) > 1 and unit:
        return max(parts) * unit
    stated = positive(cells[1])
    if stated is not None:
        return stated
    if parts and unit:
        return parts[0] * unit
    noted = re.search(r"memory[^=;]*=\s*([\d.]+)", text(row, "config").lower())
    return _number(noted[1]) if noted else None


def _number(words_: str) -> float | None:
    """The first positive number in a text."""
    found = re.search(r"\d+(?:\.\d+)?", words_)
    return positive(found[0]) if found else None


def _rate(cell: str) -> float | None:
    return _number(cell.partition("(")[0])


def sources(found: list[Tuned]) -> Iterator[str]:
    """The names of the sources, each once."""
    yield from dict.fromkeys(t.source for t in found)
