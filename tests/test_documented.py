"""Documentation of the code: docstrings of everything public, and citations in the bibliography."""

import ast
import re
from functools import cache
from pathlib import Path

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


@cache
def undocumented(path: Path) -> tuple[bool, list[str]]:
    """Whether a module that is not empty lacks a docstring, and what public names of it do."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    bare = [found.name for found in public(tree.body) if not ast.get_docstring(found)]
    return bool(text.strip()) and not ast.get_docstring(tree), bare


def test_every_public_function_and_class_has_a_docstring():
    bare = [f"{name(path)}: {found}" for path in CODE for found in undocumented(path)[1]]
    assert len(CODE) > 400 and not bare, "no docstring:\n" + "\n".join(bare)


def test_every_module_has_a_docstring():
    """Unless it is empty."""
    assert len(CODE) > 400 and not [name(path) for path in CODE if undocumented(path)[0]]


def test_every_citation_is_in_the_bibliography():
    known = set(BIBLIOGRAPHY)
    cited = {path: set(KEY.findall(path.read_text(encoding="utf-8"))) for path in CITING}
    missing = {name(path): sorted(keys - known) for path, keys in cited.items() if keys - known}
    assert any(cited.values()) and not missing, "missing from docs/references.bib"


def test_the_bibliography_has_no_duplicate_keys():
    assert len(BIBLIOGRAPHY) == len(set(BIBLIOGRAPHY)) > 50
