"""Operators of com.microsoft and of onnxruntime's layouts, into which it fuses graphs.

Source: github microsoft/onnxruntime, docs/ContribOperators.md. An activation that is an attribute
of a product runs in the product's kernel and adds no FLOPs that are counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import roofcast.simulator.importers.onnx_attention as attentions
import roofcast.simulator.importers.onnx_layers as layers
import roofcast.simulator.importers.onnx_products as products
import roofcast.simulator.importers.onnx_quantized as quantized
import roofcast.simulator.importers.onnx_shapes as shapes
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.importers.onnx_call import Call, Handler, Result, Stored
from roofcast.simulator.importers.onnx_ops import HANDLERS
from roofcast.simulator.work.ops import linear, norm, pointwise
from roofcast.simulator.work.tape import Value


# ------------------------------------------------------------------ products
def fused_matmul_op(c: Call) -> Value:
    """FusedMatMul, TransposeMatMul: a product with either operand transposed, and a factor."""
    a, b = c.value(0), c.value(1)
    if c.attributes.get("transA") and len(a.shape) > 1:
        a = c.t.view(a, *a.shape[:-2], a.shape[-1], a.shape[-2])
    if c.attributes.get("transB") and len(b.shape) > 1:
        b = c.t.view(b, *b.shape[:-2], b.shape[-1], b.shape[-2])
    return products.times(c, a, b)


def fused_conv_op(c: Call) -> Value:
    """FusedConv: a convolution, and the sum with another input in its kernel."""
    out = products.conv_op(c.with_inputs(*c.ins[:3]))
    return pointwise.add(c.t, out, c.value(3)) if c.given(3) else out


def channels_last(handler: Handler, weights: bool = False) -> Handler:
    """The handler of an op whose x, and whose weights, have their channels last."""

    def first(c: Call, v: Value) -> Value:
        return c.t.view(v, v.shape[0], v.shape[-1], *v.shape[1:-1])

    def handle(c: Call) -> Result:
        ins = list(c.ins)
        ins[0] = first(c, c.value(0))
        if weights and len(c.ins) > 1:
            ins[1] = first(c, c.value(1))
        found = handler(c.with_inputs(*ins))
        out = found[0] if isinstance(found, list) else found
        assert isinstance(out, Value), "an op on channels has one result"
        return c.t.view(out, out.shape[0], *out.shape[2:], out.shape[1])

    return handle


def reorder_op(c: Call) -> Value:
    """ReorderInput, ReorderOutput: a copy into blocks of channels, or back."""
    x = c.value(0)
    channels = c.attributes.get("channels") or x.shape[1]
    return pointwise.copy(c.t, x, x.shape[0], int(channels), *x.shape[2:])


# ------------------------------------------------------------------ pointwise
def biased(fn: str | None) -> Handler:
    """The handler of an activation of x plus a bias that may be left out, in one kernel."""

    def handler(c: Call) -> Value:
        t, x = c.t, c.value(0)
        if not c.given(1):
            return pointwise.unary(t, fn, x) if fn else x
        bias = c.value(1)
        if fn is None or t.training:
            x = pointwise.add(t, x, bias)
            return pointwise.unary(t, fn, x) if fn else x
        vector, special, *_ = pointwise.UNARY[fn]
        out = t.new(x.shape, x.dtype, x.grad)
        t.emit(
            "elementwise", (x, bias), (out,), vector=(vector + 1) * x.size, special=special * x.size
        )
        return out

    return handler


def bias_softmax_op(c: Call) -> Value:
    """BiasSoftmax: of a sum, over the last axis."""
    return norm.softmax(c.t, pointwise.add(c.t, c.value(0), c.value(1)))


def bias_dropout_op(c: Call) -> list[Value]:
    """BiasDropout: dropout of a sum, plus a residual."""
    x = pointwise.add(c.t, c.value(0), c.value(1))
    ratio = float(c.numbers_or(3, 0.5))
    x = pointwise.dropout(c.t, x, ratio)
    return [pointwise.add(c.t, x, c.value(2)) if c.given(2) else x]


def split_gelu_op(c: Call) -> Value:
    """BiasSplitGelu: one half of the features times the gelu of the other."""
    x = pointwise.add(c.t, c.value(0), c.value(1))
    half = c.t.view(x, *x.shape[:-1], x.shape[-1] // 2)
    return pointwise.mul(c.t, half, pointwise.unary(c.t, "gelu", half))


# ------------------------------------------------------------------ norms and embeddings
def skip_norm_op(c: Call) -> list[Value]:
    """SkipLayerNormalization, SkipSimplifiedLayerNormalization: the norm of a sum, and the sum.

    Inference runs one kernel.
    """
    simple, t = "Simplified" in c.node.op_type, c.t
    x, skip = c.value(0), c.value(1)
    weights = (2,) if simple else (2, 3)
    bias = 3 if simple else 4
    parts = [skip, *([c.value(bias)] if c.given(bias) else [])]
    if t.training:
        for part in parts:
            x = pointwise.add(t, x, part)
        c.announce(*weights)
        out = norm.rms_norm(t, x) if simple else norm.layer_norm(t, x, bias=c.given(3))
        return _results(c, out, x)
    given = [c.value(i) for i in weights if c.given(i)]
    out, total = t.new(x.shape, x.dtype), t.new(x.shape, x.dtype)
    wanted = len(c.node.output) > 3 and c.node.output[3]
    outs = (out, total) if wanted else (out,)
    vector = (5 if simple else 9) * x.size
    t.emit("layer_norm", (x, *parts, *given), outs, vector=vector, special=x.size // x.shape[-1])
    return _results(c, out, total)


def _results(c: Call, out: Value, total: Value) -> list[Value]:
    """The norm, mean and inverse deviation of each row, and the sum."""
    rows = c.t.new((*out.shape[:-1], 1), "fp32")
    return [out, rows, rows, total]


def simplified_norm_op(c: Call) -> list[Value]:
    """SimplifiedLayerNormalization: an RMS norm in one kernel; in training as PyTorch's."""
    if c.t.training:
        return layers.rms_norm_op(c)
    t, x, scale = c.t, c.value(0), c.value(1)
    out = t.new(x.shape, x.dtype)
    t.emit("layer_norm", (x, scale), (out,), vector=4 * x.size, special=x.size // x.shape[-1])
    return [out]


def embed_norm_op(c: Call) -> list[Value]:
    """EmbedLayerNormalization: the norm of the sum of embeddings of tokens, places and segments."""
    t, ids = c.t, c.value(0)
    first = 8 if c.node.op_type.startswith("Q") else 5
    total: Value | None = None
    for place in (2, 3, 4):
        if not c.given(place):
            continue
        table = c.weight(place)
        found = quantized.embedding_of(c, ids, table)
        total = found if total is None else pointwise.add(t, total, found)
    if total is None:
        raise BadInput("no table of embeddings is given")
    places = (first, first + 1) if first == 5 else (5, 6)
    c.announce(*places)
    out = norm.layer_norm(t, total)
    return [out, t.new((ids.shape[0],), "int32"), total]


def group_norm_op(c: Call) -> list[Value]:
    """GroupNorm, SkipGroupNorm: of x[batch, ..space, channels], and of its sum with another."""
    t, x = c.t, c.value(0)
    for place in range(3, len(c.ins)):
        if c.given(place):
            x = pointwise.add(t, x, c.value(place))
    last = c.attributes.get("channels_last", 1)
    moved = t.view(x, x.shape[0], x.shape[-1], *x.shape[1:-1]) if last else x
    c.announce(1, 2)
    out = norm.group_norm(t, moved, c.attribute("groups"))
    if c.attributes.get("activation") and t.training:
        out = pointwise.unary(t, "silu", out)
    return [t.view(out, *x.shape), x]


# ------------------------------------------------------------------ experts
def experts_op(c: Call) -> Value:
    """MoE, QMoE: each token through k experts; weights of few bits where they are quantized."""
    t, x, routes = c.t, c.value(0), c.value(1)
    few = c.node.op_type == "QMoE"
    k, places = int(c.attributes.get("k", 1)), ((2, 5, 8) if few else (2, 4, 6))
    experts, width = routes.shape[-1], x.shape[-1]
    tokens = x.size // width
    if not 1 <= k <= experts:
        raise BadInput(f"k {k} of {experts} experts")
    bits = int(c.attributes.get("expert_weight_bits", 4)) if few else 16
    out = x
    for place in places:
        if not c.given(place):
            continue
        stored = c.ins[place]
        if isinstance(stored, Stored) and few:
            per = 8 // bits if stored.format in ("UINT8", "INT8") and bits in (2, 4, 8) else 1
            shape = (*stored.shape[:-1], stored.shape[-1] * per)
            zeros = 11 + places.index(place)
            w = quantized.held_packed(c, place, shape, bits, (place + 1, zeros))
        else:
            w = c.value(place)
        if len(w.shape) != 3 or w.shape[0] != experts:
            raise BadInput(f"weights {list(w.shape)} of {experts} experts; expected 3 axes")
        if c.given(place + (2 if few else 1)):
            c.value(place + (2 if few else 1))
        out = _expert_product(c, out, w, tokens * k)
    return t.view(out, *x.shape) if out.size == x.size else t.new(x.shape, x.dtype, out.grad)


def _expert_product(c: Call, x: Value, w: Value, rows: int) -> Value:
    """Rows of all experts times their own matrices."""
    t, (experts, first, second) = c.t, w.shape
    each, wide = rows / experts, first * second
    out = t.new((rows, wide // x.shape[-1]), x.dtype, x.grad or w.grad)
    product = linear.product_format(t, x.dtype, w)
    shape = (experts, each, out.shape[-1], x.shape[-1])
    t.emit("matmul", (x, w), (out,), matrix=2 * rows * wide, product=product, shape=shape)
    if out.grad:
        t.save(x)
        for read, like in ((w, x), (x, w)):
            moved = out.bytes + read.bytes
            t.backward(
                "matmul",
                matrix=2 * rows * wide,
                read=moved,
                written=like.bytes,
                product=product,
                shape=shape,
            )
    return out


def _each(names: str, handler: Handler) -> dict[str, Handler]:
    return dict.fromkeys(names.split(), handler)


def _picked(names: Sequence[str]) -> dict[str, Handler]:
    return {name: HANDLERS[name] for name in names}


MICROSOFT: dict[str, Handler] = {
    **quantized.MICROSOFT,
    **_each("FusedMatMul TransposeMatMul FusedMatMulActivation", fused_matmul_op),
    "FusedGemm": products.gemm_op,
    **_each("FusedConv ConvTransposeWithDynamicPads", fused_conv_op),
    "NhwcConv": channels_last(products.conv_op, weights=True),
    "NhwcFusedConv": channels_last(fused_conv_op, weights=True),
    "NhwcMaxPool": channels_last(layers.pool_op("max")),
    "BiasGelu": biased("gelu"),
    "FastGelu": biased("gelu_tanh"),
    "Gelu": shapes.gelu_op,
    "QuickGelu": shapes.unary_op("silu"),
    "BiasAdd": shapes.add_op,
    "BiasSoftmax": bias_softmax_op,
    "BiasDropout": bias_dropout_op,
    "BiasSplitGelu": split_gelu_op,
    **_each("LayerNormalization", layers.layer_norm_op),
    "SimplifiedLayerNormalization": simplified_norm_op,
    **_each("SkipLayerNormalization SkipSimplifiedLayerNormalization", skip_norm_op),
    **_each("EmbedLayerNormalization QEmbedLayerNormalization", embed_norm_op),
    **_each("GroupNorm SkipGroupNorm", group_norm_op),
    "Attention": attentions.fused_attention_op,
    "QAttention": attentions.quantized_attention_op,
    **_each(
        "MultiHeadAttention DecoderMaskedMultiHeadAttention", attentions.multi_head_attention_op
    ),
    **_each("GroupQueryAttention SparseAttention", attentions.grouped_attention_op),
    **_each("PackedAttention PackedMultiHeadAttention", attentions.packed_attention_op),
    **_each("RotaryEmbedding GemmaRotaryEmbedding", attentions.rotary_op),
    **_each("MoE QMoE", experts_op),
    **_picked(("Trilu", "Pad")),
}
CHANNELS_LAST: dict[str, Handler] = {
    "Conv": channels_last(products.conv_op),
    "FusedConv": channels_last(fused_conv_op),
    "ConvTranspose": channels_last(products.conv_transpose_op),
    "MaxPool": channels_last(layers.pool_op("max")),
    "AveragePool": channels_last(layers.pool_op("avg")),
    "GlobalAveragePool": channels_last(layers.global_pool_op("avg")),
    "GlobalMaxPool": channels_last(layers.global_pool_op("max")),
    "QLinearConv": channels_last(quantized.STANDARD["QLinearConv"]),
}
IN_BLOCKS: dict[str, Handler] = {
    "Conv": fused_conv_op,
    **_picked(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Upsample")),
    **_each("ReorderInput ReorderOutput", reorder_op),
}
CONTRIB: dict[str, dict[str, Handler]] = {
    "com.microsoft": MICROSOFT,
    "com.ms.internal.nhwc": CHANNELS_LAST,
    "com.microsoft.nchwc": IN_BLOCKS,
}
