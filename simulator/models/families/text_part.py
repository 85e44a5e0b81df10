"""Models of text and pictures whose config.json holds a `text_config`: Gemma 3, Llama 4. Only the
language model is counted.
"""

from __future__ import annotations

from importlib import import_module

import msgspec

from roofcast.simulator.work.tape import Tape

# family and module of the language model
PARTS = {"gemma3": ("gemma3_text", "gemma"), "llama4": ("llama4_text", "llama4")}


class Config(msgspec.Struct, frozen=True):
    """Hugging Face Gemma3Config, Llama4Config, as far as they concern the language model."""

    model_type: str
    text_config: dict

    @property
    def text(self):
        """The language model's own record."""
        family, module = PARTS[self.model_type]
        return msgspec.convert(
            {**self.text_config, "model_type": family},
            import_module(f"roofcast.simulator.models.families.{module}").Config,
        )

    def __post_init__(self):
        self.text  # noqa: B018  complains of keys that lack or cannot be

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.text.context


def build(t: Tape, c: Config, batch: int, sequence: int):
    """The text part's own program; pictures are not run."""
    return import_module(f"roofcast.simulator.models.families.{PARTS[c.model_type][1]}").build(
        t, c.text, batch, sequence
    )
