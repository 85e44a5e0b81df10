"""Pipeline schedules: closed forms against the replay, published bubbles, and traces.

Names that recur: kind: schedule; p: pipeline stages; v: virtual stages per rank; m: micro-batches.
"""

import itertools
import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from roofcast.simulator.parallel.pipeline.replay import most_in_flight, replay, seconds
from roofcast.simulator.parallel.pipeline.schedule import (
    KINDS,
    Stages,
    in_flight,
    pipeline,
    possible,
    refusal,
)
from roofcast.simulator.parallel.pipeline.trace import length, trace

GRID = [  # p, v, m
    (1, 1, 1), (1, 1, 6), (2, 1, 2), (2, 2, 8), (3, 1, 7), (4, 1, 2), (4, 1, 8), (4, 3, 16),
    (6, 1, 24), (8, 1, 16), (8, 2, 32),
]  # fmt: skip
# seconds of a stage: forward, backward for inputs, backward for weights
SHAPES = [(1.0, 1.0, 1.0), (1.0, 1.1, 0.9), (1.0, 2.0, 1.0), (0.7, 0.9, 1.2)]
EXACT = ("none", "gpipe", "1f1b", "interleaved", "zb-h1", "sequential")


CASES = [(kind, *layout) for kind in KINDS for layout in GRID if not refusal(kind, *layout)]
# zb-h1 has an exact closed form if there are at least as many micro-batches as stages
EXACT_CASES = [c for c in CASES if c[0] in EXACT and (c[0] != "zb-h1" or c[3] >= c[1])]


@pytest.mark.parametrize("kind, p, v, m", EXACT_CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_closed_form_equals_the_replay_when_all_stages_are_equal(kind, p, v, m, shape):
    closed, replayed = (run(kind, Stages(*shape), p, v, m).total for run in (pipeline, replay))
    assert float(closed) == pytest.approx(replayed, rel=1e-9)


@pytest.mark.parametrize("kind, p, v, m", CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_micro_batch_runs_once_forward_and_once_backward_on_every_virtual_stage(
    kind, p, v, m, shape
):
    """Event names: F forward, B backward, D its inputs and W its weights, X forward and backward of
    two micro-batches at once.
    """
    names = [e.name for e in replay(kind, Stages(*shape), p, v, m).events]
    ops = [op for name in names for op in name.replace("D", "B").split("+")]
    parts = 2 * p if kind == "zb-v" else p * v
    expected = sorted(f"{i}.{part}" for i in range(m) for part in range(parts))
    for letters in ("FX", "B"):
        assert sorted(op[1:] for op in ops if op[0] in letters) == expected
    assert sum(n[0] == "W" for n in names) == sum(n[0] == "D" for n in names)


times = st.floats(0.1, 4)
ends = st.tuples(st.floats(-0.09, 3), st.floats(-0.09, 3), st.floats(0, 1))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(("gpipe", "1f1b", "sequential")), times, times, times, ends, ends,
    st.integers(1, 9), st.integers(1, 24), st.floats(0, 0.5),
)  # fmt: skip
def test_gpipe_and_1f1b_closed_forms_are_exact_for_any_time_of_the_first_and_last_stage(
    kind, f, d, w, first, last, p, m, p2p
):
    stages = Stages(f, d, w, first, last)
    closed, replayed = (run(kind, stages, p, 1, m, p2p).total for run in (pipeline, replay))
    assert float(closed) == pytest.approx(replayed, rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(
    st.floats(0.8, 2.5), st.floats(0, 0.3), st.floats(0, 2), st.integers(1, 8), st.integers(2, 4),
    st.integers(1, 4), st.floats(0, 0.1),
)  # fmt: skip
def test_interleaved_closed_form_is_exact_if_the_last_stage_takes_longest(
    ratio, embedding, more, p, v, rounds, p2p
):
    last = embedding + more
    excess = ((x, ratio * x, 0.0) for x in (embedding, last))
    stages = Stages(1.0 * v, ratio * v, 0.0, *excess)
    m = p * rounds
    # the last virtual stage sends nothing, so with a light head it would not take longest
    send = p2p if more * min(1.0, ratio) >= p2p else 0.0
    closed, replayed = (
        run("interleaved", stages, p, v, m, send).total for run in (pipeline, replay)
    )
    assert float(closed) == pytest.approx(replayed, rel=1e-9)


BOUND = {  # closed form / replay - 1, lowest and highest
    "interleaved": (-0.10, 1e-9),
    "zb-h1": (-0.04, 1e-9),
    "dualpipe": (-0.05, 0.11),
    "zb-v": (-0.16, 0.08),
}


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(tuple(BOUND)), st.floats(0.8, 2.2), st.floats(0.7, 1.1), st.floats(-0.2, 0.2),
    st.floats(-0.2, 0.6), st.integers(1, 4), st.integers(2, 4), st.integers(2, 5),
    st.floats(0, 0.05),
)  # fmt: skip
def test_approximate_closed_forms_stay_within_their_stated_error(
    kind, d, w, embedding, head, half, v, rounds, p2p
):
    p = 2 * half
    v = {"interleaved": v, "zb-v": 2}.get(kind, 1)
    m = p * rounds
    assume(not refusal(kind, p, v, m))
    excess = (tuple(x / v * part for part in (1.0, d, w)) for x in (embedding, head))
    stages = Stages(1.0, d, w, *excess)
    closed, replayed = (run(kind, stages, p, v, m, p2p).total for run in (pipeline, replay))
    error = float(closed) / replayed - 1.0
    assert BOUND[kind][0] <= error <= BOUND[kind][1]


# Bubble in seconds of p equal stages with f = 1, b = 1 for inputs, w = 1 for weights:
# 1F1B and interleaved [narayanan2021], sections 2.2.1 and 2.2.2
# zb-h1 [qi2023], table 2: (p - 1)(f + b - w)
# DualPipe [deepseek2024], table 2: (p/2 - 1)(F&B + B - 3W)
PUBLISHED = [
    ("gpipe", 1, lambda p, v: (p - 1) * 3),
    ("1f1b", 1, lambda p, v: (p - 1) * 3),
    ("interleaved", 2, lambda p, v: (p - 1) * 3 / v),
    ("interleaved", 4, lambda p, v: (p - 1) * 3 / v),
    ("zb-h1", 1, lambda p, v: p - 1),
    ("dualpipe", 1, lambda p, v: (p / 2 - 1) * (3 + 2 - 3)),
]


@pytest.mark.parametrize("kind, v, bubble", PUBLISHED)
@pytest.mark.parametrize("p", [2, 4, 8])
def test_bubbles_equal_the_published_ones_when_all_stages_are_equal(kind, v, bubble, p):
    m = 4 * p
    for run in (pipeline, replay):
        total = float(run(kind, Stages(1, 1, 1), p, v, m).total)
        assert total - 3 * m == pytest.approx(bubble(p, v))


def test_bubble_fraction_of_1f1b_is_p_minus_1_over_m_plus_p_minus_1():
    p, m = np.array([1.0, 4.0, 8.0]), 16.0
    assert pipeline("1f1b", Stages(1, 1, 1), p, 1, m).bubble == pytest.approx((p - 1) / (m + p - 1))


@pytest.mark.parametrize("kind, p, v, m", CASES)
def test_micro_batches_in_flight_per_stage_equal_those_of_the_replay(kind, p, v, m):
    replayed = most_in_flight(replay(kind, Stages(1, 1, 1), p, v, m))
    closed = in_flight(kind, p, v, m, np.arange(p))
    assert replayed == pytest.approx(closed.tolist())


@pytest.mark.parametrize("kind, p, v, m", CASES)
def test_closed_forms_of_arrays_of_layouts_equal_those_of_each_layout(kind, p, v, m):
    stages = Stages(1.0, 1.2, 0.8, (0.1, 0.1, 0.1), (0.3, 0.3, 0.2))
    many = pipeline(kind, stages, np.array([p, p]), np.array([v, v]), np.array([m, m]), 0.01)
    one = pipeline(kind, stages, p, v, m, 0.01)
    assert many.total.tolist() == [float(one.total)] * 2
    assert possible(kind, np.array([p]), v, m).tolist() == [True]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(CASES), times, times, times, st.floats(0, 0.5), st.floats(1, 2))
def test_slower_sends_or_slower_stages_never_make_a_step_faster(case, f, d, w, p2p, factor):
    kind, p, v, m = case
    base = pipeline(kind, Stages(f, d, w), p, v, m, p2p)
    slow_sends = pipeline(kind, Stages(f, d, w), p, v, m, p2p * factor)
    slow_stages = pipeline(kind, Stages(f * factor, d * factor, w * factor), p, v, m, p2p)
    assert slow_sends.total >= base.total * (1 - 1e-12)
    assert slow_stages.total >= base.total * (1 - 1e-12)
    assert base.exposed_p2p >= -1e-12 and -1e-9 <= base.bubble < 1


REFUSED = [  # kind, p, v, m; what the message suggests
    (("interleaved", 4, 2, 10), "12"),
    (("dualpipe", 3, 1, 12), "even"),
    (("1f1b", 4, 2, 8), "interleaved"),
    (("none", 2, 1, 8), "1f1b"),
    (("gpipes", 1, 1, 1), "gpipe"),
]


@pytest.mark.parametrize("layout, words", REFUSED)
def test_the_message_for_an_invalid_schedule_suggests_a_valid_one(layout, words):
    assert words in refusal(*layout)


def test_validity_of_a_schedule_by_arrays_agrees_with_the_message_for_one_layout():
    degrees = itertools.product((1, 2, 3, 4), (1, 2), (1, 4, 6, 8))
    for kind, (p, v, m) in itertools.product(KINDS, degrees):
        assert bool(possible(kind, p, v, m)) == (not refusal(kind, p, v, m)), (kind, p, v, m)


@pytest.mark.parametrize("kind, p, v, m", CASES)
def test_a_trace_is_valid_trace_event_json_and_as_long_as_the_step(kind, p, v, m):
    stages = Stages(1e-3, 1e-3, 1e-3, (1e-4, 1e-4, 0), (5e-4, 5e-4, 2e-4))
    run = replay(kind, stages, p, v, m, 2e-5)
    document = json.loads(json.dumps(trace(run.events)))
    assert set(document) == {"traceEvents", "displayTimeUnit"}
    threads, last = set(), {}
    for event in document["traceEvents"]:
        assert event["ph"] in "XM"
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int)
        assert isinstance(event["name"], str)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "process_sort_index", "thread_name")
            assert isinstance(event["args"], dict)
            if event["name"] == "thread_name":
                threads.add((event["pid"], event["tid"]))
    spans = sorted((e for e in document["traceEvents"] if e["ph"] == "X"), key=lambda e: e["ts"])
    for event in spans:
        assert event["ts"] >= 0 and event["dur"] > 0
        thread = event["pid"], event["tid"]
        assert thread in threads
        assert event["ts"] >= last.get(thread, 0.0) - 1e-6  # events of a thread do not overlap
        last[thread] = event["ts"] + event["dur"]
    assert length(document) == pytest.approx(run.total, rel=1e-12)
    assert len(spans) == len(run.events)


def test_a_replay_is_deterministic():
    stages = Stages(1.0, 1.3, 0.7)
    assert replay("zb-v", stages, 4, 2, 8, 0.1) == replay("zb-v", stages, 4, 2, 8, 0.1)


@pytest.mark.parametrize("kind, p, v, m", CASES)
def test_seconds_of_arrays_of_layouts_are_those_of_the_replay_of_each(kind, p, v, m):
    rng = np.random.default_rng(0)
    f, d, w, send = rng.uniform(0.1, 2.0, (4, 3))
    ends = tuple(rng.uniform(-0.05, 1.0, (3, 3)))
    found = seconds(kind, Stages(f, d, w, ends, ends), p, v, m, send)
    for i in range(3):
        own = tuple(e[i] for e in ends)
        one = replay(kind, Stages(f[i], d[i], w[i], own, own), p, v, m, send[i])
        assert found[i] == one.total


@pytest.mark.parametrize("kind, p, v", sorted({(kind, p, v) for kind, p, v, _ in CASES}))
def test_very_many_micro_batches_follow_from_fewer(kind, p, v, monkeypatch):
    rng = np.random.default_rng(1)
    f, d, w, send = rng.uniform(0.1, 2.0, (4, 2))
    ends = tuple(rng.uniform(-0.05, 1.0, (3, 2)))
    stages, many = Stages(f, d, w, ends, ends), 160 * p
    every = seconds(kind, stages, p, v, many, send)
    monkeypatch.setattr("roofcast.simulator.parallel.pipeline.replay.LONGEST", 128 * p * p)
    assert seconds(kind, stages, p, v, many, send) == pytest.approx(every, rel=2e-3)
    assert np.isfinite(seconds(kind, stages, p, v, 10**9 * p, send)).all()
