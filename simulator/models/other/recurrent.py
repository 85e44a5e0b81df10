"""Recurrent classifiers of token sequences: embedding, LSTM, GRU or RNN, a linear layer."""

from __future__ import annotations

from roofcast.simulator.models.vision.parts import classify
from roofcast.simulator.work.ops import embedding
from roofcast.simulator.work.ops.recurrent import recurrent
from roofcast.simulator.work.tape import Tape, Value


def build(
    t: Tape,
    batch: int,
    size: int,
    *,
    vocabulary: int,
    width: int,
    hidden: int,
    classes: int,
    cell: str = "lstm",
    layers: int = 1,
    both_ways: bool = True,
) -> Value:
    """Sequences of `size` tokens; the classifier takes the last state of both directions."""
    ids = t.input((batch, size), "int64")
    with t.op("e", "embedding"):
        x = embedding.embedding(t, ids, vocabulary, width)
    with t.op("l", cell):
        _, last = recurrent(t, x, hidden, cell=cell, layers=layers, both_ways=both_ways)
    return classify(t, last, classes)
