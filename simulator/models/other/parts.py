"""Parts shared by MLPs and recommender nets."""

from __future__ import annotations

from collections.abc import Sequence

from roofcast.simulator.models.vision.parts import activation, dense
from roofcast.simulator.work.tape import Tape, Value


def dense_row(
    t: Tape,
    x: Value,
    widths: Sequence[int],
    *,
    first: int = 0,
    act: str = "relu",
    last: str | None = None,
) -> Value:
    """Linear layers of these widths, each followed by `act`, the last one by `last` if given.

    Layers are numbered from `first`, as in a torch.nn.Sequential.
    """
    for index, width in enumerate(widths):
        number, fn = first + 2 * index, last if index == len(widths) - 1 else act
        x = dense(t, str(number), x, width)
        x = activation(t, str(number + 1), fn, x, in_place=False)
    return x
