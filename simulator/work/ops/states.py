"""States that layers other than attention keep of a sequence while a model generates: of a fixed
size, read and written once a step.
"""

from __future__ import annotations

from collections.abc import Sequence

from roofcast.simulator.work.precision import WIDTH
from roofcast.simulator.work.tape import Tape, Value
from roofcast.simulator.work.traced import Cache


def held(t: Tape, elements: int, dtype: str | None = None) -> float:
    """Note a state of so many elements per sequence and layer; returns its bytes per sequence."""
    bytes_ = elements * WIDTH[dtype or t.precision.activations]
    if t.generates:
        t.states.append(Cache(bytes_, t.repeats, None))
    return bytes_


def stepped(
    t: Tape, ins: Sequence[Value], out: Value, elements: int, flops: float, dtype: str = "fp32"
) -> bool:
    """Note a state and, in a decode step, launch the one kernel that updates it and writes `out`;
    whether it did. flops: of the vector units, per sequence. The state is a value that the kernel
    reads and one that it writes, so that a kernel that is fused with others moves it as well.
    """
    held(t, elements, dtype)
    if t.generates != "decode":
        return False
    dtype = dtype or t.precision.activations
    before, after = (t.new((out.shape[0], elements), dtype) for _ in range(2))
    t.emit("copy", (*ins, before), (out, after), vector=out.shape[0] * flops)
    return True
