"""What a TOML file of a user describes, by its keys: one of another sort than a command wants is
named, with the command that takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roofcast.hwdb.errors import BadInput

TAKEN = {  # sort: what it is, and what takes it
    "scenario": ("a scenario", "roofcast run {path} forecasts it, roofcast compare compares two"),
    "device": ("a device", "give it to --on: roofcast predict llama-3-8b --on {path}"),
    "system": ("a node or pod", "give it to --system"),
    "layers": ("a list of layers", "it is a MODEL: roofcast predict {path} --on h100-sxm5"),
    "pool": ("a pool of devices", "give it to roofcast choose --owned or roofcast assign --pool"),
    "jobs": ("a list of trainings", "give it to roofcast assign"),
}


def sort_of(tree: Mapping[str, Any]) -> str:
    """The sort of a file with these tables; empty where its keys do not tell.

    >>> sort_of({"model": "gpt2", "device": "l4"}), sort_of({"layers": []}), sort_of({})
    ('scenario', 'layers', '')
    """
    if isinstance(tree.get("jobs"), list):
        return "jobs"
    if "steps" in tree or {"model", "device"} <= set(tree):
        return "scenario"
    if "levels" in tree:
        return "system"
    if isinstance(tree.get("layers"), list):
        return "layers"
    if isinstance(tree.get("devices"), Mapping):
        return "pool"
    tables = ("peak_flops", "vector_flops", "memory")
    return "device" if any(isinstance(tree.get(name), Mapping) for name in tables) else ""


def check_sort(path: Path, tree: Mapping[str, Any], wanted: str) -> None:
    """Raises BadInput where the file is of another sort than `wanted`."""
    found = sort_of(tree)
    if found and wanted in TAKEN and found != wanted:
        name, taken = TAKEN[found]
        raise BadInput(f"{path}: is {name}, not {TAKEN[wanted][0]}; {taken.format(path=path)}")
