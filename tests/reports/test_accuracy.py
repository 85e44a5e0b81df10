"""docs/accuracy.md and docs/method.md hold what `roofcast validate --write` would write."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from roofcast.reports.command import main
from roofcast.reports.pages import accuracy as page
from roofcast.reports.tables import accuracy
from roofcast.scenarios.fits import nets
from roofcast.scenarios.measured.nets import HERE, tables

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = ("accuracy.md", "method.md")


@pytest.mark.parametrize("name", PAGES)
def test_tables_are_up_to_date(name):
    """About twenty seconds: every shipped run is forecast once."""
    text = (DOCS / name).read_text(encoding="utf-8")
    now = page.filled(text, name)
    stated = text.splitlines()
    changed = [line for line in now.splitlines() if line not in stated]
    assert text == now, f"roofcast validate --write docs/{name} changes {changed[:3]}"


def test_the_table_of_readme_is_that_of_accuracy():
    """Runs, median error, share inside the interval and error of the bound, of each status."""
    written = (DOCS / "accuracy.md").read_text(encoding="utf-8")
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    full = re.findall(
        r"^\| (?:fitted|left out|never seen) \| (\d+) \| ([\d.]+) / [\d.]+ \| \S+"
        r" \| ([\d.]+) / [\d.]+ \| (\d+) \|",
        written,
        re.MULTILINE,
    )
    short = re.findall(
        r"^\| [^|]+ \| ([\d,]+) \| ([\d.]+) % \| (\d+) % \| ([\d.]+) % \|$", readme, re.MULTILINE
    )
    assert len(full) == 3
    assert [(n.replace(",", ""), e, b, i) for n, e, i, b in short] == full


def test_accuracy_has_every_table_once():
    text = "".join((DOCS / name).read_text(encoding="utf-8") for name in PAGES)
    places = re.findall(r"<!-- table: ([\w-]+) -->", text)
    assert len(places) == len(set(places)) and set(places) <= set(page.TABLES)
    assert {"summary", "devices", "stacks", "models", "scales", "constants"} <= set(places)


def test_accuracy_is_short():
    assert len((DOCS / "accuracy.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("name", PAGES)
def test_links_of_the_pages_lead_somewhere(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (DOCS / target).exists(), target


def test_every_row_has_a_status_and_sums_are_whole():
    rows = accuracy.rows()
    found = accuracy.grouped(rows, lambda r: r.device)
    assert sum(f.rows for f in found) == len(rows)
    assert {r.status for r in rows} == set(accuracy.STATUSES)
    blind = [r for r in rows if r.status == "never seen"]
    assert len(blind) > 400 and not any(r.run.source.startswith("NVIDIA/Deep") for r in blind)


@pytest.mark.parametrize("stage", ["session", "tf32"])
def test_rows_called_fitted_are_those_that_a_stage_reads(stage):
    path = HERE / "runs" / "nvidia-deeplearningexamples.csv"
    taken = [
        run.measured_s for run in accuracy.runs(path) if accuracy.selects(nets.STAGES[stage], run)
    ]
    assert sorted(taken) == sorted(r.seconds for r in nets.prepare([path], nets.STAGES[stage]))


def test_blind_tables_are_never_seen():
    for path in tables():
        run = accuracy.runs(path)[0]
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        seen = accuracy.status_of(run, path) != "never seen"
        assert seen != first.startswith("# Blind:")


def test_a_document_without_places_is_refused(tmp_path):
    path = tmp_path / "page.md"
    for text, words in ((None, "no such file"), ("# Empty\n", "no place for a table")):
        if text is not None:
            path.write_text(text, encoding="utf-8")
        result = CliRunner().invoke(main, ["validate", "--write", str(path)])
        assert result.exit_code == 2 and words in result.stderr


def test_only_the_table_after_the_mark_is_replaced(tmp_path):
    path = tmp_path / "page.md"
    text = "# Title\n<!-- table: constants -->\n| old |\n|---|\n\nText | with a bar.\n"
    path.write_text(text, encoding="utf-8")
    assert CliRunner().invoke(main, ["validate", "--write", str(path)]).exit_code == 0
    written = path.read_text(encoding="utf-8")
    assert "| old |" not in written and written.endswith("\n\nText | with a bar.\n")
    assert page.filled(written) == written
    path.write_text("<!-- table: nothing -->\n", encoding="utf-8")
    assert CliRunner().invoke(main, ["validate", "--write", str(path)]).exit_code == 2
