"""Fit the constants of products with compressed weights.

    python -m roofcast.scenarios.fits.compressed [--write]

    widened        to 158 products on an A100 with weights in 8 or 4 bits (TensorRT-LLM)
    sparse_loop, sparse_energy
                   to how much faster 19 products on four devices are with 2:4 weights; each device
                   has the same weight

Loss: mean |ln(forecast / measured)|; of gains, which are few, its square. The tables:
scenarios/measured/formats/weight-only.csv and sparse.csv. Prints values and errors; --write puts
them into hwdb/kernels.toml.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import msgspec
import numpy as np
from scipy.optimize import minimize

from roofcast.hwdb import constants
from roofcast.hwdb.constants import HERE, Kernels
from roofcast.scenarios.fits.writing import put
from roofcast.scenarios.measured.products import A100, kernels, pruned, widened
from roofcast.simulator.work.tuning import Tuning

FORMATS = ("int8", "int4")
START = {"widened": 9000.0, "sparse_loop": 1.5, "sparse_energy": 1.5}  # of the search


def errors_widened(c: Kernels) -> np.ndarray:
    """ln(forecast / measured) of every product with widened weights."""
    found = []
    for name in FORMATS:
        rows = [row for row in widened() if row.format == name]
        seconds = kernels(A100, [row.of for row in rows], Tuning(weights=name), c)
        found.append(np.log(np.array(seconds) / [row.seconds for row in rows]))
    return np.concatenate(found)


def errors_sparse(c: Kernels) -> dict[str, np.ndarray]:
    """ln(forecast gain / measured gain) of every 2:4 product, by device."""
    found = {}
    for device in dict.fromkeys(row.device for row in pruned("kernel")):
        rows = [row for row in pruned("kernel") if row.device == device]
        products = [row.of for row in rows]
        dense, sparse = (
            kernels(device, products, None, c),
            kernels(device, products, Tuning(sparse=True), c),
        )
        gains = np.array(dense) / np.array(sparse)
        found[device] = np.log(gains / [row.gain for row in rows])
    return found


def _fit(
    names: tuple[str, ...], loss: Callable[[Kernels], float]
) -> tuple[dict[str, float], Kernels]:
    """The values of [matmul] constants with the least loss, and all constants with them."""
    shipped = constants.kernels()
    start = np.array([START[name] for name in names])

    def changed(logs: np.ndarray) -> Kernels:
        values = dict(zip(names, (float(v) for v in start * np.exp(logs)), strict=True))
        return msgspec.structs.replace(
            shipped, matmul=msgspec.structs.replace(shipped.matmul, **values)
        )

    found = minimize(lambda x: loss(changed(x)), np.zeros(len(names)), method="Nelder-Mead")
    best = changed(found.x)
    return {name: float(f"{getattr(best.matmul, name):.4g}") for name in names}, best


def main() -> None:
    """Fit both, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    wide, best = _fit(("widened",), lambda c: float(np.abs(errors_widened(c)).mean()))
    errors = np.abs(errors_widened(best))
    said = {"widened": f"{_both(errors)} of {len(errors)} products"}
    loop, best = _fit(
        ("sparse_loop", "sparse_energy"),
        lambda c: float(np.mean([np.square(e).mean() for e in errors_sparse(c).values()])),
    )
    by_device = errors_sparse(best)
    errors = np.abs(np.concatenate(list(by_device.values())))
    said |= dict.fromkeys(loop, f"{_both(errors)} of the gains of {len(errors)} products")
    for device, each in by_device.items():
        print(f"{device}: gain off by {100 * np.expm1(each.mean()):+.0f} % in the mean")
    for name, value in (wide | loop).items():
        print(f"{name} = {value}  ({said[name]})")
        if write:
            put(HERE / "kernels.toml", "matmul", name, value, said[name])


def _both(errors: np.ndarray) -> str:
    return f"{100 * np.median(errors):.1f} / {100 * errors.mean():.1f} % median / mean"


if __name__ == "__main__":
    main()
