"""Shared parts of vision nets: convolution with norm and activation, classifier, SE block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.work.ops import conv, linear, loss, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

Size = int | tuple[int, ...]  # one number for all spatial dimensions, or one per dimension
Output = Value | Sequence[Value]  # a loss, or what a net with several outputs predicts


def images(t: Tape, batch: int, size: int, channels: int = 3) -> Value:
    """A batch of square images [batch, channels, size, size]."""
    return t.input((batch, channels, size, size))


@contextmanager
def layer(t: Tape, name: str, kind: str, x: Value, kernel: Size) -> Iterator[None]:
    """An op with a window. If x is smaller than the window, the error names the layer."""
    with t.op(name, kind):
        try:
            yield
        except BadInput:
            size = "x".join(str(k) for k in conv.spread(kernel, len(x.shape) - 2))
            raise BadInput(
                f"{t.nodes[-1].name} has windows of {size}, but its input is {list(x.shape)}: use"
                " larger images"
            ) from None


def convolve(
    t: Tape, name: str, x: Value, channels: int, kernel: Size, *, same: bool = False, **how: Any
) -> Value:
    """A named convolution. `same` pads as TensorFlow does, to ceil(n / stride) positions.

    `how` are further arguments of ops.conv.conv.
    """
    with layer(t, name, "conv", x, kernel):
        if same:
            x, how["padding"] = padded_same(t, x, kernel, how.get("stride", 1))
        return conv.conv(t, x, channels, kernel, **how)


def padded_same(t: Tape, x: Value, kernel: Size, stride: Size) -> tuple[Value, int | tuple]:
    """x and the padding of TensorFlow's SAME.

    The convolution pads if the padding is symmetric for every size; otherwise x is copied with the
    zeros, even where there are none to add, as in timm.
    """
    space = x.shape[2:]
    kernel, stride = conv.spread(kernel, len(space)), conv.spread(stride, len(space))
    if all(s == 1 for s in stride) and all(k % 2 for k in kernel):
        return x, tuple((k - 1) // 2 for k in kernel)
    extra = [conv.same_padding(*a) for a in zip(space, kernel, stride, strict=True)]
    padded = (n + e for n, e in zip(space, extra, strict=True))
    return pointwise.copy(t, x, *x.shape[:2], *padded), 0


def batch_norm(t: Tape, name: str, x: Value) -> Value:
    """BatchNorm of x [batch, channels, ...], as an op called `name`."""
    with t.op(name, "batch_norm"):
        return norm.batch_norm(t, x)


def layer_norm(t: Tape, name: str, x: Value) -> Value:
    """LayerNorm over the last dimension of x, as an op called `name`."""
    with t.op(name, "layer_norm"):
        return norm.layer_norm(t, x)


def activation(t: Tape, name: str, fn: str | None, x: Value, *, in_place: bool = True) -> Value:
    """The elementwise function `fn` of x, as an op called `name`; x itself if `fn` is None."""
    if fn is None:
        return x
    with t.op(name, fn):
        return pointwise.unary(t, fn, x, in_place=in_place)


def dropped(t: Tape, name: str, x: Value, p: float) -> Value:
    """Dropout with probability p, as an op called `name`."""
    with t.op(name, "dropout"):
        return pointwise.dropout(t, x, p)


def dense(t: Tape, name: str, x: Value, features: int, **how: Any) -> Value:
    """A linear layer to `features`; `how` are further arguments of ops.linear.linear."""
    with t.op(name, "linear"):
        return linear.linear(t, x, features, **how)


def residual(t: Tape, x: Value, shortcut: Value, name: str = "add") -> Value:
    """x plus the shortcut, as an op called `name`."""
    with t.op(name, "add"):
        return pointwise.add(t, x, shortcut)


def max_pool(t: Tape, name: str, x: Value, kernel: Size, **how: Any) -> Value:
    """Max-pooling of x [batch, channels, ...]; `how` are further arguments of ops.conv.pool."""
    with layer(t, name, "max_pool", x, kernel):
        return conv.pool(t, x, "max", kernel, **how)


def avg_pool(t: Tape, name: str, x: Value, kernel: Size, **how: Any) -> Value:
    """Mean-pooling of x [batch, channels, ...]; `how` are further arguments of ops.conv.pool."""
    with layer(t, name, "avg_pool", x, kernel):
        return conv.pool(t, x, "avg", kernel, **how)


def conv_norm(
    t: Tape,
    x: Value,
    channels: int,
    kernel: Size,
    *,
    names: Sequence[str],
    act: str | None = "relu",
    **how: Any,
) -> Value:
    """Convolution without bias, batch norm, activation in place; `names` are those of the ops."""
    x = convolve(t, names[0], x, channels, kernel, bias=False, **how)
    x = batch_norm(t, names[1], x)
    return activation(t, names[2] if len(names) > 2 else "act", act, x)


def squeeze_excite(
    t: Tape,
    x: Value,
    squeezed: int,
    act: str = "relu",
    gate: str = "sigmoid",
    *,
    names: Sequence[str] = ("fc1", "act", "fc2", "gate"),
) -> Value:
    """Squeeze-and-excitation [hu2017]: channels scaled by a gate computed from their means.

    Two 1x1 convolutions, the first to `squeezed` channels, compute the gate.
    """
    with t.scope("se"):
        with t.op("mean", "avg_pool"):
            s = conv.adaptive_pool(t, x, "avg", 1)
        s = activation(t, names[1], act, convolve(t, names[0], s, squeezed, 1))
        s = activation(t, names[3], gate, convolve(t, names[2], s, x.shape[1], 1), in_place=False)
        with t.op("scale", "mul"):
            return pointwise.mul(t, x, s)


def flatten(t: Tape, x: Value, wanted: int | None = None, layer: str = "") -> Value:
    """x [B, ...] viewed as [B, features].

    Raises BadInput if the following `layer` needs another number of features, `wanted`.
    """
    features = x.size // x.shape[0]
    if wanted is not None and features != wanted:
        raise BadInput(
            f"{layer} takes [{x.shape[0]}, {wanted}], but its input is {list(x.shape)} ({features}"
            " features): change the size of the image"
        )
    return t.view(x, x.shape[0], features)


def global_average(t: Tape, x: Value, name: str = "global_pool") -> Value:
    """Mean over all positions: [B, C, H, W] -> [B, C]."""
    with t.op(name, "avg_pool"):
        return t.view(conv.adaptive_pool(t, x, "avg", 1), *x.shape[:2])


def classify(t: Tape, x: Value, classes: int, *, name: str = "fc", dropout: float = 0.0) -> Value:
    """The last linear layer on [B, features] and the loss; in inference the logits."""
    with t.op(name, "linear"):
        logits = linear.linear(t, pointwise.dropout(t, x, dropout), classes)
    return cross_entropy(t, logits)


def cross_entropy(t: Tape, logits: Value) -> Value:
    """The cross-entropy of logits [..., classes]; in inference the logits themselves."""
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        return loss.cross_entropy(t, logits, t.input(logits.shape[:-1], "int64"))


def pairwise_loss(t: Tape, kind: str, x: Value) -> Value:
    """An elementwise loss (ops.loss.pairwise) against a target like x; in inference x."""
    if not t.training:
        return x
    with t.op("loss", kind):
        return loss.pairwise(t, kind, x, t.input(x.shape))


def numbered(first: int, count: int) -> str:
    """The name of `count` consecutive blocks: '1', or '1-5'.

    >>> numbered(1, 5)
    '1-5'
    """
    return str(first) if count == 1 else f"{first}-{first + count - 1}"
