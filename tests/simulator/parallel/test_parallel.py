"""Parallel layouts: how work, traffic and memory are divided, and which layouts are rejected."""

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
    "model": "llama-3-8b", "device": "h100-sxm5", "sequence": 2048, "batch": 64, "micro_batch": 1,
}  # fmt: skip


def traced(model, parallel, batch=2, sequence=512):
    """The tape of one rank."""
    tape = Tape(precision("bf16"), parallel=parallel)
    return resolve(model).run(tape, batch, sequence // parallel.cp)


def work(tape):
    """FLOPs of matrix products."""
    return sum(k.matrix * k.count for k in tape.kernels)


def kept(tape):
    """Bytes kept for backward."""
    return sum(s.bytes * s.count for s in tape.saved.values())


def weights(tape):
    return sum(w.size * w.count for w in tape.weights)


def sent(tape, group="tp"):
    """Bytes of traffic over a group, by collective and phase."""
    total = {}
    for tr in tape.traffic:
        if tr.group == group:
            total[tr.kind, tr.phase] = total.get((tr.kind, tr.phase), 0) + tr.bytes * tr.count
    return total


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("tp", "sp"), [(2, False), (4, False), (2, True), (4, True)])
def test_tensor_parallel_ranks_together_do_all_work_once(model, tp, sp):
    """Except padding of the vocabulary, and norms, biases and positions, which every rank has."""
    whole, rank = traced(model, Parallel()), traced(model, Parallel(tp=tp, sp=sp))
    assert work(rank) * tp == pytest.approx(work(whole), rel=1e-4)
    assert weights(whole) <= weights(rank) * tp <= 1.03 * weights(whole)
    if sp:
        assert kept(rank) * tp == pytest.approx(kept(whole), rel=1e-3)
    else:
        assert kept(whole) < kept(rank) * tp < tp * kept(whole)


ODD = {"falcon-7b": 71, "gpt2-xl": 25, "smollm2-135m": 9, "smollm2-360m": 15}  # heads


def is_divisible(name):
    """Is it a model of sequences that tensor parallelism can divide in two?"""
    model = resolve(name)
    groups = getattr(getattr(model.config, "mixer", None), "groups", 2)  # of a Mamba-2 mixer
    cut = model.family not in UNCUT and name not in ODD and groups % 2 == 0
    return model.takes == "sequence" and cut


@pytest.mark.parametrize("name", ODD)
def test_an_odd_number_of_heads_is_rejected_under_tp_2(name):
    with pytest.raises(BadInput, match=rf"heads \({ODD[name]}\)"):
        traced(name, Parallel(tp=2, sp=True), sequence=256)


@pytest.mark.parametrize("name", [n for n in SHIPPED if is_divisible(n)])
def test_tensor_parallelism_divides_every_model_family_evenly(name):
    """Not divided: convolutions of an encoder, routers, and up to one rank's padding of a
    vocabulary or a shared head; among kept bytes relative biases, latents, an encoder's output.
    """
    stemmed = "hubert", "unispeech-sat", "wav2vec2", "wavlm"
    audio = resolve(name).family in stemmed  # every rank keeps all of the stem
    length = 16_000 if audio else 256
    rank = traced(name, Parallel(tp=2, sp=True), sequence=length)
    whole = traced(name, Parallel(), sequence=length)
    convs = [sum(k.matrix * k.count for k in t.kernels if k.kind == "conv") for t in (rank, whole)]
    stem = 2 * convs[0] - convs[1]
    assert work(whole) * 0.999 <= 2 * work(rank) - stem <= 1.02 * work(whole)
    assert 0.999 * kept(whole) <= 2 * kept(rank) <= (1.6 if audio else 1.1) * kept(whole)


@pytest.mark.parametrize("model", MODELS)
def test_sequence_parallelism_replaces_all_reduces_by_halves_of_the_same_bytes(model):
    """An all-reduce becomes a reduce-scatter and an all-gather; all-gathers that the backward
    repeats come in addition [korthikanti2022].
    """
    plain, sp = sent(traced(model, Parallel(tp=4))), sent(traced(model, Parallel(tp=4, sp=True)))
    replaced = plain["all_reduce", "forward"] - sp["all_reduce", "forward"]
    assert sp["reduce_scatter", "forward"] == replaced
    assert sp["reduce_scatter", "backward"] == plain["all_reduce", "backward"]


def test_each_tensor_parallel_layer_has_two_all_reduces_forward_and_two_backward():
    """Of 2 b s h bytes each, and one each for the embedding and the input of the head
    [shoeybi2019]. The loss all-reduces three fp32 numbers per token.
    """
    buffer = 2 * 2 * 512 * 4096
    total = sent(traced("llama-3-8b", Parallel(tp=2)))
    assert total["all_reduce", "backward"] == (2 * 32 + 1) * buffer
    assert total["all_reduce", "forward"] == (2 * 32 + 1) * buffer + 3 * 4 * 2 * 512


def test_context_parallel_ranks_together_do_all_work_once_and_each_hold_all_weights():
    whole, rank = traced("llama-3-8b", Parallel()), traced("llama-3-8b", Parallel(cp=4))
    assert work(rank) * 4 == pytest.approx(work(whole))
    assert weights(rank) == weights(whole)
    assert kept(rank) * 4 == pytest.approx(kept(whole), rel=1e-3)


def test_with_more_ranks_than_key_value_heads_each_head_is_on_several_ranks():
    rank = traced("llama-3-8b", Parallel(tp=16, sp=True))
    assert weights(rank) * 16 > 1.02 * weights(traced("llama-3-8b", Parallel()))


def test_pipeline_stages_together_hold_the_model_once():
    """Earlier stages keep more activations, because more micro-batches are in flight."""
    f = predict(**ASKED, devices=8, pp=8, precision="bf16")
    assert sum(r.parameters_bytes for r in f.ranks) == 2 * f.parameters
    assert sum(r.layers for r in f.ranks) == 32
    assert f.ranks[0].activations_bytes > f.ranks[6].activations_bytes


@pytest.mark.parametrize(
    "degrees", [{"tp": 2}, {"pp": 4}, {"cp": 2}, {"tp": 2, "pp": 2, "cp": 2}, {"tp": 8}], ids=str
)
def test_a_higher_zero_stage_never_needs_more_memory(degrees):
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
def test_totals_of_a_parallel_forecast_are_consistent(degrees):
    f = predict(**ASKED, devices=64, **degrees)
    one = predict(**{**ASKED, "micro_batch": None, "batch": 1})  # device and sample
    assert 0 < f.mfu <= f.hfu < 1
    assert f.step_time_s >= f.lower_bound_s
    assert f.devices == f.layout.devices == 64
    assert f.flops_forward == 64 * one.flops_forward and f.parameters == one.parameters
    assert sum(f.exposed_communication_s.values()) < f.step_time_s
    assert 0 <= f.bubble_fraction < 1 and (f.bubble_fraction == 0) == (degrees["pp"] == 1)
    assert all(v >= 0 for v in f.communication_bytes.values())
    assert f.memory.peak_bytes == max(r.peak_bytes for r in f.ranks)


LAYOUTS = [{"tp": 8}, {"tp": 16}, {"pp": 4, "tp": 2}, {"zero": 3}, {"cp": 4}, {"zero": 0}]


@pytest.mark.parametrize("degrees", LAYOUTS, ids=str)
def test_doubling_link_bandwidth_never_makes_a_step_slower(degrees):
    slow, fast = (
        predict(**ASKED, **degrees, devices=64, set=s) for s in ({}, {"scale_up.bandwidth": "x2"})
    )
    assert fast.step_time_s <= slow.step_time_s * (1 + 1e-9)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved", "zb-h1", "zb-v", "dualpipe"])
def test_under_every_schedule_a_step_has_a_bubble_and_exceeds_its_lower_bound(schedule):
    """DualPipe holds two copies of the model."""
    vpp = 2 if schedule == "interleaved" else None
    f = predict(**ASKED, devices=8, pp=4, dp=2, schedule=schedule, vpp=vpp)
    assert 0 < f.bubble_fraction < 0.5 and f.step_time_s > f.lower_bound_s
    parameters = sum(r.parameters_bytes for r in f.ranks)
    assert parameters == (4 if schedule == "dualpipe" else 2) * f.parameters


def test_one_micro_batch_after_the_other_takes_as_long_as_one_device_and_keeps_one():
    """transformers' device_map: layers are dealt to devices, one of which computes at a time."""
    asked = {**ASKED, "batch": 16, "micro_batch": 1}
    one = predict(**asked)
    dealt, piped = (predict(**asked, devices=4, pp=4, schedule=s) for s in ("sequential", "1f1b"))
    assert dealt.step_time_s == pytest.approx(one.step_time_s, rel=0.15)
    assert dealt.step_time_s > 2.5 * piped.step_time_s
    assert dealt.memory.peak_bytes < piped.memory.peak_bytes


def test_more_virtual_stages_make_the_bubble_smaller():
    bubbles = [
        predict(**ASKED, devices=8, pp=8, schedule=s, vpp=v).bubble_fraction
        for s, v in (("1f1b", 1), ("interleaved", 2), ("interleaved", 4))
    ]
    assert bubbles == sorted(bubbles, reverse=True)


def test_a_layout_of_one_device_takes_the_time_of_a_single_device():
    asked = {**ASKED, "batch": 1}
    layout = predict(**asked, devices=1, dp=1)
    single = predict(**{**asked, "micro_batch": None})
    assert layout.step_time_s == pytest.approx(single.step_time_s, rel=0.02)
    assert layout.flops_forward == single.flops_forward


def test_data_parallel_convolutional_nets_all_reduce_fp32_gradients_of_all_parameters():
    asked = {"model": "resnet50", "device": "v100-sxm2-16gb", "precision": "amp-fp16"}
    single, f = predict(**asked, batch=256), predict(**asked, batch=2048, devices=8)
    assert single.step_time_s < f.step_time_s < 1.2 * single.step_time_s
    assert f.communication_bytes["data"] == pytest.approx(2 * 7 / 8 * 4 * f.parameters)


REFUSED = {  # changes to the scenario, and what the message contains
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
def test_an_invalid_layout_is_rejected_in_one_line_with_the_reason(change, names):
    with pytest.raises(BadInput.__mro__[1]) as error:
        predict(**{**ASKED, **change})
    assert "\n" not in str(error.value) and names in str(error.value)


def test_a_device_without_a_system_is_forecast_in_its_usual_system():
    usual, named = (predict(**ASKED, devices=16, tp=8, system=s) for s in (None, "dgx-h100"))
    assert usual.step_time_s == named.step_time_s
    assert any("system DGX H100 (not given)" in a for a in usual.assumptions)
    assert msgspec.structs.asdict(named.layout)["tp"] == 8 and "dgx-h100" in hwdb.systems()


@pytest.mark.parametrize("model", ["llama-3-8b", "mixtral-8x7b"])
def test_data_parallel_inference_takes_the_time_of_one_device_and_reduces_no_gradients(model):
    asked = {"model": model, "device": "b200", "mode": "infer", "sequence": 256}
    asked |= {"precision": "bf16", "stack": "te-nemo-2024"}
    one, two = predict(**asked, batch=1), predict(**asked, batch=2, dp=2)
    assert two.step_time_s == pytest.approx(one.step_time_s, rel=0.03)
    assert "gradients" not in two.exposed_communication_s


@pytest.mark.parametrize(
    "stack", ["pytorch-eager", "te-nemo-2024", "deepspeed-megatron-2022", "internevo-2023"]
)
@pytest.mark.parametrize(
    ("model", "device"),
    [("gpt2", "a100"), ("gpt2", "h100-sxm5"), ("bert-base", "l40s"), ("llama-3-8b", "b200")],
)
def test_a_micro_batch_as_large_as_the_batch_changes_no_step_time(model, device, stack):
    asked = {"model": model, "device": device, "stack": stack, "batch": 8, "sequence": 256}
    layout, single = (predict(**asked, precision="bf16", micro_batch=n) for n in (8, None))
    assert layout.step_time_s == pytest.approx(single.step_time_s, rel=0.02)


EXPERTS_OF = {"mixtral-8x7b": 46.7e9, "deepseek-v2-lite": 15.7e9, "gpt-oss-20b": 20.9e9}


@pytest.mark.parametrize("model", EXPERTS_OF)
def test_experts_are_cut_like_the_other_layers_unless_said(model):
    """Megatron's expert-tensor degree is the tensor degree where none is given, and vLLM's too."""
    asked = {"model": model, "device": "h100-sxm5", "tp": 4, "mode": "infer", "weights": "bf16"}
    cut, whole = predict(**asked), predict(**asked, etp=1)
    assert cut.layout.etp == 4 and whole.layout.etp == 1
    # embeddings, norms and routers may stay whole
    assert cut.memory.parameters_bytes == pytest.approx(2 * EXPERTS_OF[model] / 4, rel=0.1)
    assert whole.memory.parameters_bytes > 2 * cut.memory.parameters_bytes
    assert "etp 4 (not given): each expert is cut over 4 ranks; --etp sets another" in (
        cut.assumptions
    )
    assert not any(line.startswith("etp") for line in whole.assumptions)


def test_experts_stay_whole_where_their_ranks_do_not_divide():
    """8 ranks hold 8 experts; each over 4 ranks would need 32."""
    f = predict(model="mixtral-8x7b", device="h100-sxm5", devices=8, tp=4, ep=8, mode="infer")
    assert f.layout.etp == 1 and f.memory.parameters_bytes == pytest.approx(12.08e9, rel=0.01)
    assert "etp 1 (not given): experts stay whole; --etp sets another" in f.assumptions


def test_the_experts_of_several_devices_compute_their_own_tokens_only():
    """PyTorch runs Llama 4 through all of its experts, which ranks could not share."""
    f = predict(model="llama-4-scout", device="h100-sxm5", devices=8, tp=8, mode="infer")
    assert f.memory.parameters_bytes == pytest.approx(2 * 107.8e9 / 8, rel=0.05)
    assert "a token passes through its chosen experts only, as in training" in f.assumptions
