"""Several devices: what is cut, what is sent, what is held, what cannot be."""

import itertools

import msgspec
import pytest

from roofcast import hwdb, predict
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.forecast.layouts import UNCUT
from roofcast.simulator.models import resolve
from roofcast.simulator.models.names import SHIPPED
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.traced import Parallel

MODELS = ["llama-3-8b", "gpt2"]
ASKED = {
    "model": "llama-3-8b",
    "device": "h100-sxm5",
    "sequence": 2048,
    "batch": 64,
    "micro_batch": 1,
}


def traced(model, parallel, batch=2, sequence=512):
    tape = Tape(precision("bf16"), parallel=parallel)
    return resolve(model).run(tape, batch, sequence // parallel.cp)


def work(tape):
    return sum(k.matrix * k.count for k in tape.kernels)


def kept(tape):
    return sum(held * count for _, held, count, _, _ in tape.saved.values())


def weights(tape):
    return sum(w.size * w.count for w in tape.weights)


def sent(tape, group="tp"):
    total = {}
    for tr in tape.traffic:
        if tr.group == group:
            total[tr.kind, tr.phase] = total.get((tr.kind, tr.phase), 0) + tr.bytes * tr.count
    return total


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("tp", "sp"), [(2, False), (4, False), (2, True), (4, True)])
def test_tensor_parallel_ranks_do_the_whole_work_once(model, tp, sp):
    whole, rank = traced(model, Parallel()), traced(model, Parallel(tp=tp, sp=sp))
    assert work(rank) * tp == pytest.approx(
        work(whole), rel=1e-4
    )  # the vocabulary's last share is padded
    assert (
        weights(whole) <= weights(rank) * tp <= 1.03 * weights(whole)
    )  # norms, biases and positions are on every rank
    if sp:
        assert kept(rank) * tp == pytest.approx(kept(whole), rel=1e-3)
    else:
        assert kept(whole) < kept(rank) * tp < tp * kept(whole)


ODD = {"falcon-7b": 71, "gpt2-xl": 25, "smollm2-135m": 9, "smollm2-360m": 15}  # heads


@pytest.mark.parametrize("name", ODD)
def test_an_odd_number_of_heads_is_not_cut_in_two(name):
    with pytest.raises(BadInput, match=rf"heads \({ODD[name]}\)"):
        traced(name, Parallel(tp=2, sp=True), sequence=256)


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in SHIPPED
        if resolve(n).takes == "sequence" and resolve(n).family not in UNCUT and n not in ODD
    ],
)
def test_every_family_is_cut_evenly(name):
    rank = traced(name, Parallel(tp=2, sp=True), sequence=256)
    whole = traced(name, Parallel(), sequence=256)
    # an encoder's, the same on every rank
    stem = sum(k.matrix * k.count for k in whole.kernels if k.kind == "conv")
    # on every rank too: routers, and up to one rank's padding of a vocabulary or a head that is
    # shared
    assert work(whole) * 0.999 <= 2 * work(rank) - stem <= 1.02 * work(whole)
    assert (
        0.999 * kept(whole) <= 2 * kept(rank) <= 1.1 * kept(whole)
    )  # relative biases, latents, an encoder's output stay whole


@pytest.mark.parametrize("model", MODELS)
def test_sequence_parallel_sends_the_same_bytes_in_halves(model):
    """An all-reduce is a reduce-scatter and an all-gather; what is gathered again in backward
    stands beside [korthikanti2022].
    """
    plain, sp = sent(traced(model, Parallel(tp=4))), sent(traced(model, Parallel(tp=4, sp=True)))
    assert (
        sp["reduce_scatter", "forward"]
        == plain["all_reduce", "forward"] - sp["all_reduce", "forward"]
    )
    assert sp["reduce_scatter", "backward"] == plain["all_reduce", "backward"]


def test_two_all_reduces_a_layer_forward_and_two_backward():
    """Of 2 b s h bytes each, and one for the embedding and one for the head's input
    [shoeybi2019].
    """
    buffer = 2 * 2 * 512 * 4096
    total = sent(traced("llama-3-8b", Parallel(tp=2)))
    assert total["all_reduce", "backward"] == (2 * 32 + 1) * buffer
    assert (
        total["all_reduce", "forward"] == (2 * 32 + 1) * buffer + 3 * 4 * 2 * 512
    )  # and the loss's three numbers a token


def test_context_parallel_ranks_share_tokens_and_score_matrix():
    whole, rank = traced("llama-3-8b", Parallel()), traced("llama-3-8b", Parallel(cp=4))
    assert work(rank) * 4 == pytest.approx(work(whole))
    assert weights(rank) == weights(whole)
    assert kept(rank) * 4 == pytest.approx(kept(whole), rel=1e-3)


def test_shared_key_value_heads_are_copied_to_the_ranks_that_share_them():
    rank = traced("llama-3-8b", Parallel(tp=16, sp=True))
    assert weights(rank) * 16 > 1.02 * weights(traced("llama-3-8b", Parallel()))


def test_pipeline_stages_hold_the_whole_model_once():
    f = predict(**ASKED, devices=8, pp=8, precision="bf16")
    assert sum(r.parameters_bytes for r in f.ranks) == 2 * f.parameters
    assert sum(r.layers for r in f.ranks) == 32
    assert (
        f.ranks[0].activations_bytes > f.ranks[6].activations_bytes
    )  # more micro-batches in flight


@pytest.mark.parametrize(
    "degrees", [{"tp": 2}, {"pp": 4}, {"cp": 2}, {"tp": 2, "pp": 2, "cp": 2}, {"tp": 8}], ids=str
)
def test_more_zero_never_needs_more_memory(degrees):
    stages = (0, 1, 3) if "pp" in degrees else (0, 1, 2, 3)
    peaks = [predict(**ASKED, **degrees, devices=64, zero=z).memory.peak_bytes for z in stages]
    assert peaks == sorted(peaks, reverse=True)


GRID = [
    {"tp": tp, "pp": pp, "cp": cp, "zero": zero, "recompute": recompute}
    for tp, pp, cp, zero, recompute in itertools.product(
        (1, 2, 8), (1, 4), (1, 2), (0, 1), ("none", "full")
    )
]


@pytest.mark.parametrize("degrees", GRID, ids=lambda d: "-".join(str(v) for v in d.values()))
def test_a_step_is_what_it_is_made_of(degrees):
    f = predict(**ASKED, devices=64, **degrees)
    one = predict(**{**ASKED, "micro_batch": None, "batch": 1})
    assert 0 < f.mfu <= f.hfu < 1
    assert f.step_time_s >= f.lower_bound_s
    assert f.devices == f.layout.devices == 64
    assert f.flops_forward == 64 * one.flops_forward and f.parameters == one.parameters
    assert sum(f.exposed_communication_s.values()) < f.step_time_s
    assert 0 <= f.bubble_fraction < 1 and (f.bubble_fraction == 0) == (degrees["pp"] == 1)
    assert all(v >= 0 for v in f.communication_bytes.values())
    assert f.memory.peak_bytes == max(r.peak_bytes for r in f.ranks)


@pytest.mark.parametrize(
    "degrees",
    [{"tp": 8}, {"tp": 16}, {"pp": 4, "tp": 2}, {"zero": 3}, {"cp": 4}, {"zero": 0}],
    ids=str,
)
def test_a_faster_link_never_slows_a_step(degrees):
    slow, fast = (
        predict(**ASKED, **degrees, devices=64, set=s) for s in ({}, {"scale_up.bandwidth": "x2"})
    )
    assert fast.step_time_s <= slow.step_time_s * (1 + 1e-9)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved", "zb-h1", "zb-v", "dualpipe"])
def test_every_schedule_runs_and_none_beats_the_busiest_stage(schedule):
    degrees = {
        "devices": 8,
        "pp": 4,
        "dp": 2,
        "schedule": schedule,
        "vpp": 2 if schedule == "interleaved" else None,
    }
    f = predict(**ASKED, **degrees)
    assert 0 < f.bubble_fraction < 0.5 and f.step_time_s > f.lower_bound_s
    parameters = sum(r.parameters_bytes for r in f.ranks)
    assert (
        parameters == (4 if schedule == "dualpipe" else 2) * f.parameters
    )  # DualPipe holds two copies


def test_finer_schedules_wait_less():
    bubbles = [
        predict(**ASKED, devices=8, pp=8, schedule=s, vpp=v).bubble_fraction
        for s, v in (("1f1b", 1), ("interleaved", 2), ("interleaved", 4))
    ]
    assert bubbles == sorted(bubbles, reverse=True)


def test_one_device_is_one_device():
    several, one = (
        predict(**{**ASKED, "batch": 1}, devices=1, dp=1),
        predict(**{**ASKED, "batch": 1, "micro_batch": None}),
    )
    assert several.step_time_s == pytest.approx(one.step_time_s, rel=0.02)
    assert several.flops_forward == one.flops_forward


def test_data_parallel_convolutions():
    f = predict(
        model="resnet50", device="v100-sxm2-16gb", devices=8, batch=2048, precision="amp-fp16"
    )
    alone = predict(model="resnet50", device="v100-sxm2-16gb", batch=256, precision="amp-fp16")
    assert alone.step_time_s < f.step_time_s < 1.2 * alone.step_time_s
    assert f.communication_bytes["data"] == pytest.approx(2 * 7 / 8 * 4 * f.parameters)


REFUSED = {
    "tp does not divide heads": ({"model": "gpt2", "tp": 8, "sequence": 1024}, "12"),
    "devices do not divide": ({"tp": 3, "devices": 64}, "use 63"),
    "product": ({"tp": 2, "dp": 3, "devices": 8}, "6"),
    "batch": ({"devices": 48, "batch": 64}, "48"),
    "micro-batch": ({"devices": 16, "batch": 64, "micro_batch": 3}, "use 2"),
    "more stages than layers": ({"devices": 64, "pp": 64}, "32 layers"),
    "interleaved": ({"devices": 16, "pp": 4, "vpp": 2, "batch": 24}, "multiple"),
    "schedule": ({"pp": 2, "schedule": "1f1"}, "1f1b"),
    "dualpipe": ({"pp": 3, "devices": 3, "batch": 3, "schedule": "dualpipe"}, "even"),
    "zero": ({"devices": 8, "zero": 4}, "0 to 3"),
    "a net without layers": ({"model": "resnet50", "tp": 2, "sequence": None}, "dp"),
    "cp with eager attention": ({"cp": 2, "attention": "eager"}, "fused"),
    "cp pieces": ({"cp": 3, "devices": 3, "batch": 3}, "sequence"),
    "negative": ({"tp": -2}, "at least 1"),
}


@pytest.mark.parametrize(("change", "names"), REFUSED.values(), ids=REFUSED)
def test_a_layout_that_cannot_be_is_refused_with_the_reason(change, names):
    with pytest.raises(BadInput.__mro__[1]) as error:
        predict(**{**ASKED, **change})
    assert "\n" not in str(error.value) and names in str(error.value)


def test_a_named_system_and_the_usual_one_are_the_same():
    usual, named = (predict(**ASKED, devices=16, tp=8, system=s) for s in (None, "dgx-h100"))
    assert usual.step_time_s == named.step_time_s
    assert any("named without a system" in a for a in usual.assumptions)
    assert msgspec.structs.asdict(named.layout)["tp"] == 8 and "dgx-h100" in hwdb.systems()


@pytest.mark.parametrize("model", ["llama-3-8b", "mixtral-8x7b"])
def test_inference_over_several_devices_reduces_no_gradients(model):
    """Twice the requests on twice the devices take the time of one device's share."""
    asked = {
        "model": model,
        "device": "b200",
        "mode": "infer",
        "sequence": 256,
        "precision": "bf16",
        "stack": "te-nemo-2024",
    }
    one, two = predict(**asked, batch=1), predict(**asked, batch=2, dp=2)
    assert (
        two.step_time_s == pytest.approx(one.step_time_s, rel=0.03)
        and "gradients" not in two.exposed_communication_s
    )


@pytest.mark.parametrize(
    "stack", ["pytorch-eager", "te-nemo-2024", "deepspeed-megatron-2022", "internevo-2023"]
)
@pytest.mark.parametrize(
    ("model", "device"),
    [("gpt2", "a100"), ("gpt2", "h100-sxm5"), ("bert-base", "l40s"), ("llama-3-8b", "b200")],
)
def test_one_device_is_forecast_as_one_device_with_one_micro_batch(model, device, stack):
    asked = {
        "model": model,
        "device": device,
        "stack": stack,
        "batch": 8,
        "sequence": 256,
        "precision": "bf16",
    }
    assert predict(**asked, micro_batch=8).step_time_s == pytest.approx(
        predict(**asked).step_time_s, rel=0.02
    )
