"""ModernBERT [warner2024]: rotary embeddings, gated MLPs, two of three layers with a window."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import encoder_heads, masked, transformer
from roofcast.simulator.models.families.heads import Head
from roofcast.simulator.models.families.transformer import activate, heads_of
from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

FULL, WINDOWED = "full_attention", "sliding_attention"
Kind = tuple[str, bool]  # attention of a layer, and whether it is the first
Tables = dict[str, transformer.Tables]


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's ModernBertConfig, with its defaults."""

    vocab_size: int = 50368
    hidden_size: int = 768
    intermediate_size: int = 1152
    num_hidden_layers: int = 22
    num_attention_heads: int = 12
    hidden_activation: str = "gelu"
    max_position_embeddings: int = 8192
    norm_bias: bool = False
    attention_bias: bool = False
    attention_dropout: float = 0.0
    layer_types: tuple[str, ...] | None = None
    global_attn_every_n_layers: int = 3
    local_attention: int = 128
    embedding_dropout: float = 0.0
    mlp_bias: bool = False
    mlp_dropout: float = 0.0
    decoder_bias: bool = True
    classifier_bias: bool = False
    classifier_pooling: str = "cls"
    classifier_dropout: float = 0.0
    classifier_activation: str = "gelu"
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        for kind in self.layer_types or ():
            if kind not in (FULL, WINDOWED):
                raise ValueError(f"layer_types: {kind[:40]!r} is not known; {FULL} or {WINDOWED}")
        if self.global_attn_every_n_layers < 1:
            raise ValueError("global_attn_every_n_layers must be at least 1")

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings

    @property
    def kinds(self) -> list[Kind]:
        """Attention of each layer, and whether it is the first, which has no norm of its own."""
        every = self.global_attn_every_n_layers
        types = self.layer_types or tuple(
            WINDOWED if i % every else FULL for i in range(self.num_hidden_layers)
        )
        return [(kind, i == 0) for i, kind in enumerate(types[: self.num_hidden_layers])]


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    t.assumptions.append("encoder counted as transformers' ModernBertForMaskedLM, without padding")
    with t.scope("embeddings"):
        with t.op("tok_embeddings", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size)
            ids = t.input((batch, sequence), "int64")
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        x = _normed(t, c, "norm", x)
        with t.op("drop", "dropout"):
            x = pointwise.dropout(t, x, c.embedding_dropout)
    dim = c.hidden_size // c.num_attention_heads
    masks = transformer.causal_masks(t, sequence, batch)
    tables = {kind: _tables(t, sequence, dim) for kind in sorted({k for k, _ in c.kinds})}
    x = transformer.layers(
        t, "layers", c.kinds, lambda x, kind: block(t, c, x, kind, tables, masks), x
    )
    x = _normed(t, c, "final_norm", x)
    head, pooled = t.head, c.classifier_pooling == "cls"
    made = isinstance(head, Head) and head.task != "none" and (head.task != "sequence" or pooled)
    if isinstance(head, Head) and head.task == "none":
        t.headed = True
        return x
    if isinstance(head, Head) and head.task == "sequence" and pooled:
        with t.op("pooler", "slice"):
            x = pointwise.part(t, x, batch, c.hidden_size)
    with t.scope("head"):
        with t.op("dense", "linear"):
            x = linear.linear(t, x, c.hidden_size, bias=c.classifier_bias)
        with t.op("act", c.classifier_activation):
            x = activate(t, c.classifier_activation, x)
        x = _normed(t, c, "norm", x)
    if isinstance(head, Head) and made:
        return encoder_heads.scored(t, x, head, c.classifier_dropout)
    tied = table if c.tie_word_embeddings else None
    return masked.masked_loss(t, x, c.vocab_size, tied, bias=c.decoder_bias, upcast=True)


def _normed(t: Tape, c: Config, name: str, x: Value) -> Value:
    with t.op(name, "layer_norm"):
        return norm.layer_norm(t, x, bias=c.norm_bias)


def _tables(t: Tape, sequence: int, dim: int) -> transformer.Tables:
    return transformer.rotary_tables(t, sequence, dim)


def _rotated(t: Tape, x: Value, tables: transformer.Tables) -> Value:
    """The rotation of x [B, H, S, D], computed in fp32."""
    return t.cast(transformer.rotate(t, t.cast(x, "fp32"), *tables), x.dtype)


def block(
    t: Tape, c: Config, x: Value, kind: Kind, tables: Tables, masks: transformer.Masks
) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    name, first = kind
    width, heads = c.hidden_size, c.num_attention_heads
    half = c.local_attention // 2  # keys to each side
    mask = masks(half) if name == WINDOWED and x.shape[1] >= half else None
    h = x if first else _normed(t, c, "attn_norm", x)
    with t.scope("attn"):
        with t.op("Wqkv", "linear"):
            qkv = linear.linear(t, h, 3 * width, bias=c.attention_bias)
            q, k, v = (heads_of(t, qkv, heads, width // heads) for _ in range(3))
        with t.op("rotary", "rotary"):
            q, k = _rotated(t, q, tables[name]), _rotated(t, k, tables[name])
        with t.op("attention", "attention"):
            drop = c.attention_dropout
            h = attention.attention(
                t, q, k, v, causal=False, mask=mask, dropout=drop, softmax_fp32=True
            )
        with t.op("Wo", "linear"):
            h = linear.linear(t, h, width, bias=c.attention_bias)
            h = pointwise.dropout(t, h, c.attention_dropout)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, x, h)
    h = _normed(t, c, "mlp_norm", x)
    with t.scope("mlp"):
        with t.op("Wi", "linear"):
            h = linear.linear(t, h, 2 * c.intermediate_size, bias=c.mlp_bias)
        with t.op("act", c.hidden_activation):
            h = pointwise.dropout(t, transformer.gated(t, h, c.hidden_activation), c.mlp_dropout)
        with t.op("Wo", "linear"):
            h = linear.linear(t, h, width, bias=c.mlp_bias)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, x, h)
