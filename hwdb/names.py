"""From a name that a user types to a file: `h100-sxm5` is hwdb/devices/h100-sxm5.toml."""

import os
import platform
import re
from functools import cache
from pathlib import Path
from typing import Any

import tomli

from roofcast.hwdb.errors import BadInput, UnknownName, quoted, similar, unknown

ROOT = Path(__file__).parent
_VENDOR = re.compile(
    r"^(?:(?:nvidia|geforce|tesla|amd|instinct|radeon(?=-rx)|intel|google|cloud|apple|aws"
    r"|huawei)-)+"
)
_GENERATION = re.compile(r"^\d+th-gen-")
# what drivers and /proc/cpuinfo write after the name of a processor
_AFTER = re.compile(
    r"(?:-cpu)?(?:-[\d.]+ghz|-with-radeon-\w*-?graphics|-\d+-core-processor|-processor)$"
)
THIS_MACHINE = ("this-machine", "this-machine-1")
"""Names of the CPU that `roofcast calibrate` measured here: all threads, and one thread."""
THIS_GPU = "this-machine-gpu"
"""Name of the CUDA device that `roofcast calibrate --gpu` measured here."""
SERIES = ("rtx", "gtx", "rx")
"""Series of graphics cards that people call by the number alone: 4090, 1080ti."""
_CARD = re.compile(r"\d{4}\D*$")
LISTINGS = {
    "devices": "roofcast devices",
    "links": "roofcast devices --links",
    "systems": "roofcast devices --systems",
}


@cache
def names(folder: str) -> tuple[str, ...]:
    """Names of the shipped files of a folder, sorted. Lists the directory, opens no file."""
    files = (entry.name for entry in os.scandir(ROOT / folder))
    return tuple(sorted(n.removesuffix(".toml") for n in files if n.endswith(".toml")))


@cache
def aliases(folder: str) -> dict[str, Any]:
    """Other names of shipped files: alias -> name; of `words`: word -> names to suggest."""
    return tomli.loads((ROOT / "aliases.toml").read_text(encoding="utf-8")).get(folder, {})


def dashed(name: str) -> str:
    """Lower case, with dashes between words and between a series and its number.

    >>> dashed("GeForce RTX3090 Ti"), dashed("PCIe5 x16"), dashed("TPUv4")
    ('geforce-rtx-3090-ti', 'pcie5-x16', 'tpu-v4')
    """
    lower = name.lower().replace("(r)", " ").replace("(tm)", " ")
    words = re.sub(r"[^a-z0-9.+]+", "-", lower).strip("-")
    words = re.sub(
        r"\b(rtx|gtx|rx)-?(\d{4})(?:-?(ti|super|xtx|xt))?\b",
        lambda m: "-".join(filter(None, m.groups())),
        words,
    )
    return re.sub(r"\btpu-?v?(?=\d)", "tpu-v", words)


def plain(name: str) -> str:
    """`dashed`, without the vendor's name in front and what machines add to a processor's behind.

    >>> plain("NVIDIA H100 80GB HBM3"), plain("Tesla V100-SXM2-16GB")
    ('h100-80gb-hbm3', 'v100-sxm2-16gb')
    >>> plain("11th Gen Intel(R) Core(TM) i7-1165G7 @ 2.80GHz")
    'core-i7-1165g7'
    >>> plain("AMD Ryzen 7 5800H with Radeon Graphics")
    'ryzen-7-5800h'
    """
    return _AFTER.sub("", _VENDOR.sub("", _GENERATION.sub("", dashed(name))))


def is_path(name: str) -> bool:
    """Is it a user's file? A name with a path separator or the ending .toml is."""
    return name.endswith(".toml") or "/" in name or os.sep in name


def text(name: str | Path, folder: str) -> str:
    """The name or path as a string; BadInput where it is neither."""
    if not isinstance(name, str | Path):
        raise BadInput(
            f"{quoted(name)} is not a name; give one that {LISTINGS[folder]} lists, in quotes"
        )
    return str(name)


def resolve(name: str, folder: str) -> str:
    """The shipped name that `name` means, in any spelling; UnknownName where there is none."""
    known = names(folder)
    if name in known:
        return name
    other = aliases(folder)
    series = [dashed(f"{series} {name}") for series in SERIES] if _CARD.match(name) else []
    for candidate in (dashed(name), plain(name), *series):
        if candidate in known:
            return candidate
        if candidate in other:
            return other[candidate]
    if folder == "devices" and name in names("systems"):
        raise UnknownName(
            f"{quoted(name)} is a system, not a device; use --system {name} (roofcast devices"
            " --systems"
            " lists them)"
        )
    listing = f"{LISTINGS[folder]} lists the names"
    meant = {each: each for each in known} | other
    alike = aliases("words").get(dashed(name), [meant[each] for each in similar(name, meant)])
    raise unknown(folder.removesuffix("s"), name, (), listing, dict.fromkeys(alike))


def this_machine(name: str) -> Path:
    """Path of the device file of this machine, whether it exists or not.

    roofcast/devices/<host>.toml in the user's configuration folder.
    """
    import platformdirs

    host = dashed(platform.node().split(".")[0]) or "machine"
    folder = platformdirs.user_config_path("roofcast") / "devices"
    return folder / f"{host}{name.removeprefix(THIS_MACHINE[0])}.toml"
