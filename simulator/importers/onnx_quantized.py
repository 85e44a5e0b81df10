"""Quantized ONNX operators: products of 8 bits, weights of 4 bits, and the ops between them.

Inference holds quantized weights in the format in which they are stored; products of 8-bit
operands run in int8. An op between DequantizeLinear and QuantizeLinear reads and writes 8 bits, as
engines run it, without kernels for the two. Training computes in the format of the step, as
quantization-aware training does. Scales and zero points are no parameters; those of blocks of
weights are bytes of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import roofcast.simulator.importers.onnx_layers as layers
import roofcast.simulator.importers.onnx_products as products
import roofcast.simulator.importers.onnx_shapes as shapes
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.formats import WIDTH, is_stored, stored_in
from roofcast.simulator.importers.onnx_call import (
    HELD,
    Call,
    Dequantized,
    Handler,
    NamedTape,
    Operand,
    Result,
    Stored,
)
from roofcast.simulator.importers.onnx_extra import onnx
from roofcast.simulator.work.ops import embedding, linear, pointwise
from roofcast.simulator.work.tape import Value

# in the kernel of a product before them, or views
PASSING = frozenset(
    "Relu Clip LeakyRelu Reshape Flatten Squeeze Unsqueeze Transpose Identity".split()
)
PRODUCTS = frozenset("Conv ConvTranspose MatMul Gemm".split())
# ops that engines run on 8 bits if both what they read and what they write is quantized
ON_BYTES = PRODUCTS | frozenset(
    "Add Sub Mul Relu Clip LeakyRelu Sigmoid HardSwish HardSigmoid Tanh Softmax AveragePool MaxPool"
    " GlobalAveragePool Concat Reshape Transpose Flatten Squeeze Unsqueeze Slice Split Pad Resize"
    " ReduceMean Gather DepthToSpace SpaceToDepth Where".split()
)
BYTES = ("int8", "uint8")
# bytes of a number of fewer than 8 bits, and formats of scales, zero points and indices
_FEW = {"INT4": 0.5, "UINT4": 0.5, "FLOAT4E2M1": 0.5, "INT2": 0.25, "UINT2": 0.25}
_WIDE = {
    "FLOAT": "fp32", "FLOAT16": "fp16", "BFLOAT16": "bf16", "DOUBLE": "fp64", "INT32": "int32",
    "INT64": "int64", "UINT32": "int32", "INT16": "fp16", "UINT16": "fp16",
}  # fmt: skip


# ------------------------------------------------------------------ between Dequantize and Quantize
def narrows(node: onnx.NodeProto, readers: Mapping[str, Sequence[str]]) -> bool:
    """Whether everything that reads a node's results quantizes them."""
    read = [op for o in node.output for op in readers.get(o, ())]
    return bool(read) and set(read) == {"QuantizeLinear"}


def takes(call: Call) -> bool:
    """Whether an op reads its operands in 8 bits, between Dequantize and Quantize."""
    op = call.node.op_type
    if op in PRODUCTS:
        return all(_in_bytes(i) for i in call.ins[:2])
    tensors = [i for i in call.ins if isinstance(i, (Value, Dequantized))]
    return op in ON_BYTES and call.narrow is not None and all(map(_in_bytes, tensors))


def _in_bytes(operand: Operand) -> bool:
    x = operand.x if isinstance(operand, Dequantized) else operand
    return isinstance(x, Value) and x.dtype in BYTES


def widened(t: NamedTape, x: Value) -> Value:
    """An activation of 8 bits in the format of the step."""
    return pointwise.copy(t, x, dtype=t.precision.activations)


def quantize_op(c: Call) -> Value:
    """QuantizeLinear: nothing, where the op before wrote 8 bits."""
    x = c.ins[0]
    if isinstance(x, Stored) and not c.t.training:
        return c.t.initializer(x, held="int8")
    v = c.value(0)
    return v if v.dtype in BYTES else pointwise.copy(c.t, v, dtype="int8")


def dynamic_quantize_op(c: Call) -> list[Value]:
    """DynamicQuantizeLinear: the range of a tensor, then the tensor in 8 bits."""
    t, x = c.t, c.value(0)
    scale, zero = t.new(()), t.new((), "int8")
    t.emit("reduce", (x,), (scale, zero), vector=2 * x.size)
    return [pointwise.copy(t, x, dtype="int8"), scale, zero]


def dequantize_op(c: Call) -> Operand:
    """DequantizeLinear: weights as they are stored; of activations, a kernel only if needed."""
    x = c.ins[0]
    if isinstance(x, Stored) and prod(x.shape) == 1:  # a number
        return c.t.buffer(*x.shape, dtype="int8")
    if isinstance(x, Stored) and not c.t.training and _in_blocks(c, x):
        return c.t.initializer(x, held=_held(c, x, prod(x.shape), (1, 2)))
    if isinstance(x, Stored):
        return c.weight(0, trained=True)
    v = c.value(0)
    if c.t.training or v.dtype not in BYTES:
        return pointwise.copy(c.t, v, dtype=c.t.precision.activations)
    return v if v.kind == "parameter" else Dequantized(v)


def product(handler: Handler) -> Handler:
    """The handler of a product that may read 8 bits, between Dequantize and Quantize."""

    def narrow(c: Call) -> Result:
        x = c.ins[0] if c.ins else None
        if isinstance(x, Dequantized):
            return _product(handler, c, c.narrow or c.t.precision.activations)
        return handler(c)

    return narrow


def _product(handler: Handler, c: Call, dtype: str) -> Value:
    """A product of 8-bit operands, whose result is written in `dtype`."""
    t = c.t
    ins: list[Operand] = list(c.ins)
    x, w = _int8(c.value(0)), _int8(c.weight(1)) if c.given(1) else None
    ins[:2] = [x, w]
    if c.given(2):
        ins[2] = c.weight(2)
    before = len(t.kernels)
    out = handler(c._replace(ins=ins))
    assert isinstance(out, Value), "a product has one result"
    if len(t.kernels) == before:  # of nothing
        return out
    k = t.kernels[-1]
    new = t.new(out.shape, dtype, out.grad)
    t.kernels[-1] = k._replace(
        product="int8", outputs=(new,), written=k.written - out.bytes + new.bytes
    )
    return new


def _int8(x: Value) -> Value:
    """A tensor of 8 bits, signed or not, in the format of the product, without a gradient."""
    if x.dtype not in BYTES:
        return x
    return Value(x.shape, "int8", x.storage, False, x.kind, x.repeats, x.held, x.split)


# ------------------------------------------------------------------ operators on 8 bits
def of_bytes(handler: Handler, *places: int, dtype: str | None = "int8") -> Handler:
    """The handler of a product whose x, weight and bias are the inputs `places`.

    `dtype`: of the result; None for the format of the step.
    """

    def quantized(c: Call) -> Value:
        ins = [c.ins[p] if c.given(p) else None for p in places]
        wide = c.t.precision.activations
        if isinstance(ins[0], (Value, Dequantized)):
            x = c.value(places[0])
            ins[0] = _int8(x if x.dtype in BYTES else pointwise.copy(c.t, x, dtype="int8"))
        return _product(handler, c.with_inputs(*ins), dtype or wide)

    return quantized


def on_bytes(handler: Handler, *places: int) -> Handler:
    """The handler of another op on 8 bits whose operands are the inputs `places`."""

    def quantized(c: Call) -> Result:
        return handler(c.with_inputs(*(_int8(c.weight(p)) for p in places)))

    return quantized


def _channels_last(handler: Handler) -> Handler:
    """The handler of an op on x[batch, ..space, channels], where the attribute says so."""

    def handle(c: Call) -> Result:
        if not c.attributes.get("channels_last"):
            return handler(c)
        x = c.value(0)
        moved = c.t.view(x, x.shape[0], x.shape[-1], *x.shape[1:-1])
        out = handler(c.with_inputs(moved, *c.ins[1:]))
        v = out[0] if isinstance(out, list) else out
        assert isinstance(v, Value), "a pool has one result"
        return c.t.view(v, v.shape[0], *v.shape[2:], v.shape[1])

    return handle


def concat_op(c: Call) -> Value:
    """QLinearConcat: of every third input, the others are scales."""
    return pointwise.concat(
        c.t, [c.value(i) for i in range(2, len(c.ins), 3)], c.attributes["axis"]
    )


def dynamic_lstm_op(c: Call) -> Result:
    """DynamicQuantizeLSTM: as an LSTM in the format of the step."""
    return layers.recurrent_op("lstm")(c.with_inputs(*c.ins[:7]))


# ------------------------------------------------------------------ weights of few bits
def _in_blocks(c: Call, x: Stored) -> bool:
    """Whether numbers have fewer than 8 bits each, or share scales in blocks."""
    return x.format in _FEW or bool(c.attributes.get("block_size"))


def _stands(x: Operand) -> float:
    """Bytes of an initializer as the file holds it; 0 for anything else."""
    if not isinstance(x, Stored):
        return 0.0
    return prod(x.shape) * (_FEW.get(x.format, 0.0) or WIDTH[_WIDE.get(x.format, "uint8")])


def _held(c: Call, x: Stored, numbers: int, beside: Sequence[int]) -> str:
    """The format of packed weights: their bits, with those of the inputs `beside`.

    These are scales and zero points, as wide as the file holds them, one per block.
    """
    total = _stands(x) + sum(_stands(c.ins[place]) for place in beside if c.given(place))
    return stored_in(8 * total / max(numbers, 1))


def held_packed(
    c: Call, place: int, shape: Sequence[int], bits: int, beside: Sequence[int] = ()
) -> Value:
    """A weight of `shape` of which several numbers lie in one that is stored.

    `beside`: the inputs that are its scales, zero points and the groups of its rows.
    """
    stored = c.ins[place]
    if not isinstance(stored, Stored):
        return c.value(place)
    if not 1 <= bits <= 8:
        raise BadInput(f"weights of {bits} bits; expected 1 to 8")
    claimed = -(-prod(shape) * bits // 8)
    if not stored.format.startswith("FLOAT8") and _stands(stored) < claimed:
        raise BadInput(f"its weight holds {prod(stored.shape):,} bytes; {claimed:,} are needed")
    return c.t.initializer(stored, *shape, held=_held(c, stored, prod(shape), beside))


def few_bits_op(bias: int | None, beside: Sequence[int]) -> Handler:
    """The handler of MatMulNBits, MatMulBnb4 and MatMulFpQ4: x[.., K] times packed W[N, K].

    `beside`: inputs with what is stored for the blocks of W. Source: ContribOperators.md of github
    microsoft/onnxruntime.
    """

    def handler(c: Call) -> Value:
        x, k, n = c.value(0), c.attribute("K"), c.attribute("N")
        if not x.shape or x.shape[-1] != k:
            raise BadInput(f"got {list(x.shape)}, expected rows of {k}")
        w = held_packed(c, 1, (n, k), int(c.attributes.get("bits", 4)), beside)
        if bias is not None:
            c.announce(bias)
        given = bias is not None and c.given(bias)
        return linear.linear(c.t, x, n, bias=given, weight=w)

    return handler


def gather_blocks_op(c: Call) -> Value:
    """GatherBlockQuantized: rows of a table of few bits, in the format of the step."""
    table, ids = c.ins[0], c.value(1)
    if not isinstance(table, Stored) or len(table.shape) != 2:
        raise BadInput("expected a table of two axes that the graph holds")
    bits = int(c.attributes.get("bits", 4))
    rows, stored = table.shape
    packed = table.format == "UINT8" and bits < 8
    width = stored * (8 // bits) if packed else stored
    weight = held_packed(c, 0, (rows, width), bits, (2, 3))
    return embedding_of(c, ids, weight)


def embedding_of(c: Call, ids: Value, table: Value) -> Value:
    """Rows of a table, in the format of the step where the table has fewer bits."""
    t = c.t
    wide = t.precision.activations
    out = embedding.embedding(t, ids, *table.shape, weight=table)
    if out.dtype == wide or not (is_stored(table.dtype) or table.dtype in set(HELD.values())):
        return out
    k, new = t.kernels[-1], t.new(out.shape, wide, out.grad)
    t.kernels[-1] = k._replace(outputs=(new,), written=k.written - out.bytes + new.bytes)
    return new


# ------------------------------------------------------------------ by name
STANDARD: dict[str, Handler] = {
    "QuantizeLinear": quantize_op,
    "DequantizeLinear": dequantize_op,
    "DynamicQuantizeLinear": dynamic_quantize_op,
    "QLinearConv": of_bytes(products.conv_op, 0, 3, 8),
    "QLinearMatMul": of_bytes(products.matmul_op, 0, 3),
    "MatMulInteger": of_bytes(products.matmul_op, 0, 1, dtype="int32"),
    "ConvInteger": of_bytes(products.conv_op, 0, 1, dtype="int32"),
}
MICROSOFT: dict[str, Handler] = {
    **STANDARD,
    "QLinearConv": _channels_last(STANDARD["QLinearConv"]),
    "QLinearConvTranspose": of_bytes(products.conv_transpose_op, 0, 3, 8),
    "QGemm": of_bytes(products.gemm_op, 0, 3, 6),
    "MatMulInteger16": of_bytes(products.matmul_op, 0, 1, dtype="int32"),
    "MatMulIntegerToFloat": of_bytes(products.biased_op, 0, 1, 6, dtype=None),
    "DynamicQuantizeMatMul": of_bytes(products.biased_op, 0, 1, 4, dtype=None),
    "QLinearAdd": on_bytes(shapes.add_op, 0, 3),
    "QLinearMul": on_bytes(shapes.mul_op, 0, 3),
    "MulInteger": on_bytes(shapes.mul_op, 0, 2),
    "QLinearWhere": on_bytes(shapes.select_op, 0, 1, 4),
    "QLinearLeakyRelu": on_bytes(shapes.unary_op("leaky_relu"), 0),
    "QLinearSigmoid": on_bytes(shapes.unary_op("sigmoid"), 0),
    "QLinearSoftmax": on_bytes(shapes.softmax_op, 0),
    "QLinearReduceMean": on_bytes(layers.reduce_op, 0),
    "QLinearAveragePool": _channels_last(on_bytes(layers.pool_op("avg"), 0)),
    "QLinearGlobalAveragePool": _channels_last(on_bytes(layers.global_pool_op("avg"), 0)),
    "QLinearConcat": concat_op,
    "DynamicQuantizeLSTM": dynamic_lstm_op,
    "MatMulNBits": few_bits_op(5, (2, 3, 4)),
    "MatMulBnb4": few_bits_op(None, (2,)),
    "MatMulFpQ4": few_bits_op(None, ()),
    "GatherBlockQuantized": gather_blocks_op,
}
