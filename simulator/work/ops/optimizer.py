"""Optimizers: what they keep, and what one update reads and writes."""

from __future__ import annotations

from typing import NamedTuple

from roofcast.hwdb.errors import unknown


class Optimizer(NamedTuple):
    """Per weight: state bytes in the weight's own format (w each) and in fixed formats; FLOPs;
    tensors touched.

    `fused` and `foreach` are reads + writes of a weight-sized tensor an update makes: as one
    kernel, and as PyTorch's foreach implementation makes them, `kernels` of them for a group of
    tensors.
    """

    states: float  # weight-sized states in the format of the weight
    fixed: float  # further state bytes a weight, whatever its format
    fused: tuple[int, int]  # weight-sized tensors read, written
    foreach: tuple[int, int]
    kernels: int  # launches of the foreach form
    flops: float  # vector FLOPs a weight
    source: str


OPTIMIZERS = {
    "sgd": Optimizer(0, 0, (2, 1), (2, 1), 1, 2, "p -= lr g"),
    "momentum": Optimizer(1, 0, (3, 2), (5, 3), 3, 4, "v = mu v + g; p -= lr v"),
    "adam": Optimizer(2, 0, (4, 3), (11, 7), 7, 12, "kingma2014, Algorithm 1"),
    "adamw": Optimizer(2, 0, (4, 3), (12, 8), 8, 14, "loshchilov2017, Algorithm 2"),
    "lamb": Optimizer(
        2,
        0,
        (7, 4),
        (15, 10),
        10,
        18,
        "you2019, Algorithm 2: Adam's direction, and the norms of it and of the weight",
    ),
    "lion": Optimizer(1, 0, (3, 2), (8, 5), 5, 8, "chen2023, Program 1"),
    "adafactor": Optimizer(
        0,
        0.01,
        (4, 2),
        (10, 5),
        10,
        14,
        "shazeer2018: a row and a column a matrix, under 1 % of the weights",
    ),
    "adam8bit": Optimizer(
        0,
        2.03125,
        (2, 1),
        (2, 1),
        1,
        20,
        "dettmers2021: two states of one byte and a scale a block of 256",
    ),
}


def optimizer(name: str) -> Optimizer:
    """The optimizer of that name.

    >>> optimizer("adamw").states
    2
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS, f"known: {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name]


def state_bytes(o: Optimizer, weights, width):
    """Bytes of the states of `weights` weights of `width` bytes each. Broadcasts."""
    return weights * (o.states * width + o.fixed)


def update_traffic(o: Optimizer, weights, width, fused: bool):
    """Bytes read and bytes written by one update of `weights` weights of `width` bytes."""
    read, written = o.fused if fused else o.foreach
    return weights * (read * width + o.fixed), weights * (written * width + o.fixed)
