"""Intervals of serving forecasts, and what they hold of groups that were left out."""

import numpy as np
import pytest

from roofcast.scenarios.fits.serving_intervals import (
    Error,
    bounds,
    classes,
    coverage,
    held,
    widened,
)


def errors(source, device, values, *, kind="server", quantity="tpot", maker="NVIDIA gpu"):
    """Rows of one source and device."""
    return [Error(kind, quantity, source, device, device[:1], maker, v) for v in values]


def drawn(sigma=0.1, rows=400, sources=6):
    """Sources whose rows have one normal distribution, each on two of three devices."""
    draw = np.random.default_rng(0)
    return [
        e
        for i in range(sources)
        for device in (f"d{i % 3}", f"d{(i + 1) % 3}")
        for e in errors(f"source {i}", device, draw.normal(0.0, sigma, rows))
    ]


def test_each_source_has_the_same_weight():
    many, one = errors("many", "a", np.linspace(-0.1, 0.1, 1000)), errors("one", "b", [0.9])
    assert bounds(many, "source") == pytest.approx((-0.08, 0.08), abs=1e-3)
    low, high = bounds([*many, *one], "source")
    assert high == 0.9 and low == pytest.approx(-0.06, abs=1e-3)


def test_bounds_of_rows_alike_hold_their_share_of_a_left_out_group():
    every = drawn()
    for trait in ("source", "device"):
        shares = held(every, every, trait, ("server", "tpot"))
        assert len(shares) == (6 if trait == "source" else 3)
        assert all(0.75 < share < 0.85 for share in shares.values())
    assert "each source left out: 80% held; server tpot 80% of 6" in coverage(every, every)


def test_a_source_that_is_far_off_is_not_held_by_the_others():
    every = [*drawn(), *errors("far", "d0", [0.5] * 10)]
    shares = held(every, every, "source", ("server", "tpot"))
    assert shares["far"] == 0.0
    assert bounds(every, "source")[1] == pytest.approx(0.5), "its own rows widen the bounds"


def test_devices_of_no_other_source_are_relatives_when_it_is_left_out():
    """The only source of device `e` is 0.3 off; forecasts of strangers err by 0.4."""
    known = [*drawn(), *errors("own", "e", [0.3] * 10)]
    strange = [e._replace(value=e.value * 4.0) for e in drawn()]
    strange += errors("own", "e", [0.3] * 10)
    assert held(known, strange, "source", ("server", "tpot"))["own"] == 1.0
    assert held(known, known, "source", ("server", "tpot"))["own"] == 0.0
    other = [e._replace(maker="AMD gpu") if e.device == "e" else e for e in strange]
    mixed = [e._replace(maker="AMD gpu") if e.device == "e" else e for e in known]
    assert held(mixed, other, "source", ("server", "tpot"))["own"] == 1.0


def test_a_farther_class_is_never_narrower():
    strange = [e._replace(value=0.1 * e.value) for e in drawn()]
    every = classes(drawn(), strange, "server", "tpot")
    ends = [widened(every[: i + 1]) for i in range(len(every))]
    assert [c.name for c in every] == ["measured", "relative", "other"]
    for (low, high), (lower, higher) in zip(ends, ends[1:], strict=False):
        assert lower <= low and higher >= high


def test_one_source_of_a_kind_takes_the_errors_of_both():
    local = errors("mine", "d9", [0.05] * 3, kind="local")
    near = classes([*drawn(), *local], drawn(), "local", "tpot")[0]
    assert {e.kind for e in near.found} == {"server", "local"}
    two = [*local, *errors("yours", "d9", [0.05] * 3, kind="local")]
    assert {e.kind for e in classes([*drawn(), *two], drawn(), "local", "tpot")[0].found} == {
        "local"
    }
