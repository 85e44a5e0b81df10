"""The loss of sequences whose alignment is not known [graves2006]."""

from __future__ import annotations

from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.precision import WIDTH
from roofcast.simulator.work.tape import Tape, Value


def ctc(t: Tape, logits: Value, labels: int) -> Value:
    """Connectionist temporal classification of logits[B, T, letters] against `labels` letters each.

    forward   log-softmax, then a recursion over T steps of 2 L + 1 states; keeps log-probabilities
              and all states
    backward  the recursion once more the other way, then the log-softmax
    """
    x = t.full(logits)
    batch, steps, _ = x.shape
    states = batch * steps * (2 * labels + 1)
    log_p = t.new(x.shape, x.dtype, x.grad)
    t.emit("softmax", (x,), (log_p,), vector=4 * x.size, special=x.size)
    log_p = pointwise.copy(t, log_p)  # steps first
    out = t.new((), x.dtype, x.grad)
    t.emit(
        "scatter",
        (log_p,),
        (out,),
        vector=6 * states,
        special=3 * states,
        written=states * WIDTH[x.dtype],
    )
    if x.grad:
        t.save(log_p)
        t.keep(states * WIDTH[x.dtype] + 8 * batch * labels)
        t.backward(
            "scatter",
            vector=8 * states,
            special=3 * states,
            read=log_p.bytes + states * WIDTH[x.dtype],
            written=x.bytes,
            product=x.dtype,
        )
        t.backward(
            "softmax",
            vector=4 * x.size,
            special=x.size,
            read=2 * x.bytes,
            written=x.bytes,
            product=x.dtype,
        )
    return out
