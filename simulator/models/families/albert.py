"""ALBERT [lan2019]: BERT whose layers share their weights, with narrow embeddings."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from roofcast.simulator.models.families import encoder_heads, masked
from roofcast.simulator.models.families.encoder_heads import Style
from roofcast.simulator.models.families.transformer import activate, heads_of
from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

Pair = tuple[Value, Value]  # weight and bias


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's AlbertConfig, with its defaults."""

    vocab_size: int = 30000
    embedding_size: int = 128
    hidden_size: int = 4096
    num_hidden_layers: int = 12
    num_hidden_groups: int = 1
    num_attention_heads: int = 64
    intermediate_size: int = 16384
    inner_group_num: int = 1
    hidden_act: str = "gelu_new"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    classifier_dropout_prob: float | None = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        groups, layers = self.num_hidden_groups, self.num_hidden_layers
        if groups < 1 or layers < groups or layers % groups:
            raise ValueError(
                f"num_hidden_layers ({layers}) is not divisible by num_hidden_groups ({groups})"
            )
        if not 1 <= self.inner_group_num <= 100:
            raise ValueError(f"inner_group_num is {self.inner_group_num}; it must be 1 to 100")

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings


class Layer(NamedTuple):
    """Weights of one layer."""

    query: Pair
    key: Pair
    value: Pair
    dense: Pair
    norm: Pair
    ffn: Pair
    ffn_output: Pair
    last: Pair


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    t.assumptions.append("encoder counted as transformers' AlbertForMaskedLM, without padding")
    ids = t.input((batch, sequence), "int64")
    with t.scope("embeddings"):
        with t.op("word_embeddings", "embedding"):
            table = t.vocabulary(c.vocab_size, c.embedding_size)
            x = embedding.embedding(t, ids, c.vocab_size, c.embedding_size, weight=table)
        with t.op("token_type_embeddings", "embedding"):
            types = t.new((1, sequence), "int64")
            e = embedding.embedding(t, types, c.type_vocab_size, c.embedding_size)
            x = pointwise.add(t, x, e)
        with t.op("position_embeddings", "embedding"):
            places = t.buffer(1, sequence, dtype="int64")
            e = embedding.embedding(t, places, c.max_position_embeddings, c.embedding_size)
            x = pointwise.add(t, x, e)
        with t.op("LayerNorm", "layer_norm"):
            x = pointwise.dropout(t, norm.layer_norm(t, x), c.hidden_dropout_prob)
    with t.op("embedding_hidden_mapping_in", "linear"):
        x = linear.linear(t, x, c.hidden_size)
    each = c.num_hidden_layers // c.num_hidden_groups
    for group in range(c.num_hidden_groups):
        with t.op(f"albert_layer_groups.{group}", "weights"):
            inner = [_weights(t, c) for _ in range(c.inner_group_num)]

        def body(x: Value, inner: list[Layer] = inner) -> Value:
            for layer in inner:
                x = block(t, c, x, layer)
            return x

        x = t.repeat(f"albert_layer_groups.{group}", each, body, x)
    given = c.classifier_dropout_prob
    style = Style(drop=0.1 if given is None else given,
                  token_drop=c.hidden_dropout_prob if given is None else given)  # fmt: skip
    other = encoder_heads.headed(t, x, style)
    if other is not None:
        return other
    x = masked.head(t, x, c.embedding_size, c.hidden_act)
    return masked.masked_loss(t, x, c.vocab_size, table if c.tie_word_embeddings else None)


def _weights(t: Tape, c: Config) -> Layer:
    """The weights of a layer, which a tensor-parallel rank holds its share of."""
    width, hidden = c.hidden_size, c.intermediate_size

    def columns(out: int, inner: int) -> Pair:
        out = t.share(out, "the columns of a layer")
        pair = t.parameter(out, inner), t.parameter(out)
        for weight in pair:
            weight.split = "features" if t.parallel.tp > 1 else None
        return pair

    def rows(out: int, inner: int) -> Pair:
        return t.parameter(out, t.share(inner, "the rows of a layer")), t.parameter(out)

    def norms() -> Pair:
        return t.parameter(width), t.parameter(width)

    return Layer(
        query=columns(width, width),
        key=columns(width, width),
        value=columns(width, width),
        dense=rows(width, width),
        norm=norms(),
        ffn=columns(hidden, width),
        ffn_output=rows(width, hidden),
        last=norms(),
    )


def _dense(t: Tape, name: str, x: Value, pair: Pair, out: int) -> Value:
    with t.op(name, "linear"):
        return linear.linear(t, x, out, weight=pair[0], bias=pair[1])


def block(t: Tape, c: Config, x: Value, layer: Layer) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    width, heads = c.hidden_size, c.num_attention_heads
    with t.scope("attention"):
        named = {"query": layer.query, "key": layer.key, "value": layer.value}
        parts = [_dense(t, name, x, pair, width) for name, pair in named.items()]
        q, k, v = (heads_of(t, part, heads, width // heads) for part in parts)
        with t.op("attention", "attention"):
            drop = c.attention_probs_dropout_prob
            h = attention.attention(t, q, k, v, causal=False, dropout=drop)
        h = _dense(t, "dense", h, layer.dense, width)
        with t.op("residual", "add"):
            h = pointwise.add(t, x, pointwise.dropout(t, h, c.hidden_dropout_prob))
        with t.op("LayerNorm", "layer_norm"):
            x = norm.layer_norm(t, h, weights=layer.norm)
    h = _dense(t, "ffn", x, layer.ffn, c.intermediate_size)
    with t.op("activation", c.hidden_act):
        h = activate(t, c.hidden_act, h)
    h = _dense(t, "ffn_output", h, layer.ffn_output, width)
    with t.op("residual", "add"):
        h = pointwise.add(t, h, x)
    with t.op("full_layer_layer_norm", "layer_norm"):
        return norm.layer_norm(t, h, weights=layer.last)
