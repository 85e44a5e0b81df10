"""600 damaged inputs of every kind: no traceback, no message but one short line, no number that
is none. `python benchmarks/fuzz.py` tries as many as there is time for.
"""

import pytest
from fuzzing.cases import KINDS, case, onnx_is_here
from fuzzing.judge import judged

SEED, INPUTS, CHUNK = 20, 600, 50
HERE = tuple(kind for kind in KINDS if kind != "onnx" or onnx_is_here())


@pytest.mark.parametrize("first", range(0, INPUTS, CHUNK))
def test_no_input_ends_in_anything_but_an_answer_or_one_line(first, tmp_path):
    wrong = {}
    for number in range(first, first + CHUNK):
        folder = tmp_path / str(number)
        folder.mkdir()
        if found := judged(case(SEED, number, HERE), folder):
            wrong[number] = found
    assert not wrong, f"see: python benchmarks/fuzz.py --show NUMBER {SEED}"


def test_an_input_is_the_same_whatever_was_made_before_it():
    assert case(SEED, 7) == case(SEED, 7) != case(SEED, 8)
