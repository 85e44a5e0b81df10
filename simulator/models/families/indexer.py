"""DeepSeek sparse attention: an indexer picks the keys that each query attends to [deepseek2025].

A small attention of its own scores every earlier token; the largest `index_topk` scores are the
keys. No gradient flows through it, as in transformers. Implementations of "sparse_attention":

masked    scores in fp32, one kernel after the other; attention over all keys with a mask, as
          transformers runs it (the default in training)
selected  one kernel for the scores; attention reads the chosen keys only, as DeepGEMM's and
          FlashMLA's kernels do (the default in inference)
"""

from __future__ import annotations

from typing import NamedTuple

from roofcast.simulator.models.families.transformer import Tables, rotate
from roofcast.simulator.work.ops import linear, moe, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Sizes(NamedTuple):
    """The index_* keys of a configuration."""

    heads: int
    dim: int
    keys: int


def check(s: Sizes, rotated: int, rank: int | None) -> None:
    """Raises ValueError where the sizes are none of an indexer."""
    if rank is None:
        raise ValueError("'q_lora_rank' is missing; an indexer reads low-rank queries")
    if s.heads < 1 or s.keys < 1 or s.dim < rotated:
        raise ValueError(
            f"'index_n_heads' {s.heads} and 'index_topk' {s.keys} must be positive, and"
            f" 'index_head_dim' {s.dim} at least 'qk_rope_head_dim' ({rotated})"
        )


def is_selected(t: Tape) -> bool:
    """Whether attention reads the chosen keys only."""
    return t.implementation("sparse_attention", "masked" if t.training else "selected") != "masked"


def detached(x: Value) -> Value:
    """x without a gradient."""
    return Value(x.shape, x.dtype, x.storage, False, x.kind, x.repeats, x.held, x.split)


def choose(t: Tape, s: Sizes, x: Value, low: Value, tables: Tables) -> Value:
    """Indices [batch, tokens, keys] of the keys of every query.

    x [batch, tokens, width] is what attention reads, `low` the low-rank queries. Every
    tensor-parallel rank scores its own tokens and sends the indices to the others.
    """
    x, low = detached(x), detached(low)
    with t.scope("indexer"):
        q, k, weights = _projected(t, s, x, low, tables)
        keys = _gathered(t, k, q.split == "tokens")
        with t.op("scores", "matmul"):
            score = _fused if is_selected(t) else _composed
            scores = score(t, q, keys, weights)
        with t.op("topk", "topk"):
            _, ids = moe.top_k(t, scores, min(s.keys, keys.shape[1]))
            ids = t.cast(ids, "int32")
            if q.split == "tokens":
                t.send("all_gather", "tp", t.parallel.tp * ids.bytes)
                batch, tokens, chosen = ids.shape
                ids = t.new((batch, tokens * t.parallel.tp, chosen), "int32")
    return ids


def _projected(
    t: Tape, s: Sizes, x: Value, low: Value, tables: Tables
) -> tuple[Value, Value, Value]:
    """Queries [B, S, H, D], keys [B, S, D] and the weights of heads [B, S, H] of own tokens."""
    batch, tokens, _ = x.shape
    with t.op("wq_b", "linear"):
        q = _frozen(t, low, s.heads * s.dim)
        q = t.view(q, batch, tokens, s.heads, s.dim)
    with t.op("wk", "linear"):
        k = _frozen(t, x, s.dim)
    with t.op("k_norm", "layer_norm"):
        k = norm.layer_norm(t, k, trainable=False)
    with t.op("rotary", "rotary"):
        turned = [
            rotate(t, t.view(y, batch, n, tokens, s.dim), *tables, partial=True)
            for y, n in ((q, s.heads), (k, 1))
        ]
        q = t.view(turned[0], batch, tokens, s.heads, s.dim)
        k = t.view(turned[1], batch, tokens, s.dim)
    with t.op("weights_proj", "linear"):
        weights = t.cast(_frozen(t, x, s.heads), "fp32")
        weights = pointwise.scale(t, weights)
    return q, k, weights


def _frozen(t: Tape, x: Value, out_features: int) -> Value:
    """A linear layer that is not trained and that every rank holds."""
    return linear.linear(t, x, out_features, bias=False, trainable=False, parallel=False)


def _gathered(t: Tape, k: Value, cut: bool) -> Value:
    """The keys of all tokens, from the ranks that have the others."""
    batch, tokens, dim = k.shape
    for group, ranks in (("tp", t.parallel.tp if cut else 1), ("cp", t.parallel.cp)):
        if ranks > 1:
            tokens *= ranks
            k = t.new((batch, tokens, dim), k.dtype)
            t.send("all_gather", group, k.bytes)
    return k


def _composed(t: Tape, q: Value, k: Value, weights: Value) -> Value:
    """Scores [B, S, T] in fp32: the weighted sum over heads of relu(q k^T).

    The batched product reads a copy of the keys per query.
    """
    batch, tokens, heads, dim = q.shape
    length = k.shape[1]
    left = t.view(t.cast(q, "fp32"), batch * tokens, heads, dim)
    right = pointwise.copy(t, t.cast(k, "fp32"), batch * tokens, length, dim)
    scores = pointwise.scale(t, linear.matmul(t, left, right, transposed=True))
    scores = pointwise.unary(t, "relu", scores)
    weights = t.view(weights, batch * tokens, 1, heads)
    summed = linear.matmul(t, weights, scores)
    return pointwise.where(
        t, t.view(summed, batch, tokens, length), t.new((batch, tokens, length), "bool")
    )


def _fused(t: Tape, q: Value, k: Value, weights: Value) -> Value:
    """The same scores from one kernel, which writes nothing per head."""
    batch, tokens, heads, dim = q.shape
    length = k.shape[1]
    scores = t.new((batch, tokens, length), "fp32")
    products = batch * tokens * heads * length
    t.emit(
        "matmul",
        (q, k, weights),
        (scores,),
        matrix=2 * products * (dim + 1),
        vector=2 * products,
        product=linear.product_format(t, q.dtype),
        shape=(batch, tokens * heads, length, dim),
    )
    return scores


def mask_of(t: Tape, ids: Value, mask: Value, length: int) -> Value:
    """The mask [batch, 1, tokens, length] of the chosen keys and of `mask`, in its format."""
    batch, tokens, _ = ids.shape
    chosen = t.new((batch, 1, tokens, length), "bool")
    t.emit("scatter", (ids,), (chosen,), vector=chosen.size)
    out = t.new(chosen.shape, mask.dtype)
    t.emit("elementwise", (chosen, mask), (out,), vector=2 * out.size)
    return out
