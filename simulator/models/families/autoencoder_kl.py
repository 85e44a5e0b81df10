"""The autoencoder of Stable Diffusion, SDXL and Flux [rombach2021]: AutoencoderKL of diffusers.

A training step encodes images, draws latents and decodes them; the loss is the square error of the
images alone. `size` is the side of the images.
"""

from __future__ import annotations

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.families import diffusion
from roofcast.simulator.models.families.diffusion import group_norm, resnet, scaled_sum
from roofcast.simulator.models.vision.parts import activation, convolve, dense
from roofcast.simulator.work.ops import attention, conv, loss, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of diffusers' AutoencoderKL, with its defaults."""

    sample_size: int = 32
    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 4
    norm_num_groups: int = 32
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    def __post_init__(self) -> None:
        diffusion.check_sizes(self)
        levels = len(self.block_out_channels)
        blocks = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}
        for key, kind in blocks.items():
            if getattr(self, key) != (kind,) * levels:
                raise ValueError(f"{key} must be {kind!r} for each of block_out_channels")
        groups = max(self.norm_num_groups, 1)
        if not levels or any(width < 1 or width % groups for width in self.block_out_channels):
            raise ValueError(
                f"block_out_channels must be divisible by norm_num_groups ({self.norm_num_groups})"
            )

    @property
    def size(self) -> int:
        """Default side of the images."""
        return self.sample_size


def build(t: Tape, c: Config, batch: int, size: int, part: str = "") -> Value:
    """One step on `batch` images of side `size`: the loss, or in inference the decoded images.

    `part`: only the "encoder" or only the "decoder", which training cannot take alone.
    """
    fold = 2 ** (len(c.block_out_channels) - 1)
    if size % fold:
        raise BadInput(
            f"encoder halves the image, but its input is [{batch}, {c.in_channels}, {size},"
            f" {size}]: use a side divisible by {fold}"
        )
    if part == "decoder":
        x = t.input((batch, c.latent_channels, size // fold, size // fold))
        return diffusion.square_error(t, decode(t, c, x))
    images = t.input((batch, c.in_channels, size, size))
    moments = encode(t, c, images)
    if part == "encoder":
        return diffusion.square_error(t, moments)
    t.assumptions.append("autoencoder: the loss is the square error of the images alone")
    out = decode(t, c, draw(t, moments))
    if not t.training:
        return out
    with t.op("loss", "mse"):
        return loss.pairwise(t, "mse", out, images)


def encode(t: Tape, c: Config, x: Value) -> Value:
    """Means and log-variances [batch, 2 x latent channels, ...] of the latents."""
    with t.scope("encoder"):
        x = convolve(t, "conv_in", x, c.block_out_channels[0], 3, padding=1)
        for level, width in enumerate(c.block_out_channels):
            with t.scope(f"down_blocks.{level}"):
                for index in range(c.layers_per_block):
                    x = _resnet(t, c, f"resnets.{index}", x, width)
                if level < len(c.block_out_channels) - 1:
                    x = _halved(t, x)
        x = middle(t, c, x)
        x = group_norm(t, "conv_norm_out", x, c.norm_num_groups)
        x = activation(t, "conv_act", "silu", x, in_place=False)
        x = convolve(t, "conv_out", x, 2 * c.latent_channels, 3, padding=1)
    return convolve(t, "quant_conv", x, x.shape[1], 1) if c.use_quant_conv else x


def _halved(t: Tape, x: Value) -> Value:
    """A convolution of stride 2 over x padded by one row and one column."""
    batch, width, height, _ = x.shape
    with t.op("downsamplers.0.pad", "copy"):
        x = pointwise.copy(t, x, batch, width, height + 1, height + 1)
    return convolve(t, "downsamplers.0.conv", x, width, 3, stride=2)


def draw(t: Tape, moments: Value) -> Value:
    """mean + deviation x noise, from means and log-variances."""
    batch, channels, *space = moments.shape
    shape = (batch, channels // 2, *space)
    with t.op("sample", "mul"):
        mean = t.view(moments, *shape)
        logs = pointwise.unary(t, "clamp", t.view(moments, *shape))
        deviation = pointwise.unary(t, "exp", pointwise.scale(t, logs))
        pointwise.unary(t, "exp", logs)  # the variance, for a loss that is not computed
        noise = t.new(shape)
        t.emit("elementwise", (), (noise,), special=noise.size)
        return pointwise.add(t, mean, pointwise.mul(t, deviation, noise))


def decode(t: Tape, c: Config, x: Value) -> Value:
    """Images from latents."""
    if c.use_post_quant_conv:
        x = convolve(t, "post_quant_conv", x, c.latent_channels, 1)
    with t.scope("decoder"):
        x = convolve(t, "conv_in", x, c.block_out_channels[-1], 3, padding=1)
        x = middle(t, c, x)
        for index, width in enumerate(reversed(c.block_out_channels)):
            with t.scope(f"up_blocks.{index}"):
                for layer in range(c.layers_per_block + 1):
                    x = _resnet(t, c, f"resnets.{layer}", x, width)
                if index < len(c.block_out_channels) - 1:
                    with t.op("upsamplers.0", "interpolate"):
                        x = conv.resize(t, x, 2 * x.shape[-1])
                    x = convolve(t, "upsamplers.0.conv", x, width, 3, padding=1)
        x = group_norm(t, "conv_norm_out", x, c.norm_num_groups)
        x = activation(t, "conv_act", "silu", x, in_place=False)
        return convolve(t, "conv_out", x, c.out_channels, 3, padding=1)


def _resnet(t: Tape, c: Config, name: str, x: Value, width: int) -> Value:
    return resnet(t, name, x, width, c.norm_num_groups, act=c.act_fn)


def middle(t: Tape, c: Config, x: Value) -> Value:
    """Two residual blocks around attention of one head over all positions."""
    with t.scope("mid_block"):
        x = _resnet(t, c, "resnets.0", x, x.shape[1])
        if c.mid_block_add_attention:
            x = attend(t, c, x)
        return _resnet(t, c, "resnets.1", x, x.shape[1])


def attend(t: Tape, c: Config, x: Value) -> Value:
    """Attention of one head over all positions of x [batch, channels, ...], with a residual."""
    batch, width, *space = x.shape
    length = space[0] * space[1]
    with t.scope("attentions.0"):
        h = group_norm(t, "group_norm", x, c.norm_num_groups)
        parts = []
        for name in ("to_q", "to_k", "to_v"):
            if batch > 1:  # each layer copies its transposed input
                with t.op(f"{name}.transpose", "copy"):
                    rows = pointwise.copy(t, h, batch, length, width)
            else:
                rows = t.view(h, batch, length, width)
            parts.append(t.view(dense(t, name, rows, width), batch, 1, length, width))
        with t.op("attention", "attention"):
            h = attention.attention(t, *parts, causal=False)
        h = dense(t, "to_out.0", h, width)
        with t.op("transpose", "copy"):
            h = pointwise.copy(t, h, *x.shape)
        return scaled_sum(t, h, x)
