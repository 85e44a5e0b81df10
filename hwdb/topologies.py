"""Words of a topology: what the `topology` of a level of a system may say."""

import math
import re

from roofcast.hwdb.errors import BadInput, quoted
from roofcast.hwdb.records import Tier

SWITCHES = ("switch", "switched", "nvswitch", "switches", "fat-tree", "bus", "tree", "ring")
"""Words of what is taken as a switch, or on PCIe as a bus: every device reaches every other."""
SHAPES = ("mesh", "cube", "hypercube", "torus")
"""Words of what is not."""

_AXES = re.compile(r"\d+(?:x\d+)+")


def axes(topology: str) -> tuple[int, ...]:
    """Lengths of the axes that a topology states; none where it states none.

    >>> axes("3D torus 16x20x28"), axes("6 NVSwitch")
    ((16, 20, 28), ())
    """
    found = _AXES.search(topology)
    return tuple(int(length) for length in found.group().split("x")) if found else ()


def check_topology(tier: Tier, key: str) -> None:
    """Raises BadInput where the topology of a level is not understood. key: file and key."""
    text = tier.topology.lower()
    if not text:
        return
    words = re.findall(r"[a-z-]+", text)
    if not any(shape in text for shape in SHAPES) and not set(words) & set(SWITCHES):
        import difflib

        close = [
            near
            for word in words
            for near in difflib.get_close_matches(word, (*SHAPES, *SWITCHES), n=1, cutoff=0.6)
        ]
        hint = f"; did you mean {close[0]}?" if close else ";"
        raise BadInput(
            f"{key} is {quoted(tier.topology)}{hint} known: switch, bus, full mesh, hypercube, and"
            ' a torus with its axes, such as "3D torus 4x4x4"'
        )
    lengths = axes(text)
    if "torus" not in text:
        if lengths:
            raise BadInput(
                f"{key} is {quoted(tier.topology)}; a mesh here joins every pair of devices; for"
                " lines of neighbours write the nearest that is modelled,"
                f' "{_squarest(int(tier.size))}"'
            )
        return
    if math.prod(lengths) != tier.size or not lengths:
        raise BadInput(
            f"{key} is {quoted(tier.topology)}; write the axes of its {tier.size:g} devices, for"
            f' example "{_squarest(int(tier.size))}"'
        )


def _squarest(size: int) -> str:
    """A torus of two axes of so many devices.

    >>> _squarest(32)
    '2D torus 4x8'
    """
    short = next(n for n in range(math.isqrt(size), 0, -1) if size % n == 0)
    return f"2D torus {short}x{size // short}"
