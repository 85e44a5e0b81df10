"""Documentation of the code: docstrings of everything public, and citations in the bibliography."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ["hwdb", "simulator", "scenarios", "reports", "api"]
CODE = sorted(p for layer in LAYERS for p in (ROOT / layer).rglob("*.py"))
CITING = [
    *CODE,
    *sorted(p for layer in LAYERS for p in (ROOT / layer).rglob("*.toml")),
    *sorted((ROOT / "docs").glob("*.md")),
]
REFERENCES = (ROOT / "docs" / "references.bib").read_text(encoding="utf-8")
BIBLIOGRAPHY = re.findall(r"^@\w+\{([^,\s]+),", REFERENCES, re.M)
KEY = re.compile(r"\[([a-z]+(?:-[a-z]+)*(?:19|20)\d\d[a-z0-9]*)\]")  # [williams2009]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def public(body: list[ast.stmt]):
    """Public functions and classes of a module, and the public methods of its public classes."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body)


@pytest.mark.parametrize("path", CODE, ids=name)
def test_every_public_function_and_class_has_a_docstring(path):
    body = ast.parse(path.read_text(encoding="utf-8")).body
    bare = [f.name for f in public(body) if not ast.get_docstring(f)]
    assert not bare, f"{name(path)}: no docstring: {', '.join(bare)}"


@pytest.mark.parametrize("path", CODE, ids=name)
def test_every_module_has_a_docstring(path):
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text)), name(path)


@pytest.mark.parametrize(
    "path", [p for p in CITING if KEY.search(p.read_text(encoding="utf-8"))], ids=name
)
def test_every_citation_is_in_the_bibliography(path):
    missing = {key for key in KEY.findall(path.read_text(encoding="utf-8"))} - set(BIBLIOGRAPHY)
    keys = ", ".join(sorted(missing))
    assert not missing, f"{name(path)} cites {keys}, missing from docs/references.bib"


def test_the_bibliography_has_no_duplicate_keys():
    assert len(BIBLIOGRAPHY) == len(set(BIBLIOGRAPHY)) > 50
