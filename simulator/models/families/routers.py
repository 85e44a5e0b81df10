"""Routers of mixtures of experts: which experts each token goes through, and with what weights.

A router takes x [tokens, width] and returns the weights and the indices of the chosen experts, both
[tokens, chosen].
"""

from __future__ import annotations

from collections.abc import Sized
from typing import NamedTuple

from roofcast.hwdb.errors import number_of
from roofcast.simulator.work.ops import linear, moe, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

Routed = tuple[Value, Value]  # weights and indices of the chosen experts


class Routing(NamedTuple):
    """What a router needs to know of a model."""

    experts: int
    chosen: int  # experts per token
    normalised: bool = False  # whether the weights of the chosen experts sum to one
    groups: int = 1  # groups of experts, and how many of them a token may choose from
    best_groups: int = 1
    jitter: float = 0.0  # relative width of the noise on the router's input in training


def check(r: Routing) -> None:
    """Raises ValueError where the numbers of experts, of chosen ones and of groups do not fit."""
    if not 0 < r.chosen <= r.experts:
        raise ValueError(f"{r.chosen} of {r.experts} experts per token; give at least 1 of them")
    if r.groups > 0 and (r.experts % r.groups or not 0 < r.best_groups <= r.groups):
        raise ValueError(
            f"{r.best_groups} of {r.groups} groups of {r.experts} experts; the groups must be equal"
        )


def check_length(key: str, entries: Sized | None, layers: int) -> None:
    """Raises ValueError where a list with one entry per layer is too short."""
    if entries is not None and len(entries) < layers:
        raise ValueError(
            f"'{key}' has {number_of(len(entries), 'entry', 'entries')} for"
            f" {number_of(layers, 'layer')}"
        )


def logits(t: Tape, r: Routing, x: Value) -> Value:
    """Scores of all experts, in the format of the model."""
    return linear.linear(t, x, r.experts, bias=False, parallel=False)


def logits_fp32(t: Tape, r: Routing, x: Value, *, wide: bool = False) -> Value:
    """Scores of all experts, computed in fp32 whatever the model's format; `wide`: the weight is
    held in fp32.
    """
    w = t.parameter(r.experts, x.shape[-1], dtype="fp32" if wide else None)
    full = t.cast(w, "fp32")
    if full is not w:
        full.kind = "weight_copy"
    return linear.linear(t, t.cast(x, "fp32"), r.experts, bias=False, weight=full, parallel=False)


def softmax(t: Tape, r: Routing, x: Value) -> Routed:
    """Softmax over all experts in fp32, then the largest [shazeer2017]."""
    scores = logits(t, r, x)
    weights, ids = moe.top_k(t, norm.softmax(t, scores, dtype="fp32"), r.chosen)
    if r.normalised:
        weights = moe.normalise(t, weights)
    return t.cast(weights, scores.dtype), ids


def softmax_of_chosen(t: Tape, r: Routing, x: Value) -> Routed:
    """The largest scores, then a softmax over these in fp32."""
    weights, ids = moe.top_k(t, t.cast(logits(t, r, x), "fp32"), r.chosen)
    return t.cast(norm.softmax(t, weights, dtype="fp32"), x.dtype), ids


def softmax_plain(t: Tape, r: Routing, x: Value) -> Routed:
    """Softmax in the format of the model, then the largest, divided by their norm."""
    weights, ids = moe.top_k(t, norm.softmax(t, logits(t, r, x)), r.chosen)
    if r.normalised:
        weights = _divided(t, weights, pointwise.total(t, weights))
    return weights, ids


def softmax_biased(t: Tape, r: Routing, x: Value) -> Routed:
    """Softmax in fp32; an untrained bias, a parameter, affects the choice only."""
    scores = norm.softmax(t, logits_fp32(t, r, x), dtype="fp32")
    bias = t.parameter(1, r.experts, trainable=False)
    _, ids = moe.top_k(t, pointwise.add(t, scores, bias), r.chosen)
    weights = moe.take(t, scores, ids, *ids.shape)
    total = pointwise.unary(t, "clamp", pointwise.total(t, weights))
    return t.cast(_divided(t, weights, total), x.dtype), ids


def _divided(t: Tape, weights: Value, total: Value) -> Value:
    """weights / total; keeps both."""
    inverse = t.new(total.shape, total.dtype, total.grad)
    out = t.new(weights.shape, weights.dtype, weights.grad)
    t.emit("elementwise", (weights, total), (out,), vector=out.size, special=inverse.size)
    if out.grad:
        t.save(weights, total)
        read, dtype = 3 * out.bytes, out.dtype
        t.backward("elementwise", vector=4 * out.size, read=read, written=out.bytes, product=dtype)
    return out


def sigmoid(t: Tape, r: Routing, x: Value) -> Routed:
    """Sigmoid scores of logits in the format of the model; a bias affects the choice only."""
    return _chosen_by_bias(t, r, t.cast(logits(t, r, x), "fp32"), grouped=False)


def sigmoid_in_groups(t: Tape, r: Routing, x: Value, *, wide: bool = False) -> Routed:
    """Sigmoid scores of fp32 logits, chosen from the best groups of experts [deepseek2024]."""
    weights, ids = _chosen_by_bias(t, r, logits_fp32(t, r, x, wide=wide), grouped=True)
    return pointwise.scale(t, weights), ids


def _chosen_by_bias(t: Tape, r: Routing, scores: Value, *, grouped: bool) -> Routed:
    """Sigmoid scores, normalized after the choice; an untrained bias affects the choice only."""
    scores = pointwise.unary(t, "sigmoid", scores)
    biased = pointwise.add(t, scores, t.buffer(r.experts))
    if grouped:
        biased = moe.within_groups(t, biased, r.groups, r.best_groups, 2)
    _, ids = moe.top_k(t, biased, r.chosen)
    weights = moe.take(t, scores, ids, *ids.shape)
    if weights.grad:
        t.save(scores)
    return (moe.normalise(t, weights) if r.normalised else weights), ids


def sparse_mixer(t: Tape, r: Routing, x: Value) -> Routed:
    """Experts drawn one after the other, each with the softmax share of its score [liu2024].

    Scores that are much smaller than the largest are masked. In training the choice is random.
    """
    scores = logits(t, r, jittered(t, x, r.jitter))
    tokens = x.shape[0]
    parts = [_drawn(t, scores, tokens) for _ in range(r.chosen)]
    ids = t.new((tokens, r.chosen), "int64")
    t.emit("copy", tuple(part[1] for part in parts), (ids,))
    return pointwise.concat(t, [part[0] for part in parts], -1), ids


def _drawn(t: Tape, scores: Value, tokens: int) -> Routed:
    """One expert per token and its share; keeps a mask, the shares of all, and indices."""
    mask = t.new(scores.shape, "bool")
    t.emit("elementwise", (scores,), (mask,), vector=5 * scores.size)
    masked = pointwise.where(t, scores, mask)
    if t.training:  # Gumbel noise
        noisy = t.new(scores.shape, scores.dtype, scores.grad)
        t.emit("elementwise", (masked,), (noisy,), vector=3 * scores.size, special=2 * scores.size)
    _, ids = moe.top_k(t, noisy if t.training else masked, 1)
    shares = norm.softmax(t, masked)
    weight = moe.take(t, shares, ids, tokens, 1)
    if t.training:
        moe.top_k(t, shares, 1)
        t.save(weight)
        t.emit("elementwise", (weight,), (weight,), vector=3 * tokens)
    return weight, ids


def jittered(t: Tape, x: Value, jitter: float) -> Value:
    """x times random numbers near one, in place, in training; keeps the random numbers."""
    if not (jitter and t.training):
        return x
    noise = t.new(x.shape, x.dtype)
    t.emit("elementwise", (), (noise,), vector=x.size, special=x.size)
    t.emit("elementwise", (x, noise), (x,), vector=x.size)
    t.save(noise)
    read, written = x.bytes + noise.bytes, x.bytes
    t.backward("elementwise", vector=x.size, read=read, written=written, product=x.dtype)
    return x
