"""Decoders with layer norms, rotary embeddings and plain MLPs: GPT-NeoX, Phi-1/2, StarCoder2."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.transformer import (
    Tables,
    activate,
    causal_loss,
    heads_of,
    normed,
    projections,
    rotary_tables,
    rotate,
)
from roofcast.simulator.work.ops import attention, embedding, linear, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's GPTNeoXConfig, PhiConfig, Starcoder2Config, with their defaults."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    hidden_act: str | None = None
    max_position_embeddings: int | None = None
    attention_bias: bool = True
    use_bias: bool = True
    use_parallel_residual: bool = True
    qk_layernorm: bool = False
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0
    residual_dropout: float = 0.0
    embedding_dropout: float = 0.0
    resid_pdrop: float = 0.0
    embd_pdrop: float = 0.0
    sliding_window: int | None = None
    tie_word_embeddings: bool | None = None
    rotary_pct: float | None = None
    partial_rotary_factor: float | None = None
    rope_parameters: dict | None = None

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings or (4096 if self.starcoder else 2048)

    @property
    def starcoder(self) -> bool:
        """Whether the model is StarCoder2."""
        return self.model_type == "starcoder2"

    @property
    def phi(self) -> bool:
        """Whether the model is Phi."""
        return self.model_type == "phi"

    @property
    def fused(self) -> bool:
        """Whether q, k and v come from one product."""
        return self.model_type == "gpt_neox"

    @property
    def groups(self) -> int:
        """Number of key-value heads."""
        return self.num_key_value_heads or (2 if self.starcoder else self.num_attention_heads)

    @property
    def dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def rotary_dim(self) -> int:
        """Elements of a head that rotary embeddings rotate."""
        if self.starcoder:
            return self.dim
        share = (self.rope_parameters or {}).get("partial_rotary_factor")
        default = (self.rotary_pct or 0.25) if self.fused else (self.partial_rotary_factor or 0.5)
        share = share or default
        return int(self.dim * share)

    @property
    def activation(self) -> str:
        """Activation of the MLP."""
        default = {"gpt_neox": "gelu", "phi": "gelu_new", "starcoder2": "gelu_pytorch_tanh"}
        return self.hidden_act or default[self.model_type]

    @property
    def bias(self) -> bool:
        """Whether the MLP has biases; GPT-NeoX has `attention_bias` for those of attention."""
        return self.use_bias or not self.starcoder

    @property
    def dropout(self) -> float:
        """Dropout probability before a residual is added."""
        return {
            "gpt_neox": self.hidden_dropout,
            "phi": self.resid_pdrop,
            "starcoder2": self.residual_dropout,
        }[self.model_type]

    @property
    def tied(self) -> bool:
        """Whether the head shares the vocabulary table."""
        return self.starcoder if self.tie_word_embeddings is None else self.tie_word_embeddings


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [norm, attention, norm, MLP] (parallel or sequential), norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size)
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
            drop = {"gpt_neox": c.hidden_dropout, "phi": c.embd_pdrop}
            x = pointwise.dropout(t, x, drop.get(c.model_type, c.embedding_dropout))
        tables = rotary_tables(t, sequence, c.rotary_dim)
        window = c.sliding_window if c.starcoder else None
        mask = transformer.causal_masks(t, sequence, batch)(window)
        x = t.repeat(
            "layers", c.num_hidden_layers, lambda x: block(t, c, x, tables, mask, window), x
        )
        x = normed(t, "final_layer_norm", x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tied else None, bias=c.phi)


def block(
    t: Tape, c: Config, x: Value, tables: Tables, mask: Value | None, window: int | None
) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    parallel = c.phi or (c.fused and c.use_parallel_residual)
    n = normed(t, "input_layernorm", x)
    with t.scope("attention"):
        h = self_attention(t, c, n, tables, mask, window)
        h = pointwise.dropout(t, h, c.dropout)
    if not parallel:
        with t.op("residual_attn", "add"):
            x = pointwise.add(t, x, h)
    if not c.phi:
        n = normed(t, "post_attention_layernorm", x)
    with t.scope("mlp"):
        m = mlp(t, c, n)
    with t.op("residual_mlp", "add"):
        m = pointwise.dropout(t, m, c.dropout)
        return pointwise.add(t, pointwise.add(t, m, h), x) if parallel else pointwise.add(t, x, m)


def mlp(t: Tape, c: Config, x: Value) -> Value:
    """The MLP of x [batch, tokens, width]."""
    with t.op("fc_in", "linear"):
        h = linear.linear(t, x, c.intermediate_size, bias=c.bias)
    with t.op("act", c.activation):
        h = activate(t, c.activation, h)
    with t.op("fc_out", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=c.bias)


def self_attention(
    t: Tape, c: Config, x: Value, tables: Tables, mask: Value | None, window: int | None
) -> Value:
    """Self-attention; x and the result are [batch, tokens, width]."""
    heads, groups, dim = c.num_attention_heads, c.groups, c.dim
    bias = c.attention_bias if c.fused else c.bias
    if c.fused:
        with t.op("query_key_value", "linear"):
            y = linear.linear(t, x, 3 * c.hidden_size, bias=bias)
        q = k = v = heads_of(t, t.view(y, *y.shape[:2], heads * dim), heads, dim)
    else:
        names = {"q_proj": heads, "k_proj": groups, "v_proj": groups}
        q, k, v = projections(t, x, names, dim, bias=bias, whole=dim)
    if c.phi and c.qk_layernorm:
        q, k = normed(t, "q_layernorm", q), normed(t, "k_layernorm", k)
    with t.op("rotary", "rotary"):
        q, k = (rotate(t, y, *tables, partial=not c.starcoder) for y in (q, k))
    with t.op("attention", "attention"):
        h = attention.attention(
            t,
            q,
            k,
            v,
            causal=True,
            mask=mask,
            softmax_fp32=True,
            window=window,
            dropout=c.attention_dropout,
            by_heads=not c.starcoder,
        )
    with t.op("dense", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=bias)
