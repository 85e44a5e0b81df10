"""Shared parts of encoders with a masked-language-model head."""

from __future__ import annotations

from roofcast.simulator.models.families.transformer import activate
from roofcast.simulator.work.ops import linear, loss, norm
from roofcast.simulator.work.tape import Tape, Value


def head(t: Tape, x: Value, width: int, act: str, *, name: str = "predictions") -> Value:
    """linear to `width`, activation, norm: what the product with the vocabulary reads."""
    with t.scope(name):
        with t.op("dense", "linear"):
            x = linear.linear(t, x, width)
        with t.op("act", act):
            x = activate(t, act, x)
        with t.op("LayerNorm", "layer_norm"):
            return norm.layer_norm(t, x)


def masked_loss(
    t: Tape,
    x: Value,
    vocabulary: int,
    table: Value | None,
    *,
    bias: bool = True,
    upcast: bool = False,
) -> Value:
    """The product of x [batch, tokens, width] with the vocabulary and the cross-entropy over all
    tokens; in inference the logits. `table`: the tied embedding table.
    """
    with t.op("predictions.decoder", "linear"):
        logits = linear.linear(t, x, vocabulary, bias=bias, weight=table, parallel=True)
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        labels = t.input(x.shape[:2], "int64")
        return loss.cross_entropy(t, logits, labels, upcast=upcast)
