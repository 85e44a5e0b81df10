"""Seconds of matrix products C[m, n] = A[m, k] B[k, n], by kind of machine."""

from __future__ import annotations

import numpy as np

from roofcast.hwdb.constants import Kernels
from roofcast.simulator.times.rates import Rates

# the menu a library chooses from: tile x split of k
TILE_M = np.array([256.0, 128.0, 128.0, 64.0])[:, None]
TILE_N = np.array([128.0, 256.0, 128.0, 64.0])[:, None]
THIN_M = np.array([128.0, 128.0, 64.0, 64.0, 128.0, 32.0])[:, None]  # the menu of the vector units
THIN_N = np.array([128.0, 64.0, 128.0, 64.0, 32.0, 128.0])[:, None]
SPLIT = np.array([1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0])
SLICE = 64.0  # shortest slice of k that is split off: the depth of a tile in shared memory
# weight of whole waves against fractional ones: persistent kernels even them out, those before
# Hopper do not
QUANTIZED = (0.2, 0.5)


def matmul(m, n, k, batch, in_bytes, out_bytes, rates: Rates, c: Kernels):
    """Seconds of `batch` products, operands cold in main memory.

    in_bytes and out_bytes are the widths of an element of A and B, and of C. Arguments broadcast.
    GPU: `tiled`; CPU: `summed`; TPU and NPU: `systolic`.
    """
    m, n, k, batch = (np.asarray(x, dtype=float) for x in (m, n, k, batch))
    traffic = batch * (in_bytes * (m * k + k * n) + out_bytes * m * n)
    if rates.kind == "gpu":
        reread = batch * (2.0 * in_bytes) * (m * n * k) / rates.footprint
        return tiled(m, n, k, batch, in_bytes, traffic, reread, rates, c)
    if rates.kind == "cpu":
        return summed(2.0 * batch * m * n * k, traffic, rates, c)
    return systolic(m, n, k, batch, traffic, rates, c)


def tiled(m, n, k, batch, in_bytes, traffic, reread, rates: Rates, c: Kernels):
    """Seconds on cores that each compute a tile of C, the best of a menu of tiles (bm, bn) and
    splits s of k.

        ks   = max(k / s, 64) ;   units = batch ceil(m/bm) ceil(n/bn) s ;  x = units / cores
        wave = (1 - q) max(x, 1) + q ceil(x)                                          q 0.2
                                                                                      persistent,
                                                                                      0.5 not
        loop = max(2 bm bn ks, operand feed of the tile) / sustained rate of a core
        tile = a constant + bytes of the tile of C / store rate of a core             store: in
                                                                                      persistent
                                                                                      kernels beside
                                                                                      the next tile
        t    = latency + start + ((wave (loop + tile))^3 + (traffic / BW)^3)^(1/3) + [s > 1] (split
             + 8 s m n / 3 BW)
        out  = (min t^4 + (reread / BW)^4)^(1/4)

    traffic: compulsory bytes; reread: bytes that the operands cost when each wave of tiles reads
    its rows and columns again. Start, tile and split are clock cycles: they shrink with the clock,
    not with the peak; latency does not. BW is the achieved bandwidth. Fitted to bf16 products on
    A100, H100, L40S, B200 (see kernels.toml for the residuals).
    """
    w = c.matmul
    m, n, k, batch = (x[..., None, None] for x in np.broadcast_arrays(m, n, k, batch))
    tail = (..., None, None)
    core = np.asarray(rates.sustained * rates.matrix / rates.cores)[tail]
    path = np.asarray(w.feed * rates.feed / rates.cores)[tail]
    bandwidth = np.asarray(w.stream * rates.stream * rates.bandwidth)
    clock = np.asarray(rates.clock)[tail]
    width = np.asarray(in_bytes, dtype=float)[tail]

    tile_m, tile_n = (TILE_M, TILE_N) if rates.tensor else (THIN_M, THIN_N)
    blocks = batch * np.ceil(m / tile_m) * np.ceil(n / tile_n)
    if not rates.tensor:
        large = np.minimum(tile_m, tile_n) >= np.asarray(rates.batched_tile)[tail]
        blocks = np.where(large | (batch == 1.0), blocks, np.inf)
    flops = 2.0 * tile_m * tile_n
    feed = (np.minimum(tile_m, m) + np.minimum(tile_n, n)) * width * (65536.0 / 768.0)
    per_k = np.maximum(flops / core, feed / path)
    slices = np.maximum(np.ceil(k / SPLIT), np.minimum(k, SLICE))
    x = blocks * SPLIT / np.asarray(rates.cores)[tail]
    store = np.asarray(rates.store)[tail]
    whole = np.where(np.isfinite(store), QUANTIZED[1], QUANTIZED[0])
    wave = (1.0 - whole) * np.maximum(x, 1.0) + whole * np.ceil(x)
    epilogue = (
        w.tile + np.minimum(tile_m, m) * np.minimum(tile_n, n) * np.maximum(width, 2.0) / store
    )
    compute = wave * (per_k * slices + epilogue / clock)
    memory = (np.asarray(traffic) / bandwidth)[tail]
    split = np.where(
        SPLIT > 1.0, w.split / clock + batch * m * n * SPLIT * ((8.0 / 3.0) / bandwidth)[tail], 0.0
    )
    compute = compute.min(axis=-2, keepdims=True)  # the rest does not depend on the tile
    best = (
        (np.cbrt(compute * compute * compute + memory * memory * memory) + split).min(axis=(-2, -1))
        + w.latency
        + w.start / rates.clock
    )
    return np.sqrt(np.hypot(best * best, np.square(reread / bandwidth)))


def summed(flops, traffic, rates: Rates, c: Kernels):
    """Seconds on a CPU: threads fork and join, and little of the traffic hides behind arithmetic.

        t = start + flops / (sustained peak) + bytes / (achieved share of bandwidth)

    Of a printed bandwidth operands reach the fitted share; of one that was measured here, what a
    triad does. Per-op sums beat per-op maxima on an i9-10940X (125 nets, 13 / 16 % median / mean)
    and on a 2-core Xeon.
    """
    share = rates.stream if rates.measured else c.cpu.traffic
    return (
        cpu_start(rates, c)
        + flops / (rates.sustained * rates.matrix)
        + traffic / (share * rates.bandwidth)
    )


def cpu_start(rates: Rates, c: Kernels):
    """Seconds to fork and join the threads of one kernel."""
    return np.minimum(c.cpu.start_core * rates.cores, c.cpu.start_most)


def systolic(m, n, k, batch, traffic, rates: Rates, c: Kernels):
    """Seconds on a systolic array: m, n and k padded to its edges, a p-norm of arithmetic and
    memory.

    t = start + ((2 m' n' k' / sustained peak)^p + (bytes / BW)^p)^(1/p)
    """
    s = c.systolic
    padded = (
        np.ceil(m / s.sublane)
        * s.sublane
        * np.ceil(n / s.lane)
        * s.lane
        * np.ceil(k / s.lane)
        * s.lane
    )
    compute = 2.0 * batch * padded / (rates.sustained * rates.matrix)
    memory = traffic / (rates.stream * rates.bandwidth)
    return s.start + (compute**s.norm + memory**s.norm) ** (1.0 / s.norm)
