"""ONNX weights of few bits: bytes of their blocks, with scales and zero points."""

import pytest

onnx = pytest.importorskip("onnx", reason="needs the onnx extra: pip install .[onnx]")
import numpy as np  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402
from onnx_nets import contrib, counted, graph, held, run, stored  # noqa: E402

pytestmark = pytest.mark.onnx
node = helper.make_node
UINT8 = np.uint8


@pytest.mark.parametrize("dtype", (np.float16, np.float32))
@pytest.mark.parametrize("bits, block", [(4, 16), (4, 32), (4, 64), (4, 128), (4, 256), (8, 32)])
def test_scales_and_zero_points_of_blocks_are_held_as_the_file_holds_them(bits, block, dtype):
    """Shapes of the inputs are those of onnxruntime's ContribOperators.md: 576 is no multiple of
    128 and 256, so the last block of a row is padded.
    """
    k, n, half = 576, 96, np.dtype(dtype).itemsize
    blocks = -(-k // block)
    tensors = {
        "w": np.zeros((n, blocks, block * bits // 8), UINT8),
        "s": np.zeros((n, blocks), dtype),
        "z": np.zeros((n, -(-blocks * bits // 8)), UINT8),
    }
    weights = [numpy_helper.from_array(a, name) for name, a in tensors.items()]
    fields = {"K": k, "N": n, "bits": bits, "block_size": block}
    net = contrib("MatMulNBits", ["x", "w", "s", "z"], {"x": [4, k]}, weights, **fields)
    tape = run(net)
    padded = n * blocks * block * bits / 8
    assert held(tape) == pytest.approx(padded + half * n * blocks + tensors["z"].size)
    assert counted(tape) == (k * n, 2 * 4 * k * n)
    per = 8 * held(tape) / (k * n)
    assert any(f"{per:.4g} bits each" in a for a in tape.assumptions)


def test_a_dequantized_weight_of_four_bits_is_held_with_the_scales_of_its_blocks():
    k, n, block = 64, 32, 16
    w = helper.make_tensor("w", onnx.TensorProto.UINT4, [k, n], bytes(k * n // 2), raw=True)
    z = helper.make_tensor("z", onnx.TensorProto.UINT4, [k // block, n], bytes(64), raw=True)
    nodes = [
        node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=0, block_size=block),
        node("MatMul", ["x", "d"], ["y"]),
    ]
    net = graph(nodes, {"x": [4, k]}, [w, z, stored("s", k // block, n)], opset=21)
    tape = run(net)
    assert held(tape) == k * n / 2 + k // block * n * (4 + 0.5)
    assert counted(run(net, training=True)) == counted(tape) == (k * n, 2 * 4 * k * n)
