"""What tables of measured nets call models, devices, frameworks and layouts -> names of this
project.

runs/names.toml holds the names, and the settings of a source's scripts.
"""

from __future__ import annotations

import functools
import re
import tomllib
from pathlib import Path
from typing import Any

from roofcast.hwdb.tuples import NamedTuple
from roofcast.scenarios.measured.cells import Row, first_match
from roofcast.scenarios.measured.versions import dated, torch_version
from roofcast.simulator import models

RUNS = Path(__file__).parent / "runs"
NETS = Path(__file__).parent.parent  # models in names.toml that are files: "nets/NAME.toml"
KNOWN_PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "amp-bf16", "amp-fp16", "fp8")
PRECISION = {
    "amp": "amp-fp16",
    "mixed": "amp-fp16",
    "mixed precision": "amp-fp16",
    "see submission (not in log)": "amp-fp16",  # MLPerf on GPUs
    "float32": "fp32",
    "bfloat16": "bf16",
    "float16": "fp16",
}
MODES = {
    "train": "train", "training": "train",
    "infer": "infer", "inference": "infer", "forward": "infer", "eval": "infer",
}  # fmt: skip
LAYOUT = {"nchw": "contiguous", "nhwc": "channels_last"}
CONVERTS = ("pytorch-compiled",)  # stacks that convert images to their own memory format
# benchmarks that time forward and backward without an update: notes, and frameworks before cuDNN 8
NO_UPDATE = (
    r"forward (?:\+|and) backward|fwd ?\+ ?bwd|no optimi[sz]er"
    r"|without (?:an |the )?(?:optimi[sz]er|update)"
)
BEFORE_CUDNN_8 = (
    "torch7", "caffe", "cudnn[r", "cudnn 4", "cudnn 5", "theano", "chainer", "nervana", "neon",
    "cl-nn", "fbfft",
)  # fmt: skip


class Names(NamedTuple):
    """The sections of runs/names.toml."""

    models: dict[str, str]
    models_of: dict[str, dict[str, str]]  # by framework, where it means another model by the word
    tokens: dict[str, float]  # of a sample, by model
    devices: dict[str, str]
    stacks: dict[str, str]
    settings: list[dict[str, Any]]  # of the scripts of a source


@functools.cache
def names() -> Names:
    """The names that tables of nets use."""
    return Names(**tomllib.loads((RUNS / "names.toml").read_text(encoding="utf-8")))


def settings(row: Row) -> Row:
    """Values that the scripts of a row's source set, by column.

    They come from every entry of names.toml whose `where` words all occur in source_where. Some
    keys of an entry are no columns: `mixed` is the format that mixed precision means, layout_mixed
    and layout_full are the layout by precision, `update` is the number of samples between two
    updates on all devices, `outputs` is "held" where a script keeps the outputs of one step while
    the next one runs.
    """
    where = row.get("source_where") or ""
    found: dict[str, Any] = {}
    for entry in names().settings:
        if all(word in where for word in entry["where"]):
            found.update(entry)
    found.pop("where", None)
    mixed, full = found.pop("layout_mixed", ""), found.pop("layout_full", "")
    if mixed or full:
        amp = precision_of(row.get("precision") or "").startswith("amp")
        found["layout"] = mixed if amp else full
    if "stack" in found:
        found["stack"] = str(RUNS / found["stack"])
    update = found.pop("update", None)
    if update and mode_of(row.get("mode") or "") == "train":
        try:
            share = float(row.get("batch_per_device") or "") * float(row.get("n_devices") or "1")
            found["micro_batches"] = str(max(1, int(update // share)))
        except (ValueError, ZeroDivisionError):
            pass  # the row is refused for its batch or its number of devices
    return found


def precision_of(cell: str) -> str:
    """The number format that a table names."""
    word = cell.lower().strip()
    return PRECISION.get(word, word)


def mode_of(cell: str) -> str | None:
    """train | infer; None for other words."""
    return MODES.get(cell.lower())


def layout_of(cell: str, stack: str) -> str | None:
    """The memory format of images; None where the table names none, and under a compiler that
    changes it: a table then says how the tensors were made, and inductor of PyTorch 2.2 and later
    computes convolutions channels-last (torch/_inductor/config.py: layout_optimization).
    """
    if stack in CONVERTS:
        return None
    start = cell.lower()
    return next((ours for word, ours in LAYOUT.items() if start.startswith(word)), None)


def device_of(cell: str) -> str:
    """The device that a table names; unknown names lose only a bracket at their end."""
    return names().devices.get(cell.lower(), re.sub(r"\s*\(.*\)$", "", cell))


def tokens_of(model: str) -> float | None:
    """Tokens of a sample that a throughput in tokens counts; None where they are not known."""
    return names().tokens.get(model)


def model_of(name: str, framework: str = "", where: str = "", given: str = "") -> str:
    """Our name of a model, whatever the case, the owner in front and the dashes of a table's name.

    The same word may mean another model in another framework. A model of the size or dimension that
    the place in the source ("> Large model") or the input ("Dimension=3") states goes first. A name
    that is not known is returned as it is.
    """
    plain = name.lower().rpartition("/")[2] if name.count("/") == 1 else name.lower()
    dashed = re.sub(r"[ _]+", "-", plain)
    candidates = [name.lower(), plain, dashed, re.sub(r"(?<=gpt)-(?=\d)", "", dashed)]
    size = re.search(r"> (base|large) model", where.lower())
    dims = re.match(r"dimension=([23])", given.lower())
    variant = f"-{size[1]}" if size else f"-{dims[1]}d" if dims else ""
    if variant:
        candidates = [candidate + variant for candidate in candidates] + candidates
    known, named = models.names(), names()
    of_framework: dict[str, str] = next(
        (table for word, table in named.models_of.items() if word in framework.lower()), {}
    )
    for candidate in candidates:
        ours = of_framework.get(candidate) or named.models.get(candidate)
        if ours:
            return file_of(ours)
        if candidate in known:
            return candidate
    return name


def file_of(name: str) -> str:
    """The path of a model that is a file, "nets/NAME.toml"; other names as they are."""
    return str(NETS / name) if name.startswith("nets/") else name


def stack_of(framework: str) -> str:
    """Our stack for what a table calls its framework.

    >>> stack_of("PyTorch 2.4.0 CPU torch.compile/dynamo"), stack_of("TensorFlow2"), stack_of("")
    ('pytorch-compiled', 'tensorflow', 'pytorch-eager')
    """
    return dated(first_match(framework, names().stacks) or "pytorch-eager", framework)


def scores_written(framework: str, language: bool) -> bool:
    """Whether attention is eager, that is, writes its scores to memory.

    PyTorch has fused attention since 2.0; the older families of transformers call it since 2024.
    language: the model reads tokens, and comes from transformers.

    >>> scores_written("PyTorch 1.13 cu117 eager", False), scores_written("PyTorch 2.1.0", False)
    (True, False)
    >>> scores_written("PyTorch 2.1.0", True)
    True
    """
    words = framework.lower()
    version = torch_version(words)
    if not stack_of(framework).startswith("pytorch-eager") or re.search("sdpa|flash", words):
        return False
    if version is None:
        return language
    return version < ((2, 3) if language else (2, 0))


def optimizer_of(framework: str, notes: str, language: bool) -> str:
    """The optimizer of a table without such a column.

    Old benchmarks time forward and backward without an update; others train image models with
    momentum and language models with AdamW.
    """
    old = any(word in framework.lower() for word in BEFORE_CUDNN_8)
    if old or re.search(NO_UPDATE, notes.lower()):
        return "none"
    return "adamw" if language else "momentum"


def image_of(cell: str) -> int | None:
    """The side of a square image [pixels]; None for other inputs.

    >>> image_of("224x224x3"), image_of("Resolution=224x224"), image_of("Sequence Length=128")
    (224, 224, None)
    """
    found = re.match(r"(?:resolution=)?(\d+)x(\d+)(?:x[134])?\b", cell.lower().strip())
    return int(found[1]) if found and found[1] == found[2] else None


def sequence_of(cell: str) -> int | None:
    """The length of a sequence [tokens]; None for other inputs.

    >>> [sequence_of(cell) for cell in ("Sequence Length=128", "seq_len 128", "128 tokens", "128")]
    [128, 128, 128, 128]
    """
    words = cell.lower().strip()
    found = re.match(r"(\d+)(?:\.0)?(?: ?tok(?:en)?s?)?$", words) or re.search(
        r"(?:seq(?:uence)?[ _-]*(?:len(?:gth)?)?|tokens)\s*[=: ]\s*(\d+)", words
    )
    return int(found[1]) if found else None
