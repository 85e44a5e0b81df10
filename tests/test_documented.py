"""What the code says of itself: every public function and class says what it is, every citation can
be looked up.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ["hwdb", "simulator", "scenarios", "reports"]
CODE = sorted(p for layer in LAYERS for p in (ROOT / layer).rglob("*.py"))
CITING = [
    *CODE,
    *sorted(p for layer in LAYERS for p in (ROOT / layer).rglob("*.toml")),
    *sorted((ROOT / "docs").glob("*.md")),
]
BIBLIOGRAPHY = re.findall(
    r"^@\w+\{([^,\s]+),", (ROOT / "docs" / "references.bib").read_text(encoding="utf-8"), re.M
)
KEY = re.compile(r"\[([a-z]+(?:-[a-z]+)*(?:19|20)\d\d[a-z0-9]*)\]")  # [williams2009]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def public(body: list[ast.stmt]):
    """Functions and classes of a file that others may use, methods of its public classes with
    them.
    """
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body)


@pytest.mark.parametrize("path", CODE, ids=name)
def test_every_public_function_and_class_says_what_it_is(path):
    silent = [
        f.name
        for f in public(ast.parse(path.read_text(encoding="utf-8")).body)
        if not ast.get_docstring(f)
    ]
    assert not silent, f"{name(path)}: no docstring: {', '.join(silent)}"


@pytest.mark.parametrize("path", CODE, ids=name)
def test_every_module_says_what_it_is(path):
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text)), name(path)


@pytest.mark.parametrize(
    "path", [p for p in CITING if KEY.search(p.read_text(encoding="utf-8"))], ids=name
)
def test_every_citation_stands_in_the_bibliography(path):
    missing = {key for key in KEY.findall(path.read_text(encoding="utf-8"))} - set(BIBLIOGRAPHY)
    assert not missing, (
        f"{name(path)} cites {', '.join(sorted(missing))}, which docs/references.bib has not"
    )


def test_the_bibliography_has_each_work_once():
    assert len(BIBLIOGRAPHY) == len(set(BIBLIOGRAPHY)) > 50
