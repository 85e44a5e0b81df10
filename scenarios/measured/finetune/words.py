"""What tables of fine-tuning call models, methods and number formats -> names of this project, and
what the scripts of a source set where a row does not say. names.toml holds the names.
"""

from __future__ import annotations

import functools
import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.measured import architectures
from roofcast.scenarios.measured.cells import Row, first_match, text
from roofcast.scenarios.measured.device_words import device_named
from roofcast.scenarios.measured.net_words import model_of as net_named
from roofcast.simulator import models

HERE = Path(__file__).parent
NETS = HERE.parent.parent  # models in names.toml that are files: "nets/NAME.json"
READ = ("source_name", "source", "where", "model", "method", "device", "config")
# endings of names on model hubs that leave the shapes as they are
VARIANT = re.compile(
    r"[-_](?:hf|instruct|chat|it|base|sft|bnb|nf4|4bit|int4|awq|gptq|v\d(?:\.\d)?|\d{4}|unsloth)$"
)
FOUR_BITS = r"qlora|nf4|fp4|4[- ]?bits?\b|int4|bnb"
EIGHT_BITS = r"int8|8[- ]?bits?\b"
FULL, LORA, QLORA = "full", "LoRA", "QLoRA"
NORMS = r"norm"  # ops that train under PEFT's LN tuning
# methods that train a few vectors: IA3, LLaMA-Adapter, learned prompts. Gradients of activations go
# through all layers, as for norms, and next to nothing trains.
VECTORS = (
    r"lntuning|modelingln|ln_tuning|ia3|adapter_v?\d|llamaadapter|finetune_adapter"
    r"|p(?:rompt|refix)?[-_]?tuning"
)
MEASURED = {  # words of mem_kind -> what a peak counts
    "reserved": "reserved",
    "alloc": "allocated",
    "active": "allocated",
    "nvidia-smi": "device",
    "nvml": "device",
    "device": "device",
}


class Names(NamedTuple):
    """The sections of names.toml."""

    models: dict[str, str]
    rank_of: dict[str, str]  # trainable parameters per rank of LoRA -> model
    stacks: dict[str, str]
    settings: list[dict[str, Any]]
    refused: list[dict[str, Any]]


class Method(NamedTuple):
    """How a row fine-tunes."""

    kind: str  # FULL | LORA | QLORA
    weights: str | None  # format of frozen weights, where the method names one
    train: str | None = None  # regular expression of what trains instead


@functools.cache
def names() -> Names:
    """The names that tables of fine-tuning use."""
    return Names(**tomllib.loads((HERE / "names.toml").read_text(encoding="utf-8")))


def stated(row: Row, column: str) -> str:
    """The cell; "" where it says that the source does not tell."""
    cell = text(row, column)
    return "" if "not stated" in cell and "as printed" not in cell else cell


def said(row: Row) -> str:
    """What a row says of its source, model and method, in lower case."""
    return " ".join(text(row, column) for column in READ).lower()


def settings(row: Row) -> dict[str, Any]:
    """Values that the source of a row sets where the row does not say; `say`: where from."""
    words = f"{said(row)} {text(row, 'note').lower()}"
    found: dict[str, Any] = {}
    for entry in names().settings:
        if all(word in words for word in entry["where"]):
            found.update(entry)
    found.pop("where", None)
    return found


def refused(row: Row) -> str:
    """Why no scenario describes a row; "" where one may."""
    words = said(row)
    for entry in names().refused:
        if all(word in words for word in entry["words"]):
            return str(entry["why"])
    return ""


def method_of(row: Row, of_source: str = "") -> Method:
    """How a row fine-tunes: by its method, else by what the model's cell adds; of_source: what the
    scripts of its source do.

    >>> method_of({"method": "QLoRA 4-bit, Unsloth Open"}).weights
    'nf4'
    >>> method_of({"method": "FULL"}).kind, method_of({"method": "", "model": "run_lora_clm"}).kind
    ('full', 'LoRA')
    """
    bits = f"{text(row, 'bits')}bit" if text(row, "bits") else ""
    words = f"{text(row, 'method')} {text(row, 'model')} {bits} {of_source}".lower()
    noted = re.search(r"quantization=([^;]*)|quant=([^;]*)", text(row, "note").lower())
    format_ = f"{words} {noted[0] if noted else ''}".replace("quant=none", "")
    adapted = re.search(r"lora|dora|vera", words) is not None
    if re.search(VECTORS, words):
        return Method(LORA, _weights(format_) or "bf16", NORMS)
    if not adapted:
        return Method(FULL, None)
    weights = _weights(format_)
    return Method(QLORA if weights else LORA, weights)


def _weights(words_: str) -> str | None:
    """The format of frozen weights that words name; None for 16 bits."""
    if "gptq" in words_ and "int4" in words_:
        return "int4"
    if re.search(FOUR_BITS, words_):
        return "nf4"
    return "int8" if re.search(EIGHT_BITS, words_) else None


def model_of(row: Row, folder: Path) -> str | None:
    """Our name of a row's model, or the path of a config beside the table; None where unknown."""
    cell = text(row, "model")
    if cell.endswith((".json", ".toml")) and (folder / cell).is_file():
        return str(folder / cell)
    named = first_match(cell.lower(), names().models)
    if named is None:
        plain = net_named(cell)
        known = models.names()
        while plain not in known:
            lower = re.sub(r"[ _]+", "-", plain.lower().rpartition("/")[2])
            shorter = VARIANT.sub("", lower)
            tried = [name for name in (lower, shorter) if name in known or _known(name)]
            if tried or shorter == lower:
                plain = tried[0] if tried else ""
                break
            plain = shorter
        named = plain or first_match(text(row, "method").lower(), names().models)
    if named is None and (trained := trainable(row)):
        of = (name for each, name in names().rank_of.items() if trained >= int(each))
        named = next(of, None) if "lora" in text(row, "method").lower() else None
    if named is None:
        return None
    return str(NETS / named) if named.startswith("nets/") else named


def _known(name: str) -> bool:
    """Whether a name or an alias of it is shipped."""
    try:
        models.resolve(name)
    except RoofcastError:
        return False
    return True


def trainable(row: Row) -> int | None:
    """Trainable parameters that a row states."""
    found = re.search(
        r"trainable(?: params?(?:eters)?)?\s*=\s*([\d,]+)", text(row, "config").lower()
    )
    return int(found[1].replace(",", "")) if found else None


def rank_of(row: Row, asked: dict[str, Any]) -> int:
    """The rank of the adapters: of the note or the configuration, else of the source."""
    if text(row, "rank").isdigit():
        return int(text(row, "rank"))
    trained = trainable(row)
    if trained:
        for each in names().rank_of:
            if trained >= int(each):
                return max(1, round(trained / int(each)))
    noted = f"{text(row, 'config')} {text(row, 'note')}".lower()
    found = re.search(r"\brank\s*=\s*(\d+)\b(?!\.)|\br\s*=?\s*(\d+)\b", noted)
    return int(found[1] or found[2]) if found else int(asked["lora"])


def device_of(row: Row) -> str | None:
    """The device of a row; None where the cell is empty, or names one that hwdb does not know."""
    cell = text(row, "device")
    if not cell:
        return None
    plain = re.sub(r"^\s*\d+\s*x?\s+", "", cell)
    plain = re.sub(r"(?i)\b(\d+)g\b", r"\1gb", re.sub(r"(?i)\s+ddp\b", "", plain))
    try:
        hwdb.device(plain)
    except RoofcastError:
        try:
            return device_named(plain, architectures.names().devices)
        except RoofcastError:
            return None
    return plain


def devices_of(row: Row) -> int:
    """The number of devices of a row; 1 where it does not say."""
    found = re.match(r"\s*(\d+)(?:\.0*)?\s*$", text(row, "n_devices") or "1")
    return int(found[1]) if found else 1


def stack_of(row: Row, asked: dict[str, Any]) -> str:
    """Our stack for what a row calls its software, or the one that its source's scripts need."""
    if cell := text(row, "stack") or asked.get("stack"):
        return str(cell)
    if offload_of(row) == ("parameters",) and "deepspeed" in said(row):
        return "deepspeed-zero3"
    return first_match(f"{said(row)} {text(row, 'note').lower()}", names().stacks) or (
        "peft-transformers"
    )


def offload_of(row: Row) -> tuple[str, ...]:
    """What a row keeps in host memory; CPU offloading of DeepSpeed is that of the parameters, with
    the optimizer: accelerate's ds_zero3_cpu.yaml.
    """
    if cell := text(row, "offload"):
        return tuple(cell.split())
    return ("parameters",) if re.search(r"deepspeed.*cpu offload", said(row)) else ()


def zero_of(row: Row, asked: dict[str, Any]) -> int:
    """The ZeRO stage of a row; FSDP is 3."""
    words = said(row)
    found = re.search(r"zero[-_ ]?([0123])\b", words)
    if found:
        return int(found[1])
    return 3 if "fsdp" in words and "zero" not in asked else int(asked.get("zero", 0))


def measured_as(row: Row, asked: dict[str, Any]) -> str:
    """What a measured peak counts: allocated | reserved | device (with its context)."""
    return first_match(text(row, "mem_kind"), MEASURED) or str(asked.get("measured", "reserved"))


def checkpointed(row: Row, asked: dict[str, Any]) -> bool:
    """Whether activations are recomputed in backward."""
    cell = (text(row, "checkpointing") or str(asked.get("checkpointing", "no"))).lower()
    found = re.search(r"checkpointing\s*=\s*(\S+)", cell)
    return (found[1] if found else cell.split()[0]) in ("yes", "true", "1", "✔", "full", "on")


def fused_attention(row: Row) -> bool | None:
    """Whether the note says that attention is fused; None where it says nothing."""
    found = re.search(r"flash attn\s*=\s*(\S)", text(row, "note").lower())
    return None if not found else found[1] == "✔"
