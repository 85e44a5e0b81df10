"""DeBERTa v2 and v3 [he2020]: attention between contents, and between contents and distances.

Scores are the sum of three products: of contents, of contents with keys of distances, and of keys
with queries of distances. There is no fused kernel for it.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.families import encoder_heads, masked
from roofcast.simulator.models.families.encoder_heads import Style
from roofcast.simulator.models.families.transformer import activate, heads_of
from roofcast.simulator.work.ops import attention, conv, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

INDEX = "int64"
KINDS = ("c2p", "p2c")  # content to position, position to content
Pair = tuple[Value, Value]  # weight and bias


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's DebertaV2Config, with its defaults."""

    UNSET: ClassVar[tuple[str, ...]] = (
        "conv_kernel_size", "max_relative_positions", "position_buckets",
    )  # fmt: skip

    vocab_size: int = 128100
    hidden_size: int = 1536
    num_hidden_layers: int = 24
    num_attention_heads: int = 24
    intermediate_size: int = 6144
    embedding_size: int | None = None
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    cls_dropout: float | None = None
    pooler_dropout: float = 0.0
    pooler_hidden_act: str = "gelu"
    pooler_hidden_size: int | None = None
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 0
    relative_attention: bool = False
    max_relative_positions: int = -1
    position_buckets: int = -1
    position_biased_input: bool = True
    pos_att_type: str | tuple[str, ...] | None = None
    share_att_key: bool = False
    norm_rel_ebd: str = "none"
    conv_kernel_size: int = 0
    conv_groups: int = 1
    conv_act: str = "tanh"
    attention_head_size: int | None = None
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(f"pos_att_type: {kind[:40]!r} is not known; use c2p, p2c")
        if self.kinds and not self.relative_attention:
            raise ValueError("pos_att_type needs relative_attention true")

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the scores take into account besides contents."""
        given = self.pos_att_type or ()
        parts = given.lower().split("|") if isinstance(given, str) else given
        return tuple(part.strip() for part in parts)

    @property
    def embedded(self) -> int:
        """Width of the embedding tables."""
        return self.embedding_size or self.hidden_size

    @property
    def span(self) -> int:
        """Distances to one side that have an embedding."""
        if self.position_buckets > 0:
            return self.position_buckets
        longest = self.max_relative_positions
        return self.max_position_embeddings if longest < 1 else longest

    @property
    def dim(self) -> int:
        """Width of a head."""
        return self.attention_head_size or self.hidden_size // self.num_attention_heads


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    if t.parallel.cp > 1:
        raise BadInput(f"cp {t.parallel.cp}: DeBERTa's attention has no fused kernel; use cp 1")
    t.assumptions.append("encoder counted as transformers' DebertaV2ForMaskedLM, without padding")
    x, table, shown = embedded(t, c, batch, sequence)
    with t.scope("encoder"):
        distances = _distances(t, c)
        with t.op("attention_mask", "mask"):
            visible = t.new((batch, 1, sequence, sequence), "fp32")
            t.emit("elementwise", (shown,), (visible,), vector=visible.size)
        if not c.conv_kernel_size:
            body = lambda x: block(t, c, x, visible, distances)  # noqa: E731
            x = t.repeat("layer", c.num_hidden_layers, body, x)
        else:
            with t.scope("layer.0"):
                first = block(t, c, x, visible, distances)
            x = convolved(t, c, x, first, shown)
            x = t.repeat(
                "layer", c.num_hidden_layers - 1, lambda x: block(t, c, x, visible, distances), x
            )
    drop, given = c.hidden_dropout_prob, c.cls_dropout
    style = Style(c.pooler_hidden_act, before=True, pooler=False, token_drop=drop,
                  drop=drop if given is None else given, first_drop=c.pooler_dropout)  # fmt: skip
    other = encoder_heads.headed(t, x, style)
    if other is not None:
        return other
    x = masked.head(t, x, c.embedded, c.hidden_act)
    return masked.masked_loss(t, x, c.vocab_size, table if c.tie_word_embeddings else None)


def embedded(t: Tape, c: Config, batch: int, sequence: int) -> tuple[Value, Value, Value]:
    """Embedded tokens, the table, and which tokens are no padding, [batch, tokens] in fp32."""
    with t.scope("embeddings"):
        with t.op("word_embeddings", "embedding"):
            table = t.vocabulary(c.vocab_size, c.embedded)
            ids = t.input((batch, sequence), INDEX)
            x = embedding.embedding(t, ids, c.vocab_size, c.embedded, weight=table)
        if c.position_biased_input:
            with t.op("position_embeddings", "embedding"):
                places, rows = t.buffer(1, sequence, dtype=INDEX), c.max_position_embeddings
                x = pointwise.add(t, x, embedding.embedding(t, places, rows, c.embedded))
        if c.type_vocab_size > 0:
            with t.op("token_type_embeddings", "embedding"):
                types = t.new((batch, sequence), INDEX)
                e = embedding.embedding(t, types, c.type_vocab_size, c.embedded)
                x = pointwise.add(t, x, e)
        if c.embedded != c.hidden_size:
            with t.op("embed_proj", "linear"):
                x = linear.linear(t, x, c.hidden_size, bias=False)
        with t.op("LayerNorm", "layer_norm"):
            x = norm.layer_norm(t, x)
        with t.op("mask", "mul"):
            shown = t.new((batch, sequence), "fp32")
            mask = t.cast(t.view(shown, batch, sequence, 1), t.precision.activations)
            x = pointwise.mul(t, x, mask)
        with t.op("dropout", "dropout"):
            x = pointwise.dropout(t, x, c.hidden_dropout_prob)
    return x, table, shown


def _distances(t: Tape, c: Config) -> Value | None:
    """Embeddings of distances [2 span, width], normed if the model norms them."""
    if not c.relative_attention:
        return None
    with t.op("rel_embeddings", "layer_norm"):
        rows = 2 * c.span
        e = t.parameter(rows, c.hidden_size)
        return norm.layer_norm(t, e) if "layer_norm" in c.norm_rel_ebd.lower() else e


def convolved(t: Tape, c: Config, x: Value, first: Value, shown: Value) -> Value:
    """A convolution over the tokens x, added to the result of the first layer, then normed."""
    batch, sequence, width = x.shape
    with t.scope("conv"):
        kernel = c.conv_kernel_size
        with t.op("conv", "conv"):
            h = pointwise.copy(t, x, batch, width, sequence)
            pad = (kernel - 1) // 2
            h = conv.conv(t, h, width, kernel, padding=pad, groups=c.conv_groups, dims=1)
            h = pointwise.copy(t, h, batch, sequence, width)
            h = pointwise.where(t, h, t.new((batch, sequence, 1), "bool"))
        with t.op("act", c.conv_act):
            h = activate(t, c.conv_act, pointwise.dropout(t, h, c.hidden_dropout_prob))
        with t.op("residual", "add"):
            h = pointwise.add(t, first, h)
        with t.op("LayerNorm", "layer_norm"):
            h = norm.layer_norm(t, h)
        with t.op("mask", "mul"):
            mask = t.cast(t.view(shown, batch, sequence, 1), h.dtype)
            return pointwise.mul(t, h, mask)


def block(t: Tape, c: Config, x: Value, visible: Value, distances: Value | None) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    p = c.hidden_dropout_prob
    with t.scope("attention"):
        h = attend(t, c, x, visible, distances)
        with t.op("output.dense", "linear"):
            h = linear.linear(t, h, c.hidden_size)
        with t.op("output.residual", "add"):
            h = pointwise.add(t, pointwise.dropout(t, h, p), x)
        with t.op("output.LayerNorm", "layer_norm"):
            x = norm.layer_norm(t, h)
    with t.op("intermediate.dense", "linear"):
        h = linear.linear(t, x, c.intermediate_size)
    with t.op("intermediate.act", c.hidden_act):
        h = activate(t, c.hidden_act, h)
    with t.op("output.dense", "linear"):
        h = linear.linear(t, h, c.hidden_size)
    with t.op("output.residual", "add"):
        h = pointwise.add(t, pointwise.dropout(t, h, p), x)
    with t.op("output.LayerNorm", "layer_norm"):
        return norm.layer_norm(t, h)


def _heads(t: Tape, c: Config, name: str, x: Value, pair: Pair) -> Value:
    """A linear layer with these weights, its result copied head by head [batch, heads, S, dim]."""
    with t.op(name, "linear"):
        y = linear.linear(t, x, c.num_attention_heads * c.dim, weight=pair[0], bias=pair[1])
        y = heads_of(t, y, c.num_attention_heads, c.dim)
        return pointwise.copy(t, y) if y.shape[1] > 1 else y


def _pair(t: Tape, c: Config) -> Pair:
    """Weight and bias of a projection to heads; a rank holds those of its own heads."""
    out = t.share(c.num_attention_heads, "the attention heads") * c.dim
    pair = t.parameter(out, c.hidden_size), t.parameter(out)
    for weight in pair:
        weight.split = "features" if t.parallel.tp > 1 else None
    return pair


def attend(t: Tape, c: Config, x: Value, visible: Value, distances: Value | None) -> Value:
    """Disentangled attention: [batch, tokens, width]."""
    query, key, value = (_pair(t, c) for _ in range(3))
    q = _heads(t, c, "query_proj", x, query)
    k = _heads(t, c, "key_proj", x, key)
    v = _heads(t, c, "value_proj", x, value)
    with t.op("attention", "attention"):
        scores = linear.matmul(t, q, divided(t, k), transposed=True)
    if distances is not None and c.kinds:
        with t.op("pos_dropout", "dropout"):
            distances = pointwise.dropout(t, distances, c.hidden_dropout_prob)
        e = t.view(distances, 1, *distances.shape)
        if "c2p" in c.kinds:
            pair = key if c.share_att_key else _pair(t, c)
            extra = by_distance(t, c, "pos_key_proj", q, e, pair)
        if "p2c" in c.kinds:
            pair = query if c.share_att_key else _pair(t, c)
            more = by_distance(t, c, "pos_query_proj", k, e, pair)
            with t.op("attention.sum", "add"):
                extra = pointwise.add(t, extra, more) if "c2p" in c.kinds else more
        with t.op("attention.sum", "add"):
            scores = pointwise.add(t, scores, extra)
    with t.op("attention", "attention"):
        hidden = t.new(visible.shape, "bool")
        t.emit("elementwise", (visible,), (hidden,), vector=hidden.size)
        scores = pointwise.where(t, scores, hidden)
        p = pointwise.dropout(t, norm.softmax(t, scores), c.attention_probs_dropout_prob)
        return attention.merged(t, linear.matmul(t, p, t.low(v)))


def divided(t: Tape, x: Value) -> Value:
    """x over a square root that is a tensor, which backward keeps."""
    root = t.new((), x.dtype)
    return pointwise.mul(t, x, root)


def by_distance(t: Tape, c: Config, name: str, x: Value, e: Value, pair: Pair) -> Value:
    """Scores [batch, heads, S, S] of x [batch, heads, S, dim] with distances e, picked by the
    distance of two tokens.
    """
    batch, heads, sequence, dim = x.shape
    places = _heads(t, c, name, e, pair)
    with t.op(f"attention.{name}", "attention"):
        places = pointwise.copy(t, places, batch, heads, e.shape[1], dim)
        scores = linear.matmul(t, x, places, transposed=True)
        index = t.new((1, 1, sequence, sequence), INDEX)
        t.emit("elementwise", (), (index,), vector=2 * index.size)
        picked = t.new((batch, heads, sequence, sequence), scores.dtype, scores.grad)
        t.emit("gather", (scores, index), (picked,), read=picked.bytes + index.bytes)
        if picked.grad:
            t.save(scores, index)
            read, written = picked.bytes + index.bytes, scores.bytes + picked.bytes
            dtype = picked.dtype
            t.backward("scatter", vector=picked.size, read=read, written=written, product=dtype)
        return divided(t, picked)
