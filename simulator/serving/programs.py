"""Kernels of an engine's software, where they are not those of a library."""

from __future__ import annotations

import numpy as np

from roofcast.hwdb.tuples import NamedTuple


class Software(NamedTuple):
    """Kernels of an engine's software."""

    gemv: float = 0.0  # bytes a clock and core of those that multiply a matrix by vectors; 0: as
    # fast as memory
    weights: float = 0.0  # weights a clock and core of the same; 0: bytes alone limit
    stream: float = 1.0  # their rate where memory limits, as a multiple of the formula's
    grouped: float = 1.0  # rate of the products of experts, as a fraction of that of plain ones
    fp4: float = 1.0  # share of the bandwidth of other formats that plain ones in fp4 reach
    half: bool = False  # products by a library in fp16, whose operands are converted
    int8: float = 0.0  # FLOP per FLOP of the vector units of its own int8 products; 0: a library's
    vector: str = ""  # what runs on vector units, in fp32: bf16 (products), all (attention, too)
    dots: float = 0.0  # of a CPU's int8 dot products that those of quantized weights reach; 0: a
    # library multiplies
    start: float = 0.0  # seconds to start a kernel on a CPU; 0: those of a fork and join
    converts: float = 0.0  # instructions to widen an element of a weight; 0: as a library does it
    gathers: bool = False  # ranks that share experts have the tokens of all, and choose their own
    aligned: int = 0  # rows to which products of experts in 8 bits pad those of each; 0: to a tile


LIBRARY = Software()  # kernels of a library, as they are


def few_rows(weights: np.ndarray, bytes_: np.ndarray, how: Software) -> np.ndarray:
    """Clocks of one core for the products of a matrix by few vectors, by kernels of the software:
    bytes in flight limit wide weights, instructions for each weight narrow ones.
    """
    clocks = bytes_ / how.gemv
    return np.maximum(clocks, weights / how.weights) if how.weights else clocks
