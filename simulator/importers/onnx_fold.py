"""Constant folding: nodes of an ONNX graph whose results are known numbers.

Only results of few numbers are computed, and how many they are is known before: an operand may
claim that a result has 2^40.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from roofcast.simulator.importers.onnx_call import Call, Operand, Several, Stored, sizes_of
from roofcast.simulator.importers.onnx_checks import STANDARD
from roofcast.simulator.importers.onnx_extra import numpy_helper, onnx
from roofcast.simulator.importers.onnx_ops import HANDLERS

SMALL = 1 << 14  # elements of the largest integer constants that are computed with
FOLDED = 64  # elements of the largest floating-point constants that are computed with
# raised by ONNX's reference implementation if it lacks an op (NotImplementedError, a RuntimeError),
# if an attribute or an operand is missing or does not fit, or if the result does not fit in memory
UNCOMPUTABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
# results no larger than all operands together, whatever their values
NO_LARGER = frozenset(
    "Abs And Acos Asin Atan Cast CastLike Ceil Clip Concat Cos Cosh CumSum Erf Exp Flatten Floor"
    " GatherElements HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Neg Not Reciprocal"
    " ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd"
    " ReduceSum ReduceSumSquare Relu Reshape Round ScatterElements ScatterND Shrink Sigmoid Sign"
    " Sin Sinh Size Slice Softmax Softplus Split Sqrt Squeeze Tan Tanh TopK Transpose Trilu Unique"
    " Unsqueeze BitShift BitwiseNot ArgMax ArgMin Compress GatherND ReverseSequence Shape".split()
)
BROADCAST = frozenset(
    "Add And BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max"
    " Mean Min Mod Mul Or Pow PRelu Sub Sum Where Xor".split()
)


def _first(n: list[np.ndarray]) -> int:
    return int(np.ravel(n[0])[0])


def _range(n: list[np.ndarray]) -> float:
    start, limit, delta = (float(np.ravel(x)[0]) for x in n)
    return max((limit - start) / delta, 0.0)


# elements of the result, from operands whose values say how many
GROWING: dict[str, Callable[[list[np.ndarray]], float]] = {
    "ConstantOfShape": lambda n: prod(int(d) for d in np.ravel(n[0])),
    "Expand": lambda n: prod(
        np.broadcast_shapes(n[0].shape, tuple(min(int(d), 1 << 40) for d in np.ravel(n[1])))
    ),
    "Tile": lambda n: n[0].size * prod(int(d) for d in np.ravel(n[1])),
    "Range": _range,
    "Gather": lambda n: n[0].size * n[1].size,
    "NonZero": lambda n: n[0].size * max(n[0].ndim, 1),
    "OneHot": lambda n: n[0].size * int(np.ravel(n[1])[0]),
    "MatMul": lambda n: n[0].size * n[1].size,
    "Pad": lambda n: prod(
        d + abs(int(a)) + abs(int(b))
        for d, a, b in zip(n[0].shape, n[1][: n[0].ndim], n[1][n[0].ndim :], strict=False)
    ),
}


def folded(call: Call, uncomputed: dict[str, tuple[int, str]]) -> list[Operand] | None:
    """The numbers that a node computes from numbers, and constants that it holds.

    None if it computes with tensors, or if ONNX cannot compute it: then `uncomputed` counts it
    under its op, with the first reason.
    """
    node = call.node
    if node.domain not in STANDARD:
        return None
    if node.op_type == "Constant":
        return [_constant(call)]
    if node.op_type == "Shape" and not isinstance(call.ins[0], Several):
        x = call.ins[0]
        shape = np.array(x.shape if x is not None else (), dtype=np.int64)
        return [shape[call.attributes.get("start", 0) : call.attributes.get("end", len(shape))]]
    if node.op_type == "Size" and isinstance(call.ins[0], (Stored, np.ndarray)):
        return [np.array(prod(call.ins[0].shape), dtype=np.int64)]
    if node.op_type == "Size" and call.ins[0] is not None:
        return [np.array(prod(sizes_of(call.ins[0].shape)), dtype=np.int64)]
    if any(a.HasField("g") or a.graphs for a in node.attribute):
        return None
    numbers = [_number(i) for i in call.ins if i is not None]
    if not numbers or any(n is None for n in numbers):
        return None
    try:
        if not _few(node.op_type, [n for n in numbers if n is not None]):
            return None
        done = _evaluated(call)
    except UNCOMPUTABLE as error:
        count, first = uncomputed.get(node.op_type, (0, reason(error)))
        uncomputed[node.op_type] = count + 1, first
        return None
    known = [d for d in done if isinstance(d, np.ndarray) and d.size <= SMALL]
    return list(known) if len(known) == len(done) else None


def _evaluated(call: Call) -> list:
    """What ONNX's reference implementation computes."""
    from onnx.reference import ReferenceEvaluator  # slow to import, and rarely needed

    node = call.node
    fed = {n: _number(i) for n, i in zip(node.input, call.ins, strict=True) if n}
    with np.errstate(all="ignore"):
        return list(ReferenceEvaluator(node).run(None, fed))


def _constant(call: Call) -> Operand:
    """The value of a Constant node: numbers, or an initializer where they are many and floats."""
    value = call.attributes.get("value")
    if value is None:
        return np.array(next(iter(call.attributes.values())))
    form = onnx.TensorProto.DataType.Name(value.data_type)
    shape = sizes_of(value.dims)
    stored = Stored(call.node.output[0], shape, form, value, role="constant")
    if prod(shape) > (FOLDED if stored.floating else SMALL):
        return stored
    return numpy_helper.to_array(value)


def _few(op: str, numbers: list[np.ndarray]) -> bool:
    """Whether an op on these numbers has at most `SMALL` results.

    Raises NotImplementedError for an op of which nothing is known.
    """
    if sum(n.size for n in numbers) > 4 * SMALL:
        return False
    if op in NO_LARGER:
        return True
    if op in BROADCAST:
        return prod(np.broadcast_shapes(*(n.shape for n in numbers))) <= SMALL
    if op in GROWING:
        return GROWING[op](numbers) <= SMALL
    if op in HANDLERS:  # of tensors, by its formula
        return False
    raise NotImplementedError("not among the operators that are computed with numbers")


def _number(value: Operand) -> np.ndarray | None:
    """An operand as numbers, if it has few and they are not learned."""
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, Stored) or value.learned:
        return None
    few = prod(value.shape) <= (FOLDED if value.floating else SMALL)
    return value.numbers() if few else None


def reason(error: Exception) -> str:
    """The message of an exception in one line of at most 120 characters."""
    words = " ".join(str(error).split()) or type(error).__name__
    words = "".join(c if c.isprintable() else "?" for c in words)
    return words if len(words) <= 120 else f"{words[:117]}..."
