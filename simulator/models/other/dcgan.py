"""Generator and discriminator of DCGAN for 64x64 images [radford2015]."""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.vision.parts import (
    activation,
    batch_norm,
    convolve,
    images,
    pairwise_loss,
)
from roofcast.simulator.work.ops import conv
from roofcast.simulator.work.tape import Tape, Value


def build(
    t: Tape,
    batch: int,
    size: int | None,
    *,
    part: str,
    width: int = 64,
    noise: int = 100,
    channels: int = 3,
) -> Value:
    """`part` is "generator" (its loss is the squared error of its images) or "discriminator"."""
    if part == "generator":
        return generator(t, batch, width, noise, channels)
    return discriminator(t, batch, size, width, channels)


def generator(t: Tape, batch: int, width: int, noise: int, channels: int) -> Value:
    """Transposed convolutions to sides of 4, 8, 16, 32 and 64, with batch norms and relu, tanh."""
    x, index = t.input((batch, noise, 1, 1)), 0
    with t.scope("main"):
        for step, factor in enumerate((8, 4, 2, 1)):
            stride, padding = (2, 1) if step else (1, 0)
            x = enlarged(t, str(index), x, factor * width, stride, padding)
            x = activation(t, str(index + 2), "relu", batch_norm(t, str(index + 1), x))
            index += 3
        x = enlarged(t, str(index), x, channels, 2, 1)
        x = activation(t, str(index + 1), "tanh", x, in_place=False)
    return pairwise_loss(t, "mse", x)


def enlarged(t: Tape, name: str, x: Value, width: int, stride: int, padding: int) -> Value:
    """A 4x4 transposed convolution without bias."""
    with t.op(name, "conv_transpose"):
        return conv.conv_transpose(t, x, width, 4, stride=stride, padding=padding, bias=False)


def discriminator(t: Tape, batch: int, size: int | None, width: int, channels: int) -> Value:
    """Four convolutions of stride 2 with leaky relu and batch norms (not the first), one to 1x1.

    Raises BadInput unless `size` is 64.
    """
    if size != 64:
        raise BadInput(
            f"main.11 takes [{batch}, {8 * width}, 4, 4], so images must be"
            f" [{batch}, {channels}, 64, 64], not {size}x{size}"
        )
    x, index = images(t, batch, size, channels), 0
    with t.scope("main"):
        for factor in (1, 2, 4, 8):
            x = convolve(t, str(index), x, factor * width, 4, stride=2, padding=1, bias=False)
            if factor > 1:
                index += 1
                x = batch_norm(t, str(index), x)
            x = activation(t, str(index + 1), "leaky_relu", x)
            index += 2
        x = convolve(t, str(index), x, 1, 4, bias=False)
        x = activation(t, str(index + 1), "sigmoid", x, in_place=False)
    return pairwise_loss(t, "bce", t.view(x, batch, 1))
