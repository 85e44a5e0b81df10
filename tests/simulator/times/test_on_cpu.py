"""Kernels on a measured CPU as its software runs them."""

from pathlib import Path

import numpy as np
import pytest

from roofcast import hwdb
from roofcast.hwdb.constants import kernels
from roofcast.simulator.software.stack import stack
from roofcast.simulator.times import on_cpu
from roofcast.simulator.times.ages import cpu_software
from roofcast.simulator.times.conv import conv
from roofcast.simulator.times.on_cpu import Software
from roofcast.simulator.times.rates import resolve
from roofcast.simulator.times.stream import stream

C = kernels()
MACHINES = Path(__file__).parents[3] / "scenarios" / "measured" / "machines"
DEVICE = hwdb.device(MACHINES / "intel-xeon-vm-1-2026-11-22.toml")
R = resolve(DEVICE, "fp32").rates._replace(cores=2.0)
PAIR = {"kinds": ("elementwise", "scatter"), "bytes": np.array([1e6, 1e6])}
NONE = np.zeros(2)


def seconds(own, special=NONE, rows=NONE, kinds=PAIR["kinds"]):
    return on_cpu.streams(kinds, PAIR["bytes"], NONE, special, rows, own, R, C)


def test_plain_software_streams():
    assert seconds(Software()) == pytest.approx(
        [stream(kind, 1e6, 0.0, 0.0, R, C) for kind in PAIR["kinds"]]
    )


def test_a_gather_moves_rows_at_the_bandwidth():
    """Its bytes per clock on a GPU say nothing of a CPU that was measured."""
    assert seconds(Software())[1] == pytest.approx(seconds(Software())[0])
    printed = R._replace(measured=False)
    assert stream("gather", 1e6, 0.0, 0.0, printed, C) > 1.5 * stream("gather", 1e6, 0.0, 0.0, R, C)


def test_functions_of_libm_are_called_one_by_one():
    calls = np.array([1e7, 0.0])
    found = seconds(Software(scalar=("special",)), calls)
    start = seconds(Software(), NONE)[1] - 1e6 / (R.stream * R.bandwidth)
    assert found[0] - start == pytest.approx(C.cpu.compare * 1e7 / (2.0 * R.clock))
    assert found[1] == seconds(Software())[1] and found[0] > seconds(Software(), calls)[0]
    roots = ("optimizer", "scatter")
    assert seconds(Software(scalar=("special",)), calls, kinds=roots)[0] == pytest.approx(
        seconds(Software(), calls, kinds=roots)[0]
    )


def test_one_thread_has_its_share_of_the_bandwidth():
    alone = seconds(Software(serial=("scatter",))) - seconds(Software())
    assert alone == pytest.approx([0.0, 1e6 / (R.stream * R.bandwidth)])


def test_a_scatter_pays_for_each_row():
    rows = np.array([0.0, 1000.0])
    own = Software(row_s=1e-7)
    assert seconds(own, rows=rows) - seconds(own) == pytest.approx([0.0, 1e-4])


def test_the_stack_says_what_its_software_does_on_a_cpu():
    eager = cpu_software(stack("pytorch-eager"), DEVICE)
    assert eager and eager.serial == ("scatter",) and eager.row_s > 0 and not eager.packs
    own = Path(on_cpu.__file__).parents[1] / "machine" / "crosscheck" / "numba-stack.toml"
    numba = cpu_software(stack(str(own)), DEVICE)
    assert numba and numba.packs and numba.columns and numba.scalar == ("special",)
    for other in ("h100-sxm5", "i9-10940x"):
        assert cpu_software(stack("pytorch-eager"), hwdb.device(other)) is None


def test_the_matrix_of_windows_crosses_memory():
    """im2col writes it and the product reads it: three times more where the library packs."""
    flops, operands, columns = (np.array([value]) for value in (0.0, 1e6, 1e9))
    once, packed = (
        on_cpu.by_columns(flops, operands, columns, R._replace(packs=packs), C)
        for packs in (False, True)
    )
    per_byte = 1.0 / (R.stream * R.bandwidth)
    assert once == pytest.approx(2e9 * per_byte, rel=0.01)
    assert packed == pytest.approx(4e9 * per_byte, rel=0.01)


def test_a_first_layer_is_not_padded_under_avx512():
    """3 channels of an image cost 3 of 8, in forward and in the gradient of weights."""
    wide = R._replace(matrix=64.0 * R.cores * R.clock)
    narrow = R._replace(matrix=32.0 * R.cores * R.clock)
    sizes = {"batch": 64.0, "c_out": 64.0, "pixels_in": 1e5, "pixels_out": 1e5, "taps": 9.0}

    def ratio(phase, rates):
        three, eight = (
            conv(
                phase,
                c_in=c_in,
                groups=1.0,
                width_bytes=4.0,
                rates=rates,
                c=C,
                traffic=0.0,
                **sizes,
            )
            for c_in in (3.0, 8.0)
        )
        return float(three / eight)

    assert [ratio(phase, wide) for phase in ("forward", "weight")] == pytest.approx(
        [3 / 8, 3 / 8], rel=1e-3
    )
    assert [ratio("input", wide), ratio("forward", narrow)] == pytest.approx([1.0, 1.0])
