"""The picture of the house, enforced: a folder is a layer, imports point down only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ["hwdb", "simulator", "scenarios", "reports"]  # low to high
HEAVY = {"pandas", "scipy", "matplotlib", "numba", "torch", "onnx", "pint"}  # only ever imported where they are used
FILES = sorted(p for layer in LAYERS for p in (ROOT / layer).rglob("*.py"))


def imported(path: Path, top_level: bool = False):
    """Modules a file imports; `top_level`: only those it imports when it is itself imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    layer = LAYERS.index(path.relative_to(ROOT).parts[0])
    upward = [m for m in imported(path) if m.split(".")[0] in LAYERS[layer + 1 :]]
    assert not upward, f"{path.name} in {LAYERS[layer]}/ imports {upward} from above"


@pytest.mark.parametrize("path", [p for p in FILES if "machine" not in p.parts], ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_libraries_are_imported_where_they_are_used(path):
    heavy = {m.split(".")[0] for m in imported(path, top_level=True)} & HEAVY
    assert not heavy or path.name.endswith("_plot.py") or "importers" in path.parts, f"{path.name} imports {heavy} at its top"


def test_formulas_know_nothing_of_models():
    """times/ turns numbers into seconds; it must not know tapes, steps or models."""
    for path in (ROOT / "simulator" / "times").glob("*.py"):
        known = {m for m in imported(path) if m.startswith("simulator.")}
        assert all(m.startswith("simulator.times") for m in known), f"{path.name} imports {known}"


def test_ops_know_nothing_of_models():
    for path in (ROOT / "simulator" / "ops").glob("*.py"):
        known = {m for m in imported(path) if m.startswith("simulator.")}
        assert not any(m.startswith(("simulator.models", "simulator.step", "simulator.roofline")) for m in known), path.name
