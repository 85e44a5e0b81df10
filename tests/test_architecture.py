"""The picture of the house (docs/design.md), enforced: a folder is a layer, imports point down only, also inside a layer."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ["hwdb", "simulator", "scenarios", "reports"]  # low to high
HEAVY = {"pandas", "scipy", "matplotlib", "numba", "torch", "onnx", "pint"}  # only ever imported where they are used
LONGEST = 400  # lines of a file
FILES = sorted(p for layer in LAYERS for p in (ROOT / layer).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def mapped(layer: str) -> list[str]:
    """Modules and folders of a layer as the map names them, low to high: the first column of the block under its heading."""
    block = re.search(rf"^`{layer}/`, low to high:\n\n```\n(.*?)```", DESIGN, re.M | re.S)
    return [name for line in block[1].splitlines() for name in re.split(r"  ", line)[0].split(", ")]


def imported(path: Path, top_level: bool = False):
    """Modules a file imports; `top_level`: only those it imports when it is itself imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place(module: str, layer: str) -> str | None:
    """Where on the map of its layer a module lies: simulator.ops.linear on `ops/`, simulator.tape.Tape on `tape.py`."""
    parts = module.split(".")
    if parts[0] != layer or len(parts) < 2:
        return None
    known = mapped(layer)
    return next((entry for entry in (f"{parts[1]}/", f"{parts[1]}.py") if entry in known), None)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_point_down(path):
    layer = LAYERS.index(path.relative_to(ROOT).parts[0])
    upward = [m for m in imported(path) if m.split(".")[0] in LAYERS[layer + 1 :]]
    assert not upward, f"{path.name} in {LAYERS[layer]}/ imports {upward} from above"


@pytest.mark.parametrize("layer", LAYERS)
def test_the_map_names_every_module_and_no_other(layer):
    there = {p.name for p in (ROOT / layer).glob("*.py")} - {"__init__.py"}
    there |= {f"{p.relative_to(ROOT / layer).parts[0]}/" for p in (ROOT / layer).rglob("*/*.py")}
    assert sorted(mapped(layer)) == sorted(there)


@pytest.mark.parametrize("path", [p for p in FILES if p.name != "__init__.py"], ids=name)
def test_a_module_imports_only_what_stands_before_it_on_the_map(path):
    layer, first, *_ = path.relative_to(ROOT).parts
    order = mapped(layer)
    own = first if first.endswith(".py") else f"{first}/"
    above = {there for m in imported(path) if (there := place(m, layer)) and order.index(there) > order.index(own)}
    assert not above, f"{name(path)} imports {sorted(above)}, which docs/design.md has above it"


@pytest.mark.parametrize("path", FILES + TESTS, ids=name)
def test_no_file_is_longer_than_400_lines(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{name(path)} has {lines} lines; split it by what it does"


@pytest.mark.parametrize("path", [p for p in FILES if "machine" not in p.parts], ids=name)
def test_heavy_libraries_are_imported_where_they_are_used(path):
    heavy = {m.split(".")[0] for m in imported(path, top_level=True)} & HEAVY
    assert not heavy or path.name.endswith("_plot.py") or "importers" in path.parts, f"{path.name} imports {heavy} at its top"


@pytest.mark.parametrize("path", [p for p in FILES if "machine" not in p.parts], ids=name)
def test_what_a_module_keeps_to_itself_is_not_imported(path):
    """A name with an underscore belongs to its file."""
    private = [m for m in imported(path) if m.split(".")[0] in LAYERS and m.split(".")[-1].startswith("_")]
    assert not private, f"{name(path)} imports {private}"


def test_formulas_know_nothing_of_models():
    """times/ turns numbers into seconds; it must not know tapes, steps or models."""
    for path in (ROOT / "simulator" / "times").glob("*.py"):
        known = {m for m in imported(path) if m.startswith("simulator.")}
        assert all(m.startswith("simulator.times") for m in known), f"{path.name} imports {known}"


def test_ops_know_nothing_of_models():
    for path in (ROOT / "simulator" / "ops").glob("*.py"):
        known = {m for m in imported(path) if m.startswith("simulator.")}
        assert not any(m.startswith(("simulator.models", "simulator.step", "simulator.roofline")) for m in known), path.name
