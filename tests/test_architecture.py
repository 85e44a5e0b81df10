"""The rooms of docs/design.md, enforced: a folder answers one question, imports point down only.

The picture in docs/design.md is read line by line: the indentation of a room says which folder it
lies in, its place says what it may import: what is above it in the list, and nothing below.
"""

import ast
import re
import runpy
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ["hwdb", "simulator", "scenarios", "reports", "api"]  # low to high
HEAVY = {"pandas", "scipy", "matplotlib", "numba", "torch", "onnx", "pint"}  # imported where used
LONGEST = 400  # lines of a file
FUNCTION = 60  # lines of a function; predict alone, whose signature is a scenario, has more
FILES = sorted(p for layer in LAYERS for p in (ROOT / layer).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py")) + sorted((ROOT / "benchmarks").rglob("*.py"))
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def rooms() -> list[str]:
    """Every entry of the picture, low to high: `simulator/`, `simulator/work/tape.py` ..."""
    found, stack = [], []
    for line in re.search(r"```\n(hwdb/.*?)```", DESIGN, re.S)[1].splitlines():
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        stack = [(i, room) for i, room in stack if i < indent]
        parent = stack[-1][1] if stack else ""
        for entry in re.split(r"\s{2,}", line.strip())[0].split(", "):
            found.append(parent + entry)
        stack.append((indent, found[-1]))
    return found


ROOMS = rooms()
MAPPED = {f"roofcast.{layer}": layer for layer in LAYERS[:-1]}


def path_of(module: str) -> str | None:
    """roofcast.simulator.work.tape -> simulator/work/tape.py; None of what is not ours."""
    if module == "roofcast":
        return "api/__init__.py"
    parts = module.split(".")
    if len(parts) < 2 or parts[0] != "roofcast" or parts[1] not in LAYERS:
        return None
    file = ROOT.joinpath(*parts[1:])
    if file.with_suffix(".py").is_file():
        return name(file.with_suffix(".py"))
    return name(file / "__init__.py") if (file / "__init__.py").is_file() else None


def imported(path: Path, top_level: bool = False):
    """Modules a file imports; `top_level`: only those it imports when it is itself imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    """Files of ours that a file imports."""
    found = set()
    for module in imported(path):
        target = path_of(module)
        if target and target != name(path):
            found.add(target)
    # a folder's __init__ is imported with any of its modules; that is no arrow of its own
    return {f for f in found if not f.endswith("__init__.py") or f"{Path(f).parent}/" in ROOMS}


def place(file: str) -> int:
    """Where in the picture a file stands: the longest entry that it lies in."""
    fitting = [r for r in ROOMS if file == r or (r.endswith("/") and file.startswith(r))]
    return ROOMS.index(max(fitting, key=len)) if fitting else -1


@pytest.mark.parametrize("path", [p for p in FILES if "api" not in p.parts], ids=name)
def test_every_file_stands_in_a_room_of_the_picture(path):
    if path.name != "__init__.py":
        assert place(name(path)) >= 0, f"{name(path)}: docs/design.md does not name its room"


def test_every_room_of_the_picture_is_there():
    missing = [room for room in ROOMS if not (ROOT / room).exists()]
    assert not missing and len(ROOMS) == len(set(ROOMS))


@pytest.mark.parametrize("path", [p for p in FILES if "api" not in p.parts], ids=name)
def test_imports_point_down(path):
    own = place(name(path))
    upward = {f for f in ours(path) if f.startswith("api/") or place(f) > own}
    if path.name != "__init__.py":
        assert not upward, (
            f"{name(path)} imports {sorted(upward)}, which docs/design.md has above it"
        )


def test_no_circle():
    try:
        TopologicalSorter({name(p): ours(p) - {name(p)} for p in FILES}).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("path", FILES + TESTS, ids=name)
def test_no_file_is_longer_than_400_lines(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{name(path)} has {lines} lines; split it by what it does"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_function_is_longer_than_60_lines(path):
    long = [
        f"{node.name} ({node.end_lineno - node.lineno + 1})"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= FUNCTION
    ]
    long = [found for found in long if not (path.name == "calls.py" and "predict" in found)]
    assert not long, f"{name(path)}: {', '.join(long)}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_argument_of_a_public_function_is_typed(path):
    bare = []
    for node in public(ast.parse(path.read_text(encoding="utf-8")).body):
        a = node.args
        every = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        skipped = {"self", "cls"}
        bare += [
            f"{node.name}({x.arg})" for x in every if not x.annotation and x.arg not in skipped
        ]
    assert not bare, f"{name(path)}: {', '.join(bare)}"


def public(body: list[ast.stmt]):
    """Functions that others may call, and methods of public classes."""
    for node in body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body)


@pytest.mark.parametrize(
    "path", [p for p in FILES if not {"machine", "fits", "pictures"} & set(p.parts)], ids=name
)
def test_heavy_libraries_are_imported_where_they_are_used(path):
    heavy = {m.split(".")[0] for m in imported(path, top_level=True)} & HEAVY
    assert not heavy or "importers" in path.parts, f"{path.name} imports {heavy} at its top"


@pytest.mark.parametrize("path", [p for p in FILES if "machine" not in p.parts], ids=name)
def test_what_a_module_keeps_to_itself_is_not_imported(path):
    """A name with an underscore belongs to its file."""
    private = [
        m for m in imported(path) if m.startswith("roofcast.") and m.split(".")[-1].startswith("_")
    ]
    assert not private, f"{name(path)} imports {private}"


def test_formulas_know_nothing_of_models():
    """The formulas of times/ turn numbers into seconds, without tapes, steps or models."""
    of_steps = {"ages.py", "dispatch.py", "offload.py", "peak.py", "roofline.py"}
    for path in (ROOT / "simulator" / "times").glob("*.py"):
        known = {m for m in imported(path) if m.startswith("roofcast.simulator.")}
        if path.name not in of_steps:
            assert all(m.startswith("roofcast.simulator.times") for m in known), (path.name, known)


def test_ops_know_nothing_of_models():
    for path in (ROOT / "simulator" / "work" / "ops").glob("*.py"):
        known = {m for m in imported(path) if m.startswith("roofcast.simulator.")}
        assert all(m.startswith("roofcast.simulator.work") for m in known), (path.name, known)


def test_the_package_lists_every_folder_of_code():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {name(p.parent).replace("/", ".") for p in FILES if p.name == "__init__.py"}
    packages = {f"roofcast.{f}" if f != "api" else "roofcast" for f in folders}
    assert set(listed["tool"]["setuptools"]["packages"]) == packages


@pytest.mark.parametrize("name", ["one device", "16 devices"])
def test_a_scenario_walks_through_the_rooms_once(name):
    """Only the answer returns, to forecast/, where it is assembled."""
    walk = runpy.run_path(str(ROOT / "benchmarks" / "walk.py"))
    rooms = [room for room, _ in walk["walk"](ROOT, **walk["WALKS"][name])]
    assert set(rooms) >= {"simulator/forecast", "simulator/work", "simulator/times"}
    assert walk["returns"](rooms) == 1
