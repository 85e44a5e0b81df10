"""Seconds of fused (flash) attention, forward and backward."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.constants import Kernels
from roofcast.simulator.times.matmul import cpu_start
from roofcast.simulator.times.rates import Rates

BLOCK = 128.0  # query rows of one block
SHORT = 16.0  # up to so many query rows, as in decoding, the columns are split over all cores
# of the longest block: what the busiest of many cores has more than the mean, blocks taken in order
# of arrival
UNEVEN = 0.5
PADDED = 16.0  # head_dim is padded to the depth of one matrix instruction
NORM = 1.5  # p of compute and memory: a block's first load and last store stand alone


def attention(
    batch,
    heads,
    kv_heads,
    q_len,
    kv_len,
    head_dim,
    causal,
    width_bytes,
    rates: Rates,
    c: Kernels,
    backward=False,
    window=np.inf,
):
    """Seconds of softmax(Q K^T) V without storing the scores. Arguments broadcast; `backward` picks
    one of two kernels.

        bq    = min(128, q_len rounded up to a power of two, at least 16) ;  nq = ceil(q_len / bq)
        kv    = columns a block visits: all, half of the square if causal, no more than window + bq
        x     = batch heads nq / cores ;  more = (1 - 1 / max(x, 1)) / 2            blocks a core,
              and uneven ones
        score = bq max(x kv + more longest, longest)                                scores of the
                                                                                    busiest core;
                decoding, up to 16 rows, splits the columns instead
        tm    = 4 head_dim score / rate of a core ;  ts = special score / special rate of a core
        t     = start + (max(x, 1) + more) tile + ((tm^2 + ts^2)^(p/2) + (bytes / BW)^p)^(1/p) ;  p
              = 1.5

    List scheduling leaves the busiest core at most the longest block more than the mean
    [graham1969]; half of it here. `tile` is a block's prologue and epilogue: a window or a short
    sequence pays it for few columns. head_dim is padded to 16. Fitted to attention calls of A100,
    H100, L40S, B200 from 512 tokens on (kernels.toml). Backward: five products for two and the
    exponents once more, at `backward` of the forward's rate; it reads Q K V O dO, writes dQ dK dV
    and accumulates dQ in fp32.
    """
    sizes = (batch, heads, kv_heads, q_len, kv_len, head_dim)
    batch, heads, kv_heads, q_len, kv_len, head_dim = (np.asarray(v, dtype=float) for v in sizes)
    w = c.attention
    block = np.clip(2.0 ** np.ceil(np.log2(np.maximum(q_len, 1.0))), SHORT, BLOCK)
    blocks = np.ceil(q_len / block)
    mean = np.where(causal, np.maximum(kv_len - 0.5 * (blocks - 1.0) * block, 0.5 * kv_len), kv_len)
    reach = np.asarray(window, dtype=float) + block
    visited = np.minimum(mean, reach)
    rows = batch * q_len * heads * head_dim
    columns = batch * kv_len * kv_heads * head_dim
    if rates.kind == "gpu":
        x = batch * heads * blocks / rates.cores
        longest = np.where(block > SHORT, np.minimum(kv_len, reach), 0.0)
        more = UNEVEN * (1.0 - 1.0 / np.maximum(x, 1.0))
        scores = block * np.maximum(x * visited + more * longest, longest)  # of the busiest core
        loop = rates.attention * rates.matrix / rates.cores
        matrix = 4.0 * np.ceil(head_dim / PADDED) * PADDED * scores / loop
        special = w.special * scores / (rates.special / rates.cores)
        start = (w.start + (np.maximum(x, 1.0) + more) * w.tile) / rates.clock
    else:
        scores = batch * heads * blocks * block * visited
        matrix = 4.0 * head_dim * scores / (rates.attention * rates.matrix)
        special = w.special * scores / rates.special
        start = cpu_start(rates, c) if rates.kind == "cpu" else c.systolic.start
    compute = np.hypot(matrix, special)
    moved = width_bytes * (2.0 * rows + 2.0 * columns)
    if backward:
        compute = compute * (2.5 / w.backward)
        moved = width_bytes * (4.0 * rows + 4.0 * columns) + 8.0 * rows
    memory = moved / (rates.stream * rates.bandwidth)
    return start + (compute**NORM + memory**NORM) ** (1.0 / NORM)


def visible_columns(
    q_len: ArrayLike, kv_len: ArrayLike, causal: ArrayLike, window: ArrayLike = np.inf
) -> np.ndarray:
    """Mean columns of the score matrix that a mask leaves in a row.

    >>> float(visible_columns(4, 4, False)), float(visible_columns(4, 4, True))
    (4.0, 2.5)
    """
    q, kv = np.asarray(q_len), np.asarray(kv_len)
    mean = np.where(causal, np.maximum(kv - q, 0.0) + 0.5 * (q + 1.0), kv)
    return np.minimum(mean, window)
