"""Arithmetic of aten ops that no FLOP counter of PyTorch sees: bilinear forms, distances, and the
factorizations of torch.linalg.

FLOPs of factorizations are those of the LAPACK algorithms [golub2013], leading terms only; they
count as vector work, since no matrix product of the model is among them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

from roofcast.simulator.importers.aten_products import Called, Work

if TYPE_CHECKING:
    import torch


def trilinear(c: Called) -> list[Work]:
    """sum over `sumdim` of i1 * i2 * i3, each without the axes in its `expand`: two products.

    For nn.Bilinear, with N samples: 2 N out in1 in2 + 2 N out in2 FLOPs. The first product sums
    over the axes that i3 lacks, and the second one over the others; one per index of `unroll_dim`.
    """
    *operands, _, _, _, summed = c.args[:7]
    rank = len(operands[0].shape) + len(c.args[3])
    unrolled = c.args[7] if len(c.args) > 7 else c.kwargs.get("unroll_dim", 1)
    axes = [
        [d for d in range(rank) if d not in expand] for expand in c.args[3:6]
    ]  # of each operand
    size = {
        d: n
        for own, t in zip(axes, operands, strict=True)
        for d, n in zip(own, t.shape, strict=True)
    }
    one, two, three = map(set, axes)
    early = set(summed) - three
    between = (one | two) - early
    works = []
    for a, b, over in ((one, two, early), (between, three, set(summed) & three)):
        shape = [prod(size[d] for d in of - {unrolled}) for of in _parts(a, b, over)]
        if unrolled in a | b:
            shape[0] *= size[unrolled]
        works.append(Work("matmul", matrix=2 * prod(size[d] for d in a | b), shape=tuple(shape)))
    moved = sum(map(c.size_of, c.ins)), sum(map(c.size_of, c.outs))
    middle = c.size_of(c.outs[0]) // max(prod(c.outs[0].shape), 1) * prod(size[d] for d in between)
    return [
        works[0]._replace(read=moved[0] - c.size_of(operands[2]), written=middle),
        works[1]._replace(read=middle + c.size_of(operands[2]), written=moved[1]),
    ]


def _parts(a: set[int], b: set[int], over: set[int]) -> tuple[set[int], ...]:
    """Axes of the batch, the rows, the columns and the sum of a product of a and b."""
    return (a & b) - over, a - b - over, b - a - over, over


def euclidean_dist(c: Called) -> list[Work]:
    """Distances of P rows to R rows of M numbers by their product: 2 P R M FLOPs.

    cdist does so where P or R is above 25. The squared norms are two more columns of the operands.
    """
    x, y = c.args[:2]
    *batch, p, m = x.shape
    r, pairs = y.shape[-2], prod(c.outs[0].shape)
    norms = 2 * (prod(x.shape) + prod(y.shape)) + 6 * pairs
    shape = (prod(batch), p, r, m)
    return [Work("matmul", matrix=2 * pairs * m, vector=norms, special=pairs, shape=shape)]


def distances(name: str, c: Called) -> Work:
    """Distances pair by pair: 3 FLOPs per number of each pair, in forward and in each backward."""
    x = c.args[1] if name.endswith("backward") else c.args[0]
    pairs = c.args[-1] if name.endswith("backward") else c.outs[0]
    return Work("reduce", vector=3 * prod(pairs.shape) * x.shape[-1])


def addbmm(c: Called) -> list[Work]:
    """The sum over a batch of products, added to a matrix."""
    (batch, m, k), n = c.args[1].shape, c.args[2].shape[-1]
    return [Work("matmul", matrix=2 * batch * m * n * k, shape=(1, m, n, batch * k))]


def matrix_vector(first: int) -> Callable[[Called], list[Work]]:
    """Work of argument number `first`, a matrix, times the next one, a vector."""

    def work(c: Called) -> list[Work]:
        m, k = c.args[first].shape
        return [Work("matmul", matrix=2 * m * k, shape=(1, m, 1, k))]

    return work


# FLOPs of one matrix [m, n] with k right-hand sides, m >= n [golub2013]
_FACTORIZATIONS: dict[str, Callable[[float, float, float], float]] = {
    **dict.fromkeys(("cholesky", "linalg_cholesky_ex"), lambda m, n, k: n**3 / 3),
    **dict.fromkeys(
        "linalg_lu linalg_lu_factor_ex _linalg_det _linalg_slogdet".split(),
        lambda m, n, k: m * n**2 - n**3 / 3,
    ),
    **dict.fromkeys(("linalg_inv_ex", "cholesky_inverse"), lambda m, n, k: 2 * n**3),
    "_linalg_solve_ex": lambda m, n, k: 2 * n**3 / 3 + 2 * n**2 * k,
    **dict.fromkeys(("linalg_solve_triangular", "triangular_solve"), lambda m, n, k: n**2 * k),
    **dict.fromkeys(
        ("cholesky_solve", "linalg_lu_solve", "linalg_ldl_solve"), lambda m, n, k: 2 * n**2 * k
    ),
    **dict.fromkeys(
        ("geqrf", "linalg_householder_product"), lambda m, n, k: 2 * n**2 * (m - n / 3)
    ),
    "linalg_qr": lambda m, n, k: 4 * n**2 * (m - n / 3),  # R, and Q formed
    "_linalg_eigh": lambda m, n, k: 9 * n**3,
    "linalg_eig": lambda m, n, k: 25 * n**3,
    "_linalg_svd": lambda m, n, k: 14 * m * n**2 + 8 * n**3,
}
# of these, the number of the argument that is the matrix, where it is not the first
_MATRIX = {"linalg_lu_solve": 0, "cholesky_solve": 1, "triangular_solve": 1}
_SIDES = {"cholesky_solve": 0, "triangular_solve": 0, "linalg_lu_solve": 2, "linalg_ldl_solve": 2}


def factorization(name: str, c: Called) -> Work | None:
    """A factorization or a solver of torch.linalg; None if `name` is none with a formula."""
    flops = _FACTORIZATIONS.get(name)
    if flops is None:
        return None
    matrix: torch.Tensor = c.args[_MATRIX.get(name, 0)]
    *batch, rows, columns = matrix.shape
    place = _SIDES.get(name, 1)
    sides = c.args[place] if len(c.args) > place else None
    shape = tuple(getattr(sides, "shape", ()))  # a flag, or nothing, has none
    k = shape[-1] if len(shape) > 1 else 1
    each = flops(max(rows, columns), min(rows, columns), k)
    return Work("elementwise", vector=round(prod(batch) * each))


DENSE: dict[str, Callable[[Called], list[Work]]] = {
    "_trilinear": trilinear,
    "_euclidean_dist": euclidean_dist,
    "addbmm": addbmm,
    "addbmm_": addbmm,
    "mv": matrix_vector(0),
    "addmv": matrix_vector(1),
    "addmv_": matrix_vector(1),
}
DISTANCES = ("_cdist_forward", "_cdist_backward", "_pdist_forward", "_pdist_backward")
