"""Damaged inputs of commands that forecast many times; `benchmarks/fuzz.py` tries more."""

import pytest
from fuzzing.cases import case
from fuzzing.commands import KINDS
from fuzzing.judge import judged

from roofcast.reports.command import main

SEED, EACH = 7, 6


@pytest.mark.parametrize("kind", KINDS)
def test_no_input_ends_in_anything_but_an_answer_or_one_line(kind, tmp_path):
    wrong = {}
    for number in range(EACH):
        folder = tmp_path / str(number)
        folder.mkdir()
        if found := judged(case(SEED, number, (kind,)), folder):
            wrong[number] = found
    assert not wrong, f"see: python benchmarks/fuzz.py --show NUMBER {SEED} {kind}"


def test_a_search_in_which_every_layout_is_invalid_says_why(capsys):
    words = "search mamba-130m --on xeon-8480 --devices 6 --pp 1 --schedule zb-v".split()
    with pytest.raises(SystemExit) as done:
        main(words)
    text = capsys.readouterr().out
    assert not done.value.code and "every layout is invalid" in text and "zb-v" in text
