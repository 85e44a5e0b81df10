"""Seconds of fused (flash) attention, forward and backward.

The backward computes five products for two and the exponentials once more, at `backward` of the
forward's rate; it reads Q, K, V, O and dO, writes dQ, dK and dV, and accumulates dQ in fp32. Fitted
to attention calls of A100, H100, L40S and B200 from 512 tokens on (kernels.toml).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.constants import Kernels
from roofcast.simulator.times.matmul import cpu_start
from roofcast.simulator.times.rates import Rates

BLOCK = 128.0  # query rows of one block
SHORT = 16.0  # up to so many query rows, as in decoding, the columns are split over all cores
# excess of the busiest of many cores over the mean, as a fraction of the longest block, where
# blocks are taken in order of arrival
UNEVEN = 0.5
PADDED = 16.0  # head_dim is padded to the depth of one matrix instruction
NORM = 1.5  # p of compute and memory: a block's first load and last store overlap with nothing


def attention(
    batch: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    q_len: ArrayLike,
    kv_len: ArrayLike,
    head_dim: ArrayLike,
    causal: ArrayLike,
    width_bytes: ArrayLike,
    rates: Rates,
    c: Kernels,
    backward: bool = False,
    window: ArrayLike = np.inf,
) -> np.ndarray:
    """Seconds of softmax(Q K^T) V without storing the scores. Arguments broadcast; `backward`
    selects the backward kernel.

        bq    = min(128, q_len rounded up to a power of two >= 16) ;  nq = ceil(q_len / bq)
        kv    = columns a block visits: all, half of the square if causal, at most window + bq
        x     = batch heads nq / cores ;  more = (1 - 1 / max(x, 1)) / 2
        score = bq max(x kv + more longest, longest)             scores of the busiest core
        tm    = 4 head_dim score / matrix rate of a core
        ts    = special score / special-function rate of a core
        t     = start + (max(x, 1) + more) tile
                + ((tm^2 + ts^2)^(p/2) + (bytes / BW)^p)^(1/p)   p = 1.5

    Decoding (up to 16 query rows) splits the columns over the cores instead: blocks share a core,
    and all tiles but the first join tm and ts. Of list scheduling's most, a longest block above the
    mean [graham1969], half is taken. `tile`: a block's first and last steps. head_dim pads to 16.
    """
    sizes = (batch, heads, kv_heads, q_len, kv_len, head_dim)
    batch, heads, kv_heads, q_len, kv_len, head_dim = (np.asarray(v, dtype=float) for v in sizes)
    w = c.attention
    block = np.clip(2.0 ** np.ceil(np.log2(np.maximum(q_len, 1.0))), SHORT, BLOCK)
    blocks = np.ceil(q_len / block)
    half = np.maximum(kv_len - 0.5 * (blocks - 1.0) * block, 0.5 * kv_len)
    reach = np.asarray(window, dtype=float) + block
    visited = np.minimum(np.where(causal, half, kv_len), reach)
    rows, columns = batch * q_len * heads * head_dim, batch * kv_len * kv_heads * head_dim
    if rates.kind == "gpu":
        longest = np.where(block > SHORT, np.minimum(kv_len, reach), 0.0)
        x = batch * heads * blocks / rates.cores
        scores, blocks_of_a_core = _busiest_core(x, block, visited, longest)
        matrix_rate = rates.attention * rates.matrix / rates.cores
        matrix = 4.0 * np.ceil(head_dim / PADDED) * PADDED * scores / matrix_rate
        special = w.special * scores / (rates.special / rates.cores)
        beside = np.where(block > SHORT, 0.0, blocks_of_a_core - 1.0) * w.tile / rates.clock
        start = (w.start + blocks_of_a_core * w.tile) / rates.clock - beside
    else:
        scores, beside = batch * heads * blocks * block * visited, np.zeros(())
        matrix = 4.0 * head_dim * scores / (rates.attention * rates.matrix)
        special = w.special * scores / rates.special
        start = cpu_start(rates, c) if rates.kind == "cpu" else np.asarray(c.systolic.start)
    compute, width = np.hypot(matrix, special) + beside, np.asarray(width_bytes)
    moved = width * (2.0 * rows + 2.0 * columns)
    if backward:
        compute = compute * (2.5 / w.backward)
        moved = width * (4.0 * rows + 4.0 * columns) + 8.0 * rows
    memory = moved / (rates.stream * rates.bandwidth)
    return start + (compute**NORM + memory**NORM) ** (1.0 / NORM)


def _busiest_core(
    x: np.ndarray, block: np.ndarray, visited: np.ndarray, longest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the busiest core, and its blocks, of x blocks per core.

    visited: columns of a mean block; longest: of the longest, 0 where columns are split over cores.
    """
    more = UNEVEN * (1.0 - 1.0 / np.maximum(x, 1.0))
    scores = block * np.maximum(x * visited + more * longest, longest)
    return scores, np.maximum(x, 1.0) + more


def visible_columns(
    q_len: ArrayLike, kv_len: ArrayLike, causal: ArrayLike, window: ArrayLike = np.inf
) -> np.ndarray:
    """Mean number of columns that a mask leaves in a row of the score matrix.

    >>> float(visible_columns(4, 4, False)), float(visible_columns(4, 4, True))
    (4.0, 2.5)
    """
    q, kv = np.asarray(q_len), np.asarray(kv_len)
    mean = np.where(causal, np.maximum(kv - q, 0.0) + 0.5 * (q + 1.0), kv)
    return np.minimum(mean, window)
