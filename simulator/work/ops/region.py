"""Features of boxes in feature maps."""

from __future__ import annotations

from roofcast.simulator.work.tape import Tape, Value

SAMPLES = 4  # points per cell, each interpolated between four pixels


def roi_align(t: Tape, levels: list[Value], boxes: Value, side: int) -> Value:
    """Features [boxes, C, side, side] of boxes[N, 5: image and corners] [he2017mask].

    Each box is sampled bilinearly from the feature map of `levels` that fits its size.

    forward   4 points of 4 pixels per cell; keeps the boxes
    backward  scatters to the same pixels
    """
    shape = (boxes.shape[0], levels[0].shape[1], side, side)
    out = t.new(shape, levels[0].dtype, any(x.grad for x in levels))
    touched = 4 * SAMPLES * out.size
    read = boxes.bytes + touched * out.bytes // out.size
    t.emit("gather", (*levels, boxes), (out,), vector=2 * touched, read=read)
    if out.grad:
        t.save(boxes)
        read, written = out.bytes + boxes.bytes, sum(x.bytes for x in levels)
        t.backward("scatter", vector=2 * touched, read=read, written=written, product=out.dtype)
    return out
