"""`roofcast sweep` as a person types it."""

import csv
import json

import pytest
from click.testing import CliRunner
from matplotlib.text import Text

from roofcast import predict
from roofcast.reports.command import main
from roofcast.reports.commands.sweep import swept
from roofcast.reports.format import duration, energy, money
from roofcast.reports.pictures.sweep import draw
from roofcast.simulator.choose.axes import axis, grid
from roofcast.simulator.choose.sweep import here
from roofcast.simulator.forecast.scenario import Scenario

BASE = ("sweep", "gpt2", "--on", "a100-sxm4-80gb", "--seq", "256")


def run(*words, columns="80"):
    return CliRunner(env={"COLUMNS": columns}).invoke(main, words)


@pytest.mark.parametrize("columns", ["40", "60", "80", "120"])
def test_the_table_fits_the_terminal(columns):
    result = run(*BASE, "--vary", "batch=1..512", "--vary", "zero=0,3", columns=columns)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= int(columns)
    assert "20 points over batch, zero" in " ".join(result.stdout.split())
    assert "…" not in result.stdout


def test_json_and_csv_hold_every_point_as_predict_says(tmp_path):
    table = tmp_path / "sweep.csv"
    result = run(*BASE, "--vary", "batch=1..8", "--vary", "tp=1,5", "-o", str(table), "--json")
    assert result.exit_code == 0
    points = json.loads(result.stdout)["points"]
    rows = list(csv.DictReader(table.open()))
    assert len(points) == len(rows) == 8
    for point, row in zip(points, rows, strict=True):
        assert (int(row["batch"]), int(row["tp"])) == (point["batch"], point["tp"])
        if point["tp"] == 5:
            assert point["step_time_s"] is None and point["refused"] == row["refused"] != ""
            continue
        found = predict("gpt2", "a100-sxm4-80gb", sequence=256, batch=point["batch"], tp=1)
        assert point["step_time_s"] == found.step_time_s == float(row["step_time_s"])
        assert point["fits"] is True and point["refused"] is None
    assert not list(tmp_path.glob("*.part"))


def test_a_run_with_an_end_has_its_time_cost_and_energy_as_predict_prints_them():
    """Of the whole training, not of its steps alone."""
    words = (*BASE, "--tokens", "10B", "--vary", "batch=8,16")
    points = json.loads(run(*words, "--json").stdout)["points"]
    text = run(*words, columns="140").stdout
    for point in points:
        found = predict("gpt2", "a100-sxm4-80gb", sequence=256, batch=point["batch"], tokens=1e10)
        whole = found.campaign
        assert (point["run_time_s"], point["run_cost_usd"]) == (whole.time_s, whole.cost_usd)
        assert (point["run_energy_j"], point["run_energy_scope"]) == (whole.energy_j, "site")
        assert whole.cost_usd > found.cost_usd and money(whole.cost_usd) in text
        assert duration(whole.time_s) in text and energy(whole.energy_j) in text
    best = min(points, key=lambda point: point["run_cost_usd"])
    assert f"lowest cost that fits: batch {best['batch']}" in text
    assert "whole run" not in run(*BASE, "--vary", "batch=8,16", columns="140").stdout


def test_runs_of_unlike_lengths_have_no_cheapest_and_no_fastest():
    text = run(*BASE, "--vary", "tokens=100B,1T", columns="140").stdout
    assert "100B" in text and " 1T" in text
    assert "lowest cost" not in text and "highest throughput" not in text


@pytest.mark.parametrize("columns", ["40", "80"])
def test_costs_fit_the_terminal(columns):
    text = run(*BASE, "--tokens", "1T", "--vary", "batch=1..64", columns=columns).stdout
    assert max(map(len, text.splitlines())) <= int(columns) and "…" not in text
    assert "cost" in text


def test_passes_of_no_training_have_a_cost_too():
    words = (*BASE, "--mode", "infer", "--tokens", "1T", "--vary", "batch=1,2", "--json")
    point = json.loads(run(*words).stdout)["points"][0]
    assert point["run_cost_usd"] == point["cost_usd"] > 0


def test_what_cannot_be_is_counted_by_reason_and_the_best_is_named():
    text = run(*BASE, "--vary", "tp=1,5,7").stdout
    assert "2 of 3 points cannot be:" in text
    assert "first: tp 5" in text


def test_devices_are_varied_by_their_option():
    result = run("sweep", "gpt2", "--vary", "on=t4,h100-sxm5")
    assert result.exit_code == 0
    assert "highest throughput that fits: on h100-sxm5" in result.stdout


@pytest.mark.parametrize(
    "words, says",
    [
        ((), "--vary"),
        (("--vary", "batches=1,2"), "did you mean batch"),
        (("--vary", "batch=1..1000", "--vary", "batch=3"), "given twice"),
        (("--vary", "batch=1,2", "--vary", "seq=64,128,256", "--zip"), "--zip pairs values"),
        (("--vary", "batch=1,2", "-o", "sweep.txt"), "use .csv or .parquet"),
        (("--vary", "batch=1,2", "--plot", "sweep.gif"), "use .png or .svg or .pdf"),
        (("--vary", "batch=1,2", "--workers", "2", "--dask", "tcp://a:1"), "exclude each other"),
        (("--vary", "memory.bandwidth=2GB/s..8TB/s"), "has two units; write all in one"),
        (("--vary", "tp=3,5"), "no point of the sweep can be; the first: "),
        (("--vary", "batch=1,2", "--workers", "99999"), "at most 1,024"),
        (
            ("--vary", "batch=1", "--vary", "seq=64", "--vary", "tp=1", "--plot", "a.png"),
            "one or two varied numbers",
        ),
        (("--vary", "batch=1..9:1", "--vary", "seq=1..1e5:1", "--vary", "tp=1..9:1"), "points"),
    ],
)
def test_a_wrong_option_is_one_line(words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*BASE, *words)
    assert result.exit_code == 2
    assert says in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("typed", ["2TB/s..8TB/s", "2..8 TB/s", "2 TB/s..8 TB/s"])
def test_a_range_takes_units(typed):
    """As --set does; all ends in one unit, the last one's."""
    from roofcast.simulator.choose.axes import axis

    assert axis(f"memory.bandwidth={typed}").values == ("2 TB/s", "4 TB/s", "8 TB/s")
    assert axis("tokens=1T..4T:1T").values == (1e12, 2e12, 3e12, 4e12)


def test_a_table_of_another_sweep_is_not_continued(tmp_path):
    table = tmp_path / "sweep.csv"
    (tmp_path / "sweep.csv.part").write_text("something else\n")
    result = run(*BASE, "--vary", "batch=1,2", "-o", str(table))
    assert result.exit_code == 2
    assert "another sweep" in result.stderr


PICTURES = {
    "numbers": ["batch=1..64"],
    "factors": ["memory.bandwidth=x0.5..x8"],
    "words": ["on=h100-sxm5,a100-sxm4-80gb,rtx-4090,i9-10940x,tpu-v5p,mi300x"],
    "two": ["batch=1..64", "seq=128..1024"],
    "two that are cut": ["batch=1..64", "tp=1,2,3,4,5,6"],
    "one point": ["batch=8"],
}


@pytest.mark.parametrize("name", PICTURES)
def test_no_label_of_a_picture_is_cut_or_over_another(name):
    axes = [axis(text) for text in PICTURES[name]]
    scenario = Scenario(model="gpt2", device="a100-sxm4-80gb", sequence=256)
    figure = draw(swept(scenario, axes, grid(axes), None, here), axes, scenario)
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    for axes_drawn in figure.axes:
        for line in (axes_drawn.xaxis, axes_drawn.yaxis):
            shown = [t for t in line.get_ticklabels() if t.get_visible() and t.get_text().strip()]
            boxes = [t.get_window_extent() for t in shown]
            inside = [b for b in boxes if -1 <= b.x0 and b.x1 <= width + 1 and b.y1 <= height + 1]
            if not any(t.get_rotation() for t in shown):
                for a, b in zip(inside, inside[1:], strict=False):
                    assert not a.overlaps(b) or a.bounds == b.bounds
    titles = [t for t in figure.findobj(Text) if t.get_text() in ("gpt2 on a100-sxm4-80gb", "gpt2")]
    assert titles and titles[0].get_window_extent().y1 <= height + 1


def test_an_empty_picture_is_refused(tmp_path):
    result = run(*BASE, "--vary", "tp=5,7", "--plot", str(tmp_path / "a.png"))
    assert result.exit_code == 2
    assert "nothing to draw" in result.stderr
