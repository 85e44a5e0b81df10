"""Seconds of matrix products C[m, n] = A[m, k] B[k, n], by kind of machine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.constants import Kernels
from roofcast.simulator.times.rates import Rates

# the menu of a GPU library: tiles of the matrix units, of the vector units, and splits of k
TILE_M = np.array([256.0, 128.0, 128.0, 64.0])[:, None, None]
TILE_N = np.array([128.0, 256.0, 128.0, 64.0])[:, None, None]
THIN_M = np.array([128.0, 128.0, 64.0, 64.0, 128.0, 32.0])[:, None, None]
THIN_N = np.array([128.0, 64.0, 128.0, 64.0, 32.0, 128.0])[:, None, None]
# tiles for few rows, as decoding has them, of both kinds of units
FEW_M = np.array([16.0, 16.0])[:, None, None]
FEW_N = np.array([128.0, 64.0])[:, None, None]
SINGLE_M = np.array([16.0, 4.0, 1.0])[:, None, None]
SINGLE_N = np.array([128.0, 128.0, 128.0])[:, None, None]
SPLIT = np.array([1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0])[:, None]
FED = 65536.0 / 768.0  # FLOP per byte of a column of a 256 x 128 tile in 16 bits
SLICE = 64.0  # shortest slice of k that is split off: the depth of a tile in shared memory
# times that an operand crosses memory which a CPU library copies before it multiplies
COPIED = 3.0
# weight of whole waves against fractional ones: persistent kernels (Hopper and later) even waves
# out, earlier kernels do not
WHOLE_WAVES = {"persistent": 0.2, "other": 0.5}


def matmul(
    m: ArrayLike,
    n: ArrayLike,
    k: ArrayLike,
    batch: ArrayLike,
    in_bytes: ArrayLike,
    out_bytes: ArrayLike,
    rates: Rates,
    c: Kernels,
    moved: ArrayLike = np.nan,
    few: bool = False,
    held: ArrayLike | None = None,
    clock: Any = 1.0,
    spread: bool = False,
) -> np.ndarray:
    """Seconds of `batch` products whose operands are cold in main memory.

    in_bytes, out_bytes: bytes of an element of A and B, and of C; moved: bytes of all operands and
    results, where they are others than A, B and C; few: tiles for few rows are on the menu;
    held: bytes of an element of B as it is stored, where not in_bytes; clock: as a share of that of
    the rates; spread: m is the mean of products whose rows differ (tiled). Arguments broadcast.
    GPU: `tiled`; CPU: `summed`; TPU and NPU: `systolic`.
    """
    m, n, k, batch = (np.asarray(x, dtype=float) for x in (m, n, k, batch))
    into, out = np.asarray(in_bytes, dtype=float), np.asarray(out_bytes, dtype=float)
    traffic = batch * (into * (m * k + k * n) + out * m * n)
    traffic = np.where(np.isnan(moved), traffic, moved)
    if rates.kind == "gpu":
        reread = batch * (2.0 * into) * (m * n * k) / rates.footprint
        return tiled(
            m, n, k, batch, into, traffic, reread, rates, c, few, held, clock, spread=spread
        )
    rates = rates._replace(matrix=rates.matrix * clock)
    if rates.kind == "cpu":
        return summed(2.0 * batch * m * n * k, traffic, rates, c, batch)
    return systolic(m, n, k, batch, traffic, rates, c)


def tiled(
    m: ArrayLike,
    n: ArrayLike,
    k: ArrayLike,
    batch: ArrayLike,
    in_bytes: ArrayLike,
    traffic: ArrayLike,
    reread: ArrayLike,
    rates: Rates,
    c: Kernels,
    few: bool = False,
    held: ArrayLike | None = None,
    clock: Any = 1.0,
    stored: ArrayLike | None = None,
    spread: bool = False,
) -> np.ndarray:
    """Seconds on cores that each compute a tile of C, the fastest of a menu of tiles (bm, bn) and
    splits s of k.

        ks   = max(k / s, 64)
        x    = batch ceil(m / bm) ceil(n / bn) s / cores
        wave = (1 - q) max(x, 1) + q ceil(x)
        loop = max(2 bm bn ks, operand feed of the tile) / sustained rate of a core
        tile = constant + bytes of the tile of C / store rate of a core
        own  = ((wave (loop + tile))^3 + (traffic / BW)^3)^(1/3)
        t    = latency + start + min over the menu of own + [s > 1] (split + 8 s m n / (3 BW))
        out  = (t^4 + (reread / BW)^4)^(1/4)

    traffic: compulsory bytes; reread: bytes that the operands cost when each wave of tiles reads
    its rows and columns again; stored: bytes of an element of C in a tile, 2 or more by default;
    spread: see `_high`. q is WHOLE_WAVES; persistent kernels store a tile beside the next. BW: as
    achieved. Start, tile and split are cycles, latency is not. Fitted to bf16 (see kernels.toml).
    """
    single = _single(m, n, k, batch, in_bytes, traffic, held, clock, *rates)
    m, n, k, batch = (_last(np.atleast_1d(x)) for x in np.broadcast_arrays(m, n, k, batch))
    w, cores, store = c.matmul, _last(rates.cores), _last(rates.store)
    core = _last(rates.sustained * rates.matrix / rates.cores)
    path = _last(w.feed * rates.feed / rates.cores)
    bandwidth = np.asarray(w.stream * rates.stream * rates.bandwidth)
    highest, share, width = _last(rates.clock), _last(clock), _last(in_bytes)
    second = width if held is None else _last(held)
    result = np.maximum(width, 2.0) if stored is None else _last(stored)
    tile_m, tile_n = _menu(rates.tensor, few)  # [..., tiles, splits, products]
    rows, wide = np.minimum(tile_m, m), np.minimum(tile_n, n)
    blocks = batch * _high(m, tile_m, spread) * np.ceil(n / tile_n)
    if not rates.tensor:
        large = np.minimum(tile_m, tile_n) >= _last(rates.batched_tile)
        blocks = np.where(large | (batch == 1.0), blocks, np.inf)
    per_k = np.maximum(2.0 * tile_m * tile_n / core, (rows * width + wide * second) * FED / path)
    slices = np.maximum(np.ceil(k / SPLIT), np.minimum(k, SLICE))
    tile = (w.tile + rows * wide * result / store) / highest
    each = _waves(blocks * SPLIT / cores, store) * (per_k * slices + tile)
    compute = each.min(axis=-3, keepdims=True) / share
    memory = _last(np.asarray(traffic) / bandwidth)
    partial_sums = batch * m * n * SPLIT * _last((8.0 / 3.0) / bandwidth)
    split = np.where(SPLIT > 1.0, w.split / (highest * share) + partial_sums, 0.0)
    own = np.cbrt(compute * compute * compute + memory * memory * memory) + split
    best = own.min(axis=(-3, -2)) + w.latency + w.start / (rates.clock * clock)
    found = np.sqrt(np.hypot(best * best, np.square(np.asarray(reread) / bandwidth)))
    return found[0] if single else found


def _high(m: np.ndarray, tile: np.ndarray, spread: bool) -> np.ndarray:
    """Tiles that the rows of a product fill. spread: rows of the products are exponentially
    distributed around m, as those of experts, and each fills tiles of its own: in the mean

        1 / (1 - exp(-tile / m))
    """
    if spread:
        return np.asarray(-1.0 / np.expm1(-tile / np.maximum(m, 1e-9)))
    return np.asarray(np.ceil(m / tile))


def _single(*given: Any) -> bool:
    """Whether no argument is an array."""
    return all(np.ndim(x) == 0 for x in given if not isinstance(x, str))


def _waves(x: np.ndarray, store: np.ndarray) -> np.ndarray:
    """Waves of tiles, of x tiles per core."""
    whole = np.where(np.isfinite(store), WHOLE_WAVES["other"], WHOLE_WAVES["persistent"])
    return (1.0 - whole) * np.maximum(x, 1.0) + whole * np.ceil(x)


def _last(x: ArrayLike) -> np.ndarray:
    """An array with axes for tiles and splits before its last one, which stays the longest; a
    number as it is.
    """
    given = np.asarray(x, dtype=float)
    return given[..., None, None, :] if given.ndim else given


def _menu(tensor: bool, few: bool) -> tuple[np.ndarray, np.ndarray]:
    """Heights and widths of the tiles of matrix units (tensor), or of vector units."""
    tiles = (TILE_M, TILE_N) if tensor else (THIN_M, THIN_N)
    if not few:
        return tiles
    more = (FEW_M, FEW_N) if tensor else (SINGLE_M, SINGLE_N)
    return np.concatenate((tiles[0], more[0])), np.concatenate((tiles[1], more[1]))


def summed(
    flops: ArrayLike,
    traffic: ArrayLike,
    rates: Rates,
    c: Kernels,
    batch: ArrayLike = 1.0,
    blocked: bool = False,
) -> np.ndarray:
    """Seconds on a CPU: threads fork and join, and little of the traffic overlaps with arithmetic.

        t = start + flops / (sustained peak) + traffic / (achieved bandwidth)

    The achieved bandwidth is a triad's. Operands that the library copies into a layout of its own
    cross memory three times: they are read, written there, and read again. oneDNN copies those of
    convolutions (`blocked`), and MKL those of products [goto2008], though on a measured CPU of
    Intel they cross once; what the private caches hold is copied within them. Graphs that
    keep tensors in the layout of the library's kernels (`laid_out`) copy none. `batch` products
    share the traffic. Per-op sums are closer than per-op maxima on an i9-10940X (125 nets, 13 /
    16 % median / mean error) and on a 2-core Xeon.
    """
    compute = np.asarray(flops) / (rates.sustained * rates.matrix)
    moved = np.asarray(traffic)
    memory = moved / (rates.stream * rates.bandwidth)
    if not rates.laid_out and (blocked or rates.packs or not rates.measured):
        inside = moved / max(rates.private, rates.stream * rates.bandwidth)
        fits = moved <= rates.held * np.asarray(batch)
        memory = memory + (COPIED - 1.0) * np.where(fits, inside, memory)
    return cpu_start(rates, c) + compute + memory


def cpu_start(rates: Rates, c: Kernels) -> np.ndarray:
    """Seconds to fork and join the threads of one kernel."""
    return np.minimum(c.cpu.start_core * rates.cores, c.cpu.start_most)


def systolic(
    m: ArrayLike,
    n: ArrayLike,
    k: ArrayLike,
    batch: ArrayLike,
    traffic: ArrayLike,
    rates: Rates,
    c: Kernels,
) -> np.ndarray:
    """Seconds on a systolic array: m, n and k padded to its edges, a p-norm of arithmetic and
    memory.

        t = start + ((2 m' n' k' / sustained peak)^p + (traffic / BW)^p)^(1/p)
    """
    s = c.systolic
    rows = np.ceil(np.asarray(m) / s.sublane) * s.sublane
    columns = np.ceil(np.asarray(n) / s.lane) * s.lane
    padded = rows * columns * np.ceil(np.asarray(k) / s.lane) * s.lane
    compute = 2.0 * np.asarray(batch) * padded / (rates.sustained * rates.matrix)
    memory = np.asarray(traffic) / (rates.stream * rates.bandwidth)
    return s.start + (compute**s.norm + memory**s.norm) ** (1.0 / s.norm)
