"""Fit the constants of the collective formulas to nccl-tests within one node.

    python -m roofcast.scenarios.fits.collectives FILE [--left-out] [--write]

FILE is a CSV with the columns collective, device, n, nodes, bytes, time_us, interconnect, source,
as nccl-tests measure them (bytes is its size). The rows of the shipped constants are those of
github ai-dynamo/aiconfigurator; the head of hwdb/collectives.toml describes them. They are not
shipped.

Fitted, to the rows of A100, H100 and B200 whose source is aiconfigurator (median over library
versions): spread, all_reduce and chunk of [switch], the all-to-all constants of [kinds], and start,
hop, share and in_switch of the family of each device; families that are not measured get the
geometric means of theirs, in [switch]. Other rows of one node are forecast and shown, never fitted.
Loss: mean over devices of the mean |ln(predicted / measured)|.

--left-out fits each pair of devices and forecasts the third with the geometric means of the pair.
--write puts values and residuals into hwdb/collectives.toml, where the source starts with "fit".
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import msgspec
import numpy as np

from roofcast import hwdb
from roofcast.hwdb.collective_constants import Collectives, collectives
from roofcast.hwdb.constants import HERE
from roofcast.scenarios.fits.kernels import descend
from roofcast.scenarios.fits.writing import put
from roofcast.simulator.parallel.collectives import (
    all_gather,
    all_reduce,
    all_to_all,
    reduce_scatter,
    send_recv,
)
from roofcast.simulator.parallel.fabric import Fabric, placed
from roofcast.simulator.parallel.networks import fabric_of

DEVICES = {
    "a100_sxm": "a100-sxm4-80gb", "h100_sxm": "h100-sxm5", "b200_sxm": "b200-sxm",
    "A100": "a100-sxm4-80gb", "H100": "h100-sxm5",
}  # fmt: skip
FORMULA = {
    "all_reduce": all_reduce, "all_gather": all_gather, "reduce_scatter": reduce_scatter,
    "alltoall": all_to_all, "send_recv": send_recv,
}  # fmt: skip
FITTED = "aiconfigurator"  # source of the rows that are fitted
FAMILIES = ("ampere", "hopper", "blackwell")
SHARED = (  # by all families
    "switch.spread", "switch.all_reduce", "switch.chunk",
    "kinds.all_to_all_start", "kinds.all_to_all_hop",
)  # fmt: skip
OWN = ("start", "hop", "share", "in_switch")  # of each family
LARGE = 16e6  # bytes; residuals are also printed of these alone
PASSES = 3  # with so many constants the simplex shrinks too early: restarted where it stopped
MOST_SPREAD = 0.95  # the loss of bandwidth at two members stays well below all of it


class Rows(NamedTuple):
    """Measured collectives of one source and device; a field per column, an element per row."""

    source: str
    family: str
    fabric: Fabric
    collective: np.ndarray
    members: np.ndarray
    bytes: np.ndarray
    seconds: np.ndarray


def read(path: str) -> list[Rows]:
    """The rows within one node by source and device; of repeated measurements the median."""
    import pandas as pd

    table = pd.read_csv(path)
    in_pairs = table.interconnect.astype(str).str.contains("pairwise|NC96")  # NVLink bridges
    table = table[table.device.isin(DEVICES) & ~(table.nodes > 1) & (table.time_us > 0)]
    table = table[~in_pairs[table.index]]
    result = []
    for (source, name), part in table.groupby(["source", "device"]):
        rows = part.groupby(["collective", "n", "bytes"]).time_us.median().reset_index()
        device = hwdb.device(DEVICES[str(name)])
        result.append(
            Rows(
                source=str(source).split()[0],
                family=device.family,
                fabric=fabric_of(None, device, 8),
                collective=rows.collective.to_numpy(),
                members=rows.n.to_numpy(float),
                bytes=rows.bytes.to_numpy(float),
                seconds=rows.time_us.to_numpy() * 1e-6,
            )
        )
    return result


def predicted(rows: Rows, c: Collectives) -> np.ndarray:
    """Seconds of every row."""
    group, result = placed(rows.members, 1.0, rows.fabric), np.zeros(len(rows.bytes))
    for name in np.unique(rows.collective):
        seconds = FORMULA[name](rows.bytes, group, rows.fabric, c)
        result = np.where(rows.collective == name, seconds, result)
    return result


def with_values(c: Collectives, values: dict[str, float]) -> Collectives:
    """The constants with some replaced, by dotted name; those of "switch" in every family too."""
    networks, kinds = dict(c.networks), c.kinds
    for name, value in values.items():
        section, key = name.split(".")
        if section == "kinds":
            kinds = msgspec.structs.replace(kinds, **{key: value})
            continue
        for network in ("switch", *FAMILIES) if section == "switch" else (section,):
            networks[network] = msgspec.structs.replace(networks[network], **{key: value})
    return Collectives(networks, kinds)


def names(data: list[Rows]) -> list[str]:
    """Dotted names of the constants that are fitted to these devices."""
    own = [
        f"{rows.family}.{key}"
        for rows in data
        for key in OWN
        if key != "in_switch" or rows.fabric.levels[0].reduces
    ]
    return [*SHARED, *own]


def value(c: Collectives, name: str) -> float:
    """The constant of a dotted name: kinds.KEY or NETWORK.KEY."""
    section, key = name.split(".")
    return getattr(c.kinds if section == "kinds" else c.networks[section], key)


def fit(data: list[Rows], c: Collectives) -> dict[str, float]:
    """The fitted constants, by dotted name."""
    knobs = names(data)
    x = np.array([value(c, name) for name in knobs])

    def loss(v: np.ndarray) -> float:
        if v[0] >= MOST_SPREAD:  # the first knob is switch.spread
            return 9.0
        trial = with_values(c, dict(zip(knobs, v, strict=True)))
        errors = [np.mean(np.abs(np.log(predicted(r, trial) / r.seconds))) for r in data]
        return float(np.mean(errors))

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
    """Median / mean of |predicted / measured - 1| [%], over all rows and over the LARGE ones."""
    error = 100.0 * np.abs(predicted(rows, c) / rows.seconds - 1.0)
    large = error[rows.bytes >= LARGE]
    every = f"{np.median(error):5.1f} / {error.mean():5.1f} %"
    return f"{every}   >= 16 MB {np.median(large):5.1f} / {large.mean():5.1f} %"


def run(path: str, write: bool, left_out: bool) -> None:
    """Fit the constants to the collectives in a CSV, print them, and write them if asked."""
    every, c = read(path), collectives()
    data = [rows for rows in every if FITTED in rows.source]
    values = fit(data, c)
    fitted = with_values(c, values)
    for name, new in values.items():
        print(f"{name:24s} {new:10.4g}   was {value(c, name):.4g}")
    for rows in every:
        kind = "fitted " if FITTED in rows.source else "unseen "
        what = f"{rows.source:30s} {rows.family:10s} {len(rows.bytes):4d} rows"
        print(f"{kind} {what}  {residual(rows, fitted)}")
    for out in data if left_out else ():
        rest = fit([rows for rows in data if rows is not out], c)
        found = with_values(c, {**rest, **unseen(rest, out.family)})
        print(f"left out {out.family:10s} {residual(out, found)}")
    if write:
        write_constants(data, values, fitted)


def write_constants(data: list[Rows], values: dict[str, float], fitted: Collectives) -> None:
    """Put values, geometric means and residuals into hwdb/collectives.toml."""
    error = np.concatenate([np.abs(predicted(r, fitted) / r.seconds - 1.0) for r in data]) * 100.0
    text = f"{np.median(error):.1f} / {error.mean():.1f} % median / mean over {len(error)} rows"
    for name, new in (values | unseen(values, "switch")).items():
        section, key = name.split(".")
        put(HERE / "collectives.toml", section, key, new, text)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", metavar="FILE", help="measured collectives, CSV")
    parser.add_argument("--write", action="store_true", help="write the constants into hwdb")
    parser.add_argument("--left-out", action="store_true", help="also fit without each device")
    options = parser.parse_args()
    run(options.file, options.write, options.left_out)


if __name__ == "__main__":
    main()
