"""The timeline of a forecast step: its length, its streams and its events."""

import pytest

from roofcast import Scenario, predict
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.forecast.chain import placed
from roofcast.simulator.forecast.resolve import resolve
from roofcast.simulator.forecast.timeline import timeline
from roofcast.simulator.parallel.pipeline.trace import length, trace
from roofcast.simulator.parallel.reductions import reduction
from roofcast.simulator.parallel.stages import units
from roofcast.simulator.parallel.step import dealt
from roofcast.simulator.parallel.traffic import Placement, network

ASKED = {
    "model": "llama-3-8b", "device": "h100-sxm5", "sequence": 2048, "batch": 16, "micro_batch": 1,
}  # fmt: skip
LAYOUTS = {
    "one device": {"batch": 1, "micro_batch": None},
    "recomputed": {"batch": 1, "micro_batch": None, "recompute": "full"},
    "data": {"devices": 8},
    "tensor": {"devices": 8, "tp": 8, "batch": 2},
    "zero 1": {"devices": 8, "zero": 1, "batch": 8},
    "zero 3": {"devices": 8, "zero": 3, "batch": 8},
    "tensor and zero 3": {"devices": 8, "tp": 2, "zero": 3},
    "context": {"devices": 4, "cp": 4, "batch": 2},
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


SENT = {  # layout: stream -> kind of exposed communication
    "tensor": {"tensor parallel": "tensor"},
    "zero 1": {"data parallel": "data"},
    "data": {"data parallel": "data"},
    "zero 3": {"ZeRO 3": "sharded weights"},
    "tensor and zero 3": {"tensor parallel": "tensor", "ZeRO 3": "sharded weights"},
    "context": {"context parallel": "context"},
    "1f1b": {"tensor parallel": "tensor"},
}


@pytest.mark.parametrize("layout", SENT)
def test_what_ranks_send_is_a_stream_of_each_kind(layout):
    scenario = Scenario(**{**ASKED, **LAYOUTS[layout]})
    events, exposed = timeline(scenario), predict(scenario).exposed_communication_s
    for stream, kind in SENT[layout].items():
        sent = sum(e.duration for e in events if e.stream == stream and e.stage == 0)
        assert sent > 0 and sent >= 0.99 * exposed.get(kind, 0.0)


@pytest.mark.parametrize("layout", [name for name in SENT if name != "1f1b"])
def test_compute_waits_for_as_long_as_communication_is_exposed(layout):
    scenario = Scenario(**{**ASKED, **LAYOUTS[layout]})
    events, forecast = timeline(scenario), predict(scenario)
    compute = sum(e.duration for e in events if e.stream == "compute")
    waits = sum(forecast.exposed_communication_s.values())
    assert compute + waits == pytest.approx(forecast.step_time_s, rel=1e-3)


def test_a_send_lies_beside_the_layer_it_belongs_to():
    events = timeline(Scenario(**{**ASKED, **LAYOUTS["tensor"]}))
    names = {e.name for e in events if e.stream == "compute"}
    sends = [e for e in events if e.stream == "tensor parallel"]
    assert len(sends) >= 2 * 2 * 32  # micro-batches, passes, layers
    assert {e.name.removeprefix("send ") for e in sends} <= names
    assert len({e.name for e in sends}) == len(sends)


def laid_out(scenario):
    """A placed rank of a scenario and its units."""
    asked = resolve(scenario)
    at, x = placed(asked), asked.layout
    place = Placement(at.step, asked.device, x, network(x, at.fabric))
    return place, units(place, at.times)


def streamed(scenario, stream, stage=0):
    """Seconds of the events of a stream of one stage."""
    return sum(e.duration for e in timeline(scenario) if (e.stage, e.stream) == (stage, stream))


def test_stages_send_what_the_layers_send_that_the_stack_deals_them():
    """nanotron deals layers by work: the stage of a large head has fewer."""
    scenario = Scenario(
        model="llama-3.2-1b", device="h100-sxm5", stack="nanotron", sequence=2048, batch=4,
        micro_batch=1, tp=2, pp=2, devices=4,
    )  # fmt: skip
    place, rows = laid_out(scenario)
    members = dealt(place, rows)
    assert len(members[0]) > len(members[1])
    for stage, mine in enumerate(members):
        sent = sum(
            float(cost.seconds)
            for u in mine
            for (_, group, _), cost in rows[u].traffic.items()
            if group == "tp"
        )
        assert streamed(scenario, "tensor parallel", stage) == pytest.approx(4 * sent, rel=1e-6)


def test_frozen_weights_have_no_gradients_to_reduce():
    """The positions of Whisper's encoder are frozen."""
    scenario = Scenario(model="whisper-tiny", device="h100-sxm5", batch=8, dp=8, zero=0)
    place, rows = laid_out(scenario)
    mine = [rows[u] for u in dealt(place, rows)[0]]
    trained, weights = (sum(getattr(u, what) for u in mine) for what in ("trained", "dense"))
    assert trained < weights
    expected = float(reduction(place, trained, 0.0).both.seconds)
    assert streamed(scenario, "data parallel") == pytest.approx(expected)


def test_a_trace_of_more_passes_than_a_viewer_shows_is_refused():
    scenario = Scenario(model="gpt2", device="h100-sxm5", batch=10**9, micro_batch=1)
    with pytest.raises(BadInput, match="at most 30,000: give a smaller --batch"):
        timeline(scenario)
