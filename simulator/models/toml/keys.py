"""What each kind of layer in a TOML list may say of itself: frozen records, checked as the file is
read.

Sizes are one number for every length of a picture, or one a length; lengths in positions, widths in
numbers.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from roofcast.simulator.work.ops import pointwise

Count = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
Zeros = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Sizes = Count | tuple[Count, ...]
Padding = Zeros | tuple[Zeros, ...] | Literal["same", "valid"]

ARITHMETIC = {
    "pow",
    "neg",
    "add_scalar",
    "mul_scalar",
    "clamp",
    "log",
    "abs",
    "sin",
    "cos",
    "sqrt",
    "rsqrt",
    "exp",
}
ACTIVATIONS = tuple(fn for fn in pointwise.UNARY if fn not in ARITHMETIC)
Activation = Literal[ACTIVATIONS]


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """What any layer may say beside its kind. A kind with more keys adds them."""

    name: str = ""
    repeat: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1


class Conv(Keys, frozen=True):
    """A convolution over every length: sizes are one number, or one a length."""

    channels: Count
    kernel: Sizes
    stride: Sizes = 1
    padding: Padding = 0
    dilation: Sizes = 1
    groups: Count = 1
    bias: bool = True


class Depthwise(Keys, frozen=True):
    """A convolution of each channel by itself into `multiplier` channels [chollet2016]."""

    kernel: Sizes
    stride: Sizes = 1
    padding: Padding = 0
    dilation: Sizes = 1
    multiplier: Count = 1
    bias: bool = True


class ConvTranspose(Keys, frozen=True):
    """A convolution run backwards, which widens by its stride [dumoulin2016]."""

    channels: Count
    kernel: Sizes
    stride: Sizes = 1
    padding: Zeros | tuple[Zeros, ...] = 0
    output_padding: Zeros | tuple[Zeros, ...] = 0
    groups: Count = 1
    bias: bool = True


class Pool(Keys, frozen=True):
    """A window's maximum or mean; the stride is the window's where not given."""

    kernel: Sizes
    stride: Sizes | None = None
    padding: Padding = 0
    ceil: bool = False


class AdaptivePool(Keys, frozen=True):
    """A maximum or mean over as many windows as come to `size`."""

    size: Sizes


class Upsample(Keys, frozen=True):
    """Pictures made larger, by a factor or to a size: one of the two."""

    scale: Count | None = None
    size: Sizes | None = None
    mode: Literal["nearest", "linear"] = "nearest"


class Reshape(Keys, frozen=True):
    """The same numbers seen as channels and one to three lengths; the batch stays."""

    shape: tuple[Count, ...]


class Linear(Keys, frozen=True):
    """A product with a matrix [in, out]; `in`, where given, is checked against what arrives."""

    out: Count
    in_: Count | None = msgspec.field(name="in", default=None)
    bias: bool = True


class GroupNorm(Keys, frozen=True):
    """A norm over each of so many groups of channels [wu2018]."""

    groups: Count


class Dropout(Keys, frozen=True):
    """A share p of the numbers is set to zero in training."""

    p: Share = 0.5


class Embedding(Keys, frozen=True):
    """A row of a table for every word."""

    width: Count
    rows: Count | None = None  # the net's vocabulary where not given


class Recurrent(Keys, frozen=True):
    """An LSTM, a GRU or a plain RNN, `hidden` wide each way."""

    hidden: Count
    layers: Count = 1
    bidirectional: bool = False


class Attention(Keys, frozen=True):
    """Self-attention [vaswani2017]; several heads may share a kv_head."""

    heads: Count
    kv_heads: Count | None = None  # as many as heads where not given
    causal: bool = False
    bias: bool = True
    dropout: Share = 0.0


class Transformer(Attention, frozen=True):
    """A block of attention and an MLP with the norms in front [xiong2020]."""

    mlp: Count | None = None  # four times the width where not given
    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    activation: Activation = "gelu"
    gated: bool = False


class Group(Keys, frozen=True):
    """Layers in a row under one name."""

    layers: list[dict]


class Residual(Group, frozen=True):
    """Layers whose result is added to what came in, or to what `shortcut` makes of it [he2015]."""

    shortcut: list[dict] = []


class Branch(Keys, frozen=True):
    """Lists of layers that all take what came in; their results are joined."""

    branches: list[list[dict]]
    join: Literal["concat", "add", "multiply"] = "concat"
