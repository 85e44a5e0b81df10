"""Arrays that start on a cache line, and the types of the kernels' arguments.

A wide load or store that crosses a line touches two; numpy's large arrays start 16 bytes into one.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

LINE = 64  # bytes

Array: TypeAlias = NDArray[np.float32]
Index: TypeAlias = NDArray[np.integer]


def aligned(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    """A contiguous array of zeros whose first element starts on a cache line.

    >>> aligned((3, 5)).shape, aligned((1000,)).ctypes.data % 64
    ((3, 5), 0)
    """
    width = np.dtype(dtype).itemsize
    raw: np.ndarray = np.zeros(math.prod(shape) + LINE // width, dtype)
    start = -raw.ctypes.data % LINE // width
    return raw[start : start + math.prod(shape)].reshape(shape)
