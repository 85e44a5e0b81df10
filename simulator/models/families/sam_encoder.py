"""SAM's image encoder [kirillov2023]: a vision transformer whose layers attend within windows, but
for a few, with relative positions that are added to the scores, decomposed into rows and columns.
"""

from __future__ import annotations

from functools import partial

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.transformer import activate, normed
from roofcast.simulator.models.vision.convnext import channel_norm
from roofcast.simulator.models.vision.parts import convolve, dense, residual
from roofcast.simulator.models.vision.vit import patches
from roofcast.simulator.models.vision.windows import cut, join
from roofcast.simulator.work.ops import attention, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Vision(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's SamVisionConfig, with its defaults."""

    hidden_size: int = 768
    output_channels: int = 256
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 1024
    patch_size: int = 16
    hidden_act: str = "gelu"
    attention_dropout: float = 0.0
    qkv_bias: bool = True
    mlp_ratio: float = 4.0
    use_abs_pos: bool = True
    use_rel_pos: bool = True
    window_size: int = 14
    global_attn_indexes: tuple[int, ...] = (2, 5, 8, 11)
    num_pos_feats: int = 128
    mlp_dim: int | None = None

    def __post_init__(self) -> None:
        if self.hidden_size % max(self.num_attention_heads, 1):
            raise ValueError(
                f"hidden_size ({self.hidden_size}) is not divisible by"
                f" {self.num_attention_heads} heads"
            )

    @property
    def hidden(self) -> int:
        """Width of the MLP."""
        return self.mlp_dim or int(self.hidden_size * self.mlp_ratio)


def encoded(t: Tape, c: Vision, pixels: Value) -> Value:
    """The features [batch, channels, side, side] of images, side / patch_size each way.

    Raises BadInput for images of another side than the config's.
    """
    batch, _, image, _ = pixels.shape
    if image != c.image_size:
        raise BadInput(
            f"image of {image}x{image} pixels: this SAM takes {c.image_size}x{c.image_size}"
            " (image_size of its config.json)"
        )
    side, width = image // c.patch_size, c.hidden_size
    x = patches(t, pixels, width, c.patch_size, "patch_embed.projection")
    x = t.view(x, batch, side, side, width)
    if c.use_abs_pos:
        with t.op("pos_embed", "add"):
            x = pointwise.add(t, x, t.parameter(1, side, side, width))
    whole = [i in c.global_attn_indexes or not c.window_size for i in range(c.num_hidden_layers)]
    x = transformer.layers(t, "layers", whole, partial(block, t, c), x)
    with t.scope("neck"):
        x = t.view(x, batch, width, side, side)
        x = convolve(t, "conv1", x, c.output_channels, 1, bias=False)
        x = channel_norm(t, "layer_norm1", x)
        x = convolve(t, "conv2", x, c.output_channels, 3, padding=1, bias=False)
        return channel_norm(t, "layer_norm2", x)


def block(t: Tape, c: Vision, x: Value, whole: bool) -> Value:
    """One block on x [batch, side, side, width]; it attends within windows unless `whole`."""
    batch, side, _, width = x.shape
    h = normed(t, "layer_norm1", x)
    if whole:
        h = attend(t, c, t.view(h, batch, side * side, width), side)
        h = t.view(h, *x.shape)
    else:
        window = c.window_size
        padded = -(-side // window) * window
        with t.op("window_pad", "copy"):
            h = pointwise.copy(t, h, batch, padded, padded, width)
        h = join(t, attend(t, c, cut(t, h, window), window), batch, padded, padded)
        if padded != side:
            with t.op("window_crop", "copy"):
                h = pointwise.copy(t, h, *x.shape)
    x = residual(t, x, h, "residual_attn")
    h = dense(t, "mlp.lin1", normed(t, "layer_norm2", x), c.hidden)
    with t.op("mlp.act", c.hidden_act):
        h = activate(t, c.hidden_act, h)
    return residual(t, x, dense(t, "mlp.lin2", h, width), "residual_mlp")


def attend(t: Tape, c: Vision, x: Value, side: int) -> Value:
    """Attention of x [batch, side * side, width] with decomposed relative positions."""
    batch, tokens, width = x.shape
    heads = c.num_attention_heads
    dim = width // heads
    with t.scope("attn"):
        qkv = dense(t, "qkv", x, 3 * width, bias=c.qkv_bias)
        with t.op("heads", "copy"):
            qkv = qkv if batch == 1 else pointwise.copy(t, qkv)
        q, k, v = (t.view(qkv, batch, heads, tokens, dim) for _ in range(3))
        bias = relative(t, q, side) if c.use_rel_pos else None
        with t.op("attention", "attention"):
            if t.implementation("attention", "flash") == "eager":
                h = composed(t, c, (q, k, v), bias)
            else:
                h = attention.attention(t, q, k, v, causal=False, bias=bias)
        return dense(t, "proj", h, width)


def composed(t: Tape, c: Vision, qkv: tuple[Value, Value, Value], bias: Value | None) -> Value:
    """Eager attention, which scales the queries and takes the softmax in fp32."""
    q, k, v = qkv
    scores = linear.matmul(t, pointwise.scale(t, q), k, transposed=True)
    if bias is not None:
        scores = pointwise.add(t, scores, bias)
    p = t.cast(norm.softmax(t, scores, dtype="fp32"), q.dtype)
    p = pointwise.dropout(t, p, c.attention_dropout)
    return attention.merged(t, linear.matmul(t, p, v))


def relative(t: Tape, q: Value, side: int) -> Value:
    """What relative positions add to the scores of q [batch, heads, tokens, dim]: the products of
    queries and distances in rows and in columns [batch, heads, tokens, tokens].
    """
    batch, heads, tokens, dim = q.shape
    with t.op("rel_pos", "matmul"):
        parts = []
        for axis in range(2):
            table = resized(t, side, dim)
            shape = side, batch * heads * side, dim
            # queries of a row lie apart in memory, and so do those of the heads of one window
            apart = axis == 0 or batch == 1
            left = pointwise.copy(t, q, *shape) if apart else t.view(q, *shape)
            scores = linear.matmul(t, left, table, transposed=True)
            parts.append(t.view(scores, batch * heads, tokens, side))
        rows, columns = (
            t.view(part, batch * heads, tokens, *shape)
            for part, shape in zip(parts, ((side, 1), (1, side)), strict=True)
        )
        both = pointwise.add(t, rows, columns)
        return pointwise.copy(t, both, batch, heads, tokens, tokens)


def resized(t: Tape, side: int, dim: int) -> Value:
    """A learned vector for each pair of positions along an axis [side, side, dim]."""
    distances = t.parameter(2 * side - 1, dim)
    same = pointwise.copy(t, distances)  # interpolated to the same number of distances
    index = t.new((side, side), "int64")
    t.emit("elementwise", (), (index,), vector=4 * index.size)
    out = t.new((side, side, dim), same.dtype, same.grad)
    t.emit("gather", (same, index), (out,), read=out.bytes + index.bytes)
    if out.grad:
        t.save(index)
        read, written = out.bytes, same.bytes
        t.backward("scatter", vector=out.size, read=read, written=written, product=out.dtype)
    return out
