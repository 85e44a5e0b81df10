"""Products of prompts as llama.cpp has a library compute them: in fp16, of weights and activations
that are converted first.

ggml-cuda.cu (b2824), ggml_cuda_op_mul_mat_cublas: weights of fewer bits are written out in fp16,
the fp32 activations are copied to fp16, cublasGemmEx adds up in fp16 (CUBLAS_COMPUTE_16F), and its
fp16 result is copied to fp32. Each is a kernel of its own.
"""

from __future__ import annotations

import numpy as np

from roofcast.hwdb.constants import Kernels
from roofcast.hwdb.records import Device
from roofcast.simulator.times.rates import HALF, Rates

FP16, FP32 = 2.0, 4.0  # bytes of an element


def in_half(rates: Rates, c: Kernels) -> Rates:
    """Rates of products that add up in fp16: those that the matrix units were built for, on boards
    that hold them at half rate where they add up in fp32. What such boards reach beyond their peak
    is their clock.
    """
    if rates.fed == 1.0:
        return rates
    share, whole = c.matmul.sustained * max(rates.sustained, 1.0), rates.fed * rates.matrix
    return rates._replace(matrix=whole, sustained=share, feed=share * whole, fed=1.0)


def copies(
    m: np.ndarray, n: np.ndarray, k: np.ndarray, stored: np.ndarray, held: float
) -> np.ndarray:
    """Bytes of memory that the conversions around a product [m, k] x [k, n] read and write; stored:
    bytes of a weight; held: bytes of the last-level cache, where what a kernel wrote is found by
    the next one.
    """
    unpacked = np.where(stored < FP16, stored * k * n + _beyond(FP16 * k * n, held), 0.0)
    around = [_beyond(FP32 * m * size, held) + _beyond(FP16 * m * size, held) for size in (k, n)]
    return np.asarray(unpacked + around[0] + around[1])


def kept(device: Device) -> float:
    """Bytes that the last-level cache holds of what was just written: half of it."""
    cache = device.cache.get("l2")
    return HALF * float(cache.capacity or 0.0) if cache else 0.0


def _beyond(bytes_: np.ndarray, held: float) -> np.ndarray:
    """Of bytes written and read, those that do not stay in the cache."""
    return np.where(bytes_ > held, bytes_, 0.0)
