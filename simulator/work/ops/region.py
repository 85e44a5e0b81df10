"""Reading boxes out of feature maps."""

from __future__ import annotations

from roofcast.simulator.work.tape import Tape, Value

SAMPLES = 4  # points a cell, each between four pixels


def roi_align(t: Tape, levels: list[Value], boxes: Value, side: int) -> Value:
    """Each box [5: picture and corners] read as side x side cells, bilinearly, from the level of
    its size [he2017mask].

    forward   4 points of 4 pixels a cell; keeps the boxes;  backward scatters the same way
    """
    channels = levels[0].shape[1]
    out = t.new(
        (boxes.shape[0], channels, side, side), levels[0].dtype, any(x.grad for x in levels)
    )
    touched = 4 * SAMPLES * out.size
    t.emit(
        "gather",
        (*levels, boxes),
        (out,),
        vector=2 * touched,
        read=boxes.bytes + touched * out.bytes // out.size,
    )
    if out.grad:
        t.save(boxes)
        t.backward(
            "scatter",
            vector=2 * touched,
            read=out.bytes + boxes.bytes,
            written=sum(x.bytes for x in levels),
            product=out.dtype,
        )
    return out
