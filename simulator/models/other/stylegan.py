"""Generator of StyleGAN2: a mapping network, and convolutions with modulated weights [karras2019].

Images are enlarged bilinearly before a convolution. The original filters after a transposed
convolution: the same number of pixels and products.
"""

from __future__ import annotations

from math import log2

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.vision.parts import activation, dense, pairwise_loss
from roofcast.simulator.work.ops import conv, pointwise
from roofcast.simulator.work.tape import Tape, Value

STYLE = 512  # elements of a style vector


def channels_at(side: int, base: int = 32768) -> int:
    """Channels of feature maps of that side: 32768 / side, at most 512 [karras2019, config F].

    >>> channels_at(4), channels_at(256), channels_at(1024)
    (512, 128, 32)
    """
    return min(base // side, STYLE)


def build(t: Tape, batch: int, size: int, *, mapping: int = 8) -> Value:
    """Generates images of side `size`, a power of two from 8 to 1024; the loss is a squared error.

    The loss stands in for the discriminator. `mapping` is the depth of the mapping network.
    """
    if size not in (8, 16, 32, 64, 128, 256, 512, 1024):
        raise BadInput(
            f"synthesis doubles [{batch}, 512, 4, 4] up to the image: its side must be 8, 16, 32"
            f" .. 1024, not {size}"
        )
    style = t.input((batch, STYLE))
    with t.scope("mapping"):
        for index in range(mapping):
            style = dense(t, f"fc{index}", style, STYLE)
            style = activation(t, f"fc{index}.act", "leaky_relu", style)
    with t.op("synthesis.const", "parameter"):
        x = pointwise.copy(t, t.parameter(1, STYLE, 4, 4), batch, STYLE, 4, 4)
    image = None
    with t.scope("synthesis"):
        for level in range(2, int(log2(size)) + 1):
            with t.scope(f"b{2**level}"):
                if level > 2:
                    x = styled(t, "conv0", enlarged(t, "up", x), style, channels_at(2**level))
                x = styled(t, "conv1", x, style, channels_at(2**level))
                image = colours(t, x, style, image)
    assert image is not None, "there are at least two levels"
    return pairwise_loss(t, "mse", image)


def enlarged(t: Tape, name: str, x: Value) -> Value:
    """x [batch, channels, side, side] with twice the side."""
    with t.op(name, "interpolate"):
        return conv.resize(t, x, 2 * x.shape[-1], kind="bilinear")


def modulated(
    t: Tape, x: Value, style: Value, width: int, kernel: int, *, demodulated: bool
) -> Value:
    """A convolution whose weight is scaled per sample by the style, as one grouped convolution.

    `demodulated`: the scaled weights are normalized to unit length.
    """
    batch, c_in, *space = x.shape
    scale = dense(t, "affine", style, c_in)
    with t.op("modulate", "mul"):
        w = t.parameter(1, width, c_in, kernel, kernel)
        w = pointwise.mul(t, w, t.view(scale, batch, 1, c_in, 1, 1))
        if demodulated:
            square = pointwise.unary(t, "pow", t.view(w, batch, width, c_in * kernel * kernel))
            length = pointwise.unary(t, "add_scalar", pointwise.mean(t, square))
            length = pointwise.unary(t, "rsqrt", length)
            w = pointwise.mul(t, w, t.view(length, batch, width, 1, 1, 1))
    with t.op("conv", "conv"):
        w = t.view(w, batch * width, c_in, kernel, kernel)
        x, padding = t.view(x, 1, batch * c_in, *space), kernel // 2
        y = conv.conv(
            t, x, batch * width, kernel, padding=padding, groups=batch, bias=False, weight=w
        )
    return t.view(y, batch, width, *space)


def styled(t: Tape, name: str, x: Value, style: Value, width: int) -> Value:
    """A modulated 3x3 convolution, noise, bias, leaky relu."""
    with t.scope(name):
        x = modulated(t, x, style, width, 3, demodulated=True)
        with t.op("noise", "add"):
            noise = t.new((x.shape[0], 1, *x.shape[2:]))
            t.emit("elementwise", (), (noise,), special=noise.size)
            x = pointwise.add(t, x, pointwise.mul(t, noise, t.parameter(1)))
            x = pointwise.add(t, x, t.parameter(1, width, 1, 1))
        return activation(t, "act", "leaky_relu", x)


def colours(t: Tape, x: Value, style: Value, image: Value | None) -> Value:
    """The enlarged image of the previous level plus the contribution of this level."""
    with t.scope("torgb"):
        out = modulated(t, x, style, 3, 1, demodulated=False)
        with t.op("bias", "add"):
            out = pointwise.add(t, out, t.parameter(1, 3, 1, 1))
        if image is None:
            return out
        image = enlarged(t, "up", image)
        with t.op("add", "add"):
            return pointwise.add(t, image, out)
