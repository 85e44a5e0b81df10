"""Recurrent classifiers of token sequences: embedding, LSTM or GRU, a dense layer on the last
states.
"""

from __future__ import annotations

from roofcast.simulator.models.vision.parts import classify
from roofcast.simulator.work.ops import embedding
from roofcast.simulator.work.ops.recurrent import recurrent
from roofcast.simulator.work.tape import Tape


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
):
    """Embedding, recurrent layers over batch x size tokens, a classifier on the last state."""
    ids = t.input((batch, size), "int64")
    with t.op("e", "embedding"):
        x = embedding.embedding(t, ids, vocabulary, width)
    with t.op("l", cell):
        _, last = recurrent(t, x, hidden, cell=cell, layers=layers, both_ways=both_ways)
    return classify(t, last, classes)
