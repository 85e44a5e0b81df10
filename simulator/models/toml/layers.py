"""A net as a plain TOML list of layers. Shapes are inferred; errors name the layer and the remedy.

name = "tiny"
input = [3, 32, 32]   # channels, height, width; or [784] features; or tokens with vocabulary

[[layers]]
kind = "conv"
channels = 64
kernel = 3

[[layers]]
kind = "flatten"

[[layers]]
kind = "linear"
out = 10
"""

from __future__ import annotations

from pathlib import Path

from roofcast.hwdb.errors import BadInput, quoted
from roofcast.simulator.models.toml.keys import Net
from roofcast.simulator.models.toml.parse import Layer, parsed
from roofcast.simulator.models.toml.run import Flow, run
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.ops import loss
from roofcast.simulator.work.tape import Tape, Value

PAIRWISE = ("mse", "l1", "smooth_l1", "bce", "bce_with_logits")


def read(path: Path) -> Model:
    """The net in a TOML file. Keys and types are checked here, shapes when the net runs.

    Raises BadInput, here and from the program, with file, layer, what is wrong and a remedy.
    """
    path = Path(path)
    net, layers = parsed(path)
    takes, default_size = _input_kind(net, path)

    def program(t: Tape, batch: int, size: int | None) -> Value:
        flow = run(t, _input(t, net, path, batch, size), layers)
        return _loss(t, net, flow, layers[-1], path) if t.training else flow.value

    return Model(net.name or path.stem, "layers", takes, default_size, program, net, str(path))


def _input_kind(net: Net, path: Path) -> tuple[str, int | None]:
    """What the net takes (image, sequence or table), and its default size."""
    if (net.input is None) == (net.tokens is None):
        raise BadInput(
            f"{path}: give either input = [channels, height, width], input = [features] or tokens ="
            " length"
        )
    if net.input is None:
        if (net.vocabulary is None) == (net.features is None):
            raise BadInput(
                f"{path}: tokens = {net.tokens} needs either vocabulary (number of token ids) or"
                " features (numbers per token)"
            )
        return "sequence", net.tokens
    for key in ("vocabulary", "features"):
        if getattr(net, key) is not None:
            raise BadInput(f"{path}: {key} goes with tokens, not with input")
    if not 1 <= len(net.input) <= 4:
        raise BadInput(
            f"{path}: input is {quoted(net.input)}; wanted [features], or channels and one to three"
            " lengths"
        )
    if len(net.input) == 1:
        return "table", None
    square = len(net.input) == 3 and net.input[1] == net.input[2]
    return "image", net.input[1] if square else None


def _input(t: Tape, net: Net, path: Path, batch: int, size: int | None) -> Flow:
    """The input of the net; `size` replaces height and width, or the length of the sequence."""
    if net.input is None:
        length = net.tokens if size is None else size
        assert length is not None, "read() has checked that there is an input or tokens"
        if net.vocabulary is not None:
            return Flow(t.input((batch, length), "int64"), "ids", vocabulary=net.vocabulary)
        assert net.features is not None, "read() has checked that vocabulary or features is given"
        return Flow(t.input((batch, length, net.features)), "tokens")
    shape = list(net.input)
    if size is not None:
        if len(shape) != 3:
            raise BadInput(
                f"{path}: input = {shape} has no height and width, so the size {size} does not"
                " apply; leave the size out, or change the file"
            )
        shape[1:] = [size, size]
    return Flow(t.input((batch, *shape)), "features" if len(shape) == 1 else "space")


def _loss(t: Tape, net: Net, flow: Flow, last: Layer, path: Path) -> Value:
    """The loss that the file names, or the usual one for the last layer.

    A linear layer of several outputs or a softmax is a classifier (cross-entropy), a sigmoid a
    binary classifier (bce), anything else a regression with a target of the same shape (mse).
    """
    x = flow.value
    kind = net.loss or _usual_loss(_last_kind(last), x.shape[-1])
    if kind == "none":
        return x
    if flow.form == "ids":
        raise BadInput(f"{path}: no layer reads the token ids; put an 'embedding' layer first")
    with t.op("loss", kind):
        if kind in PAIRWISE:
            return loss.pairwise(t, kind, x, t.input(x.shape))
        if flow.form == "space":  # one class per position: channels last, as rows
            x = t.view(x, x.shape[0], x.size // (x.shape[0] * x.shape[1]), x.shape[1])
        return loss.cross_entropy(t, x, t.input(x.shape[:-1], "int64"))


def _usual_loss(last: str, width: int) -> str:
    if last == "sigmoid":
        return "bce"
    return "cross_entropy" if last in ("linear", "softmax") and width > 1 else "mse"


def _last_kind(layer: Layer) -> str:
    """The kind of the last layer, also inside groups."""
    return _last_kind(layer.parts[0][-1]) if layer.kind == "group" else layer.kind
