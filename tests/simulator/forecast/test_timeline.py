"""The timeline of a forecast step: its length, its streams and its events."""

import pytest

from roofcast import Scenario, predict
from roofcast.simulator.forecast.timeline import timeline
from roofcast.simulator.parallel.pipeline.trace import length, trace

ASKED = {
    "model": "llama-3-8b", "device": "h100-sxm5", "sequence": 2048, "batch": 16, "micro_batch": 1,
}  # fmt: skip
LAYOUTS = {
    "one device": {"batch": 1, "micro_batch": None},
    "recomputed": {"batch": 1, "micro_batch": None, "recompute": "full"},
    "data": {"devices": 8},
    "1f1b": {"devices": 8, "pp": 4, "tp": 2},
    "interleaved": {"devices": 4, "pp": 4, "vpp": 2},
    "gpipe": {"devices": 4, "pp": 4, "schedule": "gpipe"},
    "zb-h1": {"devices": 4, "pp": 4, "schedule": "zb-h1"},
    "zb-v": {"devices": 4, "pp": 4, "schedule": "zb-v"},
    "dualpipe": {"devices": 4, "pp": 4, "schedule": "dualpipe"},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_length_of_a_timeline_equals_the_forecast_step_time(layout):
    scenario = Scenario(**{**ASKED, **layout})
    step = predict(scenario).step_time_s
    assert length(trace(timeline(scenario))) == pytest.approx(step, rel=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_events_of_one_stream_do_not_overlap(layout):
    last = {}
    for e in sorted(timeline(Scenario(**{**ASKED, **layout})), key=lambda e: e.start):
        assert e.duration > 0 and e.start >= last.get((e.stage, e.stream), 0.0) - 1e-9
        last[e.stage, e.stream] = e.start + e.duration


def test_the_timeline_of_one_device_has_every_op_of_every_layer_by_name():
    events = timeline(Scenario(**{**ASKED, **LAYOUTS["one device"]}))
    names = [e.name for e in events if e.stream == "forward"]
    assert sum("mlp.up_proj" in name for name in names) == 32 and names[-1] == "loss"
