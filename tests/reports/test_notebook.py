"""docs/examples/*.ipynb: every cell runs, and the outputs that are stored are what it prints today.

A cell is run as Jupyter runs it: what it prints, then the value of its last line as text, as HTML
or as a picture. `make docs` writes the outputs anew.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import pytest

FOLDER = Path(__file__).parent.parent.parent / "docs" / "examples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 200_000  # bytes of a notebook with its outputs


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def executed(notebook: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The outputs of every code cell, run one after the other in this process."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    with matplotlib.rc_context({"backend": "agg"}):
        return [outputs("".join(cell["source"]), n, names) for n, cell in enumerate(cells, 1)]


def outputs(source: str, number: int, names: dict[str, Any]) -> list[dict[str, Any]]:
    """What one cell prints, and its value."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    value = None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(ast.Module(body, []), f"cell {number}", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
    found: list[dict[str, Any]] = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        found.append({"name": "stdout", "output_type": "stream", "text": text})
    if value is not None:
        result = {"data": shown(value), "execution_count": number, "metadata": {}}
        found.append({**result, "output_type": "execute_result"})
    return found


def shown(value: Any) -> dict[str, Any]:
    """A value as Jupyter shows it: kind of content -> lines, or base64 of a picture."""
    if hasattr(value, "_repr_mimebundle_"):
        found = dict(value._repr_mimebundle_())
    else:
        found = {"text/plain": repr(value)}
        if hasattr(value, "_repr_html_"):
            found["text/html"] = value._repr_html_()
    return {
        kind: text if kind == "image/png" else text.splitlines(keepends=True)
        for kind, text in sorted(found.items())
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_outputs_are_what_the_cells_give_today(path, tmp_path, monkeypatch, alike):
    monkeypatch.chdir(tmp_path)
    notebook = read(path)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, (cell, now) in enumerate(zip(cells, executed(notebook), strict=True), 1):
        assert cell["execution_count"] == number
        stored = [dict(output) for output in cell["outputs"]]
        assert len(stored) == len(now)
        for old, new in zip(stored, now, strict=True):
            pictures = [each.get("data", {}).pop("image/png", None) for each in (old, new)]
            assert old == new, f"cell {number}: make docs writes it anew"
            if any(pictures):
                alike(*(base64.b64decode(picture) for picture in pictures))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_valid_small_and_names_no_place(path):
    text, notebook = path.read_text(encoding="utf-8"), read(path)
    assert len(text) < LARGEST
    assert not re.search(r"(?<![\w.<])/(home|root|work|tmp|mnt|Users)/|localhost", text)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(ids) == len(set(ids))
    given = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    kinds = {kind for output in given for kind in output.get("data", ())}
    assert {"text/html", "image/png"} <= kinds


def test_there_is_a_notebook():
    assert NOTEBOOKS


def test_a_written_page_is_shown_in_a_notebook(tmp_path):
    from roofcast import predict

    step = predict("gpt2", device="l4")
    page = step.report(tmp_path / "page.html", sensitivity=False)
    frame = shown(page)["text/html"]
    assert "".join(frame).startswith("<iframe") and "&lt;!doctype html&gt;" in "".join(frame)
    assert "# gpt2 on l4" in "".join(shown(step.report(tmp_path / "page.md"))["text/markdown"])
    assert "<svg" in "".join(shown(step.plot_roofline(tmp_path / "r.svg"))["image/svg+xml"])
    page.unlink()
    assert set(shown(page)) == {"text/plain"} and isinstance(page, Path)


def refresh() -> None:
    """Write the outputs of every notebook as its cells give them now."""
    for path in NOTEBOOKS:
        notebook = read(path)
        with tempfile.TemporaryDirectory() as place:
            os.chdir(place)
            now = executed(notebook)
            os.chdir(FOLDER)
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        for number, (cell, found) in enumerate(zip(cells, now, strict=True), 1):
            cell |= {"execution_count": number, "outputs": found}
        text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True)
        path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    refresh()
