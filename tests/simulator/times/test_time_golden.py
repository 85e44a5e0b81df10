"""Time formulas: forecasts beside published kernel times, and published formulas reproduced."""

import numpy as np
import pytest

from roofcast import hwdb
from roofcast.hwdb.constants import constants, families, family, kernels
from roofcast.scenarios.measured.kernel_errors import BURST, CALL_ATTENTION
from roofcast.simulator.times import power
from roofcast.simulator.times.attention import attention, visible_columns
from roofcast.simulator.times.conv import conv
from roofcast.simulator.times.host import combine
from roofcast.simulator.times.matmul import matmul
from roofcast.simulator.times.rates import resolve
from roofcast.simulator.times.stream import stream
from roofcast.simulator.work.ops.attention import attention_flops

C = kernels()

# Seconds of one bf16 product C[m, n] = A[m, k] B[k, n], from aiconfigurator-core 0.12 (median over
# frameworks, CUDA-graph replay). Error budget: 12 %, the mean error of the formula over all shapes
# of a device it was not fitted to.
PRODUCTS = [
    ("a100-sxm4-80gb", 4096, 4096, 4096, 540e-6),
    ("a100-sxm4-80gb", 1, 4096, 4096, 26.2e-6),
    ("h100-sxm5", 8192, 8192, 8192, 1460e-6),
    ("h100-sxm5", 128, 4096, 4096, 15.7e-6),
    ("l40s", 8192, 8192, 8192, 5225e-6),
    ("b200-sxm", 2048, 12288, 4096, 134e-6),
    ("b200-sxm", 8192, 8192, 8192, 713e-6),
]

# Constants of the formula's first published fit, in which products sustain 0.803 of the peak at
# boost clock and streams 0.789 of the datasheet bandwidth.
FIRST_FIT = {
    "latency": 0.0,
    "start": 3610.0,
    "tile": 1630.0,
    "split": 4550.0,
    "feed": 1.81,
    "footprint": 0.308,
    "footprint_flat": 640.0,
    "stream": 1.0,
    "store": 1.0,
    "sustained": 0.803,
    "sustained_fp8": 0.803,
    "sustained_fp4": 0.803,
    "in_steps": 1.0,
    "in_steps_others": 1.0,
    "widened": 0.0,
    "sparse_loop": 1.0,
    "sparse_energy": 1.0,
}
# peak at boost clock, SMs, clock, bandwidth; m, n, k; seconds to three digits
FIRST_FIT_SECONDS = [
    ((312e12, 108, 1.41e9, 2.039e12), (4096, 4096, 4096), 573e-6),
    ((312e12, 108, 1.41e9, 2.039e12), (1, 4096, 4096), 26.0e-6),
    ((1070e12, 132, 1.98e9, 3.35e12), (8192, 8192, 8192), 1548e-6),
    ((1070e12, 132, 1.98e9, 3.35e12), (128, 4096, 4096), 16.4e-6),
    ((366e12, 142, 2.52e9, 864e9), (8192, 8192, 8192), 5250e-6),
]


@pytest.mark.parametrize("name, m, n, k, measured", PRODUCTS)
def test_bf16_matrix_products_are_within_the_error_budget_of_measured_times(
    name, m, n, k, measured
):
    device, one = hwdb.device(name), np.ones(1)
    rates, board = resolve(device, "bf16").rates, power.board_of(device, C.power)
    at = power.at_clocks(rates, power.clocks(C.power))
    seconds = matmul(m * one, n, k, 1, 2.0, 2.0, at, C)
    work = power.Energy(
        board.matrix["bf16"] * 2.0 * m * n * k * one,
        board.byte * 2.0 * (m * k + k * n + m * n) * one,
    )
    board = board._replace(limit=BURST * board.limit)  # they are short replays
    assert power.held(seconds, work, board, C.power).seconds[0] == pytest.approx(measured, rel=0.12)


@pytest.mark.parametrize("device, shape, expected", FIRST_FIT_SECONDS)
def test_matrix_product_formula_reproduces_the_values_published_with_its_first_fit(
    device, shape, expected
):
    peak, cores, clock, bandwidth = device
    others = {name: getattr(C, name) for name in C.__struct_fields__ if name != "matmul"}
    c = type(C)(**others, matmul=type(C.matmul)(**FIRST_FIT))
    rates = resolve(hwdb.device("h100-sxm5"), "bf16").rates._replace(
        matrix=peak,
        sustained=0.803,
        cores=float(cores),
        clock=clock,
        bandwidth=bandwidth,
        stream=0.789,
        footprint=0.308 * np.sqrt(cores * 32768.0),
        feed=0.803 * peak,
    )
    assert float(matmul(*shape, 1, 2.0, 2.0, rates, c)) == pytest.approx(expected, rel=4e-3)


# Forward flash attention as a fraction of the datasheet bf16 peak: causal, 64 to 128 heads x batch,
# head_dim 128 (public serving kernels). Band: +-20 %, the error budget of attention from 1k tokens
# on.
PEAK_FRACTIONS = [
    ("a100-sxm4-80gb", 8192, 0.64 * 0.8, 0.64 * 1.2),
    ("h100-sxm5", 8192, 0.59 * 0.8, 0.59 * 1.2),
    ("l40s", 4096, 0.57 * 0.8, 0.57 * 1.2),
    ("b200-sxm", 8192, 0.54 * 0.8, 0.54 * 1.2),
    ("b200-sxm", 2048, 0.35 * 0.8, 0.35 * 1.2),
]


@pytest.mark.parametrize("name, sequence, low, high", PEAK_FRACTIONS)
def test_flash_attention_reaches_the_published_fraction_of_peak(name, sequence, low, high):
    rates = resolve(hwdb.device(name), "bf16").rates
    seconds = attention(4, 32, 32, sequence, sequence, 128, True, 2.0, rates, C)
    flops = attention_flops(4, 32, sequence, visible_columns(sequence, sequence, True), 128)
    assert low < flops / seconds / rates.matrix < high


# Milliseconds of a vLLM 0.24 call, without a window and with a window of 128: causal, batch 8,
# 32 query heads, 8 key-value heads, 4096 tokens, head_dim 128; from aiconfigurator-core 0.12. GB300
# is in no fit. Error budget: 25 %, twice the mean error of attention.
CALLS = [
    ("h100-sxm5", np.inf, 1.984),
    ("h100-sxm5", 128, 0.599),
    ("b200-sxm", np.inf, 1.064),
    ("b200-sxm", 128, 0.381),
    ("gb300", np.inf, 0.807),
    ("gb300", 128, 0.335),
]


@pytest.mark.parametrize("name, window, measured", CALLS)
def test_attention_with_and_without_a_window_is_within_its_error_budget(name, window, measured):
    rates = resolve(hwdb.device(name), "bf16").rates
    seconds = attention(8, 32, 8, 4096, 4096, 128, True, 2.0, rates, C, window=window)
    call = (CALL_ATTENTION - C.attention.start) / rates.clock  # rotary embedding and cache append
    assert 1e3 * (seconds + call) == pytest.approx(measured, rel=0.25)


def test_blackwell_ultra_computes_twice_as_many_exponentials_per_clock_as_blackwell():
    b200, b300 = (resolve(hwdb.device(name), "bf16").rates for name in ("b200-sxm", "b300-sxm"))
    assert b300.special / b300.clock == 2 * b200.special / b200.clock


def test_storing_a_tile_before_the_next_one_starts_costs_more_where_k_is_short():
    rates = resolve(hwdb.device("a100-sxm4-80gb"), "bf16").rates
    overlapped = rates._replace(store=np.inf)  # stores overlap with the next tile

    def slowdown(k):
        serial, free = (matmul(4096, 4096, k, 1, 2.0, 2.0, r, C) for r in (rates, overlapped))
        return serial / free

    short, long = slowdown(128), slowdown(8192)
    assert short > 1.2 > 1.15 > long > 1.0


def test_attention_backward_takes_about_three_times_the_forward():
    rates = resolve(hwdb.device("a100-sxm4-80gb"), "bf16").rates
    forward = attention(8, 32, 32, 4096, 4096, 128, True, 2.0, rates, C)
    backward = attention(8, 32, 32, 4096, 4096, 128, True, 2.0, rates, C, backward=True)
    # 2.5 times the FLOPs at 0.87 of the rate, less the start that both pay; FlashAttention 2's
    # paper (arXiv 2307.08691, figures 4 and 6; A100, heads of 128) has 0.85 to 0.9 of the rate
    assert 2.7 < backward / forward < 2.95


def test_adding_large_tensors_reaches_the_measured_fraction_of_bandwidth():
    # residual add, fp16: 0.89 of the datasheet bandwidth (Vidur kernels); error budget 6 %
    device = hwdb.device("a100-sxm4-80gb")
    seconds = stream("elementwise", 3e9, 0.0, 0.0, resolve(device, "bf16").rates, C)
    assert 3e9 / seconds / float(device.memory.bandwidth) == pytest.approx(0.89, rel=0.06)


def test_tpu_matrix_products_follow_the_published_sweep_over_sizes():
    # TPU v7x, one of a chip's two devices, square bf16 products (AI-Hypercomputer/tpu-recipes,
    # ironwood): 2048 25.3 us, 4096 154 us
    rates = resolve(hwdb.device("tpu-v7"), "bf16").rates
    half = rates._replace(matrix=rates.matrix / 2, bandwidth=rates.bandwidth / 2)
    size = np.array([2048.0, 4096.0, 16384.0])
    measured = 2 * size**3 / np.array([679.3e12, 892.9e12, 950.1e12])
    assert np.allclose(matmul(size, size, size, 1, 2.0, 2.0, half, C), measured, rtol=0.12)


def test_winograd_makes_an_fp32_3x3_convolution_at_unit_stride_faster_on_v100():
    rates = resolve(hwdb.device("v100-sxm2-16gb"), "fp32").rates
    layer = ("forward", 32, 256, 256, 28 * 28, 28 * 28, 9, 1, 4.0, rates, C)
    direct = conv(*layer, unit_stride=False)
    assert 1.4 < direct / conv(*layer) < 4.0  # F(4x4, 3x3) needs a quarter of the multiplications


@pytest.mark.parametrize(
    "c_in, c_out, side, measured",
    [(256, 512, 28, 0.801e-3), (128, 128, 28, 0.158e-3), (512, 512, 14, 0.506e-3)],
)
def test_v100_winograd_convolutions_exceed_the_fp32_peak_as_measured(c_in, c_out, side, measured):
    """DeepBench training sheet, batch 16, 3x3: 37 TFLOP/s of direct convolution at a peak of 15.7.

    Error budget: 22 %, the mean error over all convolutions.
    """
    rates = resolve(hwdb.device("v100-sxm2-16gb"), "fp32").rates
    predicted = conv("forward", 16, c_in, c_out, side**2, side**2, 9, 1, 4.0, rates, C)
    assert predicted == pytest.approx(measured, rel=0.22)


def test_device_and_host_together_take_between_the_longer_of_the_two_and_their_sum():
    device, host = np.array([1.0, 1.0, 5.0]), np.array([1.0, 0.0, 3.0])
    total = combine(device, host, C)
    assert (total >= np.maximum(device, host) - 1e-12).all()
    assert (total <= device + host + 1e-12).all()


def test_every_kernel_constant_has_a_unit_a_meaning_and_a_source():
    for name, constant in constants().items():
        assert constant.unit and constant.meaning and constant.source, name
    # with host.native, which stood in the code before, in_steps_others, once Trainium's own, and
    # attention.sustained, once a share of each of four families
    assert len(constants()) <= 69


@pytest.mark.parametrize("name", families())
def test_achieved_rates_of_a_device_family_are_plausible_fractions_of_peak_with_a_source(name):
    record = family(name)
    shares = [*record.sustained.values(), record.attention, record.stream, record.half_rate]
    assert all(0.1 < share.value <= 1.125 and share.source for share in shares if share)
