"""Heads of a decoder other than the language model's: classes of a sequence or of its tokens, and
the span of an answer, as transformers' generic classes compute them.
"""

from __future__ import annotations

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.work.ops import linear, loss, moe, pointwise
from roofcast.simulator.work.tape import Tape, Value

DROPPED = 0.1  # dropout of a token classifier where the config.json gives none


class Head(NamedTuple):
    """A head in the place of the language model's."""

    task: str  # sequence | tokens | answer | none
    labels: int = 2
    dropout: float = DROPPED


def headed(t: Tape, hidden: Value, head: Head) -> Value:
    """The head on hidden [B, S, W] and, in training, its cross-entropy."""
    t.headed = True
    batch, sequence, width = hidden.shape
    if head.task == "none":
        return hidden
    if head.task == "answer":
        with t.op("qa_outputs", "linear"):
            ends = linear.linear(t, hidden, 2, parallel=False, narrow=False)
        if not t.training:
            return ends
        with t.op("loss", "cross_entropy"):
            for _ in range(2):
                last = loss.cross_entropy(
                    t, t.view(ends, batch, sequence), t.input((batch,), "int64")
                )
        return last
    tokens = head.task == "tokens"
    with t.op("score", "linear"):
        if tokens:
            hidden = pointwise.dropout(t, hidden, head.dropout)
        logits = linear.linear(t, hidden, head.labels, bias=tokens, parallel=False, narrow=False)
        if not tokens:  # of the last token that is no padding
            row = t.new((batch,), "int64")
            logits = moe.take(t, logits, row, batch, head.labels)
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        shape = (batch, sequence) if tokens else (batch,)
        return loss.cross_entropy(t, logits, t.input(shape, "int64"))
