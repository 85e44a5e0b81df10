"""Intervals of forecasts: laws of their width, and the fraction of left-out runs inside."""

import numpy as np
import pytest

from roofcast import predict
from roofcast.scenarios.fits import intervals
from roofcast.scenarios.fits.left_out import known
from roofcast.scenarios.measured.nets import HERE, blind, shipped
from roofcast.simulator.forecast import interval
from roofcast.simulator.models import resolve
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape

ASKED = [
    {
        "model": "resnet50", "device": "rtx-3090", "batch": 256, "precision": "amp-fp16",
        "stack": "pytorch-eager",
    },
    {"model": "gpt2", "device": "h100-sxm5"},
    {"model": "bert-base", "device": "tpu-v4"},
    {
        "model": "resnet18", "device": "i9-10940x", "batch": 1, "mode": "infer",
        "stack": "pytorch-compiled",
    },
]  # fmt: skip
EAGER = {"device": "h100-sxm5", "stack": "pytorch-eager"}


@pytest.fixture(scope="module")
def held():
    return intervals.held(interval.residuals())


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

    known_ = predict(**ASKED[0])
    unfitted, unknown = (predict(**ASKED[0] | {"device": name}) for name in ("mi210", "max-1550"))
    edited = predict(**ASKED[0] | {"set": {"memory.bandwidth": "3 TB/s"}})
    assert known_.interval_class == "known device and stack"
    assert {unfitted.interval_class, unknown.interval_class} == {"unfitted maker"}
    assert edited.interval_class == "imagined device"
    assert 1.3 * width(known_) < min(width(unfitted), width(unknown))
    assert width(edited) > width(known_)


@pytest.mark.parametrize(
    ("asked", "klass"),
    [
        (ASKED[0] | {"stack": "pytorch-compiled"}, "known device, another stack"),
        (ASKED[0] | {"device": "rtx-3060"}, "known family"),
        (ASKED[0] | {"device": "t4"}, "inherited device"),
        (ASKED[0] | {"stack": None}, "no stack stated"),
        ({"model": "llama-3-8b", "device": "h100-sxm5", "tp": 2}, "no stack stated"),
        (EAGER | {"model": "mixtral-8x7b"}, "mixture of experts"),
        (EAGER | {"model": "resnet18", "batch": 1}, "bound by the host"),
    ],
)
def test_a_class_says_what_the_fitted_runs_know(asked, klass):
    assert predict(**asked).interval_class == klass


def test_runs_kept_for_blind_tests_make_nothing_known():
    r = interval.residuals()
    t4 = r.traits["device"] == "t4"
    assert t4.any() and r.blind[t4].all()


def test_the_nearest_measured_runs_are_on_the_same_device_if_it_has_any():
    assert {near.device for near in predict(**ASKED[0]).nearest} == {"rtx-3090"}


@pytest.mark.parametrize("klass", intervals.CLASSES)
def test_about_80_percent_of_left_out_runs_lie_inside_by_class(klass, held):
    """Every source with the same weight, the interval calibrated without it. Tolerance: half of the
    weight of one source where there are few; a class of few is calibrated with a wider one.
    """
    mine = (held.klass == klass) & intervals.telling(held)
    part = held.only(mine)
    inside = np.average(intervals.nested(held)[mine] <= 1.0, weights=intervals.weights(part))
    groups = len({(way, source) for way, source in zip(part.way, part.source, strict=True)})
    chance = max(0.05, 0.5 / groups)
    assert 0.8 - chance <= inside <= 0.8 + chance


def test_the_shipped_intervals_are_those_of_the_shipped_errors(held):
    found = intervals.calibrated(held)
    assert interval.effects().common["nets"].value == pytest.approx(found.nets, rel=1e-3)
    for klass, c in found.classes.items():
        effect = interval.effects().classes[klass]
        assert (effect.bias, effect.half_width) == pytest.approx((c.bias, c.half_width), abs=1e-4)


def test_the_shipped_errors_are_those_of_the_forecasts():
    """Two tables; `python -m roofcast.scenarios.fits.intervals --write` writes all of them."""
    r = interval.residuals()
    some = known([HERE / "runs" / "rtx5090.csv", HERE / "published" / "torchtitan.csv"])
    for source in {k.run.source for k in some}:
        now = [k.error for k in some if k.run.source == source]
        assert r.error[r.source == source] == pytest.approx(now, abs=2e-3)


def test_every_forecast_run_of_the_tables_is_among_the_errors():
    sources = {run.source for run in map(_first, (*shipped(), *blind()))}
    assert sources <= set(interval.residuals().source)


def _first(path):
    from roofcast.scenarios.measured.nets import read

    return next(run for run in read(path) if run.scenario and run.measured_s)


def test_a_run_that_a_fit_of_nets_reads_has_no_error_without_its_source():
    r = interval.residuals()
    timm = (r.source == "timm results") & (r.traits["device"] == "i9-10940x")
    assert np.isnan(r.left_out["source"][timm]).mean() > 0.9


def test_leaving_a_source_out_changes_the_errors_of_what_only_it_tells():
    r = interval.residuals()
    neuron = r.traits["stack"] == "neuron"
    change = np.abs(r.left_out["device"] - r.error)[neuron]
    assert np.isfinite(change).all()


def test_every_source_has_the_same_weight(held):
    w = intervals.weights(held)
    for way in interval.WAYS:
        sums = [w[(held.way == way) & (held.source == s)].sum() for s in set(held.source)]
        assert [s for s in sums if s] == pytest.approx([1.0] * sum(s > 0 for s in sums))


def test_the_bias_of_a_class_is_none_within_two_standard_errors():
    def of(errors):
        n = len(errors)
        names = np.array([f"source {i}" for i in range(n)], dtype=object)
        same = np.full(n, "source", dtype=object)
        return intervals.Held(same, names, same, np.array(errors), np.arange(n), np.zeros(n) > 0)

    assert intervals.middle(of([-0.1, 0.1, 0.02, -0.05, 0.08])) == 0.0
    assert intervals.middle(of([0.28, 0.3, 0.32, 0.31, 0.29])) == pytest.approx(0.3)


def test_the_weighted_quantile_of_equal_weights_is_the_plain_one():
    values = np.arange(1.0, 101.0)
    assert intervals.quantile(values, np.ones(100), 0.8) == 80.0


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
