"""Layers with their seconds and traffic: nothing is lost on the way to the stages; what a stage
waits for; how stages are dealt.
"""

from collections import Counter

import msgspec
import numpy as np
import pytest

from roofcast.hwdb.constants import kernels
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.parallel.pipeline.replay import replay
from roofcast.simulator.parallel.pipeline.schedule import pipeline
from roofcast.simulator.parallel.stages import (
    PHASES,
    Unit,
    deal,
    exchanged,
    passes,
    repeated,
    stages,
    units,
)
from roofcast.simulator.parallel.step import ends
from roofcast.simulator.parallel.traffic import Cost
from roofcast.simulator.times.dispatch import dispatch, token_counts
from roofcast.simulator.times.host import slowness
from roofcast.simulator.times.offload import link

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


def total(us, value):
    """Over all repetitions."""
    return sum(value(u) * max(u.count, 1) for u in us)


# ---------------------------------------------------------------- units
@pytest.mark.parametrize(
    "asked",
    [GPT2, {**LLAMA, "recompute": "full"}, MIXTRAL, {**GPT2, "device": "xeon"}],
    ids=["gpt2", "llama", "mixtral", "cpu"],
)
def test_units_hold_the_whole_step_once(place, asked):
    placed = place(**asked)
    step, us = placed.at.step, units(placed.at, placed.times)
    own, host = placed.times.seconds, dispatch(step, placed.at.device, kernels())
    together = placed.at.device.kind == "cpu"  # where one machine computes and dispatches
    for i, phase in enumerate(PHASES):
        here = np.array([k.phase == phase for k in step.kernels])
        # 32 layers of experts
        sync = (
            token_counts(step.recipe.stack, placed.at.device, kernels()) * 32
            if "ep" in asked and i < 2
            else 0.0
        )
        assert total(us, lambda u, i=i: u.compute[i]) == pytest.approx(
            (own + host * together)[here].sum()
        )
        exchanges = sum(
            seconds for _, when, seconds in exchanged(step, placed.at.device) if when == i
        )
        assert total(us, lambda u, i=i: u.host[i]) == pytest.approx(
            (host[here].sum() + exchanges) * (not together) + sync
        )
    assert total(us, lambda u: u.dense + u.expert) == step.parameters
    assert total(us, lambda u: u.expert) == sum(w.size * w.count for w in step.weights if w.expert)
    assert total(us, lambda u: u.kept) == pytest.approx(sum(s.bytes * s.count for s in step.saved))
    assert total(us, lambda u: u.inside) == pytest.approx(
        sum(s.bytes * s.count for s in step.counted)
    )


def test_each_exchange_of_a_tensor_parallel_layer_costs_the_host_a_share_of_a_launch(place):
    """Two all-reduces forward, two backward and, under full recomputation, two again in each of 32
    layers, and those of embedding and head; none under CUDA graphs.
    """
    placed = place(**LLAMA, recompute="full", sp=False)
    stack, device = placed.at.step.recipe.stack, placed.at.device
    once = kernels().host.collective * stack.dispatch_s * float(slowness(device.year, kernels()))
    seconds = {
        phase: sum(s for _, when, s in exchanged(placed.at.step, device) if when == i)
        for i, phase in enumerate(PHASES)
    }
    assert seconds["recompute"] == pytest.approx(2 * 32 * once) and seconds["update"] == 0.0
    assert 2 * 32 * once <= seconds["forward"] <= (2 * 32 + 4) * once
    assert 2 * 32 * once <= seconds["backward"] / stack.dispatch_backward <= (2 * 32 + 4) * once
    recipe = msgspec.structs.replace(
        placed.at.step.recipe, stack=msgspec.structs.replace(stack, graphs=True)
    )
    graphs = placed.at.step._replace(recipe=recipe)
    assert not sum(s for _, _, s in exchanged(graphs, device))


def test_what_a_layer_keeps_without_recomputation_is_its_inside_under_it(place):
    plain, full = (
        {u.name: u for u in units(p.at, p.times)}
        for p in (place(**LLAMA, recompute=r) for r in ("none", "full"))
    )
    layers = [name for name, u in plain.items() if u.count > 1]
    assert layers
    for name in layers:
        assert plain[name].kept == plain[name].inside == full[name].inside > full[name].kept


def test_the_largest_tensors_of_a_llama_layer_are_those_of_its_gated_product(place):
    """gate and up go in, their product comes out: three of s x 14336 / tp numbers of 16 bits; of a
    head, its logits count.
    """
    placed = place(**LLAMA)
    (layers,) = [u for u in units(placed.at, placed.times) if u.count]
    assert layers.largest == 3 * 2048 * 14336 / 2 * 2
    assert layers.count == 32 and layers.name == "model.layers"


def test_a_layers_traffic_is_the_steps_over_its_layers(place):
    placed = place(**LLAMA)
    sent, wanted = Counter(), Counter()
    for u in units(placed.at, placed.times):
        for (phase, group, _), cost in u.traffic.items():
            sent[phase, group] += cost.bytes * max(u.count, 1)
    for tr in placed.at.step.traffic:
        n = {"all_reduce": 2.0}.get(tr.kind, 1.0) * (1 - 1 / 2)  # over two ranks
        wanted[tr.phase, tr.group] += n * tr.bytes * tr.count
    assert sent == pytest.approx(wanted) and set(sent) == {("forward", "tp"), ("backward", "tp")}


@pytest.mark.parametrize(
    ("recompute", "share"), [("none", 0.0), ("full", 1.0), ("every:2", 1 / 2), ("block:8", 1 / 4)]
)
def test_traffic_of_a_forward_is_sent_again_as_often_as_its_layer_is_made_again(
    place, recompute, share
):
    """Of 32 layers."""
    placed = place(**LLAMA, recompute=recompute)
    (layers,) = [u for u in units(placed.at, placed.times) if u.count]
    sent = Counter()
    for (phase, _, _), cost in layers.traffic.items():
        sent[phase] += cost.bytes
    assert sent["recompute"] == pytest.approx(share * sent["forward"]) and sent["forward"] > 0.0
    assert set(repeated(placed.at.step).values()) == ({share} if share else set())


def test_one_copy_of_a_token_crosses_the_network_where_the_stack_sends_it_so(place):
    placed = place(**MIXTRAL, etp=2)  # so that the ranks of other experts lie in two nodes
    plain = dict(placed.at.step.recipe.stack.implementations)
    assert plain.pop("dispatch") == "deduplicated"
    once, twice = (
        waiting(p, "ep") for p in (placed.at, with_stack(placed.at, implementations=plain))
    )
    assert once < twice


def waiting(at, group):
    """Seconds of what a layer sends over the group, forward."""
    (layers,) = [u for u in units(at, nothing(at)) if u.count]
    return float(
        sum(
            c.seconds
            for (phase, g, _), c in layers.traffic.items()
            if (phase, g) == ("forward", group)
        )
    )


def nothing(at):
    """Times of kernels that take none."""

    class Free:
        seconds = np.zeros(len(at.step.kernels))

    return Free


def with_stack(at, **changes):
    """The placement under a changed stack."""
    stack = msgspec.structs.replace(at.step.recipe.stack, **changes)
    return at._replace(
        step=at.step._replace(recipe=msgspec.structs.replace(at.step.recipe, stack=stack))
    )


# ---------------------------------------------------------------- passes
def unit(count=1, compute=(0, 0, 0, 0), host=(0, 0, 0, 0), traffic=None, **more):
    sizes = {"dense": 0.0, "expert": 0.0, "kept": 0.0, "largest": 0.0, "inside": 0.0, **more}
    return Unit(
        "layers", count, np.array(compute, float), np.array(host, float), traffic or {}, **sizes
    )


def test_an_update_takes_the_longer_of_device_and_host_and_no_more_than_both():
    for device, host in ((1.0, 1e-6), (1e-6, 1.0), (1.0, 1.0)):
        seconds = unit(compute=(9, 9, 9, device), host=(9, 9, 9, host)).update
        assert max(device, host) <= seconds <= device + host


def test_a_backward_makes_the_forward_again_on_device_and_host(place):
    at = place(**GPT2).at
    for own in ("compute", "host"):
        run = passes([unit(**{own: (1, 2, 4, 8)})], at)
        assert run.forward[0] == pytest.approx(1.0) and run.backward[0] == pytest.approx(2.0 + 4.0)


@pytest.mark.parametrize("group", ["tp", "ep", "etp", "cp"])
def test_traffic_inside_the_model_waits_and_that_of_a_recomputed_forward_again(place, group):
    """Nothing of it hides unless the stack says so: compute and traffic add up."""
    at = place(**GPT2).at
    sent = {"forward": Cost(5.0, 10.0), "backward": Cost(6.0, 20.0), "recompute": Cost(5.0, 10.0)}
    run = passes(
        [
            unit(
                count=3,
                compute=(1, 2, 4, 8),
                traffic={(phase, group, False): c for phase, c in sent.items()},
            )
        ],
        at,
    )
    assert run.forward[0] == pytest.approx(1 + 5) and run.backward[0] == pytest.approx(
        2 + 4 + 6 + 5
    )
    assert run.sent == {group: pytest.approx(3 * 40.0)} and run.exposed == {
        group: pytest.approx(3 * 16.0)
    }  # of three layers


def test_traffic_behind_a_slower_host_exposes_nothing(place):
    at = place(**GPT2).at
    run = passes(
        [
            unit(
                compute=(1, 1, 0, 0),
                host=(1e4, 1e4, 0, 0),
                traffic={("forward", "tp", False): Cost(5.0, 10.0)},
            )
        ],
        at,
    )
    assert run.forward[0] == pytest.approx(1e4) and run.exposed["tp"] < 1e-6


def test_experts_alone_are_gathered_too(place):
    at = place(**{**GPT2, "model": "mixtral-8x7b", "dp": 8, "zero": 3}).at
    run = passes([unit(expert=1e9)], at)
    assert run.sent == {
        "fsdp": pytest.approx(3 * 2e9 * 7 / 8)
    }  # 16-bit weights twice, gradients once [rajbhandari2019]


def test_activations_go_to_the_host_and_come_back(place):
    at = place(**LLAMA, offload=("activations",)).at
    run = passes([unit(count=2, kept=1e9)], at)
    each = 1e9 / link(at.device)
    assert run.forward[0] == run.backward[0] == pytest.approx(each)
    assert run.sent == {"offload": 2 * 2 * 1e9}


def test_each_rank_updates_its_own_part_of_sharded_states(place):
    """[rajbhandari2019]: with ZeRO 1 a rank of 8 updates an eighth, without ZeRO all."""
    whole, part = (place(**{**GPT2, "dp": 8, "zero": zero}).spread.update_s for zero in (0, 1))
    assert part == pytest.approx(whole / 8) and part > 0.0


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
    hop = placed.spread.pipe.hop
    assert placed.spread.step_s - placed.spread.update_s == pytest.approx(
        replay(schedule, ends(schedule, f, b), 4, 1, 64, hop).total
    )
    # [deepseek2024]: a rank holds stages i and p - 1 - i
    both = (f + b + (f + b)[::-1]) / 2 if schedule == "dualpipe" else f + b
    assert placed.spread.computing == pytest.approx(
        64 * both.max()
    ) and placed.spread.alike == pytest.approx(64 * both.mean())
