"""DCGAN's generator and discriminator for 64x64 pictures [radford2015]."""

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
from roofcast.simulator.work.tape import Tape


def build(
    t: Tape,
    batch: int,
    size: int | None,
    *,
    part: str,
    width: int = 64,
    noise: int = 100,
    channels: int = 3,
):
    """`part` generator (noise in, squared error on its pictures) or discriminator (pictures of
    64x64 in).
    """
    return (
        generator(t, batch, width, noise, channels)
        if part == "generator"
        else discriminator(t, batch, size, width, channels)
    )


def generator(t: Tape, batch: int, width: int, noise: int, channels: int):
    """Four transposed convolutions with batch norm and relu, one with tanh: 1, 4, 8, 16, 32, 64."""
    x, index = t.input((batch, noise, 1, 1)), 0
    with t.scope("main"):
        for step, factor in enumerate((8, 4, 2, 1)):
            with t.op(str(index), "conv_transpose"):
                x = conv.conv_transpose(
                    t,
                    x,
                    factor * width,
                    4,
                    stride=2 if step else 1,
                    padding=1 if step else 0,
                    bias=False,
                )
            x = activation(t, str(index + 2), "relu", batch_norm(t, str(index + 1), x))
            index += 3
        with t.op(str(index), "conv_transpose"):
            x = conv.conv_transpose(t, x, channels, 4, stride=2, padding=1, bias=False)
        x = activation(t, str(index + 1), "tanh", x, in_place=False)
    return pairwise_loss(t, "mse", x)


def discriminator(t: Tape, batch: int, size: int, width: int, channels: int):
    """Four convolutions of stride 2 with leaky relu, batch norm from the second on, one to a single
    number.
    """
    if size != 64:
        raise BadInput(
            f"main.11 takes [{batch}, {8 * width}, 4, 4], so pictures of [{batch}, {channels}, 64,"
            f" 64] are wanted, not {size}x{size}"
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
