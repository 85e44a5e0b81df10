"""Closed forms against the replay, published bubbles, and what a trace must be."""

import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from roofcast.simulator.parallel.pipeline.replay import most_in_flight, replay
from roofcast.simulator.parallel.pipeline.schedule import (
    KINDS,
    Stages,
    in_flight,
    pipeline,
    possible,
    refusal,
)
from roofcast.simulator.parallel.pipeline.trace import length, trace

GRID = [
    (1, 1, 1),
    (1, 1, 6),
    (2, 1, 2),
    (2, 2, 8),
    (3, 1, 7),
    (4, 1, 2),
    (4, 1, 8),
    (4, 3, 16),
    (6, 1, 24),
    (8, 1, 16),
    (8, 2, 32),
]
SHAPES = [(1.0, 1.0, 1.0), (1.0, 1.1, 0.9), (1.0, 2.0, 1.0), (0.7, 0.9, 1.2)]
EXACT = ("none", "gpipe", "1f1b", "interleaved", "zb-h1")


def runs(kind):
    return [(p, v, m) for p, v, m in GRID if not refusal(kind, p, v, m)]


CASES = [(kind, *layout) for kind in KINDS for layout in runs(kind)]


@pytest.mark.parametrize(
    "kind, p, v, m", [c for c in CASES if c[0] in EXACT and (c[0] != "zb-h1" or c[3] >= c[1])]
)
@pytest.mark.parametrize("shape", SHAPES)
def test_closed_form_is_the_replay_where_stages_are_alike(kind, p, v, m, shape):
    assert float(pipeline(kind, Stages(*shape), p, v, m).total) == pytest.approx(
        replay(kind, Stages(*shape), p, v, m).total, rel=1e-9
    )


@pytest.mark.parametrize("kind, p, v, m", CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_part_of_every_micro_batch_runs_once_forward_and_once_backward(kind, p, v, m, shape):
    names = [e.name for e in replay(kind, Stages(*shape), p, v, m).events]
    done = sorted(
        half for name in names for half in name.replace("D", "B").split("+") if half[0] in "FXB"
    )
    parts = 2 * p if kind == "zb-v" else p * v
    wanted = [f"{i}.{part}" for i in range(m) for part in range(parts)]
    for letters in ("FX", "B"):
        assert sorted(x[1:] for x in done if x[0] in letters) == sorted(wanted)
    assert sum(n[0] == "W" for n in names) == sum(n[0] == "D" for n in names)


times = st.floats(0.1, 4)
ends = st.tuples(st.floats(-0.09, 3), st.floats(-0.09, 3), st.floats(0, 1))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(("gpipe", "1f1b")),
    times,
    times,
    times,
    ends,
    ends,
    st.integers(1, 9),
    st.integers(1, 24),
    st.floats(0, 0.5),
)
def test_gpipe_and_1f1b_are_exact_whatever_the_ends_take(kind, f, d, w, first, last, p, m, p2p):
    stages = Stages(f, d, w, first, last)
    assert float(pipeline(kind, stages, p, 1, m, p2p).total) == pytest.approx(
        replay(kind, stages, p, 1, m, p2p).total, rel=1e-9
    )


@settings(max_examples=100, deadline=None)
@given(
    st.floats(0.8, 2.5),
    st.floats(0, 0.3),
    st.floats(0, 2),
    st.integers(1, 8),
    st.integers(2, 4),
    st.integers(1, 4),
    st.floats(0, 0.1),
)
def test_interleaved_is_exact_where_the_head_takes_longest(
    ratio, embedding, more, p, v, rounds, p2p
):
    last = embedding + more
    stages = Stages(
        1.0 * v, ratio * v, 0.0, (embedding, ratio * embedding, 0.0), (last, ratio * last, 0.0)
    )
    m = p * rounds
    # the last part sends nothing on: under a light head it would be the shorter
    send = p2p if more * min(1.0, ratio) >= p2p else 0.0
    closed, replayed = (
        run("interleaved", stages, p, v, m, send).total for run in (pipeline, replay)
    )
    assert float(closed) == pytest.approx(replayed, rel=1e-9)


BOUND = {
    "interleaved": (-0.10, 1e-9),
    "zb-h1": (-0.04, 1e-9),
    "dualpipe": (-0.05, 0.11),
    "zb-v": (-0.16, 0.08),
}


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(tuple(BOUND)),
    st.floats(0.8, 2.2),
    st.floats(0.7, 1.1),
    st.floats(-0.2, 0.2),
    st.floats(-0.2, 0.6),
    st.integers(1, 4),
    st.integers(2, 4),
    st.integers(2, 5),
    st.floats(0, 0.05),
)
def test_the_other_closed_forms_stay_within_their_bound(
    kind, d, w, embedding, head, half, v, rounds, p2p
):
    p = 2 * half
    v = {"interleaved": v, "zb-v": 2}.get(kind, 1)
    m = p * rounds
    assume(not refusal(kind, p, v, m))
    stages = Stages(
        1.0, d, w, *(tuple(x / v * part for part in (1.0, d, w)) for x in (embedding, head))
    )
    error = (
        float(pipeline(kind, stages, p, v, m, p2p).total) / replay(kind, stages, p, v, m, p2p).total
        - 1.0
    )
    assert BOUND[kind][0] <= error <= BOUND[kind][1]


PUBLISHED = [  # bubble seconds, of p stages at f = 1, b = 1 for inputs, w = 1 for weights
    ("gpipe", 1, lambda p, v: (p - 1) * 3),
    ("1f1b", 1, lambda p, v: (p - 1) * 3),  # narayanan2021, section 2.2.1
    ("interleaved", 2, lambda p, v: (p - 1) * 3 / v),
    ("interleaved", 4, lambda p, v: (p - 1) * 3 / v),  # narayanan2021, section 2.2.2
    ("zb-h1", 1, lambda p, v: p - 1),  # qi2023, table 2: (p - 1)(f + b - w)
    (
        "dualpipe",
        1,
        lambda p, v: (p / 2 - 1) * (3 + 2 - 3),
    ),  # deepseek2024, table 2: (p/2 - 1)(F&B + B - 3W)
]


@pytest.mark.parametrize("kind, v, bubble", PUBLISHED)
@pytest.mark.parametrize("p", [2, 4, 8])
def test_published_bubbles(kind, v, bubble, p):
    m = 4 * p
    for total in (
        float(pipeline(kind, Stages(1, 1, 1), p, v, m).total),
        replay(kind, Stages(1, 1, 1), p, v, m).total,
    ):
        assert total - 3 * m == pytest.approx(bubble(p, v))


def test_bubble_of_1f1b_is_its_share_of_the_step():
    p, m = np.array([1.0, 4.0, 8.0]), 16.0
    assert pipeline("1f1b", Stages(1, 1, 1), p, 1, m).bubble == pytest.approx((p - 1) / (m + p - 1))


@pytest.mark.parametrize("kind, p, v, m", CASES)
def test_what_is_kept_in_flight(kind, p, v, m):
    got = most_in_flight(replay(kind, Stages(1, 1, 1), p, v, m))
    want = in_flight(kind, p, v, m, np.arange(p))
    assert got == pytest.approx(want.tolist())


@pytest.mark.parametrize("kind, p, v, m", CASES)
def test_arrays_of_layouts_are_the_layouts_one_by_one(kind, p, v, m):
    stages = Stages(1.0, 1.2, 0.8, (0.1, 0.1, 0.1), (0.3, 0.3, 0.2))
    many = pipeline(kind, stages, np.array([p, p]), np.array([v, v]), np.array([m, m]), 0.01)
    one = pipeline(kind, stages, p, v, m, 0.01)
    assert many.total.tolist() == [float(one.total)] * 2
    assert possible(kind, np.array([p]), v, m).tolist() == [True]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(CASES), times, times, times, st.floats(0, 0.5), st.floats(1, 2))
def test_slower_sends_and_slower_stages_never_end_earlier(case, f, d, w, p2p, factor):
    kind, p, v, m = case
    base = pipeline(kind, Stages(f, d, w), p, v, m, p2p)
    assert pipeline(kind, Stages(f, d, w), p, v, m, p2p * factor).total >= base.total * (1 - 1e-12)
    assert pipeline(
        kind, Stages(f * factor, d * factor, w * factor), p, v, m, p2p
    ).total >= base.total * (1 - 1e-12)
    assert base.exposed_p2p >= -1e-12 and -1e-9 <= base.bubble < 1


REFUSED = [
    (("interleaved", 4, 2, 10), "12"),
    (("dualpipe", 3, 1, 12), "even"),
    (("1f1b", 4, 2, 8), "interleaved"),
    (("none", 2, 1, 8), "1f1b"),
    (("gpipes", 1, 1, 1), "gpipe"),
]


@pytest.mark.parametrize("layout, words", REFUSED)
def test_a_refusal_says_what_would_do(layout, words):
    assert words in refusal(*layout)


def test_possible_is_where_nothing_is_refused():
    for kind in KINDS:
        for p in (1, 2, 3, 4):
            for v in (1, 2):
                for m in (1, 4, 6, 8):
                    assert bool(possible(kind, p, v, m)) == (not refusal(kind, p, v, m)), (
                        kind,
                        p,
                        v,
                        m,
                    )


@pytest.mark.parametrize("kind, p, v, m", CASES)
def test_a_trace_is_what_perfetto_reads_and_as_long_as_the_step(kind, p, v, m):
    run = replay(kind, Stages(1e-3, 1e-3, 1e-3, (1e-4, 1e-4, 0), (5e-4, 5e-4, 2e-4)), p, v, m, 2e-5)
    document = json.loads(json.dumps(trace(run.events)))
    assert set(document) == {"traceEvents", "displayTimeUnit"}
    named, last = set(), {}
    spans = sorted((e for e in document["traceEvents"] if e["ph"] == "X"), key=lambda e: e["ts"])
    for event in document["traceEvents"]:
        assert (
            event["ph"] in "XM"
            and isinstance(event["pid"], int)
            and isinstance(event["tid"], int)
            and isinstance(event["name"], str)
        )
        if event["ph"] == "M":
            assert event["name"] in (
                "process_name",
                "process_sort_index",
                "thread_name",
            ) and isinstance(event["args"], dict)
            if event["name"] == "thread_name":
                named.add((event["pid"], event["tid"]))
    for event in spans:
        assert event["ts"] >= 0 and event["dur"] > 0
        where = event["pid"], event["tid"]
        assert where in named and event["ts"] >= last.get(where, 0.0) - 1e-6
        last[where] = event["ts"] + event["dur"]
    assert length(document) == pytest.approx(run.total, rel=1e-12)
    assert len(spans) == len(run.events)


def test_a_replay_repeats_itself():
    stages = Stages(1.0, 1.3, 0.7)
    assert replay("zb-v", stages, 4, 2, 8, 0.1) == replay("zb-v", stages, 4, 2, 8, 0.1)
