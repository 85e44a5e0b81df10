"""Virtual tokens that train in place of a model's weights: prompt tuning [lester2021], in front of
the embedded tokens, and prefix tuning [li2021], in front of the keys and values of every layer.

Source: github huggingface/peft, src/peft/tuners/prompt_tuning, prefix_tuning, peft_model.py.
"""

from __future__ import annotations

from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.tape import Tape, Value

FORMAT = "fp32"  # PEFT makes its tables so, and casts what is looked up


def prompted(t: Tape, embedded: Value) -> Value:
    """Embedded tokens [batch, tokens, width], the first ones of them virtual: rows of a trained
    table [virtual tokens, width]. Once for a model, at its first embedding.
    """
    n = t.tuning.prompt if t.training and t.tuning is not None else 0
    if not n or t.prompted:
        return embedded
    t.prompted += 1
    batch, length, width = embedded.shape
    virtual = _rows(t, n, (batch, n, width), embedded.dtype)
    own = t.view(embedded, batch, length - n, width)
    return pointwise.concat(t, [virtual, own], 1)


def prefixed(t: Tape, k: Value, v: Value) -> tuple[Value, Value]:
    """Keys and values [B, G, K, D] of a layer behind those of virtual tokens: rows of a trained
    table [virtual tokens, G D + G E].
    """
    n = t.tuning.prefix if t.training and t.tuning is not None else 0
    if not n:
        return k, v
    t.prompted += t.repeats
    both = []
    for x in (k, v):
        batch, groups, _, dim = x.shape
        virtual = _rows(t, n, (batch, n, groups * dim), x.dtype)
        both.append(pointwise.concat(t, [t.view(virtual, batch, groups, n, dim), x], 2))
    return both[0], both[1]


def _rows(t: Tape, n: int, shape: tuple[int, int, int], dtype: str) -> Value:
    """All n rows of a trained table, for each sample."""
    table = t.parameter(n, shape[-1], dtype=FORMAT, adapter=True)
    out = t.new(shape, FORMAT, True)
    t.emit("gather", (table,), (out,), read=out.bytes)
    written = table.bytes + out.bytes
    t.backward("scatter", vector=out.size, read=out.bytes, written=written, product=FORMAT)
    return t.cast(out, dtype)
