"""Fusion: bytes that a compiler saves in a run of pointwise ops, counted by hand."""

import pytest

from roofcast.simulator.work.fusion import fuse
from roofcast.simulator.work.ops import conv, norm, pointwise
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape

BYTES = 2 * 16 * 8 * 8 * 2  # of an activation: 2 images, 16 channels, 8 x 8, 16 bits
CHANNELS = 2 * 16 * 2  # bytes of scale and shift


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
    """Bytes that kernels other than convolutions move."""
    chosen = (k for k in kernels if k.phase == phase and k.kind != "conv")
    return sum((k.read + k.written) * k.count for k in chosen)


def test_eager_batch_norm_reads_its_input_twice_and_relu_is_a_further_pass():
    t = block(True, "passes")
    assert moved(t.kernels, "forward") == 3 * BYTES + 2 * BYTES


def test_compiled_batch_norm_is_a_pass_for_the_sums_and_one_for_all_else():
    t = block(True, "decomposed")
    fused, _ = fuse(t.kernels, (), 1.0)
    sums, rest = BYTES, 2 * BYTES + CHANNELS  # rest: normalize, scale, shift and ReLU
    assert moved(fused, "forward") == pytest.approx(sums + rest)
    backward = [k for k in fused if k.kind == "batch_norm" and k.phase == "backward"]
    assert sum(k.read for k in backward) == 2 * BYTES
    assert not any(k.written for k in backward)


def test_in_inference_batch_norm_and_relu_fuse_into_one_kernel():
    t = block(False, "decomposed")
    fused, _ = fuse(t.kernels, (), 1.0)
    assert [k.kind for k in fused if k.kind != "conv"] == ["fused"]
    assert moved(fused, "forward") == pytest.approx(2 * BYTES + CHANNELS)


def test_bytes_are_linear_in_the_share_of_the_saving():
    t = block(False, "passes")
    whole, half, none = (
        moved(fuse(t.kernels, (), share)[0], "forward") for share in (1.0, 0.5, 0.0)
    )
    assert none == moved(t.kernels, "forward")
    assert half == pytest.approx((whole + none) / 2)
