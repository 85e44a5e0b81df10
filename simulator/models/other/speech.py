"""Deep Speech 2: two convolutions over the spectrogram, recurrent layers both ways, letters by CTC
[amodei2015].
"""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.vision.parts import activation, batch_norm, convolve, dense
from roofcast.simulator.work.ops import ctc
from roofcast.simulator.work.ops.recurrent import recurrent
from roofcast.simulator.work.tape import Tape

BANDS = 161  # of the spectrogram: 20 ms windows at 16 kHz


def build(
    t: Tape,
    batch: int,
    size: int,
    *,
    hidden: int = 800,
    layers: int = 5,
    cell: str = "gru",
    letters: int = 29,
    spoken: float = 0.15,
):
    """`size` frames of 10 ms; `spoken` letters a frame."""
    if size < 2:
        raise BadInput(
            f"conv.0 takes [{batch}, 1, {BANDS}, frames], but [{batch}, 1, {BANDS}, {size}]"
            " arrives: at least 2 frames are wanted"
        )
    x = t.input((batch, 1, BANDS, size))
    with t.scope("conv"):
        for index, (kernel, stride, padding) in enumerate(
            (((41, 11), (2, 2), (20, 5)), ((21, 11), (2, 1), (10, 5)))
        ):
            x = convolve(
                t, str(3 * index), x, 32, kernel, stride=stride, padding=padding, bias=False
            )
            x = activation(t, str(3 * index + 2), "relu6", batch_norm(t, str(3 * index + 1), x))
    _, channels, bands, frames = x.shape
    with t.op("rnns", cell):
        x, _ = recurrent(
            t,
            t.view(x, batch, frames, channels * bands),
            hidden,
            cell=cell,
            layers=layers,
            both_ways=True,
        )
    logits = dense(t, "fc", x, letters, bias=False)
    if not t.training:
        return logits
    with t.op("loss", "ctc"):
        return ctc.ctc(t, logits, max(1, int(spoken * size)))
