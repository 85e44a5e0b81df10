"""Published times of single products with compressed weights, beside forecast ones: weights held in
8 or 4 bits and widened by the kernel, and weights of which 2 in 4 are kept.

    python -m roofcast.scenarios.measured.products                              print the gains
    python -m roofcast.scenarios.measured.products --write docs/compression.md  into the document
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from roofcast import hwdb
from roofcast.hwdb.constants import Kernels
from roofcast.simulator.software.stack import stack
from roofcast.simulator.times.dispatch import phases_of
from roofcast.simulator.times.roofline import time_all
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.ops import linear
from roofcast.simulator.work.step import Recipe, Step, trace
from roofcast.simulator.work.tape import Tape, Value
from roofcast.simulator.work.tuning import Tuning

HERE = Path(__file__).parent / "formats"
MARKER = re.compile(r"(<!-- table: products -->\n).*?(<!-- end -->)", re.S)
A100 = "a100-sxm4-80gb"  # device of the table of widened weights


class Product(NamedTuple):
    """A product of m rows with a matrix of k inputs and n outputs."""

    m: int
    n: int
    k: int


class Widened(NamedTuple):
    """A measured product with weights held in fewer bits [s]."""

    format: str
    of: Product
    seconds: float


class Pruned(NamedTuple):
    """A product with 2:4 weights beside the same dense one, as measured [s]."""

    device: str
    of: Product
    dense_s: float
    sparse_s: float
    timed: str  # kernel | call
    source: str

    @property
    def gain(self) -> float:
        """How much faster the sparse product is."""
        return self.dense_s / self.sparse_s


def widened() -> list[Widened]:
    """The table of products with widened weights."""
    return [
        Widened(row["format"], _product(row), 1e-3 * float(row["ms"]))
        for row in _rows(HERE / "weight-only.csv")
    ]


def pruned(timed: str) -> list[Pruned]:
    """The rows of the table of 2:4 products that time kernels, or calls."""
    return [
        Pruned(
            row["device"], _product(row), 1e-3 * float(row["dense_ms"]),
            1e-3 * float(row["sparse_ms"]), row["timed"], row["source"],
        )
        for row in _rows(HERE / "sparse.csv")
        if row["timed"] == timed
    ]  # fmt: skip


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def _product(row: dict[str, str]) -> Product:
    return Product(int(row["m"]), int(row["n"]), int(row["k"]))


def step_of(products: Sequence[Product], tuning: Tuning | None = None) -> Step:
    """A step of inference in fp16 under eager PyTorch that computes these products."""

    def program(t: Tape, batch: int, size: int | None) -> Value:
        for i, p in enumerate(products):
            with t.op(f"product.{i}", "linear"):
                out = linear.linear(t, t.input((p.m, p.k)), p.n, bias=False, parallel=False)
        return out

    recipe = Recipe(
        mode="infer", batch=1, size=None, precision="fp16", stack=stack("pytorch-eager"),
        optimizer=None, recompute="none", tuning=tuning,
    )  # fmt: skip
    return trace(Model("products", "", "table", None, program), recipe)


def kernels(
    device: str, products: Sequence[Product], tuning: Tuning | None = None, c: Kernels | None = None
) -> list[float]:
    """Forecast seconds of the kernels of products on a device."""
    return list(time_all(step_of(products, tuning), hwdb.device(device), c).seconds)


def call(device: str, product: Product, tuning: Tuning | None = None) -> float:
    """Forecast seconds of one call of a product, host time included."""
    step, on = step_of([product], tuning), hwdb.device(device)
    return float(phases_of(step, time_all(step, on).seconds, on).total_s.sum())


def table() -> str:
    """How much faster 2:4 products are, published and forecast, as a table of a document."""
    lines = [
        "| device | rows x outputs x inputs | of | published | forecast | source |",
        "|---|---|---|---|---|---|",
    ]
    for row in (*pruned("kernel"), *pruned("call")):
        p, sparse = row.of, Tuning(sparse=True)
        if row.timed == "kernel":
            gain = kernels(row.device, [p])[0] / kernels(row.device, [p], sparse)[0]
        else:
            gain = call(row.device, p) / call(row.device, p, sparse)
        size = f"{p.m:,} x {p.n:,} x {p.k:,}"
        cells = (row.device, size, row.timed, f"{row.gain:.2f}", f"{gain:.2f}", row.source)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, or put it into a document."""
    if sys.argv[1:2] != ["--write"] or len(sys.argv) != 3:
        print(table(), end="")
        return
    path = Path(sys.argv[2])
    text = path.read_text(encoding="utf-8")
    path.write_text(MARKER.sub(lambda m: m[1] + table() + m[2], text), encoding="utf-8")


if __name__ == "__main__":
    main()
