"""Rows of a search as they are shown: what a single load is told, ranked by that."""

import numpy as np
import pytest

from roofcast.simulator.serving.asked import Level, Serving
from roofcast.simulator.serving.chain import serve
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.search import search
from roofcast.simulator.serving.settled import POINTS, settled, spread

TOP = 3


def told(found, i):
    return serve(found.asked_of(i), replays=None)


@pytest.fixture(scope="module", params=["throughput", "ttft"])
def both(request):
    """Prompts that take most of the time, so that mean values do not hold."""
    load = Load(kind="concurrency", input_len=2000, output_len=60)
    asked = Serving(model="llama-3.1-8b", device="", devices=4, load=load)
    level = Level({"tpot": 0.08}, 90)
    found = search(asked, ["h100-sxm5"], None, request.param, level)
    return found, *settled(found, told, TOP)


def test_rows_that_are_shown_are_those_of_single_loads(both):
    before, found, shown = both
    assert shown.replayed and set(shown.replayed) <= {*shown.best, *shown.front, *shown.whole}
    for i in (*shown.best, *shown.front):
        f = told(found, i)
        row = {name: values[i] for name, values in found.rows.items()}
        assert row["ttft_s"] == pytest.approx(f.ttft_s.mean, rel=1e-9)
        assert row["output_tokens_per_s"] == pytest.approx(f.output_tokens_per_s, rel=1e-9)
        per_device = row["output_tokens_per_s_per_device"]
        low, high = (row[f"output_tokens_per_s_per_device_{end}"] for end in ("low", "high"))
        assert (low, high) == pytest.approx([x / 4 for x in f.output_tokens_per_s_range], rel=1e-9)
        assert low < per_device < high
    assert any(before.rows["ttft_s"][i] != found.rows["ttft_s"][i] for i in shown.best)


def test_rows_that_are_shown_hold_the_level_and_are_ranked(both):
    _, found, shown = both
    assert 0 < len(shown.best) <= TOP and np.all(found.rows["tpot_s"][shown.best] <= 0.08)
    column = "ttft_s" if found.goal == "ttft" else "output_tokens_per_s_per_device"
    values = found.rows[column][shown.best]
    assert np.all(np.diff(values) * (1 if found.goal == "ttft" else -1) >= 0)
    assert len({int(found.layout[i]) for i in shown.best}) == len(shown.best)


def test_no_shown_row_of_the_front_beats_another(both):
    _, found, shown = both
    assert 1 < len(shown.front) <= POINTS
    x, y = (
        found.rows[name][shown.front]
        for name in ("tokens_per_s_per_user", "output_tokens_per_s_per_device")
    )
    assert np.all(np.diff(x) < 0) and np.all(np.diff(y) > 0)


def test_the_search_itself_stays_as_it_is(both):
    before, found, shown = both
    plain = serve(before.asked_of(shown.best[0]), replays=False)
    assert before.rows["ttft_s"][shown.best[0]] == pytest.approx(plain.ttft_s.mean, rel=1e-9)
    assert found.rows is not before.rows


def test_some_points_of_a_front_have_both_ends():
    assert spread(list(range(25)), 4) == [0, 8, 16, 24]
    assert spread([3, 5], 10) == [3, 5]
