"""Residual nets [he2015] with a classifier, as in transformers; DETR's backbone is one."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import msgspec

from roofcast.hwdb.errors import number_of
from roofcast.simulator.models.families.diffusion import check_sizes
from roofcast.simulator.models.families.transformer import activate
from roofcast.simulator.models.vision.parts import (
    batch_norm,
    classify,
    global_average,
    layer,
    max_pool,
    numbered,
    residual,
)
from roofcast.simulator.work.ops import conv, pointwise
from roofcast.simulator.work.tape import Tape, Value

REDUCTION = 4  # channels of a bottleneck over those within it


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's ResNetConfig, with its defaults."""

    num_channels: int = 3
    embedding_size: int = 64
    hidden_sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    layer_type: str = "bottleneck"
    hidden_act: str = "relu"
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False
    image_size: int = 224
    num_labels: int | None = None
    id2label: dict[str, str] | None = None
    frozen_norms: ClassVar[bool] = False  # batch norms are a fixed scale and shift
    trainable: ClassVar[bool] = True  # the convolutions
    last_stride: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.layer_type not in ("basic", "bottleneck"):
            raise ValueError(
                f"layer_type {self.layer_type[:40]!r} is not modeled; known: basic, bottleneck"
            )
        check_sizes(self)
        check_stages(self.depths, self.hidden_sizes)

    @property
    def labels(self) -> int:
        """Classes of an image; two where the config names none."""
        return self.num_labels or len(self.id2label or ()) or 2


def check_stages(depths: tuple[int, ...], widths: tuple[int, ...]) -> None:
    """Raises ValueError unless every stage has a depth and a width."""
    if len(depths) != len(widths) or not depths:
        raise ValueError(
            f"depths has {number_of(len(depths), 'entry', 'entries')} and hidden_sizes"
            f" {len(widths)}; one each per stage"
        )


def build(t: Tape, c: Config, batch: int, image: int) -> Value:
    """One step on `batch` images of `image` x `image` pixels: the loss, or the logits."""
    with t.scope("resnet"):
        x = features(t, c, t.input((batch, c.num_channels, image, image)))
        x = global_average(t, x, "pooler")
    return classify(t, x, c.labels, name="classifier")


def features(t: Tape, c: Config, x: Value) -> Value:
    """The stages on images [B, C, H, W], without pooling and classifier."""
    with t.scope("embedder"):
        x = conv_norm(t, c, "embedder", x, c.embedding_size, 7, 2)
        x = max_pool(t, "pooler", x, 3, stride=2, padding=1)
    for stage, (width, depth) in enumerate(zip(c.hidden_sizes, c.depths, strict=True)):
        body = partial(basic if c.layer_type == "basic" else bottleneck, t, c, width)
        stride = 2 if stage or c.downsample_in_first_stage else 1
        stride = c.last_stride if stage == len(c.depths) - 1 else stride
        with t.scope(f"encoder.stages.{stage}.layers"):
            with t.scope("0"):
                x = body(stride, x)
            x = t.repeat(numbered(1, depth - 1), depth - 1, partial(body, 1), x)
    return x


def conv_norm(
    t: Tape,
    c: Config,
    name: str,
    x: Value,
    width: int,
    kernel: int,
    stride: int = 1,
    act: bool = True,
) -> Value:
    """Convolution without bias, batch norm, and the activation if `act`."""
    with t.scope(name):
        with layer(t, "convolution", "conv", x, kernel):
            shape = width, x.shape[1], kernel, kernel
            weight = t.parameter(*shape, dtype=t.filters, trainable=c.trainable)
            half = kernel // 2
            x = conv.conv(
                t, x, width, kernel, stride=stride, padding=half, bias=False, weight=weight
            )
        x = (frozen_norm if c.frozen_norms else batch_norm)(t, "normalization", x)
        if not act:
            return x
        with t.op("activation", c.hidden_act):
            return activate(t, c.hidden_act, x)


def frozen_norm(t: Tape, name: str, x: Value) -> Value:
    """Batch norm with fixed statistics: a scale and a shift of each channel, computed each time."""
    with t.op(name, "mul"):
        fixed = t.buffer(1, x.shape[1], 1, 1, dtype=t.precision.weights)
        scale = pointwise.mul(t, fixed, pointwise.unary(t, "rsqrt", fixed))
        shift = pointwise.add(t, fixed, pointwise.mul(t, fixed, scale))
        return pointwise.add(t, pointwise.mul(t, x, scale), shift)


def basic(t: Tape, c: Config, width: int, stride: int, x: Value) -> Value:
    """A block of two 3x3 convolutions."""
    h = conv_norm(t, c, "layer.0", x, width, 3, stride)
    return joined(t, c, conv_norm(t, c, "layer.1", h, width, 3, act=False), x, stride)


def bottleneck(t: Tape, c: Config, width: int, stride: int, x: Value) -> Value:
    """A block of a 1x1, a 3x3 and a 1x1 convolution; either of the first two has the stride."""
    first = stride if c.downsample_in_bottleneck else 1
    h = conv_norm(t, c, "layer.0", x, width // REDUCTION, 1, first)
    h = conv_norm(t, c, "layer.1", h, width // REDUCTION, 3, stride // first)
    return joined(t, c, conv_norm(t, c, "layer.2", h, width, 1, act=False), x, stride)


def joined(t: Tape, c: Config, h: Value, x: Value, stride: int) -> Value:
    """The branch and its shortcut, a convolution where the shape changes."""
    if stride > 1 or x.shape[1] != h.shape[1]:
        x = conv_norm(t, c, "shortcut", x, h.shape[1], 1, stride, act=False)
    h = residual(t, h, x)
    with t.op("activation", c.hidden_act):
        return activate(t, c.hidden_act, h)
