"""SegFormer [xie2021]: a hierarchical transformer whose keys and values are reduced in space, and a
decoder of linear layers that classifies each pixel; or a classifier of images.
"""

from __future__ import annotations

import msgspec

from roofcast.hwdb.errors import BadInput, number_of
from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.diffusion import check_sizes
from roofcast.simulator.models.families.transformer import activate, heads_of, normed
from roofcast.simulator.models.vision.parts import (
    batch_norm,
    classify,
    convolve,
    cross_entropy,
    dense,
    dropped,
    residual,
)
from roofcast.simulator.models.vision.windows import divided_drop_path as drop_path
from roofcast.simulator.work.ops import attention, conv, linear, pointwise
from roofcast.simulator.work.tape import Tape, Value

CLASSIFIER = "SegformerForImageClassification"
SIZE = 512  # default side of an image [pixels], that of ADE20K


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's SegformerConfig, with its defaults."""

    num_channels: int = 3
    num_encoder_blocks: int = 4
    depths: tuple[int, ...] = (2, 2, 2, 2)
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)
    hidden_sizes: tuple[int, ...] = (32, 64, 160, 256)
    patch_sizes: tuple[int, ...] = (7, 3, 3, 3)
    strides: tuple[int, ...] = (4, 2, 2, 2)
    num_attention_heads: tuple[int, ...] = (1, 2, 5, 8)
    mlp_ratios: tuple[float, ...] = (4, 4, 4, 4)
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    classifier_dropout_prob: float = 0.1
    drop_path_rate: float = 0.1
    decoder_hidden_size: int = 256
    reshape_last_stage: bool = True
    num_labels: int | None = None
    id2label: dict[str, str] | None = None
    architectures: tuple[str, ...] | None = None

    @property
    def size(self) -> int:
        """Default side of the image [pixels]."""
        return 224 if self.classifies else SIZE

    @property
    def classifies(self) -> bool:
        """Whether the class is the classifier of images."""
        return CLASSIFIER in (self.architectures or ())

    @property
    def labels(self) -> int:
        """Classes of a pixel or an image; two where the config names none."""
        return self.num_labels or len(self.id2label or ()) or 2

    def __post_init__(self) -> None:
        check_sizes(self)
        for key in (
            "depths sr_ratios hidden_sizes patch_sizes strides num_attention_heads mlp_ratios"
        ).split():
            found = getattr(self, key)
            if len(found) != self.num_encoder_blocks:
                raise ValueError(
                    f"{key} has {number_of(len(found), 'entry', 'entries')}; num_encoder_blocks is"
                    f" {self.num_encoder_blocks}"
                )
        for width, heads in zip(self.hidden_sizes, self.num_attention_heads, strict=True):
            if width % heads:
                raise ValueError(f"hidden_sizes: {width} is not divisible by {heads} heads")


def build(t: Tape, c: Config, batch: int, image: int) -> Value:
    """One step on `batch` images of `image` x `image` pixels: the loss, or the logits."""
    x = t.input((batch, c.num_channels, image, image))
    maps = []
    for stage in range(c.num_encoder_blocks):
        with t.scope(f"segformer.stages.{stage}"):
            x = encoded(t, c, stage, x)
        maps.append(x)
    if c.classifies:
        with t.op("pool", "reduce"):
            tokens = x.shape[2] * x.shape[3]
            x = pointwise.mean(t, t.view(x, batch, tokens, x.shape[1]), 1, keepdim=False)
        return classify(t, x, c.labels, name="classifier")
    with t.scope("decode_head"):
        logits = decoded(t, c, maps)
    if not t.training:
        return logits
    with t.op("upsample", "resize"):
        logits = conv.resize(t, logits, image, kind="bilinear")
    return cross_entropy(t, t.view(logits, batch, image, image, c.labels))


def encoded(t: Tape, c: Config, stage: int, x: Value) -> Value:
    """One stage on x [B, C, H, W]: overlapping patches, blocks, a norm; as [B, C, H, W] again."""
    width, patch = c.hidden_sizes[stage], c.patch_sizes[stage]
    x = convolve(
        t, "patch_embeddings.proj", x, width, patch, stride=c.strides[stage], padding=patch // 2
    )
    batch, _, side, _ = x.shape
    if side < c.sr_ratios[stage]:
        raise BadInput(
            f"stage {stage} reduces windows of {c.sr_ratios[stage]}x{c.sr_ratios[stage]}, but its"
            f" input is {side}x{side}: use larger images"
        )
    x = normed(t, "patch_embeddings.layer_norm", t.view(x, batch, side * side, width))
    first = sum(c.depths[:stage])
    kinds = [c.drop_path_rate > 0 and first + i > 0 for i in range(c.depths[stage])]
    x = transformer.layers(
        t, "blocks", kinds, lambda x, drops: block(t, c, stage, x, side, drops), x
    )
    x = normed(t, "layer_norm", x)
    with t.op("reshape", "copy"):
        return pointwise.copy(t, x, batch, width, side, side)


def block(t: Tape, c: Config, stage: int, x: Value, side: int, drops: bool) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    h = attend(t, c, stage, normed(t, "layernorm_before", x), side)
    h = dropped(t, "hidden_dropout", h, c.hidden_dropout_prob)
    h = drop_path(t, "drop_path", h, c.drop_path_rate if drops else 0)
    x = residual(t, h, x, "residual_attn")
    h = mixed(t, c, normed(t, "layernorm_after", x), side, int(x.shape[-1] * c.mlp_ratios[stage]))
    h = drop_path(t, "drop_path_mlp", h, c.drop_path_rate if drops else 0)
    return residual(t, h, x, "residual_mlp")


def attend(t: Tape, c: Config, stage: int, x: Value, side: int) -> Value:
    """Attention of all tokens to keys and values of a smaller image."""
    batch, tokens, width = x.shape
    heads, ratio = c.num_attention_heads[stage], c.sr_ratios[stage]
    with t.scope("attention"):
        q = heads_of(t, dense(t, "q_proj", x, width), heads, width // heads)
        if ratio > 1:
            small = t.view(x, batch, width, side, side)
            small = convolve(t, "sequence_reduction", small, width, ratio, stride=ratio)
            small = t.view(small, batch, small.shape[2] * small.shape[3], width)
            x = normed(t, "sequence_reduction.layer_norm", small)
        k, v = (
            heads_of(t, dense(t, name, x, width), heads, width // heads)
            for name in ("k_proj", "v_proj")
        )
        with t.op("attention", "attention"):
            drop = c.attention_probs_dropout_prob
            h = attention.attention(t, q, k, v, causal=False, dropout=drop, softmax_fp32=True)
        return dense(t, "o_proj", h, width)


def mixed(t: Tape, c: Config, x: Value, side: int, hidden: int) -> Value:
    """The MLP, with a depthwise convolution before its activation."""
    batch, tokens, width = x.shape
    with t.scope("mlp"):
        h = dense(t, "fc1", x, hidden)
        h = t.view(h, batch, hidden, side, side)
        h = convolve(t, "dwconv", h, hidden, 3, padding=1, groups=hidden)
        with t.op("activation_fn", c.hidden_act):
            h = activate(t, c.hidden_act, t.view(h, batch, tokens, hidden))
        h = dropped(t, "dropout", h, c.hidden_dropout_prob)
        h = dense(t, "fc2", h, width)
        return dropped(t, "dropout2", h, c.hidden_dropout_prob)


def decoded(t: Tape, c: Config, maps: list[Value]) -> Value:
    """The maps of all stages in one width and size, joined and classified: [B, labels, H, W]."""
    width, parts = c.decoder_hidden_size, []
    batch, _, side, _ = maps[0].shape
    for i, x in enumerate(maps):
        _, channels, own, _ = x.shape
        x = t.view(x, batch, own * own, channels)
        with t.op(f"linear_projections.{i}", "linear"):
            x = x if batch == 1 else pointwise.copy(t, x)  # of channels last
            h = linear.linear(t, x, width)
        h = t.view(h, batch, width, own, own)
        with t.op(f"upsample.{i}", "resize"):
            parts.append(conv.resize(t, h, side, kind="bilinear"))
    with t.op("concat", "concat"):
        x = pointwise.concat(t, parts[::-1], 1)
    x = convolve(t, "linear_fuse", x, width, 1, bias=False)
    x = batch_norm(t, "batch_norm", x)
    with t.op("activation", "relu"):
        x = pointwise.unary(t, "relu", x)
    x = dropped(t, "dropout", x, c.classifier_dropout_prob)
    return convolve(t, "classifier", x, c.labels, 1)
