"""How layers are distributed over pipeline stages, and what the ends of a pipeline take."""

import numpy as np
import pytest

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.parallel.pipeline.replay import replay
from roofcast.simulator.parallel.pipeline.schedule import pipeline
from roofcast.simulator.parallel.stages import Unit, deal, passes, stages, units
from roofcast.simulator.parallel.step import ends

GPT2 = {
    "model": "gpt2",
    "device": "h100-sxm5",
    "sequence": 256,
    "batch": 64,
    "micro_batch": 1,
    "precision": "bf16",
    "dp": 2,
}
LLAMA = {**GPT2, "model": "llama-3-8b", "sequence": 2048, "tp": 2}
MIXTRAL = {**GPT2, "model": "mixtral-8x7b", "dp": 16, "ep": 8, "stack": "te-nemo-2024"}


def unit(count=1, compute=(0, 0, 0, 0), host=(0, 0, 0, 0), traffic=None, **more):
    sizes = {"dense": 0.0, "expert": 0.0, "kept": 0.0, "largest": 0.0, "inside": 0.0, **more}
    return Unit(
        "layers", count, np.array(compute, float), np.array(host, float), traffic or {}, **sizes
    )


# ---------------------------------------------------------------- dealing
def row(*counts):
    """Units with so many layers each, 0 for what is no layer."""
    return [unit(count=n) for n in counts]


@pytest.mark.parametrize(
    ("layers", "pp", "sizes"),
    [
        (8, 4, [2, 2, 2, 2]),
        (10, 4, [2, 3, 3, 2]),
        (11, 4, [3, 3, 3, 2]),
        (11, 5, [2, 2, 3, 2, 2]),
        (4, 6, [0, 1, 1, 1, 1, 0]),
    ],
)
def test_layers_left_over_go_to_the_middle(layers, pp, sizes):
    """The first stage has the embedding beside its layers and the last one the head."""
    dealt = deal(row(0, layers, 0), Layout(pp=pp))
    assert [stage.count(1) for stage in dealt] == sizes
    assert [0 in stage for stage in dealt] == [True] + [False] * (pp - 1)
    assert [2 in stage for stage in dealt] == [False] * (pp - 1) + [True]


def test_more_stages_than_layers_and_ends_are_refused():
    with pytest.raises(BadInput, match="6 stages, but the model has 3 layers"):
        deal(row(0, 3, 0), Layout(pp=6))


def test_what_stands_between_two_kinds_of_layers_goes_with_the_second():
    assert [sorted(stage) for stage in deal(row(0, 4, 0, 4, 0), Layout(pp=4))] == [
        [0, 1, 1],
        [1, 1],
        [2, 3, 3],
        [3, 3, 4],
    ]


def test_a_rank_of_an_interleaved_pipeline_holds_every_pth_part():
    """[narayanan2021], section 2.2: of 8 parts on 4 ranks the first has parts 1 and 5."""
    assert stages(row(*[1] * 8), Layout(pp=4, vpp=2, schedule="interleaved")) == [
        [0, 4],
        [1, 5],
        [2, 6],
        [3, 7],
    ]


def test_a_rank_of_a_v_holds_a_part_on_the_way_down_and_one_on_the_way_up():
    """[qi2024]: the first rank has the first and the last part, so both ends of the model."""
    assert stages(row(*[1] * 8), Layout(pp=4, vpp=2, schedule="zb-v")) == [
        [0, 7],
        [1, 6],
        [2, 5],
        [3, 4],
    ]
    assert stages(row(*[1] * 4), Layout(pp=2, vpp=2, schedule="zb-v")) == [[0, 3], [1, 2]]


# ---------------------------------------------------------------- the ends of a pipeline
# embedding first, head and loss last
F, B = (np.array([3.0, 2.0, 2.0, 5.0]), np.array([4.5, 4.0, 4.0, 10.0]))


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "zb-h1", "zb-v", "dualpipe"])
def test_the_ends_of_a_pipeline_take_all_their_time(schedule):
    """Middle + what an end takes beyond it = what was measured of that stage, and of every stage
    the same share is for weights.
    """
    s = ends(schedule, F, B)
    middle = np.array([s.forward, s.inputs, s.weights])
    split = schedule not in ("gpipe", "1f1b")
    for beyond, f, b in ((s.first, F[0], B[0]), (np.zeros(3), F[1], B[1]), (s.last, F[-1], B[-1])):
        forward, inputs, weights = middle + beyond
        assert forward == pytest.approx(f) and inputs + weights == pytest.approx(b)
        assert (
            weights / b == pytest.approx(s.weights / (s.inputs + s.weights))
            and (weights > 0.0) == split
        )


def test_the_share_of_weights_in_a_backward_is_below_that_of_its_products():
    """A layer's backward has 24 b s h^2 FLOPs for weights and 24 b s h^2 + 8 b s^2 h for inputs
    ([qi2023], table 1), and all that is no product is for inputs.
    """
    s = ends("zb-h1", F, B)
    h, tokens = 4096, 2048
    assert 0.0 < s.weights / (s.inputs + s.weights) < 24 * h / (48 * h + 8 * tokens)


def test_of_stages_between_the_ends_the_slowest_stands_for_all():
    f, b = np.array([1.0, 2.0, 3.0, 1.0]), np.array([2.0, 7.0, 5.0, 2.0])
    assert ends("1f1b", f, b) == (3.0, 7.0, 0.0, (-2.0, -5.0, 0.0), (-2.0, -5.0, 0.0))
    assert ends("1f1b", f[:1], b[:1]) == (1.0, 2.0, 0.0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))


def test_one_micro_batch_passes_every_stage_once():
    """Down through all forwards and up through all backwards; where the backward is split, a
    stage's weights follow its own inputs'.
    """
    for schedule in ("gpipe", "1f1b"):
        assert replay(schedule, ends(schedule, F, B), 4, 1, 1).total == pytest.approx(
            F.sum() + B.sum()
        )
        assert float(pipeline(schedule, ends(schedule, F, B), 4, 1, 1).total) == pytest.approx(
            F.sum() + B.sum()
        )
    s = ends("zb-h1", F, B)
    share = s.weights / (s.inputs + s.weights)
    after = [F.sum() + (1 - share) * B[i:].sum() + share * B[i] for i in range(4)]
    assert replay("zb-h1", s, 4, 1, 1).total == pytest.approx(max(after))


def test_a_busy_last_stage_of_a_split_backward_holds_the_step_up():
    """m micro-batches of the head's stage one after the other, after the first has come down to it:
    nothing ends sooner.
    """
    m, s = 16, ends("zb-h1", F, B)
    least = F[:-1].sum() + m * (F[-1] + B[-1])
    assert least <= replay("zb-h1", s, 4, 1, m).total <= least + B.sum()


@pytest.mark.parametrize("schedule", ["zb-h1", "dualpipe"])
def test_a_step_of_a_split_backward_is_the_replays(place, schedule):
    placed = place(**{**LLAMA, "tp": 1, "dp": 1}, pp=4, schedule=schedule)
    us, x = units(placed.at, placed.times), placed.at.layout
    run = passes(us, placed.at)
    f, b = (
        np.array([sum(side[u] for u in stage) for stage in stages(us, x)])
        for side in (run.forward, run.backward)
    )
    hop = placed.outcome.pipe.hop
    assert placed.outcome.step_s - placed.outcome.update_s == pytest.approx(
        replay(schedule, ends(schedule, f, b), 4, 1, 64, hop).total
    )
    # [deepseek2024]: a rank holds stages i and p - 1 - i
    both = (f + b + (f + b)[::-1]) / 2 if schedule == "dualpipe" else f + b
    assert placed.outcome.computing == pytest.approx(
        64 * both.max()
    ) and placed.outcome.alike == pytest.approx(64 * both.mean())
