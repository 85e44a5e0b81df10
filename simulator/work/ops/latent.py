"""Latent attention while a model generates: products with the latent's projections are absorbed
into queries and results, so that attention reads the cached latent itself [deepseek2024].
"""

from __future__ import annotations

from typing import NamedTuple

from roofcast.simulator.work.ops import attention, linear
from roofcast.simulator.work.tape import Tape, Value


class Latent(NamedTuple):
    """Sizes of a head, and of the latent that all heads share."""

    heads: int  # of this rank
    plain: int  # of queries and keys, without rotation
    rotated: int
    value: int
    rank: int  # of the latent
    extra: int = 0  # elements that the cache holds of a token beside the latent

    @property
    def cached(self) -> int:
        """Elements of a token in the cache."""
        return self.rank + self.rotated + self.extra


def absorbed(t: Tape, q: Value, s: Latent, keys: int | None = None) -> Value:
    """q [B, S, heads (plain + rotated)] -> [B, S, heads value]: one key head of rank + rotated
    elements for all query heads, whose values are the same bytes; two products per head.

    FLOPs beside attention: 2 B S heads rank (plain + value).
    """
    batch, length = q.shape[:2]
    tokens, split = batch * length, q.split
    with t.op("kv_b_proj", "linear"):
        up = t.parameter(s.heads, s.plain, s.rank, dtype=t.precision.activations)
        wide = linear.matmul(t, t.view(q, s.heads, tokens, s.plain), up)
        down = t.parameter(s.heads, s.rank, s.value, dtype=t.precision.activations)
    width = s.rank + s.rotated
    joined = t.new((batch, s.heads, length, width), wide.dtype)
    key = t.new((batch, 1, length, width), wide.dtype)
    with t.op("attention", "attention"):
        mixed = attention.over_cache(
            t, joined, key, t.view(key, batch, 1, length, s.rank), keys=keys, elements=s.cached,
            latent=True,
        )  # fmt: skip
    with t.op("v_up_proj", "linear"):
        out = linear.matmul(t, t.view(mixed, s.heads, tokens, s.rank), down)
    out = t.view(out, batch, length, s.heads * s.value)
    out.split = split
    return out
