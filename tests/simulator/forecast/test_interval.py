"""Intervals: laws of their shape, and the share of left-out runs that lie inside."""

import numpy as np
import pytest

from roofcast import predict
from roofcast.scenarios.fits.intervals import left_out
from roofcast.simulator.forecast import interval

ASKED = [
    {"model": "resnet50", "device": "rtx-3090", "batch": 256, "precision": "amp-fp16"},
    {"model": "gpt2", "device": "h100-sxm5"},
    {"model": "bert-base", "device": "tpu-v4"},
    {
        "model": "resnet18",
        "device": "i9-10940x",
        "batch": 1,
        "mode": "infer",
        "stack": "pytorch-compiled",
    },
]


@pytest.mark.parametrize("asked", ASKED, ids=lambda a: a["device"])
def test_a_higher_level_is_a_wider_interval_around_the_estimate(asked):
    f = predict(**asked)
    (a95, b95), (a80, b80), (a50, b50) = (f.interval_s[level] for level in ("95", "80", "50"))
    assert a95 <= a80 <= a50 <= f.step_time_s <= b50 <= b80 <= b95
    assert (f.low_s, f.high_s) == (a80, b80)
    assert len(f.nearest) == 3 and all(near.measured_s > 0 for near in f.nearest)


def test_what_is_further_from_what_was_measured_is_less_sure():
    width = lambda f: f.high_s / f.low_s  # noqa: E731
    known = predict(**ASKED[0])
    elsewhere, nowhere = (predict(**ASKED[0] | {"device": name}) for name in ("mi210", "max-1550"))
    assert known.interval_class == "known device and stack"
    assert (
        elsewhere.interval_class == "unfitted maker, inherited device"
        and nowhere.interval_class == "unknown maker"
    )
    assert 1.3 * width(known) < min(width(elsewhere), width(nowhere))
    imagined = predict(**ASKED[0] | {"set": {"memory.bandwidth": "3 TB/s"}})
    assert imagined.interval_class == "imagined device" and width(imagined) > width(known)


def test_the_nearest_runs_are_of_the_same_device_where_there_are_any():
    assert {near.device for near in predict(**ASKED[0]).nearest} == {"rtx-3090"}


@pytest.mark.parametrize("way", ["source", "device", "model", "maker"])
def test_about_four_fifths_of_left_out_runs_lie_inside(way):
    held = [h for h in left_out(interval.residuals()) if h.way == way]
    stretch = interval.stretches()
    inside = np.mean([h.inside[80] <= stretch[h.klass] for h in held])
    # two standard deviations, had the runs nothing in common
    chance = 2.0 * np.sqrt(0.8 * 0.2 / len(held))
    assert 0.8 - max(0.05, chance) <= inside <= 0.95, f"{len(held)} runs"


def test_quantiles_of_equal_weights_are_the_plain_ones():
    errors = np.linspace(-1.0, 1.0, 201)
    assert interval.quantiles(errors, np.ones(201), (0.1, 0.5, 0.9)) == pytest.approx(
        [-0.8, 0.0, 0.8], abs=0.01
    )
