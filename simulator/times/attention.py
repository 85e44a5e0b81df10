"""Seconds of fused (flash) attention, forward and backward."""

from __future__ import annotations

import numpy as np

from hwdb.constants import Kernels
from simulator.times.matmul import cpu_start
from simulator.times.rates import Rates

BLOCK = 128.0  # query rows of one block
SHORT = 16.0  # up to so many query rows, as in decoding, the columns are split over all cores


def attention(batch, heads, kv_heads, q_len, kv_len, head_dim, causal, width_bytes, rates: Rates, c: Kernels,
              backward=False, window=np.inf):  # fmt: skip
    """Seconds of softmax(Q K^T) V without storing the scores. Arguments broadcast; `backward` picks one of two kernels.

        bq    = min(128, q_len rounded up to a power of two, at least 16) ;  nq = ceil(q_len / bq)
        kv    = columns a block visits: all, half of the square if causal, no more than window + bq
        score = bq max(batch heads nq / cores kv, columns of the longest block)      scores of the busiest core;
                decoding, up to 16 rows, splits the columns instead
        tm    = 4 head_dim score / rate of a core ;  ts = special score / special rate of a core
        t     = start + sqrt(tm^2 + ts^2) + bytes / BW

    Matrix and special-function time add in quadrature, memory in full: fitted to context_attention of A100, H100, L40S,
    B200 (kernels.toml). Backward: five products for two and the exponents once more, at `backward` of the forward's rate;
    it reads Q K V O dO, writes dQ dK dV and accumulates dQ in fp32.
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
        scores = block * np.maximum(x * visited, longest)  # of the busiest core
        loop = rates.attention * rates.matrix / rates.cores
        matrix = 4.0 * head_dim * scores / loop
        special = w.special * scores / (rates.special / rates.cores)
        start = w.start / rates.clock
    else:
        scores = batch * heads * blocks * block * visited
        matrix = 4.0 * head_dim * scores / (rates.attention * rates.matrix)
        special = w.special * scores / rates.special
        start = cpu_start(rates, c) if rates.kind == "cpu" else c.systolic.start
    compute = np.hypot(matrix, special)
    moved = w.traffic * width_bytes * (2.0 * rows + 2.0 * columns)
    if backward:
        compute = compute * (2.5 / w.backward)
        moved = w.traffic * (width_bytes * (4.0 * rows + 4.0 * columns) + 8.0 * rows)
    return start + compute + moved / (rates.stream * rates.bandwidth)


def attention_flops(batch, heads, q_len, kv_len, head_dim, causal, window=np.inf):
    """FLOPs of the two products over the scores that a mask leaves [FLOP]; the backward has 2.5 times as many.

    >>> float(attention_flops(1, 1, 4, 4, 1, False))
    64.0
    >>> float(attention_flops(1, 1, 4, 4, 1, True))
    40.0
    """
    mean = np.where(causal, np.maximum(kv_len - np.asarray(q_len), 0.0) + 0.5 * (np.asarray(q_len) + 1.0), kv_len)
    return 4.0 * np.asarray(batch) * heads * q_len * np.minimum(mean, window) * head_dim
