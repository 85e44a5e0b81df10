"""What ranks send: each exchange as its source states it, in seconds of the collectives' own
formulas.
"""

import msgspec
import pytest

from roofcast import hwdb
from roofcast.hwdb.collective_constants import collectives
from roofcast.simulator.parallel.collectives import (
    all_gather,
    all_reduce,
    reduce_scatter,
    send_recv,
)
from roofcast.simulator.parallel.fabric import placed
from roofcast.simulator.parallel.networks import fabric_of
from roofcast.simulator.parallel.traffic import crossing, gathered, reduction

GPT2 = {
    "model": "gpt2",
    "device": "h100-sxm5",
    "sequence": 256,
    "batch": 128,
    "micro_batch": 1,
    "precision": "bf16",
}
LLAMA = {**GPT2, "model": "llama-3-8b", "sequence": 2048}
MIXTRAL = {**GPT2, "model": "mixtral-8x7b"}
C, N = collectives(), 1e9  # weights


def seconds(kind, bytes_, size, stride, devices, links="x1"):
    """Of one collective on `devices` H100, eight a node, over `size` ranks that are `stride` apart;
    NVLink `links` as fast.
    """
    fabric = fabric_of(None, hwdb.device("h100-sxm5", {"scale_up.bandwidth": links}), devices)
    return kind(bytes_, placed(size, stride, fabric), fabric, C)


# ---------------------------------------------------------------- gradients, once a step
def test_unsharded_gradients_are_all_reduced(place):
    found = reduction(place(**GPT2, dp=64).at, N, 0.0)
    assert found.seconds == pytest.approx(seconds(all_reduce, 2 * N, 64, 1, 64))
    assert found.bytes == pytest.approx(2 * 2 * N * 63 / 64)


@pytest.mark.parametrize(("links", "slower"), [("x1", "across"), ("x0.25", "within")])
def test_hybrid_sharding_scatters_in_a_node_while_it_sums_between_nodes(place, links, slower):
    """Gradients are scattered over the 8 ranks of a shard and each eighth is summed over the 8
    copies [zhao2023]: NVLink and the network are different links, so the slower of the two counts;
    then the updated weights are gathered in the node.
    """
    at, gradients = (
        place(**GPT2, dp=64, zero=1, shard=8, set={"scale_up.bandwidth": links}).at,
        2 * N,
    )
    found = reduction(at, N, 0.0)
    halves = {
        "within": seconds(reduce_scatter, gradients, 8, 1, 64, links),
        "across": seconds(all_reduce, gradients / 8, 8, 8, 64, links),
    }
    assert max(halves, key=halves.get) == slower
    assert found.seconds == pytest.approx(
        halves[slower] + seconds(all_gather, 2 * N, 8, 1, 64, links)
    )
    assert found.bytes == pytest.approx(
        gradients * 7 / 8 + 2 * gradients / 8 * 7 / 8 + 2 * N * 7 / 8
    )


def test_a_shard_over_nodes_has_no_links_of_its_own(place):
    """Both halves cross the network: one after the other."""
    found = reduction(place(**GPT2, dp=64, zero=1, shard=16).at, N, 0.0)
    halves = seconds(reduce_scatter, 2 * N, 16, 1, 64) + seconds(all_reduce, 2 * N / 16, 4, 16, 64)
    assert found.seconds == pytest.approx(halves + seconds(all_gather, 2 * N, 16, 1, 64))


def test_zero_2_scatters_after_every_micro_batch(place):
    """Gradients that are sharded cannot wait for the last micro-batch [rajbhandari2019]; weights
    are gathered once.
    """
    found = reduction(place(**GPT2, dp=8, zero=2).at, N, 0.0)  # 16 micro-batches a rank
    scatter, gather = (seconds(kind, 2 * N, 8, 1, 8) for kind in (reduce_scatter, all_gather))
    assert found.seconds == pytest.approx(16 * scatter + gather)
    assert found.bytes == pytest.approx((16 + 1) * 2 * N * 7 / 8)


def test_gradients_beside_an_fp32_copy_are_reduced_in_fp32_and_weights_gathered_in_16_bits(place):
    found = reduction(place(**GPT2, dp=8, zero=1, stack="megatron-2021").at, N, 0.0)
    assert found.bytes == pytest.approx((4 + 2) * N * 7 / 8)
    assert found.seconds == pytest.approx(
        seconds(reduce_scatter, 4 * N, 8, 1, 8) + seconds(all_gather, 2 * N, 8, 1, 8)
    )


def test_experts_are_reduced_over_the_ranks_that_hold_them(place):
    """Of 32 ranks with 4 parts of the experts 8 hold the same, 4 apart."""
    for zero in (0, 1):
        at = place(**MIXTRAL, dp=32, ep=4, zero=zero).at
        found = reduction(at, 0.0, N)
        sharded = seconds(reduce_scatter, 2 * N, 8, 4, 32) + seconds(all_gather, 2 * N, 8, 4, 32)
        assert found.seconds == pytest.approx(
            sharded if zero else seconds(all_reduce, 2 * N, 8, 4, 32)
        )
        both = reduction(at, N, N)
        assert both.bytes == pytest.approx(found.bytes + reduction(at, N, 0.0).bytes)


def test_zero_3_has_reduced_layer_by_layer_but_in_a_pipeline_that_keeps_its_weights(place):
    for done in ({"dp": 8}, {"dp": 8, "reshard": False}, {"dp": 4, "pp": 2, "reshard": True}):
        assert reduction(place(**GPT2, **done, zero=3).at, N, 0.0) == (0.0, 0.0)
    keeps = reduction(place(**GPT2, dp=4, pp=2, zero=3).at, N, 0.0)
    assert (
        keeps.seconds
        == pytest.approx(reduction(place(**GPT2, dp=4, pp=2, zero=1).at, N, 0.0).seconds)
        and keeps.seconds > 0.0
    )


# ---------------------------------------------------------------- weights, layer by layer
def test_zero_3_gathers_weights_twice_and_scatters_gradients_once(place):
    """Each of the three moves every 16-bit weight [rajbhandari2019]."""
    at = place(**GPT2, dp=8, zero=3).at
    gather, scatter = (seconds(kind, 2 * N, 8, 1, 8) for kind in (all_gather, reduce_scatter))
    assert gathered(at, N, 0.0, "forward").seconds == pytest.approx(gather)
    assert gathered(at, N, 0.0, "backward").seconds == pytest.approx(gather + scatter)
    stays = place(**GPT2, dp=8, zero=3, reshard=False).at
    assert gathered(stays, N, 0.0, "backward").seconds == pytest.approx(scatter)


def test_zero_3_gathers_experts_over_the_ranks_that_hold_them(place):
    found = gathered(place(**MIXTRAL, dp=32, ep=4, zero=3).at, 0.0, N, "forward")
    assert found.seconds == pytest.approx(
        seconds(all_gather, 2 * N, 8, 4, 32)
    ) and found.bytes == pytest.approx(2 * N * 7 / 8)


# ---------------------------------------------------------------- inside the model
def test_a_ring_hands_each_part_to_every_other_rank(place):
    """n - 1 times a rank sends the n-th part that it holds to its neighbour [liu2023]."""
    found = place(**LLAMA, cp=4).at.network.cost("ring", "cp", 8e6)
    assert (
        found.seconds == pytest.approx(3 * seconds(send_recv, 2e6, 4, 1, 4)) and found.bytes == 6e6
    )


HANDED = 2 * 2048 * 4096  # bytes of one sequence of Llama 3 8B between stages, 16 bits
PIPELINE = {**LLAMA, "tp": 8, "pp": 2}


@pytest.mark.parametrize(
    ("stack", "sp", "part"),
    [
        ("megatron-2021", False, 8),
        ("megatron-2021", True, 8),
        ("deepspeed-megatron-2022", False, 1),
        ("deepspeed-megatron-2022", True, 8),
    ],
)
def test_megatron_hands_a_tensor_parallel_part_of_an_activation_to_the_next_stage(
    place, stack, sp, part
):
    """Its scatter before each send and gather after it leave b s h / t between a pair of ranks
    ([narayanan2021], section 4.1); under sequence parallelism no rank has more, nor needs more;
    without either each rank sends all of b s h.
    """
    spread = place(**PIPELINE, stack=stack, sp=sp).outcome
    gather = float(seconds(all_gather, HANDED, 8, 1, 16)) if part == 8 and not sp else 0.0
    assert spread.pipe.hop == pytest.approx(
        float(seconds(send_recv, HANDED / part, 2, 8, 16)) + gather
    )
    assert spread.sent["pp"] == 2 * 128 * HANDED / part


@pytest.mark.parametrize("vpp", [1, 2])
def test_each_micro_batch_goes_down_and_its_gradient_comes_up_once_a_part(place, vpp):
    """v parts a rank send v times as much ([narayanan2021], section 2.2.2)."""
    spread = place(**{**PIPELINE, "tp": 1}, vpp=vpp).outcome
    assert spread.sent["pp"] == 2 * 128 * vpp * HANDED


@pytest.mark.parametrize(
    ("stack", "vpp", "waits"),
    [("megatron-2021", 2, True), ("te-nemo-2024", 2, False), ("te-nemo-2024", 1, True)],
)
def test_only_interleaved_stages_send_behind_compute_and_only_where_the_stack_lets_them(
    place, stack, vpp, waits
):
    """Megatron Core overlaps its pipeline's sends under the interleaved schedule alone
    (--overlap-p2p-communication).
    """
    assert (place(**PIPELINE, stack=stack, vpp=vpp).outcome.pipe.hop > 0.0) == waits


def test_a_stack_says_how_its_traffic_hides(place):
    at = place(**PIPELINE, stack="te-nemo-2024").at
    assert (
        at.hide["tp"]
        == at.step.recipe.stack.overlap["tp"]
        > place(**PIPELINE, stack="megatron-2021").at.hide["tp"]
        == 1.0
    )
    mine = msgspec.structs.replace(at.step.recipe.stack, overlap={"dp": 9.0})
    changed = at._replace(
        step=at.step._replace(recipe=msgspec.structs.replace(at.step.recipe, stack=mine))
    )
    assert changed.hide["dp"] == 9.0 and changed.hide["tp"] == 1.0


def test_handing_on_one_stage_alone_costs_nothing(place):
    assert float(crossing(place(**GPT2, dp=8).at, HANDED, "none").seconds) == 0.0
