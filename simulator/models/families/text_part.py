"""Multimodal models whose config.json has a `text_config`: Gemma 3, Llama 4.

Only the language model is counted.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import msgspec

from roofcast.simulator.work.tape import Tape, Value

# model_type -> model_type and module of the language model
PARTS = {
    "gemma3": ("gemma3_text", "gemma"),
    "gemma3n": ("gemma3n_text", "gemma3n"),
    "gemma4": ("gemma4_text", "gemma4"),
    "llama4": ("llama4_text", "llama4"),
}


class Config(msgspec.Struct, frozen=True):
    """The language model's part of Hugging Face's Gemma3Config and Llama4Config."""

    model_type: str
    text_config: dict[str, Any]

    @property
    def text(self) -> Any:
        """The Config of the language model."""
        family, module = PARTS[self.model_type]
        return msgspec.convert(
            {**self.text_config, "model_type": family},
            import_module(f"roofcast.simulator.models.families.{module}").Config,
        )

    def __post_init__(self) -> None:
        self.text  # noqa: B018  raises where a key is missing or invalid

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.text.context


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """The program of the language model; images are not run."""
    family = import_module(f"roofcast.simulator.models.families.{PARTS[c.model_type][1]}")
    return family.build(t, c.text, batch, sequence)
