"""Swin transformer with a classifier, as transformers writes it. From its config.json."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.transformer import activate, heads_of, normed
from roofcast.simulator.work.ops import attention, conv, linear, loss, pointwise
from roofcast.simulator.work.tape import Tape


class Config(msgspec.Struct, frozen=True):
    """Hugging Face SwinConfig, with its defaults for what may be left out; ImageNet's 1000 classes
    unless labels are listed.
    """

    image_size: int = 224
    patch_size: int = 4
    num_channels: int = 3
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: int = 7
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    drop_path_rate: float = 0.1
    hidden_act: str = "gelu"
    use_absolute_embeddings: bool = False
    num_labels: int | None = None
    id2label: dict | None = None

    @property
    def labels(self) -> int:
        """Classes of the head."""
        return self.num_labels or len(self.id2label or ()) or 1000


def build(t: Tape, c: Config, batch: int, image: int):
    """Patches, stages of windowed layers with a merging of four neighbours between, norm, mean,
    classifier.
    """
    pixels = t.input((batch, c.num_channels, image, image))
    side, width = -(-image // c.patch_size), c.embed_dim
    with t.scope("embeddings"):
        with t.op("projection", "conv"):
            if side * c.patch_size != image:
                pixels = pointwise.copy(
                    t, pixels, batch, c.num_channels, side * c.patch_size, side * c.patch_size
                )
            x = t.view(
                conv.conv(t, pixels, width, c.patch_size, stride=c.patch_size),
                batch,
                side * side,
                width,
            )
        x = normed(t, "norm", x)
        if c.use_absolute_embeddings:
            with t.op("position_embeddings", "add"):
                x = pointwise.add(t, x, t.parameter(1, (c.image_size // c.patch_size) ** 2, width))
        with t.op("dropout", "dropout"):
            x = pointwise.dropout(t, x, c.hidden_dropout_prob)
    for stage, (depth, heads) in enumerate(zip(c.depths, c.num_heads, strict=True)):
        first = sum(c.depths[:stage])
        small = side <= c.window_size  # one window holds all: nothing is shifted
        window = min(side, c.window_size)
        # what sets a layer apart: is its window shifted, can its branch be dropped (the rate grows
        # from 0)
        kinds = [
            (
                bool(i % 2) and not small and c.window_size > 1,
                c.drop_path_rate > 0 and first + i > 0,
            )
            for i in range(depth)
        ]
        with t.scope(f"stage{stage}"):
            x = transformer.layers(
                t,
                "blocks",
                kinds,
                lambda x, k, s=side, w=window, h=heads: block(t, c, x, s, w, h, *k),
                x,
            )
            if stage + 1 < len(c.depths):
                x = merge(t, x, side)
        side = -(-side // 2) if stage + 1 < len(c.depths) else side
    x = normed(t, "layernorm", x)
    with t.op("pooler", "reduce"):
        x = pointwise.mean(t, x, 1, keepdim=False)
    with t.op("classifier", "linear"):
        logits = linear.linear(t, x, c.labels)
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        return loss.cross_entropy(t, logits, t.input((batch,), "int64"))


def merge(t: Tape, x, side: int):
    """Four neighbours side by side, normed, projected to twice the width."""
    batch, _, width = x.shape
    half = -(-side // 2)
    with t.scope("downsample"):
        with t.op("concat", "concat"):
            x = pointwise.copy(t, x, batch, half * half, 4 * width)
        x = normed(t, "norm", x)
        with t.op("reduction", "linear"):
            return linear.linear(t, x, 2 * width, bias=False)


def block(
    t: Tape, c: Config, x, side: int, window: int, heads: int, shifted: bool, droppable: bool
):
    """One layer: attention within windows of x[batch, tokens, width], then the MLP."""
    batch, tokens, width = x.shape
    windows, area = (-(-side // window)) ** 2, window * window
    h = normed(t, "layernorm_before", x)
    with t.op("windows", "copy"):
        if shifted:
            h = pointwise.copy(t, h)
        h = pointwise.copy(t, h, batch * windows, area, width)
    with t.scope("attention"):
        h = attend(t, c, h, heads, windows if shifted else 0)
    with t.op("back", "copy"):
        h = pointwise.dropout(t, h, c.hidden_dropout_prob)
        h = pointwise.copy(t, h, batch, tokens, width)
        if shifted:
            h = pointwise.copy(t, h)
        if droppable:
            h = pointwise.mul(t, pointwise.scale(t, h), t.new((batch, 1, 1), h.dtype))
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, x, h)
    h = normed(t, "layernorm_after", x)
    with t.scope("mlp"):
        with t.op("fc1", "linear"):
            h = linear.linear(t, h, int(c.mlp_ratio * width))
        with t.op("activation_fn", c.hidden_act):
            h = activate(t, c.hidden_act, h)
        with t.op("fc2", "linear"):
            h = linear.linear(t, h, width)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, pointwise.dropout(t, h, c.hidden_dropout_prob), x)


def attend(t: Tape, c: Config, x, heads: int, masked_windows: int):
    """Attention inside windows, with a learned bias by relative position; shifted windows are
    masked besides.
    """
    rows, area, width = x.shape
    parts = []
    for name in ("q_proj", "k_proj", "v_proj"):
        with t.op(name, "linear"):
            parts.append(
                heads_of(t, linear.linear(t, x, width, bias=c.qkv_bias), heads, width // heads)
            )
    with t.op("relative_position_bias", "gather"):
        table = t.parameter((2 * c.window_size - 1) ** 2, heads)
        bias = t.new((1, heads, area, area), table.dtype, table.grad)
        t.emit("gather", (table,), (bias,))
        if bias.grad:
            t.backward(
                "scatter",
                vector=bias.size,
                read=bias.bytes,
                written=table.bytes,
                product=table.dtype,
            )
        if masked_windows:
            bias = pointwise.add(t, bias, t.new((rows, 1, area, area), x.dtype))
    with t.op("attention", "attention"):
        h = attention.attention(
            t,
            *parts,
            causal=False,
            bias=bias,
            softmax_fp32=True,
            dropout=c.attention_probs_dropout_prob,
        )
    with t.op("o_proj", "linear"):
        return linear.linear(t, h, width)
