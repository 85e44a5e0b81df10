"""Elementwise ops: one kernel that reads its operands once and writes its result once.

What each op keeps for backward follows PyTorch [pytorch-derivatives]: an op whose derivative is
written in terms of its result (relu, tanh, sigmoid, exp) keeps the result; one whose derivative is
written in terms of its argument (gelu, silu, pow) keeps the argument; a product keeps each factor
that the gradient of the other factor needs.
"""

from __future__ import annotations

from math import prod

from roofcast.simulator.work.precision import promote
from roofcast.simulator.work.tape import Tape, Value

# name: (vector FLOPs, special-function results, backward vector FLOPs, backward special-function
# results, what is kept), all per element
UNARY = {
    "relu": (1, 0, 1, 0, "out"),
    "sigmoid": (2, 2, 3, 0, "out"),
    "tanh": (2, 2, 2, 0, "out"),
    "exp": (1, 1, 1, 0, "out"),
    "sqrt": (0, 1, 2, 1, "out"),
    "rsqrt": (0, 1, 3, 0, "out"),
    "gelu": (6, 1, 10, 2, "in"),
    "gelu_tanh": (8, 2, 14, 2, "in"),
    "silu": (3, 2, 6, 2, "in"),
    "mish": (5, 4, 9, 4, "in"),
    "softplus": (2, 2, 3, 2, "in"),
    "hardswish": (4, 0, 4, 0, "in"),
    "hardsigmoid": (3, 0, 2, 0, "in"),
    "relu6": (2, 0, 2, 0, "in"),
    "elu": (2, 1, 3, 1, "in"),
    "leaky_relu": (2, 0, 2, 0, "in"),
    "log": (0, 1, 1, 1, "in"),
    "abs": (1, 0, 2, 0, "in"),
    "sin": (0, 1, 1, 1, "in"),
    "cos": (0, 1, 1, 1, "in"),
    "erf": (6, 1, 3, 1, "in"),
    "pow": (1, 0, 2, 0, "in"),
    "neg": (1, 0, 1, 0, None),
    "add_scalar": (1, 0, 0, 0, None),
    "mul_scalar": (1, 0, 1, 0, None),
    "clamp": (2, 0, 1, 0, "in"),
}
# these need their argument in backward, and copy it before they overwrite it in place
KEEPS_CLONE_IN_PLACE = {"silu", "hardswish", "hardsigmoid", "relu6", "mish"}
AUTOCAST_TO_FULL = {"exp", "rsqrt", "log", "pow", "softplus"}  # [pytorch-autocast]


def _back(t: Tape, like: Value, *, read: float, written: float, vector: float) -> None:
    """An elementwise backward kernel in the format of `like`."""
    t.backward("elementwise", vector=vector, read=read, written=written, product=like.dtype)


def unary(t: Tape, fn: str, x: Value, *, in_place: bool = False) -> Value:
    """y = fn(x) for a function of `UNARY`.

    forward   reads N w bytes, writes N w
    backward  reads dy and what was kept, writes dx
    """
    vector, special, vector_back, special_back, kept = UNARY[fn]
    if fn in AUTOCAST_TO_FULL:
        x = t.full(x)
    n = x.size
    if in_place and x.kind == "activation" and fn not in KEEPS_CLONE_IN_PLACE:
        out = t.view(x, *x.shape)
    else:
        out = t.new(x.shape, x.dtype, x.grad)
    t.emit("elementwise", (x,), (out,), vector=vector * n, special=special * n)
    if not (x.grad and t.training):
        return out
    if kept == "in" and in_place and fn == "leaky_relu":
        kept = "out"
    if kept:
        t.save(x if kept == "in" else out)
    if vector_back or kept:
        t.backward(
            "elementwise",
            vector=vector_back * n,
            special=special_back * n,
            read=x.bytes if kept is None else 2 * x.bytes,
            written=x.bytes,
            product=x.dtype,
        )
    return out


def _broadcast(a: Value, b: Value) -> tuple[int, ...]:
    """The common shape of two operands; dimensions of length one stretch [numpy-broadcasting]."""
    wide, narrow = (a.shape, b.shape) if len(a.shape) >= len(b.shape) else (b.shape, a.shape)
    narrow = (1,) * (len(wide) - len(narrow)) + tuple(narrow)
    return tuple(max(m, n) for m, n in zip(wide, narrow, strict=True))


def _aligned(t: Tape, a: Value, b: Value) -> tuple[Value, Value]:
    """The operands, with a whole one cut to this rank's tokens if the other is split by tokens."""
    if t.parallel.tp > 1 and "tokens" in (a.split, b.split) and a.split != b.split:
        cut, whole = (a, b) if a.split == "tokens" else (b, a)
        if len(whole.shape) >= 2 and len(cut.shape) >= 2 and whole.shape[-2] > cut.shape[-2]:
            own = t.view(whole, *whole.shape[:-2], cut.shape[-2], whole.shape[-1])
            return (cut, own) if cut is a else (own, cut)
    return a, b


def _reduced(t: Tape, v: Value, out: Value) -> None:
    """The gradient of an operand that was broadcast is summed back to its shape."""
    if v.grad and v.size < out.size:
        t.backward("reduce", vector=out.size, read=out.bytes, written=v.bytes, product=out.dtype)


def add(t: Tape, a: Value, b: Value) -> Value:
    """a + b with broadcast shapes and promoted formats.

    Keeps nothing. Gradients pass through without a kernel, unless they are cast or summed.
    """
    a, b = _aligned(t, a, b)
    out = t.new(_broadcast(a, b), promote(a.dtype, b.dtype), a.grad or b.grad)
    t.emit("elementwise", (a, b), (out,), vector=out.size)
    if t.training:
        for v in (a, b):
            _reduced(t, v, out)
            if v.grad and v.dtype != out.dtype:
                t.backward("cast", read=out.bytes, written=v.bytes, product=v.dtype)
    return out


def mul(t: Tape, a: Value, b: Value) -> Value:
    """a * b with broadcast shapes and promoted formats.

    Each factor is kept if the other needs a gradient.
    """
    a, b = _aligned(t, t.scaled(a), t.scaled(b))
    out = t.new(_broadcast(a, b), promote(a.dtype, b.dtype), a.grad or b.grad)
    n = out.size
    t.emit("elementwise", (a, b), (out,), vector=n)
    if t.training:
        for v, other in ((a, b), (b, a)):
            if v.grad:
                t.save(other)
                _back(t, out, vector=n, read=out.bytes + other.bytes, written=out.bytes)
                _reduced(t, v, out)
    return out


def scale(t: Tape, x: Value) -> Value:
    """x times a number that is not a tensor."""
    return unary(t, "mul_scalar", t.scaled(x))


def dropout(t: Tape, x: Value, p: float) -> Value:
    """Zero elements of x with probability p and scale the others; keeps a mask of 1 byte each.

    Returns x itself for p = 0 and in inference.
    """
    if not p or not t.training:
        return x
    x = t.scaled(x)
    n = x.size
    out = t.new(x.shape, x.dtype, x.grad)
    t.emit("elementwise", (x,), (out,), vector=2 * n, special=n, written=out.bytes + n)
    if x.grad:
        t.keep(n)
        _back(t, x, vector=2 * n, read=x.bytes + n, written=x.bytes)
    return out


def where(t: Tape, x: Value, chosen: Value) -> Value:
    """x where `chosen` is true, a number elsewhere; keeps `chosen`."""
    out = t.new(_broadcast(x, chosen), x.dtype, x.grad)
    n = out.size
    t.emit("elementwise", (x, chosen), (out,), vector=n)
    if x.grad and t.training:
        t.save(chosen)
        _back(t, x, vector=n, read=out.bytes + chosen.bytes, written=out.bytes)
        _reduced(t, x, out)
    return out


def copy(t: Tape, x: Value, *shape: int, dtype: str | None = None) -> Value:
    """A contiguous copy of a transposed or broadcast tensor."""
    out = t.new(shape or x.shape, dtype or x.dtype, x.grad)
    t.emit("copy", (x,), (out,))
    if x.grad and t.training:
        t.backward("copy", read=out.bytes, written=x.bytes, product=x.dtype)
    return out


def part(t: Tape, x: Value, *shape: int) -> Value:
    """A slice of x of that shape: a view.

    Its gradient is written into zeros of the shape of x and added to those of the other slices.
    """
    if x.grad and t.training:
        out_bytes = x.bytes * prod(shape) // x.size
        t.backward("copy", read=out_bytes, written=x.bytes + out_bytes, product=x.dtype)
        if x.kind == "parameter":  # the tape adds up the gradients of activations itself
            read, written = 2 * x.bytes, x.bytes
            t.backward("accumulate", vector=x.size, read=read, written=written, product=x.dtype)
    return t.view(x, *shape)


def concat(t: Tape, parts: list[Value], dim: int) -> Value:
    """Tensors concatenated along `dim`."""
    shape = list(parts[0].shape)
    shape[dim] = sum(p.shape[dim] for p in parts)
    out = t.new(shape, promote(*(p.dtype for p in parts)), any(p.grad for p in parts))
    t.emit("copy", tuple(parts), (out,))
    if out.grad and t.training:
        t.backward("copy", read=out.bytes, written=out.bytes, product=out.dtype)
    return out


def total(t: Tape, x: Value, dim: int = -1, keepdim: bool = True) -> Value:
    """Sum over one dimension; autocast computes it in fp32. Keeps nothing."""
    return mean(t, t.full(x), dim, keepdim)


def mean(t: Tape, x: Value, dim: int = -1, keepdim: bool = True) -> Value:
    """Mean over one dimension. Keeps nothing."""
    shape = list(x.shape)
    if keepdim:
        shape[dim] = 1
    else:
        del shape[dim]
    out = t.new(shape, x.dtype, x.grad)
    t.emit("reduce", (x,), (out,), vector=x.size)
    if x.grad and t.training:
        _back(t, x, vector=x.size, read=out.bytes, written=x.bytes)
    return out
