"""What plain, and recommender nets share."""

from __future__ import annotations

from roofcast.simulator.models.vision.parts import activation, dense
from roofcast.simulator.work.tape import Tape, Value


def dense_row(
    t: Tape, x: Value, widths, *, first: int = 0, act: str = "relu", last: str | None = None
) -> Value:
    """Dense layers with an activation behind each, the last one's given apart; numbered as in a
    Sequential.
    """
    for index, width in enumerate(widths):
        x = dense(t, str(first + 2 * index), x, width)
        x = activation(
            t,
            str(first + 2 * index + 1),
            last if index == len(widths) - 1 else act,
            x,
            in_place=False,
        )
    return x
