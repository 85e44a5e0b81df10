"""A plain number that lacks its unit is refused with the unit that was probably meant."""

import pytest

from roofcast import hwdb
from roofcast.hwdb.edits import FAR, LONG, POSSIBLE, check_unit, figure_keys
from roofcast.hwdb.errors import BadInput

FORGOTTEN = {
    ("memory.bandwidth", 2): '2 is 2 bytes per second; did you mean 2 TB/s? write "2 TB/s"',
    ("memory.bandwidth", "900"): "did you mean 900 GB/s?",
    ("memory.bandwidth", "0.9"): "did you mean 900 GB/s?",
    ("memory.capacity", 80): "80 is 80 bytes; did you mean 80 GB?",
    ("memory.capacity", "0." + "3" * 800): "333 is 0.333333 bytes; did you mean 333.33 GB?",
    ("clock", "1.98"): "did you mean 1.98 GHz?",
    ("peak_flops.bf16", 989): "989 is 989 FLOP per second; did you mean 989 TFLOP/s?",
    ("peak_flops.fp4", "9"): "did you mean 9 PFLOP/s?",
    ("scale_up.bandwidth", 450): "did you mean 450 GB/s?",
    ("cache.l2.capacity", 50): "did you mean 50 MB?",
    ("power.tdp", 0.7 / FAR): "is 0.0007 W; did you mean",
    ("achieved.kernel_floor", 3): "3 is 3 seconds; did you mean 3 us?",
}
MEANT = [
    ("memory.bandwidth", 2e12),
    ("memory.bandwidth", "2 B/s"),
    ("memory.bandwidth", "x0.001"),
    ("memory.capacity", "1 MB"),
    ("power.tdp", 300),
    ("cores", 1),
    ("achieved.stream", 0.9),
    ("price.cloud_usd_per_hour", 0.001),
    ("achieved.kernel_floor", 3e-6),
]


@pytest.mark.parametrize(("asked", "said"), FORGOTTEN.items(), ids=lambda v: str(v)[:40])
def test_a_number_far_below_every_device_is_asked_for_its_unit(asked, said):
    key, value = asked
    with pytest.raises(BadInput) as caught:
        hwdb.device("h100-sxm5", {key: value})
    assert str(caught.value).startswith(f"{key}: ") and said in str(caught.value)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("key", "value"), MEANT)
def test_a_number_that_may_be_meant_is_taken(key, value):
    assert hwdb.device("h100-sxm5", {key: value}).edits


@pytest.mark.parametrize("text", ["bandwidth = 2", "bandwidth = {value = 2, source = 'me'}"])
def test_a_file_of_a_user_is_asked_too(tmp_path, text):
    path = tmp_path / "chip.toml"
    sources = '[sources]\nme = "me"\n' if "me" in text else ""
    path.write_text(f'base = "h100-sxm5"\n[memory]\n{text}\n{sources}')
    with pytest.raises(BadInput, match=r"chip.toml: memory.bandwidth: 2 is 2 bytes per second"):
        hwdb.device(path)


def test_no_figure_of_a_shipped_device_would_be_refused():
    units = figure_keys()
    for name in hwdb.devices():
        device = hwdb.device(name)
        for key, figure, unit in hwdb.figures(device):
            assert units[key] == unit
            check_unit(key, float(figure), float(figure), unit)


def test_numbers_that_are_not_questioned_are_no_more_than_those_that_would_be_refused():
    """The gate that spares reading every device file never hides a number far below all of them."""
    for key, unit in figure_keys().items():
        known = [float(f) for n in hwdb.devices() for k, f, _ in hwdb.figures(hwdb.device(n))
                 if k == key]  # fmt: skip
        if known and unit in ("B/s", "Hz", "B", "W"):
            assert POSSIBLE[unit] >= min(min(known) / FAR, 1e9), key
        if known and unit == "s":
            assert LONG <= 1e6 * max(known) and LONG < 1, key  # 1, meant in us, is always asked
