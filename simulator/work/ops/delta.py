"""The gated delta rule in chunks: Gated DeltaNet [yang2024].

    S[t] = exp(g[t]) S[t-1] (I - beta[t] k[t] k[t]^T) + beta[t] v[t] k[t]^T;   y[t] = S[t] q[t]

for every head, with a state of K x V. Within a chunk of L tokens, a triangular system condenses the
updates; the state passes from chunk to chunk, one after the other.

forward, per token and head   2 (3 L K + 2 L V + 3 K V) FLOPs, and the triangular system

`composed` is what transformers runs of PyTorch's ops, in fp32; the solution of the system is no
product there. `fused` are the kernels of flash-linear-attention (fla/ops/gated_delta_rule): masked
products in full, keys shared by the value heads of a group computed once per value head.
"""

from __future__ import annotations

from typing import NamedTuple

from roofcast.simulator.work.ops import linear, pointwise
from roofcast.simulator.work.ops import states as states_of
from roofcast.simulator.work.ops.state_space import cumulative, triton, triton_back
from roofcast.simulator.work.tape import Tape, Value

CHUNK = 64  # tokens; of both implementations


class Delta(NamedTuple):
    """Sizes of a layer, of one tensor-parallel rank."""

    k_heads: int
    v_heads: int  # a multiple of k_heads
    k_dim: int
    v_dim: int

    @property
    def convolved(self) -> int:
        """Channels of queries, keys and values together."""
        return 2 * self.k_heads * self.k_dim + self.v_heads * self.v_dim


class Gated(NamedTuple):
    """What the rule reads: q and k[B, S, Hk K], v[B, S, Hv V], g and beta[B, S, Hv]."""

    q: Value
    k: Value
    v: Value
    g: Value
    beta: Value


def unit_length(t: Tape, x: Value) -> Value:
    """x / sqrt(sum(x^2) + eps) over the last dimension, composed."""
    square = pointwise.mean(t, pointwise.mul(t, x, x))
    inverse = pointwise.unary(t, "rsqrt", pointwise.unary(t, "add_scalar", square))
    return pointwise.mul(t, x, inverse)


def _heads_first(t: Tape, x: Value, of: int, heads: int, dim: int) -> Value:
    """x[B, S, of * dim] in fp32 as [B, heads, S, dim], heads repeated."""
    batch, length = x.shape[:2]
    if of != heads:
        x = pointwise.copy(t, x, batch, length, heads, dim)
    return t.view(t.cast(x, "fp32"), batch, heads, length, dim)


class _Chunks(NamedTuple):
    """Tensors of all chunks, [B H C, L, ...]."""

    q: Value
    k: Value
    values: Value
    reads: Value  # keys that read the old state
    scores: Value
    decay: Value  # of a chunk's state


def chunk_rule(t: Tape, s: Gated, d: Delta) -> Value:
    """y[B, S, Hv V] in the format of q, composed as in transformers.

    Keeps L x L products of all chunks five times, in fp32.
    """
    batch, length, _ = s.v.shape
    chunks = -(-length // CHUNK)
    padded, heads = chunks * CHUNK, d.v_heads
    q, k = (_heads_first(t, x, d.k_heads, heads, d.k_dim) for x in (s.q, s.k))
    v = _heads_first(t, s.v, heads, heads, d.v_dim)
    beta, g = (t.view(t.cast(x, "fp32"), batch, heads, length) for x in (s.beta, s.g))
    q, k = pointwise.scale(t, unit_length(t, q)), unit_length(t, k)
    q, k, v = (pointwise.copy(t, x, batch, heads, padded, x.shape[-1]) for x in (q, k, v))
    beta, g = (pointwise.copy(t, x, batch, heads, padded) for x in (beta, g))
    beta = t.view(beta, batch, heads, padded, 1)
    v, weighted = pointwise.mul(t, v, beta), pointwise.mul(t, k, beta)
    n = batch * heads * chunks
    q, k, weighted = (t.view(x, n, CHUNK, d.k_dim) for x in (q, k, weighted))
    v, g = t.view(v, n, CHUNK, d.v_dim), t.view(g, n, CHUNK)
    # neither the cast to fp32 nor padding has sorted them by heads
    strided = s.q.dtype == "fp32" and padded == length and heads > 1
    parts = _within_chunks(t, q, k, weighted, v, g, strided)
    out = _through_chunks(t, parts, (batch, heads, chunks), d)
    return pointwise.copy(t, out, batch, length, heads * d.v_dim, dtype=s.q.dtype)


def _within_chunks(
    t: Tape, q: Value, k: Value, weighted: Value, v: Value, g: Value, strided: bool
) -> _Chunks:
    """Everything that does not depend on the state."""
    n, _, dim = q.shape
    sums = cumulative(t, g)
    above = t.new((CHUNK, CHUNK), "bool")
    t.emit("elementwise", (), (above,), vector=above.size)
    pairs = pointwise.add(t, t.view(sums, n, CHUNK, 1), t.view(sums, n, 1, CHUNK))
    decay = pointwise.unary(t, "exp", pointwise.where(t, pairs, above))
    system, scores = (
        pointwise.mul(t, linear.matmul(t, *operands, transposed=True), decay)
        for operands in (_operands(t, weighted, k, strided), _operands(t, q, k, strided))
    )
    rows = t.view(pointwise.unary(t, "exp", sums), n, CHUNK, 1)
    reads = pointwise.mul(t, weighted, rows)
    values, reads = solved(t, system, v), solved(t, system, reads)
    q = pointwise.mul(t, q, t.view(pointwise.unary(t, "exp", sums), n, CHUNK, 1))
    rest = pointwise.add(t, t.view(sums, n, CHUNK), sums)
    k = pointwise.mul(t, k, t.view(pointwise.unary(t, "exp", rest), n, CHUNK, 1))
    ends = pointwise.unary(t, "exp", pointwise.part(t, sums, n, 1))
    return _Chunks(q, k, values, reads, scores, ends)


def _operands(t: Tape, a: Value, b: Value, strided: bool) -> list[Value]:
    """Both as a batched product reads them: copied where heads do not lie chunk by chunk."""
    return [pointwise.copy(t, x) if strided else x for x in (a, b)]


def solved(t: Tape, system: Value, b: Value) -> Value:
    """X[n, L, m] with (unit triangular) system[n, L, L] X = b[n, L, m].

    forward   n L^2 m vector FLOPs by substitution; keeps system and X
    backward  another substitution, and the product of its result with X^T
    """
    n, length, m = b.shape
    out = t.new(b.shape, b.dtype, b.grad or system.grad)
    work = n * length * length * m
    t.emit("elementwise", (system, b), (out,), vector=work)
    if out.grad:
        t.save(system, out)
        read = system.bytes + b.bytes
        t.backward("elementwise", vector=work, read=read, written=b.bytes, product=b.dtype)
        shape = (n, length, length, m)
        t.backward(
            "matmul",
            matrix=2 * work,
            read=2 * b.bytes,
            written=system.bytes,
            product=b.dtype,
            shape=shape,
        )
    return out


def _through_chunks(t: Tape, c: _Chunks, sizes: tuple[int, int, int], d: Delta) -> Value:
    """y[B, H, S, V] of all chunks: the state passes from one to the next."""
    batch, heads, chunks = sizes
    n = batch * heads
    out = t.new((n, chunks, CHUNK, d.v_dim), "fp32", c.values.grad)
    state = t.new((n, d.k_dim, d.v_dim), "fp32")
    t.emit("elementwise", (), (state, out))
    passed = 0
    q, k, values, reads, scores = (t.view(x, n, *x.shape[1:]) for x in c[:-1])
    mine = _Chunks(q, k, values, reads, scores, t.view(c.decay, n, 1, 1))
    for count in (1, chunks - 2, 1) if chunks > 1 else (1,):
        passed += count
        with t.times(count):
            if count:
                state = _one_chunk(t, mine, state, last=passed == chunks)
    return out


def _one_chunk(t: Tape, c: _Chunks, state: Value, *, last: bool) -> Value:
    """The output of one chunk, and the state behind it. Nothing reads the last state."""
    new = pointwise.add(t, c.values, linear.matmul(t, c.reads, state))
    y = pointwise.add(t, linear.matmul(t, c.q, state), linear.matmul(t, c.scores, new))
    t.emit("copy", (y,), ())
    if y.grad:
        t.backward("copy", read=y.bytes, written=y.bytes, product=y.dtype)
    keys, decay, added = c.k, c.decay, new
    transposed = t.view(keys, keys.shape[0], keys.shape[2], keys.shape[1])
    if last:
        if t.training:
            t.save(keys, new, state)
        state, transposed, decay, added = (
            without_gradient(t, x) for x in (state, transposed, decay, added)
        )
    update = linear.matmul(t, transposed, added)
    return pointwise.add(t, pointwise.mul(t, state, decay), update)


def without_gradient(t: Tape, x: Value) -> Value:
    """x as an op sees it whose result no loss depends on."""
    y = t.view(x, *x.shape)
    y.grad = False
    return y


def fused_rule(t: Tape, s: Gated, d: Delta) -> Value:
    """y[B, S, Hv V] by the kernels of flash-linear-attention.

    Keeps q and k of unit length, v, the sums of g, beta, and the inverse of the system in the
    format of q.
    """
    batch, length, _ = s.v.shape
    heads, low = d.v_heads, s.q.dtype
    n = batch * heads * -(-length // CHUNK)
    k_dim, v_dim = d.k_dim, d.v_dim
    y, size = t.new(s.v.shape, low, s.v.grad), heads * k_dim * v_dim
    if states_of.stepped(t, s, y, size, 8.0 * size):
        return y
    q, k = (t.new(x.shape, low, x.grad) for x in (s.q, s.k))
    for x, unit in ((s.q, q), (s.k, k)):
        t.emit("layer_norm", (x,), (unit,), vector=3 * x.size, special=x.size // k_dim)
    sums = t.new(s.g.shape, "fp32", s.g.grad)
    t.emit("elementwise", (s.g,), (sums,), vector=s.g.size)
    system = t.new((n, CHUNK, CHUNK), low)
    reads, values = t.new((n, CHUNK, k_dim), low), t.new((n, CHUNK, v_dim), low)
    states = t.new((n, k_dim, v_dim), low)
    triton(t, (k, s.beta, sums), (system,), (n, CHUNK, CHUNK, k_dim), low)
    t.emit("elementwise", (system,), (system,), vector=n * CHUNK**3 / 3)
    triton(t, (k, s.v, system), (reads, values), (n, CHUNK, k_dim + v_dim, CHUNK), low)
    triton(t, (k, reads, values, sums), (states, values), (n, CHUNK, v_dim, 2 * k_dim), low)
    triton(t, (q, states, sums), (y,), (n, CHUNK, v_dim, k_dim), low)
    triton(t, (q, k, values), (y,), (n, CHUNK, CHUNK, k_dim + v_dim), low)
    if y.grad:
        t.save(q, k, s.v, sums, s.beta)
        t.keep(system.bytes)
        for x in (q, k):
            t.keep(4 * x.size / k_dim)  # inverse lengths
        _rule_back(t, s, (q, k, system, reads, values, states), d, n)
    return y


def _rule_back(t: Tape, s: Gated, made: tuple[Value, ...], d: Delta, n: int) -> None:
    """Kernels of chunk_gated_delta_rule_bwd, in its order."""
    q, k, system, reads, values, states = made
    kd, vd, low = d.k_dim, d.v_dim, s.q.dtype
    kernels = (  # what is read, a tensor as large as what is written, product
        ((k, s.v, system), reads, (n, CHUNK, kd + vd, CHUNK)),  # again
        ((k, reads, values), states, (n, CHUNK, vd, 2 * kd)),  # again
        ((q, k, s.v), values, (n, CHUNK, CHUNK, kd + vd)),  # of values, within a chunk
        ((q, k, reads, s.v, values), states, (n, CHUNK, vd, 3 * kd)),  # of states
        ((s.v, values, states), q, (n, CHUNK, kd, 3 * vd)),  # of q, k and reads by the states
        ((q, k, s.v, values), k, (n, CHUNK, CHUNK, 2 * kd + vd)),  # of q and k within a chunk
        ((k, s.v, reads, values), system, (n, CHUNK, CHUNK, 2 * kd + 2 * vd)),  # of the system
        ((system,), system, (n, CHUNK, CHUNK, 2 * CHUNK)),
        ((k, system), k, (n, CHUNK, CHUNK, 3 * kd)),
    )
    for ins, out, shape in kernels:
        triton_back(t, ins, out, shape, low)
    for x in (q, k):
        read = 2 * x.bytes
        t.backward("layer_norm", vector=6 * x.size, read=read, written=x.bytes, product=low)
