"""Regret of layouts that are chosen on measured fronts of servers."""

import pytest

from roofcast.scenarios.measured.serving.forecasts import Scored
from roofcast.scenarios.measured.serving.fronts import choices, regrets
from roofcast.scenarios.measured.serving.predicted import Predicted


def scored(tp, tpot, rate, forecast_tpot, forecast_rate, **words):
    """A closed loop of tp devices: seconds per token and tokens/s, measured and forecast."""
    row = {
        "source_name": "A", "model": "m", "roofcast_device": "d", "n_devices": str(tp),
        "tp": str(tp), "load_kind": "concurrency", "tpot_s": str(tpot),
        "output_tokens_per_s": str(rate),
    }  # fmt: skip
    found = Predicted(tpot_s=forecast_tpot, output_tokens_per_s=forecast_rate)
    suspect = words.pop("suspect", "")
    return Scored(row | words, found, stack="vllm", suspect=suspect)


def test_the_best_forecast_layout_is_compared_with_the_best_measured_one():
    """Two devices reach 100 tokens/s each, one 80; forecasts have one ahead."""
    rows = [scored(1, 0.015, 80, 0.015, 120), scored(2, 0.015, 200, 0.015, 180)]
    of = {c.limit: c for c in choices(rows)}
    assert sorted(of) == [0.02, 0.03, 0.05, 0.1], "10 ms no layout holds"
    assert of[0.02].layout == "1 device" and of[0.02].best == "2 devices, tp 2"
    assert of[0.02].regret == pytest.approx(0.25)
    line = regrets(choices(rows))[-1]
    assert (line.source, line.fronts, line.chosen, line.same) == ("", 1, 4, 0.0)
    assert line.median == line.mean == line.worst == pytest.approx(0.25) and line.missed == 0


def test_a_choice_that_no_measured_run_holds_is_missed():
    rows = [
        scored(1, 0.04, 80, 0.018, 120), scored(2, 0.015, 200, 0.015, 180),
        scored(4, 0.015, 200, 0.015, 180),
    ]  # fmt: skip
    of = {c.limit: c for c in choices(rows)}
    assert of[0.02].regret is None and of[0.05].regret == pytest.approx(0.25)
    assert regrets(choices(rows))[0].missed == 2, "20 and 30 ms"


def test_forecasts_that_are_right_have_no_regret():
    """The best number of users of each layout within the limit counts."""
    rows = [
        scored(tp, tpot, tp * rate, tpot, tp * rate)
        for tp in (1, 2)
        for tpot, rate in ((0.009, 50 + 9 * tp), (0.019, 90 - 5 * tp))
    ]
    found = choices(rows)
    assert {c.limit: c.layout for c in found}[0.01] == "2 devices, tp 2"
    assert {c.limit: c.layout for c in found}[0.02] == "1 device"
    assert all(c.regret == 0.0 and c.layout == c.best for c in found)


def test_one_layout_other_lengths_other_loads_and_suspect_rows_are_no_front():
    one, two = scored(1, 0.015, 80, 0.015, 80), scored(2, 0.015, 80, 0.015, 80)
    assert not choices([one, one])
    for words in (
        {"input_len": "8"}, {"load_kind": "batch"}, {"suspect": "a repeat"}, {"model": "n"},
    ):  # fmt: skip
        row = scored(2, 0.015, 80, 0.015, 80, **words)
        assert not choices([one, row]), words
    assert choices([one, two]) and regrets([]) == []
