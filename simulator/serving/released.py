"""The format in which the weights of a model were released: what a server loads where no other is
asked for.

A config.json says it itself (quantization_config, simulator/models/quantized.py). Shipped
configurations are those of the architecture alone, for training too; of models that were released
in fewer than 16 bits, RELEASED has the format.
"""

from __future__ import annotations

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.models.names import SHIPPED
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.storage import Storage

RELEASED: dict[str, tuple[str, str]] = {  # model -> format of its weights, source
    "deepseek-v3": (
        "fp8", "github deepseek-ai/DeepSeek-V3, README_WEIGHTS.md: e4m3, blocks of 128 x 128",
    ),
    "deepseek-v3.2": ("fp8", "huggingface.co/deepseek-ai/DeepSeek-V3.2-Exp config.json"),
    "gpt-oss-120b": ("mxfp4", "OpenAI 2025, Section 2.1: weights of experts; config.json"),
    "gpt-oss-20b": ("mxfp4", "OpenAI 2025, Section 2.1: weights of experts; config.json"),
    "kimi-k2": ("fp8", "huggingface.co/moonshotai/Kimi-K2-Instruct README.md: block-fp8"),
    "minimax-m2": ("fp8", "huggingface.co/MiniMaxAI/MiniMax-M2 config.json: blocks of 128 x 128"),
}  # fmt: skip
NO_FP8 = ("llama.cpp", "exllama")  # how stacks begin whose files have no such type


class Release(NamedTuple):
    """Weights as a server loads them where no format is asked for."""

    format: str | None  # as --weights takes it; None: 16 bits, or as `stored` has it
    stored: Storage | None  # of the checkpoint itself, in a format that has no name of its own
    said: tuple[str, ...]


def release(model: Model, stack: str) -> Release:
    """The format of a model's weights under a software stack."""
    found, stored = _format(model)
    if found is None:
        return Release(None, stored, ())  # what is stored, the model itself says
    told = f"{model.name} was released in {found}"
    if model.storage is not None:
        told = f"its checkpoint is in {found}"
    if found == "fp8" and stack.startswith(NO_FP8):
        said = f"weights bf16 (not given; {told}, which files of {stack} do not have)"
        return Release("bf16", None, (f"{said}; --weights gives another",))
    return Release(found, None, (f"weights {found} (not given; {told}); --weights gives another",))


def names_of(weights: str | None, model: Model, stack: str) -> str | None:
    """The format that is asked for, else that of the release; None: 16 bits, or of its own."""
    return weights or release(model, stack).format


def _format(model: Model) -> tuple[str | None, Storage | None]:
    """The name of a format, else how the checkpoint stores weights; (None, None): in 16 bits."""
    stored = model.storage
    if stored is not None:
        name = "mxfp4" if stored.method == "mxfp4" else stored.precision
        return (name, None) if name else (None, stored)
    shipped = model.source == SHIPPED.get(model.name)
    return (RELEASED[model.name][0] if shipped and model.name in RELEASED else None), None
