"""Attention operators: of the standard domain, and those into which onnxruntime fuses a graph.

FLOPs are those of the full score matrix, over as many keys as there are with the past ones. Masks
given as lengths are not operands: they cost next to nothing.
"""

from __future__ import annotations

from math import prod

import numpy as np

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.importers.onnx_call import Call, Stored
from roofcast.simulator.importers.onnx_products import times
from roofcast.simulator.work.ops import attention, pointwise
from roofcast.simulator.work.tape import Value


def _heads(c: Call, x: Value, heads: int) -> Value:
    """x[batch, length, heads * dim] by heads: [batch, heads, length, dim], as one of 4 axes is."""
    if len(x.shape) == 4:
        return x
    if len(x.shape) != 3 or x.shape[2] % heads:
        raise BadInput(f"got {list(x.shape)} for {heads} heads, expected [batch, length, features]")
    return c.t.view(x, x.shape[0], heads, x.shape[1], x.shape[2] // heads)


def _with_past(c: Call, x: Value, past: Value | None) -> Value:
    """Keys or values [batch, heads, length, dim] behind those of earlier calls."""
    if past is None or len(past.shape) != 4 or not past.shape[2]:
        return x
    return pointwise.concat(c.t, [past, x], 2)


def _optional(c: Call, place: int) -> Value | None:
    return c.value(place) if c.given(place) else None


def _mask(c: Call, place: int) -> Value | None:
    """A mask that is added to the scores; None for lengths."""
    mask = _optional(c, place)
    return mask if mask is not None and len(mask.shape) >= 2 and mask.size else None


def _attend(
    c: Call, q: Value, k: Value, v: Value, *, causal: bool, mask: Value | None = None
) -> Value:
    """q[B, H, S, D], k[B, G, T, D], v[B, G, T, E] -> [B, S, H * E]."""
    if any(len(x.shape) != 4 for x in (q, k, v)):
        raise BadInput("expected queries, keys and values of 4 axes")
    heads, groups = q.shape[1], k.shape[1]
    fits = groups and not heads % groups and q.shape[3] == k.shape[3] and k.shape[2] == v.shape[2]
    if not fits or q.shape[0] != k.shape[0]:
        raise BadInput(
            f"queries {list(q.shape)}, keys {list(k.shape)} and values {list(v.shape)} (batch,"
            " heads, length, features) do not fit"
        )
    if not prod(q.shape) or not prod(k.shape):
        return c.t.new((q.shape[0], q.shape[2], heads * v.shape[3]), q.dtype, q.grad)
    return attention.attention(c.t, q, k, v, causal=causal, mask=mask)


def attention_op(c: Call) -> list[Value]:
    """Attention of q, k and v: [batch, heads, length, dim] or [batch, length, heads * dim]."""
    q, k, v = (c.value(i) for i in range(3))
    flat = len(q.shape) == 3
    if flat:
        heads, groups = c.attribute("q_num_heads"), c.attribute("kv_num_heads")
        q, k, v = (_heads(c, x, n) for x, n in ((q, heads), (k, groups), (v, groups)))
    k, v = _with_past(c, k, _optional(c, 4)), _with_past(c, v, _optional(c, 5))
    causal = bool(c.attributes.get("is_causal"))
    out = _attend(c, q, k, v, causal=causal, mask=_mask(c, 3))
    shaped = out if flat else c.t.view(out, q.shape[0], q.shape[1], q.shape[2], v.shape[3])
    if len(c.node.output) < 4:
        return [shaped, k, v]
    return [shaped, k, v, c.t.new((*q.shape[:3], k.shape[2]), q.dtype)]


def rotary_op(c: Call) -> list[Value]:
    """RotaryEmbedding: a rotation of pairs of features."""
    x = c.value(0)
    return [rotated(c, x)]


def rotated(c: Call, x: Value) -> Value:
    """x with pairs of its features rotated: three operations per number."""
    out = c.t.new(x.shape, x.dtype, x.grad)
    c.t.emit("elementwise", (x,), (out,), vector=3 * x.size)
    if x.grad:
        c.t.backward(
            "elementwise", vector=3 * x.size, read=x.bytes, written=x.bytes, product=x.dtype
        )
    return out


# ------------------------------------------------------------------ com.microsoft
def fused_attention_op(c: Call) -> list[Value]:
    """com.microsoft Attention: projections of x to queries, keys and values, then attention."""
    x, w, heads = c.value(0), c.value(1), c.attribute("num_heads")
    if len(x.shape) != 3 or len(w.shape) != 2:
        raise BadInput(
            f"got {list(x.shape)} and weights {list(w.shape)}, expected [batch, length, features]"
            " and [features, q + k + v]"
        )
    out = times(c, x, w, 2 if c.given(2) else None)
    causal = bool(c.attributes.get("unidirectional"))
    past = _optional(c, 4)
    widths = c.attributes.get("qkv_hidden_sizes") or [w.shape[1] // 3] * 3
    mask = _mask(c, 5) or (_mask(c, 3) if c.given(3) and len(c.value(3).shape) > 2 else None)
    return _split_attention(c, out, [int(n) for n in widths], heads, past, causal, mask)


def _split_attention(
    c: Call,
    x: Value,
    widths: list[int],
    heads: int,
    past: Value | None,
    causal: bool,
    mask: Value | None,
) -> list[Value]:
    """Attention of x[batch, length, q + k + v], and the keys and values for the next call."""
    if len(widths) != 3 or sum(widths) != x.shape[2] or any(n % heads for n in widths):
        raise BadInput(f"{x.shape[2]} features do not make queries, keys, values of {heads} heads")
    q, k, v = (_heads(c, c.t.view(x, *x.shape[:2], n), heads) for n in widths)
    if past is not None and len(past.shape) == 5:  # keys and values in one
        each = c.t.view(past, *past.shape[1:])
        k, v = _with_past(c, k, each), _with_past(c, v, each)
    out = _attend(c, q, k, v, causal=causal, mask=mask)
    return [out, c.t.view(k, 2, *k.shape)]


def quantized_attention_op(c: Call) -> list[Value]:
    """QAttention: projections in 8 bits, then attention in the format of the step."""
    from roofcast.simulator.importers.onnx_quantized import of_bytes

    heads, x = c.attribute("num_heads"), c.value(0)
    out = of_bytes(times_op, 0, 1, 2, dtype=None)(c)
    assert isinstance(out, Value), "a product has one result"
    if len(x.shape) != 3:
        raise BadInput(f"got {list(x.shape)}, expected [batch, length, features]")
    causal = bool(c.attributes.get("unidirectional"))
    return _split_attention(c, out, [out.shape[2] // 3] * 3, heads, _optional(c, 8), causal, None)


def times_op(c: Call) -> Value:
    """A product of x and a weight, with a bias."""
    return times(c, c.value(0), c.value(1), 2 if c.given(2) else None)


def multi_head_attention_op(c: Call) -> list[Value]:
    """MultiHeadAttention and DecoderMaskedMultiHeadAttention, of projections made before."""
    heads, q = c.attribute("num_heads"), c.value(0)
    if len(q.shape) == 5:  # [batch, length, heads, 3, dim]
        b, s, n, _, d = q.shape
        q = k = v = c.t.view(q, b, n, s, d)
    else:
        key = c.value(1)
        if len(key.shape) == 5:
            b, s, n, _, d = key.shape
            k = v = c.t.view(key, b, n, s, d)
        else:
            k, v = _heads(c, key, heads), _heads(c, c.value(2), heads)
        q = _heads(c, q, heads)
    if c.given(3):
        c.value(3)  # a bias, added as the projections are read
    masked = c.node.op_type.startswith("Decoder")
    past_at, mask_at = (5, 4) if masked else (6, 5)
    k = _with_past(c, k, _optional(c, past_at))
    v = _with_past(c, v, _optional(c, past_at + 1))
    causal = bool(c.attributes.get("unidirectional"))
    return [_attend(c, q, k, v, causal=causal, mask=_mask(c, mask_at)), k, v]


def grouped_attention_op(c: Call) -> list[Value]:
    """GroupQueryAttention and SparseAttention: causal, with grouped keys and values.

    As many keys as the graph states in total, else those of the past and the new ones.
    """
    t, heads, groups = c.t, c.attribute("num_heads"), c.attribute("kv_num_heads")
    x = c.value(0)
    if len(x.shape) != 3:
        raise BadInput(f"got {list(x.shape)}, expected [batch, length, features]")
    if c.given(1) and c.given(2):
        q, k, v = _heads(c, x, heads), _heads(c, c.value(1), groups), _heads(c, c.value(2), groups)
    else:
        dim = x.shape[2] // (heads + 2 * groups)
        if dim * (heads + 2 * groups) != x.shape[2]:
            raise BadInput(f"{x.shape[2]} features do not make {heads} + 2 x {groups} heads")
        b, s = x.shape[:2]
        q, k, v = (t.view(x, b, n, s, dim) for n in (heads, groups, groups))
    if c.attributes.get("do_rotary"):
        q, k = rotated(c, q), rotated(c, k)
    past = _optional(c, 3)
    total = k.shape[2] + (past.shape[2] if past is not None and len(past.shape) == 4 else 0)
    held = total
    place = 6 if c.node.op_type == "GroupQueryAttention" else 5
    if c.given(place) and isinstance(c.ins[place], (np.ndarray, Stored)):
        known = int(np.ravel(c.numbers(place))[0])
        if k.shape[2] <= known <= total:
            # a buffer of the largest length, of which a part is filled
            held, total = max(known, total - k.shape[2]), known
    b, g, _, d = k.shape
    keys, values = (t.view(y, b, g, total, d) for y in (k, v))
    keys, values = t.new(keys.shape, k.dtype, k.grad), t.new(values.shape, v.dtype, v.grad)
    t.emit("copy", (k, v), ())
    out = _attend(c, q, keys, values, causal=True)
    return [out, t.view(keys, b, g, held, d), t.view(values, b, g, held, d)]


def packed_attention_op(c: Call) -> list[Value]:
    """PackedAttention, PackedMultiHeadAttention: sequences without padding, counted as padded."""
    t, heads, x = c.t, c.attribute("num_heads"), c.value(0)
    projects = c.node.op_type == "PackedAttention"
    place = 3 if projects else 4
    offsets = c.value(place)
    if len(offsets.shape) != 2:
        raise BadInput(f"token_offset is {list(offsets.shape)}, expected [batch, length]")
    batch, length = offsets.shape
    if projects:
        out = times(c, x, c.value(1), 2 if c.given(2) else None)
        widths = c.attributes.get("qkv_hidden_sizes") or [out.shape[1] // 3] * 3
    elif len(x.shape) == 4:  # [tokens, heads, 3, dim]
        widths = [x.shape[1] * x.shape[3]] * 3
    else:
        widths = [x.shape[1], c.value(1).shape[1], c.value(2).shape[1]]
    dims = [int(n) // heads for n in widths]
    q, k, v = (t.new((batch, heads, length, d), x.dtype, x.grad) for d in dims)
    out = _attend(c, q, k, v, causal=False)
    return [t.view(out, x.shape[0], heads * dims[2])]
