"""ONNX operators beyond those that exporters write: quantized, fused, with inner graphs.

Right values by hand: a product of m, k and n is 2 m k n FLOPs, attention of batch b, width w and
lengths s and t is 4 b s t w.
"""

import pytest

onnx = pytest.importorskip("onnx", reason="needs the onnx extra: pip install .[onnx]")
import numpy as np  # noqa: E402
import onnx_nets as nets  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402
from onnx_nets import INT64, contrib, counted, graph, held, run, scales, stored, whole  # noqa: E402

from roofcast.hwdb.errors import RoofcastError  # noqa: E402

pytestmark = pytest.mark.onnx
node = helper.make_node
UINT8 = np.uint8


def products(tape):
    return {k.product for k in tape.kernels if k.matrix}


ATTENTION = {"x": [2, 128, 512]}
QKV = {n: [2, 16, 64] for n in "qkv"}
B, S, D = 2, 16, 64
PAST = {"pk": [2, 4, 8, 16], "pv": [2, 4, 8, 16]}

# name: graph, parameters, FLOPs forward
OPERATORS = {
    "QLinearMatMul": (
        graph(
            [
                node("QuantizeLinear", ["x", "s", "z"], ["q"]),
                node("QLinearMatMul", ["q", "s", "z", "w", "s", "z", "s", "z"], ["y"]),
            ],
            {"x": [4, 64]},
            [whole("w", 64, 32), *scales("s"), whole("z")],
        ),
        2048, 2 * 4 * 64 * 32,
    ),
    "QLinearConv": (
        graph(
            [
                node("QuantizeLinear", ["x", "s", "z"], ["q"]),
                node("QLinearConv", ["q", "s", "z", "w", "s", "z", "s", "z", "b"], ["y"]),
            ],
            {"x": [2, 3, 8, 8]},
            [whole("w", 4, 3, 3, 3), whole("b", 4, dtype=np.int32), *scales("s"), whole("z")],
        ),
        108 + 4, 2 * 2 * 36 * 4 * 27,
    ),
    "ConvInteger": (
        graph(
            [node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
             node("ConvInteger", ["q", "w", "z"], ["y"])],
            {"x": [2, 3, 8, 8]}, [whole("w", 4, 3, 3, 3)],
        ),
        108, 2 * 2 * 36 * 4 * 27,
    ),
    "MatMulInteger": (
        graph(
            [node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
             node("MatMulInteger", ["q", "w", "z"], ["i"]), node("Cast", ["i"], ["f"], to=1),
             node("Mul", ["s", "w_scale"], ["c"]), node("Mul", ["f", "c"], ["y"])],
            {"x": [4, 64]},
            [whole("w", 64, 32), *scales("w_scale"), whole("w_zero_point")],
        ),
        2048, 2 * 4 * 64 * 32,
    ),
    "QGemm": (
        contrib("QGemm", ["x", "s", "z", "w", "s", "z", "b"],
                {"x": (onnx.TensorProto.UINT8, [4, 64])},
                [whole("w", 64, 32), whole("b", 32, dtype=np.int32), *scales("s"), whole("z")]),
        2080, 2 * 4 * 64 * 32,
    ),
    "DynamicQuantizeMatMul": (
        contrib("DynamicQuantizeMatMul", ["x", "w", "s", "", "b"], {"x": [4, 64]},
                [whole("w", 64, 32), stored("b", 32), *scales("s")]),
        2080, 2 * 4 * 64 * 32,
    ),
    "MatMulNBits": (
        contrib("MatMulNBits", ["x", "w", "s"], {"x": [4, 64]},
                [whole("w", 32, 2, 16, dtype=UINT8), stored("s", 64)],
                K=64, N=32, bits=4, block_size=32),
        2048, 2 * 4 * 64 * 32,
    ),
    "MatMulBnb4": (
        contrib("MatMulBnb4", ["x", "w", "s"], {"x": [4, 64]},
                [whole("w", 1024, dtype=UINT8), stored("s", 64)],
                K=64, N=32, block_size=32, quant_type=1),
        2048, 2 * 4 * 64 * 32,
    ),
    "GatherBlockQuantized": (
        contrib("GatherBlockQuantized", ["w", "x", "s"], {"x": (INT64, [2, 8])},
                [whole("w", 100, 8, dtype=UINT8), stored("s", 100, 1)], block_size=16, bits=4),
        1600, 0,
    ),
    "FusedMatMul": (
        contrib("FusedMatMul", ["x", "w"], {"x": [2, 8, 64]}, [stored("w", 32, 64)], transB=1),
        2048, 2 * 16 * 64 * 32,
    ),
    "FusedConv": (
        contrib("FusedConv", ["x", "w", "b"], {"x": [2, 3, 8, 8]},
                [stored("w", 4, 3, 3, 3), stored("b", 4)], activation="Relu"),
        112, 2 * 2 * 36 * 4 * 27,
    ),
    "NhwcConv": (
        contrib("NhwcConv", ["x", "w"], {"x": [2, 8, 8, 3]}, [stored("w", 4, 3, 3, 3)]),
        108, 2 * 2 * 36 * 4 * 27,
    ),
    "Attention": (
        contrib("Attention", ["x", "w", "b"], ATTENTION,
                [stored("w", 512, 1536), stored("b", 1536)], num_heads=8),
        787_968, 2 * 2 * 128 * 512 * 1536 + 2 * 4 * 128 * 128 * 512,
    ),
    "MultiHeadAttention": (
        contrib("MultiHeadAttention", [*"qkv", "", "", "", "pk", "pv"], QKV | PAST, [],
                num_heads=4),
        0, 4 * B * S * (S + 8) * D,
    ),
    "GroupQueryAttention": (
        contrib("GroupQueryAttention", [*"qkv", "pk", "pv", "l", "t"],
                {"q": [B, S, D], "k": [B, S, 32], "v": [B, S, 32], "pk": [B, 2, 8, 16],
                 "pv": [B, 2, 8, 16], "l": (onnx.TensorProto.INT32, [B])},
                [numpy_helper.from_array(np.array(24, np.int32), "t")],
                num_heads=4, kv_num_heads=2, do_rotary=1),
        0, 4 * B * S * (S + 8) * D,
    ),
    "PackedAttention": (
        contrib("PackedAttention", ["x", "w", "b", "o", "c"],
                {"x": [20, D], "o": (onnx.TensorProto.INT32, [B, S]),
                 "c": (onnx.TensorProto.INT32, [B + 1])},
                [stored("w", D, 3 * D), stored("b", 3 * D)], num_heads=4),
        D * 3 * D + 3 * D, 2 * 20 * D * 3 * D + 4 * B * S * S * D,
    ),
    "SkipLayerNormalization": (
        contrib("SkipLayerNormalization", ["x", "r", "g", "b", "c"],
                {"x": [2, 8, 64], "r": [2, 8, 64]}, [stored(n, 64) for n in "gbc"]),
        192, 0,
    ),
    "SkipSimplifiedLayerNormalization": (
        contrib("SkipSimplifiedLayerNormalization", ["x", "r", "g"],
                {"x": [2, 8, 64], "r": [2, 8, 64]}, [stored("g", 64)]),
        64, 0,
    ),
    "EmbedLayerNormalization": (
        contrib("EmbedLayerNormalization", ["x", "", "w", "p", "", "g", "b"],
                {"x": (onnx.TensorProto.INT32, [2, 8])},
                [stored("w", 100, 64), stored("p", 16, 64), stored("g", 64), stored("b", 64)]),
        116 * 64 + 128, 0,
    ),
    "BiasGelu": (
        contrib("BiasGelu", ["x", "b"], {"x": [2, 8, 64]}, [stored("b", 64)]), 64, 0,
    ),
    "MoE": (
        contrib("MoE", ["x", "r", "u", "", "d"], {"x": [20, 64], "r": [20, 8]},
                [stored("u", 8, 64, 128), stored("d", 8, 128, 64)], k=2),
        2 * 8 * 64 * 128, 2 * 20 * 2 * 2 * 64 * 128,
    ),
    "QMoE": (
        contrib("QMoE", ["x", "r", "u", "s", "", "d", "s"], {"x": [20, 64], "r": [20, 8]},
                [whole("u", 8, 64, 64, dtype=UINT8), whole("d", 8, 128, 32, dtype=UINT8),
                 stored("s", 8, 128)], k=2, expert_weight_bits=4),
        2 * 8 * 64 * 128, 2 * 20 * 2 * 2 * 64 * 128,
    ),
    "Attention of ai.onnx": (
        graph([node("Attention", [*"qkv", "", "pk", "pv"], ["y"], q_num_heads=4, kv_num_heads=4)],
              QKV | PAST, opset=23),
        0, 4 * B * S * (S + 8) * D,
    ),
    "RotaryEmbedding, RMSNormalization": (
        graph([node("RMSNormalization", ["x", "g"], ["n"]),
               node("RotaryEmbedding", ["n", "zeros_c", "zeros_c"], ["y"])],
              {"x": [2, 4, 16, 64]}, [stored("g", 64), stored("zeros_c", 16, 32)],
              opset=23),
        64, 0,
    ),
    "Einsum of three": (
        graph([node("Einsum", ["x", "a", "b"], ["y"], equation="...i,ij,jk->...k")],
              {"x": [2, 8, 16]}, [stored("a", 16, 32), stored("b", 32, 4)]),
        16 * 32 + 32 * 4, 2 * 16 * 16 * 32 + 2 * 16 * 32 * 4,
    ),
}  # fmt: skip
IN_INT8 = ("QLinearMatMul", "QLinearConv", "ConvInteger", "MatMulInteger", "QGemm",
           "DynamicQuantizeMatMul")  # fmt: skip
# numbers of fp32 that are scales
IN_INT4 = {"MatMulNBits": 64, "MatMulBnb4": 64, "GatherBlockQuantized": 100, "QMoE": 2 * 8 * 128}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_has_its_parameters_and_flops(name):
    net, parameters, flops = OPERATORS[name]
    tape = run(net)
    assert counted(tape) == (parameters, flops)
    assert not [a for a in tape.assumptions if "without a formula" in a]


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_runs_in_training(name):
    net, parameters, flops = OPERATORS[name]
    assert counted(run(net, training=True)) == (parameters, flops)


def test_integer_products_run_in_int8_on_weights_of_a_byte():
    for name in IN_INT8:
        tape = run(OPERATORS[name][0])
        assert products(tape) == {"int8"}, name
        assert {w.dtype for w in tape.weights if w.size > 100} == {"int8"}, name


def test_weights_of_four_bits_are_held_in_half_a_byte_and_their_scales():
    for name, scales_ in IN_INT4.items():
        tape = run(OPERATORS[name][0])
        assert held(tape) == pytest.approx(OPERATORS[name][1] / 2 + 4 * scales_), name
        assert "int8" not in products(tape), name


def test_between_quantize_and_dequantize_products_read_and_write_bytes():
    tape = run(nets.qdq_net())
    assert counted(tape) == (216 + 80, 2 * 2 * 256 * 8 * 27 + 2 * 2 * 8 * 10)
    assert products(tape) == {"int8"} and held(tape) == 296
    conv = next(k for k in tape.kernels if k.kind == "conv")
    assert (conv.read, conv.written) == (2 * 3 * 256 + 216, 2 * 8 * 256)
    copies = [k for k in tape.kernels if k.kind == "copy"]
    assert [k.read for k in copies] == [4 * 2 * 3 * 256]  # of the input alone
    trained = run(nets.qdq_net(), training=True)
    assert products(trained) == {"fp32"} and {w.dtype for w in trained.weights} == {"fp32"}


def matmul(x, y, w="w"):
    return node("MatMul", [x, w], [y])


def test_a_loop_counts_its_body_as_often_as_it_runs():
    weights = [stored("w", 4, 4)]
    for trips in (0, 5, 10_000_000):  # none, one by one, multiplied
        tape = run(nets.loop_net(trips, [matmul("xi", "xo")], weights))
        assert counted(tape) == (16 if trips else 0, trips * 2 * 16)


def test_a_loop_whose_tensors_grow_is_counted_as_it_grows():
    body = [node("Concat", ["xi", "xi"], ["xx"], axis=0), matmul("xx", "xo")]
    tape = run(nets.loop_net(3, body, [stored("w", 4, 4)]))
    assert counted(tape) == (16, 2 * 16 * (2 + 4 + 8))


def test_a_loop_of_unknown_length_is_said_and_one_that_is_given_is_run():
    net = nets.loop_net(None, [matmul("xi", "xo")], [stored("w", 4, 4)])
    tape = run(net)
    assert counted(tape) == (16, 32)
    assert any("number of repetitions depends on values" in a for a in tape.assumptions)
    assert counted(run(net, ["n=7"])) == (16, 7 * 32)


def test_an_if_takes_its_branch_or_the_dearer_one_and_holds_the_weights_of_both():
    weights = [stored("w", 16, 16), stored("u", 16, 8)]
    branches = [matmul("x", "then_y")], [matmul("x", "else_y", "u")]
    flops = {True: 2 * 2 * 256, False: 2 * 2 * 128}
    for condition, expected in flops.items():
        tape = run(nets.if_net(*branches, weights, condition))
        assert counted(tape)[1] == expected and not tape.assumptions
    for both in (branches, ([matmul("x", "then_y", "u")], [matmul("x", "else_y")])):
        tape = run(nets.if_net(*both, weights))
        assert counted(tape) == (256 + 128, flops[True])
        assert any("branch with more FLOPs" in a for a in tape.assumptions)


def test_a_scan_counts_its_body_for_every_slice():
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [matmul("xi", "m"), node("Add", ["m", "h"], ["ho"]), node("Identity", ["ho"], ["yo"])],
        "body",
        [value("h", 1, None), value("xi", 1, None)],
        [value("ho", 1, None), value("yo", 1, None)],
    )
    scan = node("Scan", ["h0", "x"], ["hn", "y"], body=body, num_scan_inputs=1)
    net = graph([scan], {"h0": [2, 4], "x": [7, 2, 4]}, [stored("w", 4, 4)])
    assert counted(run(net)) == (16, 7 * 2 * 2 * 16)


def test_the_domain_of_an_operator_decides():
    own = node("Conv", ["x", "w"], ["y"], domain="my.ops")
    weights = [stored("w", 4, 3, 3, 3)]
    tape = run(graph([own], {"x": [2, 3, 8, 8]}, weights, domains=["my.ops"]))
    assert counted(tape)[1] == 0
    (line,) = [a for a in tape.assumptions if "without a formula" in a]
    assert "my.ops.Conv x1" in line


def test_functions_of_the_file_are_put_in_place_of_their_calls():
    twice = helper.make_function(
        "own", "Twice", ["a", "w"], ["b"], [matmul("a", "c"), matmul("c", "b")],
        [helper.make_opsetid("", 21)],
    )  # fmt: skip
    call = node("Twice", ["x", "v"], ["y"], domain="own")
    net = graph([call], {"x": [2, 4]}, [stored("v", 4, 4)], domains=["own"], functions=[twice])
    assert counted(run(net)) == (16, 2 * 2 * 2 * 16)


def test_flat_names_are_folded_into_layers():
    nodes, x = [matmul("x", "e", "first")], "e"
    weights = [stored("first", 4, 16)]
    for i in range(6):
        weights += [stored(f"{i}.u", 16, 32), stored(f"{i}.d", 32, 16)]
        nodes += [
            node("MatMul", [x, f"{i}.u"], [f"{i}a"], f"MatMul_{7 * i}"),
            node("Relu", [f"{i}a"], [f"{i}b"], f"Relu_{7 * i + 1}"),
            node("MatMul", [f"{i}b", f"{i}.d"], [f"{i}c"], f"MatMul_{7 * i + 2}"),
            node("Add", [f"{i}c", x], [f"{i}y"], f"Add_{7 * i + 3}"),
        ]
        x = f"{i}y"
    nodes.append(node("Softmax", [x], ["y"], "Softmax_99"))
    tape = run(graph(nodes, {"x": [2, 4]}, weights))
    names = {n.name for n in tape.nodes}
    assert {"layers.matmul1", "layers.relu", "layers.matmul2", "layers.add"} <= names
    assert len(names) == 6 and [b.count for b in tape.blocks[1:]] == [6]
    assert counted(tape) == (64 + 6 * 1024, 2 * 2 * (64 + 6 * 1024))


def test_sequences_of_tensors_are_followed():
    nodes = [
        node("SplitToSequence", ["x", "two"], ["s"], axis=0),
        node("SequenceAt", ["s", "one"], ["p"]),
        matmul("p", "m"),
        node("SequenceConstruct", ["m", "m"], ["t"]),
        node("ConcatFromSequence", ["t"], ["y"], axis=0),
    ]
    weights = [nets.numbers("two", 2), nets.numbers("one", 1), stored("w", 4, 4)]
    assert counted(run(graph(nodes, {"x": [5, 4]}, weights))) == (16, 2 * 2 * 16)


def test_an_input_without_axes_may_be_given_as_a_number_or_left_out():
    nodes = [node("Cast", ["t"], ["f"], to=1), node("Mul", ["x", "f"], ["m"]), matmul("m", "y")]
    net = graph(nodes, {"x": ["batch", 4], "t": (INT64, [])}, [stored("w", 4, 4)])
    for given in ((), ("t=3",), ("2x4",), ("x=2x4", "t=3"), ("batch=2",)):
        batch = 2 if "2" in "".join(given) else 1
        assert counted(run(net, given)) == (16, 2 * batch * 16)


def test_open_axes_of_one_name_have_one_size_and_the_batch_is_said():
    nodes = [node("Add", ["x", "m"], ["a"]), matmul("a", "y")]
    shape = ["batch", "length", 4]
    net = graph(nodes, {"x": shape, "m": shape}, [stored("w", 4, 4)])
    assert counted(run(net, ["length=3"])) == (16, 2 * 3 * 16)
    assert counted(run(net, ["x=2x3x4"])) == (16, 2 * 6 * 16)
    assert any("'batch': 1 (not given)" in a for a in run(net, ["length=3"]).assumptions)
    with pytest.raises(RoofcastError, match="gives 'length' another size than 3"):
        run(net, ["x=2x3x4", "m=2x5x4"])
    with pytest.raises(RoofcastError, match=r"--input x=1xNx4, or --input length=N"):
        run(net)


def test_matrices_of_zeros_are_not_tied():
    zeros = [numpy_helper.from_array(np.zeros(s, np.float32), n) for n, s in
             (("a", (8, 4)), ("b", (4, 8)))]  # fmt: skip
    net = graph([matmul("x", "h", "a"), matmul("h", "y", "b")], {"x": [2, 8]}, zeros)
    assert counted(run(net))[0] == 64


def test_the_format_of_the_file_is_said_where_it_is_not_that_of_the_step():
    half = numpy_helper.from_array(np.ones((4, 4), np.float16), "w")
    net = graph([matmul("x", "y")], {"x": (onnx.TensorProto.FLOAT16, [2, 4])}, [half])
    assert counted(run(net)) == (16, 2 * 2 * 16)
    assert any("holds in fp16 are held in fp32" in a for a in run(net).assumptions)
