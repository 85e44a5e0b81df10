"""The selective scan of state-space models [gu2023], step by step.

It runs as transformers composes it if no dedicated kernel is installed:

    h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] u[t];   y[t] = C[t] h[t] + D u[t]
"""

from __future__ import annotations

from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.ops import states as states_of
from roofcast.simulator.work.tape import Tape, Value


def selective_scan(t: Tape, u: Value, dt: Value, b: Value, c: Value, a: Value, d: Value) -> Value:
    """u and dt[B, I, S], b and c[B, 1, S, N] slices, a[I, N] and d[I] in fp32 -> y[B, I, S].

    Keeps exp(dt A), dt B and the state of each step: twice if it is cast to the format of u for the
    product with C.
    """
    batch, inner, steps = u.shape
    n, width = a.shape[-1], u.bytes // u.size
    wide = t.view(dt, batch, inner, steps, 1)
    decay = pointwise.unary(t, "exp", pointwise.mul(t, t.view(a, 1, inner, 1, n), wide))
    drive = pointwise.mul(t, wide, t.cast(b, "fp32"))
    drive = pointwise.mul(t, drive, t.view(t.cast(u, "fp32"), batch, inner, steps, 1))
    y = t.new((batch, inner, steps), u.dtype, u.grad)
    state = batch * inner * n
    work, shape = 2 * state * steps, (steps, batch, inner, n)
    ins = (decay, drive, c)
    t.emit("recurrent", ins, (y,), matrix=work, vector=work, shape=shape, product=u.dtype)
    if y.grad:
        t.save(c, decay)
        t.keep(state * width)  # the zero state before the first step, in u's format
        if u.dtype == decay.dtype:
            t.keep(decay.bytes)
        else:
            t.keep(decay.bytes - 4 * state)  # the last step's state is kept only as cast
            t.keep(decay.size * width)
        t.backward(
            "recurrent",
            matrix=2 * work,
            vector=2 * work,
            read=2 * decay.bytes + drive.bytes + y.bytes,
            written=2 * decay.bytes,
            product=u.dtype,
            shape=shape,
        )
    return pointwise.add(t, y, pointwise.mul(t, u, t.view(d, 1, inner, 1)))


SCANNED = 2048  # tokens between the states that the fused kernel keeps


def fused_scan(
    t: Tape, u: Value, dt: Value, b: Value, c: Value, weights: tuple[Value, Value, Value, Value]
) -> Value:
    """y[B, I, S] by mamba_ssm's selective_scan_cuda, gate and softplus of dt included.

    weights: A, D, the bias of dt, and the gate. Keeps all it reads, y before the gate, and a pair
    of states every 2048 tokens in fp32. Without products: 9 vector FLOPs and an exp per element of
    the states of all steps; backward computes the states again.
    """
    batch, inner, steps = u.shape
    n = b.shape[-1]
    y, gated = (t.new(u.shape, u.dtype, u.grad) for _ in range(2))
    if states_of.stepped(t, (u, dt, b, c, *weights), gated, inner * n, 9.0 * inner * n):
        return gated
    work = batch * inner * steps * n
    ins = (u, dt, b, c, *weights)
    t.emit("elementwise", ins, (y, gated), vector=9 * work, special=work + 4 * u.size)
    if y.grad:
        t.save(u, dt, b, c, weights[3], y)
        t.keep(2 * 4 * n * batch * inner * -(-steps // SCANNED))
        read = sum(v.bytes for v in ins) + 2 * y.bytes
        t.backward(
            "elementwise",
            vector=30 * work,
            special=2 * work,
            read=read,
            written=3 * u.bytes + b.bytes + c.bytes,
            product=u.dtype,
        )
    return gated


def gated_recurrence(t: Tape, gate: Value, x: Value, *, fused: bool) -> Value:
    """h[t] = gate[t] h[t-1] + x[t] in fp32, per channel of gate and x[B, S, W] [de2024].

    composed  three kernels a step, as in transformers; keeps the state of each step, and its gate
              where that is cast
    fused     one pass over the sequence; keeps the gates and the states in the format of x
    """
    batch, steps, width = x.shape
    out = t.new(x.shape, x.dtype, x.grad)
    if states_of.stepped(t, (gate, x), out, width, 2.0 * width):
        return out
    if fused:
        t.emit("elementwise", (gate, x), (out,), vector=2 * x.size)
        if out.grad:
            t.save(gate, out)
            read, written = 3 * x.bytes, 2 * x.bytes
            t.backward("elementwise", vector=4 * x.size, read=read, written=written)
        return out
    state = t.new((batch, width), "fp32")
    t.emit("elementwise", (), (state, out))
    for count in (1, steps - 2, 1) if steps > 1 else (1,):
        with t.times(count):
            if count:
                mine, drive = (t.cast(t.view(v, batch, width), "fp32") for v in (gate, x))
                state = pointwise.add(t, pointwise.mul(t, mine, state), drive)
                t.emit("copy", (t.cast(state, x.dtype),), ())
                if out.grad:
                    moved = out.bytes / steps
                    t.backward("copy", read=moved, written=moved, product=x.dtype)
    return out


WKV_OPS = 18  # kernels of a step as transformers composes it
WKV_KEPT = 12  # tensors as large as the state that such a step keeps


def wkv(t: Tape, key: Value, value: Value, *, fused: bool) -> Value:
    """RWKV-4's weighted mean of the values so far, of key and value[B, S, A] [peng2023].

    Numerator, denominator and largest exponent pass from step to step in fp32, without products.

    composed  18 kernels a step, which keep 12 tensors of the state's size
    fused     one CUDA kernel each way, which keeps decay, key, value and the result
    """
    batch, steps, width = key.shape
    decay = pointwise.unary(t, "exp", t.parameter(width))
    t.parameter(width)  # weight of the current token
    out = t.new(key.shape, key.dtype, key.grad)
    work, state = batch * width, 4 * batch * width
    if states_of.stepped(t, (key, value, decay), out, 3 * width, 20.0 * width):
        return out
    if fused:
        ins = (key, value, decay)
        t.emit("elementwise", ins, (out,), vector=20 * out.size, special=4 * out.size)
        if out.grad:
            t.save(key, value, out)
            t.keep(4 * width)
            read, written = 4 * key.bytes, 2 * key.bytes
            t.backward("elementwise", vector=50 * out.size, read=read, written=written)
        return out
    with t.times(steps):
        for op in range(WKV_OPS):
            special = work if op % 4 == 0 else 0
            read, written = 2 * state, state
            t.emit("elementwise", (), (), vector=work, special=special, read=read, written=written)
            if out.grad:
                t.backward("elementwise", vector=2 * work, read=3 * state, written=2 * state)
        if out.grad:
            t.keep(WKV_KEPT * state)
    t.emit("elementwise", (key, value), (out,))
    if out.grad:
        t.save(value)
    return out
