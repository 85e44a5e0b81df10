"""The keys of a TOML net and of each kind of layer: frozen records, checked as the file is read.

Each record's docstring has a line `key: meaning, unit, default` per key of its own; `meanings`
collects them. A size is one number for all spatial dimensions or a list with one per dimension.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from roofcast.simulator.work.ops import pointwise

Count = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
Times = Annotated[int, msgspec.Meta(ge=1, le=10_000)]  # layers in a row
Zeros = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Sizes = Count | tuple[Count, ...]
Padding = Zeros | tuple[Zeros, ...] | Literal["same", "valid"]
Layers = list[dict[str, Any]]

ARITHMETIC = frozenset("pow neg add_scalar mul_scalar clamp log abs sin cos sqrt rsqrt exp".split())
ACTIVATIONS = tuple(fn for fn in pointwise.UNARY if fn not in ARITHMETIC)
if TYPE_CHECKING:  # a Literal of computed names is for msgspec alone
    Activation = str
else:
    Activation = Literal[ACTIVATIONS]


class Net(msgspec.Struct, frozen=True):
    """A file: what the net takes, its layers, its loss. `input` and `tokens` exclude each other.

    layers: the layers, in the order in which they run
    name: name of the model; default: the name of the file
    about: a remark for the reader; default: empty
    input: shape of one sample: [features], or [channels, length, ...] with one to three lengths
        [positions]; default: none, `tokens` must then be given
    tokens: length of a sequence [tokens]; default: none, `input` must then be given
    vocabulary: with `tokens`, number of distinct token ids; default: none
    features: with `tokens`, numbers per token, where tokens are vectors; default: none
    loss: the loss of training; default: cross_entropy after a softmax or a linear layer of several
        outputs, bce after a sigmoid, otherwise mse
    """

    layers: Layers
    name: str | None = None
    about: str = ""
    input: list[Count] | None = None
    tokens: Count | None = None
    vocabulary: Count | None = None
    features: Count | None = None
    loss: (
        Literal["cross_entropy", "mse", "l1", "smooth_l1", "bce", "bce_with_logits", "none"] | None
    ) = None


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that every kind of layer has.

    name: name of the layer in the forecast; default: its kind and a number, such as conv2
    repeat: number of times the layer runs in a row, each time with its own weights; default 1
    """

    name: str = ""
    repeat: Times = 1


class Conv(Keys, frozen=True):
    """A convolution over all spatial dimensions.

    channels: number of output channels
    kernel: window size [positions]
    stride: distance between windows [positions]; default 1
    padding: zeros added at each end [positions]; "valid" adds none, "same" enough to keep
        ceil(length / stride) positions; default 0
    dilation: distance between the elements of a window [positions]; default 1
    groups: number of groups of channels that are convolved separately; default 1
    bias: whether a learned bias per output channel is added; default true
    """

    channels: Count
    kernel: Sizes
    stride: Sizes = 1
    padding: Padding = 0
    dilation: Sizes = 1
    groups: Count = 1
    bias: bool = True


class Depthwise(Keys, frozen=True):
    """A convolution of each channel separately [chollet2016].

    kernel: window size [positions]
    stride: distance between windows [positions]; default 1
    padding: zeros added at each end [positions], "valid" or "same" as in conv; default 0
    dilation: distance between the elements of a window [positions]; default 1
    multiplier: output channels per input channel; default 1
    bias: whether a learned bias per output channel is added; default true
    """

    kernel: Sizes
    stride: Sizes = 1
    padding: Padding = 0
    dilation: Sizes = 1
    multiplier: Count = 1
    bias: bool = True


class ConvTranspose(Keys, frozen=True):
    """A transposed convolution, which enlarges every length by its stride [dumoulin2016].

    channels: number of output channels
    kernel: window size [positions]
    stride: factor by which lengths grow; default 1
    padding: positions removed at each end of the output; default 0
    output_padding: positions added at one end of the output, fewer than the stride; default 0
    groups: number of groups of channels that are convolved separately; default 1
    bias: whether a learned bias per output channel is added; default true
    """

    channels: Count
    kernel: Sizes
    stride: Sizes = 1
    padding: Zeros | tuple[Zeros, ...] = 0
    output_padding: Zeros | tuple[Zeros, ...] = 0
    groups: Count = 1
    bias: bool = True


class Pool(Keys, frozen=True):
    """The maximum or mean of each window.

    kernel: window size [positions]
    stride: distance between windows [positions]; default: the window size
    padding: positions added at each end, at most half the window, "valid" or "same" as in conv;
        default 0
    ceil: whether the last window may reach beyond the end (lengths are rounded up); default false
    """

    kernel: Sizes
    stride: Sizes | None = None
    padding: Padding = 0
    ceil: bool = False


class AdaptivePool(Keys, frozen=True):
    """The maximum or mean of equal windows, as many as the output has positions.

    size: output lengths [positions]
    """

    size: Sizes


class Upsample(Keys, frozen=True):
    """Interpolation to larger lengths. Exactly one of `scale` and `size` must be given.

    scale: factor by which every length grows; default: none
    size: output lengths [positions]; default: none
    mode: "nearest" or "linear" interpolation; default "nearest"
    """

    scale: Count | None = None
    size: Sizes | None = None
    mode: Literal["nearest", "linear"] = "nearest"


class Reshape(Keys, frozen=True):
    """The same elements under another shape, without a copy.

    shape: channels and one to three lengths [positions], without the batch
    """

    shape: tuple[Count, ...]


class Linear(Keys, frozen=True):
    """A linear layer over the last dimension.

    out: number of output features
    in: number of input features, checked against the actual width; default: the actual width
    bias: whether a learned bias per output feature is added; default true
    """

    out: Count
    in_: Count | None = msgspec.field(name="in", default=None)
    bias: bool = True


class GroupNorm(Keys, frozen=True):
    """Group normalization [wu2018].

    groups: number of groups of channels; must divide the number of channels
    """

    groups: Count


class Dropout(Keys, frozen=True):
    """Sets random elements to zero in training.

    p: probability that an element is set to zero; default 0.5
    """

    p: Share = 0.5


class Embedding(Keys, frozen=True):
    """Looks up a learned vector per token id.

    width: elements per vector
    rows: number of vectors, at least the net's vocabulary; default: the net's vocabulary
    """

    width: Count
    rows: Count | None = None


class Recurrent(Keys, frozen=True):
    """An LSTM, a GRU or a plain RNN over the tokens.

    hidden: width of the state, per direction
    layers: number of stacked layers; default 1
    bidirectional: whether a second set of weights runs backward through the tokens; default false
    """

    hidden: Count
    layers: Times = 1
    bidirectional: bool = False


class Attention(Keys, frozen=True):
    """Self-attention with its four projections [vaswani2017].

    heads: number of query heads; must divide the width
    kv_heads: number of key-value heads, which must divide `heads`; default: as many as `heads`
    causal: whether a token sees itself and earlier tokens only; default false
    bias: whether the linear layers have a bias; default true
    dropout: probability that an attention weight is set to zero in training; default 0.0
    """

    heads: Count
    kv_heads: Count | None = None
    causal: bool = False
    bias: bool = True
    dropout: Share = 0.0


class Transformer(Attention, frozen=True):
    """A transformer block: attention and an MLP, each after a norm and with a residual [xiong2020].

    mlp: inner width of the MLP; default: four times the width
    norm: "layer_norm" or "rms_norm"; default "layer_norm"
    activation: activation of the MLP, any elementwise kind; default "gelu"
    gated: whether the MLP is gated, with a third linear layer [shazeer2020]; default false
    """

    mlp: Count | None = None
    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    activation: Activation = "gelu"
    gated: bool = False


class Group(Keys, frozen=True):
    """Layers that run in order under one name.

    layers: the layers, at least one
    """

    layers: Layers


class Residual(Group, frozen=True):
    """The result of `layers` added to the input, or to the result of `shortcut` [he2015].

    shortcut: layers on the second path; default: none, the input itself is added
    """

    shortcut: Layers = []


class Branch(Keys, frozen=True):
    """Lists of layers that all take the same input; their results are joined.

    branches: two or more lists of layers; an empty list passes its input on
    join: "concat" along channels (for tokens, along the width), "add" or "multiply"; default
        "concat"
    """

    branches: list[Layers]
    join: Literal["concat", "add", "multiply"] = "concat"


def meanings(record: type[msgspec.Struct]) -> dict[str, str]:
    """Key -> meaning for all keys of a record, from its docstring and those of its base classes.

    >>> meanings(Dropout)["p"]
    'probability that an element is set to zero; default 0.5'
    """
    found: dict[str, str] = {}
    for base in reversed(record.__mro__):
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            text = re.sub(r"\n {8}", " ", base.__doc__ or "")
            found |= dict(re.findall(r"^ {4}(\w+): (.+)$", text, re.MULTILINE))
    return {key: found[key] for key in record.__struct_encode_fields__}
