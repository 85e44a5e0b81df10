"""Heads of encoders other than the masked language model's, as transformers' classes have them.

sequence   first token -> a linear layer and its activation -> classifier
tokens     dropout -> classifier of every token
answer     two scores of every token: where an answer starts and where it ends
none       the encoder alone, with the pooling layer that its class has
"""

from __future__ import annotations

from typing import NamedTuple

from roofcast.simulator.models.families.heads import Head
from roofcast.simulator.models.families.transformer import activate
from roofcast.simulator.work.ops import linear, loss, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Style(NamedTuple):
    """What distinguishes the heads of a family."""

    act: str = "tanh"  # of the layer that reads the first token
    before: bool = False  # a dropout before that layer, too
    pooler: bool = True  # the class without a head has such a layer
    drop: float = 0.1  # dropout before the classifier of a sequence
    token_drop: float | None = None  # of tokens; None: the same
    answer_drop: float = 0.0  # before the scores of an answer
    first_drop: float | None = None  # before the layer; None: drop


def headed(t: Tape, x: Value, style: Style) -> Value | None:
    """The head that the class of a config.json has, on x [batch, tokens, width], with its loss in
    training; None where the class has the head that the family is counted with.
    """
    head = t.head
    if not isinstance(head, Head):
        return None
    t.headed = True
    if head.task == "none":
        return _pooled(t, x, style, 0.0) if style.pooler else x
    if head.task == "answer":
        return _answer(t, x, style)
    if head.task == "tokens":
        p = style.drop if style.token_drop is None else style.token_drop
        with t.op("dropout", "dropout"):
            x = pointwise.dropout(t, x, p)
        return classified(t, x, head.labels, x.shape[:2])
    first = style.drop if style.first_drop is None else style.first_drop
    x = _pooled(t, x, style, first if style.before else 0.0)
    with t.op("dropout", "dropout"):
        x = pointwise.dropout(t, x, style.drop)
    return classified(t, x, head.labels, x.shape[:1])


def scored(t: Tape, x: Value, head: Head, drop: float) -> Value:
    """The scores of a head, and their loss in training, of x that the head's own layer made:
    [batch, width] for a sequence, else [batch, tokens, width].
    """
    t.headed = True
    if head.task == "answer":
        return _answer(t, x, Style(answer_drop=drop))
    with t.op("dropout", "dropout"):
        x = pointwise.dropout(t, x, drop)
    return classified(t, x, head.labels, x.shape[:-1])


def _pooled(t: Tape, x: Value, style: Style, drop: float) -> Value:
    """The first token [batch, width] of x, through a linear layer and its activation."""
    batch, _, width = x.shape
    with t.op("pooler.dense", "linear"):
        x = pointwise.dropout(t, pointwise.part(t, x, batch, width), drop)
        x = linear.linear(t, x, width, parallel=False)
    with t.op("pooler.activation", style.act):
        return activate(t, style.act, x)


def classified(t: Tape, x: Value, labels: int, shape: tuple[int, ...]) -> Value:
    """Scores of every label and, in training, their loss; of one label, the square error."""
    with t.op("classifier", "linear"):
        logits = linear.linear(t, x, labels, parallel=False, narrow=False)
    if not t.training:
        return logits
    if labels == 1 and len(shape) == 1:
        with t.op("loss", "mse"):
            return loss.pairwise(t, "mse", logits, t.input(logits.shape))
    with t.op("loss", "cross_entropy"):
        return loss.cross_entropy(t, logits, t.input(shape, "int64"))


def _answer(t: Tape, x: Value, style: Style) -> Value:
    """Scores of start and end of every token and, in training, their losses."""
    batch, length, _ = x.shape
    with t.op("qa_outputs", "linear"):
        x = pointwise.dropout(t, x, style.answer_drop)
        ends = linear.linear(t, x, 2, parallel=False, narrow=False)
        parts = [pointwise.copy(t, pointwise.part(t, ends, batch, length)) for _ in range(2)]
    if not t.training:
        return ends
    with t.op("loss", "cross_entropy"):
        for part in parts:
            labels = t.new((batch,), "int64")  # clamped to the length
            t.emit("elementwise", (t.input((batch,), "int64"),), (labels,), vector=batch)
            last = loss.cross_entropy(t, part, labels)
    return last
