"""The measured servers that come with Roofcast: tables, series, what is shown of them."""

import csv
import sys
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from roofcast.hwdb.errors import RoofcastError
from roofcast.reports.command import main
from roofcast.reports.pages import serving_validation
from roofcast.scenarios.fits.serving_series import series
from roofcast.scenarios.measured.serving.fitted import FITTED, fitted
from roofcast.scenarios.measured.serving.forecasts import QUANTITIES, completed, shipped
from roofcast.scenarios.measured.serving.rows import PUBLISHED, ran
from roofcast.simulator.serving.profiles import names
from roofcast.simulator.serving.similar import COLUMNS, FILE

SMALL = ("LMDeploy TurboMind A100", "ExLlamaV2 README", "Intel Gaudi 3 performance page")


@pytest.fixture(scope="module")
def table():
    return list(shipped())


def test_every_row_is_measured_and_says_where_it_is_from(table):
    assert len(table) > 8000 and len({row["id"] for row in table}) == len(table)
    for row in table:
        assert any(float(row[name] or 0.0) > 0 for name in QUANTITIES), row["id"]
        assert row["source_name"] and len(row["source_ref"]) > 10, row["id"]
    files = {path.stem for path in PUBLISHED.glob("*.csv")}
    assert len(files) == len({row["source_name"] for row in table}) == 20


def test_most_rows_name_a_server_that_is_known(table):
    known, part = Counter(), table[::5]
    for row in part:
        try:
            known[ran(completed(row)[0]).stack] += 1
        except RoofcastError:
            known[""] += 1
    assert known[""] < 0.06 * len(part)
    assert set(known) - {""} <= set(names()) and set(FITTED) <= set(known)


def test_what_is_fitted_is_told_by_software_and_load():
    assert fitted("vllm", "concurrency", "tpot_s") and fitted("trt-llm", "offline_max", "tpot_s")
    assert not fitted("vllm", "all_at_once", "tpot_s") and not fitted("neuronx", "batch", "ttft_s")
    assert set(FITTED) <= set(names())


def test_shipped_series_are_those_of_the_shipped_rows(table):
    """Written again, the file would say the same: of sources with few rows."""
    lines = [line for line in FILE.read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    written = [row for row in csv.DictReader(lines) if row["source"] in SMALL]
    again = series(row for row in table if row["source_name"] in SMALL)
    assert len(written) == len(again) > 10
    for old, new in zip(written, again, strict=True):
        for name in COLUMNS:
            if name.endswith("_error") and old[name]:
                assert float(old[name]) == pytest.approx(float(new[name]), abs=0.02), old
            else:
                assert old[name] == str(new[name]), (name, old)


def test_the_shipped_rows_are_validated_by_name(table, monkeypatch):
    few = [row for row in table if row["source_name"] in SMALL]
    monkeypatch.setattr(serving_validation, "shipped", lambda: iter(few))
    found = CliRunner(env={"COLUMNS": "100"}).invoke(main, ["validate", "--serving", "shipped"])
    assert found.exit_code == 0, found.output
    text = " ".join(found.stdout.split())
    assert "rows with a measured value" in text and "left out" in text
    assert all(source.split()[0] in text for source in SMALL)
    lines = serving_validation.lines(serving_validation.check("shipped"))
    for name in QUANTITIES:
        of = {
            line.status: line.rows for line in lines if (line.source, line.quantity) == ("", name)
        }
        assert of.get("", 0) == of.get("fitted", 0) + of.get("left out", 0)
    statuses = {(line.source, line.status) for line in lines if line.source}
    assert ("Intel Gaudi 3 performance page", "left out") in statuses


def test_tables_are_written_in_their_own_form(tmp_path, monkeypatch):
    """benchmarks/serving_tables.py: what all rows share stands once, notes are those of rules."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    import serving_tables

    monkeypatch.setattr(serving_tables, "PUBLISHED", tmp_path / "published")
    rows = [
        "id,source_name,source_ref,model,engine,device,load,tpot_s,notes",
        "a,LMDeploy,owner/x@1:doc.md#1,llama-2-7b,LMDeploy,A100,1,0.0123456,task chat; by hand",
        "b,LMDeploy,owner/x@1:doc.md#2,llama-2-7b,LMDeploy,A100,2,0.02,by hand",
        "c,LMDeploy,owner/x@1:doc.md#3,llama-2-7b,LMDeploy,A100,4,,nothing measured",
    ]
    given = tmp_path / "given.csv"
    given.write_text("\n".join(rows) + "\n", encoding="utf-8")
    serving_tables.main([str(given)])
    text = (tmp_path / "published" / "lmdeploy.csv").read_text(encoding="utf-8")
    head, table = text.splitlines()[:2], text.splitlines()[2:]
    assert "owner/x@1:doc.md#" in head[0]
    assert table == ["id,where,load,tpot_s,notes", "a,1,1,0.012346,task chat", "b,2,2,0.02,"]
    heads = (tmp_path / "published" / "sources.toml").read_text(encoding="utf-8")
    assert 'model = "llama-2-7b"' in heads and 'source_ref = "owner/x@1:doc.md#"' in heads
    unknown = tmp_path / "unknown.csv"
    unknown.write_text(rows[0] + "\n" + rows[1].replace("LMDeploy,o", "Nobody,o") + "\n")
    with pytest.raises(RoofcastError, match="Nobody: no file in FILES"):
        serving_tables.main([str(unknown)])


def test_layouts_of_measured_fronts_are_shown(table, monkeypatch):
    key = {"source_name": "InferenceX (via aiconfigurator)", "roofcast_device": "b200-sxm",
           "model": "meta-llama/Llama-3.1-70B", "engine": "vllm", "w_prec": "fp4",
           "input_len": "1024", "output_len": "1024"}  # fmt: skip
    few = [row for row in table if all(row[name] == value for name, value in key.items())]
    assert len({row["tp"] for row in few}) > 2
    monkeypatch.setattr(serving_validation, "shipped", lambda: iter(few))
    found = CliRunner(env={"COLUMNS": "100"}).invoke(main, ["validate", "--serving", "shipped"])
    text = " ".join(found.stdout.split())
    assert "Layouts chosen on measured fronts within 10, 20, 30, 50, 100 ms per token" in text
    line = serving_validation.to_json(serving_validation.check("shipped"))["regret"][-1]
    assert line["fronts"] == 1 and line["chosen"] > 2 and line["mean"] < 0.5
