"""How every picture is drawn: colours, fonts, sizes, resolution; lines and markers of rooflines."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import msgspec
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullFormatter

from roofcast.reports.files import replacing

if TYPE_CHECKING:
    from matplotlib.typing import LineStyleType

# colours that people with colour-vision deficiency can tell apart [okabe2008]; line styles, marker
# shapes and fills carry the same information in grey
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY = "#CC79A7", "#E69F00", "#56B4E9"
DEVICES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
INK, FAINT, GREY, GRID = "#222222", "#8A8A8A", "#444444", "#E6E6E6"
# kinds of memory, as the report's page colours them (reports/html/report.js); hatches tell them
# apart in grey
KINDS = {
    "parameters": (BLUE, ""),
    "gradients": (VERMILLION, "//"),
    "optimizer states": (GREEN, ".."),
    "activations": (ORANGE, ""),
    "transient": (PURPLE, "xx"),
    "communication buffers": (SKY, "\\\\"),
    "KV cache": (SKY, ""),
    "framework": (FAINT, ""),
}
PASSES = {  # of a timeline
    "forward": (BLUE, ""),
    "backward": (VERMILLION, "//"),
    "gradients of weights": (PURPLE, "xx"),
    "optimizer": (GREEN, ".."),
    "communication": (ORANGE, ""),
}
DASHES: tuple[LineStyleType, ...] = (
    "-",
    (0, (8, 2)),
    (0, (8, 2, 2, 2)),
    (0, (8, 2, 2, 2, 2, 2)),
    "-",
    "-",
)
ACHIEVED: LineStyleType = (0, (2, 2))
TITLE, TEXT, SMALL = 12.0, 10.5, 9.5  # sizes of titles, of texts, of labels [points]
DPI, COLOURS = 130, 256  # dots per inch of a .png, and how many colours it has
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
NAMED = 6  # ops with a label


def fonts() -> Any:
    """A context in which text is drawn as in every picture."""
    settings: dict[Any, Any] = {"font.size": TEXT, "font.family": "DejaVu Sans"}
    settings |= {"hatch.linewidth": 0.6, "figure.dpi": DPI, "savefig.dpi": DPI}
    settings |= {"svg.fonttype": "none", "svg.hashsalt": "roofcast", "pdf.fonttype": 42}
    return matplotlib.rc_context(settings)


def new(width: float, height: float) -> Figure:
    """An empty figure [inches] whose parts make room for one another."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def bare(axes: Axes, grid: str = "") -> None:
    """Axes without a frame above and to the right; grid: lines across "x" or "y"."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(True, axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]


def plain_ticks(axes: Axes) -> None:
    """Ticks of logarithmic axes at 1, 2 and 5, written without powers of ten."""
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(lambda value, _: f"{value:,.4g}")


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure as png, svg or pdf, by suffix; equal figures give equal bytes. A png holds
    the texts of the picture as its description.
    """
    suffix = Path(path).suffix.lower()
    with fonts():
        if suffix == ".png":
            return _save_png(figure, path)
        date = "Date" if suffix == ".svg" else "CreationDate"
        figure.savefig(path, format=suffix[1:], metadata={date: None})


def _save_png(figure: Figure, path: str | Path) -> None:
    """In COLOURS colours, which makes a file a quarter as large as one of all colours."""
    from PIL import Image, PngImagePlugin

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    about = PngImagePlugin.PngInfo()
    about.add_text("Software", "Roofcast")
    about.add_itxt("Description", "\n".join(texts(figure)))
    with Image.open(drawn) as image:
        small = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        small.save(path, "PNG", pnginfo=about, dpi=(DPI, DPI), optimize=True)


def texts(figure: Figure) -> list[str]:
    """All that is written in a picture, once each; numbers with their units among it."""
    figure.canvas.draw()
    shown = (t.get_text().strip() for t in figure.findobj(Text) if t.get_visible())
    return [text for text in dict.fromkeys(shown) if text]


def write(path: str | Path, drawn: Callable[[], Figure]) -> None:
    """Draw a picture and put it in place whole."""
    with fonts():
        figure = drawn()
    with replacing(path) as temporary:
        save(figure, temporary)


def colour_of(index: int) -> str:
    """The colour of a device, by its place in an overlay."""
    return DEVICES[index % len(DEVICES)]


def ink_on(colour: str) -> str:
    """The colour of text on a bar of that colour: white, or dark on what is light.

    >>> ink_on(BLUE), ink_on(ORANGE) == INK
    ('white', True)
    """
    r, g, b = matplotlib.colors.to_rgb(colour)
    return "white" if 0.299 * r + 0.587 * g + 0.114 * b < 0.5 else INK


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
