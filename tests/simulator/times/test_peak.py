"""MFU and HFU: against the peak of the format in which each product runs, without what is masked or
frozen; above 1 only with its reason.
"""

import pytest
from kinds import kind_of_device, one_in_turn
from looped import each

from roofcast import hwdb, predict

PEAK = {"h100-sxm5": 989.4e12}


def test_mfu_of_a_single_product_is_its_time_at_the_printed_peak():
    """2 FLOP per multiply-add, three products of one size in training: alexnet's counts by hand."""
    f = predict(model="gpt2", device="h100-sxm5", sequence=128, attention="eager", precision="bf16")
    by_hand = (f.flops_forward + f.flops_backward) / (f.step_time_s * PEAK["h100-sxm5"])
    assert f.mfu == pytest.approx(by_hand, rel=1e-3) == f.hfu


@pytest.mark.parametrize("device", ["a100-sxm4-80gb", "h100-sxm5", "rtx-3090", "b200-sxm"])
@pytest.mark.parametrize("model", ["gpt2", "resnet50", "bert-large"])
def test_fp32_that_may_run_in_tf32_is_judged_by_the_peak_of_tf32(model, device):
    f = predict(model=model, device=device, batch=64, precision="fp32", stack="nvidia-tuned")
    assert 0 < f.mfu <= f.hfu <= 1


@pytest.mark.parametrize("sequence", [4096, 131072, 2**20])
def test_a_causal_mask_does_not_lift_mfu(sequence):
    """At a million tokens nearly all products are attention's, of which a mask leaves half."""
    asked = {"model": "llama-3-8b", "device": "h100-sxm5", "sequence": sequence}
    training, inference = (predict(**asked, mode=mode) for mode in ("train", "infer"))
    for f in (training, inference):
        assert f.mfu < 0.7  # of what flash attention reaches on this device
    whole = inference.flops_forward / (inference.step_time_s * PEAK["h100-sxm5"])
    assert inference.mfu < whole
    # the backward of fused attention computes the scores again
    assert training.hfu > training.mfu


def test_recomputation_counts_in_hfu_only():
    plain, full = (
        predict(model="llama-3-8b", device="h100-sxm5", recompute=r, attention="eager")
        for r in ("none", "full")
    )
    assert plain.hfu == pytest.approx(plain.mfu)
    needed = plain.mfu * plain.step_time_s
    assert full.mfu * full.step_time_s == pytest.approx(needed)
    assert full.hfu * full.step_time_s == pytest.approx(needed * 4 / 3, rel=0.05)


def test_several_devices_share_the_products():
    """The same products on eight devices, whatever the layout."""
    asked = {"model": "llama-3-8b", "device": "h100-sxm5", "batch": 8, "micro_batch": 1}
    one = predict(**asked | {"micro_batch": 8, "devices": 1})
    for layout in ({"dp": 8}, {"tp": 8}, {"pp": 8}, {"tp": 2, "pp": 2, "dp": 2}, {"cp": 8}):
        f = predict(**asked, **layout)
        assert f.mfu * f.step_time_s * 8 == pytest.approx(one.mfu * one.step_time_s, rel=1e-9)


# chips that multiply int8 alone refuse training
TRAINING = [n for n in hwdb.devices() if set(hwdb.device(n).peak_flops) != {"int8"}]


FAST = [(net, mode) for net in (("vgg16", 64), ("gpt2", 4)) for mode in ("train", "infer")]
FAST_ON_EACH = one_in_turn(TRAINING, FAST, kind_of_device)


@each("name", TRAINING)
def test_mfu_above_1_is_explained(name):
    for (model, batch), mode in FAST_ON_EACH[name]:
        f = predict(model=model, device=name, batch=batch, mode=mode)
        reasons = [line for line in f.assumptions if line.startswith("MFU above 1: ")]
        assert bool(reasons) == (f.hfu > 1), reasons
        assert all("Winograd" in line for line in reasons)
