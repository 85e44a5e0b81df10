"""ONNX graphs written by hand: an image net and a text net."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from roofcast.simulator.importers import from_onnx
from roofcast.simulator.work.precision import WIDTH, precision
from roofcast.simulator.work.tape import Tape

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


MICROSOFT = "com.microsoft"


def graph(nodes, inputs, initializers=(), *, opset=21, domains=(), functions=()):
    """A graph whose output y is of unknown shape; inputs: name -> shape, or (format, shape)."""
    ins = [
        helper.make_tensor_value_info(name, *(s if isinstance(s, tuple) else (FLOAT, s)))
        for name, s in inputs.items()
    ]
    y = helper.make_tensor_value_info("y", FLOAT, None)
    made = helper.make_graph(nodes, "net", ins, [y], list(initializers))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(made, opset_imports=opsets, functions=list(functions), ir_version=10)


def whole(name, *shape, dtype=np.int8):
    """Quantized numbers."""
    return numpy_helper.from_array(np.arange(np.prod(shape)).reshape(shape).astype(dtype), name)


def contrib(op, inputs, shapes, weights, **attributes):
    """One operator of com.microsoft."""
    node = helper.make_node(op, inputs, ["y"], domain=MICROSOFT, **attributes)
    return graph([node], shapes, weights, domains=[MICROSOFT])


def scales(*names):
    return [numpy_helper.from_array(np.array(0.1, np.float32), n) for n in names]


def qdq_net():
    """A convolution, a sum and a linear layer between Quantize and Dequantize."""
    n = helper.make_node
    q = ["s", "z"]
    nodes = [
        n("QuantizeLinear", ["x", *q], ["xq"]), n("DequantizeLinear", ["xq", *q], ["xd"]),
        n("DequantizeLinear", ["wq", *q], ["wd"]),
        n("Conv", ["xd", "wd"], ["c"], pads=[1, 1, 1, 1]), n("Relu", ["c"], ["r"]),
        n("QuantizeLinear", ["r", *q], ["rq"]), n("DequantizeLinear", ["rq", *q], ["rd"]),
        n("GlobalAveragePool", ["rd"], ["p"]), n("Flatten", ["p"], ["f"]),
        n("QuantizeLinear", ["f", *q], ["fq"]), n("DequantizeLinear", ["fq", *q], ["fd"]),
        n("DequantizeLinear", ["mq", *q], ["md"]), n("Gemm", ["fd", "md"], ["y"]),
    ]  # fmt: skip
    weights = [whole("wq", 8, 3, 3, 3), whole("mq", 8, 10), *scales("s"), whole("z")]
    return graph(nodes, {"x": [2, 3, 16, 16]}, weights)


def loop_net(trips, body_nodes, initializers=(), carried=(1, 4)):
    """A Loop of a body from xi to xo; `trips` may be an input called n."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [*body_nodes, helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [value("i", INT64, []), value("go", TensorProto.BOOL, []), value("xi", FLOAT, None)],
        [value("on", TensorProto.BOOL, []), value("xo", FLOAT, None)],
    )
    loop = helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)
    inputs = {"x": list(carried)} | ({} if trips is not None else {"n": (INT64, [])})
    given = [*initializers, *([] if trips is None else [numbers("n", trips)])]
    return graph([loop], inputs, given)


def if_net(then_nodes, else_nodes, initializers, condition=None):
    """An If whose condition is an input called c, or a constant."""
    value = helper.make_tensor_value_info
    branches = {
        f"{k}_branch": helper.make_graph(nodes, k, [], [value(f"{k}_y", FLOAT, None)])
        for k, nodes in (("then", then_nodes), ("else", else_nodes))
    }
    node = helper.make_node("If", ["c"], ["y"], **branches)
    inputs = {"x": [2, 16]} | ({"c": (TensorProto.BOOL, [])} if condition is None else {})
    known = [] if condition is None else [numpy_helper.from_array(np.array(condition), "c")]
    return graph([node], inputs, [*initializers, *known])


def run(net, inputs=(), training=False):
    model = from_onnx(net, inputs)
    return model.run(Tape(precision("fp32"), training=training), model.batch)


def counted(tape):
    forward = [k for k in tape.kernels if k.phase == "forward"]
    return (
        sum(w.size * w.count for w in tape.weights),
        int(sum(k.matrix * k.count for k in forward)),
    )


def held(tape):
    """Bytes of all weights."""
    return sum(w.size * w.count * WIDTH[w.dtype] for w in tape.weights)
