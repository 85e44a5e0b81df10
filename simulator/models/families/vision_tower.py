"""The image encoders of CLIP and SigLIP alone: clip_vision_model, siglip_vision_model.

The loss is the square error of what they return for each image, as in distillation.
"""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import clip, siglip
from roofcast.simulator.models.vision.parts import pairwise_loss
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's CLIPVisionConfig and SiglipVisionConfig, with their defaults."""

    model_type: str
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int | None = None
    hidden_act: str | None = None
    attention_dropout: float = 0.0
    vision_use_head: bool = True

    @property
    def part(self) -> clip.Vision:
        """The same keys as the config of both encoders has them."""
        given = {k: v for k, v in msgspec.to_builtins(self).items() if v is not None}
        if self.model_type == "clip_vision_model":
            return msgspec.convert(given, clip.Vision)
        return msgspec.convert(given, siglip.Vision)


def build(t: Tape, c: Config, batch: int, image: int) -> Value:
    """One step on `batch` images of `image` x `image` pixels: the loss, or the pooled state."""
    t.assumptions.append("image encoder alone: the loss is the square error of its pooled output")
    part = c.part
    if isinstance(part, siglip.Vision):
        _, x = siglip.seen(t, part, batch, image)
    else:
        x = clip.seen(t, msgspec.structs.replace(part, image_size=image), batch)
    return pairwise_loss(t, "mse", x)
