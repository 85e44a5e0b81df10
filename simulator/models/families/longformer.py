"""Longformer [beltagy2020]: BERT whose tokens see a window of neighbours, in overlapping chunks.

No token attends to all others: transformers has none unless a `global_attention_mask` names some.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from roofcast.hwdb.errors import BadInput, number_of
from roofcast.simulator.models.families import encoder_heads, masked, transformer
from roofcast.simulator.models.families.encoder_heads import Style
from roofcast.simulator.models.families.transformer import activate, normed
from roofcast.simulator.work.ops import embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

PADDING = 1  # id of the padding; positions start after it


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's LongformerConfig, with its defaults."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    attention_window: int | list[int] = 512
    attention_mode: str = "longformer"  # unread by transformers
    classifier_dropout: float | None = None
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        check_windows(self.windows)
        if len(self.windows) < self.num_hidden_layers:
            raise ValueError(
                f"'attention_window' has {number_of(len(self.windows), 'entry', 'entries')} for"
                f" {self.num_hidden_layers} layers"
            )

    @property
    def windows(self) -> list[int]:
        """The window of every layer [tokens]."""
        given = self.attention_window
        if isinstance(given, list):
            return given
        return [given] * min(self.num_hidden_layers, 10_000)

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings - PADDING - 1


def check_windows(windows: list[int]) -> None:
    """Raises ValueError unless windows are positive and even."""
    wrong = next((w for w in windows if w < 2 or w % 2 or w > 1 << 20), None)
    if wrong is not None or not windows:
        raise ValueError(f"'attention_window' is {wrong}; a positive even number is expected")


class Window(NamedTuple):
    """Sizes of sliding attention."""

    heads: int  # of a tensor-parallel rank
    dim: int
    overlap: int  # half the window [tokens]


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    refuse_cp(t)
    length = padded(t, sequence, c.windows)
    with t.scope("embeddings"):
        ids = t.input((batch, sequence), "int64")
        ids = ids if length == sequence else t.new((batch, length), "int64")
        with t.op("word_embeddings", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size)
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        for name, rows in (
            ("position_embeddings", c.max_position_embeddings),
            ("token_type_embeddings", c.type_vocab_size),
        ):
            with t.op(name, "embedding"):
                numbers = t.new((batch, length), "int64")
                x = pointwise.add(t, x, embedding.embedding(t, numbers, rows, c.hidden_size))
        with t.op("LayerNorm", "layer_norm"):
            x = pointwise.dropout(t, norm.layer_norm(t, x), c.hidden_dropout_prob)
    hidden = t.new((batch, length), "bool")  # tokens of padding
    with t.scope("encoder"):
        windows = c.windows[: c.num_hidden_layers]
        x = transformer.layers(t, "layer", windows, lambda x, w: block(t, c, x, w, hidden), x)
    if length != sequence:
        own = x.shape[1] * sequence // length  # of a rank that holds its own tokens
        x = pointwise.copy(t, pointwise.part(t, x, batch, own, c.hidden_size))
    given = c.classifier_dropout
    style = Style(before=True, drop=c.hidden_dropout_prob if given is None else given)
    other = encoder_heads.headed(t, x, style)
    if other is not None:
        return other
    x = masked.head(t, x, c.hidden_size, "gelu", name="lm_head")
    return masked.masked_loss(t, x, c.vocab_size, table if c.tie_word_embeddings else None)


def refuse_cp(t: Tape) -> None:
    """Raises BadInput for context parallelism, which would have to cut the chunks."""
    if t.parallel.cp > 1:
        raise BadInput(f"cp {t.parallel.cp}: sliding chunks of attention are not cut; use cp 1")


def padded(t: Tape, sequence: int, windows: list[int]) -> int:
    """The length that is a multiple of the longest window; says where it is not `sequence`."""
    text = "no token attends to all others, as transformers has it without a global_attention_mask"
    t.assumptions.append(text)
    longest = max(windows)
    length = -(-sequence // longest) * longest
    if length != sequence:
        t.assumptions.append(f"attention_window {longest}: sequences are padded to {length} tokens")
    return length


def block(t: Tape, c: Config, x: Value, window: int, hidden: Value) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    width, p = c.hidden_size, c.hidden_dropout_prob
    with t.scope("attention"):
        drop = c.attention_probs_dropout_prob
        h = sliding_attention(t, x, c.num_attention_heads, window, hidden, drop)
        with t.op("output.dense", "linear"):
            h = linear.linear(t, h, width)
        with t.op("output.residual", "add"):
            h = pointwise.add(t, pointwise.dropout(t, h, p), x)
        x = normed(t, "output.LayerNorm", h)
    with t.op("intermediate.dense", "linear"):
        h = linear.linear(t, x, c.intermediate_size)
    with t.op("intermediate.act", c.hidden_act):
        h = activate(t, c.hidden_act, h)
    with t.op("output.dense", "linear"):
        h = linear.linear(t, h, width)
    with t.op("output.residual", "add"):
        h = pointwise.add(t, pointwise.dropout(t, h, p), x)
    return normed(t, "output.LayerNorm", h)


def turned(t: Tape, x: Value) -> Value:
    """x with tokens before samples, as a product reads it: a copy, except for a batch of one."""
    return x if x.shape[0] == 1 else pointwise.copy(t, x)


def sliding_attention(
    t: Tape, x: Value, heads: int, window: int, hidden: Value, drop: float
) -> Value:
    """Attention of x [batch, tokens, width] over a window, composed of PyTorch's ops."""
    width, parts = x.shape[-1], []
    for name in ("query", "key", "value"):
        with t.op(name, "linear"):
            y = linear.linear(t, turned(t, x), width)
            parts.append(pointwise.scale(t, y) if name == "query" else y)
    with t.op("global", "weights"):  # of tokens that attend to all others
        out = parts[0].shape[-1]
        for _ in range(3):
            t.parameter(out, width), t.parameter(out)
    own = t.share(heads, "the attention heads") if parts[0].split == "features" else heads
    sizes = Window(own, width // heads, window // 2)
    with t.op("attention", "attention"):
        probs = window_probabilities(t, parts[0], parts[1], sizes, hidden, drop)
        return turned(t, window_values(t, probs, parts[2], sizes))


def _chunked(t: Tape, x: Value, s: Window, count: int, length: int) -> Value:
    """x[B, S, H D] as `count` overlapping chunks [B H count, length, D]: copies."""
    batch, tokens, _ = x.shape
    n = batch * s.heads
    x = pointwise.copy(t, x, n, tokens, s.dim)
    if length == 3 * s.overlap:  # values, padded at both ends
        x = pointwise.copy(t, x, n, tokens + 2 * s.overlap, s.dim)
    return (
        t.view(x, n, length, s.dim)
        if count == 1
        else pointwise.copy(t, x, n * count, length, s.dim)
    )


def window_probabilities(
    t: Tape, q: Value, k: Value, s: Window, hidden: Value, drop: float
) -> Value:
    """Softmax of the scores in a window [B, S, H, 2 overlap + 1], in fp32, and its dropout.

    forward   2 B H (S / w - 1) (2 w)^2 D FLOPs of matrix products with w = overlap
    """
    batch, tokens, _ = q.shape
    w, n = s.overlap, batch * s.heads
    chunks = tokens // w - 1
    left, right = (_chunked(t, x, s, chunks, 2 * w) for x in (q, k))
    scores = linear.matmul(t, left, right, transposed=True)
    scores = pointwise.copy(t, scores, n, chunks, 2 * w + 1, 2 * w)  # padded by a row
    scores = pointwise.copy(t, scores, batch, tokens, s.heads, 2 * w + 1)  # its diagonals
    for _ in range(2):  # locations before the first and behind the last token
        edge = t.new((batch, w, s.heads, w + 1), "bool")
        t.emit("elementwise", (scores,), (edge,), vector=edge.size)
        if t.training:
            t.save(edge)
    ones = t.new((batch * chunks, 2 * w, 1), q.dtype)  # the mask of padding, chunked likewise
    mask = t.new((batch * chunks, 2 * w, 2 * w), q.dtype)
    t.emit("elementwise", (ones, ones), (mask,), vector=mask.size)
    mask = pointwise.copy(t, mask, batch, tokens, 1, 2 * w + 1)
    scores = pointwise.add(t, scores, mask)
    p = norm.softmax(t, scores, dtype="fp32")
    p = pointwise.where(t, p, t.view(hidden, batch, tokens, 1, 1))
    return pointwise.dropout(t, t.cast(p, q.dtype), drop)


def window_values(t: Tape, p: Value, v: Value, s: Window) -> Value:
    """The values of a window, weighted by p [B, S, H, 2 overlap + 1]: [B, S, H D]."""
    batch, tokens, own = v.shape
    w, n = s.overlap, batch * s.heads
    chunks = tokens // w
    p = pointwise.copy(t, p, n, chunks, w, 2 * w + 1)
    p = pointwise.copy(t, p, n, chunks, w, 3 * w + 2)  # padded; read by diagonals
    values = _chunked(t, v, s, chunks, 3 * w)
    out = linear.matmul(t, t.view(p, n * chunks, w, 3 * w), values)
    return pointwise.copy(t, out, batch, tokens, own)
