"""Jasper [li2019] and QuartzNet [kriman2019]: convolutions over time with residuals, CTC loss.

Sequences of a batch are padded to one length; each convolution first sets the padding to zero.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.vision.parts import (
    activation,
    batch_norm,
    convolve,
    dropped,
    residual,
)
from roofcast.simulator.work.ops import ctc, pointwise
from roofcast.simulator.work.tape import Tape, Value

BANDS = 64  # of the mel spectrogram


class Block(NamedTuple):
    """`repeat` convolutions of one width [channels] and kernel [frames], with dropout probability.

    `skips`: a residual from the block's own input (QuartzNet) or from all earlier ones (Jasper).
    """

    width: int
    kernel: int
    dropout: float
    repeat: int = 5
    stride: int = 1
    dilation: int = 1
    skips: bool = True


WIDE = ((256, 11, 0.2), (384, 13, 0.2), (512, 17, 0.2), (640, 21, 0.3), (768, 25, 0.3))
JASPER = (  # 10x5 with dense residuals [li2019, Table 1]
    Block(256, 11, 0.2, repeat=1, stride=2, skips=False),
    *(Block(*block) for block in WIDE for _ in range(2)),
    Block(896, 29, 0.4, repeat=1, dilation=2, skips=False),
    Block(1024, 1, 0.4, repeat=1, skips=False),
)
LONG = ((256, 33), (256, 39), (512, 51), (512, 63), (512, 75))
QUARTZNET = (  # 15x5 [kriman2019, Table 1]
    Block(256, 33, 0.0, repeat=1, stride=2, skips=False),
    *(Block(*block, 0.0) for block in LONG for _ in range(3)),
    Block(512, 87, 0.0, repeat=1, dilation=2, skips=False),
    Block(1024, 1, 0.0, repeat=1, skips=False),
)
NETS = {"jasper": JASPER, "quartznet": QUARTZNET}


def build(
    t: Tape, batch: int, size: int, *, net: str, letters: int = 29, spoken: float = 0.15
) -> Value:
    """`size` is the number of frames, of 10 ms each; `spoken` the number of letters per frame."""
    if size < 2:
        raise BadInput(
            f"encoder.0 takes [{batch}, {BANDS}, frames], but the input is"
            f" [{batch}, {BANDS}, {size}]: at least 2 frames are needed"
        )
    outputs = [t.input((batch, BANDS, size))]
    dense, separable = net == "jasper", net == "quartznet"
    for index, block in enumerate(NETS[net]):
        with t.scope(f"encoder.{index}"):
            out = through(t, block, outputs, dense, separable)
        outputs = [*outputs, out] if dense and block.skips else [out]
    logits = convolve(t, "decoder", outputs[-1], letters, 1, dims=1)
    with t.op("transpose", "copy"):
        logits = t.view(logits, batch, logits.shape[2], letters)
    if not t.training:
        return logits
    with t.op("loss", "ctc"):
        return ctc.ctc(t, logits, max(1, int(spoken * size)))


def through(t: Tape, block: Block, outputs: list[Value], dense: bool, separable: bool) -> Value:
    """One block on the last value of `outputs`; residuals are added before its last activation.

    `dense`: residuals come from all values of `outputs`, not only from the last.
    """
    x = outputs[-1]
    for index in range(block.repeat):
        stride, dilation = (block.stride, block.dilation) if index == 0 else (1, 1)
        apart = separable and block.kernel > 1
        x = unit(t, f"conv.{index}", x, block.width, block.kernel, stride, dilation, apart)
        if index < block.repeat - 1:
            x = ended(t, f"conv.{index}", x, block.dropout)
    if block.skips:
        for index, given in enumerate(outputs if dense else outputs[-1:]):
            x = residual(t, x, unit(t, f"res.{index}", given, block.width, 1), f"res.{index}.add")
    return ended(t, "out", x, block.dropout)


def unit(
    t: Tape,
    name: str,
    x: Value,
    width: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    separable: bool = False,
) -> Value:
    """Mask, convolution without bias, batch norm.

    `separable`: a depthwise convolution followed by a pointwise one, each behind a mask.
    """
    over_time = partial(
        convolve, t, stride=stride, dilation=dilation, padding=kernel // 2 * dilation, dims=1
    )
    if separable:
        depth, point, channels = f"{name}.depthwise", f"{name}.pointwise", x.shape[1]
        x = masked(t, depth, x)
        x = over_time(depth, x, channels, kernel, groups=channels, bias=False)
        x = convolve(t, point, masked(t, point, x), width, 1, dims=1, bias=False)
    else:
        x = over_time(name, masked(t, name, x), width, kernel, bias=False)
    return batch_norm(t, f"{name}.norm", x)


def masked(t: Tape, name: str, x: Value) -> Value:
    """x [batch, channels, time] with the padding behind each sample set to zero."""
    with t.op(f"{name}.mask", "mask"):
        chosen = t.new((x.shape[0], 1, x.shape[2]), "bool")
        t.emit("elementwise", (), (chosen,), vector=chosen.size)
        return pointwise.where(t, x, chosen)


def ended(t: Tape, name: str, x: Value, dropout: float) -> Value:
    """relu and dropout."""
    x = activation(t, f"{name}.act", "relu", x, in_place=False)
    return dropped(t, f"{name}.dropout", x, dropout)
