"""What tests share: a law over many cases in one test, and cases that take turns."""

import pytest
from kinds import one_in_turn
from looped import each


@pytest.fixture
def limit():
    return 2


def test_a_looped_test_tries_every_case_and_names_those_that_fail(limit):
    tried = []

    @each("number, word", [(1, "one"), (2, "two"), (3, "three"), (4, "four")])
    def law(number, word, limit):
        tried.append(number)
        if number == 4:
            with pytest.raises(ValueError):
                pass
        assert number <= limit

    with pytest.raises(AssertionError, match="2 of 4 cases fail:\n3, three: Assert.*\n4, four: "):
        law(limit=limit)
    assert tried == [1, 2, 3, 4]


@each("number", [1, 2])
def test_a_looped_test_has_its_fixtures(number, limit):
    assert number <= limit


def test_a_law_over_no_case_is_an_error():
    with pytest.raises(AssertionError, match="no case of name"):
        each("name", [])


def test_every_kind_meets_every_case_and_every_name_one():
    tried = one_in_turn(["a1", "a2", "a3", "b1", "a4"], "xyz", lambda name: name[0])
    assert tried == {"a1": list("xyz"), "a2": ["y"], "a3": ["z"], "b1": list("xyz"), "a4": ["y"]}
