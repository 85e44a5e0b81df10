"""The selective scan of state-space models [gu2023], step by step as transformers writes it where
no kernel is installed.

h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] u[t];   y[t] = C[t] h[t] + D u[t]
"""

from __future__ import annotations

from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.tape import Tape, Value


def selective_scan(t: Tape, u: Value, dt: Value, b: Value, c: Value, a: Value, d: Value) -> Value:
    """u and dt[B, I, S], b and c[B, 1, S, N] slices, a[I, N] and d[I] in fp32 -> y[B, I, S].

    Keeps exp(dt A), dt B and the state of each step (twice where it is cast to u's format for the
    product with C).
    """
    batch, inner, steps = u.shape
    n = a.shape[-1]
    wide = t.view(dt, batch, inner, steps, 1)
    decay = pointwise.unary(t, "exp", pointwise.mul(t, t.view(a, 1, inner, 1, n), wide))
    drive = pointwise.mul(t, wide, t.cast(b, "fp32"))
    drive = pointwise.mul(t, drive, t.view(t.cast(u, "fp32"), batch, inner, steps, 1))
    y = t.new((batch, inner, steps), u.dtype, u.grad)
    state = batch * inner * n
    shape = (steps, batch, inner, n)
    t.emit(
        "recurrent",
        (decay, drive, c),
        (y,),
        matrix=2 * state * steps,
        vector=2 * state * steps,
        shape=shape,
        product=u.dtype,
    )
    if y.grad:
        t.save(c, decay)
        t.keep(state * u.bytes // u.size)  # the zero state before the first step, in u's format
        if u.dtype == decay.dtype:
            t.keep(decay.bytes)
        else:
            t.keep(decay.bytes - 4 * state)  # the last step's state is kept only as cast
            t.keep(decay.size * u.bytes // u.size)
        read = 2 * decay.bytes + drive.bytes + y.bytes
        work = 4 * state * steps
        t.backward(
            "recurrent",
            matrix=work,
            vector=work,
            read=read,
            written=2 * decay.bytes,
            product=u.dtype,
            shape=shape,
        )
    return pointwise.add(t, y, pointwise.mul(t, u, t.view(d, 1, inner, 1)))
