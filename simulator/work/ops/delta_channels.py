"""The delta rule with a decay per channel, in chunks: Kimi Delta Attention [kimi2025].

    S[t] = (I - beta[t] k[t] k[t]^T) diag(exp(g[t])) S[t-1] + beta[t] k[t] v[t]^T
    y[t] = S[t]^T q[t]

as in delta.py, but g[t] has an entry per channel of a key: the decay cannot leave the products of
queries and keys.

`composed` is what transformers runs of PyTorch's ops, in fp32: products of queries and keys are
sums of elementwise products [L, L, K], and the triangular system is solved row by row, neither of
which counts as a matrix product. `fused` are the kernels of flash-linear-attention
(fla/ops/kda), which are those of the gated delta rule with sums of g per channel.
"""

from __future__ import annotations

from typing import NamedTuple

from roofcast.simulator.work.ops import linear, pointwise
from roofcast.simulator.work.ops.delta import CHUNK, Delta, Gated, fused_rule, without_gradient
from roofcast.simulator.work.ops.state_space import cumulative, triton, triton_back
from roofcast.simulator.work.tape import Tape, Value


class _Chunks(NamedTuple):
    """Tensors of all chunks, [B H C, L, ...]."""

    q: Value
    k: Value
    values: Value
    reads: Value  # keys that read the old state
    sums: Value  # of g
    decay: Value  # [n, L, L, K]


def fused(t: Tape, s: Gated, d: Delta) -> Value:
    """y[B, S, H V] by the kernels of flash-linear-attention, for g[B, S, H K].

    Keeps what the gated delta rule keeps, and the masked products of queries and keys.
    """
    y = fused_rule(t, s, d)
    if y.grad:
        batch, length, _ = s.v.shape
        masked = t.new((batch * d.v_heads * -(-length // CHUNK), CHUNK, CHUNK), s.q.dtype)
        t.keep(masked.bytes)
    return y


def fused_low_rank(t: Tape, s: Gated, unit: Value, d: Delta) -> Value:
    """`fused` for a transition that is not that of the delta rule: diag(w) - k^T (a k), for k of
    unit length, as in RWKV-7 [peng2025]; products of q and keys with both, so twice as many.
    """
    y = fused(t, s, d)
    if t.generates == "decode":
        return y
    batch, length, _ = s.v.shape
    n = batch * d.v_heads * -(-length // CHUNK)
    pairs = t.new((n, CHUNK, 2 * CHUNK), s.q.dtype)
    triton(t, (s.q, s.k, unit, s.beta), (pairs,), (n, CHUNK, 2 * CHUNK, d.k_dim), s.q.dtype)
    if y.grad:
        t.save(unit)
        t.keep(pairs.bytes)
        ins = (s.q, s.k, unit, s.beta)
        triton_back(t, ins, unit, (n, CHUNK, d.k_dim, 4 * CHUNK), s.q.dtype)
    return y


def chunk_rule(t: Tape, s: Gated, d: Delta) -> Value:
    """y[B, S, H V] in the format of q, composed as in transformers.

    Keeps tensors [L, L, K] of all chunks five times, in fp32.
    """
    batch, length, _ = s.v.shape
    heads, chunks = d.v_heads, -(-length // CHUNK)
    padded = chunks * CHUNK

    def first(x: Value, *dims: int) -> Value:
        return t.cast(pointwise.copy(t, x, batch, heads, length, *dims), "fp32")

    q, k, v = (first(x, n) for x, n in ((s.q, d.k_dim), (s.k, d.k_dim), (s.v, d.v_dim)))
    beta, g = first(s.beta), first(s.g, d.k_dim)
    q, k = unit_length(t, q), unit_length(t, k)
    q, k, v, g = (pointwise.copy(t, x, batch, heads, padded, x.shape[-1]) for x in (q, k, v, g))
    q, beta = pointwise.scale(t, q), pointwise.copy(t, beta, batch, heads, padded)
    beta = t.view(beta, batch, heads, padded, 1)
    v, weighted = pointwise.mul(t, v, beta), pointwise.mul(t, k, beta)
    n = batch * heads * chunks
    q, k, weighted, g = (t.view(x, n, CHUNK, d.k_dim) for x in (q, k, weighted, g))
    parts = _within_chunks(t, q, k, weighted, t.view(v, n, CHUNK, d.v_dim), g)
    out = _through_chunks(t, parts, (batch * heads, chunks), d)
    return pointwise.copy(t, out, batch, length, heads * d.v_dim, dtype=s.q.dtype)


def unit_length(t: Tape, x: Value) -> Value:
    """x / sqrt(sum(x^2) + eps) over the last dimension, composed; keeps x and the root."""
    square = pointwise.unary(t, "add_scalar", pointwise.total(t, pointwise.mul(t, x, x)))
    root = pointwise.unary(t, "sqrt", square)
    out = t.new(x.shape, x.dtype, x.grad)
    t.emit("elementwise", (x, root), (out,), vector=x.size, special=root.size)
    if out.grad:
        t.save(x, root)
        read, product = 3 * x.bytes, x.dtype
        t.backward("elementwise", vector=4 * x.size, read=read, written=x.bytes, product=product)
    return out


def paired(t: Tape, a: Value, b: Value, decay: Value, mask: Value) -> Value:
    """sum over channels of a[n, L, 1, K] b[n, 1, L, K] decay[n, L, L, K], masked: [n, L, L]."""
    n, length, dim = a.shape
    pairs = pointwise.mul(t, t.view(a, n, length, 1, dim), t.view(b, n, 1, length, dim))
    total = pointwise.total(t, pointwise.mul(t, pairs, decay), keepdim=False)
    return pointwise.where(t, total, mask)


def triangle(t: Tape) -> Value:
    """The mask [L, L] of later tokens."""
    above = t.new((CHUNK, CHUNK), "bool")
    t.emit("elementwise", (), (above,), vector=2 * above.size)
    return above


def _within_chunks(t: Tape, q: Value, k: Value, weighted: Value, v: Value, g: Value) -> _Chunks:
    """Everything that does not depend on the state."""
    n, _, dim = q.shape
    sums, mask, strict = cumulative(t, g), triangle(t), triangle(t)
    spread = pointwise.add(t, t.view(sums, n, CHUNK, 1, dim), t.view(sums, n, 1, CHUNK, dim))
    hidden = t.view(strict, CHUNK, CHUNK, 1)
    decay = pointwise.unary(t, "exp", pointwise.where(t, spread, hidden))
    system = pointwise.unary(t, "neg", paired(t, weighted, k, decay, mask))
    system = pointwise.unary(t, "add_scalar", solved_by_rows(t, system))
    values = linear.matmul(t, system, v)
    reads = linear.matmul(t, system, pointwise.mul(t, weighted, pointwise.unary(t, "exp", sums)))
    return _Chunks(q, k, values, reads, sums, decay)


def solved_by_rows(t: Tape, system: Value) -> Value:
    """The inverse of a unit triangular system[n, L, L], in place, a row after the other.

    Keeps a copy of every row and of the rows above it: L^3 / 3 elements.
    """
    n, length, _ = system.shape
    kept = sum(i + i * i for i in range(1, length)) * n
    out = t.new(system.shape, system.dtype, system.grad)
    width = system.bytes / system.size
    rows, launches = kept * width, 5 * (length - 1)  # two copies, product, sum, sum
    with t.times(launches):
        work, read, written = 2 * kept / launches, 3 * rows / launches, 2 * rows / launches
        t.emit("elementwise", (system,), (out,), vector=work, read=read, written=written)
        if out.grad:
            product = system.dtype
            t.backward("elementwise", vector=work, read=read, written=written, product=product)
    t.keep(rows if out.grad else 0)
    return out


def _through_chunks(t: Tape, c: _Chunks, sizes: tuple[int, int], d: Delta) -> Value:
    """y[B H, C, L, V]: the state passes from one chunk to the next."""
    n, chunks = sizes
    out = t.new((n, chunks, CHUNK, d.v_dim), "fp32", c.values.grad)
    state, mask = t.new((n, d.k_dim, d.v_dim), "fp32"), triangle(t)
    t.emit("elementwise", (), (state, out))
    mine = _Chunks(*(t.view(x, n, *x.shape[1:]) for x in c))
    passed = 0
    for count in (1, chunks - 2, 1) if chunks > 1 else (1,):
        passed += count
        with t.times(count):
            if count:
                state = _one_chunk(t, mine, state, mask, last=passed == chunks)
    return out


def _one_chunk(t: Tape, c: _Chunks, state: Value, mask: Value, *, last: bool) -> Value:
    """The output of one chunk, and the state behind it. Nothing reads the last state."""
    n, _, dim = c.q.shape
    q = pointwise.mul(t, c.q, pointwise.unary(t, "exp", c.sums))
    outside = linear.matmul(t, q, state)
    scores = paired(t, c.q, c.k, c.decay, mask)
    new = pointwise.add(t, c.values, linear.matmul(t, c.reads, state))
    y = pointwise.add(t, outside, linear.matmul(t, scores, new))
    t.emit("copy", (y,), ())
    if y.grad:
        t.backward("copy", read=y.bytes, written=y.bytes, product=y.dtype)
    ends = pointwise.unary(t, "exp", pointwise.part(t, c.sums, n, dim, 1))
    kept = pointwise.mul(t, state, ends)
    rest = pointwise.unary(t, "exp", pointwise.add(t, t.view(c.sums, n, 1, dim), c.sums))
    keys = pointwise.mul(t, c.k, rest)
    transposed = t.view(keys, n, dim, CHUNK)
    if last:
        if t.training:
            t.save(keys, new)
        transposed, new = without_gradient(t, transposed), without_gradient(t, new)
    return pointwise.add(t, kept, linear.matmul(t, transposed, new))
