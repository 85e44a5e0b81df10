"""Work of an aten op on a device: FLOPs by unit, bytes, and the time formula that applies.

What torch.utils.flop_counter leaves out (LEFT_OUT) is counted here, and reported as an assumption.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from roofcast.simulator.importers.aten_dense import DENSE, DISTANCES, distances, factorization
from roofcast.simulator.importers.aten_products import PRODUCTS, Called, Work
from roofcast.simulator.importers.aten_tables import (
    BATCH_NORM,
    BATCH_NORM_NAMES,
    COPY,
    ELEMENTWISE,
    FREE,
    GATHER,
    POOLS,
    REDUCE,
    ROW_NORM,
    SCATTER,
    SOFTMAX,
)

if TYPE_CHECKING:
    import torch

TWO_PER_ELEMENT = ("dot", "vdot", "var", "var_mean", "std")  # of the reductions


def works(name: str, pointwise: bool, c: Called) -> list[Work] | None:
    """Kernels of one call of aten op `name`; empty if it launches none, None without a formula.

    `pointwise`: PyTorch tags the op as elementwise.
    """
    if name in FREE:
        return []
    if name in PRODUCTS or name in DENSE:
        return (PRODUCTS.get(name) or DENSE[name])(c)
    base = name[:-1] if name.endswith("_") and not name.endswith("__") else name  # not in place
    n = max((_numel(t) for t in (*c.ins, *c.outs)), default=0)
    if name in SOFTMAX:
        vector, special = SOFTMAX[name]
        return [Work("softmax", vector=vector * n, special=special * n)]
    for family in (_norm, _pool, _moved, _indexed, _reduced):
        work = family(name, base, n, c)
        if work is not None:
            return [work]
    cost = ELEMENTWISE.get(name, ELEMENTWISE.get(base))
    if cost is None and not pointwise:
        return None
    vector, special = cost or (1, 0)
    return [Work("elementwise", vector=vector * n, special=special * n)]


def _numel(t: torch.Tensor) -> int:
    return prod(t.shape)


def _bytes(c: Called, tensors: Sequence[torch.Tensor]) -> int:
    return sum(map(c.size_of, tensors))


def _norm(name: str, base: str, n: int, c: Called) -> Work | None:
    if name in ROW_NORM:
        return Work("layer_norm", vector=ROW_NORM[name] * n)
    stem = name.removesuffix("_backward")
    if stem not in BATCH_NORM_NAMES:
        return None
    vector, passes = BATCH_NORM[name[len(stem) :]]
    read = _bytes(c, c.ins) + passes * max(map(c.size_of, c.ins))
    return Work("batch_norm", vector=vector * n, read=read)


def _pool(name: str, base: str, n: int, c: Called) -> Work | None:
    if not name.startswith(POOLS):
        return None
    small = min(_numel(c.ins[0]), _numel(c.outs[0]))
    kernel = c.args[1] if len(c.args) > 1 else None
    if isinstance(kernel, (list, tuple)) and not name.startswith(("adaptive", "_adaptive")):
        window = prod(kernel)
    else:
        window = -(-n // max(small, 1))
    return Work("pool", vector=window * small)


def _moved(name: str, base: str, n: int, c: Called) -> Work | None:
    """Copies and casts."""
    if name == "_to_copy":
        return Work("cast" if c.ins and c.outs[0].dtype != c.ins[0].dtype else "copy")
    return Work("copy") if base in COPY or name in COPY else None


def _indexed(name: str, base: str, n: int, c: Called) -> Work | None:
    """Gathers, scatters, and lookups in tables."""
    if name in ("embedding", "_embedding_bag", "_embedding_bag_forward_only"):
        table, ids = c.args[:2]
        rows = _numel(ids) * table.shape[-1] * c.size_of(table) // max(_numel(table), 1)
        vector = 0 if name == "embedding" else rows
        return Work("gather", vector=vector, read=c.size_of(ids) + rows)
    if name in GATHER:
        whole = name in ("topk", "sort", "msort")  # these read their input once, others the results
        picked = c.size_of(c.ins[0]) if whole else _bytes(c, c.outs)
        return Work("gather", vector=n, read=_bytes(c, c.ins[1:]) + picked)
    return Work("scatter", vector=n) if name in SCATTER else None


def _reduced(name: str, base: str, n: int, c: Called) -> Work | None:
    """Reductions, Fourier transforms, distances and factorizations."""
    if base in REDUCE:
        return Work("reduce", vector=2 * n if base in TWO_PER_ELEMENT else n)
    if base.startswith("_fft_"):
        length = max((t.shape[-1] for t in c.ins), default=2)
        return Work("reduce", vector=5 * n * max(length.bit_length() - 1, 1))
    return distances(name, c) if name in DISTANCES else factorization(name, c)
