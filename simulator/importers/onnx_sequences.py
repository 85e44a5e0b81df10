"""ONNX operators on sequences of tensors and on optional ones, whose lengths are known."""

from __future__ import annotations

import numpy as np

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.importers.onnx_call import Call, Handler, Operand, Several, Stored
from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.tape import Value


def _sequence(c: Call) -> Several:
    given = c.ins[0] if c.ins else None
    if not isinstance(given, Several):
        raise BadInput("its first input is no sequence of tensors whose length is known")
    return given


def construct_op(c: Call) -> Operand:
    """SequenceConstruct: of its inputs."""
    return Several(tuple(i for i in c.ins if isinstance(i, (Value, Stored, np.ndarray))))


def insert_op(c: Call) -> Operand:
    """SequenceInsert: at a place, by default at the end."""
    items = list(_sequence(c).items)
    at = int(np.ravel(c.numbers(2))[0]) if c.given(2) else len(items)
    new = c.ins[1]
    items.insert(at, new if isinstance(new, (Stored, np.ndarray)) else c.value(1))
    return Several(tuple(items))


def erase_op(c: Call) -> Operand:
    """SequenceErase: at a place, by default at the end."""
    items = list(_sequence(c).items)
    del items[int(np.ravel(c.numbers(1))[0]) if c.given(1) else -1]
    return Several(tuple(items))


def at_op(c: Call) -> Operand:
    """SequenceAt: the tensor at a place; where that depends on values, the first."""
    items = _sequence(c).items
    known = isinstance(c.ins[1], (np.ndarray, Stored))
    return items[int(np.ravel(c.numbers(1))[0]) if known else 0]


def length_op(c: Call) -> Operand:
    """SequenceLength: a number."""
    return np.array(len(_sequence(c).items), dtype=np.int64)


def split_op(c: Call) -> Operand:
    """SplitToSequence: along an axis, into parts of one length or of several, by default of 1."""
    x, keep = c.value(0), bool(c.attributes.get("keepdims", 1))
    axis = c.attributes.get("axis", 0) % len(x.shape)
    n = x.shape[axis]
    lengths = np.atleast_1d(c.numbers(1)) if c.given(1) else np.array([1])
    if c.given(1) and c.numbers(1).ndim:
        each = [int(k) for k in lengths]
    else:
        k = int(lengths[0])
        if k < 1 or n > 10_000 * k:
            raise BadInput(f"{n} in parts of {k}")
        each = [min(k, n - i) for i in range(0, n, k)]
    drop = not c.given(1) and not keep
    return Several(
        tuple(
            c.t.view(x, *x.shape[:axis], *(() if drop else (k,)), *x.shape[axis + 1 :])
            for k in each
        )
    )


def concat_op(c: Call) -> Operand:
    """ConcatFromSequence: along an axis, or along a new one."""
    items = _sequence(c)
    if not items.items:
        raise BadInput("its sequence is empty")
    values = c.with_inputs(*items.items).values()
    axis = c.attribute("axis", least=-8)
    if c.attributes.get("new_axis"):
        at = axis % (len(values[0].shape) + 1)
        values = [c.t.view(v, *v.shape[:at], 1, *v.shape[at:]) for v in values]
        axis = at
    return pointwise.concat(c.t, values, axis)


def same_op(c: Call) -> Operand:
    """Optional, OptionalGetElement: what is given."""
    return c.ins[0] if c.ins else None


def has_op(c: Call) -> Operand:
    """OptionalHasElement: whether it is given."""
    return np.array(c.given(0))


HANDLERS: dict[str, Handler] = {
    "SequenceConstruct": construct_op,
    "SequenceEmpty": lambda c: Several(()),
    "SequenceInsert": insert_op,
    "SequenceErase": erase_op,
    "SequenceAt": at_op,
    "SequenceLength": length_op,
    "SplitToSequence": split_op,
    "ConcatFromSequence": concat_op,
    "Optional": same_op,
    "OptionalGetElement": same_op,
    "OptionalHasElement": has_op,
}
