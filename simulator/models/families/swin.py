"""Swin transformer with a classifier, as in transformers."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.transformer import activate, normed, projections
from roofcast.simulator.work.ops import attention, conv, linear, loss, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's SwinConfig, with its defaults."""

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
    id2label: dict[str, str] | None = None

    @property
    def labels(self) -> int:
        """Classes of an image; two where the config names none."""
        return self.num_labels or len(self.id2label or ()) or 2


def build(t: Tape, c: Config, batch: int, image: int) -> Value:
    """Patches, stages of windowed layers with patch merging in between, norm, mean, classifier."""
    side = -(-image // c.patch_size)
    x = embedded(t, c, t.input((batch, c.num_channels, image, image)), side)
    for stage, heads in enumerate(c.num_heads):
        with t.scope(f"stage{stage}"):
            x = layers(t, c, x, side, stage, heads)
            if stage + 1 < len(c.depths):
                x = merge(t, x, side)
                side = -(-side // 2)
    x = normed(t, "layernorm", x)
    with t.op("pooler", "reduce"):
        x = pointwise.mean(t, x, 1, keepdim=False)
    with t.op("classifier", "linear"):
        logits = linear.linear(t, x, c.labels)
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        return loss.cross_entropy(t, logits, t.input((batch,), "int64"))


def embedded(t: Tape, c: Config, pixels: Value, side: int) -> Value:
    """Images [B, C, H, W] as side x side normalized patches [B, tokens, width]."""
    (batch, channels, image, _), width, patch = pixels.shape, c.embed_dim, c.patch_size
    with t.scope("embeddings"):
        with t.op("projection", "conv"):
            if side * patch != image:
                pixels = pointwise.copy(t, pixels, batch, channels, side * patch, side * patch)
            x = conv.conv(t, pixels, width, patch, stride=patch)
            x = t.view(x, batch, side * side, width)
        x = normed(t, "norm", x)
        if c.use_absolute_embeddings:
            with t.op("position_embeddings", "add"):
                x = pointwise.add(t, x, t.parameter(1, (c.image_size // patch) ** 2, width))
        with t.op("dropout", "dropout"):
            return pointwise.dropout(t, x, c.hidden_dropout_prob)


def layers(t: Tape, c: Config, x: Value, side: int, stage: int, heads: int) -> Value:
    """The blocks of one stage on x [batch, side * side, width]."""
    first = sum(c.depths[:stage])
    small = side <= c.window_size  # one window holds the whole image: nothing is shifted
    window = min(side, c.window_size)
    # (shifted, droppable): the probability of dropping a branch grows from 0 at the first block
    kinds = [
        (bool(i % 2) and not small and c.window_size > 1, c.drop_path_rate > 0 and first + i > 0)
        for i in range(c.depths[stage])
    ]
    return transformer.layers(
        t, "blocks", kinds, lambda x, kind: block(t, c, x, side, window, heads, *kind), x
    )


def merge(t: Tape, x: Value, side: int) -> Value:
    """Patch merging: 2 x 2 tokens concatenated, normalized, projected to twice the width."""
    batch, _, width = x.shape
    half = -(-side // 2)
    with t.scope("downsample"):
        with t.op("concat", "concat"):
            x = pointwise.copy(t, x, batch, half * half, 4 * width)
        x = normed(t, "norm", x)
        with t.op("reduction", "linear"):
            return linear.linear(t, x, 2 * width, bias=False)


def block(
    t: Tape, c: Config, x: Value, side: int, window: int, heads: int, shifted: bool, droppable: bool
) -> Value:
    """Attention within windows, then the MLP; x and the result are [batch, tokens, width]."""
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


def attend(t: Tape, c: Config, x: Value, heads: int, masked_windows: int) -> Value:
    """Attention within windows, with a learned bias per relative position.

    `masked_windows` is not zero if the windows are shifted; those are masked.
    """
    rows, area, width = x.shape
    names = dict.fromkeys(("q_proj", "k_proj", "v_proj"), heads)
    q, k, v = projections(t, x, names, width // heads, bias=c.qkv_bias)
    with t.op("relative_position_bias", "gather"):
        table = t.parameter((2 * c.window_size - 1) ** 2, heads)
        bias = t.new((1, heads, area, area), table.dtype, table.grad)
        t.emit("gather", (table,), (bias,))
        if bias.grad:
            read, written = bias.bytes, table.bytes
            t.backward("scatter", vector=bias.size, read=read, written=written, product=table.dtype)
        if masked_windows:
            bias = pointwise.add(t, bias, t.new((rows, 1, area, area), x.dtype))
    with t.op("attention", "attention"):
        drop = c.attention_probs_dropout_prob
        h = attention.attention(
            t, q, k, v, causal=False, bias=bias, softmax_fp32=True, dropout=drop
        )
    with t.op("o_proj", "linear"):
        return linear.linear(t, h, width)
