"""Watts of a processor package against its load.

    P = idle TDP + full TDP (1 - (1 - u)^k)

u is the share of hardware threads that are busy, beyond NOISE, which a machine at rest shows. The
first busy cores take more than their share: they run at the highest turbo clock, and wake what all
cores share; k is larger where whole cores are busy than where all of them are busy for a part of
the time. Constants: hwdb/power/package.toml.
"""

from __future__ import annotations

import functools
import re

import msgspec

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.hwdb.sites import FOLDER
from roofcast.hwdb.strict import checked, load

NOISE = 0.025  # load that a machine at rest shows


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Constants of a processor package."""

    idle: float  # over the TDP, nothing runs
    full: float  # above idle over the TDP, every thread busy
    whole_cores: float  # k where some cores are busy all the time
    all_cores: float  # k where all cores are busy a part of the time
    tdp: dict[str, float]  # by words of a name [W]
    sources: dict[str, str]


@functools.cache
def package() -> Package:
    """The constants."""
    path = FOLDER / "package.toml"
    return checked(Package, load(path, "power of processors"), str(path))


def package_tdp(words: str) -> float:
    """TDP of a processor by its name [W]. Raises BadInput for an unknown one."""
    bare = re.sub(r"\((?:R|TM)\)", "", words)
    for name, watts in package().tdp.items():
        if name.lower() in bare.lower():
            return watts
    try:
        device = hwdb.device(words.lower().replace(" ", "-"))
    except RoofcastError:
        device = None
    if device is None or not device.power.tdp:
        raise BadInput(f"{words}: the TDP of this processor is not known")
    return float(device.power.tdp)


def package_watts(tdp: float, load_share: float, whole_cores: bool) -> float:
    """Watts of a package at a load.

    >>> round(package_watts(100.0, 1.0, True), 1) > round(package_watts(100.0, 0.5, True), 1)
    True
    """
    c, u = package(), min(max((load_share - NOISE) / (1.0 - NOISE), 0.0), 1.0)
    k = c.whole_cores if whole_cores else c.all_cores
    return tdp * (c.idle + c.full * (1.0 - (1.0 - u) ** k))
