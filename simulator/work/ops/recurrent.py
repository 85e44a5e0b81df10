"""Recurrent layers: LSTM [hochreiter1997], GRU [cho2014] and the plain tanh cell, in one or both
directions.

The products with the input are one matrix product over all steps; those with the state run one step
after another. What is kept is what PyTorch's fused cells keep; cuDNN's own reserve space is not
public and is left out.
"""

from __future__ import annotations

from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.ops.linear import linear, product_format
from roofcast.simulator.work.precision import WIDTH
from roofcast.simulator.work.tape import Tape, Value

# cell: (gates, vector FLOPs a state element, special results a state element, states kept a step,
# states kept beside)
CELLS = {
    "lstm": (
        4,
        12,
        10,
        14,
        1,
    ),  # both gate products, the workspace, hidden and cell state; the first cell state
    "gru": (3, 12, 6, 12, 0),  # both gate products, the workspace of five, the hidden state
    "rnn": (1, 2, 2, 1, 1),  # the hidden state; the last one too
}


def recurrent(
    t: Tape, x: Value, hidden: int, *, cell: str = "lstm", layers: int = 1, both_ways: bool = False
) -> tuple[Value, Value]:  # fmt: skip
    """x[B, T, I] -> states of all steps [B, T, H (2 H both ways)], and the last state of the last
    layer, each direction beside the other.

    forward   2 B T gates H (I + H) FLOPs a direction; keeps x, all states, and what the cell keeps
    backward  twice that, less the gradient of the first state, which nobody asks for
    """
    for _ in range(layers):
        parts = [_direction(t, x, hidden, cell) for _ in range(2 if both_ways else 1)]
        x = pointwise.concat(t, parts, -1) if both_ways else parts[0]
    batch = x.shape[0]
    # last states, stacked
    ends = t.view(t.new((layers * len(parts), batch, hidden), x.dtype, x.grad), batch, hidden)
    return x, pointwise.concat(t, [ends, ends], -1) if both_ways else ends


def _direction(t, x, hidden, cell):
    gates, vector, special, kept, beside = CELLS[cell]
    batch, steps, _ = x.shape
    from_input = linear(t, x, gates * hidden)
    w, _ = t.parameter(gates * hidden, hidden), t.parameter(gates * hidden)
    w_low = t.low(w)
    out = t.new((batch, steps, hidden), from_input.dtype, True)
    elements, one = batch * steps * hidden, 2 * batch * gates * hidden * hidden
    shape, product = (steps, batch, gates * hidden, hidden), product_format(t, from_input)
    t.emit(
        "recurrent",
        (from_input, w_low),
        (out,),
        matrix=steps * one,
        vector=vector * elements,
        special=special * elements,
        shape=shape,
        product=product,
        read=from_input.bytes + steps * w_low.bytes,
    )
    if out.grad:
        t.save(w_low)
        t.keep(WIDTH[out.dtype] * batch * hidden * (kept * steps + beside))
        t.backward(
            "recurrent",
            matrix=(2 * steps - 1) * one,
            vector=2 * vector * elements,
            product=product,
            shape=shape,
            read=3 * from_input.bytes + out.bytes + steps * w_low.bytes,
            written=from_input.bytes + w_low.bytes,
        )
    return out
