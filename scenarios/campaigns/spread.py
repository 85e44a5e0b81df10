"""How far whole trainings of other sources lie from their forecasts: spread.toml."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path

PATH = Path(__file__).parent / "spread.toml"


@functools.cache
def ends(group: str) -> tuple[float, float]:
    """Factors of the forecast device-hours between which 80 % of published runs lie; 1 and 1 of a
    group that the file does not have.
    """
    if not PATH.is_file():
        return 1.0, 1.0
    found = tomllib.loads(PATH.read_text(encoding="utf-8")).get(group, {})
    return float(found.get("low", 1.0)), float(found.get("high", 1.0))
