"""Dense layers in a row; with one layer and a squared error, linear regression."""

from __future__ import annotations

from roofcast.simulator.models.other.parts import dense_row
from roofcast.simulator.models.vision.parts import cross_entropy, pairwise_loss
from roofcast.simulator.work.tape import Tape


def build(
    t: Tape,
    batch: int,
    size: int | None,
    *,
    features: int | None = None,
    widths=(),
    outputs: int = 10,
    regression: bool = False,
):
    """`features` numbers a sample, or a grey picture of side `size`."""
    if features is None:
        x = t.view(t.input((batch, 1, size, size)), batch, size * size)
    else:
        x = t.input((batch, features))
    x = dense_row(t, x, (*widths, outputs), first=1)
    return pairwise_loss(t, "mse", x) if regression else cross_entropy(t, x)
