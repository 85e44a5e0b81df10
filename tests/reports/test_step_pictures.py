"""predict, memory and trace --plot: pictures state the numbers of their forecast, in one style."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from roofcast import predict
from roofcast.reports.command import main
from roofcast.reports.format import binary, seconds
from roofcast.reports.pictures import memory, step, style, timeline
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.forecast.timeline import moments
from roofcast.simulator.forecast.timeline import timeline as events_of

GPT = ("gpt2", "--on", "l4")
PIPELINE = dict(model="gpt2", device="l4", devices=4, pp=4, batch=16)


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def drawn(make):
    with style.fonts():
        return make()


def areas(axes):
    """Summed lengths of the bars of an axes, by place."""
    found = {}
    for bar in axes.patches:
        found[round(bar.get_y(), 3)] = found.get(round(bar.get_y(), 3), 0.0) + bar.get_width()
    return list(found.values())


def test_bars_of_a_step_are_its_time_and_its_peak():
    asked = [predict("gpt2", device="l4"), predict("gpt2", device="h100-sxm5")]
    figure = drawn(lambda: step.draw(asked))
    above, below = figure.axes
    assert areas(above) == pytest.approx([f.step_time_s for f in asked], rel=0.004)
    assert areas(below) == pytest.approx([f.memory.peak_bytes for f in asked])
    said = style.texts(figure)
    assert all(seconds(f.step_time_s) in said for f in asked)
    assert all(any(t.startswith(binary(f.memory.peak_bytes)) for t in said) for f in asked)


def test_memory_through_a_step_has_its_peak_and_every_kind():
    found, asked = (
        predict("gpt2", device="l4", batch=4),
        Scenario(model="gpt2", device="l4", batch=4),
    )
    held = moments(asked)
    assert max(m.total for m in held) == pytest.approx(found.memory.peak_bytes)
    said = style.texts(drawn(lambda: memory.draw([found], held)))
    assert f"peak {binary(found.memory.peak_bytes)}" in said
    assert {"parameters", "optimizer states", "activations", "framework, allocator"} <= set(said)


def test_memory_by_stage_has_a_bar_as_high_as_each_peak():
    found = predict(**PIPELINE)
    axes = drawn(lambda: memory.draw([found])).axes[0]
    heights = np.zeros(4)
    for bar in axes.patches:
        heights[round(bar.get_x() + bar.get_width() / 2)] += bar.get_height()
    assert heights == pytest.approx([rank.peak_bytes for rank in found.ranks])


@pytest.mark.parametrize("asked", [dict(model="gpt2", device="l4"), PIPELINE])
def test_a_timeline_has_every_event_in_a_row(asked):
    events = events_of(Scenario(**asked))
    axes = drawn(lambda: timeline.draw(events, "gpt2")).axes[0]
    assert sum(len(each.get_paths()) for each in axes.collections) == len(events)
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert (
        len(rows) <= 15
        if len(asked) == 2
        else rows
        == ["stage 1", "sends", "stage 2", "sends", "stage 3", "sends", "stage 4", "sends"]
    )
    end = max(e.start + e.duration for e in events)
    assert axes.get_xlim() == (0, pytest.approx(end))
    assert end == pytest.approx(predict(**asked).step_time_s)


@pytest.mark.parametrize("make", ["step", "moments", "stages", "devices"])
def test_no_text_lies_over_another(make):
    one, many = predict("gpt2", device="l4"), predict(**PIPELINE)
    figure = drawn(
        {
            "step": lambda: step.draw([one, many]),
            "moments": lambda: memory.draw([one], moments(Scenario(model="gpt2", device="l4"))),
            "stages": lambda: memory.draw([many]),
            "devices": lambda: memory.draw([one, predict("gpt2", device="h100-sxm5")]),
        }[make]
    )
    figure.canvas.draw()
    limits = [(axis, axis.get_view_interval()) for a in figure.axes for axis in (a.xaxis, a.yaxis)]
    hidden = {t.label1 for axis, (low, high) in limits for t in axis.get_major_ticks()
              if not low <= t.get_loc() <= high}  # fmt: skip
    shown = [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible()]
    boxes = [(t.get_text(), t.get_window_extent()) for t in shown
             if t not in hidden and not t.get_rotation() % 90]  # fmt: skip
    width, height = figure.canvas.get_width_height()
    for text, box in boxes:
        assert -1 <= box.x0 and box.x1 <= width + 1 and box.y0 >= -1 and box.y1 <= height + 1, text
    for (a, one_box), (b, other) in itertools.combinations(boxes, 2):
        wide = min(one_box.x1, other.x1) - max(one_box.x0, other.x0)
        high = min(one_box.y1, other.y1) - max(one_box.y0, other.y0)
        assert wide < 1 or high < 0.35 * min(one_box.height, other.height), (a, b)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_commands_write_their_pictures_and_print_the_same(tmp_path, suffix):
    for name, words in {"predict": (), "memory": (), "trace": ("-o", tmp_path / "t.json")}.items():
        picture = tmp_path / (name + suffix)
        plain, result = run(name, *GPT, *words), run(name, *GPT, *words, "--plot", picture)
        assert result.exit_code == 0, result.output
        assert result.stdout + result.stderr == (plain.stdout + plain.stderr + f"wrote {picture}\n")
        assert picture.stat().st_size > 5000
    if suffix == ".png":
        with Image.open(tmp_path / "predict.png") as image:
            assert round(image.info["dpi"][0]) == style.DPI
            found = json.loads(run("predict", *GPT, "--json").stdout)
            assert seconds(found["step_time_s"]) in image.info["Description"].splitlines()


@pytest.mark.parametrize("words", [("predict",), ("memory",), ("trace", "-o", "t.json")])
def test_a_picture_that_cannot_be_is_refused_before_the_work(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    result = run(words[0], *GPT, *words[1:], "--plot", "a.gif")
    assert result.exit_code == 2 and "use .png or .svg or .pdf" in result.stderr
    assert result.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


def test_no_picture_has_fonts_colours_or_a_resolution_of_its_own():
    folder = Path(style.__file__).parent
    for path in folder.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name != "style.py":
            assert "dpi=1" not in text and "rc_context" not in text and "pyplot" not in text
            assert "fontsize=8" not in text and "fontsize=7" not in text


def lightness(colour):
    return np.array([0.2126, 0.7152, 0.0722]) @ np.array(to_rgb(colour))


def test_neighbours_differ_in_lightness_or_in_hatch():
    for kinds in (style.KINDS, style.PASSES):
        looks = list(kinds.values())
        for (one, first), (other, second) in itertools.pairwise(looks):
            assert first != second or abs(lightness(one) - lightness(other)) > 0.1
