"""Optimizers: the states they keep, and the bytes that an update reads and writes."""

from __future__ import annotations

from roofcast.hwdb.errors import unknown
from roofcast.hwdb.tuples import NamedTuple


class Optimizer(NamedTuple):
    """Per weight: bytes of state, FLOPs, and weight-sized tensors that an update touches.

    `fused` counts them for an update in one kernel; `foreach` for PyTorch's foreach implementation,
    which launches `kernels` kernels per group of tensors.
    """

    states: float  # states in the format of the weight
    fixed: float  # further bytes of state per weight, whatever its format
    fused: tuple[int, int]  # weight-sized tensors read, written
    foreach: tuple[int, int]  # weight-sized tensors read, written
    kernels: int  # launches of the foreach implementation
    flops: float  # vector FLOPs per weight
    source: str
    paged: bool = False  # states lie in host memory and page in for the update


LAMB = "you2019, Algorithm 2: Adam's direction, and the norms of it and of the weight"
ADAFACTOR = "shazeer2018: a row and a column per matrix, under 1 % of the weights"
ADAM8BIT = "dettmers2021: two states of one byte and a scale per block of 256"
PAGED = "dettmers2023, section 3: the same states in unified memory, evicted to the host"
OPTIMIZERS = {
    "sgd": Optimizer(0, 0, (2, 1), (2, 1), 1, 2, "p -= lr g"),
    "momentum": Optimizer(1, 0, (3, 2), (5, 3), 3, 4, "v = mu v + g; p -= lr v"),
    "adam": Optimizer(2, 0, (4, 3), (11, 7), 7, 12, "kingma2014, Algorithm 1"),
    "adamw": Optimizer(2, 0, (4, 3), (12, 8), 8, 14, "loshchilov2017, Algorithm 2"),
    "lamb": Optimizer(2, 0, (7, 4), (15, 10), 10, 18, LAMB),
    "lion": Optimizer(1, 0, (3, 2), (8, 5), 5, 8, "chen2023, Program 1"),
    "adafactor": Optimizer(0, 0.01, (4, 2), (10, 5), 10, 14, ADAFACTOR),
    "adam8bit": Optimizer(0, 2.03125, (2, 1), (2, 1), 1, 20, ADAM8BIT),
    "adamw8bit": Optimizer(0, 2.03125, (2, 1), (2, 1), 1, 20, ADAM8BIT),
    "paged-adamw8bit": Optimizer(0, 2.03125, (2, 1), (2, 1), 1, 20, PAGED, paged=True),
}


def optimizer(name: str) -> Optimizer:
    """The optimizer called `name`. Raises UnknownName.

    >>> optimizer("adamw").states
    2
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS, f"known: {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name]


def state_bytes(o: Optimizer, weights: float, width: float) -> float:
    """Bytes of the states of `weights` weights of `width` bytes each."""
    return weights * (o.states * width + o.fixed)


def update_traffic(o: Optimizer, weights: float, width: float, fused: bool) -> tuple[float, float]:
    """Bytes read and bytes written by one update of `weights` weights of `width` bytes each."""
    read, written = o.fused if fused else o.foreach
    return weights * (read * width + o.fixed), weights * (written * width + o.fixed)
