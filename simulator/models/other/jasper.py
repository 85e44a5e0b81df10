"""Jasper [li2019] and QuartzNet [kriman2019]: convolutions over time, batch norms, residuals,
letters by CTC.

Sequences of a batch are padded to one length; each convolution first sets the padding to zero.
"""

from __future__ import annotations

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
    """`repeat` convolutions of one width and kernel; residuals from its own input, or from those of
    all blocks before.
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


def build(t: Tape, batch: int, size: int, *, net: str, letters: int = 29, spoken: float = 0.15):
    """`size` frames of 10 ms; `spoken` letters a frame."""
    if size < 2:
        raise BadInput(
            f"encoder.0 takes [{batch}, {BANDS}, frames], but [{batch}, {BANDS}, {size}] arrives:"
            " at least 2 frames are wanted"
        )
    seen = [t.input((batch, BANDS, size))]
    dense, apart = net == "jasper", net == "quartznet"
    for index, block in enumerate(NETS[net]):
        with t.scope(f"encoder.{index}"):
            out = through(t, block, seen, dense, apart)
        seen = [*seen, out] if dense and block.skips else [out]
    logits = convolve(t, "decoder", seen[-1], letters, 1, dims=1)
    with t.op("transpose", "copy"):
        logits = t.view(logits, batch, logits.shape[2], letters)
    if not t.training:
        return logits
    with t.op("loss", "ctc"):
        return ctc.ctc(t, logits, max(1, int(spoken * size)))


def through(t: Tape, block: Block, seen: list[Value], dense: bool, apart: bool) -> Value:
    """The last of `seen` through a block; what it or all of them have to add comes in before the
    last activation.
    """
    x = seen[-1]
    for index in range(block.repeat):
        stride, dilation = (
            (block.stride, block.dilation) if index == 0 or block.repeat == 1 else (1, 1)
        )
        x = unit(
            t,
            f"conv.{index}",
            x,
            block.width,
            block.kernel,
            stride,
            dilation,
            apart and block.kernel > 1,
        )
        if index < block.repeat - 1:
            x = ended(t, f"conv.{index}", x, block.dropout)
    if block.skips:
        for index, given in enumerate(seen if dense else seen[-1:]):
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
    apart: bool = False,
) -> Value:
    """Mask, convolution without bias, batch norm; `apart`: a depthwise convolution and one across
    channels.
    """
    how = {
        "stride": stride,
        "dilation": dilation,
        "padding": kernel // 2 * dilation,
        "dims": 1,
        "bias": False,
    }
    if apart:
        x = convolve(
            t,
            f"{name}.depthwise",
            masked(t, f"{name}.depthwise", x),
            x.shape[1],
            kernel,
            groups=x.shape[1],
            **how,
        )
        x = convolve(
            t, f"{name}.pointwise", masked(t, f"{name}.pointwise", x), width, 1, dims=1, bias=False
        )
    else:
        x = convolve(t, name, masked(t, name, x), width, kernel, **how)
    return batch_norm(t, f"{name}.norm", x)


def masked(t: Tape, name: str, x: Value) -> Value:
    """x[batch, channels, time] with what lies behind the end of a sample set to zero."""
    with t.op(f"{name}.mask", "mask"):
        chosen = t.new((x.shape[0], 1, x.shape[2]), "bool")
        t.emit("elementwise", (), (chosen,), vector=chosen.size)
        return pointwise.where(t, x, chosen)


def ended(t: Tape, name: str, x: Value, dropout: float) -> Value:
    """ReLU and dropout, which end a block."""
    return dropped(
        t, f"{name}.dropout", activation(t, f"{name}.act", "relu", x, in_place=False), dropout
    )
