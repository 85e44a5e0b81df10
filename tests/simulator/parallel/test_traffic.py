"""Traffic between ranks: each exchange as its source describes it, in collectives and bytes."""

import msgspec
import pytest

from roofcast import hwdb, predict
from roofcast.hwdb.collective_constants import collectives
from roofcast.simulator.parallel.collectives import (
    all_gather,
    all_reduce,
    reduce_scatter,
    send_recv,
)
from roofcast.simulator.parallel.fabric import placed
from roofcast.simulator.parallel.networks import fabric_of
from roofcast.simulator.parallel.reductions import Reduction, copied, reduction, waited
from roofcast.simulator.parallel.stages import units
from roofcast.simulator.parallel.traffic import Cost, crossing, filling, gathered

GPT2 = {
    "model": "gpt2", "device": "h100-sxm5", "sequence": 256, "batch": 128, "micro_batch": 1,
    "precision": "bf16",
}  # fmt: skip
LLAMA = {**GPT2, "model": "llama-3-8b", "sequence": 2048}
MIXTRAL = {**GPT2, "model": "mixtral-8x7b"}
C, N = collectives(), 1e9  # weights


def seconds(kind, bytes_, size, stride, devices, links="x1"):
    """Seconds of one collective over `size` ranks that are `stride` apart, on `devices` H100s in
    nodes of eight. links: edit of the NVLink bandwidth.
    """
    fabric = fabric_of(None, hwdb.device("h100-sxm5", {"scale_up.bandwidth": links}), devices)
    return kind(bytes_, placed(size, stride, fabric), fabric, C)


# ---------------------------------------------------------------- gradients, once per step
def test_without_zero_gradients_are_all_reduced_once(place):
    cost = reduction(place(**GPT2, dp=64).at, N, 0.0).both
    assert cost.seconds == pytest.approx(seconds(all_reduce, 2 * N, 64, 1, 64))
    assert cost.bytes == pytest.approx(2 * 2 * N * 63 / 64)


@pytest.mark.parametrize(("links", "slower"), [("x1", "across"), ("x0.25", "within")])
def test_hybrid_sharding_in_a_node_takes_the_slower_of_nvlink_and_network(place, links, slower):
    """Gradients are scattered over the 8 ranks of a sharding group, and each eighth is all-reduced
    over the 8 copies of the group [zhao2023]. The two use different links and overlap. Then the
    updated weights are gathered within the node.
    """
    at = place(**GPT2, dp=64, zero=1, shard=8, set={"scale_up.bandwidth": links}).at
    gradients = 2 * N
    cost = reduction(at, N, 0.0).both
    halves = {
        "within": seconds(reduce_scatter, gradients, 8, 1, 64, links),
        "across": seconds(all_reduce, gradients / 8, 8, 8, 64, links),
    }
    assert max(halves, key=halves.get) == slower
    gather = seconds(all_gather, 2 * N, 8, 1, 64, links)
    assert cost.seconds == pytest.approx(halves[slower] + gather)
    sent = gradients * 7 / 8 + 2 * gradients / 8 * 7 / 8 + 2 * N * 7 / 8
    assert cost.bytes == pytest.approx(sent)


def test_if_a_sharding_group_spans_nodes_scatter_and_all_reduce_do_not_overlap(place):
    """Both cross the network, one after the other."""
    cost = reduction(place(**GPT2, dp=64, zero=1, shard=16).at, N, 0.0).both
    halves = seconds(reduce_scatter, 2 * N, 16, 1, 64) + seconds(all_reduce, 2 * N / 16, 4, 16, 64)
    assert cost.seconds == pytest.approx(halves + seconds(all_gather, 2 * N, 16, 1, 64))


def test_zero_2_scatters_gradients_after_every_micro_batch_and_gathers_weights_once(place):
    """Sharded gradients cannot wait for the last micro-batch [rajbhandari2019]."""
    cost = reduction(place(**GPT2, dp=8, zero=2).at, N, 0.0).both  # 16 micro-batches per rank
    scatter, gather = (seconds(kind, 2 * N, 8, 1, 8) for kind in (reduce_scatter, all_gather))
    assert cost.seconds == pytest.approx(16 * scatter + gather)
    assert cost.bytes == pytest.approx((16 + 1) * 2 * N * 7 / 8)


def test_with_master_weights_gradients_are_reduced_in_fp32_and_weights_gathered_in_bf16(place):
    cost = reduction(place(**GPT2, dp=8, zero=1, stack="megatron-2021").at, N, 0.0).both
    scatter, gather = seconds(reduce_scatter, 4 * N, 8, 1, 8), seconds(all_gather, 2 * N, 8, 1, 8)
    assert cost.bytes == pytest.approx((4 + 2) * N * 7 / 8)
    assert cost.seconds == pytest.approx(scatter + gather)


def test_gradients_of_experts_are_reduced_over_the_ranks_that_hold_the_same_experts(place):
    """32 ranks under ep 4: 8 ranks hold the same experts, at a distance of 4."""
    for zero in (0, 1):
        at = place(**MIXTRAL, dp=32, ep=4, zero=zero).at
        cost = reduction(at, 0.0, N).both
        sharded = seconds(reduce_scatter, 2 * N, 8, 4, 32) + seconds(all_gather, 2 * N, 8, 4, 32)
        expected = sharded if zero else seconds(all_reduce, 2 * N, 8, 4, 32)
        assert cost.seconds == pytest.approx(expected)
        both = reduction(at, N, N).both
        assert both.bytes == pytest.approx(cost.bytes + reduction(at, N, 0.0).both.bytes)


def test_zero_3_has_no_reduction_at_the_end_except_in_a_pipeline_that_keeps_its_weights(place):
    """Elsewhere the reduction is done layer by layer."""
    for done in ({"dp": 8}, {"dp": 8, "reshard": False}, {"dp": 4, "pp": 2, "reshard": True}):
        assert reduction(place(**GPT2, **done, zero=3).at, N, 0.0).both == (0.0, 0.0)
    zero_3, zero_1 = (reduction(place(**GPT2, dp=4, pp=2, zero=z).at, N, 0.0).both for z in (3, 1))
    assert zero_3.seconds == pytest.approx(zero_1.seconds)
    assert zero_3.seconds > 0.0


# ---------------------------------------------------------------- weights, layer by layer
ALL = (N, 0.0)
FORMATS = {  # precision, stack: bytes of a weight gathered, and of a gradient scattered
    ("bf16", "pytorch-eager"): (2, 2),  # [rajbhandari2019]
    ("fp32", "pytorch-eager"): (4, 4),
    # without MixedPrecision, FSDP shards and gathers the fp32 weights that autocast reads
    ("amp-bf16", "pytorch-eager"): (4, 4),
    ("bf16", "fsdp-eager"): (2, 2),  # Composer's PURE
    ("amp-bf16", "fsdp-eager"): (2, 2),
    ("fp32", "fsdp-eager"): (4, 4),
    ("bf16", "fsdp-torchtitan"): (2, 4),  # param_dtype bfloat16, reduce_dtype float32
    ("amp-bf16", "fsdp-torchtitan"): (2, 4),
    ("tf32", "fsdp-torchtitan"): (4, 4),
    ("bf16", "fsdp-fused"): (4, 2),  # Lightning 2.1, bf16-mixed
    ("fp16", "deepspeed-zero3-2021"): (2, 2),
    ("bf16", "te-nemo-2024"): (2, 4),  # gradients are accumulated and reduced in fp32
    ("bf16", "maxtext"): (2, 2),
}


@pytest.mark.parametrize(("how", "width"), FORMATS.items(), ids=lambda x: "-".join(map(str, x)))
def test_zero_3_gathers_and_scatters_in_the_formats_of_its_stack_and_precision(place, how, width):
    """Weights are gathered before each pass, gradients scattered once.

    Weights that stay gathered after the forward are not gathered again.
    """
    asked = {**GPT2, "precision": how[0], "stack": how[1], "dp": 8, "zero": 3}
    at = place(**asked).at
    gather = seconds(all_gather, width[0] * N, 8, 1, 8)
    scatter = seconds(reduce_scatter, width[1] * N, 8, 1, 8)
    down, up, _ = gathered(at, ALL, ALL, "forward")
    assert (down.seconds, up) == (pytest.approx(gather), (0.0, 0.0))
    assert down.bytes == pytest.approx(width[0] * N * 7 / 8)
    down, up, _ = gathered(at, ALL, ALL, "backward")
    assert (down.seconds, up.seconds) == (pytest.approx(gather), pytest.approx(scatter))
    assert (down.bytes, up.bytes) == tuple(pytest.approx(w * N * 7 / 8) for w in width)
    kept = place(**asked, reshard=False).at
    assert gathered(kept, ALL, ALL, "backward")[0] == (0.0, 0.0)


def test_zero_3_scatters_no_gradients_of_frozen_weights(place):
    at = place(**GPT2, dp=8, zero=3).at
    down, up, _ = gathered(at, ALL, (0.0, 0.0), "backward")
    assert (down, up) == (gathered(at, ALL, ALL, "backward")[0], (0.0, 0.0))


def test_zero_3_gathers_experts_over_the_ranks_that_hold_the_same_experts(place):
    cost, *_ = gathered(place(**MIXTRAL, dp=32, ep=4, zero=3).at, (0.0, N), (0.0, N), "forward")
    assert cost.seconds == pytest.approx(seconds(all_gather, 2 * N, 8, 4, 32))
    assert cost.bytes == pytest.approx(2 * N * 7 / 8)


# ---------------------------------------------------------------- inside the model
def test_ring_attention_sends_the_keys_of_a_rank_to_its_neighbour_n_minus_1_times(place):
    """Each of n ranks holds an n-th of the sequence and passes one part on per step [liu2023]."""
    cost = place(**LLAMA, cp=4).at.network.cost("ring", "cp", 8e6)
    assert cost.seconds == pytest.approx(3 * seconds(send_recv, 2e6, 4, 1, 4))
    assert cost.bytes == 6e6


ACTIVATION = 2 * 2048 * 4096  # bytes of one sequence of Llama 3 8B between stages, 16 bits
PIPELINE = {**LLAMA, "tp": 8, "pp": 2}
PARTS = [  # stack, sequence parallel, ranks over which the activation is split for the send
    ("megatron-2021", False, 8),
    ("megatron-2021", True, 8),
    ("deepspeed-megatron-2022", False, 8),
    ("deepspeed-zero3-2021", False, 1),
    ("deepspeed-zero3-2021", True, 8),
]


@pytest.mark.parametrize(("stack", "sp", "part"), PARTS)
def test_activations_are_split_over_tensor_parallel_ranks_to_send_them_between_stages(
    place, stack, sp, part
):
    """Scatter before the send and gather after it leave b s h / t per pair of ranks
    ([narayanan2021], section 4.1). Under sequence parallelism a rank holds and needs no more than
    that. Without either, each rank sends b s h.
    """
    outcome = place(**PIPELINE, stack=stack, sp=sp).outcome
    send = float(seconds(send_recv, ACTIVATION / part, 2, 8, 16))
    gather = float(seconds(all_gather, ACTIVATION, 8, 1, 16)) if part == 8 and not sp else 0.0
    assert outcome.pipe.hop == pytest.approx(send + gather)
    assert outcome.sent["pp"] == 2 * 128 * ACTIVATION / part


@pytest.mark.parametrize("vpp", [1, 2])
def test_each_virtual_stage_sends_one_activation_and_one_gradient_per_micro_batch(place, vpp):
    """v virtual stages per rank send v times as much ([narayanan2021], section 2.2.2)."""
    outcome = place(**{**PIPELINE, "tp": 1}, vpp=vpp).outcome
    assert outcome.sent["pp"] == 2 * 128 * vpp * ACTIVATION


@pytest.mark.parametrize(
    ("stack", "vpp", "exposed"),
    [("megatron-2021", 2, True), ("te-nemo-2024", 2, False), ("te-nemo-2024", 1, True)],
)
def test_sends_between_stages_overlap_only_if_interleaved_and_only_if_the_stack_allows_it(
    place, stack, vpp, exposed
):
    """Megatron Core overlaps them under the interleaved schedule alone
    (--overlap-p2p-communication).
    """
    assert (place(**PIPELINE, stack=stack, vpp=vpp).outcome.pipe.hop > 0.0) == exposed


def test_overlap_exponents_of_a_stack_replace_the_defaults(place):
    at, default = (place(**PIPELINE, stack=s).at for s in ("te-nemo-2024", "megatron-2021"))
    assert at.hide["tp"] == at.step.recipe.stack.overlap["tp"] > default.hide["tp"] == 1.0
    mine = msgspec.structs.replace(at.step.recipe.stack, overlap={"dp": 9.0})
    recipe = msgspec.structs.replace(at.step.recipe, stack=mine)
    changed = at._replace(step=at.step._replace(recipe=recipe))
    assert changed.hide["dp"] == 9.0 and changed.hide["tp"] == 1.0


# ---------------------------------------------------------------- what hides behind what
NONE = Cost(0.0, 0.0)


def exposed(place, gradients=0.0, weights=0.0, last=0.0, backward=1.0, **options):
    """Exposed seconds of a reduction; a forward takes half of the backward."""
    at = place(**GPT2, **{"dp": 64, "zero": 1, **options}).at
    moved = Reduction(NONE._replace(seconds=gradients), NONE._replace(seconds=weights))
    return float(waited(at, moved, last, backward / 2, backward))


def test_gradients_hide_behind_one_micro_batch_only(place):
    """However many micro-batches there are: gradients are complete in the last one (the no_sync
    of PyTorch's DistributedDataParallel). Kernels of collectives take a share of compute.
    """
    taken = C.networks["hopper"].contention
    assert exposed(place, gradients=0.1) == pytest.approx(0.1 * taken, rel=0.01)
    assert exposed(place, gradients=9.0) == pytest.approx(8.0, rel=0.01)
    assert exposed(place, gradients=9.0, dp=2) == exposed(place, gradients=9.0)
    assert exposed(place, gradients=9.0, zero=2) < exposed(place, gradients=9.0)


def test_the_embedding_s_gradient_hides_behind_nothing(place):
    """It is the last that the backward computes."""
    alone = exposed(place, gradients=0.1, last=1.0)
    assert alone == pytest.approx(0.1)
    assert exposed(place, gradients=0.1) < exposed(place, gradients=0.1, last=0.3) < alone


def test_updated_weights_hide_behind_the_next_forward_where_the_stack_gathers_ahead(place):
    """Megatron-Core's overlap_param_gather."""
    assert exposed(place, weights=0.3) == pytest.approx(0.3)
    assert exposed(place, weights=0.3, stack="te-nemo-2024") < 0.1
    assert exposed(place, weights=3.0, stack="te-nemo-2024") == pytest.approx(2.5, rel=0.05)


def test_parts_of_an_interleaved_pipeline_hide_behind_the_passes_of_the_others(place):
    """Of the 2 parts of a stage, the first to finish has 2 micro-batches of the other behind it."""
    piped = {"pp": 2, "dp": 4, "stack": "te-nemo-2024"}
    plain, parts = (exposed(place, gradients=9.0, vpp=v, **piped) for v in (1, 2))
    assert plain == pytest.approx(8.0, rel=0.01)
    assert parts == pytest.approx(7.5, rel=0.01)


def test_lists_cost_a_copy_per_rank_and_tensor(place):
    """reduce_scatter and all_gather of lists copy every part in or out (PyTorch,
    ProcessGroupNCCL).
    """
    lists = place(**GPT2, dp=64, zero=1, stack="nanotron").at
    assert float(copied(lists, 100.0)) == pytest.approx(2 * 64 * 100 * 4e-6)
    assert float(copied(place(**GPT2, dp=64, zero=0, stack="nanotron").at, 100.0)) == 0.0
    assert float(copied(place(**GPT2, dp=64, zero=1).at, 100.0)) == 0.0


@pytest.mark.parametrize(("tp", "over_nodes"), [(8, False), (16, True)])
def test_nanotron_s_collectives_cost_more_over_nodes(place, tp, over_nodes):
    """Each further rank of a group that crosses nodes adds far_s, in the two gathers and the two
    scatters of a layer's forward.
    """
    at, times, _ = place(**LLAMA, dp=1, tp=tp, stack="nanotron")
    mine = at.step.recipe.stack
    recipe = msgspec.structs.replace(at.step.recipe, stack=msgspec.structs.replace(mine, far_s=0.0))
    without = at._replace(step=at.step._replace(recipe=recipe))
    more, less = (
        next(u for u in units(x, times) if u.layers).traffic["forward", "tp", False].seconds
        for x in (at, without)
    )
    assert more - less == pytest.approx(4 * 15 * mine.far_s if over_nodes else 0.0, abs=1e-9)


def test_a_pipeline_of_nanotron_over_nodes_holds_the_host_up_at_each_collective(place):
    step = {**LLAMA, "batch": 8, "dp": 1, "tp": 4, "stack": "nanotron"}
    near, far = place(**step, pp=2).outcome, place(**step, pp=4).outcome  # one node, and two
    assert far.host_s > near.host_s  # though a device has half as many layers


def test_a_pipeline_of_one_stage_sends_nothing(place):
    assert float(crossing(place(**GPT2, dp=8).at, ACTIVATION, "none").seconds) == 0.0


@pytest.mark.parametrize(("stack", "hidden"), [("te-nemo-2024", True), ("megatron-2022", False)])
def test_sends_hidden_in_an_interleaved_pipeline_are_exposed_while_it_fills_and_drains(
    place, stack, hidden
):
    """A micro-batch passes all p v parts before there is other work: p v - 1 sends each way."""
    step = {**LLAMA, "batch": 64, "dp": 1, "pp": 4, "stack": stack}
    at = place(**step, vpp=4, schedule="interleaved").at
    once = float(crossing(at, ACTIVATION, "1f1b").seconds)
    assert once > 0.0
    held_up = float(filling(at, ACTIVATION, "interleaved"))
    assert held_up == pytest.approx(2 * (4 * 4 - 1) * once if hidden else 0.0)
    exposed = float(crossing(at, ACTIVATION, "interleaved").seconds)
    assert exposed == pytest.approx(0.0 if hidden else once)
    assert float(filling(at, ACTIVATION, "1f1b")) == 0.0


def test_a_faster_network_shortens_the_filling_of_an_interleaved_pipeline(place):
    step = {**LLAMA, "batch": 64, "dp": 4, "pp": 4, "vpp": 4, "schedule": "interleaved"}
    step |= {"stack": "te-nemo-2024"}
    near, far = (place(**step, set={"scale_up.bandwidth": x}).at for x in ("x2", "x0.5"))
    assert float(filling(near, ACTIVATION, "interleaved")) < float(
        filling(far, ACTIVATION, "interleaved")
    )


def test_nanotron_s_all_reduce_hides_behind_the_last_backward_and_its_scatter_does_not(place):
    """The all-reduce is asynchronous; lists of parts are flattened on the stream of the backward
    first (nanotron, optim/gradient_accumulator.py).
    """
    hidden = exposed(place, gradients=0.1, stack="nanotron", zero=0)
    assert hidden == pytest.approx(exposed(place, gradients=0.1), rel=1e-6)
    assert exposed(place, gradients=0.1, stack="nanotron", zero=1) == pytest.approx(0.1)


@pytest.mark.parametrize(("dp", "steps"), [(8, 0), (64, 2 * 7 + 2 * 3)])
def test_nanotron_pays_the_latency_of_each_tensor_it_sums_and_bucket_it_scatters(place, dp, steps):
    """all_reduce_coalesced sums the weights of a bucket one by one, reduce_scatter_coalesced
    flattens them. Over nodes a chain of eight ranks, up and down, and a tree over eight nodes.
    """
    at = place(**GPT2, dp=dp, zero=0, stack="nanotron").at
    far, total = steps * at.step.recipe.stack.far_s, at.step.parameters
    rows = units(at, place(**GPT2, dp=dp, zero=0, stack="nanotron").times)
    each, buckets = (
        sum(getattr(u, name) * max(u.layers, 1) for u in rows) for name in ("tensors", "buckets")
    )
    assert each == sum(w.count for w in at.step.weights) == 148
    assert 4 <= buckets <= 2 * total / (25 * 2**20)  # none is smaller than 25 MiB but the last
    once = seconds(all_reduce, 4 * total / each, dp, 1, dp) + far
    moved = reduction(at, total, 0.0, each, buckets)
    assert moved.gradients.seconds == pytest.approx(each * once)
    at = place(**GPT2, dp=dp, zero=1, stack="nanotron").at
    once = seconds(reduce_scatter, 4 * total / buckets, dp, 1, dp) + far
    moved = reduction(at, total, 0.0, each, buckets)
    assert moved.gradients.seconds == pytest.approx(buckets * once)


def test_internevo_all_reduces_16_bit_gradients_over_all_ranks_whatever_its_zero_group(place):
    """reduce_tensor of internlm/solver/optimizer/utils.py; the weights of a group are gathered."""
    for shard in (8, 64):
        cost = reduction(place(**GPT2, dp=64, zero=1, shard=shard, stack="internevo-2023").at, N, 0)
        assert cost.gradients.seconds == pytest.approx(seconds(all_reduce, 2 * N, 64, 1, 64))
        assert cost.weights.seconds == pytest.approx(seconds(all_gather, 2 * N, shard, 1, 64))


def test_sums_over_the_copies_of_a_shard_are_exposed_where_a_stack_hides_none(place):
    """Under ZeRO 3 in a node: the scatter hides behind the backward, the sum over nodes adds."""
    asked = GPT2 | {"dp": 16, "zero": 3, "shard": 8}
    hidden, bare = (place(**asked, stack=s).at for s in ("maxtext", "maxtext-gpu"))
    weights = (1e8, 0.0)
    down, up, alone = gathered(bare, weights, weights, "backward")
    assert alone.seconds == bare.network.cost("all_reduce", "copies", 2e8 / 8).seconds > 0.0
    assert gathered(hidden, weights, weights, "backward")[2].seconds == 0.0
    assert down == gathered(hidden, weights, weights, "backward")[0]
    assert up.seconds < gathered(hidden, weights, weights, "backward")[1].seconds
    assert gathered(bare, weights, weights, "forward")[2].seconds == 0.0
    with_sum, without = (step_seconds(asked, s) for s in ("maxtext-gpu", "maxtext"))
    one, same = (step_seconds(asked | {"dp": 8}, s) for s in ("maxtext-gpu", "maxtext"))
    assert with_sum > without and one == same


def step_seconds(asked, stack):
    return predict(**asked, stack=stack).step_time_s


def test_a_network_with_constants_of_its_own_has_them():
    """TCP into the device's memory reaches 0.58 of its NICs, InfiniBand 0.8."""
    device = hwdb.device("h100-sxm5")
    of = {"gcp-a3-highgpu-8g": "gpudirect-tcpx", "gcp-a3-megagpu-8g": "network"}
    for system, section in of.items():
        assert fabric_of(hwdb.system(system), device, 16).levels[-1].constants == section
    assert C.networks["gpudirect-tcpx"].share < C.networks["network"].share
