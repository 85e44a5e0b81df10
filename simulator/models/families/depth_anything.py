"""Depth Anything, 1 and 2 [yang2024depth]: DINOv2, whose maps of four depths a decoder of
convolutions joins to the depth of each pixel [ranftl2021]. The loss is the square error of depths.
transformers has eager attention only for it.
"""

from __future__ import annotations

from functools import partial

import msgspec

from roofcast.simulator.models.families import dino
from roofcast.simulator.models.families.diffusion import check_sizes
from roofcast.simulator.models.vision.parts import activation, convolve, pairwise_loss, residual
from roofcast.simulator.work.ops import conv, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Backbone(dino.Config, frozen=True):
    """Keys of Hugging Face's Dinov2Config as a backbone."""

    model_type: str = "dinov2"
    hidden_size: int = 384
    num_attention_heads: int = 6
    image_size: int = 518
    out_indices: tuple[int, ...] | None = None
    out_features: tuple[str, ...] | None = None

    @property
    def depths(self) -> tuple[int, ...]:
        """Layers after which a map is read. Raises ValueError for none, or others than layers."""
        named = [name.removeprefix("stage") for name in self.out_features or ()]
        given = self.out_indices or tuple(int(n) if n.isdecimal() else -1 for n in named)
        found = tuple(sorted(given)) or (9, 10, 11, 12)
        if min(found) < 1 or max(found) > self.num_hidden_layers or len(set(found)) != len(found):
            raise ValueError(
                f"backbone_config: out_indices {str(found)[:40]} must be layers from 1 to"
                f" {self.num_hidden_layers}"
            )
        return found


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's DepthAnythingConfig, with its defaults."""

    backbone_config: Backbone = Backbone()
    patch_size: int = 14
    reassemble_hidden_size: int = 384
    reassemble_factors: tuple[float, ...] = (4, 2, 1, 0.5)
    neck_hidden_sizes: tuple[int, ...] = (48, 96, 192, 384)
    fusion_hidden_size: int = 64
    head_hidden_size: int = 32
    depth_estimation_type: str = "relative"

    def __post_init__(self) -> None:
        check_sizes(self)
        maps = len(self.backbone_config.depths)
        if not maps == len(self.reassemble_factors) == len(self.neck_hidden_sizes):
            raise ValueError(
                f"{maps} maps of the backbone, {len(self.reassemble_factors)} reassemble_factors"
                f" and {len(self.neck_hidden_sizes)} neck_hidden_sizes must be equal in number"
            )
        odd = [f for f in self.reassemble_factors if f <= 0 or (f if f > 1 else 1 / f) % 1]
        if odd:
            raise ValueError(f"reassemble_factors: {odd[0]:g} must be a whole number or 1 over one")
        if (self.reassemble_hidden_size, self.patch_size) != (
            self.backbone_config.hidden_size, self.backbone_config.patch
        ):  # fmt: skip
            raise ValueError(
                "reassemble_hidden_size and patch_size must be those of backbone_config"
                f" ({self.backbone_config.hidden_size}, {self.backbone_config.patch})"
            )
        if self.depth_estimation_type not in ("relative", "metric"):
            raise ValueError(
                f"depth_estimation_type {self.depth_estimation_type[:40]!r} is not modeled; known:"
                " relative, metric"
            )

    @property
    def size(self) -> int:
        """Default side of the image [pixels]."""
        return self.backbone_config.image_size


def build(t: Tape, c: Config, batch: int, image: int) -> Value:
    """One step on `batch` images of `image` x `image` pixels: the loss, or the depths."""
    t.assumptions.append("the loss is the square error of the depths of all pixels")
    maps = seen(t, c.backbone_config, batch, image)
    fused = None
    with t.scope("neck"):
        made = [reassembled(t, c, i, x) for i, x in enumerate(maps)][::-1]
        for i, x in enumerate(made):
            side = made[i + 1].shape[2] if i + 1 < len(made) else 2 * x.shape[2]
            with t.scope(f"fusion_stage.layers.{i}"):
                fused = joined(t, c, x, fused, side)
    assert fused is not None, "a backbone has maps"
    with t.scope("head"):
        x = convolve(t, "conv1", fused, c.fusion_hidden_size // 2, 3, padding=1)
        with t.op("upsample", "resize"):
            x = conv.resize(t, x, image // c.patch_size * c.patch_size, kind="bilinear")
        x = convolve(t, "conv2", x, c.head_hidden_size, 3, padding=1)
        x = activation(t, "activation1", "relu", x, in_place=False)
        x = convolve(t, "conv3", x, 1, 1)
        last = "relu" if c.depth_estimation_type == "relative" else "sigmoid"
        x = activation(t, "activation2", last, x, in_place=False)
        with t.op("max_depth", "mul"):
            x = pointwise.scale(t, x)
    return pairwise_loss(t, "mse", t.view(x, batch, *x.shape[2:]))


def seen(t: Tape, c: Backbone, batch: int, image: int) -> list[Value]:
    """The normed tokens after some layers of the backbone, as images [batch, width, side, side]."""
    side, width, found, start = image // c.patch, c.hidden_size, [], 0
    with t.scope("backbone"):
        x = dino.embedded(t, c, batch, image)
        for depth in c.depths:
            body = partial(dino.block, t, c, tables=None, eager=True)
            x = t.repeat("encoder.layer", depth - start, body, x)
            start = depth
            with t.op("layernorm", "layer_norm"):
                own = tuple(t.parameter(width, tied=f"layernorm.{of}") for of in "wb")
                h = norm.layer_norm(t, x, weights=(own[0], own[1]))
            with t.op("reshape", "copy"):
                found.append(pointwise.copy(t, h, batch, width, side, side))
        for _ in range(c.num_hidden_layers - start):
            t.repeat("encoder.layer", 1, partial(dino.block, t, c, tables=None, eager=True), x)
    return found


def reassembled(t: Tape, c: Config, i: int, x: Value) -> Value:
    """A map in its own number of channels and size, then in the channels of the fusion."""
    channels, factor = c.neck_hidden_sizes[i], c.reassemble_factors[i]
    with t.scope(f"reassemble_stage.layers.{i}"):
        x = convolve(t, "projection", x, channels, 1)
        if factor > 1:
            with t.op("resize", "conv"):
                x = conv.conv_transpose(t, x, channels, int(factor), stride=int(factor))
        elif factor < 1:
            x = convolve(t, "resize", x, channels, 3, stride=int(1 / factor), padding=1)
    return convolve(t, f"convs.{i}", x, c.fusion_hidden_size, 3, padding=1, bias=False)


def joined(t: Tape, c: Config, x: Value, fused: Value | None, side: int) -> Value:
    """The map x added to what deeper maps gave, refined and resized to `side`."""
    width = c.fusion_hidden_size
    if fused is None:
        with t.op("residual_layer1", "unused"):  # of the deepest map
            for _ in range(2):
                t.parameter(width, width, 3, 3)
                t.parameter(width)
    else:
        x = residual(t, fused, refined(t, "residual_layer1", x), "add")
    x = refined(t, "residual_layer2", x)
    with t.op("resize", "resize"):
        x = conv.resize(t, x, side, kind="bilinear")
    return convolve(t, "projection", x, width, 1)


def refined(t: Tape, name: str, x: Value) -> Value:
    """Two convolutions, each after a ReLU, and a residual."""
    h = x
    with t.scope(name):
        for i in (1, 2):
            h = activation(t, f"activation{i}", "relu", h, in_place=False)
            h = convolve(t, f"convolution{i}", h, x.shape[1], 3, padding=1)
        return residual(t, h, x)
