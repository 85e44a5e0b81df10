"""Unit strings: read, printed, and rejected."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.units import PREFIXES, WANTED, _pint, count, pretty, quantity

PHYSICAL = [unit for unit in WANTED if unit not in ("1", "USD", "USD/h")]
magnitudes = st.floats(1e-6, 1e6)


@given(value=st.floats(1e-9, 1e20), unit=st.sampled_from(sorted(WANTED)))
def test_a_printed_value_can_be_read_back(value, unit):
    five_digits = 6e-5
    assert quantity(pretty(value, unit), unit) == pytest.approx(value, rel=five_digits)


@settings(max_examples=60, deadline=None)
@given(value=magnitudes, prefix=st.sampled_from(sorted(PREFIXES)), unit=st.sampled_from(PHYSICAL))
def test_a_plain_prefix_and_unit_are_read_as_pint_reads_them(value, prefix, unit):
    text = f"{value!r} {prefix}{unit}"
    assert quantity(text, unit) == pytest.approx(_pint(text, unit), rel=1e-12)


WRITTEN = {
    "B/s": {
        "3.35 TB/s": 3.35e12,
        "3.35TB/s": 3.35e12,
        "400 Gb/s": 50e9,
        "400 Gbit/s": 50e9,
        "100 Gbps": 12.5e9,
        "900 GiB/s": 900 * 2**30,
    },
    "B": {"80 GB": 80e9, "50 MiB": 50 * 2**20},
    "FLOP/s": {"2 PFLOP/s": 2e15, "989 TFLOPS": 989e12, "1979 TOPS": 1979e12, "5 TFLOPs/s": 5e12},
    "FLOP": {"3e24 FLOP": 3e24, "3 YFLOP": 3e24},
    "Hz": {"1.98 GHz": 1.98e9, "1980 MHz": 1.98e9},
    "s": {"5 us": 5e-6, "2 h": 7200, "90 days": 90 * 86400},
    "W": {"0.7 kW": 700, "1_000 W": 1000, "700": 700, 7: 7},
    "J": {"1 kWh": 3.6e6},
    "USD": {"USD 30,000": 30000, "$3": 3},
    "USD/h": {"$2.95/h": 2.95, "2.95 USD/h": 2.95},
    "1": {"85%": 0.85, "0.85": 0.85},
}


@pytest.mark.parametrize(
    ("unit", "text", "value"),
    [(unit, text, value) for unit, row in WRITTEN.items() for text, value in row.items()],
)
def test_common_spellings_are_read(unit, text, value):
    assert quantity(text, unit) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("15T", 15e12),
        ("300B tokens", 300e9),
        ("1.28M", 1.28e6),
        ("1.5e12", 1.5e12),
        ("1,000,000", 1e6),
        ("2k", 2e3),
    ],
)
def test_counts_are_read(text, value):
    assert count(text, "tokens") == value == quantity(text, "tokens")


UNFIT = {
    "B/s": ("8 GHz", "8 TB", "8 TB/s/s"),
    "B": ("8 TB/s", "", "9**9 GB", "(2) GB", "big"),
    "W": ("3 kg", "1..2 kW", "nan", "1e999", True, None, [1], 10**400),
    "1": ("2 GB",),
    "tokens": ("15X", "five", "15T samples"),
}


@pytest.mark.parametrize(
    ("unit", "text"), [(unit, text) for unit, row in UNFIT.items() for text in row]
)
def test_a_wrong_unit_or_value_is_rejected_with_an_example(unit, text):
    with pytest.raises(BadInput) as caught:
        quantity(text, unit)
    message = str(caught.value)
    assert "\n" not in message
    assert "for example" in message


def test_a_plain_device_needs_no_heavy_library():
    script = (
        "import sys; from roofcast import hwdb; hwdb.device('t4', {'memory.bandwidth': '8 TB/s'});"
        " print({'numpy', 'pint', 'pandas'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
