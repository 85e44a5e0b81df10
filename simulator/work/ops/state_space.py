"""Mamba-2's state-space dual: the scan in chunks, as matrix products [dao2024].

    h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] x[t];   y[t] = C[t] h[t] + D x[t]

for every head, with a state of P x N; B and C are shared by the heads of a group. A chunk of L
tokens is a masked product like attention, and only the state passes from chunk to chunk:

    G = C B^T;   y = (G * decay) x + C h;   h' = B^T x + decay h

forward, per token    2 (L N + L P + 2 N P) FLOPs of each head; the masked products in full

`composed` is what transformers runs of PyTorch's ops: every head has its own product G, states pass
between all chunks in one product, and all is fp32. `fused` are the kernels of mamba_ssm
(ops/triton/ssd_combined.py): G once per group, and little is kept.
"""

from __future__ import annotations

from typing import NamedTuple

from roofcast.simulator.work.ops import linear, norm, pointwise
from roofcast.simulator.work.ops import states as states_of
from roofcast.simulator.work.tape import Tape, Value


class Heads(NamedTuple):
    """Sizes of a scan, of one tensor-parallel rank."""

    heads: int
    dim: int  # P, width of a head
    groups: int  # heads of a group share B and C
    state: int  # N
    chunk: int  # L [tokens]

    @property
    def inner(self) -> int:
        """Width of all heads together."""
        return self.heads * self.dim

    @property
    def convolved(self) -> int:
        """Channels of x, B and C together."""
        return self.inner + 2 * self.groups * self.state


class Scanned(NamedTuple):
    """What a scan reads: x[B, S, H P], dt[B, S, H], b and c[B, S, G N]."""

    x: Value
    dt: Value
    b: Value
    c: Value


def cumulative(t: Tape, x: Value) -> Value:
    """The cumulative sum over one dimension; keeps nothing."""
    out = t.new(x.shape, x.dtype, x.grad)
    t.emit("elementwise", (x,), (out,), vector=x.size)
    if out.grad:
        t.backward("elementwise", vector=x.size, read=x.bytes, written=x.bytes, product=x.dtype)
    return out


def segments(t: Tape, x: Value) -> Value:
    """exp of the sums over all segments of x[..., L]: [..., L, L], lower triangular."""
    length = x.shape[-1]
    below, upto = (t.new((length, length), "bool") for _ in range(2))
    t.emit("elementwise", (), (below, upto), vector=2 * below.size)
    spread = pointwise.where(t, t.view(x, *x.shape, 1), below)
    return pointwise.unary(t, "exp", pointwise.where(t, cumulative(t, spread), upto))


def decay_rate(t: Tape, *shape: int) -> Value:
    """A = -exp(A_log) in fp32, of the weight A_log."""
    w = t.parameter(*shape)
    full = t.cast(w, "fp32")
    if full is not w:
        full.kind = "weight_copy"
    return pointwise.unary(t, "neg", pointwise.unary(t, "exp", full))


def step_size(t: Tape, dt: Value, heads: int) -> Value:
    """dt = clamp(softplus(dt + bias)), for dt[B, S, H]."""
    bias = t.cast(t.view(t.parameter(heads), 1, 1, heads), dt.dtype)
    dt = pointwise.unary(t, "softplus", pointwise.add(t, dt, bias))
    return pointwise.unary(t, "clamp", dt)


def chunk_scan(t: Tape, s: Scanned, a: Value, skip: Value, h: Heads) -> Value:
    """y[B, S, H P] in fp32, of a[H] and skip = D[H], composed as in transformers.

    Keeps the products and decays of all chunks: 4 L bytes per token and head three times.
    """
    batch, length, _ = s.x.shape
    chunks = -(-length // h.chunk)
    padded = chunks * h.chunk
    x = t.view(t.cast(s.x, "fp32"), batch, length, h.heads, h.dim)
    b, c = (
        pointwise.copy(t, t.cast(v, "fp32"), batch, length, h.heads, h.state) for v in (s.b, s.c)
    )
    held = pointwise.copy(t, x, batch, padded, h.heads, h.dim)
    residual = pointwise.mul(t, t.view(skip, 1, 1, h.heads, 1), held)
    steps = t.view(t.cast(s.dt, "fp32"), batch, length, h.heads, 1)
    x = pointwise.mul(t, x, steps)
    rates = pointwise.mul(t, a, t.cast(s.dt, "fp32"))
    shape = batch, chunks, h.chunk, h.heads
    x = pointwise.copy(t, x, *shape, h.dim)
    rates = pointwise.copy(t, rates, batch, h.heads, chunks, h.chunk)
    b, c = (pointwise.copy(t, v, *shape, h.state) for v in (b, c))
    sums = cumulative(t, rates)
    inside, states = _within_chunks(t, x, b, c, rates, sums, h)
    states = _between_chunks(t, states, sums)
    n, alone = batch * chunks * h.heads, batch * chunks == 1 or h.heads == 1
    left = _operand(t, c, alone, n, h.chunk, h.state)
    outside = linear.matmul(t, left, _operand(t, states, alone, n, h.state, h.dim))
    outside = t.view(outside, n, h.chunk, h.dim)
    weight = t.view(pointwise.unary(t, "exp", sums), n, h.chunk, 1)
    outside = pointwise.mul(t, outside, weight)
    y = pointwise.copy(t, pointwise.add(t, inside, outside))
    y = pointwise.add(t, t.view(y, batch, padded, h.heads, h.dim), residual)
    return t.view(y, batch, length, h.inner)


def _operand(t: Tape, x: Value, alone: bool, *shape: int) -> Value:
    """x as a batched product reads it: a copy, unless it lies in memory chunk by chunk."""
    return t.view(x, *shape) if alone else pointwise.copy(t, x, *shape)


def _within_chunks(
    t: Tape, x: Value, b: Value, c: Value, rates: Value, sums: Value, h: Heads
) -> tuple[Value, Value]:
    """What tokens of a chunk give each other [n, L, P], and the state that they leave [n, P, N]."""
    batch, chunks, length, heads, dim = x.shape
    n, alone = batch * chunks * heads, batch * chunks == 1 or heads == 1
    decay = segments(t, rates)
    left, right = (_operand(t, v, alone, n, length, h.state) for v in (c, b))
    scores = linear.matmul(t, left, right, transposed=True)
    scores = pointwise.mul(t, scores, t.view(decay, n, length, length))
    inside = linear.matmul(t, scores, _operand(t, x, alone, n, length, dim))
    last = t.view(sums, batch, heads, chunks, 1)
    rest = pointwise.unary(t, "exp", pointwise.add(t, last, sums))
    decayed = pointwise.mul(t, b, t.view(rest, batch, chunks, length, heads, 1))
    left = _operand(t, x, alone, n, dim, length)
    return inside, linear.matmul(t, left, _operand(t, decayed, alone, n, length, h.state))


def _between_chunks(t: Tape, states: Value, sums: Value) -> Value:
    """The states at the start of all chunks and at the end [B, H, chunks + 1, P, N]."""
    batch, heads, chunks, _ = sums.shape
    _, dim, state = states.shape
    states = t.view(states, batch, chunks, heads, dim, state)
    first = t.new((batch, 1, heads, dim, state), states.dtype)
    t.emit("elementwise", (), (first,))
    states = pointwise.concat(t, [first, states], 1)
    ends = pointwise.copy(t, t.view(sums, batch, heads, chunks), batch, heads, chunks + 1)
    decay = t.view(segments(t, ends), batch * heads, chunks + 1, chunks + 1)
    shape = batch * heads, chunks + 1, dim * state
    return linear.matmul(t, decay, _operand(t, states, batch == 1 or heads == 1, *shape))


def gated_norm(t: Tape, y: Value, gate: Value, *, weight: Value, groups: int = 1) -> Value:
    """RMSNorm of y silu(gate) over each of `groups` parts of the last dimension, times `weight`."""
    full = t.cast(y, "fp32")
    full = pointwise.mul(t, full, pointwise.unary(t, "silu", t.cast(gate, "fp32")))
    return pointwise.mul(t, weight, t.cast(normal(t, full, groups), y.dtype))


def gated_norm_late(
    t: Tape, y: Value, gate: Value, weight: Value, groups: int, gate_first: bool
) -> Value:
    """`gated_norm` whose weight multiplies before the cast; the gate comes first or last."""
    full = t.cast(y, "fp32")
    if gate_first:
        full = pointwise.mul(t, full, pointwise.unary(t, "silu", t.cast(gate, "fp32")))
    full = pointwise.mul(t, weight, normal(t, full, groups))
    if not gate_first:
        full = pointwise.mul(t, full, pointwise.unary(t, "silu", t.cast(gate, "fp32")))
    return t.cast(full, y.dtype)


def normal(t: Tape, x: Value, groups: int = 1) -> Value:
    """x[..., W] in fp32 over its root mean square, of each of `groups` parts of the width."""
    parts = t.view(x, *x.shape[:-1], groups, x.shape[-1] // groups)
    square = pointwise.unary(t, "pow", parts)
    variance = pointwise.unary(t, "add_scalar", pointwise.mean(t, square))
    out = pointwise.mul(t, parts, pointwise.unary(t, "rsqrt", variance))
    return t.view(out, *x.shape)


def fused_scan(t: Tape, s: Scanned, a: Value, skip: Value, bias: Value, h: Heads) -> Value:
    """y[B, S, H P] by mamba_ssm's kernels; keeps y, and what is read only if the caller saves it.

    Four products: chunk_state, bmm_chunk, and chunk_scan with its two. Backward computes the states
    and G again, and has twice the products of forward; masked ones are counted in full.
    """
    batch, length, _ = s.x.shape
    chunks = -(-length // h.chunk)
    y = t.new((batch, length, h.inner), s.x.dtype, s.x.grad)
    size = h.inner * h.state
    if states_of.stepped(t, (*s, a, skip, bias), y, size, 6.0 * size):
        return y
    decay = t.new((batch, h.heads, chunks, h.chunk), "fp32")  # and dt: two of that size
    states = t.new((batch, chunks, h.heads, h.dim, h.state), "fp32")
    scores = t.new((batch, chunks, h.groups, h.chunk, h.chunk), "fp32")
    each, shared = batch * chunks * h.heads, batch * chunks * h.groups
    work = decay.size
    t.emit("elementwise", (s.dt, a, bias), (decay,), vector=4 * work, special=2 * work)
    triton(t, (s.b, s.x, decay), (states,), (each, h.dim, h.state, h.chunk), s.x.dtype)
    t.emit("elementwise", (states, decay), (states,), vector=2 * states.size)
    triton(t, (s.c, s.b), (scores,), (shared, h.chunk, h.chunk, h.state), s.x.dtype)
    ins = scores, s.x, decay, s.c, states, skip
    triton(t, ins, (y,), (each, h.chunk, h.dim, h.chunk + h.state), s.x.dtype)
    if y.grad:
        t.save(y)
        _scan_back(t, s, (decay, states, scores), h, (each, shared))
    return y


def triton(
    t: Tape, ins: tuple[Value, ...], outs: tuple[Value, ...], shape: tuple, product: str
) -> None:
    """A forward kernel around a batched product of (batch, m, n, k)."""
    batch, m, n, k = shape
    t.emit("matmul", ins, outs, matrix=2 * batch * m * n * k, product=product, shape=shape)


def triton_back(t: Tape, ins: tuple[Value, ...], out: Value, shape: tuple, product: str) -> None:
    """A backward kernel around a batched product; `out` is as large as the gradient it writes."""
    batch, m, n, k = shape
    read = sum(v.bytes for v in ins)
    flops = 2 * batch * m * n * k
    t.backward("matmul", matrix=flops, read=read, written=out.bytes, product=product, shape=shape)


def _scan_back(
    t: Tape, s: Scanned, made: tuple[Value, Value, Value], h: Heads, counts: tuple[int, int]
) -> None:
    """Kernels of _mamba_chunk_scan_combined_bwd, in its order."""
    decay, states, scores = made
    (each, shared), length, product = counts, h.chunk, s.x.dtype
    kernels = (  # what is read, a tensor as large as what is written, product
        ((s.c, s.b), scores, (shared, length, length, h.state)),  # again
        ((s.b, s.x, decay), states, (each, h.dim, h.state, length)),  # again
        ((s.c, s.x, decay), states, (each, h.dim, h.state, length)),  # of states, from y
        ((scores, s.x, s.x, s.b, states), s.x, (each, length, h.dim, length + h.state)),
        ((s.x, states, decay), s.b, (each, length, h.state, h.dim)),
        ((s.x, states, decay), s.c, (each, length, h.state, h.dim)),
        ((s.x, s.x, decay), scores, (each, length, length, h.dim)),
        ((scores, s.c), s.b, (shared, length, h.state, length)),
        ((scores, s.b), s.c, (shared, length, h.state, length)),
    )
    for ins, out, shape in kernels:
        triton_back(t, ins, out, shape, product)
    work, moved = decay.size, states.bytes + decay.bytes
    t.backward("elementwise", vector=4 * states.size, read=2 * moved, written=moved)
    t.backward("elementwise", vector=6 * work, special=2 * work, read=2 * decay.bytes)


def fused_gated_norm(t: Tape, y: Value, gate: Value, weight: Value, groups: int = 1) -> Value:
    """`gated_norm` as one kernel, which keeps 4 bytes per row and group; y and gate are kept by
    whoever made them.
    """
    out = t.new(y.shape, y.dtype, y.grad)
    rows = groups * y.size // y.shape[-1]
    n = y.size
    t.emit("layer_norm", (y, gate, weight), (out,), vector=8 * n, special=n + rows)
    if out.grad:
        t.keep(norm.STATISTICS * rows)
        read, written = 3 * y.bytes, 2 * y.bytes
        t.backward("layer_norm", vector=16 * n, special=n, read=read, written=written)
    return out


def fused_gate(t: Tape, y: Value, gate: Value) -> Value:
    """y silu(gate) inside the scan's kernel; y and gate are kept by whoever made them."""
    out = t.new(y.shape, y.dtype, y.grad)
    n = y.size
    t.emit("elementwise", (y, gate), (out,), vector=4 * n, special=2 * n)
    if out.grad:
        read, written = 3 * y.bytes, 2 * y.bytes
        t.backward("elementwise", vector=8 * n, special=2 * n, read=read, written=written)
    return out
