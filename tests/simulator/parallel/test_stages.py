"""Layers with their seconds and traffic: nothing is lost on the way to the stages; what a stage
waits for; how stages are dealt.
"""

from collections import Counter

import msgspec
import numpy as np
import pytest

from roofcast.hwdb.constants import kernels
from roofcast.simulator.parallel.stages import PHASES, Unit, exchanged, passes, repeated, units
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
    return sum(value(u) * max(u.layers, 1) for u in us)


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
    layers = [name for name, u in plain.items() if u.layers > 1]
    assert layers
    for name in layers:
        assert plain[name].kept == plain[name].inside == full[name].inside > full[name].kept


def test_the_largest_tensors_of_a_llama_layer_are_those_of_its_gated_product(place):
    """gate and up go in, their product comes out: three of s x 14336 / tp numbers of 16 bits; of a
    head, its logits count.
    """
    placed = place(**LLAMA)
    (layers,) = [u for u in units(placed.at, placed.times) if u.layers]
    assert layers.largest == 3 * 2048 * 14336 / 2 * 2
    assert layers.layers == 32 and layers.name == "model.layers"


def test_a_layers_traffic_is_the_steps_over_its_layers(place):
    placed = place(**LLAMA)
    sent, wanted = Counter(), Counter()
    for u in units(placed.at, placed.times):
        for (phase, group, _), cost in u.traffic.items():
            sent[phase, group] += cost.bytes * max(u.layers, 1)
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
    (layers,) = [u for u in units(placed.at, placed.times) if u.layers]
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
    (layers,) = [u for u in units(at, nothing(at)) if u.layers]
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
    whole, part = (place(**{**GPT2, "dp": 8, "zero": zero}).outcome.update_s for zero in (0, 1))
    assert part == pytest.approx(whole / 8) and part > 0.0
