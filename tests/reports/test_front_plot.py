"""Fronts of search and choose, drawn: --plot, and pages: -o FILE.html."""

import re

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from roofcast.reports.command import main
from roofcast.reports.html import answers
from roofcast.reports.pictures import front
from roofcast.reports.pictures.front_labels import Mark, label_marks
from roofcast.reports.pictures.style import new, renderer

SEARCH = "search gpt2 --on a100-sxm4-80gb --devices 4 --batch 16"
CHOOSE = (
    "choose gpt2 --tokens 1B --batch 64 --devices 8 --within 90d --on h100-sxm5 --on a100-sxm4-80gb"
)


def typed(words):
    return CliRunner().invoke(main, words.split())


def test_a_limit_far_beyond_all_choices_presses_none_together():
    axes = new(4.0, 3.0).add_subplot()
    axes.plot([1.0, 2.0], [3.0, 4.0])
    front._limit(axes.axhline, 100.0, [3.0, 4.0], "budget: $100")
    front._limit(axes.axvline, 4.0, [1.0, 2.0], "deadline: 4 s")
    assert axes.get_ylim()[1] < 10.0 and axes.get_xlim()[1] >= 4.0
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["budget: $100, beyond the picture", "deadline: 4 s"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (SEARCH, ("gpt2 on 4 × a100-sxm4-80gb", "fits", "capacity", "time of a step", "--dp 4")),
        (CHOOSE, ("what to run it on", "h100-sxm5", "a100-sxm4-80gb", "deadline", "cost")),
    ],
    ids=["search", "choose"],
)
def test_a_front_is_drawn_with_its_words(words, said, tmp_path):
    path = tmp_path / "front.png"
    found = typed(f"{words} --plot {path}")
    assert found.exit_code == 0, found.output
    with Image.open(path) as image:
        texts = image.text["Description"]
        colours = image.convert("RGB").getcolors(1 << 20)
    assert len(colours) > 20
    for text in said:
        assert text in texts, text


def test_what_cannot_be_drawn_is_one_line(tmp_path):
    wrong = typed(f"{SEARCH} --plot {tmp_path / 'front.gif'}")
    assert wrong.exit_code == 2 and ".png" in wrong.stderr
    free = typed(
        f"choose gpt2 --tokens 1B --batch 64 --devices 1 --on tpu-v7 --plot {tmp_path}/a.png"
    )
    assert free.exit_code == 2 and "no choice has a price" in free.stderr


def crowd(count, seed=0):
    """Places of so many marks, most of them near each other."""
    random = np.random.default_rng(seed)
    return random.lognormal(0.0, 0.3, count), random.lognormal(8.0, 0.05, count)


@pytest.mark.parametrize("count", [3, 12, 33, 80])
def test_every_mark_of_a_page_is_named_or_numbered(count):
    x, y = crowd(count)
    points = [
        answers.Point(*at, f"{n} x device-{n}", n < 3)
        for n, at in enumerate(zip(x, y, strict=True))
    ]
    found = answers._front(points, ("time", str), ("cost", str))
    names = [mark["name"] for mark in found["points"]]
    assert all(names) and len(set(names)) == count
    if found["listed"]:
        assert names == [f"{n}" for n in range(1, count + 1)] and len(found["listed"]) == count
        assert [mark["text"] for mark in found["points"]] == found["listed"]
        assert {text.split(":")[0] for text in found["listed"]} == {p.name for p in points}
    assert bool(found["listed"]) == (count > 12)
    boxes = []
    for mark in found["points"]:
        wide = answers.LETTER * len(mark["name"])
        left = mark["at"][0] - (0 if mark["side"] == "start" else wide)
        boxes.append((left, left + wide, mark["at"][1]))
    for i, (begin, end, at) in enumerate(boxes):
        for left, right, other in boxes[:i]:
            assert abs(at - other) >= answers.LINE or right <= begin or end <= left


def test_a_page_says_each_mark_when_it_is_pointed_at(tmp_path):
    path = tmp_path / "choices.html"
    assert typed(f"{CHOOSE} -o {path}").exit_code == 0
    text = path.read_text(encoding="utf-8")
    assert text.count("<circle") == len(re.findall(r"<circle[^>]*><title>[^<]+</title>", text)) > 1


@pytest.mark.parametrize("count", [2, 33, 120])
def test_every_mark_of_a_picture_has_its_number_or_is_told_beside_its_kind(count):
    figure = new(9.0, 5.4)
    axes = figure.add_subplot()
    x, y = crowd(count)
    axes.plot(x, y, "o")
    marks = [Mark((float(a), float(b)), f"{n:,}", "black", "l4")
             for n, (a, b) in enumerate(zip(x, y, strict=True))]  # fmt: skip
    left = label_marks(figure, axes, marks)
    drawn = [t for t in axes.texts if t.get_gid() == "count"]
    assert sorted([t.get_text() for t in drawn] + [m.text for m in left]) == sorted(
        m.text for m in marks
    )
    assert len(left) < count / 3
    draw = renderer(figure)
    boxes = [t.get_window_extent(draw) for t in drawn if not t.arrow_patch]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
