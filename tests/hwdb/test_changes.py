"""--set: the named figure changes, the record lists the change, nothing else changes."""

import pytest

from roofcast import hwdb

BASE = hwdb.device("h100-sxm5")


@pytest.mark.parametrize(
    ("typed", "bandwidth"),
    [
        ("8 TB/s", 8e12),
        (8e12, 8e12),
        ("x2", 6.7e12),
        ("*0.5", 1.675e12),
        ("2x", 6.7e12),
        ("+20%", 4.02e12),
        ("-10 %", 3.015e12),
    ],
)
def test_values_may_be_absolute_or_relative(typed, bandwidth):
    device = hwdb.device("h100-sxm5", {"memory.bandwidth": typed})
    assert device.memory.bandwidth == pytest.approx(bandwidth)
    assert device.memory.bandwidth.status == "edited"
    assert device.memory.bandwidth.source in device.sources


def test_only_the_named_figures_change():
    device = hwdb.device(
        "h100-sxm5", {"memory.bandwidth": "8 TB/s", "peak_flops.bf16": "2 PFLOP/s"}
    )
    changed = [
        key
        for (key, new, _), (_, old, _) in zip(hwdb.figures(device), hwdb.figures(BASE), strict=True)
        if new != old
    ]
    assert changed == ["peak_flops.bf16", "memory.bandwidth"]
    assert device.edits == (
        "memory.bandwidth 3.35 TB/s -> 8 TB/s",
        "peak_flops.bf16 989.4 TFLOP/s -> 2 PFLOP/s",
    )
    assert hwdb.device("h100-sxm5") == BASE and not BASE.edits


def test_an_unknown_figure_can_be_set():
    device = hwdb.device("h100-sxm5", {"peak_flops.fp4": "4 PFLOP/s", "achieved.stream": "0.9"})
    assert device.peak_flops["fp4"] == 4e15 and device.achieved["stream"] == 0.9
    assert device.edits == ("peak_flops.fp4 unknown -> 4 PFLOP/s", "achieved.stream unknown -> 0.9")


def test_a_change_of_a_file_applies_on_top_of_its_base(tmp_path):
    path = tmp_path / "chip.toml"
    path.write_text('base = "h100-sxm5"\n[memory]\nbandwidth = "4 TB/s"\n')
    device = hwdb.device(path, {"memory.bandwidth": "x2"})
    assert device.edits == (
        "memory.bandwidth 3.35 TB/s -> 4 TB/s",
        "memory.bandwidth 4 TB/s -> 8 TB/s",
    )


@pytest.mark.parametrize(
    ("key", "typed", "error", "message"),
    [
        ("memory.bandwith", "8 TB/s", hwdb.UnknownName, "did you mean memory.bandwidth"),
        ("bandwidth", "8 TB/s", hwdb.UnknownName, "memory.bandwidth|capacity"),
        ("memory", "1", hwdb.UnknownName, "memory.bandwidth"),
        ("name", "fast", hwdb.UnknownName, "numbers of h100-sxm5 that can be changed"),
        ("peak_flops.fp12", "1 TFLOP/s", hwdb.UnknownName, "peak_flops"),
        ("memory.bandwidth", "8 GHz", hwdb.BadInput, "not a bandwidth; write for example '3.35"),
        ("memory.bandwidth", "8 TB", hwdb.BadInput, "is not a bandwidth"),
        ("memory.bandwidth", "-8 TB/s", hwdb.BadInput, "more than zero"),
        ("memory.bandwidth", "0", hwdb.BadInput, "more than zero"),
        ("memory.bandwidth", "x0", hwdb.BadInput, "more than zero"),
        ("memory.bandwidth", "-100%", hwdb.BadInput, "more than zero"),
        ("memory.bandwidth", float("nan"), hwdb.BadInput, "finite"),
        ("memory.bandwidth", "", hwdb.BadInput, "is not a bandwidth"),
        ("peak_flops.fp4", "x2", hwdb.BadInput, "is relative, and the device has no value for it"),
    ],
)
def test_an_invalid_change_is_rejected_in_one_line(key, typed, error, message):
    with pytest.raises(error) as caught:
        hwdb.device("h100-sxm5", {key: typed})
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert key in str(caught.value)
