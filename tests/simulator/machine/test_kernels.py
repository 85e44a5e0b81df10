"""Numba kernels against numpy in fp64: forward by formula, backward by finite differences."""

import re

import numpy as np
import pytest
from scipy.special import erf

from roofcast.simulator.machine.kernels.compiled import FAST, VECTOR_BYTES, both, numba
from roofcast.simulator.machine.kernels.gemm import TALL, WIDE, gemm
from roofcast.simulator.machine.kernels.registry import KERNELS

EPS = 1e-5


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def soft(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def normed(x, weight, bias, axes, centred=True):
    mean = x.mean(axes, keepdims=True) if centred else 0.0
    inverse = 1 / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + EPS)
    return (x - mean) * inverse * weight + bias, np.squeeze(np.asarray(mean)), np.squeeze(inverse)


def convolved(x, w, stride, padding):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))[
        :, :, ::stride, ::stride
    ]
    return np.einsum("nchwij,ocij->nohw", windows, w)


def pooled(x, edge, stride):
    return np.lib.stride_tricks.sliding_window_view(x, (edge, edge), axis=(2, 3))[
        :, :, ::stride, ::stride
    ].max((-2, -1))


def attended(q, k, v, causal):
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    if causal:
        scores = np.where(np.tri(q.shape[1], dtype=bool), scores, -1e30)
    return soft(scores) @ v


def lstm(gates, before):
    i, f, g, o = np.split(gates, 4, axis=1)
    cell = sigmoid(f) * before + sigmoid(i) * np.tanh(g)
    return cell, sigmoid(o) * np.tanh(cell)


def gelu(x):
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


# name: size; positions of the output arguments; the expected outputs from the arguments
FORWARD = {
    "read": ((1000,), (1,), lambda x, *_: [[x.sum()]]),
    "fill": ((1000,), (0,), lambda y, *_: [np.ones(1000)]),
    "copy": ((1000,), (1,), lambda x, *_: [x]),
    "scale": ((1000,), (1,), lambda x, *_: [0.5 * x]),
    "triad": ((1000,), (2,), lambda a, b, *_: [a + 0.5 * b]),
    "exp": ((1000,), (1,), lambda x, *_: [np.exp(x)]),
    "erf": ((1000,), (1,), lambda x, *_: [erf(x)]),
    "tanh": ((1000,), (1,), lambda x, *_: [np.tanh(x)]),
    "div": ((1000,), (1,), lambda x, *_: [1 / x]),
    "gemm": ((130, 70, 300), (2,), lambda a, b, *_: [a @ b]),
    "add": ((1000,), (2,), lambda a, b, *_: [a + b]),
    "relu": ((1000,), (1,), lambda x, *_: [np.maximum(x, 0)]),
    "gelu": ((1000,), (1,), lambda x, *_: [gelu(x)]),
    "sgd": ((1000,), (0, 2), lambda w, g, m, rate, beta: [w - rate * (beta * m + g), beta * m + g]),
    "adam": (
        (1000,),
        (0, 2, 3),
        lambda w, g, m, v, rate, b1, b2, e, t: [
            w - rate * g / (np.abs(g) + e),
            (1 - b1) * g,
            (1 - b2) * g * g,
        ],
    ),
    "add_bias": ((7, 100), (2,), lambda x, b, _: [x + b]),
    "sum_rows": ((7, 100), (1,), lambda x, _: [x.sum(0)]),
    "transpose": ((37, 50), (1,), lambda x, _: [x.T]),
    "softmax": ((7, 100), (1,), lambda x, _: [soft(x)]),
    "layer_norm": ((7, 100), (3, 4, 5), lambda x, w, b, *_: normed(x, w, b, -1)),
    "rms_norm": ((7, 100), (2, 3), lambda x, w, *_: normed(x, w, 0.0, -1, centred=False)[::2]),
    "batch_norm": (
        (3, 5, 20),
        (3, 4, 5),
        lambda x, w, b, *_: normed(x, w[:, None], b[:, None], (0, 2)),
    ),
    "gather": ((20, 16, 50), (2,), lambda table, index, _: [table[index]]),
    "conv": (
        (2, 3, 5, 9, 3, 2, 1),
        (2,),
        lambda x, w, y, stride, padding: [convolved(x, w, stride, padding)],
    ),
    "conv_direct": (
        (2, 3, 5, 9, 3, 2, 1),
        (2,),
        lambda x, w, y, stride, padding: [convolved(x, w, stride, padding)],
    ),
    "max_pool": ((2, 3, 9, 3, 2), (3,), lambda x, edge, stride, *_: [pooled(x, edge, stride)]),
    "lstm_cell": ((3, 20), (2, 3), lambda gates, before, *_: lstm(gates, before)),
    "attention": ((2, 9, 4), (4,), lambda q, k, v, causal, *_: [attended(q, k, v, causal)]),
}

# name: size; positions of (the varied argument, its gradient, dy) ..; the forward formula
BACKWARD = {
    "gelu_backward": ((9,), ((0, 2, 1),), lambda x, *_: gelu(x)),
    "batch_norm_backward": (
        (2, 3, 4),
        ((0, 5, 4), (1, 6, 4)),
        lambda x, w, *_: normed(x, w[:, None], 0.0, (0, 2))[0],
    ),
    "layer_norm_backward": ((2, 7), ((0, 5, 4),), lambda x, w, *_: normed(x, w, 0.0, -1)[0]),
    "rms_norm_backward": (
        (2, 7),
        ((0, 4, 3),),
        lambda x, w, *_: normed(x, w, 0.0, -1, centred=False)[0],
    ),
    "conv_input_backward": (
        (2, 2, 3, 5, 3, 2, 1),
        ((2, 2, 1),),
        lambda w, y, x, stride, padding: convolved(x, w, stride, padding),
    ),
    "conv_weight_backward": (
        (3, 2, 3, 5, 3, 1, 1),
        ((2, 2, 1),),
        lambda x, y, w, stride, padding, teams: convolved(x, w, stride, padding),
    ),
    "attention_backward": (
        (2, 5, 3),
        ((0, 5, 4), (1, 6, 4), (2, 7, 4)),
        lambda q, k, v, *_: attended(q, k, v, True),
    ),
}


def wide(args):
    """The arguments in fp64, copied."""
    return [
        arg.astype(np.float64) if isinstance(arg, np.ndarray) and arg.dtype.kind == "f" else arg
        for arg in args
    ]


def with_statistics(name, args):
    """Fill in the statistics that forward keeps for the backward of a norm."""
    if name == "batch_norm_backward":
        args[2][:], args[3][:] = normed(wide(args)[0], 1.0, 0.0, (0, 2))[1:]
    if name == "layer_norm_backward":
        args[2][:], args[3][:] = normed(wide(args)[0], 1.0, 0.0, -1)[1:]
    if name == "rms_norm_backward":
        args[2][:] = normed(wide(args)[0], 1.0, 0.0, -1, centred=False)[2]


@pytest.mark.parametrize("name", FORWARD)
def test_forward_matches_numpy(name):
    size, outputs, formula = FORWARD[name]
    args = KERNELS[name].make(size)
    expected = formula(*wide(args))
    KERNELS[name].run.one(*args)
    for position, right in zip(outputs, expected, strict=True):
        near = 1e-4 if name == "gemm" else 2e-5
        np.testing.assert_allclose(
            args[position], np.reshape(right, args[position].shape), rtol=2e-5, atol=near
        )


@pytest.mark.parametrize("name", ["triad", "softmax", "gemm", "conv", "sgd"])
def test_all_threads_give_the_result_of_one(name):
    size, outputs, _ = FORWARD[name]
    alone, together = KERNELS[name].make(size), KERNELS[name].make(size)
    KERNELS[name].run.one(*alone)
    KERNELS[name].run.all(*together)
    for position in outputs:
        np.testing.assert_allclose(alone[position], together[position], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", BACKWARD)
def test_backward_matches_finite_differences_of_forward(name):
    size, triples, formula = BACKWARD[name]
    args = list(KERNELS[name].make(size))
    with_statistics(name, args)
    exact = wide(args)
    KERNELS[name].run.one(*args)
    step = 1e-6
    for varied, gradient, dy in triples:
        slope = np.empty(exact[varied].size)
        for i in range(slope.size):
            ends = []
            for sign in (1, -1):
                moved = exact[varied].copy()
                moved.flat[i] += sign * step
                ends.append(
                    (formula(*exact[:varied], moved, *exact[varied + 1 :]) * exact[dy]).sum()
                )
            slope[i] = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(args[gradient].ravel(), slope, rtol=1e-4, atol=1e-4)


def test_other_backward_kernels_match_their_formulas():
    y, dy, dx = KERNELS["relu_backward"].make((50,))
    KERNELS["relu_backward"].run.one(y, dy, dx)
    np.testing.assert_array_equal(dx, np.where(y > 0, dy, 0))
    x = KERNELS["softmax"].make((4, 20))[0]
    y, dy, dx = soft(x.astype(np.float64)).astype(np.float32), -x, np.empty_like(x)
    KERNELS["softmax_backward"].run.one(y, dy, dx)
    np.testing.assert_allclose(dx, y * (dy - (y * dy).sum(1, keepdims=True)), atol=1e-6)
    x, mean, inverse, dy, dw, db = KERNELS["norm_weight_backward"].make((6, 70))
    KERNELS["norm_weight_backward"].run.one(x, mean, inverse, dy, dw, db)
    np.testing.assert_allclose(dw, (dy * (x - mean[:, None]) * inverse[:, None]).sum(0), atol=1e-4)
    np.testing.assert_allclose(db, dy.sum(0), atol=1e-5)


def test_cross_entropy_is_the_loss_and_the_gradient_of_its_mean():
    x, label, loss, dx = KERNELS["cross_entropy"].make((6, 40))
    KERNELS["cross_entropy"].run.one(x, label, loss, dx)
    share = soft(x.astype(np.float64))
    np.testing.assert_allclose(loss, -np.log(share[np.arange(6), label]), rtol=1e-5)
    np.testing.assert_allclose(dx, (share - np.eye(40)[label]) / 6, atol=1e-6)


def test_scatter_adds_rows_with_the_same_index():
    dy, index, table = KERNELS["scatter"].make((30, 70, 5))
    KERNELS["scatter"].run.one(dy, index, table)
    expected = np.zeros_like(table)
    np.add.at(expected, index, dy)
    np.testing.assert_allclose(table, expected, atol=1e-5)


def test_max_pool_backward_sends_the_gradient_to_the_maximum():
    size = (2, 3, 8, 2, 2)
    x, edge, stride, y, where = KERNELS["max_pool"].make(size)
    dy, _, dx = KERNELS["max_pool_backward"].make(size)
    KERNELS["max_pool"].run.one(x, edge, stride, y, where)
    KERNELS["max_pool_backward"].run.one(dy, where, dx)
    winners = (x == y.repeat(2, 2).repeat(2, 3)) * dy.repeat(2, 2).repeat(2, 3)
    np.testing.assert_array_equal(dx, winners)


def test_im2col_and_a_product_are_a_convolution():
    size = (2, 3, 4, 7, 3, 2, 1)
    args = KERNELS["im2col"].make(size)
    KERNELS["im2col"].run.one(*args)
    x, w, y, stride, padding = KERNELS["conv_direct"].make(size)
    np.testing.assert_allclose(
        w.reshape(4, 27) @ args[-1], convolved(x, w, stride, padding).reshape(2, 4, 16), atol=1e-5
    )


def test_lstm_backward_matches_finite_differences():
    gates, before, cell, hidden, kept = KERNELS["lstm_cell"].make((2, 3))
    KERNELS["lstm_cell"].run.one(gates, before, cell, hidden, kept)
    _, _, dhidden, dcell, dgates, dbefore = KERNELS["lstm_cell_backward"].make((2, 3))
    KERNELS["lstm_cell_backward"].run.one(kept, before, dhidden, dcell, dgates, dbefore)

    def value(gates, before):
        c, h = lstm(gates, before)
        return (c * dcell).sum() + (h * dhidden).sum()

    gates, before = gates.astype(np.float64), before.astype(np.float64)
    for array, got in ((gates, dgates), (before, dbefore)):
        for i in range(array.size):
            kept_value = array.flat[i]
            array.flat[i] = kept_value + 1e-6
            up = value(gates, before)
            array.flat[i] = kept_value - 1e-6
            assert got.flat[i] == pytest.approx((up - value(gates, before)) / 2e-6, abs=1e-4)
            array.flat[i] = kept_value


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (TALL, WIDE, 8), (TALL + 1, WIDE - 1, 257), (100, 1100, 30)]
)
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
def test_gemm_with_any_shape_and_transposed_operands(shape, turned):
    m, n, k = shape
    rng = np.random.default_rng(m)
    a, b = (
        rng.standard_normal((m, k), dtype=np.float32),
        rng.standard_normal((k, n), dtype=np.float32),
    )
    c = np.full((m, n), 3.0, np.float32)
    given = [np.ascontiguousarray(x.T) if t else x for x, t in zip((a, b), turned, strict=True)]
    gemm.one(*given, c, *turned, True)
    np.testing.assert_allclose(c, a @ b + 3, atol=1e-4)
    gemm.one(*given, c, *turned, False)
    np.testing.assert_allclose(c, a @ b, atol=1e-4)


def test_chains_converge_to_their_fixed_point():
    """x = 0.5 x + 1 converges to 2 in each of the CHAINS vectors."""
    for name, width in (("fma32", 4), ("fma64", 8)):
        out, teams, repeats = KERNELS[name].make((200,))
        KERNELS[name].run.one(out, teams, repeats)
        assert out[0] == pytest.approx(2.0 * 12 * VECTOR_BYTES / width, rel=1e-6)


@pytest.mark.parametrize("name", KERNELS)
def test_work_grows_with_size_and_matches_the_arguments(name):
    kernel = KERNELS[name]
    small = kernel.make(kernel.sizes[0])
    work = [kernel.work(size) for size in kernel.sizes]
    assert all(min(each) >= 0 and sum(each) > 0 for each in work)
    assert sum(work[0]) < sum(work[-1])
    if kernel.op != "fma" and "conv" not in name:  # im2col also writes its matrix
        held = sum(arg.nbytes for arg in small if isinstance(arg, np.ndarray))
        assert work[0].read + work[0].fresh < 3 * held


def test_loops_over_exp_are_vectorized():
    """In the generated code, compiled here: a kernel from the cache has none to inspect."""
    loop = numba.njit(fastmath=FAST, error_model="numpy")(KERNELS["exp"].run.one.py_func)
    loop(*KERNELS["exp"].make((64,)))
    (code,) = loop.inspect_asm().values()
    patterns = {64: r"vfn?m\w+ps.*zmm", 32: r"vfn?m\w+ps.*ymm", 16: r"mulps|fml?a\s+v\d+\.4s"}
    assert re.search(patterns[VECTOR_BYTES], code)


def test_the_variants_for_one_and_all_threads_have_separate_caches():
    pair = both(lambda: None)
    assert pair.one.py_func.__qualname__ != pair.all.py_func.__qualname__
    assert "ninf" not in FAST, "masks contain infinities"


@pytest.mark.parametrize(
    "size", [(2, 3, 9, 2, 1), (1, 2, 40, 3, 2), (2, 2, 37, 3, 3), (1, 1, 70, 2, 2)], ids=str
)
def test_max_pool_with_any_stride_and_width(size):
    images, channels, image, edge, stride = size
    x, _, _, y, where = KERNELS["max_pool"].make(size)
    KERNELS["max_pool"].run.one(x, edge, stride, y, where)
    after = y.shape[2]
    windows = np.lib.stride_tricks.sliding_window_view(x, (edge, edge), (2, 3))[
        :, :, ::stride, ::stride
    ][:, :, :after, :after]
    np.testing.assert_array_equal(y, windows.max((4, 5)))
    flat, places = (each.reshape(images, channels, -1) for each in (x, where))
    np.testing.assert_array_equal(np.take_along_axis(flat, places, 2).reshape(y.shape), y)


@pytest.mark.parametrize(
    "size",
    [
        (1, 2, 5, 37, 3, 1, 1),
        (2, 3, 13, 20, 5, 2, 2),
        (1, 2, 4, 23, 3, 3, 0),
        (1, 40, 3, 9, 3, 2, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["conv", "conv_direct"])
def test_convolutions_with_any_stride_and_depth(name, size):
    x, w, y, stride, padding = KERNELS[name].make(size)
    KERNELS[name].run.one(x, w, y, stride, padding)
    np.testing.assert_allclose(y, convolved(x, w, stride, padding), atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (65, 130), (100, 33)])
def test_transposes_of_any_shape(shape):
    x, y = KERNELS["transpose"].make(shape)
    KERNELS["transpose"].run.one(x, y)
    np.testing.assert_array_equal(y, x.T)
