"""What picture nets share: convolution with its norm and activation, the pooled classifier, squeeze
and excitation.
"""

from __future__ import annotations

from contextlib import contextmanager

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.work.ops import conv, linear, loss, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


def images(t: Tape, batch: int, size: int, channels: int = 3) -> Value:
    """A batch of square pictures."""
    return t.input((batch, channels, size, size))


@contextmanager
def layer(t: Tape, name: str, kind: str, x: Value, kernel):
    """A named op with a window; where the picture has become too small for it, the error says so
    with the layer's name.
    """
    with t.op(name, kind):
        try:
            yield
        except BadInput:
            size = "x".join(str(k) for k in conv.spread(kernel, len(x.shape) - 2))
            raise BadInput(
                f"{t.nodes[-1].name} takes windows of {size}, but {list(x.shape)} arrives: take"
                " larger pictures"
            ) from None


def convolve(
    t: Tape, name: str, x: Value, channels: int, kernel, *, same: bool = False, **how
) -> Value:
    """A named convolution. `same` pads as TensorFlow does: ceil(n / stride) positions come out."""
    with layer(t, name, "conv", x, kernel):
        if same:
            x, how["padding"] = padded_same(t, x, kernel, how.get("stride", 1))
        return conv.conv(t, x, channels, kernel, **how)


def padded_same(t: Tape, x: Value, kernel, stride) -> tuple[Value, int | tuple]:
    """What TensorFlow's SAME adds: inside the convolution where that is even for every size, else
    by a copy (of the whole picture even where nothing is to be added), as timm does.
    """
    space = x.shape[2:]
    kernel, stride = conv.spread(kernel, len(space)), conv.spread(stride, len(space))
    if all(s == 1 for s in stride) and all(k % 2 for k in kernel):
        return x, tuple((k - 1) // 2 for k in kernel)
    extra = [conv.same_padding(*a) for a in zip(space, kernel, stride, strict=True)]
    return (
        pointwise.copy(t, x, *x.shape[:2], *(n + e for n, e in zip(space, extra, strict=True))),
        0,
    )


def batch_norm(t: Tape, name: str, x: Value) -> Value:
    """BatchNorm of x[batch, channels, ..], as an op of that name."""
    with t.op(name, "batch_norm"):
        return norm.batch_norm(t, x)


def layer_norm(t: Tape, name: str, x: Value, **how) -> Value:
    """LayerNorm over the last axis of x, as an op of that name."""
    with t.op(name, "layer_norm"):
        return norm.layer_norm(t, x, **how)


def activation(t: Tape, name: str, fn: str | None, x: Value, *, in_place: bool = True) -> Value:
    """The pointwise function `fn` of x, as an op of that name; x itself where it is None."""
    if fn is None:
        return x
    with t.op(name, fn):
        return pointwise.unary(t, fn, x, in_place=in_place)


def dropped(t: Tape, name: str, x: Value, p: float) -> Value:
    """A named dropout."""
    with t.op(name, "dropout"):
        return pointwise.dropout(t, x, p)


def dense(t: Tape, name: str, x: Value, features: int, **how) -> Value:
    """A linear layer to so many features, as an op of that name."""
    with t.op(name, "linear"):
        return linear.linear(t, x, features, **how)


def residual(t: Tape, x: Value, shortcut: Value, name: str = "add") -> Value:
    """x plus the shortcut."""
    with t.op(name, "add"):
        return pointwise.add(t, x, shortcut)


def max_pool(t: Tape, name: str, x: Value, kernel, **how) -> Value:
    """Maximum over windows of x[batch, channels, ..space]."""
    with layer(t, name, "max_pool", x, kernel):
        return conv.pool(t, x, "max", kernel, **how)


def avg_pool(t: Tape, name: str, x: Value, kernel, **how) -> Value:
    """Mean over windows of x[batch, channels, ..space]."""
    with layer(t, name, "avg_pool", x, kernel):
        return conv.pool(t, x, "avg", kernel, **how)


def conv_norm(
    t: Tape, x: Value, channels: int, kernel, *, names, act: str | None = "relu", **how
) -> Value:
    """Convolution without bias, batch norm, activation in place; `names` of the three."""
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
    names=("fc1", "act", "fc2", "gate"),
    scope: str = "se",
) -> Value:
    """Each channel scaled by a gate that two 1x1 convolutions make of the channel means
    [hu2017].
    """
    with t.scope(scope):
        with t.op("mean", "avg_pool"):
            s = conv.adaptive_pool(t, x, "avg", 1)
        s = activation(t, names[1], act, convolve(t, names[0], s, squeezed, 1))
        s = activation(t, names[3], gate, convolve(t, names[2], s, x.shape[1], 1), in_place=False)
        with t.op("scale", "mul"):
            return pointwise.mul(t, x, s)


def flatten(t: Tape, x: Value, wanted: int | None = None, layer: str = "") -> Value:
    """[B, ...] seen as [B, features]; refused where the layer that follows wants another number of
    them.
    """
    features = x.size // x.shape[0]
    if wanted is not None and features != wanted:
        raise BadInput(
            f"{layer} takes [{x.shape[0]}, {wanted}], but {list(x.shape)} arrives ({features}"
            " features): change the size of the picture"
        )
    return t.view(x, x.shape[0], features)


def global_average(t: Tape, x: Value, name: str = "global_pool") -> Value:
    """Mean over the picture: [B, C, H, W] -> [B, C]."""
    with t.op(name, "avg_pool"):
        return t.view(conv.adaptive_pool(t, x, "avg", 1), *x.shape[:2])


def classify(t: Tape, x: Value, classes: int, *, name: str = "fc", dropout: float = 0.0) -> Value:
    """The last linear layer on [B, features], and in training the cross-entropy."""
    with t.op(name, "linear"):
        logits = linear.linear(t, pointwise.dropout(t, x, dropout), classes)
    return cross_entropy(t, logits)


def cross_entropy(t: Tape, logits: Value) -> Value:
    """The loss against labels; in inference the logits themselves."""
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        return loss.cross_entropy(t, logits, t.input(logits.shape[:-1], "int64"))


def pairwise_loss(t: Tape, kind: str, x: Value) -> Value:
    """Mean squared error or cross-entropy of probabilities against a target of the same shape; in
    inference x itself.
    """
    if not t.training:
        return x
    with t.op("loss", kind):
        return loss.pairwise(t, kind, x, t.input(x.shape))


def numbered(first: int, count: int) -> str:
    """The name of blocks in a row: '1', or '1-5'.

    >>> numbered(1, 5)
    '1-5'
    """
    return str(first) if count == 1 else f"{first}-{first + count - 1}"
