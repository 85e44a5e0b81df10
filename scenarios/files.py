"""Scenario files: what to forecast, as TOML; the shipped ones are in ready/.

model = "nets/cifar-cnn.toml"     # a shipped name, or a path relative to this file
device = "rtx-3090"
batch = 64
samples = 50000
epochs = 25

[set]                             # changes to the device
memory.bandwidth = "2 TB/s"

A file may instead name other scenario files whose steps run in turn, as those of a GAN do:

steps = ["discriminator.toml", "generator.toml"]
assumed = ["times are added, nothing overlaps"]
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import msgspec

from roofcast.hwdb import contents
from roofcast.hwdb.errors import BadInput, unknown
from roofcast.hwdb.strict import checked, load
from roofcast.simulator.forecast.scenario import Scenario

READY = Path(__file__).parent / "ready"
WHAT = "a scenario, TOML with model and device"
PATHS = ("model", "device", "stack", "system", "lengths")  # fields that may hold the path of a file
SUFFIXES = (".toml", ".json", ".onnx", ".csv", ".csv.gz", ".txt")  # of such files, and of runs


def ready() -> dict[str, Path]:
    """The shipped scenarios: name -> file, sorted by name."""
    return {path.stem: path for path in sorted(READY.glob("*.toml"), key=lambda path: path.stem)}


def find(name: str | Path) -> Path:
    """The file of a scenario, given by its path or by the name of a shipped one.

    Raises UnknownName for a name that is not shipped, BadInput for a path where there is no file.
    Both messages suggest shipped scenarios with a similar name.

    >>> find("resnet50-train") == ready()["resnet50-train"]
    True
    """
    path, shipped = Path(name), ready()
    if str(name) in shipped:
        return shipped[str(name)]
    if os.path.exists(path):
        return path
    if path.suffix == ".toml" or path.name != str(name):
        close = get_close_matches(path.stem.lower(), shipped, n=3)
        hint = f"; did you mean the shipped scenario {' or '.join(close)}?" if close else ""
        raise BadInput(f"{path}: no such file{hint or f'; wanted {WHAT}'}")
    listing = f"give the path of a .toml file, or a shipped scenario: {', '.join(shipped)}"
    raise unknown("scenario", str(name), shipped, listing)


def about(path: str | Path) -> str:
    """What a scenario file says of itself: its first line, if that is a comment; else "".

    >>> about(find("resnet50-infer"))
    'ResNet-50 inference in fp16 on one L4, batches of 64 images.'
    """
    line = contents.text(path, WHAT).partition("\n")[0].strip()
    return line.lstrip("#").strip() if line.startswith("#") else ""


class Steps(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Scenarios whose steps run in turn; their times are added."""

    steps: Annotated[tuple[str, ...], msgspec.Meta(min_length=2)]  # paths, from the file's folder
    assumed: tuple[str, ...] = ()  # what the sum assumes or leaves out


def steps(path: str | Path) -> tuple[tuple[Scenario, ...], tuple[str, ...]]:
    """The scenarios whose steps a file asks for in turn, and what their sum assumes.

    A file of one scenario is one step. Raises BadInput or UnknownName as `read` does.
    """
    path = Path(path)
    raw = load(path, WHAT, "scenario")
    if "steps" not in raw:
        return (read(path),), ()
    found = checked(Steps, raw, str(path))
    return tuple(read(path.parent / name) for name in found.steps), found.assumed


def read(path: str | Path) -> Scenario:
    """The scenario in a file; relative paths in it start at the file's own folder.

    Raises BadInput or UnknownName with file and key where the file is not a valid scenario.
    """
    path = Path(path)
    raw = load(path, WHAT, "scenario")
    if "steps" in raw:
        raise BadInput(
            f"{path}: has several steps; forecast it with roofcast run, or read each by itself:"
            f" {', '.join(map(str, raw['steps']))}"
        )
    if isinstance(raw.get("set"), dict):
        raw["set"] = _flat(raw["set"])
    scenario = checked(Scenario, raw, str(path))
    return msgspec.structs.replace(scenario, **_moved(scenario, path.parent, _from_file))


def write(scenario: Scenario, path: str | Path) -> None:
    """Writes the scenario to a file, without fields that have their default value.

    The file is replaced in one step: an interrupted write leaves it as it was. Raises BadInput
    where it cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise BadInput(f"{path}: is a directory; give the name of a .toml file")
    moved = msgspec.structs.replace(scenario, **_moved(scenario, path.parent, _to_file))
    try:
        content = text(moved).encode("utf-8")
    except UnicodeEncodeError:
        raise BadInput(
            f"{path}: a name in the scenario is not text in UTF-8, as TOML wants it; rename it"
        ) from None
    with contents.replacing(path) as part:
        part.write_bytes(content)


def text(scenario: Scenario) -> str:
    """The scenario as TOML.

    >>> print(text(Scenario(model="gpt2", device="l4", batch=8, set={"memory.bandwidth": "x2"})))
    model = "gpt2"
    device = "l4"
    batch = 8
    <BLANKLINE>
    [set]
    "memory.bandwidth" = "x2"
    <BLANKLINE>
    """
    pairs = msgspec.to_builtins(scenario)
    tables = {name: pairs.pop(name, {}) for name in ("campaign", "set")}
    lines = [f"{key} = {_literal(value)}" for key, value in pairs.items() if value is not None]
    for name, table in tables.items():
        if table:
            lines += ["", f"[{name}]"]
            lines += [f"{_literal(key)} = {_literal(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    """A TOML value. Strings are escaped as in JSON, plus the delete character, as TOML requires."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_literal(each)}" for key, each in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _flat(table: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested tables with dotted keys instead.

    >>> _flat({"memory": {"bandwidth": "2 TB/s"}})
    {'memory.bandwidth': '2 TB/s'}
    """
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = value
    return flat


def _moved(scenario: Scenario, folder: Path, convert: Callable[[str, Path], str]) -> dict[str, Any]:
    """The PATHS and the runs of a scenario, converted from or for a file in `folder`."""
    given = {key: getattr(scenario, key) for key in PATHS}
    moved: dict[str, Any] = {
        key: convert(value, folder) for key, value in given.items() if value is not None
    }
    return moved | {"runs": tuple(convert(path, folder) for path in scenario.runs)}


def _is_path(value: str, folder: Path) -> bool:
    """Whether a value is a path rather than a name: by its ending, or because the file exists."""
    ending = value.endswith(SUFFIXES) or ".py:" in value
    return ending or ("/" in value and (folder / value).exists())


def _from_file(value: str, folder: Path) -> str:
    """A path that a file in `folder` states, from here."""
    return os.path.normpath(folder / value) if _is_path(value, folder) else value


def _to_file(value: str, folder: Path) -> str:
    """A path from here, as a file in `folder` must state it; an absolute one stays."""
    if os.path.isabs(value) or not _is_path(value, Path()):
        return value
    return os.path.relpath(value, folder)
