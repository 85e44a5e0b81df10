"""Ranks of one structure as one rank whose numbers are columns."""

from graphlib import CycleError

import numpy as np
import pytest

from roofcast.simulator.choose.stacked import by_order, in_one_order, stacked_units
from roofcast.simulator.parallel.stages import Unit
from roofcast.simulator.parallel.traffic import Cost

TP, CP, GRADIENT = ("forward", "tp", False), ("forward", "cp", True), ("backward", "tp", False)


def unit(traffic, **numbers):
    """A layer with this traffic."""
    nothing = dict.fromkeys(
        ("dense", "expert", "trained", "trained_expert", "kept", "largest"), 0.0
    )
    phases = np.arange(4.0)
    return Unit("layer", 4, phases, phases, traffic, **{**nothing, "inside": 0.0, **numbers})


def test_the_traffic_of_several_ranks_keeps_the_order_of_each_within_a_pass():
    assert in_one_order([[TP], [TP, CP], [GRADIENT, TP]]) == [TP, CP, GRADIENT]
    with pytest.raises(CycleError):
        in_one_order([[TP, CP], [CP, TP]])


def test_ranks_whose_traffic_has_contradicting_orders_are_told_apart():
    one, other = unit(dict.fromkeys([TP, CP])), unit(dict.fromkeys([CP, TP]))
    assert by_order([[one], [unit({TP: None})]]) == [0, 0]
    assert by_order([[one], [other], [one]]) == [0, 1, 0]


def test_equal_numbers_stay_numbers_and_others_become_columns():
    """Three layouts have the first rank and one the second, which sends nothing."""
    first = unit({TP: Cost(2.0, 8.0)}, dense=5.0, kept=1.0)
    (found,) = stacked_units([[first], [unit({}, dense=5.0, kept=3.0)]], [3, 1])
    assert found.dense == 5.0 and found.compute == (0.0, 1.0, 2.0, 3.0)
    assert found.kept.tolist() == [[1.0], [1.0], [1.0], [3.0]]
    assert found.traffic[TP].seconds.tolist() == [[2.0], [2.0], [2.0], [0.0]]
