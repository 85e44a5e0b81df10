"""Constant folding: nodes of an ONNX graph whose results are known numbers."""

from __future__ import annotations

import numpy as np

from roofcast.simulator.importers.onnx_call import Call, Operand, Stored
from roofcast.simulator.importers.onnx_extra import numpy_helper

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


def folded(call: Call, uncomputed: dict[str, tuple[int, str]]) -> list[np.ndarray] | None:
    """The numbers that a node computes from numbers.

    None if it computes with tensors, or if ONNX cannot compute it: then `uncomputed` counts it
    under its op, with the first reason.
    """
    node = call.node
    if node.op_type == "Constant":
        value = call.attributes.get("value")
        if value is not None:
            return [numpy_helper.to_array(value)]
        return [np.array(next(iter(call.attributes.values())))]
    if node.op_type == "Shape":
        x = call.ins[0]
        shape = np.array(x.shape if x is not None else (), dtype=np.int64)
        return [shape[call.attributes.get("start", 0) : call.attributes.get("end", len(shape))]]
    if node.op_type == "Size" and call.ins[0] is not None:
        return [np.array(int(np.prod(call.ins[0].shape)), dtype=np.int64)]
    numbers = [_number(i) for i in call.ins if i is not None]
    if not numbers or any(n is None for n in numbers):
        return None
    from onnx.reference import ReferenceEvaluator  # slow to import, and rarely needed

    fed = {n: _number(i) for n, i in zip(node.input, call.ins, strict=True) if n}
    try:
        done = ReferenceEvaluator(node).run(None, fed)
    except UNCOMPUTABLE as error:
        count, first = uncomputed.get(node.op_type, (0, reason(error)))
        uncomputed[node.op_type] = count + 1, first
        return None
    known = [d for d in done if isinstance(d, np.ndarray) and d.size <= SMALL]
    return known if len(known) == len(done) else None


def _number(value: Operand) -> np.ndarray | None:
    """An operand as numbers, if it has few and they are not learned."""
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, Stored) or value.learned:
        return None
    few = np.prod(value.shape) <= (FOLDED if value.floating else SMALL)
    return numpy_helper.to_array(value.proto) if few else None


def reason(error: Exception) -> str:
    """The message of an exception in one line of at most 120 characters."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 120 else f"{words[:117]}..."
