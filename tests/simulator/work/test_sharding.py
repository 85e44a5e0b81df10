"""Context parallelism, expert tensor parallelism, hybrid sharding, given stages, offload."""

import math

import pytest

from roofcast import predict
from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.models import resolve
from roofcast.simulator.software.stack import stack
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.traced import Parallel

ASKED = {
    "model": "llama-3-8b",
    "device": "h100-sxm5",
    "sequence": 4096,
    "batch": 64,
    "micro_batch": 1,
    "devices": 16,
}
EXPERTS = {
    "model": "mixtral-8x7b",
    "device": "h100-sxm5",
    "sequence": 2048,
    "batch": 64,
    "micro_batch": 1,
    "devices": 16,
    "zero": 1,
}


def traced(model, parallel, batch=1, sequence=1024):
    tape = Tape(precision("bf16"), parallel=parallel)
    resolve(model).run(tape, batch, sequence // parallel.cp)
    return tape


def work(tape):
    return sum(k.matrix * k.count for k in tape.kernels)


def kept(tape):
    return sum(s.bytes * s.count for s in tape.saved.values())


def sent(tape, group, phase):
    """Bytes that a rank sends, by kind of collective."""
    total = {}
    for t in tape.traffic:
        if (t.group, t.phase) == (group, phase):
            total[t.kind] = total.get(t.kind, 0) + t.bytes * t.count
    return total


# ---------------------------------------------------------------- context parallelism
@pytest.mark.parametrize("kind", ["ring", "all-gather", "ulysses"])
@pytest.mark.parametrize("tp", [1, 2])
def test_the_ranks_together_do_the_whole_work_once(kind, tp):
    alone = Parallel(tp=tp, sp=tp > 1)
    layouts = alone, alone._replace(cp=4, cp_kind=kind)
    whole, rank = (traced("llama-3-8b", layout) for layout in layouts)
    assert work(rank) * 4 == pytest.approx(work(whole))
    # Ulysses keeps the result of attention in both forms
    assert kept(rank) * 4 == pytest.approx(kept(whole), rel=0.05)


def test_bytes_that_each_algorithm_sends():
    """A rank holds n = s / cp tokens.

    Ring and all-gather move the keys and values of the other ranks, 2 kv; Ulysses moves the rank's
    own part of q, k, v and the result.
    """
    layers, cp, n = 32, 4, 1024 // 4
    q, kv = 2 * n * 4096, 2 * n * 1024
    ring, gather, ulysses = (
        traced("llama-3-8b", Parallel(cp=cp, cp_kind=k)) for k in ("ring", "all-gather", "ulysses")
    )
    assert sent(ring, "cp", "forward") == {"ring": layers * cp * 2 * kv}
    whole = layers * cp * 2 * kv
    assert sent(gather, "cp", "forward") == {"all_gather": whole}
    assert sent(gather, "cp", "backward") == {"all_gather": whole, "reduce_scatter": whole}
    expected = {"all_to_all": layers * (2 * q + 2 * kv)}
    assert sent(ulysses, "cp", "forward") == sent(ulysses, "cp", "backward") == expected


def test_only_the_ring_overlaps_with_attention():
    kinds = ("ring", "all-gather", "ulysses")
    ring, gather, ulysses = (
        predict(**ASKED, cp=8, cp_kind=k).exposed_communication_s["context"] for k in kinds
    )
    assert ring < 0.2 * min(gather, ulysses)


def test_ulysses_repeats_key_heads_if_there_are_fewer_than_ranks():
    tape = traced("llama-3-8b", Parallel(cp=16, cp_kind="ulysses"))  # 8 key heads
    q = 2 * (1024 // 16) * 4096
    assert sent(tape, "cp", "forward") == {"all_to_all": 32 * (2 * q + 2 * q // 2)}


# ---------------------------------------------------------------- experts
@pytest.mark.parametrize(("ep", "etp"), [(1, 2), (2, 2), (4, 2), (1, 8)])
def test_ranks_with_parts_of_experts_do_the_whole_work_once(ep, etp):
    layouts = Parallel(), Parallel(ep=ep, etp=etp)
    whole, rank = (traced("mixtral-8x7b", layout) for layout in layouts)
    # a part of an expert is narrower, but processes the rows of more ranks
    assert work(rank) == work(whole)
    experts = [sum(w.size * w.count for w in t.weights if w.expert) for t in (whole, rank)]
    assert experts[1] * ep * etp == experts[0]


def test_expert_tensor_parallelism_gathers_rows_and_reduces_results():
    rows = 2 * 1024 * 2 * 4096  # bytes in bf16, tokens, experts per token, width
    tape = traced("mixtral-8x7b", Parallel(etp=4))
    expected = {"all_gather": 32 * 4 * rows, "reduce_scatter": 32 * 4 * rows}
    assert sent(tape, "etp", "forward") == sent(tape, "etp", "backward") == expected


def test_whole_experts_send_less_than_parts_of_them():
    whole, parts = predict(**EXPERTS, ep=8), predict(**EXPERTS, ep=4, etp=2)
    assert whole.step_time_s < parts.step_time_s
    assert whole.memory.parameters_bytes == parts.memory.parameters_bytes
    assert set(parts.communication_bytes) == {"expert", "expert tensor", "data"}


# ---------------------------------------------------------------- ZeRO sharding groups
@pytest.mark.parametrize("zero", [1, 2, 3])
def test_a_sharding_group_of_all_ranks_is_the_default(zero):
    default, all_ranks = predict(**ASKED, zero=zero), predict(**ASKED, zero=zero, shard=16)
    assert all_ranks.step_time_s == default.step_time_s


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_a_rank_of_a_larger_sharding_group_holds_less(zero):
    peaks = [predict(**ASKED, zero=zero, shard=n).memory.peak_bytes for n in (1, 2, 4, 8, 16)]
    assert peaks == sorted(peaks, reverse=True) and peaks[0] > peaks[-1]


def test_hybrid_sharding_keeps_gathers_within_a_node_on_a_slow_network():
    edges = {**ASKED, "device": "a100-pcie-80gb", "devices": 32, "zero": 3, "recompute": "full"}
    inside, across = predict(**edges, shard=8), predict(**edges)
    exposed = [f.exposed_communication_s["sharded weights"] for f in (inside, across)]
    assert exposed[0] < exposed[1]
    assert inside.memory.optimizer_bytes == pytest.approx(4 * across.memory.optimizer_bytes)


def test_weights_that_are_not_resharded_are_gathered_once():
    drop, stay = predict(**ASKED, zero=3), predict(**ASKED, zero=3, reshard=False)
    dropped, stayed = (f.communication_bytes["sharded weights"] for f in (drop, stay))
    assert stayed == pytest.approx(2 / 3 * dropped)
    assert stay.step_time_s <= drop.step_time_s
    assert stay.memory.peak_bytes > drop.memory.peak_bytes


def test_zero_3_in_a_pipeline_reshards_weights_only_on_request():
    one, stay, drop = (
        predict(**ASKED, pp=4, zero=1),
        predict(**ASKED, pp=4, zero=3),
        predict(**ASKED, pp=4, zero=3, reshard=True),
    )
    assert stay.step_time_s == pytest.approx(one.step_time_s)
    assert any("reshard" in a for a in stay.assumptions)
    # with reshard, every micro-batch gathers
    assert drop.communication_bytes["sharded weights"] > 5 * stay.communication_bytes["data"]
    assert drop.memory.peak_bytes < stay.memory.peak_bytes


# ---------------------------------------------------------------- stages
def test_given_stages_are_used():
    usual, same = predict(**ASKED, pp=4), predict(**ASKED, pp=4, stages=(8, 8, 8, 8))
    assert usual.step_time_s == same.step_time_s
    uneven = predict(**ASKED, pp=4, stages=(9, 7, 7, 9))
    assert [r.layers for r in uneven.ranks] == [9, 7, 7, 9]
    assert uneven.step_time_s > usual.step_time_s
    lighter = predict(**ASKED, pp=4, stages=(8, 8, 9, 7))  # fewer layers beside the head
    assert lighter.ranks[3].parameters_bytes < usual.ranks[3].parameters_bytes


def test_given_virtual_stages_are_used():
    f = predict(**ASKED, pp=2, vpp=2, stages=(7, 9, 9, 7))
    assert [r.layers for r in f.ranks] == [16, 16]


# ---------------------------------------------------------------- offload to host memory
def test_offloaded_optimizer_states_occupy_no_device_memory():
    here, there = predict(**ASKED, zero=1), predict(**ASKED, zero=1, offload=("optimizer",))
    assert there.memory.optimizer_bytes == 0 < here.memory.optimizer_bytes
    assert there.update_s > here.update_s and there.step_time_s > here.step_time_s


def test_offloaded_activations_cost_the_exposed_copy_time():
    here, there = predict(**ASKED, zero=1), predict(**ASKED, zero=1, offload=("activations",))
    assert there.memory.activations_bytes < 0.3 * here.memory.activations_bytes
    lost = there.exposed_communication_s["offload"]
    assert there.step_time_s == pytest.approx(here.step_time_s + lost, rel=0.01)
    micro_batches = 4
    assert there.communication_bytes["offload"] <= 2 * there.saved_bytes * micro_batches


def test_offload_on_one_device_keeps_the_activations_of_two_layers():
    asked = {"model": "llama-3-8b", "device": "gb200", "batch": 4, "sequence": 4096}
    asked["optimizer"] = "none"
    here, there = predict(**asked), predict(**asked, offload=("activations",))
    layer = sum(row.saved_bytes for row in here.layers if ".layers." in row.name) / 32
    moved = here.memory.activations_bytes - there.memory.activations_bytes
    assert moved == pytest.approx(30 * layer, rel=0.02)
    asked["recompute"] = "full"
    here, there = predict(**asked), predict(**asked, offload=("activations",))
    # copying a checkpoint per layer overlaps with the layer
    assert there.step_time_s < 1.02 * here.step_time_s


ONE_M3_MAX = {"device": "m3-max", "devices": None, "micro_batch": None, "batch": 1}
REJECTED = {
    "cp kind": ({"cp": 2, "cp_kind": "rings"}, "ring"),
    "cp kind alone": ({"cp_kind": "ulysses"}, "--cp 2"),
    "ulysses with indivisible heads": (
        {"cp": 3, "devices": 3, "batch": 3, "cp_kind": "ulysses", "sequence": 4095},
        "heads",
    ),
    "ulysses with indivisible tokens": ({"cp": 2, "cp_kind": "ulysses", "sequence": 4095}, "4094"),
    "indivisible experts and etp": ({"model": "mixtral-8x7b", "ep": 8, "etp": 4}, "ep 8 x etp 4"),
    "width of an expert": (
        {"model": "mixtral-8x7b", "etp": 5, "devices": 40, "batch": 40},
        "width",
    ),
    "shard without zero": ({"shard": 8}, "--zero"),
    "shard": ({"zero": 1, "shard": 5}, "use 4"),
    "reshard without zero 3": ({"zero": 1, "reshard": True}, "--zero 3"),
    "zero 2 in a pipeline": ({"pp": 2, "zero": 2}, "zero 1 or 3"),
    "number of stages": ({"pp": 2, "stages": (8, 8, 16)}, "3 numbers"),
    "number of layers in stages": ({"pp": 2, "stages": (8, 8)}, "32"),
    "negative stages": ({"pp": 2, "stages": (-1, 33)}, "whole numbers"),
    "offload of weights": ({"offload": ("weights",)}, "optimizer"),
    "offload on a shared memory": ({**ONE_M3_MAX, "offload": ("optimizer",)}, "host"),
    "offload in inference": ({"mode": "infer", "offload": ("activations",)}, "inference"),
    "offload without an optimizer": (
        {"optimizer": "none", "offload": ("optimizer",)},
        "--optimizer",
    ),
    "offload of a net without layers": (
        {"model": "alexnet", "sequence": None, "offload": ("activations",)},
        "layers",
    ),
}


@pytest.mark.parametrize(("change", "names"), REJECTED.values(), ids=REJECTED)
def test_invalid_requests_are_rejected_in_one_line(change, names):
    with pytest.raises(RoofcastError) as error:
        predict(**{**ASKED, **change})
    assert "\n" not in str(error.value) and names in str(error.value)


def test_forecasts_of_all_kinds_are_finite():
    for change in (
        {"cp": 4, "cp_kind": "ulysses"},
        {"zero": 3, "shard": 4, "reshard": False},
        {"offload": ("optimizer", "activations")},
    ):
        f = predict(**ASKED, **change)
        assert math.isfinite(f.step_time_s) and f.low_s < f.step_time_s < f.high_s


def test_a_system_without_a_device_count_is_used_as_a_whole():
    f = predict(model="llama-3-8b", device="h100-sxm5", system="dgx-h100", sequence=1024)
    assert f.devices == 8 and f.batch == 8


@pytest.mark.parametrize("ranks", [2, 4])
def test_transformer_engine_splits_and_joins_the_steps_of_a_ring(ranks):
    """AttnFuncWithCP: 5 D + 1 launches forward and 7 D - 1 backward beside one attention each."""

    def joins(name, **how):
        tape = Tape(
            precision("bf16"),
            parallel=Parallel(cp=ranks, **how),
            implementations=stack(name).implementations,
        )
        resolve("llama-3-8b").run(tape, 1, 1024)
        found = [k for k in tape.kernels if k.kind == "eager"]
        return [sum(k.count for k in found if k.phase == p) / 32 for p in ("forward", "backward")]

    assert joins("te-nemo-2404") == [5 * ranks + 1, 7 * ranks - 1]
    assert joins("pytorch-eager") == joins("te-nemo-2404", cp_kind="all-gather") == [0, 0]


def test_a_ring_of_transformer_engine_keeps_and_computes_as_much_as_any():
    layout = ASKED | {"cp": 4}
    plain, joined = (predict(**layout, stack=s) for s in ("pytorch-eager", "te-nemo-2404"))
    assert joined.flops_forward == plain.flops_forward
    assert joined.communication_bytes["context"] == plain.communication_bytes["context"]
