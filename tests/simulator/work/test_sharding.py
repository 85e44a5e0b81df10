"""Kinds of context parallelism, parts of experts, hybrid sharding, given stages, the host's
memory.
"""

import math

import pytest

from roofcast import predict
from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.models import resolve
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
    return sum(held * count for _, held, count, _, _ in tape.saved.values())


def sent(tape, group, phase):
    return {
        tr.kind: sum(
            t.bytes * t.count
            for t in tape.traffic
            if (t.kind, t.group, t.phase) == (tr.kind, group, phase)
        )
        for tr in tape.traffic
        if (tr.group, tr.phase) == (group, phase)
    }


# ---------------------------------------------------------------- context parallelism
@pytest.mark.parametrize("kind", ["ring", "all-gather", "ulysses"])
@pytest.mark.parametrize("tp", [1, 2])
def test_every_kind_does_the_whole_work_once(kind, tp):
    whole, rank = (
        traced("llama-3-8b", Parallel(tp=tp, sp=tp > 1)),
        traced("llama-3-8b", Parallel(tp=tp, sp=tp > 1, cp=4, cp_kind=kind)),
    )
    assert work(rank) * 4 == pytest.approx(work(whole))
    assert kept(rank) * 4 == pytest.approx(
        kept(whole), rel=0.05
    )  # Ulysses keeps attention's result in both forms


def test_what_each_kind_sends():
    """A rank holds n = s / cp tokens: the others' keys and values, 2 kv, or its own part of q, k, v
    and the result.
    """
    layers, cp, n = 32, 4, 1024 // 4
    q, kv = 2 * n * 4096, 2 * n * 1024
    ring, gather, ulysses = (
        traced("llama-3-8b", Parallel(cp=cp, cp_kind=k)) for k in ("ring", "all-gather", "ulysses")
    )
    assert sent(ring, "cp", "forward") == {"ring": layers * cp * 2 * kv}
    assert sent(gather, "cp", "forward") == {"all_gather": layers * cp * 2 * kv}
    assert sent(gather, "cp", "backward") == {
        "all_gather": layers * cp * 2 * kv,
        "reduce_scatter": layers * cp * 2 * kv,
    }
    assert (
        sent(ulysses, "cp", "forward")
        == sent(ulysses, "cp", "backward")
        == {"all_to_all": layers * (2 * q + 2 * kv)}
    )


def test_only_the_ring_hides_behind_attention():
    kinds = ("ring", "all-gather", "ulysses")
    ring, gather, ulysses = (
        predict(**ASKED, cp=8, cp_kind=k).exposed_communication_s["context"] for k in kinds
    )
    assert ring < 0.2 * min(gather, ulysses)


def test_few_key_heads_are_copied_for_ulysses():
    tape = traced("llama-3-8b", Parallel(cp=16, cp_kind="ulysses"))  # 8 key heads
    q = 2 * (1024 // 16) * 4096
    assert sent(tape, "cp", "forward") == {"all_to_all": 32 * (2 * q + 2 * q // 2)}


# ---------------------------------------------------------------- experts
@pytest.mark.parametrize(("ep", "etp"), [(1, 2), (2, 2), (4, 2), (1, 8)])
def test_parts_of_experts_do_the_whole_work_once(ep, etp):
    whole, rank = (
        traced("mixtral-8x7b", Parallel()),
        traced("mixtral-8x7b", Parallel(ep=ep, etp=etp)),
    )
    assert work(rank) == work(whole)  # as many rows more as a part is narrower
    experts = [sum(w.size * w.count for w in t.weights if w.expert) for t in (whole, rank)]
    assert experts[1] * ep * etp == experts[0]


def test_parts_of_an_expert_gather_rows_and_add_up_results():
    rows = 2 * 1024 * 2 * 4096  # bf16, tokens, two experts each, width
    tape = traced("mixtral-8x7b", Parallel(etp=4))
    assert (
        sent(tape, "etp", "forward")
        == {"all_gather": 32 * 4 * rows, "reduce_scatter": 32 * 4 * rows}
        == sent(tape, "etp", "backward")
    )


def test_whole_experts_send_less_than_parts_of_them():
    whole, parts = predict(**EXPERTS, ep=8), predict(**EXPERTS, ep=4, etp=2)
    assert whole.step_time_s < parts.step_time_s
    assert whole.memory.parameters_bytes == parts.memory.parameters_bytes
    assert set(parts.communication_bytes) == {"expert", "expert tensor", "data"}


# ---------------------------------------------------------------- what ZeRO shards
@pytest.mark.parametrize("zero", [1, 2, 3])
def test_a_shard_over_all_ranks_is_the_usual_one(zero):
    assert (
        predict(**ASKED, zero=zero, shard=16).step_time_s == predict(**ASKED, zero=zero).step_time_s
    )


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_more_ranks_a_shard_hold_less(zero):
    peaks = [predict(**ASKED, zero=zero, shard=n).memory.peak_bytes for n in (1, 2, 4, 8, 16)]
    assert peaks == sorted(peaks, reverse=True) and peaks[0] > peaks[-1]


def test_hybrid_sharding_keeps_gathers_within_a_node_on_a_slow_network():
    edges = {**ASKED, "device": "a100-pcie-80gb", "devices": 32, "zero": 3, "recompute": "full"}
    inside, across = predict(**edges, shard=8), predict(**edges)
    assert (
        inside.exposed_communication_s["sharded weights"]
        < across.exposed_communication_s["sharded weights"]
    )
    assert inside.memory.optimizer_bytes == pytest.approx(4 * across.memory.optimizer_bytes)


def test_weights_that_stay_are_gathered_once():
    drop, stay = predict(**ASKED, zero=3), predict(**ASKED, zero=3, reshard=False)
    n = {k: f.communication_bytes["sharded weights"] for k, f in (("drop", drop), ("stay", stay))}
    assert n["stay"] == pytest.approx(2 / 3 * n["drop"]) and stay.step_time_s <= drop.step_time_s
    assert stay.memory.peak_bytes > drop.memory.peak_bytes


def test_zero_3_in_a_pipeline_keeps_weights_over_the_step_unless_told():
    one, stay, drop = (
        predict(**ASKED, pp=4, zero=1),
        predict(**ASKED, pp=4, zero=3),
        predict(**ASKED, pp=4, zero=3, reshard=True),
    )
    assert stay.step_time_s == pytest.approx(one.step_time_s) and any(
        "reshard" in a for a in stay.assumptions
    )
    assert (
        drop.communication_bytes["sharded weights"] > 5 * stay.communication_bytes["data"]
    )  # every micro-batch gathers
    assert drop.memory.peak_bytes < stay.memory.peak_bytes


# ---------------------------------------------------------------- stages
def test_stages_as_given():
    usual, same = predict(**ASKED, pp=4), predict(**ASKED, pp=4, stages=(8, 8, 8, 8))
    assert usual.step_time_s == same.step_time_s
    uneven = predict(**ASKED, pp=4, stages=(9, 7, 7, 9))
    assert [r.layers for r in uneven.ranks] == [
        9,
        7,
        7,
        9,
    ] and uneven.step_time_s > usual.step_time_s
    lighter = predict(**ASKED, pp=4, stages=(8, 8, 9, 7))  # the head's stage has less to do
    assert [r.parameters_bytes for r in lighter.ranks][3] < [
        r.parameters_bytes for r in usual.ranks
    ][3]


def test_virtual_stages_as_given():
    f = predict(**ASKED, pp=2, vpp=2, stages=(7, 9, 9, 7))
    assert [r.layers for r in f.ranks] == [16, 16]


# ---------------------------------------------------------------- the host's memory
def test_states_with_the_host():
    here, there = predict(**ASKED, zero=1), predict(**ASKED, zero=1, offload=("optimizer",))
    assert there.memory.optimizer_bytes == 0 < here.memory.optimizer_bytes
    assert there.update_s > here.update_s and there.step_time_s > here.step_time_s


def test_activations_with_the_host_cost_what_the_link_takes():
    here, there = predict(**ASKED, zero=1), predict(**ASKED, zero=1, offload=("activations",))
    assert there.memory.activations_bytes < 0.3 * here.memory.activations_bytes
    lost = there.exposed_communication_s["offload"]
    assert there.step_time_s == pytest.approx(here.step_time_s + lost, rel=0.01)
    assert (
        there.communication_bytes["offload"] <= 2 * there.saved_bytes * 4
    )  # down and up, of four micro-batches


def test_offload_on_one_device_keeps_two_layers():
    asked = {
        "model": "llama-3-8b",
        "device": "gb200",
        "batch": 4,
        "sequence": 4096,
        "optimizer": "none",
    }
    here, there = predict(**asked), predict(**asked, offload=("activations",))
    layer = sum(row.saved_bytes for row in here.layers if ".layers." in row.name) / 32
    assert here.memory.activations_bytes - there.memory.activations_bytes == pytest.approx(
        30 * layer, rel=0.02
    )
    few = (
        predict(**asked, recompute="full"),
        predict(**asked, recompute="full", offload=("activations",)),
    )
    assert (
        few[1].step_time_s < 1.02 * few[0].step_time_s
    )  # a checkpoint a layer hides behind the layer


REFUSED = {
    "cp kind": ({"cp": 2, "cp_kind": "rings"}, "ring"),
    "cp kind alone": ({"cp_kind": "ulysses"}, "--cp 2"),
    "ulysses deals heads": (
        {"cp": 3, "devices": 3, "batch": 3, "cp_kind": "ulysses", "sequence": 4095},
        "heads",
    ),
    "ulysses deals tokens": ({"cp": 2, "cp_kind": "ulysses", "sequence": 4095}, "4094"),
    "etp and ep": ({"model": "mixtral-8x7b", "ep": 8, "etp": 4}, "ep 8 x etp 4"),
    "width of an expert": (
        {"model": "mixtral-8x7b", "etp": 5, "devices": 40, "batch": 40},
        "width",
    ),
    "shard without zero": ({"shard": 8}, "--zero"),
    "shard": ({"zero": 1, "shard": 5}, "use 4"),
    "reshard without zero 3": ({"zero": 1, "reshard": True}, "--zero 3"),
    "zero 2 in a pipeline": ({"pp": 2, "zero": 2}, "zero 1 or 3"),
    "stages that are too many": ({"pp": 2, "stages": (8, 8, 16)}, "3 numbers"),
    "stages of other layers": ({"pp": 2, "stages": (8, 8)}, "32"),
    "negative stages": ({"pp": 2, "stages": (-1, 33)}, "whole numbers"),
    "offload to nowhere": ({"offload": ("weights",)}, "optimizer"),
    "offload on a shared memory": (
        {
            "device": "m3-max",
            "devices": None,
            "micro_batch": None,
            "batch": 1,
            "offload": ("optimizer",),
        },
        "host",
    ),
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


@pytest.mark.parametrize(("change", "names"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_in_one_line(change, names):
    with pytest.raises(RoofcastError) as error:
        predict(**{**ASKED, **change})
    assert "\n" not in str(error.value) and names in str(error.value)


def test_forecasts_of_all_kinds_are_numbers():
    for change in (
        {"cp": 4, "cp_kind": "ulysses"},
        {"zero": 3, "shard": 4, "reshard": False},
        {"offload": ("optimizer", "activations")},
    ):
        f = predict(**ASKED, **change)
        assert math.isfinite(f.step_time_s) and f.low_s < f.step_time_s < f.high_s


def test_a_system_alone_is_taken_whole():
    f = predict(model="llama-3-8b", device="h100-sxm5", system="dgx-h100", sequence=1024)
    assert f.devices == 8 and f.batch == 8
