"""Connectionist temporal classification: the loss of sequences without alignment [graves2006]."""

from __future__ import annotations

from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.precision import WIDTH
from roofcast.simulator.work.tape import Tape, Value


def ctc(t: Tape, logits: Value, labels: int) -> Value:
    """The loss of logits[B, T, letters] against `labels` letters per sample: a scalar.

    forward   log-softmax, then a recursion over T steps of 2 labels + 1 states; keeps the
              log-probabilities and all states
    backward  the recursion in reverse, then the log-softmax
    """
    x = t.full(logits)
    n, dtype = x.size, x.dtype
    batch, steps, _ = x.shape
    states = batch * steps * (2 * labels + 1)
    state_bytes = states * WIDTH[dtype]
    log_p = t.new(x.shape, dtype, x.grad)
    t.emit("softmax", (x,), (log_p,), vector=4 * n, special=n)
    log_p = pointwise.copy(t, log_p)  # steps first
    out = t.new((), dtype, x.grad)
    special = 3 * states
    t.emit("scatter", (log_p,), (out,), vector=6 * states, special=special, written=state_bytes)
    if x.grad:
        t.save(log_p)
        t.keep(state_bytes + 8 * batch * labels)
        t.backward(
            "scatter",
            vector=8 * states,
            special=special,
            read=log_p.bytes + state_bytes,
            written=x.bytes,
            product=dtype,
        )
        t.backward(
            "softmax", vector=4 * n, special=n, read=2 * x.bytes, written=x.bytes, product=dtype
        )
    return out
