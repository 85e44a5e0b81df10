"""Fusion: what a compiler leaves of the bytes of a run of pointwise ops, counted by hand."""

import pytest

from roofcast.simulator.work.fusion import fuse
from roofcast.simulator.work.ops import conv, norm, pointwise
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape

BYTES = 2 * 16 * 8 * 8 * 2  # of one activation of 2 images, 16 channels, 8 x 8, in 16 bits
CHANNELS = 2 * 16 * 2  # scale and shift


def block(training: bool, how: str) -> Tape:
    """Convolution, batch norm, ReLU, convolution, in bf16."""
    t = Tape(precision("bf16"), training=training, implementations={"batch_norm": how})
    x = t.input((2, 16, 8, 8), "bf16")
    with t.op("block", "test"):
        y = conv.conv(t, x, 16, 3, padding=1, bias=False)
        y = pointwise.unary(t, "relu", norm.batch_norm(t, y))
        conv.conv(t, y, 16, 3, padding=1, bias=False)
    return t


def moved(kernels, phase: str) -> float:
    """Bytes of what is no convolution."""
    return sum(
        (k.read + k.written) * k.count for k in kernels if k.phase == phase and k.kind != "conv"
    )


def test_eager_batch_norm_reads_twice_and_the_activation_passes_once_more():
    t = block(True, "passes")
    assert moved(t.kernels, "forward") == 3 * BYTES + 2 * BYTES


def test_a_compiler_sums_over_the_batch_first_and_does_all_else_in_one_pass():
    t = block(True, "decomposed")
    fused, _ = fuse(t.kernels, (), 1.0)
    assert moved(fused, "forward") == pytest.approx(
        BYTES + 2 * BYTES + CHANNELS
    )  # sums; normalise, scale and ReLU
    sums = [k for k in fused if k.kind == "batch_norm" and k.phase == "backward"]
    assert sum(k.read for k in sums) == 2 * BYTES and not any(k.written for k in sums)


def test_in_inference_a_scale_a_shift_and_the_activation_are_one_kernel():
    t = block(False, "decomposed")
    fused, _ = fuse(t.kernels, (), 1.0)
    assert [k.kind for k in fused if k.kind != "conv"] == ["fused"]
    assert moved(fused, "forward") == pytest.approx(2 * BYTES + CHANNELS)


def test_a_share_of_the_saving_is_a_share_of_the_way():
    t = block(False, "passes")
    whole, half, none = (
        moved(fuse(t.kernels, (), share)[0], "forward") for share in (1.0, 0.5, 0.0)
    )
    assert none == moved(t.kernels, "forward") and half == pytest.approx((whole + none) / 2)
