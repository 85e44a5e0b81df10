"""Linear layers in sequence; with one layer and a squared error, linear regression."""

from __future__ import annotations

from collections.abc import Sequence

from roofcast.simulator.models.other.parts import dense_row
from roofcast.simulator.models.vision.parts import cross_entropy, pairwise_loss
from roofcast.simulator.work.tape import Tape, Value


def build(
    t: Tape,
    batch: int,
    size: int | None,
    *,
    features: int | None = None,
    widths: Sequence[int] = (),
    outputs: int = 10,
    regression: bool = False,
) -> Value:
    """Samples are rows of `features` elements, or grey images of side `size` [pixels]."""
    if features is None:
        assert size is not None, "an image has a size"
        x = t.view(t.input((batch, 1, size, size)), batch, size * size)
    else:
        x = t.input((batch, features))
    x = dense_row(t, x, (*widths, outputs), first=1)
    return pairwise_loss(t, "mse", x) if regression else cross_entropy(t, x)
