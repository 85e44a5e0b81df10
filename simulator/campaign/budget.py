"""What may be spent on a training, as people write it."""

from __future__ import annotations

import re
from typing import NamedTuple

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput, quoted
from roofcast.hwdb.units import quantity
from roofcast.simulator.choose.amounts import limit

DAY = 86400.0
LEAST_FLOP, MOST_FLOP = 1e16, 1e28
MOST_DEVICES = 2**20
EXAMPLES = "1e23FLOP, 2MUSD or 64xh100-sxm5x30d"


class Budget(NamedTuple):
    """What may be spent: one of the three."""

    flop: float | None = None
    usd: float | None = None
    devices: int | None = None  # with `days`
    device: str = ""  # of these devices
    days: float | None = None


def budget_of(text: str) -> Budget:
    """A budget as people write it. Raises BadInput for one without a unit, or that cannot be.

    >>> budget_of("1e23FLOP").flop, budget_of("2MUSD").usd, budget_of("64xh100-sxm5x30d").days
    (1e+23, 2000000.0, 30.0)
    """
    plain = text.strip().replace(" ", "")
    parts = re.fullmatch(r"(\d[\d,]*)x(.+)x([^x]+)", plain)
    if parts:
        count, days = int(parts[1].replace(",", "")), limit(parts[3], "s") / DAY
        if not 1 <= count <= MOST_DEVICES or not 0 < days < 1e5:
            raise BadInput(f"budget {quoted(text)}: no such number of devices or days")
        return Budget(devices=count, device=hwdb.device(parts[2]).typed, days=days)
    lower = plain.lower()
    if lower.endswith(("flop", "flops")):
        flop = quantity(re.sub(r"(?i)flops?$", "FLOP", plain), "FLOP")
        if not LEAST_FLOP <= flop <= MOST_FLOP:
            raise BadInput(
                f"budget {quoted(text)}: from {LEAST_FLOP:g} to {MOST_FLOP:g} FLOP are planned"
            )
        return Budget(flop=flop)
    if lower.endswith("usd") or plain.startswith("$"):
        usd = limit(plain.lower().replace("usd", "").replace("m", "M").replace("b", "B"), "USD")
        if not 0 < usd <= 1e12:
            raise BadInput(f"budget {quoted(text)}: from 0 to 1e12 dollars are planned")
        return Budget(usd=usd)
    raise BadInput(f"budget {quoted(text)} has no unit; give for example {EXAMPLES}")
