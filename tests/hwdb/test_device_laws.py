"""Laws that hold on every device of every vendor; exceptions are listed with their reason."""

import pytest
from looped import each

from roofcast import hwdb

DEVICES = [hwdb.device(name) for name in hwdb.devices()]
CLOCKED = [
    d
    for d in DEVICES
    if d.kind != "cpu" and d.matrix_flop_per_clock_per_core and d.cores and d.clock
]
by_device = each("device", DEVICES)

PRINTED_AT_ANOTHER_CLOCK = {
    "hopper": 0.16,
    "b200-sxm": 0.06,
    "b300-sxm": 0.10,
    "arc-b580": 0.065,
    "flex-170": 0.055,
}
"""Family or device: relative difference of the published peak from that at the maximum clock."""

FASTER_THAN_PRINTED = {"rtx-4090"}  # boosts above the clock of its datasheet


@by_device
def test_narrower_formats_are_never_slower(device):
    peak = device.peak_flops
    rates = [peak[key] for key in ("fp16", "fp8", "fp6", "fp4") if key in peak]
    assert rates == sorted(rates)


BOTH_UNITS = [
    (device, key)
    for device in DEVICES
    for key in ("fp64", "fp32")
    if key in device.vector_flops and key in device.peak_flops
]


@each("device, key", BOTH_UNITS)
def test_a_matrix_product_is_never_slower_than_the_vector_units(device, key):
    assert device.peak_flops[key] >= device.vector_flops[key]


@by_device
def test_achieved_fractions_are_at_most_one_and_measured(device):
    for key, value in device.achieved.items():
        if key.startswith(("matmul", "stream", "weight")):
            assert 0.3 < value <= (1.1 if device.id in FASTER_THAN_PRINTED else 1.0), key
            assert value.status == "measured"
    products = [key for key in device.achieved if key.startswith("matmul_")]
    assert {key.removeprefix("matmul_") for key in products} <= set(device.peak_flops)


@each("device", CLOCKED)
def test_the_matrix_peak_is_cores_times_rate_times_clock(device):
    peak = device.peak_flops.get("fp16") or device.peak_flops.get("bf16")
    of_family = PRINTED_AT_ANOTHER_CLOCK.get(device.family, 0.04)
    allowed = PRINTED_AT_ANOTHER_CLOCK.get(device.id, of_family)
    computed = device.matrix_flop_per_clock_per_core * device.cores * device.clock
    assert computed == pytest.approx(peak, rel=allowed)


CACHES = [
    (device, name) for device in DEVICES for name, level in device.cache.items() if level.bandwidth
]


@each("device, name", CACHES)
def test_a_cache_is_faster_than_memory(device, name):
    assert device.cache[name].bandwidth > device.memory.bandwidth


@each("device", (device for device in DEVICES if device.scale_up.link))
def test_the_scale_up_link_is_shipped_and_has_the_bandwidth(device):
    assert device.scale_up.bandwidth <= 1.01 * hwdb.link(device.scale_up.link).bandwidth


@by_device
def test_a_record_is_immutable_and_hashable(device):
    assert hwdb.device(device.id) == device
    assert hash(hwdb.device(device.id)) == hash(device)
    with pytest.raises(TypeError, match="cannot be changed"):
        device.peak_flops["bf16"] = 1.0
    with pytest.raises(AttributeError):
        device.year = 1999
