"""How a roofline is drawn: colours, line styles, markers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib
import msgspec
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

if TYPE_CHECKING:
    from matplotlib.typing import LineStyleType

# colours that people with colour-vision deficiency can tell apart [okabe2008]; line styles, marker
# shapes and fills carry the same information in grey
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY = "#CC79A7", "#E69F00", "#56B4E9"
DEVICES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
INK, FAINT, GREY = "#222222", "#8A8A8A", "#444444"
DASHES: tuple[LineStyleType, ...] = (
    "-",
    (0, (8, 2)),
    (0, (8, 2, 2, 2)),
    (0, (8, 2, 2, 2, 2, 2)),
    "-",
    "-",
)
ACHIEVED: LineStyleType = (0, (2, 2))
SMALL = 9.5  # size of labels [points]
AXES = (0.075, 0.085, 0.675, 0.755)  # left, bottom, width, height, as fractions of the figure
LEGEND = (0.765, 0.075)  # its lower left corner


class Mark(msgspec.Struct, frozen=True):
    """How a phase is drawn."""

    shape: str
    colour: str
    filled: bool
    area: float  # of the marker, over a square of the same size, so that equal times look equal
    reach: float  # from the centre to the end of leader lines, in widths of the marker
    text: str

    def face(self, colour: str) -> Any:
        """The colour inside the marker."""
        return matplotlib.colors.to_rgba(colour, 0.6) if self.filled else "none"


MARKS = {
    "forward": Mark("o", BLUE, True, 0.785, 0.48, "forward"),
    "backward": Mark("D", VERMILLION, False, 1.0, 0.55, "backward"),
    "update": Mark("^", GREEN, True, 0.5, 0.25, "optimizer"),
}
FULL = 3600.0  # area of a square marker that stands for the whole step [points^2]
LEAST = 14.0  # smallest area of a marker [points^2]
SMALLEST_SHARE = 1e-4  # of the step; shorter ops are not drawn
NAMED = 6  # ops with a label


def fonts() -> Any:
    """A context in which text is drawn as in every roofline."""
    settings: dict[Any, Any] = {"font.size": 10.5, "font.family": "DejaVu Sans"}
    return matplotlib.rc_context(settings | {"svg.fonttype": "none", "pdf.fonttype": 42})


def colour_of(index: int) -> str:
    """The colour of a device, by its place in an overlay."""
    return DEVICES[index % len(DEVICES)]


def dash_of(index: int) -> LineStyleType:
    """The line style of a device, by its place in an overlay."""
    return DASHES[index % len(DASHES)]


def renderer(figure: Figure) -> RendererBase:
    """The renderer of a figure, which knows the sizes of texts."""
    assert isinstance(figure.canvas, FigureCanvasAgg), "every figure here is drawn by Agg"
    return figure.canvas.get_renderer()


def halo(text: Text) -> None:
    """Give a text a white edge, so that it is readable over lines."""
    from matplotlib.patheffects import withStroke

    text.set_path_effects([withStroke(linewidth=2.8, foreground="white")])
