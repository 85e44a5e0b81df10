"""CodeGen: attention parallel to the MLP, rotary embeddings by pairs in fp32."""

from __future__ import annotations

from roofcast.simulator.models.families import gptj, transformer
from roofcast.simulator.models.families.transformer import (
    Tables,
    activate,
    causal_loss,
    heads_of,
    normed,
)
from roofcast.simulator.work.ops import attention, embedding, linear, pointwise
from roofcast.simulator.work.tape import Tape, Value

SHARDS = 4  # parts of the product of queries, values and keys, from CodeGen's training


class Config(gptj.Config, frozen=True):
    """Keys of Hugging Face's CodeGenConfig: those of GPT-J."""


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [norm, attention parallel to the MLP], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("transformer"):
        with t.op("wte", "embedding"):
            table = t.vocabulary(c.vocab_size, c.n_embd)
            x = embedding.embedding(t, ids, c.vocab_size, c.n_embd, weight=table)
            x = pointwise.dropout(t, x, c.embd_pdrop)
        with t.op("rotary_emb", "rotary"):
            width = c.rotary_dim or c.n_embd
            table_ = t.new((1, sequence, width), "fp32")
            t.emit("gather", (), (table_,), read=table_.bytes)
        mask = transformer.causal_masks(t, sequence, batch)()
        x = t.repeat("h", c.n_layer, lambda x: block(t, c, x, table_, mask), x)
        x = normed(t, "ln_f", x)
    tied = table if c.tie_word_embeddings else None
    return causal_loss(t, x, c.vocab_size, weight=tied, bias=True)


def block(t: Tape, c: Config, x: Value, table: Value, mask: Value | None) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    n = normed(t, "ln_1", x)
    with t.scope("attn"):
        h = self_attention(t, c, n, table, mask)
    with t.scope("mlp"):
        with t.op("fc_in", "linear"):
            m = linear.linear(t, n, c.n_inner or 4 * c.n_embd)
        with t.op("act", c.activation_function):
            m = activate(t, c.activation_function, m)
        with t.op("fc_out", "linear"):
            m = pointwise.dropout(t, linear.linear(t, m, c.n_embd), c.resid_pdrop)
    with t.op("residual", "add"):
        return pointwise.add(t, pointwise.add(t, h, m), x)


def self_attention(t: Tape, c: Config, x: Value, table: Value, mask: Value | None) -> Value:
    """Self-attention; x and the result are [batch, tokens, width]."""
    heads, dim = c.n_head, c.n_embd // c.n_head
    with t.op("qkv_proj", "linear"):
        y = linear.linear(t, x, 3 * c.n_embd, bias=False)
        q = heads_of(t, t.view(y, *y.shape[:2], c.n_embd), heads, dim)
        q = k = v = q
        if heads != SHARDS:  # heads lie in parts of the product, one after another in each
            q, k, v = (pointwise.copy(t, q) for _ in range(3))
    with t.op("rotary", "rotary"):
        q, k = (rotated(t, c, z, table) for z in (q, k))
    with t.op("attention", "attention"):
        if mask is not None and t.parallel.cp == 1:
            h = gptj.attended(t, c, q, k, v, mask)
        else:
            h = attention.attention(t, q, k, v, causal=True, mask=mask, dropout=c.attn_pdrop)
    with t.op("out_proj", "linear"):
        return pointwise.dropout(t, linear.linear(t, h, c.n_embd, bias=False), c.resid_pdrop)


def rotated(t: Tape, c: Config, x: Value, table: Value) -> Value:
    """x [B, H, S, D] with rotary embeddings in fp32, whose tables are expanded anew."""
    pair: Tables = pointwise.copy(t, table), pointwise.copy(t, table)
    return t.cast(transformer.rotate(t, x, *pair, partial=c.rotary_dim is not None), x.dtype)
