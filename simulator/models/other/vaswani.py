"""The Transformer [vaswani2017]: encoder and decoder, norms after the residuals.

One table serves both embeddings and the output layer.
"""

from __future__ import annotations

from functools import partial

from roofcast.simulator.models.families.transformer import heads_of
from roofcast.simulator.models.vision.parts import (
    activation,
    cross_entropy,
    dense,
    dropped,
    layer_norm,
    residual,
)
from roofcast.simulator.work.ops import attention, embedding, linear, pointwise
from roofcast.simulator.work.tape import Tape, Value


def build(
    t: Tape,
    batch: int,
    size: int,
    *,
    vocabulary: int,
    width: int,
    hidden: int,
    heads: int,
    layers: int,
    dropout: float = 0.1,
) -> Value:
    """Source and target have `size` tokens each."""
    with t.op("embedding", "parameter"):
        table = t.parameter(vocabulary, width)
    source = embedded(t, "encoder.embed", batch, size, table, dropout)
    block = partial(encoder_block, t, heads=heads, hidden=hidden, dropout=dropout)
    with t.scope("encoder"):
        memory = t.repeat("layers", layers, block, source)
    target = embedded(t, "decoder.embed", batch, size, table, dropout)

    def decode(x: Value, memory: Value) -> tuple[Value, Value]:
        return decoder_block(t, x, memory, heads, hidden, dropout), memory

    with t.scope("decoder"):
        x, _ = t.repeat("layers", layers, decode, target, memory)
    with t.op("generator", "linear"):
        logits = linear.linear(t, x, vocabulary, bias=False, weight=table)
    return cross_entropy(t, t.view(logits, batch * size, vocabulary))


def embedded(t: Tape, name: str, batch: int, length: int, table: Value, dropout: float) -> Value:
    """Scaled embeddings plus sinusoidal position encodings."""
    ids = t.input((batch, length), "int64")
    with t.op(name, "embedding"):
        x = pointwise.scale(t, embedding.embedding(t, ids, *table.shape, weight=table))
        x = pointwise.add(t, x, t.buffer(length, table.shape[1], dtype=t.precision.activations))
        return pointwise.dropout(t, x, dropout)


def added(t: Tape, name: str, x: Value, h: Value, dropout: float) -> Value:
    """norm(x + dropout(h))."""
    h = dropped(t, f"{name}.dropout", h, dropout)
    return layer_norm(t, name, residual(t, x, h, f"{name}.add"))


def attend(t: Tape, name: str, x: Value, memory: Value, heads: int, *, causal: bool) -> Value:
    """Queries from x, keys and values from `memory`."""
    width = x.shape[-1]
    with t.scope(name):
        q, k, v = (
            heads_of(t, dense(t, n, y, width), heads, width // heads)
            for n, y in (("q_proj", x), ("k_proj", memory), ("v_proj", memory))
        )
        with t.op("attention", "attention"):
            eager = t.implementation("attention", "flash") == "eager"
            shape = (1, 1, x.shape[1], memory.shape[1])
            mask = t.buffer(*shape, dtype=t.precision.activations) if causal else None
            h = attention.attention(t, q, k, v, causal=causal, mask=mask if eager else None)
        return dense(t, "out_proj", h, width)


def feed_forward(t: Tape, x: Value, hidden: int, dropout: float) -> Value:
    """Linear, relu, linear on x [batch, tokens, width]."""
    with t.scope("feed_forward"):
        h = activation(t, "relu", "relu", dense(t, "linear1", x, hidden), in_place=False)
        h = dropped(t, "dropout", h, dropout)
        return dense(t, "linear2", h, x.shape[-1])


def encoder_block(t: Tape, x: Value, heads: int, hidden: int, dropout: float) -> Value:
    """One encoder block; x and the result are [batch, tokens, width]."""
    x = added(t, "norm1", x, attend(t, "self_attn", x, x, heads, causal=False), dropout)
    return added(t, "norm2", x, feed_forward(t, x, hidden, dropout), dropout)


def decoder_block(
    t: Tape, x: Value, memory: Value, heads: int, hidden: int, dropout: float
) -> Value:
    """One decoder block, with attention to the encoder's output `memory`."""
    x = added(t, "norm1", x, attend(t, "self_attn", x, x, heads, causal=True), dropout)
    x = added(t, "norm2", x, attend(t, "cross_attn", x, memory, heads, causal=False), dropout)
    return added(t, "norm3", x, feed_forward(t, x, hidden, dropout), dropout)
