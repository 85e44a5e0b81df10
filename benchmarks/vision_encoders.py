"""How vision_counts.py builds and calls the encoders of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Called = tuple[torch.nn.Module, list[Any], Callable[[], Any]]
MASKED = {
    "albert": "AlbertForMaskedLM",
    "deberta-v2": "DebertaV2ForMaskedLM",
    "modernbert": "ModernBertForMaskedLM",
    "mpnet": "MPNetForMaskedLM",
}
DROPOUTS = ("dropout", "drop_prob")


def called(raw: dict[str, Any], batch: int, size: int, dtype: Any, attention: str) -> Called:
    """The module of a configuration, its inputs, and a function that returns the loss."""
    import transformers

    kind = raw["model_type"]
    keys = {k: v for k, v in raw.items() if k != "model_type"}
    # looks for padding in ids that have no numbers
    transformers.PreTrainedModel.warn_if_padding_and_no_attention_mask = lambda *a: None
    config = transformers.AutoConfig.for_model(kind, **keys)
    quiet(config)
    how = "eager" if attention == "eager" else "sdpa"
    if kind in MASKED:
        return text(getattr(transformers, MASKED[kind]), config, how, batch, size, dtype)
    raise SystemExit(f"no call for {kind}")


def quiet(config: Any) -> None:
    """Set every dropout probability of a configuration to zero."""
    for key, value in vars(config).items():
        if isinstance(value, float) and any(word in key for word in DROPOUTS):
            setattr(config, key, 0.0)
        elif hasattr(value, "model_type"):
            quiet(value)


def built(kind: Any, config: Any, how: str, dtype: Any) -> torch.nn.Module:
    """A module with random weights, in one format."""
    try:
        return kind._from_config(config, attn_implementation=how).to(dtype)
    except ValueError:
        return kind._from_config(config, attn_implementation="eager").to(dtype)


def text(kind: Any, config: Any, how: str, batch: int, size: int, dtype: Any) -> Called:
    """An encoder with its masked-language-model head, every token a label."""
    model = built(kind, config, how, dtype)
    ids, labels = (torch.empty(batch, size, dtype=torch.int64) for _ in range(2))
    return model, [ids, labels], lambda: model(input_ids=ids, labels=labels).loss
