"""From what a person types to a file: `h100-sxm5` is hwdb/devices/h100-sxm5.toml, and nothing else
is opened.
"""

import os
import platform
import re
import tomllib
from functools import cache
from pathlib import Path

from roofcast.hwdb.errors import BadInput, UnknownName, unknown

ROOT = Path(__file__).parent
_VENDOR = re.compile(
    r"^(?:(?:nvidia|geforce|tesla|amd|instinct|radeon(?=-rx)|intel|google|cloud|apple|aws|huawei)-)+"
)
THIS_MACHINE = ("this-machine", "this-machine-1")
"""Names of what `roofcast calibrate` measured here: all threads, and one of them."""
THIS_GPU = "this-machine-gpu"
"""Name of the CUDA device that `roofcast calibrate --gpu` measured here."""
LISTINGS = {
    "devices": "roofcast devices",
    "links": "roofcast devices --links",
    "systems": "roofcast devices --systems",
}


@cache
def names(folder: str) -> tuple[str, ...]:
    """Names of the shipped files of a folder, sorted; from the directory, nothing is parsed."""
    return tuple(
        sorted(
            entry.name.removesuffix(".toml")
            for entry in os.scandir(ROOT / folder)
            if entry.name.endswith(".toml")
        )
    )


@cache
def aliases(folder: str) -> dict[str, str]:
    """Other names of shipped files."""
    return tomllib.loads((ROOT / "aliases.toml").read_text(encoding="utf-8")).get(folder, {})


def dashed(name: str) -> str:
    """Lower case, dashes between the words and between a series and its number.

    >>> dashed("GeForce RTX3090 Ti"), dashed("PCIe5 x16"), dashed("TPUv4")
    ('geforce-rtx-3090-ti', 'pcie5-x16', 'tpu-v4')
    """
    text = re.sub(
        r"[^a-z0-9.+]+", "-", name.lower().replace("(r)", " ").replace("(tm)", " ")
    ).strip("-")
    text = re.sub(
        r"\b(rtx|gtx|rx)-?(\d{4})(?:-?(ti|super|xtx|xt))?\b",
        lambda m: "-".join(filter(None, m.groups())),
        text,
    )
    return re.sub(r"\btpu-?v?(?=\d)", "tpu-v", text)


def plain(name: str) -> str:
    """`dashed`, and no vendor in front.

    >>> plain("NVIDIA H100 80GB HBM3"), plain("Tesla V100-SXM2-16GB")
    ('h100-80gb-hbm3', 'v100-sxm2-16gb')
    """
    return _VENDOR.sub("", dashed(name))


def is_path(name: str) -> bool:
    """A name with a separator or the ending .toml is a file of the user's."""
    return name.endswith(".toml") or "/" in name or os.sep in name


def resolve(name: str, folder: str) -> str:
    """The shipped name that `name` means."""
    if not isinstance(name, str):
        raise BadInput(f"{name!r} is no name; give a text, see {LISTINGS[folder]}")
    known = names(folder)
    if name in known:
        return name
    other = aliases(folder)
    for candidate in (dashed(name), plain(name)):
        if candidate in known:
            return candidate
        if candidate in other:
            return other[candidate]
    if folder == "devices" and name in names("systems"):
        raise UnknownName(
            f"{name!r} is a system, not a device; use --system {name} (roofcast devices --systems"
            " lists them)"
        )
    raise unknown(
        folder.removesuffix("s"), name, [*known, *other], f"known names: {LISTINGS[folder]}"
    )


def this_machine(name: str) -> Path:
    """Where the device file of this machine is, or would be: roofcast/devices/<host>.toml among the
    user's settings.
    """
    import platformdirs

    host = dashed(platform.node().split(".")[0]) or "machine"
    return (
        platformdirs.user_config_path("roofcast")
        / "devices"
        / f"{host}{name.removeprefix(THIS_MACHINE[0])}.toml"
    )
