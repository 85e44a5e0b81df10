"""Arrays that begin on a cache line: one that does not costs a wide load or store two lines (numpy
begins its large ones 16 bytes in).
"""

from __future__ import annotations

import math

import numpy as np

LINE = 64  # bytes


def aligned(shape: tuple[int, ...], kind: type = np.float32) -> np.ndarray:
    """Zeros, contiguous, the first on a cache line.

    >>> aligned((3, 5)).shape, aligned((1000,)).ctypes.data % 64
    ((3, 5), 0)
    """
    width = np.dtype(kind).itemsize
    raw = np.zeros(math.prod(shape) + LINE // width, kind)
    start = -raw.ctypes.data % LINE // width
    return raw[start : start + math.prod(shape)].reshape(shape)
