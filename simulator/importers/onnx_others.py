"""ONNX operators with shapes of their own: ranges, one-hot, boxes, samples of images, transforms.

Where a shape depends on values, the largest it can have is taken.
"""

from __future__ import annotations

import math
from math import prod

import numpy as np

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.importers.onnx_call import Call, Handler, NotKnown, moved
from roofcast.simulator.importers.onnx_products import conv_op
from roofcast.simulator.work.ops import region
from roofcast.simulator.work.tape import Value

PIXELS = 4  # that a bilinear sample reads


def _made(c: Call, shape: list[int], dtype: str | None = None) -> Value:
    """A new tensor that depends on no other, written once."""
    out = c.t.new(shape, dtype)
    c.t.emit("elementwise", (), (out,))
    return out


def _number(c: Call, place: int) -> float:
    return float(np.ravel(c.numbers(place))[0])


def range_op(c: Call) -> Value:
    """Range: numbers from a start to a limit."""
    start, limit, delta = (_number(c, i) for i in range(3))
    if not delta or not all(map(math.isfinite, (start, limit, delta))):
        raise BadInput(f"from {start:g} to {limit:g} in steps of {delta:g} is no range")
    whole = c.numbers(0).dtype.kind in "iu"
    length = max(math.ceil((limit - start) / delta), 0)
    return _made(c, [length], "int64" if whole else None)


def one_hot_op(c: Call) -> Value:
    """OneHot: a new axis of a known length."""
    x, depth = c.value(0), int(_number(c, 1))
    axis = c.attributes.get("axis", -1)
    shape = list(x.shape)
    shape.insert(axis if axis >= 0 else len(shape) + 1 + axis, depth)
    out = c.t.new(shape)
    c.t.emit("scatter", (x,), (out,))
    return out


def random_op(c: Call) -> Value:
    """RandomNormal, RandomUniform of a shape, or shaped as an input; EyeLike, Bernoulli."""
    shape = c.attributes.get("shape") or (c.value(0).shape if c.given(0) else None)
    if shape is None:
        raise BadInput("the attribute shape is missing")
    return _made(c, list(shape))


def non_zero_op(c: Call) -> Value:
    """NonZero: of every element, at most."""
    x = c.value(0)
    out = c.t.new((max(len(x.shape), 1), x.size), "int64")
    moved(c, "gather", [out])
    return out


def suppression_op(c: Call) -> Value:
    """NonMaxSuppression: as many boxes as may be chosen for each class of each image."""
    boxes, scores = c.value(0), c.value(1)
    if len(boxes.shape) != 3 or len(scores.shape) != 3:
        raise BadInput(f"got boxes {list(boxes.shape)} and scores {list(scores.shape)}")
    most = int(_number(c, 2)) if c.given(2) else 0
    chosen = prod(scores.shape[:2]) * min(max(most, 0), boxes.shape[1])
    out = c.t.new((chosen, 3), "int64")
    c.t.emit("gather", (boxes, scores), (out,), vector=scores.size * 8)
    return out


def roi_align_op(c: Call) -> Value:
    """RoiAlign: features of boxes in one feature map."""
    x, boxes = c.value(0), c.value(1)
    high, wide = (int(c.attributes.get(f"output_{s}", 1)) for s in ("height", "width"))
    side = max(math.isqrt(high * wide), 1)
    out = region.roi_align(c.t, [x], boxes, side)
    shape = boxes.shape[0], x.shape[1], high, wide
    return c.t.view(out, *shape) if prod(shape) == out.size else c.t.new(shape, x.dtype, x.grad)


def grid_sample_op(c: Call) -> Value:
    """GridSample: x[B, C, ..space] at the places of a grid[B, ..out space, dims]."""
    x, grid = c.value(0), c.value(1)
    out = c.t.new((*x.shape[:2], *grid.shape[1:-1]), x.dtype, c.grad)
    read = grid.bytes + PIXELS * out.bytes
    c.t.emit("gather", (x, grid), (out,), vector=2 * PIXELS * out.size, read=read)
    if out.grad:
        c.t.save(x, grid)
        written = x.bytes + grid.bytes
        c.t.backward("scatter", vector=4 * PIXELS * out.size, read=read, written=written)
    return out


def transform_op(c: Call) -> Value:
    """DFT: 5 n log2 n operations for each row of n; STFT: of each frame."""
    x = c.value(0)
    if c.node.op_type == "STFT":
        step = int(_number(c, 1))
        window = c.value(2).shape[0] if c.given(2) else 0
        n = int(_number(c, 3)) if c.given(3) else window
        if step < 1 or not 1 <= n <= x.shape[1]:
            raise BadInput(f"frames of {n} in steps of {step} from {x.shape[1]} samples")
        frames = (x.shape[1] - n) // step + 1
        bins = n // 2 + 1 if c.attributes.get("onesided", 1) else n
        shape = [x.shape[0], frames, bins, 2]
    else:
        rank = len(x.shape)
        axis = int(_number(c, 2)) if c.given(2) else int(c.attributes.get("axis", -2 % rank))
        shape = list(x.shape)
        n = int(_number(c, 1)) if c.given(1) else shape[axis]
        if n < 1:
            raise BadInput(f"a transform of {n} numbers")
        shape[axis] = n // 2 + 1 if c.attributes.get("onesided") else n
        shape[-1] = 2
    out = c.t.new(shape, x.dtype, x.grad)
    work = 5 * out.size / 2 * max(math.log2(n), 1)
    c.t.emit("elementwise", (x,), (out,), vector=work)
    if x.grad:
        c.t.backward("elementwise", vector=work, read=out.bytes, written=x.bytes, product=x.dtype)
    return out


def deform_conv_op(c: Call) -> Value:
    """DeformConv: the product of a convolution, of samples at places of their own."""
    bias = c.ins[3] if c.given(3) else None
    return conv_op(c.with_inputs(c.ins[0], c.ins[1], bias))


def update_op(c: Call) -> Value:
    """TensorScatter: a cache with new entries; as many bytes move as are new."""
    cache, new = c.value(0), c.value(1)
    c.t.emit("copy", (new,), ())
    return cache


def chosen_op(c: Call) -> Value:
    """Compress: every element, at most; as many as are true where that is known."""
    x = c.value(0)
    axis = c.attributes.get("axis")
    try:
        count = int(np.count_nonzero(c.numbers(1)))
    except NotKnown:
        count = x.size if axis is None else x.shape[axis]
    shape = [count] if axis is None else list(x.shape)
    if axis is not None:
        shape[axis] = count
    out = c.t.new(shape, x.dtype, x.grad)
    moved(c, "gather", [out])
    return out


HANDLERS: dict[str, Handler] = {
    "Range": range_op,
    "OneHot": one_hot_op,
    **dict.fromkeys(
        "RandomNormal RandomUniform RandomNormalLike RandomUniformLike EyeLike Bernoulli".split(),
        random_op,
    ),
    "NonZero": non_zero_op,
    "NonMaxSuppression": suppression_op,
    "RoiAlign": roi_align_op,
    "GridSample": grid_sample_op,
    **dict.fromkeys(("DFT", "STFT"), transform_op),
    "DeformConv": deform_conv_op,
    "TensorScatter": update_op,
    "Compress": chosen_op,
}
