"""Scenario files: what to run, as TOML.

model = "nets/cifar-cnn.toml"     # a shipped name, or a path relative to this file
device = "rtx-3090"
batch = 64
samples = 50000
epochs = 25

[set]                             # the device, changed
memory.bandwidth = "2 TB/s"
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.strict import checked, load
from roofcast.simulator.forecast.scenario import Scenario

WHAT = "a scenario, TOML with model and device"
PATHS = ("model", "device", "stack", "system")
SUFFIXES = (".toml", ".json", ".onnx")


def read(path: str | Path) -> Scenario:
    """The scenario a file holds. A relative path in it starts at the file's own folder."""
    path = Path(path)
    raw = load(path, WHAT)
    if isinstance(raw.get("set"), dict):
        raw["set"] = _flat(raw["set"])
    scenario = checked(Scenario, raw, str(path))
    return msgspec.structs.replace(scenario, **_moved(scenario, path.parent, _from))


def write(scenario: Scenario, path: str | Path) -> None:
    """The scenario as a file: what was left to its default is left out. The file is there whole, or
    as it was before.
    """
    path = Path(path)
    moved = msgspec.structs.replace(scenario, **_moved(scenario, path.parent, _to))
    _replace(path, text(moved))


def text(scenario: Scenario) -> str:
    """The scenario as TOML.

    >>> print(text(Scenario(model="gpt2", device="a100-sxm4-80gb", batch=8, set={"memory.bandwidth": "3 TB/s"})), end="")
    model = "gpt2"
    device = "a100-sxm4-80gb"
    batch = 8
    <BLANKLINE>
    [set]
    "memory.bandwidth" = "3 TB/s"
    """
    pairs = msgspec.to_builtins(scenario)
    edits = pairs.pop("set", {})
    lines = [f"{key} = {_literal(value)}" for key, value in pairs.items() if value is not None]
    if edits:
        lines += [
            "",
            "[set]",
            *(f"{_literal(key)} = {_literal(value)}" for key, value in edits.items()),
        ]
    return "\n".join(lines) + "\n"


def _literal(value: str | float | int) -> str:
    """A TOML value: texts escaped as JSON does it, which TOML reads, but for the delete
    character.
    """
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return (
        json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        if isinstance(value, str)
        else repr(value)
    )


def _flat(table: dict[str, Any], above: str = "") -> dict[str, Any]:
    """{memory: {bandwidth: x}}, which TOML makes of memory.bandwidth = x, as {memory.bandwidth:
    x}.
    """
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= (
            _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
        )
    return flat


def _moved(scenario: Scenario, folder: Path, how) -> dict[str, str]:
    """The paths of a scenario, as seen from or by a file in `folder`."""
    return {
        key: how(value, folder) for key in PATHS if (value := getattr(scenario, key)) is not None
    }


def _is_path(value: str, folder: Path) -> bool:
    """Is it a file's path rather than a name: by its ending, or because something is there."""
    return (
        value.endswith(SUFFIXES) or ".py:" in value or ("/" in value and (folder / value).exists())
    )


def _from(value: str, folder: Path) -> str:
    return os.path.normpath(folder / value) if _is_path(value, folder) else value


def _to(value: str, folder: Path) -> str:
    """A path as a file in `folder` must write it; an absolute one stays."""
    return (
        value
        if os.path.isabs(value) or not _is_path(value, Path())
        else os.path.relpath(value, folder)
    )


def _replace(path: Path, content: str) -> None:
    """Write beside it, then put it in its place in one step."""
    if path.is_dir():
        raise BadInput(f"{path}: is a directory; give the name of a .toml file")
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be written: {error.strerror}; check the folder and its permissions"
        ) from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from None
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
