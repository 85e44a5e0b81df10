"""Fronts of search and choose, drawn: --plot."""

import pytest
from click.testing import CliRunner
from PIL import Image

from roofcast.reports.command import main

SEARCH = "search gpt2 --on a100-sxm4-80gb --devices 4 --batch 16"
CHOOSE = (
    "choose gpt2 --tokens 1B --batch 64 --devices 8 --within 90d --on h100-sxm5 --on a100-sxm4-80gb"
)


def typed(words):
    return CliRunner().invoke(main, words.split())


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
