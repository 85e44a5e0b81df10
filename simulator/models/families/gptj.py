"""GPT-J: attention parallel to the MLP, rotary embeddings by pairs, fp32 attention scores.

transformers has no fused attention for it.
"""

from __future__ import annotations

from roofcast.simulator.models.families import gpt2
from roofcast.simulator.models.families.transformer import (
    activate,
    causal_loss,
    causal_mask,
    projections,
)
from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(gpt2.Config, frozen=True):
    """Keys of Hugging Face's GPTJConfig: those of GPT-2 and one more, with its own defaults."""

    n_positions: int = 2048
    rotary_dim: int | None = 64
    resid_pdrop: float = 0.0
    embd_pdrop: float = 0.0
    attn_pdrop: float = 0.0
    tie_word_embeddings: bool = False


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("transformer"):
        with t.op("wte", "embedding"):
            table = t.vocabulary(c.vocab_size, c.n_embd)
            x = embedding.embedding(t, ids, c.vocab_size, c.n_embd, weight=table)
        with t.op("drop", "dropout"):
            x = pointwise.dropout(t, x, c.embd_pdrop)
        mask = causal_mask(t, sequence, batch)
        x = t.repeat("h", c.n_layer, lambda x: block(t, c, x, mask), x)
        with t.op("ln_f", "layer_norm"):
            x = norm.layer_norm(t, x)
    tied = table if c.tie_word_embeddings else None
    return causal_loss(t, x, c.vocab_size, weight=tied, bias=True)


def block(t: Tape, c: Config, x: Value, mask: Value) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    with t.op("ln_1", "layer_norm"):
        n = norm.layer_norm(t, x)
    with t.scope("attn"):
        h = self_attention(t, c, n, mask)
    with t.scope("mlp"):
        with t.op("fc_in", "linear"):
            m = linear.linear(t, n, c.n_inner or 4 * c.n_embd)
        with t.op("act", c.activation_function):
            m = activate(t, c.activation_function, m)
        with t.op("fc_out", "linear"):
            m = linear.linear(t, m, c.n_embd)
        with t.op("dropout", "dropout"):
            m = pointwise.dropout(t, m, c.resid_pdrop)
    with t.op("residual", "add"):
        return pointwise.add(t, pointwise.add(t, h, m), x)


def rotate_pairs(t: Tape, c: Config, x: Value) -> Value:
    """Rotary embedding of neighbouring pairs of elements of x [B, H, S, D].

    The tables are expanded to all elements anew for each tensor of each layer.
    """
    width = c.rotary_dim or x.shape[-1]
    cos, sin = (t.new((1, 1, x.shape[2], width), x.dtype) for _ in range(2))
    t.emit("copy", (), (cos, sin))
    part = t.view(x, *x.shape[:-1], width)
    half = t.view(x, *x.shape[:-1], width // 2)
    turned = pointwise.concat(t, [pointwise.unary(t, "neg", half), half], -1)
    part = pointwise.add(t, pointwise.mul(t, part, cos), pointwise.mul(t, turned, sin))
    if c.rotary_dim is None:
        return part
    return pointwise.concat(t, [part, t.view(x, *x.shape[:-1], x.shape[-1] - width)], -1)


def self_attention(t: Tape, c: Config, x: Value, mask: Value) -> Value:
    """Self-attention; x and the result are [batch, tokens, width]."""
    heads = dict.fromkeys(("q_proj", "k_proj", "v_proj"), c.n_head)
    q, k, v = projections(t, x, heads, c.n_embd // c.n_head, bias=False)
    with t.op("rotary", "rotary"):
        q, k = rotate_pairs(t, c, q), rotate_pairs(t, c, k)
    with t.op("attention", "attention"):
        h = attended(t, c, q, k, v, mask)
    with t.op("out_proj", "linear"):
        return pointwise.dropout(t, linear.linear(t, h, c.n_embd, bias=False), c.resid_pdrop)


def attended(t: Tape, c: Config, q: Value, k: Value, v: Value, mask: Value) -> Value:
    """Eager attention with fp32 scores: q, k, v [B, H, S, D] -> [B, S, H D]."""
    if t.generates:
        return attention.over_cache(t, q, k, v)
    attention.cached(t, k, v)
    q, k = (attention.contiguous(t, t.low(t.cast(y, "fp32"))) for y in (q, k))
    scores = pointwise.add(t, pointwise.scale(t, linear.matmul(t, q, k, transposed=True)), mask)
    p = pointwise.dropout(t, t.cast(norm.softmax(t, scores), v.dtype), c.attn_pdrop)
    return attention.merged(t, linear.matmul(t, p, attention.contiguous(t, t.low(v))))
