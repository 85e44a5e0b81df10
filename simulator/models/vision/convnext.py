"""ConvNeXt: depthwise 7x7 convolutions, layer norms, MLPs on channels [liu2022]."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from roofcast.simulator.models.vision.parts import (
    classify,
    convolve,
    global_average,
    images,
    layer_norm,
    numbered,
    residual,
)
from roofcast.simulator.models.vision.vit import layer_scale, mlp
from roofcast.simulator.work.ops import norm
from roofcast.simulator.work.tape import Tape, Value


def build(
    t: Tape,
    batch: int,
    size: int,
    *,
    depths: Sequence[int],
    widths: Sequence[int],
    classes: int = 1000,
) -> Value:
    """One step on `batch` images of `size` x `size` pixels: the loss, or the logits."""
    x = convolve(t, "stem.0", images(t, batch, size), widths[0], 4, stride=4)
    x = channel_norm(t, "stem.1", x)
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        with t.scope(f"stages.{stage}"):
            if stage:
                x = channel_norm(t, "downsample.0", x)
                x = convolve(t, "downsample.1", x, width, 2, stride=2)
            x = t.repeat(f"blocks.{numbered(0, depth)}", depth, partial(block, t), x)
    x = global_average(t, x, "head.global_pool")
    return classify(t, layer_norm(t, "head.norm", x), classes, name="head.fc")


def channel_norm(t: Tape, name: str, x: Value) -> Value:
    """Layer norm over the channels of x [B, C, H, W]."""
    batch, channels, *space = x.shape
    with t.op(name, "layer_norm"):
        x = norm.layer_norm(t, t.view(x, batch, *space, channels))
        return t.view(x, batch, channels, *space)


def block(t: Tape, x: Value) -> Value:
    """One block on x [B, C, H, W]: depthwise 7x7, norm, MLP, scale, residual."""
    batch, width, *space = x.shape
    h = convolve(t, "conv_dw", x, width, 7, padding=3, groups=width)
    h = layer_norm(t, "norm", t.view(h, batch, *space, width))
    h = layer_scale(t, "gamma", mlp(t, h, 4 * width))
    return residual(t, t.view(h, batch, width, *space), x)
