"""`roofcast sensitivity` as a person types it."""

import csv
import json

import pytest
from click.testing import CliRunner
from matplotlib.text import Text

from roofcast import RoofcastError, predict
from roofcast import sensitivity as ask
from roofcast.reports.command import main
from roofcast.reports.pictures.sensitivity import draw

HOST_BOUND = ("sensitivity", "gpt2", "--on", "v100-sxm2-16gb")


def run(*words, columns="80"):
    return CliRunner(env={"COLUMNS": columns}).invoke(main, words)


@pytest.mark.parametrize("columns", ["40", "60", "80", "120"])
def test_the_table_fits_the_terminal_and_starts_with_the_largest(columns):
    result = run(*HOST_BOUND, columns=columns)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= int(columns)
    header = next(i for i, line in enumerate(lines) if line.split()[:1] == ["number"])
    assert lines[header + 1].split()[:2] == ["host:", "launch"]


def test_json_holds_what_the_table_shows_and_sums_to_minus_one():
    found = json.loads(run(*HOST_BOUND, "--json").stdout)
    effects = {e["number"]: e for e in found["effects"]}
    assert found["sum_of_elasticities"] == pytest.approx(-1, abs=0.02)
    assert found["step_time_s"] == predict("gpt2", "v100-sxm2-16gb").step_time_s
    assert effects["memory.bandwidth"]["value"] == 900e9
    assert effects["memory.bandwidth"]["elasticity"] < 0 < effects["memory.bandwidth"]["better_s"]


def test_files_are_written(tmp_path):
    table, picture = tmp_path / "worth.csv", tmp_path / "worth.svg"
    result = run(*HOST_BOUND, "-o", str(table), "--plot", str(picture))
    assert result.exit_code == 0
    assert f"wrote {table}" in result.stdout and f"wrote {picture}" in result.stdout
    rows = list(csv.DictReader(table.open()))
    assert rows[0]["number"] == "host: launch of a kernel"
    assert "memory.bandwidth" in picture.read_text()


def test_no_label_of_the_picture_is_cut_or_over_another():
    found = ask("llama-3-70b", "gb200", devices=128, tp=8, pp=4, zero=1, batch=128)
    figure = draw(found)
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    ticks = figure.axes[0].get_xticklabels()  # matplotlib keeps one beyond the axis
    drawn = [t for t in figure.findobj(Text) if t.get_text().strip() and t not in ticks]
    drawn = [t for t in drawn if t.get_visible()]
    boxes = {t.get_text(): t.get_window_extent() for t in drawn}
    for text, box in boxes.items():
        assert -1 <= box.x0 and box.x1 <= width + 1, text
        assert -1 <= box.y0 and box.y1 <= height + 1, text
    named = [e.number for e in found.effects]
    assert all(name in boxes for name in named)
    ordered = sorted((boxes[name] for name in named), key=lambda b: b.y0)
    assert all(a.y1 <= b.y0 for a, b in zip(ordered, ordered[1:], strict=False))


@pytest.mark.parametrize(
    "words, says",
    [
        (("-o", "worth.txt"), "use .csv"),
        (("--plot", "worth.gif"), "use .png or .svg or .pdf"),
        (("--set", "memory.width=2"), "no key 'memory.width'"),
        (("--tokens", "1T"), "no option --tokens"),
        (("--on", "nothing-9000"), "nothing-9000"),
    ],
)
def test_a_wrong_option_is_one_line(words, says):
    result = run(*HOST_BOUND[:2], *words, *(() if "--on" in words else HOST_BOUND[2:]))
    assert result.exit_code == 2
    assert says in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_from_python_an_unknown_field_is_refused():
    with pytest.raises(RoofcastError, match="no field 'bandwidth'"):
        ask("gpt2", "v100-sxm2-16gb", bandwidth=3)
