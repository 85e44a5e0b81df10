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
    COPY,
    ELEMENTWISE,
    FREE,
    GATHER,
    INFERRED_NORM,
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
    if stem not in BATCH_NORM:
        return None
    back, whole = stem != name, _bytes(c, c.ins)
    if not _over_the_batch(name, c):  # a scale and a shift; backward also sums over the channels
        kind, vector = ("batch_norm", 6 * n) if back else ("elementwise", 2 * n)
        return Work(kind, vector=vector, written=None if back else c.size_of(c.outs[0]))
    # the statistics are a pass of their own over all that is large: x, and dy in backward
    read = whole + (2 if back else 1) * max(map(c.size_of, c.ins))
    return Work("batch_norm", vector=(11 if back else 7) * n, read=read)


def _over_the_batch(name: str, c: Called) -> bool:
    """Whether a batch norm takes its statistics from the batch: not so in inference."""
    if name in INFERRED_NORM:
        return False
    place = BATCH_NORM[name.removesuffix("_backward")][name.endswith("_backward")]
    flag = c.args[place] if place is not None and len(c.args) > place else True
    return flag is not False


def _pool(name: str, base: str, n: int, c: Called) -> Work | None:
    if not name.startswith(POOLS):
        return None
    back = name.endswith("_backward")
    small = min(_numel(c.ins[0]), _numel(c.outs[0]))
    kernel = c.args[1 + back] if len(c.args) > 1 + back else None
    if isinstance(kernel, (list, tuple)) and not name.startswith(("adaptive", "_adaptive")):
        window = prod(kernel) if len(kernel) > 1 else kernel[0] ** (len(c.ins[0].shape) - 2)
    else:
        window = -(-n // max(small, 1))
    return Work("pool", vector=window * small, read=_unread(name, c))


def _unread(name: str, c: Called) -> int | None:
    """Bytes read by a backward op that gets a tensor of the forward for its shape alone."""
    if not name.endswith("_backward"):
        return None
    return _bytes(c, c.ins) - c.size_of(c.args[1])


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
    if name in ("nll_loss_backward", "nll_loss2d_backward"):
        return Work("scatter", vector=n, read=_unread(name, c))
    return Work("scatter", vector=n) if name in SCATTER else None


def _reduced(name: str, base: str, n: int, c: Called) -> Work | None:
    """Reductions, Fourier transforms, distances and factorizations."""
    if base in REDUCE:
        return Work("reduce", vector=2 * n if base in TWO_PER_ELEMENT else n)
    if base.startswith("_fft_"):
        length = max((t.shape[-1] for t in c.ins), default=2)
        return Work("reduce", vector=5 * n * max(length.bit_length() - 1, 1))
    return distances(name, c) if name in DISTANCES else factorization(name, c)
