"""Laws of the time formulas: properties that hold on every device, without reference values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from looped import each

from roofcast import hwdb
from roofcast.hwdb.constants import kernels
from roofcast.simulator.times.attention import attention, visible_columns
from roofcast.simulator.times.bounds import lower_bound
from roofcast.simulator.times.conv import conv, least_flops
from roofcast.simulator.times.matmul import matmul
from roofcast.simulator.times.rates import Rates, resolve
from roofcast.simulator.times.stream import CLASS, stream
from roofcast.simulator.work.ops.attention import attention_flops

C = kernels()
SIZE = st.integers(1, 20000)
SMALL = st.integers(1, 64)
FEW = settings(max_examples=40, deadline=None, derandomize=True)
ROUNDING = 1 + 1e-9
RATES = ("matrix", "vector", "special", "bandwidth", "clock", "feed", "sustained", "store")
RATES += ("fed",)


@st.composite
def rates(draw) -> Rates:
    """The rates of a random device."""
    kind = draw(st.sampled_from(["gpu", "gpu", "gpu", "cpu", "tpu", "npu"]))
    tensor = draw(st.booleans())
    matrix = 10 ** draw(st.floats(12, 16))
    sustained = draw(st.floats(0.3, 1.0))
    return Rates(
        kind=kind,
        format="bf16" if tensor else "fp32",
        width=draw(st.sampled_from([1.0, 2.0, 4.0])),
        matrix=matrix,
        sustained=sustained,
        attention=sustained * draw(st.floats(0.4, 1)),
        vector=matrix / draw(st.floats(1, 32)),
        special=10 ** draw(st.floats(10, 13)),
        bandwidth=10 ** draw(st.floats(10, 13.5)),
        stream=draw(st.floats(0.5, 0.95)),
        cores=float(draw(st.integers(1, 400))),
        clock=draw(st.floats(0.5e9, 4e9)),
        footprint=draw(st.floats(100, 2000)),
        feed=matrix * draw(st.floats(0.2, 4)),
        batched_tile=draw(st.sampled_from([1.0, 128.0])),
        tensor=tensor,
        store=draw(st.sampled_from([5.0, 20.0, np.inf])),
    )


def all_kernels(r: Rates, m, n, k, batch) -> list:
    """Seconds of one call of every formula; all shapes derive from the four sizes."""
    shape = (batch, 1 + m % 512, 1 + n % 512, 1 + k % 5000, 1 + k % 5000, 9.0, 1.0, r.width, r, C)
    heads, channels = 1 + n % 64, 64 * (1 + m % 8)
    depthwise = (batch, channels, channels, 196, 196, 9.0, 64.0 * (1 + m % 8), r.width, r, C)
    streams = ("elementwise", "norm", "gather", "pool")
    return [
        matmul(m, n, k, batch, r.width, 2.0, r, C),
        attention(batch, heads, heads, m, m, 64, True, r.width, r, C),
        attention(batch, heads, 1, m, k + m, 128, False, r.width, r, C, backward=True),
        *(stream(kind, 4.0 * m * n, m * n, m, r, C) for kind in streams),
        *(conv(phase, *shape, channels_last=False) for phase in ("forward", "input", "weight")),
        conv("forward", *depthwise),
    ]


def test_a_cpu_library_copies_operands_through_memory():
    """Three times the traffic of the operands where they are copied, once where they are not; what
    the second-level caches hold is copied at their rate.
    """
    intel = resolve(hwdb.device("xeon-8480"), "fp32").rates._replace(measured=True, packs=False)
    other = intel._replace(packs=True, held=4e6, private=1e12)
    m, n, k = 8.0, 4096.0, 9216.0
    once, thrice = (matmul(m, n, k, 1.0, 4.0, 4.0, r, C) for r in (intel, other))
    memory = 4.0 * (m * k + k * n + m * n) / (intel.stream * intel.bandwidth)
    assert thrice - once == pytest.approx(2.0 * memory)
    small, copied = (matmul(32.0, 64.0, 64.0, 1.0, 4.0, 4.0, r, C) for r in (intel, other))
    assert copied - small == pytest.approx(2.0 * 4.0 * (2 * 32 * 64 + 64 * 64) / 1e12)
    shape = (8.0, 64.0, 64.0, 196.0, 196.0, 9.0, 1.0, 4.0)
    moved = 4.0 * (8 * 196 * 128 + 9 * 64 * 64)
    plain = 2.0 * 8 * 196 * 9 * 64 * 64 / (intel.sustained * intel.matrix)
    assert conv("forward", *shape, intel, C) - plain > 3.0 * moved / intel.bandwidth


def test_a_pool_on_a_cpu_compares_one_by_one():
    printed = resolve(hwdb.device("xeon-8480"), "fp32").rates
    r = printed._replace(measured=True)
    assert stream("compare", 1e6, 1e9, 0.0, printed, C) == stream("pool", 1e6, 1e9, 0.0, printed, C)
    forward, backward = (stream(kind, 1e6, 1e9, 0.0, r, C) for kind in ("compare", "pool"))
    assert forward > C.cpu.compare * 1e9 / (r.cores * r.clock) > 2.0 * backward
    both = stream(("compare", "pool"), np.array([1e6, 1e6]), np.array([1e9, 1e9]), 0.0, r, C)
    assert both == pytest.approx([forward, backward])
    gpu = resolve(hwdb.device("a100-sxm4-80gb"), "fp32").rates
    assert stream("compare", 1e6, 1e9, 0.0, gpu, C) == stream("pool", 1e6, 1e9, 0.0, gpu, C)


@FEW
@given(rates(), SIZE, SIZE, SIZE, SMALL, st.sampled_from(RATES))
def test_doubling_a_rate_never_makes_a_kernel_slower(r, m, n, k, batch, field):
    better = r._replace(**{field: 2 * getattr(r, field)})
    pairs = zip(all_kernels(r, m, n, k, batch), all_kernels(better, m, n, k, batch), strict=True)
    assert all(np.all(after <= before * ROUNDING) for before, after in pairs)


@FEW
@given(rates(), SIZE, SIZE, SIZE, SMALL, st.integers(0, 3), st.integers(1, 500))
def test_a_larger_matrix_product_is_never_faster(r, m, n, k, batch, which, more):
    larger = [m, n, k, batch]
    larger[which] += more
    before = matmul(m, n, k, batch, r.width, 2.0, r, C)
    assert before <= matmul(*larger, r.width, 2.0, r, C) * ROUNDING


@FEW
@given(
    rates(), st.integers(1, 5000), SMALL, SMALL, st.integers(1, 300), st.booleans(), st.booleans()
)
def test_attention_over_a_longer_sequence_is_never_faster(
    r, length, batch, heads, more, causal, backward
):
    def seconds(tokens):
        return attention(batch, heads, heads, tokens, tokens, 128, causal, 2.0, r, C, backward)

    assert seconds(length) <= seconds(length + more) * ROUNDING


@FEW
@given(rates(), SIZE, SIZE, SIZE, SMALL)
def test_no_kernel_is_faster_than_its_datasheet_roofline(r, m, n, k, batch):
    w = r.width
    fast = np.maximum(r.sustained, 1.0)  # some boards were measured above their datasheet peak
    moved = batch * (w * (m * k + k * n) + 2.0 * m * n)
    bound = lower_bound(2.0 * batch * m * n * k / fast, 0.0, moved, r)
    assert bound <= matmul(m, n, k, batch, w, 2.0, r, C) * ROUNDING
    length = 1 + m % 8192
    flops = attention_flops(batch, 8, length, visible_columns(length, length, True), 64)
    bound = lower_bound(flops / fast, 0.0, 4.0 * w * batch * 8 * length * 64, r)
    assert bound <= attention(batch, 8, 8, length, length, 64, True, w, r, C) * ROUNDING
    a, b, pixels = 1 + m % 512, 1 + n % 512, 1 + k % 5000
    flops = 2.0 * batch * pixels * 9 * a * b
    least = least_flops(flops, 9, 1, r) / fast
    bound = lower_bound(least, 0.0, w * (batch * pixels * (a + b) + 9 * a * b), r)
    for phase in ("forward", "input", "weight"):
        assert bound <= conv(phase, batch, a, b, pixels, pixels, 9, 1, w, r, C) * ROUNDING
    bound = lower_bound(0.0, m * n, 4.0 * m * n, r)
    for kind in CLASS:
        assert bound <= stream(kind, 4.0 * m * n, m * n, 0.0, r, C) * ROUNDING


@FEW
@given(rates(), SIZE, SIZE, SIZE)
def test_time_of_a_large_batched_product_is_proportional_to_the_batch(r, m, n, k):
    once, thrice = (matmul(m, n, k, batch, r.width, 2.0, r, C) for batch in (10**12, 3 * 10**12))
    assert thrice == pytest.approx(3 * once, rel=0.01)


@given(rates(), st.lists(st.tuples(SIZE, SIZE, SIZE, SMALL), min_size=1, max_size=5))
@FEW
def test_one_call_on_arrays_equals_one_call_per_element(r, shapes):
    columns = all_kernels(r, *np.array(shapes, dtype=float).T)
    rows = [all_kernels(r, *(float(v) for v in shape)) for shape in shapes]
    for index, column in enumerate(columns):
        assert np.allclose(column, [row[index] for row in rows], rtol=1e-12)


def test_formulas_broadcast_over_a_second_axis():
    r = resolve(hwdb.device("h100-sxm5"), "bf16").rates
    m, n = np.array([128.0, 4096.0]), np.array([256.0, 1024.0, 8192.0])[:, None]
    assert matmul(m, n, 1024, 1, 2.0, 2.0, r, C).shape == (3, 2)
    assert attention(1, 8, 8, m, n, 64, False, 2.0, r, C).shape == (3, 2)


def test_rates_as_arrays_over_devices_give_each_device_its_own_time():
    both = [resolve(hwdb.device(name), "bf16").rates for name in ("a100-sxm4-80gb", "h100-sxm5")]
    columns = zip(*both, strict=True)
    stacked = Rates(*(c[0] if isinstance(c[0], str | bool) else np.array(c) for c in columns))
    one_by_one = [float(matmul(4096, 4096, 512, 4, 2.0, 2.0, r, C)) for r in both]
    assert np.allclose(matmul(4096, 4096, 512, 4, 2.0, 2.0, stacked, C), one_by_one)


@each("name", hwdb.devices())
def test_every_device_has_rates_for_every_number_format_or_lists_an_assumption(name):
    device = hwdb.device(name)
    for format in ("fp32", "tf32", "fp16", "bf16", "fp8"):
        r, assumptions = resolve(device, format)
        assert 0 < r.sustained <= 1.125 and 0 < r.attention <= r.sustained and 0 < r.stream < 1
        if format not in device.peak_flops and format != "fp32":
            assert any(format in text for text in assumptions)


DEVICES = ("a100-sxm4-80gb", "h100-pcie", "rtx-3090", "t4", "l4", "mi300x", "tpu-v4", "gaudi3")
FIGURES = ("peak_flops.bf16", "peak_flops.fp32", "vector_flops.fp32", "memory.bandwidth", "clock")


@pytest.mark.parametrize("name", [*DEVICES, "xeon-8480"])
@pytest.mark.parametrize("figure", FIGURES)
def test_doubling_a_datasheet_figure_never_makes_a_kernel_slower(name, figure):
    base = hwdb.device(name)
    table, _, key = figure.partition(".")
    if not (getattr(base, table).get(key) if "flops" in table else getattr(base, table)):
        pytest.skip("the device has no such figure")
    better = hwdb.device(name, {figure: "+100%"})
    m = np.array([1.0, 300.0, 4096.0, 8192.0])
    for format in ("fp32", "bf16"):
        before, after = (
            all_kernels(resolve(d, format).rates, m, 1024.0, 2048.0, 2.0) for d in (base, better)
        )
        assert all(np.all(a <= b * ROUNDING) for b, a in zip(before, after, strict=True))


ISSUE_BOUND = [kind for kind, name in CLASS.items() if hasattr(C.issue, name)]


@pytest.mark.parametrize("kind", ISSUE_BOUND)
def test_instruction_bound_kernels_scale_with_cores_and_clock_when_bandwidth_is_ample(kind):
    """A core processes a constant number of bytes per clock, whatever the bandwidth.

    The fixed start of the kernel is 1e-5 of its time here.
    """
    r = resolve(hwdb.device("h200"), "fp32").rates._replace(bandwidth=1e15)

    def seconds(**change):
        return stream(kind, 1e11, 0.0, 0.0, r._replace(**change), C)

    assert seconds(bandwidth=2e15) == pytest.approx(seconds(), rel=1e-3)
    assert seconds(cores=2 * r.cores) == pytest.approx(0.5 * seconds(), rel=1e-3)
    assert seconds(clock=r.clock / 2) == pytest.approx(2.0 * seconds(), rel=1e-3)
    assert seconds(bandwidth=1e9) == pytest.approx(1e11 / (r.stream * 1e9), rel=1e-3)


def test_tf32_convolutions_lose_rate_only_where_matrix_units_outrun_their_operand_feed():
    """A100's TF32 rate is eight times its fp32 vector rate; on a GeForce board the two are equal.

    Compared: FLOP rate as a fraction of the sustained matrix rate.
    """
    shape = (256, 256, 256, 784, 784, 9.0, 1.0, 4.0)

    def fraction(name):
        r = resolve(hwdb.device(name), "tf32").rates
        t = conv("forward", *shape, r, C)
        return 2.0 * 256 * 784 * 9 * 256 * 256 / (t * r.sustained * r.matrix)

    assert fraction("a100-sxm4-40gb") < 0.5 < 0.7 < fraction("rtx-3090") < 1.0


def test_the_fused_winograd_kernel_runs_at_the_rate_of_the_vector_units():
    """On MI250X, whose matrix units double the fp32 rate, Winograd saves half as much."""
    r = resolve(hwdb.device("mi250x-gcd"), "fp32").rates
    assert r.matrix == pytest.approx(2 * r.vector, rel=0.01)
    layer = ("forward", 256, 64, 64, 3136, 3136, 9.0, 1.0, 4.0)
    vector_only = r._replace(matrix=r.vector)
    assert conv(*layer, r, C) >= 0.45 * conv(*layer, vector_only, C)
    direct, slower = (conv(*layer, x, C, unit_stride=False) for x in (r, vector_only))
    assert direct < slower
