"""Intervals of forecasts: laws of their width, and the fraction of held-out runs inside."""

import numpy as np
import pytest

from roofcast import predict
from roofcast.scenarios.fits.intervals import left_out
from roofcast.simulator.forecast import interval
from roofcast.simulator.models import resolve
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape

ASKED = [
    {"model": "resnet50", "device": "rtx-3090", "batch": 256, "precision": "amp-fp16"},
    {"model": "gpt2", "device": "h100-sxm5"},
    {"model": "bert-base", "device": "tpu-v4"},
    {
        "model": "resnet18", "device": "i9-10940x", "batch": 1, "mode": "infer",
        "stack": "pytorch-compiled",
    },
]  # fmt: skip


@pytest.mark.parametrize("asked", ASKED, ids=lambda a: a["device"])
def test_intervals_of_higher_levels_contain_those_of_lower_levels_and_the_estimate(asked):
    f = predict(**asked)
    (a95, b95), (a80, b80), (a50, b50) = (f.interval_s[level] for level in ("95", "80", "50"))
    assert a95 <= a80 <= a50 <= f.step_time_s <= b50 <= b80 <= b95
    assert (f.low_s, f.high_s) == (a80, b80)
    assert len(f.nearest) == 3 and all(near.measured_s > 0 for near in f.nearest)


def test_intervals_are_wider_for_devices_less_like_the_measured_ones():
    def width(f):
        return f.high_s / f.low_s

    known = predict(**ASKED[0])
    unfitted, unknown = (predict(**ASKED[0] | {"device": name}) for name in ("mi210", "max-1550"))
    edited = predict(**ASKED[0] | {"set": {"memory.bandwidth": "3 TB/s"}})
    assert known.interval_class == "known device and stack"
    assert unfitted.interval_class == "unfitted maker, inherited device"
    assert unknown.interval_class == "unknown maker"
    assert edited.interval_class == "imagined device"
    assert 1.3 * width(known) < min(width(unfitted), width(unknown))
    assert width(edited) > width(known)


def test_the_nearest_measured_runs_are_on_the_same_device_if_it_has_any():
    assert {near.device for near in predict(**ASKED[0]).nearest} == {"rtx-3090"}


@pytest.mark.parametrize("way", ["source", "device", "model", "maker"])
def test_about_80_percent_of_held_out_runs_lie_inside_their_80_percent_interval(way):
    """Lower tolerance: two standard deviations if runs were independent, at least 5 points."""
    runs = [h for h in left_out(interval.residuals()) if h.way == way]
    stretch = interval.stretches()
    inside = np.mean([h.inside[80] <= stretch[h.klass] for h in runs])
    chance = 2.0 * np.sqrt(0.8 * 0.2 / len(runs))
    assert 0.8 - max(0.05, chance) <= inside <= 0.95, f"{len(runs)} runs"


def test_weighted_quantiles_with_equal_weights_equal_plain_quantiles():
    errors = np.linspace(-1.0, 1.0, 201)
    quantiles = interval.quantiles(errors, np.ones(201), (0.1, 0.5, 0.9))
    assert quantiles == pytest.approx([-0.8, 0.0, 0.8], abs=0.01)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("neumf", "recommender"),
        ("dlrm", "recommender"),
        ("mamba-130m", "transformer"),
        ("gpt2", "transformer"),
        ("gnmt", "recurrent"),
    ],
)
def test_a_model_whose_weights_are_mostly_tables_is_a_recommender(name, kind):
    tape = resolve(name).run(Tape(precision("bf16")), 8)
    assert interval.model_kind(tape) == kind
