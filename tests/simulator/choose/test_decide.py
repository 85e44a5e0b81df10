"""Layouts that are decided together are decided as each alone."""

from collections import Counter
from itertools import product

import msgspec
import numpy as np
import pytest

from roofcast import Scenario
from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.simulator.choose.decide import decide
from roofcast.simulator.choose.distinct import Column, column, together
from roofcast.simulator.choose.search import GRID, NUMBER, search
from roofcast.simulator.forecast import layouts
from roofcast.simulator.forecast.resolve import named, resolve

SCENARIO = Scenario(model="mixtral-8x7b", device="h100-sxm5", batch=48, sequence=2048)
OPTIONS = {
    "devices": [None, 64], "tp": [1, 2, 3], "sp": [None, False], "ep": [1, 8], "dp": [2, 4, 5],
    "pp": [1, 2, 4], "vpp": [None, 2], "zero": [0, 2, 3], "shard": [None, 3], "micro_batch": [1, 4],
}  # fmt: skip
ROWS = [dict(zip(OPTIONS, each, strict=True)) for each in product(*OPTIONS.values())]


def decided(rows):
    """These rows, decided."""
    columns = {n: column(r.get(n, getattr(SCENARIO, n)) for r in rows) for n in GRID}
    return decide(SCENARIO, named(SCENARIO), columns)


def test_every_layout_is_decided_as_predict_decides_it():
    found = decided(ROWS)
    assert len(found.rows) + sum(each.rows for each in found.refusals) == len(ROWS)
    assert len(found.rows) > 100 and not len(found.alone)
    for i in range(0, len(found.rows), 20):
        asked = resolve(msgspec.structs.replace(SCENARIO, **ROWS[found.rows[i]]))
        assert found.layout(i) == asked.layout


def test_invalid_layouts_have_the_reasons_that_predict_gives_each_of_them():
    rows = ROWS[::7]
    expected, first = Counter(), {}
    for row in rows:
        try:
            resolve(msgspec.structs.replace(SCENARIO, **row))
        except RoofcastError as error:
            kind = NUMBER.sub("", str(error).split(";")[0])
            expected[kind] += 1
            first.setdefault(kind, str(error))
    counted, told = Counter(), {}
    for each in sorted(decided(rows).refusals, key=lambda each: each.first):
        kind = NUMBER.sub("", str(each.error).split(";")[0])
        counted[kind] += each.rows
        told.setdefault(kind, str(each.error))
    assert len(expected) > 4 and counted == expected and told == first


def test_values_of_the_wrong_type_refuse_their_layouts_only():
    found = search(SCENARIO, {"dp": [2, "4"], "zero": [0, None, 1.5], "micro_batch": [1]})
    assert found.refused.tolist() == [False, False, True, True, True, True]
    assert sum(found.reasons.values()) == 4
    assert any(text.startswith("dp '4'") for text in found.reasons)


def test_a_rule_that_reads_more_than_it_says_fails(monkeypatch):
    """In a search it is asked once for what it says that it reads."""
    more = layouts.Rule(("zero",), (), (), lambda s, d, model, said: (s.micro_batch, ())[1])
    monkeypatch.setattr("roofcast.simulator.choose.decide.RULES", (more, *layouts.RULES))
    with pytest.raises(AttributeError, match="micro_batch"):
        decided(ROWS[:4])


def test_rules_give_every_field_of_a_layout_once():
    gives = [name for rule in layouts.RULES for name in rule.gives]
    assert sorted(gives) == sorted(layouts.Layout.__struct_fields__)


def test_an_option_that_only_several_devices_have_makes_a_scenario_parallel():
    plain = Scenario(model="gpt2", device="h100-sxm5")
    assert not layouts.is_parallel(plain)
    for name, value in {"tp": 2, "zero": 0, "offload": ("optimizer",), "sp": True}.items():
        assert layouts.is_parallel(msgspec.structs.replace(plain, **{name: value}))
    for name, value in {"tp": 1, "offload": (), "sp": False}.items():
        assert not layouts.is_parallel(msgspec.structs.replace(plain, **{name: value}))


@pytest.mark.parametrize("values", [4, 1_000_000])
def test_rows_that_agree_are_found_whether_values_are_few_or_many(values):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, values, (3, 50))
    columns = [Column(range(values), mine) for mine in codes]
    found = together(columns, np.arange(50))
    tuples = list(zip(*codes.tolist(), strict=True))
    assert [tuples[i] for i in found.first] == list(dict.fromkeys(tuples))
    assert [tuples[found.first[k]] for k in found.codes] == tuples


def test_a_layout_that_breaks_two_rules_has_the_reason_of_the_first():
    with pytest.raises(BadInput, match="zero 2 with pp 2"):
        resolve(msgspec.structs.replace(SCENARIO, pp=2, zero=2, dp=5, micro_batch=1))
    found = search(SCENARIO, {"pp": [2], "zero": [2], "dp": [5], "micro_batch": [1]})
    assert [text.split(":")[0] for text in found.reasons] == ["zero 2 with pp 2"]
