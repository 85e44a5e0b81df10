"""Layers distributed over pipeline stages, and the time of the first and the last stage."""

import numpy as np
import pytest

from roofcast import predict
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.parallel.dealing import deal, stages
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.parallel.passes import passes
from roofcast.simulator.parallel.pipeline.replay import replay
from roofcast.simulator.parallel.pipeline.schedule import pipeline
from roofcast.simulator.parallel.stages import Unit, units
from roofcast.simulator.parallel.step import ends

LLAMA = {
    "model": "llama-3-8b", "device": "h100-sxm5", "sequence": 2048, "batch": 64, "micro_batch": 1,
    "precision": "bf16",
}  # fmt: skip


# ---------------------------------------------------------------- layers to stages
def row(*counts):
    """Units without work, one per number of layers; 0: ops outside the layers."""
    ends = np.cumsum(counts)
    return [kind(*range(end - n, end)) for n, end in zip(counts, ends, strict=True)]


def kind(*places):
    """A unit without work whose layers stand at these places of the model."""
    nothing = np.zeros(4)
    sizes = (0.0,) * 7
    return Unit("layers", len(places), nothing, nothing, {}, *sizes, places=places)


LAYERS_OF_STAGES = [  # layers of the model, stages, layers of each stage
    (8, 4, [2, 2, 2, 2]),
    (10, 4, [2, 3, 3, 2]),
    (11, 4, [3, 3, 3, 2]),
    (11, 5, [2, 2, 3, 2, 2]),
    (4, 6, [0, 1, 1, 1, 1, 0]),
]


@pytest.mark.parametrize(("layers", "pp", "sizes"), LAYERS_OF_STAGES)
def test_layers_that_do_not_divide_evenly_go_to_the_middle_stages(layers, pp, sizes):
    """The first stage has the embedding beside its layers and the last one the head."""
    chunks = deal(row(0, layers, 0), Layout(pp=pp))
    assert [chunk.count(1) for chunk in chunks] == sizes
    assert [0 in chunk for chunk in chunks] == [True] + [False] * (pp - 1)
    assert [2 in chunk for chunk in chunks] == [False] * (pp - 1) + [True]


def test_more_pipeline_stages_than_layers_plus_two_are_rejected():
    with pytest.raises(BadInput, match="6 stages, but the model has 3 layers"):
        deal(row(0, 3, 0), Layout(pp=6))


@pytest.mark.parametrize(("pp", "empty"), [(8, 0), (16, 1)])
def test_layers_dealt_by_work_leave_no_stage_without_any(pp, empty):
    """Llama 1B: its head is a fifth of the work, so that 16 layers and the head fill 8 stages but
    not 16. Of 66 layouts of nanotron with 16 stages one ran (Ultra-Scale Playbook).
    """
    asked = {"stack": "nanotron", "sequence": 4096, "batch": 64, "micro_batch": 1, "pp": pp}
    if not empty:
        assert len(predict("llama-3.2-1b", "h100-sxm5", **asked).ranks) == pp
        return
    with pytest.raises(BadInput, match=f"pp {pp}: .* leave {empty} of {pp} stages"):
        predict("llama-3.2-1b", "h100-sxm5", **asked)


def test_layers_that_alternate_stay_in_their_order():
    alternating = [kind(), kind(0, 2, 4, 6), kind(1, 3, 5, 7), kind()]
    assert deal(alternating, Layout(pp=2)) == [[0, 1, 2, 1, 2], [1, 2, 1, 2, 3]]


def test_every_stage_of_layers_that_alternate_recomputes_half_of_them():
    """Local and global layers in turn: dealt by kind, one stage would recompute nothing."""
    asked = {"devices": 2, "pp": 2, "batch": 8}
    usual = predict("gemma-2-2b", "h100-sxm5", **asked).ranks
    half = predict("gemma-2-2b", "h100-sxm5", recompute="every:2", **asked).ranks
    for less, all_kept in zip(half, usual, strict=True):
        assert less.activations_bytes < 0.8 * all_kept.activations_bytes


def test_ops_between_two_kinds_of_layers_go_to_the_stage_of_the_second_kind():
    chunks = [sorted(chunk) for chunk in deal(row(0, 4, 0, 4, 0), Layout(pp=4))]
    assert chunks == [[0, 1, 1], [1, 1], [2, 3, 3], [3, 3, 4]]


def test_a_rank_of_an_interleaved_pipeline_holds_every_pth_virtual_stage():
    """[narayanan2021], section 2.2: of 8 virtual stages on 4 ranks the first rank has 1 and 5."""
    interleaved = Layout(pp=4, vpp=2, schedule="interleaved")
    assert stages(row(*[1] * 8), interleaved) == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_a_rank_of_a_v_schedule_holds_one_virtual_stage_of_each_half_of_the_model():
    """[qi2024]: the first rank has the first and the last virtual stage."""
    four, two = (Layout(pp=pp, vpp=2, schedule="zb-v") for pp in (4, 2))
    assert stages(row(*[1] * 8), four) == [[0, 7], [1, 6], [2, 5], [3, 4]]
    assert stages(row(*[1] * 4), two) == [[0, 3], [1, 2]]


# ---------------------------------------------------------------- the ends of a pipeline
# forward and backward seconds of four stages, embedding first, head and loss last
F, B = np.array([3.0, 2.0, 2.0, 5.0]), np.array([4.5, 4.0, 4.0, 10.0])


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "zb-h1", "zb-v", "dualpipe"])
def test_a_middle_stage_plus_the_excess_of_an_end_gives_the_time_of_that_end(schedule):
    """Weight gradients are the same fraction of the backward in every stage."""
    s = ends(schedule, F, B)
    middle = np.array([s.forward, s.inputs, s.weights])
    split = schedule not in ("gpipe", "1f1b")
    for excess, f, b in ((s.first, F[0], B[0]), (np.zeros(3), F[1], B[1]), (s.last, F[-1], B[-1])):
        forward, inputs, weights = middle + excess
        assert forward == pytest.approx(f) and inputs + weights == pytest.approx(b)
        assert weights / b == pytest.approx(s.weights / (s.inputs + s.weights))
        assert (weights > 0.0) == split


def test_weight_gradients_are_a_smaller_fraction_of_backward_time_than_of_its_flops():
    """A layer's backward has 24 b s h^2 FLOPs for weights and 24 b s h^2 + 8 b s^2 h for inputs
    ([qi2023], table 1); all its other ops are for inputs.
    """
    s = ends("zb-h1", F, B)
    h, tokens = 4096, 2048
    assert 0.0 < s.weights / (s.inputs + s.weights) < 24 * h / (48 * h + 8 * tokens)


def test_the_slowest_stage_between_the_ends_represents_all_of_them():
    f, b = np.array([1.0, 2.0, 3.0, 1.0]), np.array([2.0, 7.0, 5.0, 2.0])
    assert ends("1f1b", f, b) == (3.0, 7.0, 0.0, (-2.0, -5.0, 0.0), (-2.0, -5.0, 0.0))
    assert ends("1f1b", f[:1], b[:1]) == (1.0, 2.0, 0.0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))


def test_a_single_micro_batch_takes_the_sum_of_all_stages():
    """All forwards, then all backwards; in a split backward, the weight gradients of a stage follow
    its input gradients.
    """
    for schedule in ("gpipe", "1f1b"):
        s = ends(schedule, F, B)
        assert replay(schedule, s, 4, 1, 1).total == pytest.approx(F.sum() + B.sum())
        assert float(pipeline(schedule, s, 4, 1, 1).total) == pytest.approx(F.sum() + B.sum())
    s = ends("zb-h1", F, B)
    share = s.weights / (s.inputs + s.weights)
    after = [F.sum() + (1 - share) * B[i:].sum() + share * B[i] for i in range(4)]
    assert replay("zb-h1", s, 4, 1, 1).total == pytest.approx(max(after))


def test_a_zero_bubble_step_takes_at_least_the_work_of_its_slow_last_stage():
    """The last stage starts once the first micro-batch has arrived, then runs m of them in a row.

    The step exceeds that time by less than one backward of all stages.
    """
    m, s = 16, ends("zb-h1", F, B)
    least = F[:-1].sum() + m * (F[-1] + B[-1])
    assert least <= replay("zb-h1", s, 4, 1, m).total <= least + B.sum()


@pytest.mark.parametrize("schedule", ["zb-h1", "dualpipe"])
def test_a_step_under_a_split_backward_schedule_is_timed_by_the_replay(place, schedule):
    placed = place(**LLAMA, tp=1, dp=1, pp=4, schedule=schedule)
    rows, x = units(placed.at, placed.times), placed.at.layout
    run = passes(rows, placed.at)
    f, b = (
        np.array([sum(side[u] for u in stage) for stage in stages(rows, x)])
        for side in (run.forward, run.backward)
    )
    outcome = placed.outcome
    replayed = replay(schedule, ends(schedule, f, b), 4, 1, 64, outcome.pipe.hop)
    assert outcome.step_s - outcome.update_s == pytest.approx(replayed.total)
    # DualPipe: a rank holds stages i and p - 1 - i [deepseek2024]
    both = (f + b + (f + b)[::-1]) / 2 if schedule == "dualpipe" else f + b
    assert outcome.computing == pytest.approx(64 * both.max())
    assert outcome.alike == pytest.approx(64 * both.mean())
