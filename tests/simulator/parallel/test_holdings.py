"""What a rank holds, against published bytes a parameter."""

import pytest

from roofcast import predict
from roofcast.simulator.parallel.holdings import Share, holdings, share
from roofcast.simulator.parallel.stages import Unit

ASKED = {
    "model": "gpt2",
    "device": "h100-sxm5",
    "sequence": 256,
    "batch": 64,
    "micro_batch": 1,
    "precision": "bf16",
}
EXPERTS = {**ASKED, "model": "mixtral-8x7b"}
N, E = 1000.0, 64.0  # weights that data-parallel ranks share, and of experts
KINDS = ("parameters", "gradients", "optimizer", "activations", "transient", "buffers", "framework")


def of(at, flying=1, **changed):
    """Bytes by kind of a share with N dense weights and nothing else, but for what is changed."""
    mine = Share(
        **{
            "dense": N,
            "expert": 0.0,
            "kept": 0.0,
            "transient": 0.0,
            "largest_unit": 0.0,
            "resident": 0.0,
            **changed,
        }
    )
    return dict(zip(KINDS, (float(v) for v in holdings(mine, at, flying)), strict=True))


def states(held):
    """Bytes of parameters, gradients and optimizer."""
    return held["parameters"] + held["gradients"] + held["optimizer"]


# bytes a parameter: whole, and what of it stays whole under ZeRO 1 over d ranks; Megatron Core
# guide, Distributed Optimizer
MEGATRON = {
    "16-bit parameters, 16-bit gradients": ("deepspeed-megatron-2022", "bf16", 20, 4),
    "16-bit parameters, fp32 gradients": ("megatron-2021", "bf16", 18, 6),
    "fp32 parameters, fp32 gradients": ("pytorch-eager", "fp32", 16, 8),
}


@pytest.mark.parametrize(("stack", "precision", "whole", "stays"), MEGATRON.values(), ids=MEGATRON)
def test_bytes_a_parameter_are_those_of_megatrons_guide(place, stack, precision, whole, stays):
    for d in (2, 8):
        plain, sharded = (
            place(**{**ASKED, "precision": precision}, stack=stack, dp=d, zero=z).at for z in (0, 1)
        )
        assert states(of(plain)) == pytest.approx(whole * N)
        assert states(of(sharded)) == pytest.approx((stays + (whole - stays) / d) * N)


@pytest.mark.parametrize(("zero", "whole"), [(0, 8), (1, 4), (2, 2), (3, 0)])
def test_each_stage_of_zero_shards_one_kind_more(place, zero, whole):
    """Of 2 + 2 + K bytes a parameter, K (1), 2 + K (2), all (3) are shared by the ranks
    [rajbhandari2019]; here K = 4, 16-bit moments.
    """
    assert states(of(place(**ASKED, dp=8, zero=zero).at)) == pytest.approx(
        (whole + (8 - whole) / 8) * N
    )


@pytest.mark.parametrize(
    ("optimizer", "bytes_"),
    [("sgd", 0.0), ("momentum", 2.0), ("adamw", 4.0), ("adam8bit", 2 * (1 + 4 / 256))],
)
def test_states_are_the_optimizers(place, optimizer, bytes_):
    """adam8bit: two states of a byte, each with an fp32 scale a block of 256 [dettmers2021]."""
    assert of(place(**ASKED, dp=2, optimizer=optimizer).at)["optimizer"] == pytest.approx(
        bytes_ * N
    )


@pytest.mark.parametrize(
    ("tp", "cp", "ep", "etp", "same"),
    [
        (1, 1, 1, 1, 8),
        (1, 1, 8, 1, 1),
        (1, 1, 2, 1, 4),
        (2, 1, 2, 2, 4),
        (2, 1, 8, 2, 1),
        (1, 2, 4, 1, 4),
    ],
)
def test_an_experts_states_are_shared_by_the_ranks_that_hold_it(place, tp, cp, ep, etp, same):
    """Of the tp x cp x dp ranks of a stage ep x etp hold other experts or parts of them."""
    held = of(place(**EXPERTS, tp=tp, cp=cp, dp=8, ep=ep, etp=etp, zero=3).at, dense=0.0, expert=E)
    assert states(held) == pytest.approx(8 * E / same)


def test_an_expert_is_sharded_over_no_more_ranks_than_dense_weights(place):
    """16 ranks hold each whole expert under tp 2 and dp 8, but a shard has 8."""
    assert states(
        of(place(**EXPERTS, tp=2, dp=8, etp=1, zero=3).at, dense=0.0, expert=E)
    ) == pytest.approx(8 * E / 8)


def test_zero_3_in_a_pipeline_holds_whole_gradients_until_they_are_reduced(place):
    """Without a reduce-scatter after each micro-batch the gradients are kept unsharded
    (pytorch/pytorch, pull request 126166), and weights are not resharded after the forward
    [llama2024]: whole weights, whole gradients, states over the 4 ranks of a shard.
    """
    asked = {**ASKED, "pp": 2, "dp": 4, "zero": 3}
    stays, drops = (
        of(place(**asked).at, largest_unit=50.0),
        of(place(**asked, reshard=True).at, largest_unit=50.0),
    )
    assert (
        stays["parameters"] == 2 * N
        and stays["gradients"] == 2 * N
        and stays["optimizer"] == 4 * N / 4
    )
    assert stays["buffers"] == 0.0  # nothing is gathered beside what stays
    assert (
        drops["parameters"] == drops["gradients"] == 2 * N / 4 and drops["optimizer"] == 4 * N / 4
    )
    assert drops["buffers"] == 2 * 2 * 50.0  # a unit's 16-bit weights and the next one's


def test_without_a_pipeline_gradients_are_scattered_even_where_weights_stay(place):
    """Each micro-batch's: the stage between ZeRO 2 and 3 that keeps weights from forward to
    backward [zhao2023].
    """
    held = of(place(**ASKED, dp=4, zero=3, reshard=False).at)
    assert held["parameters"] == 2 * N and held["gradients"] == 2 * N / 4


def test_a_stage_over_zero_3_holds_what_its_share_says(place):
    """The same from the whole chain: gradients of every stage are as large as its weights."""
    placed = place(**ASKED, pp=2, dp=4, zero=3)
    for rank in placed.outcome.ranks:
        assert rank.gradients == rank.parameters > 0.0


# DDP's buckets are as large as the gradients (PyTorch, DistributedDataParallel,
# gradient_as_bucket_view)
BUCKETS = {
    "data parallel": ({"dp": 2}, True),
    "context parallel": ({"cp": 2, "model": "llama-3-8b"}, True),
    "no other rank": ({"pp": 2}, False),
    "sharded": ({"dp": 2, "zero": 1}, False),
    "accumulated in fp32 beside": ({"dp": 2, "stack": "megatron-2021"}, False),
    "inference": ({"dp": 2, "mode": "infer"}, False),
}


@pytest.mark.parametrize(("change", "there"), BUCKETS.values(), ids=BUCKETS)
def test_buckets_of_data_parallelism_are_as_large_as_the_gradients(place, change, there):
    held = of(place(**{**ASKED, **change}).at, expert=E)
    assert held["buffers"] == (2 * (N + E) if there else 0.0)
    assert held["gradients"] == (
        0.0 if "mode" in change else 2 * (N + E) if "stack" not in change else 4 * (N + E)
    )


def test_activations_are_of_every_micro_batch_in_flight_and_the_input(place):
    at = place(**ASKED, pp=2, dp=2).at
    ids = 256 * 8.0  # words of one sequence, int64; they are its labels too
    assert at.step.input_bytes == ids
    assert of(at, flying=3, kept=100.0)["activations"] == 300.0 + ids
    inferring = place(**ASKED, dp=2, mode="infer").at
    assert of(inferring, flying=3, kept=100.0)["activations"] == inferring.step.input_bytes > 0.0


@pytest.mark.parametrize(("resident", "stays"), [(40.0, 40.0), (500.0, 300.0)])
def test_activations_with_the_host_leave_what_is_on_its_way(place, resident, stays):
    at = place(**{**ASKED, "model": "llama-3-8b"}, dp=2, offload=("activations",)).at
    assert (
        of(at, flying=3, kept=100.0, resident=resident)["activations"]
        == stays + at.step.input_bytes
    )


@pytest.mark.parametrize("offload", [(), ("optimizer",)])
def test_states_with_the_host_are_not_on_the_device(place, offload):
    assert of(place(**ASKED, dp=2, offload=offload).at)["optimizer"] == (0.0 if offload else 4 * N)


def test_a_framework_takes_its_own_bytes_and_a_share_of_what_it_allocates(place):
    at = place(**ASKED, dp=2).at
    stack, held = at.step.recipe.stack, of(at, kept=10e9, transient=4e9)
    assert held["transient"] == 4e9 and stack.slack > 0.0
    assert held["framework"] == pytest.approx(
        stack.framework_bytes + stack.slack * (14e9 + at.step.input_bytes)
    )


def test_no_framework_is_counted_on_a_cpu(place):
    at = place(**{**ASKED, "device": "xeon"}, dp=2).at
    assert at.device.kind == "cpu"
    assert of(at, transient=4e9)["framework"] == pytest.approx(
        at.step.recipe.stack.slack * (4e9 + at.step.input_bytes)
    )


@pytest.mark.parametrize("device", ["h100-sxm5", "xeon"])
def test_one_device_with_one_micro_batch_holds_what_it_holds_alone(place, device):
    asked = {**ASKED, "device": device, "batch": 1}
    alone = predict(**{**asked, "micro_batch": None}).memory
    (rank,) = place(**asked).outcome.ranks
    assert (rank.stage, rank.layers, rank.buffers) == (0, 12, 0.0)
    assert rank.total == alone.peak_bytes and rank.framework == alone.framework_bytes


def unit(name, count, **bytes_):
    return Unit(
        name,
        count,
        None,
        None,
        {},
        **{"dense": 0.0, "expert": 0.0, "kept": 0.0, "largest": 0.0, "inside": 0.0, **bytes_},
    )


UNITS = [
    unit("embedding", 0, dense=50.0, kept=7.0, largest=3.0),
    unit("layers", 4, dense=40.0, expert=15.0, kept=11.0, largest=2.0, inside=9.0),
    unit("head", 0, dense=45.0, kept=1.0, largest=8.0),
]


def test_a_stage_holds_each_of_its_layers():
    mine = share([0, 1, 1, 1], UNITS, "none")
    assert mine.dense == 50 + 3 * 40 and mine.expert == 3 * 15 and mine.kept == 7 + 3 * 11
    assert mine.largest_unit == 40 + 15  # of one layer, its experts with it
    assert (
        mine.resident == 7 + 2 * 11
    )  # the embedding's, and of two layers on their way to the host or back
    assert share([2], UNITS, "full") == (45.0, 0.0, 1.0, 8.0, 45.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("recompute", "bytes_"),
    [
        ("none", 3),
        ("selective", 3),
        ("modules:mlp", 3),
        ("full", 2 + 9),
        ("every:2", 2 + 9),
        ("block:3", 2 + 9),
        ("uniform:3", 2 + 3 * 9),
    ],
)
def test_layers_made_again_stand_whole_while_their_backward_runs(recompute, bytes_):
    """One layer's inside and its gradients; N of them where only each Nth keeps its input."""
    assert share([0, 1, 1], UNITS, recompute).transient == bytes_


@pytest.mark.parametrize("model", ["gemma-2b", "gpt2", "bert-base"])
def test_two_micro_batches_never_need_less_than_one(model):
    """A table that is embedding and output layer included; the update of SGD copies nothing."""
    asked = {
        "model": model,
        "device": "h200",
        "precision": "bf16",
        "sequence": 64,
        "optimizer": "sgd",
    }
    one, two = (
        predict(**asked, batch=1).memory.peak_bytes,
        predict(**asked, batch=2, micro_batch=1).memory.peak_bytes,
    )
    assert one <= two <= 1.2 * one


@pytest.mark.parametrize(
    ("stack", "bytes_a_weight"),
    [("te-nemo-2024", 18), ("deepspeed-megatron-2022", 20), ("pytorch-eager", 8)],
)
def test_one_device_holds_what_its_stack_keeps_of_each_weight(stack, bytes_a_weight):
    """16-bit weights, then fp32 copy, moments and gradients (Megatron Core's 18), or 16-bit
    gradients that the update widens.
    """
    m = predict(
        model="llama-3-8b", device="h200", precision="bf16", sequence=256, batch=1, stack=stack
    ).memory
    assert m.parameters_bytes + m.gradients_bytes + m.optimizer_bytes == pytest.approx(
        bytes_a_weight * 8_030_261_248, rel=0.001
    )
