"""How vision_counts.py builds and calls the encoders of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

Called = tuple[torch.nn.Module, list[Any], Callable[[], Any]]
MASKED = {
    "albert": "AlbertForMaskedLM",
    "deberta-v2": "DebertaV2ForMaskedLM",
    "modernbert": "ModernBertForMaskedLM",
    "mpnet": "MPNetForMaskedLM",
}
IMAGES = {
    "clip_vision_model": "CLIPVisionModel",
    "dinov2": "Dinov2Model",
    "dinov3_vit": "DINOv3ViTModel",
    "siglip_vision_model": "SiglipVisionModel",
}
SPEECH = {"hubert": "HubertModel", "wav2vec2": "Wav2Vec2Model"}
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
    if kind in IMAGES:
        return image(getattr(transformers, IMAGES[kind]), config, how, batch, size, dtype)
    if kind == "siglip":
        return pairs(transformers.SiglipModel, config, how, batch, size, dtype)
    if kind in SPEECH:
        return speech(getattr(transformers, SPEECH[kind]), config, how, batch, size, dtype)
    import vision_nets

    found = vision_nets.called(config, how, batch, size, dtype)
    if found is None:
        raise SystemExit(f"no call for {kind}")
    return found


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


def image(kind: Any, config: Any, how: str, batch: int, size: int, dtype: Any) -> Called:
    """An image encoder and the square error of its output."""
    model = built(kind, config, how, dtype)
    x = torch.empty(batch, config.num_channels, size, size, dtype=dtype)
    pooled = "VisionModel" in kind.__name__
    key = "pooler_output" if pooled else "last_hidden_state"
    if pooled:
        target = torch.empty(batch, config.hidden_size, dtype=dtype)
    else:
        tokens = (size // config.patch_size) ** 2 + 1 + getattr(config, "num_register_tokens", 0)
        target = torch.empty(batch, tokens, config.hidden_size, dtype=dtype)
    given = {"interpolate_pos_encoding": True} if size != config.image_size and pooled else {}
    return model, [x, target], lambda: F.mse_loss(model(x, **given)[key], target)


def pairs(kind: Any, config: Any, how: str, batch: int, size: int, dtype: Any) -> Called:
    """A text and an image encoder with their loss over all pairs."""
    model = built(kind, config, how, dtype)
    ids = torch.empty(batch, size, dtype=torch.int64)
    side = config.vision_config.image_size
    x = torch.empty(batch, 3, side, side, dtype=dtype)
    return model, [ids, x], lambda: model(input_ids=ids, pixel_values=x, return_loss=True).loss


def speech(kind: Any, config: Any, how: str, batch: int, size: int, dtype: Any) -> Called:
    """A speech encoder and the square error of its output."""
    config.apply_spec_augment, config.layerdrop = False, 0.0
    model = built(kind, config, how, dtype)
    x = torch.empty(batch, size, dtype=dtype)
    frames = int(model._get_feat_extract_output_lengths(size))
    target = torch.empty(batch, frames, config.hidden_size, dtype=dtype)
    return model, [x, target], lambda: F.mse_loss(model(x).last_hidden_state, target)
