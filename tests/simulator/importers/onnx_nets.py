"""ONNX graphs written by hand: an image net and a text net."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def stored(name, *shape):
    return numpy_helper.from_array(
        np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32), name
    )


def numbers(name, values):
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def model(nodes, inputs, outputs, initializers):
    graph = helper.make_graph(nodes, "net", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def image_net(batch="batch", channels=3):
    """conv 3-32-64 with pools, fc 128, fc 10: the CIFAR-10 net of scenarios/nets."""
    n = helper.make_node
    nodes = [
        n("Conv", ["x", "c1.weight", "c1.bias"], ["a"], "/c1/Conv", pads=[1, 1, 1, 1]),
        n("Relu", ["a"], ["b"], "/Relu"),
        n("MaxPool", ["b"], ["c"], "/MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
        n("Conv", ["c", "c2.weight", "c2.bias"], ["d"], "/c2/Conv", pads=[1, 1, 1, 1]),
        n("Relu", ["d"], ["e"], "/Relu_1"),
        n("MaxPool", ["e"], ["f"], "/MaxPool_1", kernel_shape=[2, 2], strides=[2, 2]),
        n("Shape", ["f"], ["s"]), n("Gather", ["s", "first"], ["s0"]),
        n("Unsqueeze", ["s0", "axis"], ["s1"]), n("Concat", ["s1", "rest"], ["s2"], axis=0),
        n("Reshape", ["f", "s2"], ["g"]),
        n("Gemm", ["g", "fc1.weight", "fc1.bias"], ["h"], "/fc1/Gemm", transB=1),
        n("Relu", ["h"], ["i"]),
        n("Gemm", ["i", "fc2.weight", "fc2.bias"], ["y"], "/fc2/Gemm", transB=1),
    ]  # fmt: skip
    weights = [
        stored("c1.weight", 32, channels, 3, 3),
        stored("c1.bias", 32),
        stored("c2.weight", 64, 32, 3, 3),
        stored("c2.bias", 64),
        stored("fc1.weight", 128, 4096),
        stored("fc1.bias", 128),
        stored("fc2.weight", 10, 128),
        stored("fc2.bias", 10),
        numbers("first", 0),
        numbers("axis", [0]),
        numbers("rest", [-1]),
    ]
    x = helper.make_tensor_value_info("x", FLOAT, [batch, 3, 32, 32])
    return model(nodes, [x], [helper.make_tensor_value_info("y", FLOAT, [batch, 10])], weights)


def text_net():
    """Embedding, layer norm, attention of one head, and the embedding as output layer."""
    n = helper.make_node
    nodes = [
        n("Gather", ["table", "ids"], ["e"], "/embed/Gather"),
        n("LayerNormalization", ["e", "g", "b"], ["h"], "/norm/LayerNormalization"),
        n("MatMul", ["h", "wq"], ["q"]),
        n("MatMul", ["h", "wk"], ["k"]),
        n("MatMul", ["h", "wv"], ["v"]),
        n("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        n("MatMul", ["q", "kt"], ["s"]),
        n("Softmax", ["s"], ["p"]),
        n("MatMul", ["p", "v"], ["a"]),
        n("Add", ["a", "e"], ["r"]),
        n("Transpose", ["table"], ["out"], perm=[1, 0]),
        n("MatMul", ["r", "out"], ["y"]),
    ]
    weights = [
        stored("table", 100, 16),
        stored("g", 16),
        stored("b", 16),
        *(stored(w, 16, 16) for w in ("wq", "wk", "wv")),
    ]
    ids = helper.make_tensor_value_info("ids", INT64, ["batch", "sequence"])
    y = helper.make_tensor_value_info("y", FLOAT, ["batch", "sequence", 100])
    return model(nodes, [ids], [y], weights)
