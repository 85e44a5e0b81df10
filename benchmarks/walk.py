"""Count how often the walk of a scenario through the code returns to a room that it had left.

    python benchmarks/walk.py [folder]      # a checkout whose package is installed in this Python

The walk: one `predict` is recorded, and of all functions of the project those are kept, at their
first call, that are passed the scenario or what it becomes on its way (CARRIERS). Reading a
property of an object is not a walk to another room. A room is a folder of `simulator/`, or a file
that lies in it beside the folders. A return is an entry into a room that was entered before.
"""

from __future__ import annotations

import sys
from importlib import import_module, util
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

CARRIERS = {"Scenario", "Asked", "Step", "OpTimes", "Forecast", "Run", "Recipe"}
WALKS: dict[str, dict[str, Any]] = {
    "one device": {"model": "gpt2-medium", "device": "h100-sxm5", "batch": 4},
    "16 devices": {
        "model": "llama-2-7b",
        "device": "h100-sxm5",
        "devices": 16,
        "tp": 2,
        "pp": 2,
        "zero": 1,
        "batch": 64,
        "micro_batch": 1,
    },
}


def room_of(file: str, root: Path) -> str | None:
    """The room in which a source file stands; None outside of the project."""
    path = Path(file).resolve()
    if root not in path.parents or "site-packages" in path.parts:
        return None
    parts = path.relative_to(root).parts
    return "/".join(parts[:2]) if parts[0] == "simulator" else parts[0]


def walk(root: Path, **scenario: Any) -> list[tuple[str, str]]:
    """Room and name of every function that carries the scenario on, in order of first call."""
    package = "roofcast" if util.find_spec("roofcast") else "simulator"
    predict = import_module(package).predict
    predict(model="gpt2", device="a100-sxm4-40gb")  # what is read once is read now
    seen: set[CodeType] = set()
    found: list[tuple[str, str]] = []

    def record(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or code in seen or code.co_name.startswith("<"):
            return
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        kinds = {type(frame.f_locals.get(name)).__name__ for name in names}
        room = room_of(code.co_filename, root)
        if room and kinds & CARRIERS and names[0] != "self":
            seen.add(code)
            found.append((room, code.co_name))

    sys.setprofile(record)
    try:
        predict(**scenario)
    finally:
        sys.setprofile(None)
    return found


def returns(rooms: list[str]) -> int:
    """Entries into a room that had been entered before."""
    entered = [room for i, room in enumerate(rooms) if i == 0 or rooms[i - 1] != room]
    return len(entered) - len(set(entered))


if __name__ == "__main__":
    where = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
    for name, asked in WALKS.items():
        steps = walk(where, **asked)
        print(f"{name}: {len(steps)} functions, {returns([room for room, _ in steps])} returns")
