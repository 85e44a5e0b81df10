"""OPT."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.transformer import activate, causal_loss, heads_of
from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

OFFSET = 2  # first rows of the position table, never used


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's OPTConfig, with its defaults."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    ffn_dim: int
    max_position_embeddings: int = 2048
    do_layer_norm_before: bool = True
    word_embed_proj_dim: int | None = None
    activation_function: str = "relu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    enable_bias: bool = True
    layer_norm_elementwise_affine: bool = True
    tie_word_embeddings: bool = True
    _remove_final_layer_norm: bool = False

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings

    @property
    def embedding_size(self) -> int:
        """Width of the vocabulary table."""
        return self.word_embed_proj_dim or self.hidden_size


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding and learned positions, n x [norm, attention, norm, MLP], norm, head."""
    ids = t.input((batch, sequence), "int64")
    projected = c.embedding_size != c.hidden_size
    with t.scope("model.decoder"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, c.embedding_size)
            x = embedding.embedding(t, ids, c.vocab_size, c.embedding_size, weight=table)
        if projected:
            with t.op("project_in", "linear"):
                x = linear.linear(t, x, c.hidden_size, bias=False)
        with t.op("embed_positions", "embedding"):
            places = t.new((batch, sequence), "int64")
            rows = c.max_position_embeddings + OFFSET
            positions = embedding.embedding(t, places, rows, c.hidden_size)
            x = pointwise.add(t, x, positions)
        mask = transformer.causal_masks(t, sequence, batch)()
        x = t.repeat("layers", c.num_hidden_layers, lambda x: block(t, c, x, mask), x)
        if c.do_layer_norm_before and not c._remove_final_layer_norm:
            x = normed(t, c, "final_layer_norm", x)
        if projected:
            with t.op("project_out", "linear"):
                x = linear.linear(t, x, c.embedding_size, bias=False)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def normed(t: Tape, c: Config, name: str, x: Value) -> Value:
    """LayerNorm of x [batch, tokens, width], as an op called `name`."""
    with t.op(name, "layer_norm"):
        return norm.layer_norm(t, x, affine=c.layer_norm_elementwise_affine)


def block(t: Tape, c: Config, x: Value, mask: Value | None) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    dim = c.hidden_size // c.num_attention_heads
    h = normed(t, c, "self_attn_layer_norm", x) if c.do_layer_norm_before else x
    with t.scope("self_attn"):
        heads = []
        for name in ("q_proj", "k_proj", "v_proj"):
            with t.op(name, "linear"):
                y = linear.linear(t, h, c.hidden_size, bias=c.enable_bias)
                y = pointwise.scale(t, y) if name == "q_proj" else y
                heads.append(heads_of(t, y, c.num_attention_heads, dim))
        with t.op("attention", "attention"):
            h = attention.attention(
                t, *heads, causal=True, mask=mask, softmax_fp32=True, dropout=c.attention_dropout
            )
        with t.op("out_proj", "linear"):
            h = linear.linear(t, h, c.hidden_size, bias=c.enable_bias)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, x, pointwise.dropout(t, h, c.dropout))
    if not c.do_layer_norm_before:
        x = normed(t, c, "self_attn_layer_norm", x)
    h = normed(t, c, "final_layer_norm", x) if c.do_layer_norm_before else x
    with t.op("fc1", "linear"):
        h = linear.linear(t, h, c.ffn_dim, bias=c.enable_bias)
    with t.op("activation_fn", c.activation_function):
        h = activate(t, c.activation_function, h)
    with t.op("fc2", "linear"):
        h = linear.linear(t, h, c.hidden_size, bias=c.enable_bias)
    with t.op("residual_mlp", "add"):
        x = pointwise.add(t, x, pointwise.dropout(t, h, c.dropout))
    return x if c.do_layer_norm_before else normed(t, c, "final_layer_norm", x)
