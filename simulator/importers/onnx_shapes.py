"""ONNX operators that move, reshape or compute element by element."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
from typing import Any

import numpy as np

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.importers.onnx_call import Call, Handler
from roofcast.simulator.work.ops import norm, pointwise
from roofcast.simulator.work.tape import Value


# ------------------------------------------------------------------ shapes only
def _ints(numbers: Iterable[Any]) -> list[int]:
    return [int(n) for n in numbers]


def reshape_op(c: Call) -> Value:
    """Reshape to given dimensions: -1 is whatever remains, 0 the dimension of the input."""
    x, target = c.value(0), _ints(c.numbers(1))
    copied = not c.attributes.get("allowzero")
    shape = [x.shape[i] if n == 0 and copied else n for i, n in enumerate(target)]
    known = prod(n for n in shape if n != -1)
    if -1 in shape:
        shape[shape.index(-1)] = x.size // max(known, 1)
    if prod(shape) != x.size:
        raise BadInput(
            f"{list(x.shape)} cannot be reshaped to {target}; was the graph exported for a fixed"
            " batch?"
        )
    return c.t.view(x, *shape)


def transpose_op(c: Call) -> Value:
    """Transpose: a view with permuted axes; by default in reverse order."""
    x = c.value(0)
    order = c.attributes.get("perm", range(len(x.shape))[::-1])
    return c.t.view(x, *(x.shape[i] for i in order))


def flatten_op(c: Call) -> Value:
    """Flatten to two axes: those before `axis`, and the others."""
    x, axis = c.value(0), c.attributes.get("axis", 1)
    axis = axis % len(x.shape) if axis < 0 else axis
    return c.t.view(x, prod(x.shape[:axis]), prod(x.shape[axis:]))


def axes_of(c: Call, rank: int, place: int = 1) -> list[int] | None:
    """The axes in input `place` or in the attributes, counted from the front; None if not given."""
    axes = c.numbers(place) if c.given(place) else c.attributes.get("axes")
    return None if axes is None else sorted(int(a) % rank for a in np.atleast_1d(axes))


def squeeze_op(c: Call) -> Value:
    """Squeeze: a view without the given axes of length one; by default without all of them."""
    x = c.value(0)
    axes = axes_of(c, len(x.shape)) or [i for i, n in enumerate(x.shape) if n == 1]
    return c.t.view(x, *(n for i, n in enumerate(x.shape) if i not in axes))


def unsqueeze_op(c: Call) -> Value:
    """Unsqueeze: a view with further axes of length one."""
    x = c.value(0)
    axes = np.atleast_1d(c.numbers(1) if c.given(1) else c.attributes["axes"])
    shape = list(x.shape)
    rank = len(shape) + len(axes)
    for a in sorted(int(a) % rank for a in axes):
        shape.insert(a, 1)
    return c.t.view(x, *shape)


def expand_op(c: Call) -> Value:
    """Expand: a view, broadcast to a shape."""
    x, target = c.value(0), _ints(c.numbers(1))
    return c.t.view(x, *np.broadcast_shapes(x.shape, tuple(target)))


def slice_op(c: Call) -> Value:
    """Slice: a view of every step-th element between start and end."""
    x = c.value(0)
    if c.given(1):
        starts, ends = c.numbers(1), c.numbers(2)
    else:
        starts, ends = c.attributes["starts"], c.attributes["ends"]
    axes = c.numbers_or(3, c.attributes.get("axes", range(len(starts))))
    steps = c.numbers_or(4, [1] * len(starts))
    shape = list(x.shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        taken = slice(int(start), int(end), int(step))
        shape[int(axis)] = len(range(*taken.indices(shape[int(axis)])))
    return c.t.view(x, *shape)


def split_op(c: Call) -> list[Value]:
    """Split along an axis: views of given or equal lengths."""
    x, axis = c.value(0), c.attributes.get("axis", 0)
    lengths = c.numbers_or(1, c.attributes.get("split"))
    if lengths is None:
        n = len(c.node.output)
        each = -(-x.shape[axis] // n)
        lengths = [each] * (n - 1) + [x.shape[axis] - each * (n - 1)]
    axis %= len(x.shape)
    return [c.t.view(x, *x.shape[:axis], int(n), *x.shape[axis + 1 :]) for n in lengths]


def concat_op(c: Call) -> Value:
    """Concat along an axis."""
    return pointwise.concat(c.t, c.values(), c.attributes["axis"])


def copied(shape_of: Callable[[Call, Value], Iterable[int]]) -> Handler:
    """The handler of an op that copies its input into the shape `shape_of(call, x)`."""

    def handler(c: Call) -> Value:
        x = c.value(0)
        return pointwise.copy(c.t, x, *shape_of(c, x))

    return handler


def padded(c: Call, x: Value) -> list[int]:
    """Shape of x with the padding of a Pad."""
    pads = _ints(c.numbers(1) if c.given(1) else c.attributes["pads"])
    rank = len(x.shape)
    axes = [int(a) % rank for a in c.numbers(3)] if c.given(3) else list(range(rank))
    shape = list(x.shape)
    for i, a in enumerate(axes):
        shape[a] += pads[i] + pads[i + len(axes)]
    return shape


def tiled(c: Call, x: Value) -> list[int]:
    """Shape of x repeated along each axis as input 1 says."""
    return [n * int(r) for n, r in zip(x.shape, c.numbers(1), strict=True)]


def depth_to_space(c: Call, x: Value) -> tuple[int, ...]:
    """Shape of x[batch, channels, height, width] with blocks of channels moved into space."""
    b, n = c.attributes["blocksize"], x.shape
    return n[0], n[1] // b**2, n[2] * b, n[3] * b


def space_to_depth(c: Call, x: Value) -> tuple[int, ...]:
    """Shape of x[batch, channels, height, width] with blocks of space moved into channels."""
    b, n = c.attributes["blocksize"], x.shape
    return n[0], n[1] * b**2, n[2] // b, n[3] // b


# element types of ONNX in our formats; floating-point ones take the precision of the step
_FLOATING_TYPES = (1, 10, 11, 16)
_TYPES = {2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool"}


def cast_op(c: Call) -> Value:
    """Cast to the format of the attribute `to`."""
    to, x = c.attributes["to"], c.value(0)
    if to in _FLOATING_TYPES:
        return c.t.cast(x, c.t.precision.activations)
    return c.t.cast(x, _TYPES.get(to, x.dtype))


def constant_of_shape_op(c: Call) -> Value:
    """ConstantOfShape: a new tensor, written once."""
    out = c.t.new(_ints(c.numbers(0)), "fp32")
    c.t.emit("elementwise", (), (out,))
    return out


# ------------------------------------------------------------------ elementwise
UNARY = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Exp": "exp", "Sqrt": "sqrt",
    "Log": "log", "Abs": "abs", "Sin": "sin", "Cos": "cos", "Neg": "neg", "HardSwish": "hardswish",
    "HardSigmoid": "hardsigmoid", "Elu": "elu", "Selu": "elu", "Celu": "elu",
    "LeakyRelu": "leaky_relu", "Softplus": "softplus", "Mish": "mish", "Swish": "silu",
    "Clip": "clamp", "ThresholdedRelu": "clamp", "Shrink": "clamp", "Softsign": "abs", "Erf": "erf",
    "Tan": "sin", "Asin": "sin", "Acos": "sin", "Atan": "sin", "Sinh": "sin", "Cosh": "sin",
    "Reciprocal": "rsqrt", "Floor": "neg", "Ceil": "neg", "Round": "neg", "Sign": "neg",
    "Not": "neg", "IsNaN": "neg", "IsInf": "neg", "BitwiseNot": "neg",
}  # fmt: skip


def unary_op(fn: str) -> Handler:
    """The handler of an elementwise op on one operand."""
    return lambda c: pointwise.unary(c.t, fn, c.value(0))


def gelu_op(c: Call) -> Value:
    """Gelu, exact or approximated by tanh."""
    approximate = c.attributes.get("approximate") == b"tanh"
    return pointwise.unary(c.t, "gelu_tanh" if approximate else "gelu", c.value(0))


def add_op(c: Call) -> Value:
    """Add and Sum; a known scalar is not an operand."""
    for place, other in ((0, 1), (1, 0)):
        if len(c.ins) == 2 and c.scalar(place):
            return pointwise.unary(c.t, "add_scalar", c.value(other))
    out, *rest = c.values()
    for v in rest:
        out = pointwise.add(c.t, out, v)
    return out


def mul_op(c: Call) -> Value:
    """Mul and Div; with a known scalar, a scaling."""
    for place, other in ((0, 1), (1, 0)):
        if c.scalar(place):
            return pointwise.scale(c.t, c.value(other))
    return pointwise.mul(c.t, c.value(0), c.value(1))


def pow_op(c: Call) -> Value:
    """Pow with a known exponent."""
    return pointwise.unary(c.t, "pow", c.value(0))


def compare_op(c: Call) -> Value:
    """Comparisons and logic: bools without a gradient."""
    a, b = c.value(0), c.value(1)
    out = c.t.new(np.broadcast_shapes(a.shape, b.shape), "bool")
    c.t.emit("elementwise", (a, b), (out,), vector=out.size)
    return out


def select_op(c: Call) -> Value:
    """Max, Min, Mod, PRelu: as a product, which keeps what gradients need. Where: as a choice."""
    values = c.values()
    if c.node.op_type == "Where":
        condition, a, b = values
        if a.size > 1 and b.size > 1:
            x = pointwise.add(c.t, a, b)
        else:
            x = a if a.size >= b.size else b
        return pointwise.where(c.t, x, condition)
    out, *rest = values
    for v in rest:
        out = pointwise.mul(c.t, out, v)
    return out


def softmax_op(c: Call) -> Value:
    """Softmax over an axis, by default the last one. Its rows are those of that axis."""
    x = c.value(0)
    rank = len(x.shape)
    axis = c.attributes.get("axis", -1)
    if not -rank <= axis < rank:
        raise BadInput(f"axis {axis}: its input {list(x.shape)} has {rank} axes")
    others = [n for i, n in enumerate(x.shape) if i != axis % rank]
    out = norm.softmax(c.t, c.t.view(x, *others, x.shape[axis]))
    return c.t.view(out, *x.shape)


def dropout_op(c: Call) -> list[Value]:
    """Dropout with its ratio."""
    ratio = float(c.numbers_or(1, c.attributes.get("ratio", 0.5)))
    return [pointwise.dropout(c.t, c.value(0), ratio)]
