"""Deep Speech 2: convolutions over the spectrogram, bidirectional GRUs, CTC loss [amodei2015]."""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.vision.parts import activation, batch_norm, convolve, dense
from roofcast.simulator.work.ops import ctc
from roofcast.simulator.work.ops.recurrent import recurrent
from roofcast.simulator.work.tape import Tape, Value

BANDS = 161  # frequencies of the spectrogram: windows of 20 ms at 16 kHz


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
) -> Value:
    """`size` is the number of frames, of 10 ms each; `spoken` the number of letters per frame."""
    if size < 2:
        raise BadInput(
            f"conv.0 takes [{batch}, 1, {BANDS}, frames], but the input is"
            f" [{batch}, 1, {BANDS}, {size}]: at least 2 frames are needed"
        )
    x = t.input((batch, 1, BANDS, size))
    with t.scope("conv"):
        convolutions = (((41, 11), (2, 2), (20, 5)), ((21, 11), (2, 1), (10, 5)))
        for index, (kernel, stride, padding) in enumerate(convolutions):
            first = 3 * index
            x = convolve(t, str(first), x, 32, kernel, stride=stride, padding=padding, bias=False)
            x = activation(t, str(first + 2), "relu6", batch_norm(t, str(first + 1), x))
    _, channels, bands, frames = x.shape
    with t.op("rnns", cell):
        x = t.view(x, batch, frames, channels * bands)
        x, _ = recurrent(t, x, hidden, cell=cell, layers=layers, both_ways=True)
    logits = dense(t, "fc", x, letters, bias=False)
    if not t.training:
        return logits
    with t.op("loss", "ctc"):
        return ctc.ctc(t, logits, max(1, int(spoken * size)))
