"""Fit the constants of the collective formulas to nccl-tests of one node.

    python -m roofcast.scenarios.fits.collectives FILE [--write] [--left-out]

FILE has columns collective, device, n, nodes, bytes, time_us, interconnect, source, as measured by
nccl-tests ("bytes" its size). Fitted are the rows of aiconfigurator's A100, H100 and B200 (median
over library versions); shown beside them, never fitted, what else of one node the file holds. Loss:
mean over devices of the mean |ln(predicted / measured)|. `--write` puts values and residuals into
hwdb/collectives.toml where the source says "fit"; `--left-out` fits each pair of devices and
predicts the third with the geometric mean of their own constants.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import msgspec
import numpy as np

from roofcast import hwdb
from roofcast.hwdb.collective_constants import Collectives, collectives
from roofcast.hwdb.constants import HERE
from roofcast.scenarios.fits.kernels import descend, put
from roofcast.simulator.parallel.collectives import (
    all_gather,
    all_reduce,
    all_to_all,
    reduce_scatter,
    send_recv,
)
from roofcast.simulator.parallel.fabric import Fabric, fabric_of, placed

DEVICES = {
    "a100_sxm": "a100-sxm4-80gb",
    "h100_sxm": "h100-sxm5",
    "b200_sxm": "b200-sxm",
    "A100": "a100-sxm4-80gb",
    "H100": "h100-sxm5",
}
FORMULA = {
    "all_reduce": all_reduce,
    "all_gather": all_gather,
    "reduce_scatter": reduce_scatter,
    "alltoall": all_to_all,
    "send_recv": send_recv,
}
SHARED = (
    "switch.spread",
    "switch.all_reduce",
    "switch.chunk",
    "kinds.all_to_all_start",
    "kinds.all_to_all_hop",
)
OWN = ("start", "hop", "share", "in_switch")
LARGE = 16e6
PASSES = 3  # the simplex shrinks too early with so many constants: started again where it stopped


class Rows(NamedTuple):
    """Measured collectives of one device."""

    source: str
    family: str
    fabric: Fabric
    collective: np.ndarray
    members: np.ndarray
    bytes: np.ndarray
    seconds: np.ndarray


def read(path: str) -> list[Rows]:
    """Rows in one node by source and device, repeated measurements replaced by their median."""
    import pandas as pd

    table = pd.read_csv(path)
    bridged = table.interconnect.astype(str).str.contains("pairwise|NC96")  # boards joined by twos
    table = table[table.device.isin(DEVICES) & ~(table.nodes > 1) & (table.time_us > 0) & ~bridged]
    result = []
    for (source, name), part in table.groupby(["source", "device"]):
        part = part.groupby(["collective", "n", "bytes"]).time_us.median().reset_index()
        device = hwdb.device(DEVICES[name])
        result.append(
            Rows(
                source.split()[0],
                device.family,
                fabric_of(None, device, 8),
                part.collective.to_numpy(),
                part.n.to_numpy(float),
                part.bytes.to_numpy(float),
                part.time_us.to_numpy() * 1e-6,
            )
        )
    return result


def predicted(rows: Rows, c: Collectives) -> np.ndarray:
    """Seconds of every row."""
    group, result = placed(rows.members, 1.0, rows.fabric), np.zeros(len(rows.bytes))
    for name in np.unique(rows.collective):
        result = np.where(
            rows.collective == name, FORMULA[name](rows.bytes, group, rows.fabric, c), result
        )
    return result


def with_values(c: Collectives, values: dict[str, float]) -> Collectives:
    """The constants with some replaced by dotted name; what families take from "switch" is replaced
    in them too.
    """
    networks, kinds = dict(c.networks), c.kinds
    for name, value in values.items():
        section, key = name.split(".")
        if section == "kinds":
            kinds = msgspec.structs.replace(kinds, **{key: value})
            continue
        for other in (
            ("switch", "ampere", "hopper", "blackwell") if section == "switch" else (section,)
        ):
            networks[other] = msgspec.structs.replace(networks[other], **{key: value})
    return Collectives(networks, kinds)


def names(data: list[Rows]) -> list[str]:
    """Dotted names of what is fitted to these devices."""
    own = [
        f"{r.family}.{key}"
        for r in data
        for key in OWN
        if key != "in_switch" or r.fabric.levels[0].reduces
    ]
    return [*SHARED, *own]


def value(c: Collectives, name: str) -> float:
    """The constant of that dotted name: kinds.key, or network.key."""
    section, key = name.split(".")
    return getattr(c.kinds if section == "kinds" else c.networks[section], key)


def fit(data: list[Rows], c: Collectives) -> dict[str, float]:
    """The fitted constants by dotted name."""
    knobs = names(data)
    x = np.array([value(c, name) for name in knobs])

    def loss(v):
        trial = with_values(c, dict(zip(knobs, v, strict=True)))
        return (
            np.mean([np.mean(np.abs(np.log(predicted(r, trial) / r.seconds))) for r in data])
            if v[0] < 0.95
            else 9.0
        )

    for _ in range(PASSES):
        x = descend(loss, x)
    return dict(zip(knobs, x.tolist(), strict=True))


def unseen(values: dict[str, float], family: str) -> dict[str, float]:
    """The constants of a family that was not fitted: geometric means over those that were."""
    result = {}
    for key in OWN:
        seen = [
            v
            for name, v in values.items()
            if name.endswith("." + key) and name.split(".")[0] not in ("switch", "kinds")
        ]
        if seen:
            result[f"{family}.{key}"] = float(np.exp(np.mean(np.log(seen))))
    return result


def residual(rows: Rows, c: Collectives) -> str:
    """Median / mean error in percent over all rows, and over those of at least 16 MB."""
    error = 100.0 * np.abs(predicted(rows, c) / rows.seconds - 1.0)
    large = error[rows.bytes >= LARGE]
    return (
        f"{np.median(error):5.1f} / {error.mean():5.1f} %   >= 16 MB {np.median(large):5.1f} /"
        f" {large.mean():5.1f} %"
    )


def main(path: str, write: bool, left_out: bool) -> None:
    """Fit the constants to the measured collectives of the CSV file `path`, print them with their
    residuals, each device left out in its turn if asked, and write them if asked.
    """
    every, c = read(path), collectives()
    data = [r for r in every if "aiconfigurator" in r.source]
    values = fit(data, c)
    fitted = with_values(c, values)
    for name, new in values.items():
        print(f"{name:24s} {new:10.4g}   was {value(c, name):.4g}")
    for rows in every:
        kind = "fitted " if rows in data else "unseen "
        print(
            f"{kind} {rows.source:30s} {rows.family:10s} {len(rows.bytes):4d} rows "
            f" {residual(rows, fitted)}"
        )
    for out in data if left_out else ():
        rest = fit([r for r in data if r is not out], c)
        print(
            f"left out {out.family:10s}"
            f" {residual(out, with_values(c, {**rest, **unseen(rest, out.family)}))}"
        )
    if write:
        error = (
            np.concatenate([np.abs(predicted(r, fitted) / r.seconds - 1.0) for r in data]) * 100.0
        )
        text = f"{np.median(error):.1f} / {error.mean():.1f} % median / mean over {len(error)} rows"
        for name, new in {
            **values,
            **{k.replace("any", "switch"): v for k, v in unseen(values, "any").items()},
        }.items():
            put(HERE / "collectives.toml", *name.split("."), new, text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", help="measured collectives, CSV")
    parser.add_argument(
        "--write",
        action="store_true",
        help="write constants and residuals into hwdb/collectives.toml",
    )
    parser.add_argument(
        "--left-out", action="store_true", help="also fit with each device left out"
    )
    options = parser.parse_args()
    main(options.file, options.write, options.left_out)
