"""validate --plot: forecast over measured of every run, a line per source."""

from click.testing import CliRunner

from roofcast.reports.command import main
from roofcast.reports.pictures.validation import FURTHEST, _figure, ratios
from roofcast.reports.tables.validation import check_files

ROWS = """model,device,precision,mode,batch_per_device,step_time_ms,source_name
resnet50,rtx-3090,amp-fp16,train,64,105,mine
resnet50,rtx-3090,amp-fp16,train,128,190,mine
resnet18,rtx-3090,amp-fp16,train,64,1,other
"""


def table(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(ROWS)
    return str(path)


def test_errors_are_grouped_by_source_the_most_exact_first(tmp_path):
    checked = check_files([table(tmp_path)])
    found = ratios(checked)
    assert list(found) == ["mine", "other"] and list(map(len, found.values())) == [2, 1]
    assert found["mine"][0] == checked[0].predicted / 0.105


def test_the_axis_shows_errors_and_names_every_source(tmp_path):
    found = ratios(check_files([table(tmp_path)]))
    (axes,) = _figure(found).axes
    low, high = axes.get_xlim()
    assert 1 / FURTHEST / 1.2 < low < 1 / FURTHEST and FURTHEST < high < 1.2 * FURTHEST
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["other (1)", "mine (2)", "all runs (3)"]
    assert found["other"][0] > FURTHEST and [t.get_text() for t in axes.texts] == ["1", "1"]


def test_the_command_draws_it_or_says_that_there_is_nothing_to_draw(tmp_path):
    picture = tmp_path / "errors.png"
    words = ["validate", "--runs", table(tmp_path), "--plot", str(picture)]
    assert CliRunner().invoke(main, words).exit_code == 0 and picture.stat().st_size > 10_000
    empty = tmp_path / "empty.csv"
    empty.write_text(ROWS.splitlines()[0] + "\n" + "nothing,rtx-3090,fp32,train,1,1,mine\n")
    result = CliRunner().invoke(main, ["validate", "--runs", str(empty), "--plot", str(picture)])
    assert result.exit_code == 2 and "no run has a forecast" in result.stderr
