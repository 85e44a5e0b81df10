"""The rooms of docs/design.md, enforced: a folder answers one question, imports point down only.

The picture in docs/design.md is read line by line: the indentation of a room says which folder it
lies in, its place says what it may import: what is above it in the list, and nothing below.
"""

import ast
import re
import runpy
import tomllib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

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


class Source(NamedTuple):
    """What the tests ask of a file; its syntax tree, which is large, is not kept."""

    lines: int
    imports: tuple[str, ...]  # modules and names
    at_once: tuple[str, ...]  # those imported when it is itself imported
    long: tuple[str, ...]  # functions of more than FUNCTION lines
    bare: tuple[str, ...]  # arguments of public functions without a type
    private: tuple[str, ...]  # names of ours with an underscore that it imports


@cache
def source(path: Path) -> Source:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    imports = imported(nodes)
    own = (module for module in imports if module.startswith("roofcast."))
    private = tuple(module for module in own if module.split(".")[-1].startswith("_"))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    long = (f for f in functions if f.end_lineno - f.lineno >= FUNCTION)
    return Source(
        lines=len(text.splitlines()),
        imports=imports,
        at_once=imported(tree.body),
        long=tuple(f"{f.name} ({f.end_lineno - f.lineno + 1})" for f in long),
        bare=tuple(bare_arguments(tree)),
        private=private,
    )


def imported(nodes: list[ast.AST]) -> tuple[str, ...]:
    """Modules, and names in them, that these nodes import."""
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
    return tuple(found)


def bare_arguments(tree: ast.Module):
    """Arguments of public functions that have no type."""
    for node in public(tree.body):
        a = node.args
        every = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        bare = (x.arg for x in every if not x.annotation and x.arg not in {"self", "cls"})
        yield from (f"{node.name}({arg})" for arg in bare)


def public(body: list[ast.stmt]):
    """Functions that others may call, and methods of public classes."""
    for node in body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body)


@cache
def ours(path: Path) -> set[str]:
    """Files of ours that a file imports."""
    found = set()
    for module in source(path).imports:
        target = path_of(module)
        if target and target != name(path):
            found.add(target)
    # a folder's __init__ is imported with any of its modules; that is no arrow of its own
    return {f for f in found if not f.endswith("__init__.py") or f"{Path(f).parent}/" in ROOMS}


@cache
def place(file: str) -> int:
    """Where in the picture a file stands: the longest entry that it lies in."""
    fitting = [r for r in ROOMS if file == r or (r.endswith("/") and file.startswith(r))]
    return ROOMS.index(max(fitting, key=len)) if fitting else -1


def none(faults: dict[Path, object]) -> None:
    """Fails with a line per file that has a fault."""
    found = [f"{name(path)}: {fault}" for path, fault in faults.items() if fault]
    assert not found, "\n".join(found)


def without(*folders: str) -> list[Path]:
    """The files of the package outside these folders."""
    assert len(FILES) > 400
    return [path for path in FILES if not set(folders) & set(path.relative_to(ROOT).parts)]


def modules() -> list[Path]:
    """The files of the rooms, without the empty ones that make a folder a package."""
    return [path for path in without("api") if path.name != "__init__.py"]


def test_every_file_stands_in_a_room_of_the_picture():
    none({p: "docs/design.md does not name its room" for p in modules() if place(name(p)) < 0})


def test_every_room_of_the_picture_is_there():
    missing = [room for room in ROOMS if not (ROOT / room).exists()]
    assert not missing and len(ROOMS) == len(set(ROOMS))


def test_imports_point_down():
    """No file imports what docs/design.md has above it."""
    none({p: upward(p) for p in modules()})


def upward(path: Path) -> list[str]:
    own = place(name(path))
    return sorted(f for f in ours(path) if f.startswith("api/") or place(f) > own)


def test_no_circle():
    try:
        TopologicalSorter({name(p): ours(p) - {name(p)} for p in FILES}).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' -> '.join(error.args[1])}")


def test_no_file_is_longer_than_400_lines():
    """A longer one is split by what it does."""
    lengths = {path: source(path).lines for path in FILES + TESTS}
    none({path: f"{lines} lines" for path, lines in lengths.items() if lines > LONGEST})


def test_no_function_is_longer_than_60_lines():
    long = {path: source(path).long for path in FILES}
    predict = [found for found in long.pop(ROOT / "api" / "calls.py") if "predict" not in found]
    none({**long, ROOT / "api" / "calls.py": predict})


def test_every_argument_of_a_public_function_is_typed():
    none({path: source(path).bare for path in FILES})


def test_heavy_libraries_are_imported_where_they_are_used():
    """Not at the top of a file."""
    light = without("machine", "fits", "pictures", "importers")
    none({path: {m.split(".")[0] for m in source(path).at_once} & HEAVY for path in light})


def test_what_a_module_keeps_to_itself_is_not_imported():
    """A name with an underscore belongs to its file."""
    none({path: source(path).private for path in without("machine")})


def test_formulas_know_nothing_of_models():
    """The formulas of times/ turn numbers into seconds, without tapes, steps or models."""
    of_steps = {"ages.py", "dispatch.py", "grouped.py", "offload.py", "peak.py", "roofline.py"}
    for path in (ROOT / "simulator" / "times").glob("*.py"):
        known = {m for m in source(path).imports if m.startswith("roofcast.simulator.")}
        if path.name not in of_steps:
            assert all(m.startswith("roofcast.simulator.times") for m in known), (path.name, known)


def test_ops_know_nothing_of_models():
    for path in (ROOT / "simulator" / "work" / "ops").glob("*.py"):
        known = {m for m in source(path).imports if m.startswith("roofcast.simulator.")}
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
