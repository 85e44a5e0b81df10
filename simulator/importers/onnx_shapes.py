"""ONNX operators that move, reshape or compute element by element."""

from __future__ import annotations

from math import prod

import numpy as np

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.importers.onnx_call import Call
from roofcast.simulator.work.ops import norm, pointwise
from roofcast.simulator.work.tape import Value


# ------------------------------------------------------------------ shapes only
def reshape_op(c: Call):
    """Reshape: the same elements under another shape; -1 is what is left, 0 the input's own."""
    x, target = c.value(0), [int(n) for n in c.numbers(1)]
    shape = [
        x.shape[i] if n == 0 and not c.attributes.get("allowzero") else n
        for i, n in enumerate(target)
    ]
    known = prod(n for n in shape if n != -1)
    if -1 in shape:
        shape[shape.index(-1)] = x.size // max(known, 1)
    if prod(shape) != x.size:
        raise BadInput(
            f"{list(x.shape)} cannot be reshaped to {target}; was the graph exported for a fixed"
            " batch?"
        )
    return c.t.view(x, *shape)


def transpose_op(c: Call):
    """Transpose: a view with its axes in another order."""
    x = c.value(0)
    order = c.attributes.get("perm", range(len(x.shape))[::-1])
    return c.t.view(x, *(x.shape[i] for i in order))


def flatten_op(c: Call):
    """Flatten to two axes, cut before `axis`."""
    x, axis = c.value(0), c.attributes.get("axis", 1)
    axis = axis % len(x.shape) if axis < 0 else axis
    return c.t.view(x, prod(x.shape[:axis]), prod(x.shape[axis:]))


def axes_of(c: Call, rank: int, place: int = 1):
    """The axes that an op names in input `place` or its attributes, counted from the front; None
    where it names none.
    """
    axes = c.numbers(place) if c.given(place) else c.attributes.get("axes")
    return None if axes is None else sorted(int(a) % rank for a in np.atleast_1d(axes))


def squeeze_op(c: Call):
    """Squeeze: axes of length one dropped."""
    x = c.value(0)
    axes = axes_of(c, len(x.shape)) or [i for i, n in enumerate(x.shape) if n == 1]
    return c.t.view(x, *(n for i, n in enumerate(x.shape) if i not in axes))


def unsqueeze_op(c: Call):
    """Unsqueeze: axes of length one put in."""
    x = c.value(0)
    axes = c.numbers(1) if c.given(1) else c.attributes["axes"]
    shape = list(x.shape)
    rank = len(shape) + len(np.atleast_1d(axes))
    for a in sorted(int(a) % rank for a in np.atleast_1d(axes)):
        shape.insert(a, 1)
    return c.t.view(x, *shape)


def expand_op(c: Call):
    """Expand: broadcast to a shape, without a copy."""
    x, target = c.value(0), [int(n) for n in c.numbers(1)]
    return c.t.view(x, *np.broadcast_shapes(x.shape, tuple(target)))


def sliced(c: Call):
    """Slice: a view of every step-th element between start and end."""
    x = c.value(0)
    starts, ends = (
        (c.numbers(1), c.numbers(2))
        if c.given(1)
        else (c.attributes["starts"], c.attributes["ends"])
    )
    axes = c.numbers(3, c.attributes.get("axes", range(len(starts))))
    steps = c.numbers(4, [1] * len(starts))
    shape = list(x.shape)
    for a, b, axis, step in zip(starts, ends, axes, steps, strict=True):
        shape[int(axis)] = len(range(*slice(int(a), int(b), int(step)).indices(shape[int(axis)])))
    return c.t.view(x, *shape)


def parts(c: Call):
    """Split along an axis, in given lengths or equal ones."""
    x, axis = c.value(0), c.attributes.get("axis", 0)
    parts = c.numbers(1, c.attributes.get("split"))
    if parts is None:
        n = len(c.node.output)
        each = -(-x.shape[axis] // n)
        parts = [each] * (n - 1) + [x.shape[axis] - each * (n - 1)]
    return [
        c.t.view(x, *x.shape[: axis % len(x.shape)], int(n), *x.shape[axis % len(x.shape) + 1 :])
        for n in parts
    ]


def concat_op(c: Call):
    """Concat along an axis."""
    return pointwise.concat(c.t, c.values(), c.attributes["axis"])


def copied(shape_of):
    """The handler of an op that copies its input into the shape that `shape_of(call, x)` gives."""

    def handler(c: Call):
        x = c.value(0)
        return pointwise.copy(c.t, x, *shape_of(c, x))

    return handler


def padded(c: Call, x: Value):
    """Shape of x with what Pad puts around it."""
    pads = [int(n) for n in (c.numbers(1) if c.given(1) else c.attributes["pads"])]
    axes = (
        [int(a) % len(x.shape) for a in c.numbers(3)] if c.given(3) else list(range(len(x.shape)))
    )
    shape = list(x.shape)
    for i, a in enumerate(axes):
        shape[a] += pads[i] + pads[i + len(axes)]
    return shape


def depth_to_space(c: Call, x: Value):
    """Shape of x[batch, channels, height, width] with blocks of channels laid out in space."""
    b, n = c.attributes["blocksize"], x.shape
    return n[0], n[1] // b**2, n[2] * b, n[3] * b


def space_to_depth(c: Call, x: Value):
    """Shape of x[batch, channels, height, width] with blocks of space laid out in channels."""
    b, n = c.attributes["blocksize"], x.shape
    return n[0], n[1] * b**2, n[2] // b, n[3] // b


def cast_op(c: Call):
    """Cast to the format that the attribute names."""
    to = c.attributes["to"]
    x = c.value(0)
    kinds = {
        1: c.t.precision.activations,
        10: c.t.precision.activations,
        16: c.t.precision.activations,
        11: c.t.precision.activations,
        7: "int64",
        6: "int32",
        9: "bool",
        2: "uint8",
        3: "int8",
    }
    return c.t.cast(x, kinds.get(to, x.dtype))


def filled(c: Call):
    """ConstantOfShape: a new tensor, written once."""
    out = c.t.new(tuple(int(n) for n in c.numbers(0)), "fp32")
    c.t.emit("elementwise", (), (out,))
    return out


# ------------------------------------------------------------------ elementwise
UNARY = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Exp": "exp", "Sqrt": "sqrt",
    "Log": "log", "Abs": "abs", "Sin": "sin", "Cos": "cos", "Neg": "neg", "HardSwish": "hardswish",
    "HardSigmoid": "hardsigmoid", "Elu": "elu", "Selu": "elu", "Celu": "elu",
    "LeakyRelu": "leaky_relu", "Softplus": "softplus", "Mish": "mish", "Swish": "silu",
    "Clip": "clamp", "ThresholdedRelu": "clamp", "Shrink": "clamp", "Softsign": "abs", "Erf": "sin",
    "Tan": "sin", "Asin": "sin", "Acos": "sin", "Atan": "sin", "Sinh": "sin", "Cosh": "sin",
    "Reciprocal": "rsqrt", "Floor": "neg", "Ceil": "neg", "Round": "neg", "Sign": "neg",
    "Not": "neg", "IsNaN": "neg", "IsInf": "neg", "BitwiseNot": "neg",
}  # fmt: skip


def unary_op(fn: str):
    """The handler of a pointwise op on one operand."""
    return lambda c: pointwise.unary(c.t, fn, c.value(0))


def gelu_op(c: Call):
    """Gelu, exact or by tanh."""
    return pointwise.unary(
        c.t, "gelu_tanh" if c.attributes.get("approximate") == b"tanh" else "gelu", c.value(0)
    )


def summed(c: Call):
    """Add and Sum; a number that is known beforehand is no operand."""
    for place, other in ((0, 1), (1, 0)):
        if len(c.ins) == 2 and c.scalar(place):
            return pointwise.unary(c.t, "add_scalar", c.value(other))
    out, *rest = c.values()
    for v in rest:
        out = pointwise.add(c.t, out, v)
    return out


def mul_op(c: Call):
    """Mul; by a number that is known beforehand it is a scaling."""
    for place, other in ((0, 1), (1, 0)):
        if c.scalar(place):
            return pointwise.scale(c.t, c.value(other))
    return pointwise.mul(c.t, c.value(0), c.value(1))


def powered(c: Call):
    """Pow by an exponent known beforehand."""
    return pointwise.unary(c.t, "pow", c.value(0))


def compare(c: Call):
    """Comparisons and logic: bools out, no gradient."""
    a, b = c.value(0), c.value(1)
    out = c.t.new(np.broadcast_shapes(a.shape, b.shape), "bool")
    c.t.emit("elementwise", (a, b), (out,), vector=out.size)
    return out


def chosen(c: Call):
    """Max, Min, Mod, Where, PRelu: like a product, each operand kept where the other's gradient
    needs it.
    """
    values = c.values()
    if c.node.op_type == "Where":
        condition, *values = values
        a = values[0] if values[0].size >= values[1].size else values[1]
        return pointwise.where(
            c.t, pointwise.add(c.t, *values) if all(v.size > 1 for v in values) else a, condition
        )
    out, *rest = values
    for v in rest:
        out = pointwise.mul(c.t, out, v)
    return out


def softmax_op(c: Call):
    """Softmax over an axis."""
    return norm.softmax(c.t, c.value(0))


def dropout_op(c: Call):
    """Dropout with its ratio."""
    ratio = float(c.numbers(1, c.attributes.get("ratio", 0.5)))
    return [pointwise.dropout(c.t, c.value(0), ratio)]
