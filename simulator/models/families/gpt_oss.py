"""gpt-oss: windowed and full layers in turn, attention sinks, experts with biases.

transformers runs its attention eagerly, with the sink's logit as one more column of the scores.
"""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.transformer import (
    Tables,
    causal_loss,
    projections,
    rotary_tables,
)
from roofcast.simulator.work.ops import attention, embedding, linear, moe, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's GptOssConfig, with its defaults."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_local_experts: int
    vocab_size: int = 201088
    num_experts_per_tok: int = 4
    head_dim: int = 64
    num_attention_heads: int = 64
    num_key_value_heads: int = 8
    sliding_window: int | None = 128
    layer_types: list[str] | None = None
    max_position_embeddings: int = 131072
    attention_bias: bool = True
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = False

    @property
    def expert_width(self) -> int:
        """Inner width of an expert."""
        return self.intermediate_size

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings

    def window(self, layer: int) -> int | None:
        """Length of the layer's attention window [tokens]; None: all earlier tokens."""
        sliding = (
            self.layer_types[layer] == "sliding_attention" if self.layer_types else layer % 2 == 0
        )
        return self.sliding_window if sliding else None


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size)
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        tables = rotary_tables(t, sequence, c.head_dim // 2)
        eager = t.implementation("sinks", "eager") == "eager" and not t.generates
        made = transformer.causal_masks(t, sequence, batch, eager=True)
        masks: transformer.Masks = made if eager else lambda window: None
        windows = [c.window(layer) for layer in range(c.num_hidden_layers)]
        x = transformer.layers(
            t, "layers", windows, lambda x, window: block(t, c, x, tables, masks(window), window), x
        )
        x = normed(t, "norm", x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def normed(t: Tape, name: str, x: Value) -> Value:
    """gpt-oss's RMSNorm of x [batch, tokens, width], as an op called `name`."""
    with t.op(name, "rms_norm"):
        return norm.rms_norm(t, x, flavor="gpt_oss")


def block(
    t: Tape, c: Config, x: Value, tables: Tables, mask: Value | None, window: int | None = None
) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    h = normed(t, "input_layernorm", x)
    with t.scope("self_attn"):
        h = self_attention(t, c, h, tables, mask, window)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, x, h)
    h = normed(t, "post_attention_layernorm", x)
    with t.scope("mlp"):
        h = sparse_mlp(t, c, h)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, x, h)


def turn(t: Tape, x: Value, cos: Value, sin: Value) -> Value:
    """Rotary embedding of x [B, H, S, D]: each half of a head apart, then concatenated."""
    half = t.view(x, *x.shape[:-1], x.shape[-1] // 2)
    cos, sin = (t.view(table, 1, *table.shape) for table in (cos, sin))
    turned = [
        pointwise.add(t, pointwise.mul(t, half, cos), pointwise.mul(t, half, sin)) for _ in range(2)
    ]
    return pointwise.concat(t, turned, -1)


def self_attention(
    t: Tape, c: Config, x: Value, tables: Tables, mask: Value | None, window: int | None = None
) -> Value:
    """Self-attention; x and the result are [batch, tokens, width]."""
    heads = {"q_proj": c.num_attention_heads}
    heads |= dict.fromkeys(("k_proj", "v_proj"), c.num_key_value_heads)
    q, k, v = projections(t, x, heads, c.head_dim, bias=c.attention_bias, whole=c.head_dim)
    with t.op("rotary", "rotary"):
        q, k = turn(t, q, *tables), turn(t, k, *tables)
    with t.op("attention", "attention"):
        if t.generates or t.implementation("sinks", "eager") == "flash":
            # a kernel that takes the sinks' logits
            t.parameter(c.num_attention_heads)
            drop = c.attention_dropout
            h = attention.attention(t, q, k, v, causal=True, window=window, dropout=drop)
        else:
            assert mask is not None, "eager attention always has a mask"
            attention.cached(t, k, v, window=window)
            h = sink_attention(t, c, q, k, v, mask)
    with t.op("o_proj", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=c.attention_bias)


def sink_attention(t: Tape, c: Config, q: Value, k: Value, v: Value, mask: Value) -> Value:
    """Softmax over the scores and a learned logit per head, whose column is then dropped."""
    batch, heads, length, _ = q.shape
    grouped = 1 < k.shape[1] < heads
    k, v = attention.repeated(t, k, heads), attention.repeated(t, v, heads)
    k = k if grouped else attention.contiguous(t, t.low(k))
    products = linear.matmul(t, attention.contiguous(t, t.low(q)), k, transposed=True)
    scores = pointwise.add(t, pointwise.scale(t, products), mask)
    sinks = t.view(t.parameter(heads), batch, heads, length, 1)
    logits = pointwise.concat(t, [scores, sinks], -1)
    peak = t.new((batch, heads, length, 1), logits.dtype, logits.grad)
    t.emit("reduce", (logits,), (peak,), vector=logits.size)
    if logits.grad:
        t.keep(8 * peak.size)  # positions of the maxima
        t.backward("scatter", read=9 * peak.size, written=logits.bytes, product=logits.dtype)
    p = norm.softmax(t, pointwise.add(t, logits, peak), dtype=logits.dtype)
    p = t.view(p, batch, heads, length, k.shape[2])
    p = t.cast(pointwise.dropout(t, p, c.attention_dropout), v.dtype)
    v = v if grouped else attention.contiguous(t, t.low(v))
    return attention.merged(t, linear.matmul(t, p, v))


def sparse_mlp(t: Tape, c: Config, h: Value) -> Value:
    """Mixture of experts: the top logits, weighted by a softmax over these."""
    x = t.view(h, h.shape[0] * h.shape[1], c.hidden_size)
    with t.op("router", "router"):
        logits = linear.linear(t, x, c.num_local_experts, parallel=False)
        best, ids = moe.top_k(t, logits, c.num_experts_per_tok)
        scores = norm.softmax(t, best, dtype=best.dtype)
    with t.op("experts", "experts"):
        experts, width = c.num_local_experts, c.intermediate_size
        out = moe.gated_experts(
            t, x, scores, ids, experts, width, lambda y: clamped_gate(t, y), bias=True
        )
    return t.view(out, *h.shape)


def clamped_gate(t: Tape, x: Value) -> Value:
    """(up + 1) * gate * sigmoid(1.702 gate), with gate and up clamped."""
    half = (*x.shape[:-1], x.shape[-1] // 2)
    gate = pointwise.unary(t, "clamp", t.view(x, *half))
    up = pointwise.unary(t, "clamp", t.view(x, *half))
    glu = pointwise.mul(t, gate, pointwise.unary(t, "sigmoid", pointwise.scale(t, gate)))
    return pointwise.mul(t, pointwise.unary(t, "add_scalar", up), glu)
