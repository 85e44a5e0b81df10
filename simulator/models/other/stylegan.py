"""StyleGAN2's generator: a mapping of noise to styles, convolutions whose weights the styles scale
[karras2019].

Enlarging is bilinear before the convolution (the original filters after a transposed one: the same
pixels and products).
"""

from __future__ import annotations

from math import log2

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.vision.parts import activation, dense, pairwise_loss
from roofcast.simulator.work.ops import conv, pointwise
from roofcast.simulator.work.tape import Tape, Value

STYLE = 512  # numbers of a style


def channels_at(side: int, base: int = 32768) -> int:
    """Channels of the pictures of that side: 32768 / side, at most 512 [karras2019, configuration
    F].

    >>> channels_at(4), channels_at(256), channels_at(1024)
    (512, 128, 32)
    """
    return min(base // side, STYLE)


def build(t: Tape, batch: int, size: int, *, mapping: int = 8):
    """Pictures of `size`, a power of two from 8 to 1024; a squared error on them stands in for the
    discriminator.
    """
    if size not in (8, 16, 32, 64, 128, 256, 512, 1024):
        raise BadInput(
            f"synthesis doubles [{batch}, 512, 4, 4] up to the picture: a side of 8, 16, 32 .. 1024"
            f" is wanted, not {size}"
        )
    style = t.input((batch, STYLE))
    with t.scope("mapping"):
        for index in range(mapping):
            style = activation(
                t, f"fc{index}.act", "leaky_relu", dense(t, f"fc{index}", style, STYLE)
            )
    with t.op("synthesis.const", "parameter"):
        x = pointwise.copy(t, t.parameter(1, STYLE, 4, 4), batch, STYLE, 4, 4)
    picture = None
    with t.scope("synthesis"):
        for level in range(2, int(log2(size)) + 1):
            with t.scope(f"b{2**level}"):
                if level > 2:
                    x = styled(t, "conv0", enlarged(t, "up", x), style, channels_at(2**level))
                x = styled(t, "conv1", x, style, channels_at(2**level))
                picture = colours(t, x, style, picture)
    return pairwise_loss(t, "mse", picture)


def enlarged(t: Tape, name: str, x: Value) -> Value:
    """x[batch, channels, side, side] with twice the side."""
    with t.op(name, "interpolate"):
        return conv.resize(t, x, 2 * x.shape[-1], kind="bilinear")


def modulated(
    t: Tape, x: Value, style: Value, width: int, kernel: int, *, demodulated: bool
) -> Value:
    """A weight of its own for every sample: scaled by the style, and brought back to unit length;
    one grouped convolution.
    """
    batch, c_in, *space = x.shape
    scale = dense(t, "affine", style, c_in)
    with t.op("modulate", "mul"):
        w = pointwise.mul(
            t, t.parameter(1, width, c_in, kernel, kernel), t.view(scale, batch, 1, c_in, 1, 1)
        )
        if demodulated:
            square = pointwise.unary(t, "pow", t.view(w, batch, width, c_in * kernel * kernel))
            length = pointwise.unary(
                t, "rsqrt", pointwise.unary(t, "add_scalar", pointwise.mean(t, square))
            )
            w = pointwise.mul(t, w, t.view(length, batch, width, 1, 1, 1))
    with t.op("conv", "conv"):
        w = t.view(w, batch * width, c_in, kernel, kernel)
        y = conv.conv(
            t,
            t.view(x, 1, batch * c_in, *space),
            batch * width,
            kernel,
            padding=kernel // 2,
            groups=batch,
            bias=False,
            weight=w,
        )
    return t.view(y, batch, width, *space)


def styled(t: Tape, name: str, x: Value, style: Value, width: int) -> Value:
    """Modulated 3x3 convolution, noise, bias, leaky relu."""
    with t.scope(name):
        x = modulated(t, x, style, width, 3, demodulated=True)
        with t.op("noise", "add"):
            noise = t.new((x.shape[0], 1, *x.shape[2:]))
            t.emit("elementwise", (), (noise,), special=noise.size)
            x = pointwise.add(t, x, pointwise.mul(t, noise, t.parameter(1)))
            x = pointwise.add(t, x, t.parameter(1, width, 1, 1))
        return activation(t, "act", "leaky_relu", x)


def colours(t: Tape, x: Value, style: Value, picture: Value | None) -> Value:
    """The picture so far, enlarged, and what this level adds to it."""
    with t.scope("torgb"):
        out = modulated(t, x, style, 3, 1, demodulated=False)
        with t.op("bias", "add"):
            out = pointwise.add(t, out, t.parameter(1, 3, 1, 1))
        if picture is None:
            return out
        picture = enlarged(t, "up", picture)
        with t.op("add", "add"):
            return pointwise.add(t, picture, out)
