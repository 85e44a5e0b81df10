"""Recurrent layers in one or both directions: LSTM [hochreiter1997], GRU [cho2014], tanh cell.

The products with the input are one matrix product over all steps; those with the state run step by
step. What is kept is what PyTorch's fused cells keep. cuDNN's reserve space is undocumented and not
counted.
"""

from __future__ import annotations

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.ops.linear import linear, product_format
from roofcast.simulator.work.precision import WIDTH
from roofcast.simulator.work.tape import Tape, Value


class Cell(NamedTuple):
    """Work and memory of a recurrent cell."""

    gates: int
    vector: int  # vector FLOPs per element of the state
    special: int  # special-function results per element of the state
    kept: int  # tensors as large as the state that are kept per step
    once: int  # further such tensors, kept once


# kept per step; once
CELLS = {
    # both gate products, the workspace, hidden and cell state; the first cell state
    "lstm": Cell(4, 12, 10, 14, 1),
    # both gate products, the workspace of five, the hidden state; nothing
    "gru": Cell(3, 12, 6, 12, 0),
    # the hidden state; the last one too
    "rnn": Cell(1, 2, 2, 1, 1),
}


def recurrent(
    t: Tape, x: Value, hidden: int, *, cell: str = "lstm", layers: int = 1, both_ways: bool = False
) -> tuple[Value, Value]:
    """x[B, T, I] -> states of all steps [B, T, H], and the last state of the last layer [B, H].

    With `both_ways`, the states of both directions are concatenated: 2 H instead of H.

    forward   2 B T gates H (I + H) FLOPs per direction; keeps x, all states, and those of the cell
    backward  twice that, except for the gradient of the first state, which is not needed
    """
    ways = 2 if both_ways else 1
    for _ in range(layers):
        parts = [_direction(t, x, hidden, CELLS[cell]) for _ in range(ways)]
        x = pointwise.concat(t, parts, -1) if both_ways else parts[0]
    batch = x.shape[0]
    stacked = t.new((layers * ways, batch, hidden), x.dtype, x.grad)  # last states of all layers
    ends = t.view(stacked, batch, hidden)
    return x, pointwise.concat(t, [ends, ends], -1) if both_ways else ends


def _direction(t: Tape, x: Value, hidden: int, cell: Cell) -> Value:
    """One layer in one direction: states of all steps [B, T, H]."""
    batch, steps, _ = x.shape
    width = cell.gates * hidden
    from_input = linear(t, x, width)
    w, _ = t.parameter(width, hidden), t.parameter(width)
    w_low = t.low(w)
    out = t.new((batch, steps, hidden), from_input.dtype, True)
    elements, per_step = batch * steps * hidden, 2 * batch * width * hidden
    shape, product = (steps, batch, width, hidden), product_format(t, from_input.dtype)
    weights_read = steps * w_low.bytes
    t.emit(
        "recurrent",
        (from_input, w_low),
        (out,),
        matrix=steps * per_step,
        vector=cell.vector * elements,
        special=cell.special * elements,
        shape=shape,
        product=product,
        read=from_input.bytes + weights_read,
    )
    if out.grad:
        t.save(w_low)
        t.keep(WIDTH[out.dtype] * batch * hidden * (cell.kept * steps + cell.once))
        t.backward(
            "recurrent",
            matrix=(2 * steps - 1) * per_step,
            vector=2 * cell.vector * elements,
            product=product,
            shape=shape,
            read=3 * from_input.bytes + out.bytes + weights_read,
            written=from_input.bytes + w_low.bytes,
        )
    return out
