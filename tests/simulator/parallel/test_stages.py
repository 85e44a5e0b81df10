"""Units of a pipeline: work and traffic of a step divided over its layers, and their passes."""

from collections import Counter

import msgspec
import numpy as np
import pytest

from roofcast.hwdb.constants import kernels
from roofcast.simulator.parallel.passes import passes
from roofcast.simulator.parallel.stages import PHASES, Unit, exchanged, repeated, units
from roofcast.simulator.parallel.traffic import Cost
from roofcast.simulator.times.dispatch import dispatch, token_counts
from roofcast.simulator.times.host import slowness
from roofcast.simulator.times.offload import link

GPT2 = {
    "model": "gpt2", "device": "h100-sxm5", "sequence": 256, "batch": 64, "micro_batch": 1,
    "precision": "bf16", "dp": 2,
}  # fmt: skip
LLAMA = {**GPT2, "model": "llama-3-8b", "sequence": 2048, "tp": 2}
MIXTRAL = {**GPT2, "model": "mixtral-8x7b", "dp": 16, "ep": 8, "stack": "te-nemo-2024"}


def total(rows, value):
    """Sum of a value over all units and their repetitions."""
    return sum(value(u) * max(u.layers, 1) for u in rows)


# ---------------------------------------------------------------- units
STEPS = {
    "gpt2": GPT2,
    "llama": {**LLAMA, "recompute": "full"},
    "mixtral": MIXTRAL,
    "cpu": {**GPT2, "device": "xeon"},
}


@pytest.mark.parametrize("asked", STEPS.values(), ids=STEPS)
def test_units_together_hold_all_work_of_the_step_once(place, asked):
    placed = place(**asked)
    step, device, rows = placed.at.step, placed.at.device, units(placed.at, placed.times)
    own, host = placed.times.seconds, dispatch(step, device, kernels())
    cpu = device.kind == "cpu"  # one machine computes and launches
    for i, phase in enumerate(PHASES):
        here = np.array([k.phase == phase for k in step.kernels])
        launches = sum(seconds for _, when, seconds in exchanged(step, device) if when == i)
        waits = 0.0
        if "ep" in asked and i < 2:  # forward and backward of 32 layers of experts
            waits = 32 * token_counts(step.recipe.stack, device)
        compute = (own + host * cpu)[here].sum()
        launching = (host[here].sum() + launches) * (not cpu)
        assert total(rows, lambda u, i=i: u.compute[i]) == pytest.approx(compute)
        assert total(rows, lambda u, i=i: u.host[i]) == pytest.approx(launching)
        if i < 2:
            assert total(rows, lambda u, i=i: u.waits[i]) == pytest.approx(waits)
    experts = sum(w.size * w.count for w in step.weights if w.expert)
    kept, inside = (sum(s.bytes * s.count for s in side) for side in (step.saved, step.counted))
    assert total(rows, lambda u: u.dense + u.expert) == step.parameters
    assert total(rows, lambda u: u.expert) == experts
    assert total(rows, lambda u: u.trained + u.trained_expert) == step.parameters
    assert total(rows, lambda u: u.kept) == pytest.approx(kept)
    assert total(rows, lambda u: u.inside) == pytest.approx(inside)


def test_each_tensor_parallel_collective_costs_a_fraction_of_a_kernel_launch_on_the_host(place):
    """Each of 32 layers has two all-reduces forward, two backward, and under full recomputation two
    more; embedding and head have at most four. Under CUDA graphs they cost the host nothing.
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


def test_bytes_inside_a_recomputed_layer_equal_what_it_keeps_without_recomputation(place):
    placed = (place(**LLAMA, recompute=policy) for policy in ("none", "full"))
    plain, full = ({u.name: u for u in units(p.at, p.times)} for p in placed)
    layers = [name for name, u in plain.items() if u.layers > 1]
    assert layers
    for name in layers:
        assert plain[name].kept == plain[name].inside == full[name].inside > full[name].kept


def test_the_largest_tensors_in_flight_in_a_llama_layer_are_those_of_its_gated_mlp(place):
    """Inputs gate and up, and their product: three tensors of s x 14336 / tp 16-bit numbers."""
    placed = place(**LLAMA)
    (layers,) = [u for u in units(placed.at, placed.times) if u.layers]
    assert layers.largest == 3 * 2048 * 14336 / 2 * 2
    assert layers.layers == 32 and layers.name == "model.layers"


def test_traffic_of_all_layers_sums_to_that_of_the_step(place):
    placed = place(**LLAMA)
    sent, expected = Counter(), Counter()
    for u in units(placed.at, placed.times):
        for (phase, group, _), cost in u.traffic.items():
            sent[phase, group] += cost.bytes * max(u.layers, 1)
    for tr in placed.at.step.traffic:
        n = {"all_reduce": 2.0}.get(tr.kind, 1.0) * (1 - 1 / 2)  # over two ranks
        expected[tr.phase, tr.group] += n * tr.bytes * tr.count
    assert sent == pytest.approx(expected)
    assert set(sent) == {("forward", "tp"), ("backward", "tp")}


# policy, fraction of 32 layers that is recomputed
RECOMPUTED = [("none", 0.0), ("full", 1.0), ("every:2", 1 / 2), ("block:8", 1 / 4)]


@pytest.mark.parametrize(("recompute", "share"), RECOMPUTED)
def test_recomputed_layers_repeat_the_traffic_of_their_forward(place, recompute, share):
    placed = place(**LLAMA, recompute=recompute)
    (layers,) = [u for u in units(placed.at, placed.times) if u.layers]
    sent = Counter()
    for (phase, _, _), cost in layers.traffic.items():
        sent[phase] += cost.bytes
    assert sent["recompute"] == pytest.approx(share * sent["forward"])
    assert sent["forward"] > 0.0
    assert set(repeated(placed.at.step).values()) == ({share} if share else set())


def test_deduplicated_dispatch_makes_the_exchange_between_experts_faster(place):
    """etp 2, so that the ranks of an expert-parallel group lie in two nodes."""
    at = place(**MIXTRAL, etp=2).at
    plain = dict(at.step.recipe.stack.implementations)
    assert plain.pop("dispatch") == "deduplicated"
    all_copies = with_stack(at, implementations=plain)
    assert forward_seconds(at, "ep") < forward_seconds(all_copies, "ep")


def forward_seconds(at, group):
    """Seconds of a layer's traffic over a group in the forward pass."""

    class NoWork:
        seconds = np.zeros(len(at.step.kernels))

    (layers,) = [u for u in units(at, NoWork) if u.layers]
    traffic = layers.traffic.items()
    return float(sum(cost.seconds for key, cost in traffic if key[:2] == ("forward", group)))


def with_stack(at, **changes):
    """The placement with some settings of its stack changed."""
    stack = msgspec.structs.replace(at.step.recipe.stack, **changes)
    recipe = msgspec.structs.replace(at.step.recipe, stack=stack)
    return at._replace(step=at.step._replace(recipe=recipe))


# ---------------------------------------------------------------- passes
def unit(count=1, compute=(0, 0, 0, 0), host=(0, 0, 0, 0), traffic=None, **more):
    """A unit without work, traffic and bytes except those given."""
    sizes = {"dense": 0.0, "expert": 0.0, "kept": 0.0, "largest": 0.0, "inside": 0.0, **more}
    sizes = {"trained": sizes["dense"], "trained_expert": sizes["expert"], **sizes}
    compute, host = np.array(compute, float), np.array(host, float)
    return Unit("layers", count, compute, host, traffic or {}, **sizes)


def test_an_update_takes_between_the_longer_of_device_and_host_time_and_their_sum():
    for device, host in ((1.0, 1e-6), (1e-6, 1.0), (1.0, 1.0)):
        seconds = unit(compute=(9, 9, 9, device), host=(9, 9, 9, host)).update
        assert max(device, host) <= seconds <= device + host


def test_a_backward_includes_the_recomputed_forward_in_device_and_host_time(place):
    at = place(**GPT2).at
    for own in ("compute", "host"):
        run = passes([unit(**{own: (1, 2, 4, 8)})], at)
        assert run.forward[0] == pytest.approx(1.0) and run.backward[0] == pytest.approx(2.0 + 4.0)


@pytest.mark.parametrize("group", ["tp", "ep", "etp", "cp"])
def test_traffic_inside_the_model_adds_to_compute_and_repeats_with_a_recomputed_forward(
    place, group
):
    """By default no traffic overlaps with compute. The unit has three layers."""
    at = place(**GPT2).at
    sent = {"forward": Cost(5.0, 10.0), "backward": Cost(6.0, 20.0), "recompute": Cost(5.0, 10.0)}
    traffic = {(phase, group, False): cost for phase, cost in sent.items()}
    run = passes([unit(count=3, compute=(1, 2, 4, 8), traffic=traffic)], at)
    assert run.forward[0] == pytest.approx(1 + 5)
    assert run.backward[0] == pytest.approx(2 + 4 + 6 + 5)
    assert run.sent == {group: pytest.approx(3 * 40.0)}
    assert run.exposed == {group: pytest.approx(3 * 16.0)}


def test_no_traffic_is_exposed_if_the_host_is_slower_than_device_and_network(place):
    at = place(**GPT2).at
    traffic = {("forward", "tp", False): Cost(5.0, 10.0)}
    run = passes([unit(compute=(1, 1, 0, 0), host=(1e4, 1e4, 0, 0), traffic=traffic)], at)
    assert run.forward[0] == pytest.approx(1e4) and run.exposed["tp"] < 1e-6


def test_zero_3_gathers_a_unit_that_has_only_expert_weights(place):
    """16-bit weights twice, gradients once [rajbhandari2019]."""
    at = place(**{**GPT2, "model": "mixtral-8x7b", "dp": 8, "zero": 3}).at
    run = passes([unit(expert=1e9)], at)
    assert run.sent == {"fsdp": pytest.approx(3 * 2e9 * 7 / 8)}


def test_offloaded_activations_are_copied_to_the_host_in_forward_and_back_in_backward(place):
    at = place(**LLAMA, offload=("activations",)).at
    run = passes([unit(count=2, kept=1e9)], at)
    each = 1e9 / link(at.device)
    assert run.forward[0] == run.backward[0] == pytest.approx(each)
    assert run.sent == {"offload": 2 * 2 * 1e9}


def test_with_sharded_optimizer_states_each_rank_updates_its_own_part(place):
    """[rajbhandari2019]: under ZeRO 1 each of 8 ranks updates an eighth, without ZeRO all."""
    whole, part = (place(**{**GPT2, "dp": 8, "zero": zero}).outcome.update_s for zero in (0, 1))
    assert part == pytest.approx(whole / 8) and part > 0.0


def test_a_host_that_waits_for_its_kernels_adds_to_the_device(place):
    """CUDA_LAUNCH_BLOCKING=1."""
    placed = place(**{**LLAMA, "stack": "deepspeed-megatron-blocking", "recompute": "full"})
    rows = units(placed.at, placed.times)
    run = passes(rows, placed.at)
    for i, u in enumerate(rows):
        sent = sum(cost.seconds for (when, *_), cost in u.traffic.items() if when == "forward")
        assert run.forward[i] == pytest.approx(u.compute[0] + u.host[0] + sent)
