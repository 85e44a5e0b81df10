"""Memory of a rank at peak, by kind, beside published bytes per parameter."""

import pytest

from roofcast import predict
from roofcast.simulator.parallel.holdings import Share, holdings, share
from roofcast.simulator.parallel.stages import Unit

ASKED = {
    "model": "gpt2", "device": "h100-sxm5", "sequence": 256, "batch": 64, "micro_batch": 1,
    "precision": "bf16",
}  # fmt: skip
EXPERTS = {**ASKED, "model": "mixtral-8x7b"}
N, E = 1000.0, 64.0  # dense weights, and weights of experts
KINDS = ("parameters", "gradients", "optimizer", "activations", "transient", "buffers", "framework")


NOTHING = {
    "dense": 0.0, "expert": 0.0, "kept": 0.0, "transient": 0.0, "largest_unit": 0.0,
    "resident": 0.0,
}  # fmt: skip


def of(at, flying=1, **changed):
    """Bytes by kind of a rank with N dense weights and nothing else, except what is changed."""
    sizes = {**NOTHING, "dense": N, **changed}
    all_trained = {"trained": sizes["dense"], "trained_expert": sizes["expert"]}
    mine = Share(**{**all_trained, **sizes})
    bytes_ = holdings(mine, at, flying)[: len(KINDS)]
    return dict(zip(KINDS, (float(v) for v in bytes_), strict=True))


def test_frozen_weights_have_no_gradients_and_no_states(place):
    """A tenth of the weights is trained: a tenth of the gradients, states and buckets."""
    asked = {"model": "gpt2", "device": "a100-sxm4-80gb", "batch": 8}
    for zero in (0, 1, 2, 3):
        at = place(**asked, dp=8, zero=zero).at
        whole, tenth = of(at), of(at, trained=N / 10)
        for kind in ("gradients", "optimizer"):
            assert tenth[kind] == pytest.approx(whole[kind] / 10)
        assert tenth["parameters"] == whole["parameters"]
    at = place(**asked, dp=8, zero=0).at
    assert 0 < of(at, trained=N / 10)["buffers"] == pytest.approx(of(at)["buffers"] / 10)


def states(held):
    """Bytes of parameters, gradients and optimizer."""
    return held["parameters"] + held["gradients"] + held["optimizer"]


# Megatron Core guide, Distributed Optimizer: stack, precision, bytes per parameter, and how many of
# these bytes ZeRO 1 does not shard
MEGATRON = {
    "16-bit parameters, 16-bit gradients": ("deepspeed-megatron-2022", "bf16", 20, 4),
    "16-bit parameters, fp32 gradients": ("megatron-2021", "bf16", 18, 6),
    "fp32 parameters, fp32 gradients": ("pytorch-eager", "fp32", 16, 8),
}


@pytest.mark.parametrize(("stack", "precision", "whole", "stays"), MEGATRON.values(), ids=MEGATRON)
def test_bytes_per_parameter_equal_those_of_megatrons_guide(place, stack, precision, whole, stays):
    asked = {**ASKED, "precision": precision, "stack": stack}
    for d in (2, 8):
        plain, sharded = (place(**asked, dp=d, zero=z).at for z in (0, 1))
        assert states(of(plain)) == pytest.approx(whole * N)
        assert states(of(sharded)) == pytest.approx((stays + (whole - stays) / d) * N)


@pytest.mark.parametrize(("zero", "whole"), [(0, 8), (1, 4), (2, 2), (3, 0)])
def test_each_zero_stage_shards_one_more_kind_of_state(place, zero, whole):
    """Of 2 + 2 + K bytes per parameter, stage 1 shards K, stage 2 2 + K, and stage 3 all
    [rajbhandari2019]; here K = 4, two 16-bit moments.
    """
    held = of(place(**ASKED, dp=8, zero=zero).at)
    assert states(held) == pytest.approx((whole + (8 - whole) / 8) * N)


@pytest.mark.parametrize(
    ("optimizer", "bytes_"),
    [("sgd", 0.0), ("momentum", 2.0), ("adamw", 4.0), ("adam8bit", 2 * (1 + 4 / 256))],
)
def test_optimizer_state_bytes_per_parameter_follow_the_optimizer(place, optimizer, bytes_):
    """adam8bit: two states of one byte, each with an fp32 scale per block of 256 [dettmers2021]."""
    held = of(place(**ASKED, dp=2, optimizer=optimizer).at)
    assert held["optimizer"] == pytest.approx(bytes_ * N)


EXPERT_LAYOUTS = [  # tp, cp, ep, etp, ranks that hold the same experts
    (1, 1, 1, 1, 8),
    (1, 1, 8, 1, 1),
    (1, 1, 2, 1, 4),
    (2, 1, 2, 2, 4),
    (2, 1, 8, 2, 1),
    (1, 2, 4, 1, 4),
]


@pytest.mark.parametrize(("tp", "cp", "ep", "etp", "same"), EXPERT_LAYOUTS)
def test_zero_3_shards_an_expert_over_the_ranks_that_hold_it(place, tp, cp, ep, etp, same):
    """These are the tp x cp x dp ranks of a stage, divided by ep x etp."""
    held = of(place(**EXPERTS, tp=tp, cp=cp, dp=8, ep=ep, etp=etp, zero=3).at, dense=0.0, expert=E)
    assert states(held) == pytest.approx(8 * E / same)


def test_an_expert_is_sharded_over_no_more_ranks_than_dense_weights(place):
    """Under tp 2, dp 8 and etp 1, 16 ranks hold each expert, but a sharding group has 8 ranks."""
    held = of(place(**EXPERTS, tp=2, dp=8, etp=1, zero=3).at, dense=0.0, expert=E)
    assert states(held) == pytest.approx(8 * E / 8)


def test_zero_3_in_a_pipeline_keeps_weights_gathered_and_gradients_unsharded(place):
    """By default gradients are not reduce-scattered after each micro-batch (pytorch/pytorch, pull
    request 126166), and weights are not resharded after the forward [llama2024]. With resharding
    both are sharded, and two units of 16-bit weights are gathered: one in use and the next.
    """
    asked = {**ASKED, "pp": 2, "dp": 4, "zero": 3}
    kept = of(place(**asked).at, largest_unit=50.0)
    resharded = of(place(**asked, reshard=True).at, largest_unit=50.0)
    assert kept["parameters"] == kept["gradients"] == 2 * N
    assert kept["optimizer"] == resharded["optimizer"] == 4 * N / 4
    assert kept["buffers"] == 0.0
    assert resharded["parameters"] == resharded["gradients"] == 2 * N / 4
    assert resharded["buffers"] == 2 * 2 * 50.0


@pytest.mark.parametrize(("precision", "width"), [("bf16", 2), ("fp32", 4), ("amp-bf16", 4)])
def test_the_units_that_zero_3_holds_gathered_are_as_wide_as_what_it_gathers(
    place, precision, width
):
    """One unit in use, and the next."""
    asked = {**ASKED, "precision": precision, "dp": 4, "zero": 3}
    assert of(place(**asked).at, largest_unit=50.0)["buffers"] == 2 * width * 50.0


def test_zero_3_without_resharding_or_pipeline_keeps_weights_but_shards_gradients(place):
    """Gradients are scattered after each micro-batch; weights stay from forward to backward
    [zhao2023].
    """
    held = of(place(**ASKED, dp=4, zero=3, reshard=False).at)
    assert held["parameters"] == 2 * N and held["gradients"] == 2 * N / 4


def test_in_a_pipeline_under_zero_3_each_rank_has_gradients_as_large_as_its_weights(place):
    """The same as above, through the whole chain."""
    placed = place(**ASKED, pp=2, dp=4, zero=3)
    for rank in placed.outcome.ranks:
        assert rank.gradients == rank.parameters > 0.0


# Buckets of DistributedDataParallel are as large as the gradients (PyTorch documentation,
# gradient_as_bucket_view): changes to the scenario, and whether there are buckets.
BUCKETS = {
    "data parallel": ({"dp": 2}, True),
    "context parallel": ({"cp": 2, "model": "llama-3-8b"}, True),
    "no other rank": ({"pp": 2}, False),
    "sharded": ({"dp": 2, "zero": 1}, False),
    "accumulated in fp32 beside": ({"dp": 2, "stack": "megatron-2021"}, False),
    "inference": ({"dp": 2, "mode": "infer"}, False),
}


@pytest.mark.parametrize(("change", "there"), BUCKETS.values(), ids=BUCKETS)
def test_communication_buckets_of_replicated_gradients_are_as_large_as_the_gradients(
    place, change, there
):
    held = of(place(**{**ASKED, **change}).at, expert=E)
    width = 0 if "mode" in change else 4 if "stack" in change else 2  # bytes per gradient
    assert held["buffers"] == (2 * (N + E) if there else 0.0)
    assert held["gradients"] == width * (N + E)


def test_a_rank_holds_activations_of_every_micro_batch_in_flight_and_its_input(place):
    at = place(**ASKED, pp=2, dp=2).at
    ids = 256 * 8.0  # int64 tokens of one sequence; the labels are the same tensor
    assert at.step.input_bytes == ids
    assert of(at, flying=3, kept=100.0)["activations"] == 300.0 + ids
    inferring = place(**ASKED, dp=2, mode="infer").at
    assert of(inferring, flying=3, kept=100.0)["activations"] == inferring.step.input_bytes > 0.0


@pytest.mark.parametrize(("resident", "stays"), [(40.0, 40.0), (500.0, 300.0)])
def test_with_offloaded_activations_only_the_resident_bytes_stay_on_the_device(
    place, resident, stays
):
    """Never more than without offload, here 3 micro-batches of 100 bytes."""
    at = place(**{**ASKED, "model": "llama-3-8b"}, dp=2, offload=("activations",)).at
    held = of(at, flying=3, kept=100.0, resident=resident)
    assert held["activations"] == stays + at.step.input_bytes


@pytest.mark.parametrize("offload", [(), ("optimizer",)])
def test_offloaded_optimizer_states_are_not_on_the_device(place, offload):
    assert of(place(**ASKED, dp=2, offload=offload).at)["optimizer"] == (0.0 if offload else 4 * N)


def test_framework_memory_is_a_constant_plus_a_fraction_of_activations_and_transients(place):
    at = place(**ASKED, dp=2).at
    stack, held = at.step.recipe.stack, of(at, kept=10e9, transient=4e9)
    assert held["transient"] == 4e9 and stack.slack > 0.0
    slack = stack.slack * (14e9 + at.step.input_bytes)
    assert held["framework"] == pytest.approx(stack.framework_bytes + slack)


def test_on_a_cpu_framework_memory_has_no_constant(place):
    at = place(**{**ASKED, "device": "xeon"}, dp=2).at
    assert at.device.kind == "cpu"
    slack = at.step.recipe.stack.slack * (4e9 + at.step.input_bytes)
    assert of(at, transient=4e9)["framework"] == pytest.approx(slack)


@pytest.mark.parametrize("device", ["h100-sxm5", "xeon"])
def test_a_layout_of_one_device_and_one_micro_batch_has_the_memory_of_a_single_device(
    place, device
):
    asked = {**ASKED, "device": device, "batch": 1}
    alone = predict(**{**asked, "micro_batch": None}).memory
    (rank,) = place(**asked).outcome.ranks
    assert (rank.stage, rank.layers, rank.buffers) == (0, 12, 0.0)
    assert rank.total == alone.peak_bytes and rank.framework == alone.framework_bytes


def unit(name, count, **changed):
    sizes = {"dense": 0.0, "expert": 0.0, "kept": 0.0, "largest": 0.0, "inside": 0.0, **changed}
    sizes = {"trained": sizes["dense"], "trained_expert": sizes["expert"], **sizes}
    return Unit(name, count, None, None, {}, **sizes)


UNITS = [
    unit("embedding", 0, dense=50.0, kept=7.0, largest=3.0),
    unit("layers", 4, dense=40.0, expert=15.0, kept=11.0, largest=2.0, inside=9.0),
    unit("head", 0, dense=45.0, kept=1.0, largest=8.0),
]


def test_the_share_of_a_stage_is_the_sum_over_its_units():
    """Largest unit: one layer with its experts. Resident: what the embedding keeps, and two layers
    that are being copied to or from host memory.
    """
    mine = share([0, 1, 1, 1], UNITS, "none")
    assert mine.dense == 50 + 3 * 40 and mine.expert == 3 * 15 and mine.kept == 7 + 3 * 11
    assert mine.largest_unit == 40 + 15
    assert mine.resident == 7 + 2 * 11 and mine.leaving == 2 * 11
    assert share([2], UNITS, "full") == (45.0, 0.0, 45.0, 0.0, 1.0, 8.0, 45.0, 1.0, 0.0, 0.0)


TRANSIENT = [  # policy, bytes
    ("none", 3),
    ("selective", 3),
    ("modules:mlp", 3),
    ("full", 2 + 9),
    ("every:2", 2 + 9),
    ("block:3", 2 + 9),
    ("uniform:3", 2 + 3 * 9),
]


@pytest.mark.parametrize(("recompute", "bytes_"), TRANSIENT)
def test_a_recomputed_layer_holds_all_its_activations_during_its_backward(recompute, bytes_):
    """Largest tensors and inside of one layer; the inside of N layers if only every Nth layer keeps
    its input.
    """
    assert share([0, 1, 1], UNITS, recompute).transient == bytes_


@pytest.mark.parametrize("model", ["gemma-2b", "gpt2", "bert-base"])
def test_two_micro_batches_need_at_least_the_memory_of_one_and_at_most_a_fifth_more(model):
    """With a table used as embedding and output layer. SGD, whose update makes no copy."""
    asked = {"model": model, "device": "h200", "precision": "bf16", "sequence": 64}
    one = predict(**asked, optimizer="sgd", batch=1).memory.peak_bytes
    two = predict(**asked, optimizer="sgd", batch=2, micro_batch=1).memory.peak_bytes
    assert one <= two <= 1.2 * one


@pytest.mark.parametrize("optimizer", ["none", "adamw"])
def test_layers_on_their_way_from_host_memory_are_held_to_the_end_of_the_last_micro_batch(
    optimizer,
):
    """While the gradient of the table that embeds is computed, found by random draws."""
    asked = {"model": "transformer-big", "device": "h100-nvl", "precision": "fp32"}
    asked |= {"optimizer": optimizer, "stack": "axolotl", "offload": ["activations"]}
    one = predict(**asked, batch=1).memory.peak_bytes
    two = predict(**asked, batch=2, micro_batch=1).memory.peak_bytes
    assert one <= two <= 1.01 * one


@pytest.mark.parametrize(
    ("stack", "bytes_per_weight"),
    [("megatron", 18), ("te-nemo-2024", 16), ("deepspeed-megatron-2022", 20), ("pytorch-eager", 8)],
)
def test_a_single_device_holds_the_bytes_per_weight_of_its_stack(stack, bytes_per_weight):
    """18: 16-bit weights, fp32 master weights, moments and gradients, as in Megatron Core's guide.
    16: the gradients in 16 bits, too, as in NeMo's performance scripts. 20: 16-bit gradients that
    the update widens to fp32, and that stay. 8: all in 16 bits.
    """
    asked = {"model": "llama-3-8b", "device": "h200", "precision": "bf16", "sequence": 256}
    m = predict(**asked, batch=1, stack=stack).memory
    held = m.parameters_bytes + m.gradients_bytes + m.optimizer_bytes
    assert held == pytest.approx(bytes_per_weight * 8_030_261_248, rel=0.001)


@pytest.mark.parametrize(
    ("optimizer", "bytes_"),
    [("sgd", 4.0), ("momentum", 8.0), ("adamw", 12.0), ("adam8bit", 4.0 + 2 * (1 + 4 / 256))],
)
def test_master_weights_and_moments_are_fp32_on_one_device_and_on_several(optimizer, bytes_):
    asked = {**ASKED, "stack": "megatron", "optimizer": optimizer, "batch": 2, "micro_batch": None}
    for layout in ({}, {"dp": 2}):
        found = predict(**asked, **layout)
        assert found.memory.optimizer_bytes == pytest.approx(bytes_ * found.parameters)


def test_what_zero_3_gathers_is_gone_in_the_optimizer_step(place):
    """The step needs a copy of the rank's weights; it is counted beyond what is freed only."""
    at = place(**ASKED, dp=8, zero=3).at
    idle, small, large = (of(at, largest_unit=n) for n in (0.0, N / 100, 1e9))
    assert 0.0 < idle["transient"] < 2 * N / 8  # the copy, beyond the slack of the inputs
    assert small["transient"] + small["buffers"] == pytest.approx(idle["transient"])
    assert small["buffers"] > 0.0 and large["transient"] == 0.0


def test_the_moment_of_the_peak_says_where_it_is_in_the_optimizer_step():
    tiny = {**ASKED, "sequence": 8, "stack": "pytorch-eager", "optimizer": "adamw"}
    update, backward = predict(**tiny, dp=8, zero=0), predict(**ASKED, dp=8, zero=0)
    assert update.memory.peak_moment == "optimizer step"
    assert backward.memory.peak_moment == "backward of a micro-batch"
    staged = predict(**tiny, dp=4, pp=2).memory.peak_moment
    assert staged in ("stage 0 of 2, optimizer step", "stage 1 of 2, optimizer step")
    one, alone = (predict(**{**tiny, "batch": 1, "micro_batch": m}) for m in (1, None))
    assert one.memory.peak_moment == alone.memory.peak_moment


@pytest.mark.parametrize(
    ("stack", "bytes_"), [("megatron", 4 + 2), ("te-nemo-2024", 2 + 2), ("pytorch-eager", 2 + 2)]
)
def test_an_optimizer_on_the_host_takes_gradients_as_held_and_returns_weights(stack, bytes_):
    found = predict(**ASKED, dp=2, zero=0, stack=stack, offload=("optimizer",))
    assert found.communication_bytes["offload"] == pytest.approx(bytes_ * found.parameters)


def test_a_foreach_update_copies_the_fp32_master_weights_where_there_are_any(place):
    """fsdp-eager has master weights and PyTorch's foreach optimizer, on any number of devices."""
    for stack, bytes_ in (("fsdp-eager", 4), ("pytorch-eager", 2)):
        at = place(**ASKED, dp=8, zero=1, stack=stack).at
        more = of(at, 1, dense=8e9)["transient"] - of(at, 1, dense=4e9)["transient"]
        assert more == pytest.approx(bytes_ * 4e9 / 8)
        tiny = {**ASKED, "sequence": 8, "batch": 1, "micro_batch": None, "stack": stack}
        alone = predict(**tiny)
        assert alone.memory.peak_moment == "optimizer step"
        assert alone.memory.transient_bytes == pytest.approx(bytes_ * alone.parameters)


def test_an_update_in_backward_holds_the_gradients_of_one_layer_unless_they_are_accumulated():
    asked = {"model": "gpt2", "device": "a100-sxm4-80gb", "stack": "torchtune-in-backward"}
    alone = predict(**asked, batch=2).memory.gradients_bytes
    two, twice = (predict(**asked, dp=2, batch=4, micro_batch=m) for m in (2, 1))
    assert two.memory.gradients_bytes == pytest.approx(alone, rel=0.05)
    assert twice.memory.gradients_bytes > 1.5 * alone
