"""Tables for blind tests: kept apart from those that fits read, and forecast on their own."""

import csv
import sys

import pytest

from roofcast import predict
from roofcast.hwdb.errors import BadInput
from roofcast.reports.tables import accuracy
from roofcast.scenarios.fits import blind
from roofcast.scenarios.measured import nets as measured
from roofcast.scenarios.measured import training
from roofcast.simulator.forecast import interval

TABLES = measured.blind()


@pytest.fixture(scope="module")
def fitted() -> set[str]:
    """The sources that fits read."""
    nets = [run for path in measured.shipped() for run in accuracy.runs(path)]
    return {run.source for run in (*nets, *training.published())}


def test_a_table_is_either_for_fits_or_blind():
    assert len(TABLES) >= 14
    assert not set(TABLES) & set(measured.shipped())
    assert len(TABLES) + len(measured.shipped()) == len(measured.tables())


@pytest.mark.parametrize("path", TABLES, ids=lambda p: p.stem)
def test_no_fit_reads_a_blind_source_and_intervals_mark_it(path, fitted):
    sources = {run.source for run in accuracy.runs(path)}
    assert sources and not sources & fitted
    r = interval.residuals()
    assert all(r.blind[i] for i, source in enumerate(r.source) if source in sources)
    with pytest.raises(BadInput, match="keeps it for blind tests"):
        measured.read_to_fit(path)


@pytest.mark.parametrize("path", TABLES, ids=lambda p: p.stem)
def test_every_blind_row_is_a_scenario_or_excluded_with_a_reason(path):
    runs = accuracy.runs(path)
    assert runs
    for run in runs:
        assert run.scenario is not None or run.refused == f"excluded: {run.row['exclude']}", (
            f"{run.id}: {run.refused}"
        )
        assert run.measured_s or run.row["exclude"]


@pytest.mark.parametrize("path", TABLES, ids=lambda p: p.stem)
def test_a_blind_table_names_its_source(path):
    head = "".join(
        line
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True)
        if line.startswith("#")
    )
    assert "github" in head or ".com" in head
    with path.open(encoding="utf-8") as file:
        ids = [
            row["id"] for row in csv.DictReader(line for line in file if not line.startswith("#"))
        ]
    assert len(ids) == len(set(ids))


def test_only_the_first_line_makes_a_table_blind(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("# measured here\n# Blind: not the first line\nid\n", encoding="utf-8")
    assert not training.is_blind(path)
    assert not training.is_blind(tmp_path / "none.csv")


def test_a_line_of_the_table_has_errors_bias_and_shares_inside_intervals():
    rows = [
        blind.Scored("a", "s", "d", "stack", "class", 1.0, 1.1, (False, True, True)),
        blind.Scored("b", "s", "d", "stack", "class", 2.0, 1.0, (False, False, True)),
    ]
    assert blind.line("s", rows) == "| s | 2 | 30.0 / 30.0 | -25.8 | 0 / 50 / 100 |"


def test_a_measured_peak_is_compared_with_tensors_and_workspaces(tmp_path, monkeypatch, capsys):
    path = tmp_path / "runs.csv"
    head = (
        "id,source_name,model,device,precision,mode,batch_per_device,optimizer,framework,"
        "step_time_ms,peak_memory_mib\n"
    )
    rows = (
        "a,mine,resnet50,a100-sxm4-40gb,fp32,train,8,none,PyTorch 2.4,50,1000",
        "b,mine,resnet50,a100-sxm4-40gb,fp32,train,8,none,,50,",
    )
    path.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")
    (with_peak, without), _ = blind.score([path])
    scenario = measured.read(path)[0].scenario
    forecast = predict(scenario)
    assert scenario.optimizer == "none" and forecast.memory.framework_bytes > 0
    assert with_peak.predicted_bytes == pytest.approx(
        forecast.memory.peak_bytes - forecast.memory.framework_bytes + 2 * 8_519_680  # of cuBLAS
    )
    assert (with_peak.measured_bytes, without.measured_bytes) == (1000 * 2**20, None)
    monkeypatch.setattr(sys, "argv", ["blind", str(path)])
    blind.main()
    assert (
        blind.memory_line("mine, a100-sxm4-40gb", [with_peak])
        in capsys.readouterr().out.splitlines()
    )
    twice = [
        with_peak._replace(predicted_bytes=2.0, measured_bytes=1.0),
        with_peak._replace(predicted_bytes=0.5, measured_bytes=1.0),
    ]
    assert blind.memory_line("s", twice) == "| s | 2 | 75.0 / 75.0 | +0.0 |"


def test_rows_without_a_forecast_are_listed_with_the_reason():
    path = training.HERE / "primus-mi300x.csv"
    done, refused = blind.score([path])
    assert [r.id for r in done] == ["PRM0001", "PRM0002"]
    assert refused == ["PRM0003: excluded: number format is not stated"]


def test_a_missing_table_is_an_error_on_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["blind", str(tmp_path / "none.csv")])
    with pytest.raises(SystemExit) as stopped:
        blind.main()
    printed = capsys.readouterr()
    assert (
        stopped.value.code == 2
        and printed.out == ""
        and printed.err.count("\n") == 1
        and "none.csv" in printed.err
    )
