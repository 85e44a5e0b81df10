"""What must hold on every device, without any reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roofcast import hwdb
from roofcast.hwdb.constants import kernels
from roofcast.simulator.times.attention import attention, visible_columns
from roofcast.simulator.times.bounds import lower_bound
from roofcast.simulator.times.conv import conv, least_flops
from roofcast.simulator.times.matmul import matmul
from roofcast.simulator.times.rates import Rates, resolve
from roofcast.simulator.times.roofline import rates_of
from roofcast.simulator.times.stream import CLASS, stream
from roofcast.simulator.work.ops.attention import attention_flops

C = kernels()
SIZE = st.integers(1, 20000)
SMALL = st.integers(1, 64)
FEW = settings(max_examples=40, deadline=None, derandomize=True)
HAIR = 1 + 1e-9  # rounding
RATES = [
    "matrix",
    "vector",
    "special",
    "bandwidth",
    "clock",
    "feed",
    "sustained",
    "store",
    "headroom",
    "fed",
]


@st.composite
def rates(draw) -> Rates:
    """A device that may or may not exist."""
    kind, tensor = (
        draw(st.sampled_from(["gpu", "gpu", "gpu", "cpu", "tpu", "npu"])),
        draw(st.booleans()),
    )
    matrix = 10 ** draw(st.floats(12, 16))
    sustained = draw(st.floats(0.3, 1.0))
    return Rates(
        kind=kind,
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
        headroom=draw(st.floats(1, 2.5)),
    )


def all_kernels(r: Rates, m, n, k, batch) -> list:
    """One call of every formula, from four sizes."""
    conv_args = (
        batch,
        1 + m % 512,
        1 + n % 512,
        1 + k % 5000,
        1 + k % 5000,
        9.0,
        1.0,
        r.width,
        r,
        C,
    )
    return [
        matmul(m, n, k, batch, r.width, 2.0, r, C),
        attention(batch, 1 + n % 64, 1 + n % 64, m, m, 64, True, r.width, r, C),
        attention(batch, 1 + n % 64, 1, m, k + m, 128, False, r.width, r, C, backward=True),
        *(
            stream(kind, 4.0 * m * n, m * n, m, r, C)
            for kind in ("elementwise", "norm", "gather", "pool")
        ),
        *(conv(phase, *conv_args, channels_last=False) for phase in ("forward", "input", "weight")),
        conv(
            "forward",
            batch,
            64 * (1 + m % 8),
            64 * (1 + m % 8),
            196,
            196,
            9.0,
            64.0 * (1 + m % 8),
            r.width,
            r,
            C,
        ),
    ]


@FEW
@given(rates(), SIZE, SIZE, SIZE, SMALL, st.sampled_from(RATES))
def test_doubling_a_rate_never_makes_a_kernel_slower(r, m, n, k, batch, field):
    better = r._replace(**{field: 2 * getattr(r, field)})
    pairs = zip(all_kernels(r, m, n, k, batch), all_kernels(better, m, n, k, batch), strict=True)
    assert all(np.all(after <= before * HAIR) for before, after in pairs)


@FEW
@given(rates(), SIZE, SIZE, SIZE, SMALL, st.integers(0, 3), st.integers(1, 500))
def test_a_larger_product_is_never_faster(r, m, n, k, batch, which, more):
    larger = [m, n, k, batch]
    larger[which] += more
    assert matmul(m, n, k, batch, r.width, 2.0, r, C) <= matmul(*larger, r.width, 2.0, r, C) * HAIR


@FEW
@given(
    rates(), st.integers(1, 5000), SMALL, SMALL, st.integers(1, 300), st.booleans(), st.booleans()
)
def test_a_longer_sequence_is_never_faster(r, length, batch, heads, more, causal, backward):
    shorter = attention(batch, heads, heads, length, length, 128, causal, 2.0, r, C, backward)
    assert (
        shorter
        <= attention(
            batch, heads, heads, length + more, length + more, 128, causal, 2.0, r, C, backward
        )
        * HAIR
    )


@FEW
@given(rates(), SIZE, SIZE, SIZE, SMALL)
def test_no_kernel_beats_the_printed_roofline(r, m, n, k, batch):
    w = r.width
    fast = np.maximum(r.sustained, 1.0)  # a board measured above its printed peak
    moved = batch * (w * (m * k + k * n) + 2.0 * m * n)
    bound = lower_bound(2.0 * batch * m * n * k / fast, 0.0, moved, r)
    assert bound <= matmul(m, n, k, batch, w, 2.0, r, C) * HAIR
    length = 1 + m % 8192
    flops = attention_flops(batch, 8, length, visible_columns(length, length, True), 64)
    bound = lower_bound(flops / fast, 0.0, 4.0 * w * batch * 8 * length * 64, r)
    assert bound <= attention(batch, 8, 8, length, length, 64, True, w, r, C) * HAIR
    a, b, pixels = 1 + m % 512, 1 + n % 512, 1 + k % 5000
    flops = 2.0 * batch * pixels * 9 * a * b
    least = least_flops(flops, 9, 1, r) / fast
    bound = lower_bound(least, 0.0, w * (batch * pixels * (a + b) + 9 * a * b), r)
    assert all(
        bound <= conv(phase, batch, a, b, pixels, pixels, 9, 1, w, r, C) * HAIR
        for phase in ("forward", "input", "weight")
    )
    assert all(
        lower_bound(0.0, m * n, 4.0 * m * n, r)
        <= stream(kind, 4.0 * m * n, m * n, 0.0, r, C) * HAIR
        for kind in CLASS
    )


@FEW
@given(rates(), SIZE, SIZE, SIZE)
def test_a_large_batch_costs_its_number(r, m, n, k):
    once, thrice = (matmul(m, n, k, batch, r.width, 2.0, r, C) for batch in (10**12, 3 * 10**12))
    assert thrice == pytest.approx(3 * once, rel=0.01)


@given(rates(), st.lists(st.tuples(SIZE, SIZE, SIZE, SMALL), min_size=1, max_size=5))
@FEW
def test_arrays_give_what_a_loop_gives(r, shapes):
    together = all_kernels(r, *np.array(shapes, dtype=float).T)
    apart = [all_kernels(r, *(float(v) for v in shape)) for shape in shapes]
    for index, column in enumerate(together):
        assert np.allclose(column, [row[index] for row in apart], rtol=1e-12)


def test_formulas_broadcast_over_an_added_axis():
    r = resolve(hwdb.device("h100-sxm5"), "bf16").rates
    m, n = np.array([128.0, 4096.0]), np.array([256.0, 1024.0, 8192.0])[:, None]
    assert matmul(m, n, 1024, 1, 2.0, 2.0, r, C).shape == (3, 2)
    assert attention(1, 8, 8, m, n, 64, False, 2.0, r, C).shape == (3, 2)


def test_rates_may_be_arrays_over_devices():
    both = [resolve(hwdb.device(name), "bf16").rates for name in ("a100-sxm4-80gb", "h100-sxm5")]
    stacked = Rates(
        *(
            column[0] if isinstance(column[0], str | bool) else np.array(column)
            for column in zip(*both, strict=True)
        )
    )
    apart = [float(matmul(4096, 4096, 512, 4, 2.0, 2.0, r, C)) for r in both]
    assert np.allclose(matmul(4096, 4096, 512, 4, 2.0, 2.0, stacked, C), apart)


@pytest.mark.parametrize("name", hwdb.devices())
def test_every_device_has_rates_for_every_format_in_use(name):
    device = hwdb.device(name)
    for format in ("fp32", "tf32", "fp16", "bf16", "fp8"):
        r, said = resolve(device, format)
        assert 0 < r.sustained <= 1.125 and 0 < r.attention <= r.sustained and 0 < r.stream < 1
        if format not in device.peak_flops and format != "fp32":
            assert any(format in text for text in said)


@pytest.mark.parametrize(
    "name",
    [
        "a100-sxm4-80gb",
        "h100-pcie",
        "rtx-3090",
        "t4",
        "l4",
        "mi300x",
        "tpu-v4",
        "gaudi3",
        "xeon-8480",
    ],
)
@pytest.mark.parametrize(
    "figure",
    ["peak_flops.bf16", "peak_flops.fp32", "vector_flops.fp32", "memory.bandwidth", "clock"],
)
def test_doubling_a_printed_figure_never_makes_a_kernel_slower(name, figure):
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
        assert all(np.all(a <= b * HAIR) for b, a in zip(before, after, strict=True))


BOUND_BY_CORES = [kind for kind, name in CLASS.items() if hasattr(C.issue, name)]


@pytest.mark.parametrize("kind", BOUND_BY_CORES)
def test_kernels_that_instructions_bound_follow_cores_and_clock_where_memory_is_ample(kind):
    """A core gets through so many bytes a clock, whatever the bandwidth; the start is a hundred
    thousandth of the time.
    """
    r = resolve(hwdb.device("h200"), "fp32").rates._replace(bandwidth=1e15)
    once = stream(kind, 1e11, 0.0, 0.0, r, C)
    for change, factor in (
        ({"bandwidth": 2e15}, 1.0),
        ({"cores": 2 * r.cores}, 0.5),
        ({"clock": r.clock / 2}, 2.0),
    ):
        assert stream(kind, 1e11, 0.0, 0.0, r._replace(**change), C) == pytest.approx(
            factor * once, rel=1e-3
        )
    starved = r._replace(bandwidth=1e9)
    assert stream(kind, 1e11, 0.0, 0.0, starved, C) == pytest.approx(
        1e11 / (starved.stream * 1e9), rel=1e-3
    )


def test_tf32_convolutions_are_slow_where_units_outrun_their_operands_and_nowhere_else():
    """A100's matrix units do TF32 sixteen times as fast as its vector units do fp32; a GeForce
    board's are held at the same rate.
    """
    shape = (256, 256, 256, 784, 784, 9.0, 1.0, 4.0)

    def share(name):
        r = resolve(hwdb.device(name), "tf32").rates
        t = conv("forward", *shape, r, C)
        return 2.0 * 256 * 784 * 9 * 256 * 256 / (t * r.sustained * r.matrix)

    assert share("a100-sxm4-40gb") < 0.5 < 0.7 < share("rtx-3090") < 1.0


def test_the_winograd_kernel_of_one_pass_runs_on_vector_units():
    """Where fp32 products have matrix units, as on MI250X, its saving is halved: it costs what
    vector units take.
    """
    r = resolve(hwdb.device("mi250x-gcd"), "fp32").rates
    assert r.matrix == pytest.approx(2 * r.vector, rel=0.01)
    args = (256, 64, 64, 3136, 3136, 9.0, 1.0, 4.0)
    plain = r._replace(matrix=r.vector)
    assert conv("forward", *args, r, C) >= 0.45 * conv("forward", *args, plain, C)
    assert conv("forward", *args, r, C, unit_stride=False) < conv(
        "forward", *args, plain, C, unit_stride=False
    )


def test_a_warm_board_is_slower_in_steps_than_in_a_single_product():
    """P4: linear layers of 100 ms and more hold 1.05 of 5.7 TFLOP/s."""
    alone, in_steps = (
        resolve(hwdb.device("p4"), "fp32").rates,
        rates_of(hwdb.device("p4"), "fp32").rates,
    )
    assert in_steps.sustained == pytest.approx(0.185) and in_steps.sustained < 0.5 * alone.sustained
    assert in_steps.feed / alone.feed == pytest.approx(in_steps.sustained / alone.sustained)
    t4 = hwdb.device("t4")
    assert rates_of(t4, "fp32").rates == resolve(t4, "fp32").rates
