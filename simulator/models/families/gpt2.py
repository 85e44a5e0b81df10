"""GPT-2."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families.transformer import (
    activate,
    causal_loss,
    causal_mask,
    heads_of,
)
from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's GPT2Config, with its defaults."""

    vocab_size: int
    n_embd: int
    n_layer: int
    n_head: int
    n_positions: int = 1024
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    tie_word_embeddings: bool = True
    kept_head_dim: int | None = None  # width of a head, where heads were pruned

    @property
    def dim(self) -> int:
        """Width of one head."""
        return self.kept_head_dim or self.n_embd // self.n_head

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.n_positions


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("transformer"):
        with t.op("wte", "embedding"):
            table = t.vocabulary(c.vocab_size, c.n_embd)
            x = embedding.embedding(t, ids, c.vocab_size, c.n_embd, weight=table)
        with t.op("wpe", "embedding"):
            places = t.new((1, sequence), "int64")
            positions = embedding.embedding(t, places, c.n_positions, c.n_embd)
        with t.op("drop", "dropout"):
            x = pointwise.dropout(t, pointwise.add(t, x, positions), c.embd_pdrop)
        eager = t.implementation("attention", "flash") == "eager"
        mask = causal_mask(t, sequence) if eager else None
        x = t.repeat("h", c.n_layer, lambda x: block(t, c, x, mask), x)
        with t.op("ln_f", "layer_norm"):
            x = norm.layer_norm(t, x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def block(t: Tape, c: Config, x: Value, mask: Value | None) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    with t.op("ln_1", "layer_norm"):
        h = norm.layer_norm(t, x)
    with t.scope("attn"):
        with t.op("c_attn", "linear"):
            width = c.n_head * c.dim
            qkv = linear.linear(t, h, 3 * width)
        q = heads_of(t, t.view(qkv, *qkv.shape[:2], width), c.n_head, c.dim)
        with t.op("attention", "attention"):
            h = attention.attention(t, q, q, q, causal=True, mask=mask, dropout=c.attn_pdrop)
        with t.op("c_proj", "linear"):
            h = linear.linear(t, h, c.n_embd)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, x, pointwise.dropout(t, h, c.resid_pdrop))
    with t.op("ln_2", "layer_norm"):
        h = norm.layer_norm(t, x)
    with t.scope("mlp"):
        with t.op("c_fc", "linear"):
            h = linear.linear(t, h, c.n_inner or 4 * c.n_embd)
        with t.op("act", c.activation_function):
            h = activate(t, c.activation_function, h)
        with t.op("c_proj", "linear"):
            h = linear.linear(t, h, c.n_embd)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, x, pointwise.dropout(t, h, c.resid_pdrop))
