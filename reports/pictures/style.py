"""How a roofline is drawn: colours, line styles, markers."""

from __future__ import annotations

import msgspec

# Okabe & Ito's colours, told apart by every common kind of colour vision [okabe2008]; shapes and
# fills say it again in grey.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)
DEVICES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
INK, FAINT = "#222222", "#8A8A8A"
DASHES = ("-", (0, (8, 2)), (0, (8, 2, 2, 2)), (0, (8, 2, 2, 2, 2, 2)), "-", "-")


class Mark(msgspec.Struct, frozen=True):
    """How a phase is drawn. `area`: the marker's over that of a square of its size, so that equal
    times look equal.

    `reach`: where leader lines end, in widths from the centre.
    """

    shape: str
    colour: str
    filled: bool
    area: float
    reach: float
    text: str


MARKS = {
    "forward": Mark("o", BLUE, True, 0.785, 0.48, "forward"),
    "backward": Mark("D", VERMILLION, False, 1.0, 0.55, "backward"),
    "update": Mark("^", GREEN, True, 0.5, 0.25, "optimizer"),
}
FULL = 3600.0  # points^2 of a square marker that is the whole step
LEAST = 14.0
SMALLEST_SHARE = 1e-4
NAMED = 6


def colour_of(index: int) -> str:
    """The colour of the so-manieth device."""
    return DEVICES[index % len(DEVICES)]


def dash_of(index: int) -> object:
    """Its line, so that devices are told apart in grey."""
    return DASHES[index % len(DASHES)]


def halo(text) -> None:
    """A white edge around a text, so that it is read over lines."""
    from matplotlib.patheffects import withStroke

    text.set_path_effects([withStroke(linewidth=2.8, foreground="white")])
