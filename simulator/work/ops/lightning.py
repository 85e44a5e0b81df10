"""Attention without softmax, with a fixed decay per head, in blocks [qin2024].

    S[t] = exp(-r) S[t-1] + k[t] v[t]^T;   y[t] = q[t] S[t]

Within a block of L tokens a masked product like attention, between blocks a D x D state per head.

forward, per token and head   4 (L D + D^2) FLOPs, masked products in full
"""

from __future__ import annotations

from roofcast.simulator.work.ops import linear, pointwise
from roofcast.simulator.work.ops import states as states_of
from roofcast.simulator.work.ops.delta import without_gradient
from roofcast.simulator.work.ops.state_space import triton, triton_back
from roofcast.simulator.work.tape import Tape, Value


def block_attention(t: Tape, qkv: Value, heads: int, block: int) -> Value:
    """y[B, S, H D] of qkv[B, S, 3 H D], block after block, as transformers composes it."""
    batch, length, width = qkv.shape
    dim = width // (3 * heads)
    sizes = [block] * (length // block) + [length % block] * (length % block > 0)
    runs = [(sizes[0], 1)]
    if len(sizes) > 1:
        runs += [(block, len(sizes) - 2), (sizes[-1], 1)]
    state = t.new((batch * heads, dim, dim), qkv.dtype)
    t.emit("elementwise", (), (state,))
    parts, passed = [], 0
    for size, count in runs:
        passed += count
        with t.times(count):
            if count:
                last = passed == len(sizes)
                y, state = _one_block(t, qkv, state, (batch, heads, size, dim), last=last)
                parts.append(y)
    joined = t.new((batch, heads, length, dim), qkv.dtype, qkv.grad)
    for _ in range(2):  # joined, and copied token by token
        t.emit("copy", (joined,), (joined,), read=joined.bytes)
        if joined.grad:
            t.backward("copy", read=joined.bytes, written=joined.bytes, product=qkv.dtype)
    return t.view(joined, batch, length, heads * dim)


def _one_block(
    t: Tape, qkv: Value, state: Value, shape: tuple[int, int, int, int], *, last: bool
) -> tuple[Value, Value]:
    """The output of one block, and the state behind it. Nothing reads the last state."""
    batch, heads, size, dim = shape
    n = batch * heads

    def operand() -> Value:
        """Queries, keys or values of this block, copied where several samples lie apart."""
        alone = batch == 1 or heads == 1
        return t.view(qkv, n, size, dim) if alone else pointwise.copy(t, qkv, n, size, dim)

    def decayed() -> Value:
        return pointwise.mul(t, t.view(qkv, n, size, dim), t.buffer(n, size, 1, dtype=qkv.dtype))

    scores = linear.matmul(t, operand(), operand(), transposed=True)
    scores = pointwise.mul(t, scores, t.buffer(n, size, size, dtype=qkv.dtype))
    inside = linear.matmul(t, scores, operand())
    y = pointwise.add(t, linear.matmul(t, decayed(), state), inside)
    keys, values = decayed(), operand()
    keys = t.view(keys, n, dim, size)
    rates = t.new((heads, 1, 1), qkv.dtype)
    t.emit("elementwise", (), (rates,), vector=heads, special=heads)
    if state.grad:
        t.save(rates)
    if last:
        if t.training:
            t.save(keys, values)
        keys, values, state = (without_gradient(t, v) for v in (keys, values, state))
    update = linear.matmul(t, keys, values)
    faded = pointwise.mul(t, state, t.buffer(1, 1, 1, dtype=qkv.dtype))
    return y, pointwise.add(t, faded, update)


def fused_attention(t: Tape, qkv: Value, heads: int, block: int) -> Value:
    """y[B, S, H D] by one kernel each way, which keeps q, k and v only."""
    batch, length, width = qkv.shape
    dim, n = width // (3 * heads), batch * heads * -(-length // block)
    y = t.new((batch, length, heads * dim), qkv.dtype, qkv.grad)
    size = heads * dim * dim
    if states_of.stepped(t, (qkv,), y, size, 6.0 * size, qkv.dtype):
        return y
    products = (
        (n, block, block, dim),  # scores
        (n, block, dim, block + dim),  # of values, and of the state
        (n, dim, dim, block),  # the state
    )
    for shape in products:
        triton(t, (qkv,), (y,), shape, qkv.dtype)
    if y.grad:
        t.save(qkv)
        for shape in (products[0], *products, *products):  # the scores once more
            triton_back(t, (qkv, y), qkv, shape, qkv.dtype)
    return y
