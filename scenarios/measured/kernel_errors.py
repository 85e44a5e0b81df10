"""Forecast of measured kernels: each row's time, predicted and printed roofline, and the errors by
group.

python -m roofcast.scenarios.measured.kernel_errors FILE.csv[.gz] ...
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import msgspec
import numpy as np
import pandas as pd

from roofcast import hwdb
from roofcast.hwdb import constants
from roofcast.hwdb.constants import Kernels
from roofcast.hwdb.errors import UnknownName
from roofcast.hwdb.records import Device
from roofcast.scenarios.measured.kernels import Group, read
from roofcast.simulator.times.attention import attention, visible_columns
from roofcast.simulator.times.bounds import lower_bound
from roofcast.simulator.times.conv import conv
from roofcast.simulator.times.matmul import matmul, tiled
from roofcast.simulator.times.rates import Rates, resolve
from roofcast.simulator.times.stream import stream
from roofcast.simulator.work.ops.attention import attention_flops

# cycles an attention call of a serving framework takes to start: rotary, cache append, kernel
CALL_ATTENTION = 25000.0
# of DRAM time, where weights and activations of replayed calls stay in a large L2 beside GDDR
# memory
WARM_COST = 0.3
# of DRAM time, where kernels that memory limits are timed over and over on operands that fit in L2
WARM_STREAM = 0.87
# rate of the algorithm that a library's heuristics choose for a convolution, of the one that a
# search finds
HEURISTIC = 0.9
# rate before a board's limit of power acts, of that after; seconds that takes: few calls are timed,
# with gaps
BURST, REACTION = (1.7, 3e-3)
# of the host's floor that stays visible beside a long kernel when two events bracket one call
EVENT_GAP = 0.6


def seconds(group: Group, device: Device, rates: Rates, c: Kernels):
    """Predicted seconds of the rows of a group, with what their clock adds to a kernel alone."""
    t = _kernels(group, device, rates, c)
    if group.clock != "event":
        return t
    if rates.headroom > 1.0:
        gain = min(BURST, rates.headroom)
        fast = _kernels(
            group,
            device,
            rates._replace(sustained=gain * rates.sustained, headroom=rates.headroom / gain),
            c,
        )
        t = (fast * REACTION + t * t) / (REACTION + t)
    floor = np.quantile(group.seconds, 0.05)
    return np.maximum(floor, EVENT_GAP * floor + t)


def _kernels(group: Group, device: Device, rates: Rates, c: Kernels):
    """Predicted seconds of the kernels of each row, back to back."""
    a, width = group.args, rates.width
    if group.op == "matmul":
        out = 2.0 if width <= 2.0 else 4.0
        cold = 1.0
        if group.clock == "call" and device.memory.type.startswith("GDDR"):
            cold, cold_weights = _cold(
                a["m"], a["n"], a["k"], width, out, device.cache["l2"].capacity
            )
            t = _warm_matmul(a["m"], a["n"], a["k"], width, out, cold, cold_weights, rates, c)
        else:
            t = matmul(a["m"], a["n"], a["k"], a["batch"], width, out, rates, c)
        if "casts" in a:  # kernels of the same call that quantize its activations
            t = t + _casts(cold * a["m"] * a["k"], a["casts"], a["whole_rows"], width, rates, c)
    elif group.op == "attention":
        if group.clock == "call":
            c = msgspec.structs.replace(
                c, attention=msgspec.structs.replace(c.attention, start=CALL_ATTENTION)
            )
        t = attention(**a, width_bytes=width, rates=rates, c=c)
    elif group.op == "conv":
        t = conv(group.kind, **a, width_bytes=width, rates=rates, c=c) / (
            HEURISTIC if group.clock == "event" else 1.0
        )
    else:
        if group.clock == "kernel" and group.kind in ("elementwise", "rms_norm"):
            a = a | {
                "bytes": (
                    a["bytes"]
                    * (1.0 - (1.0 - WARM_STREAM) * _fits(a["bytes"] / device.cache["l2"].capacity))
                )
            }
        t = stream(group.kind, **a, rates=rates, c=c)
    return t


def _casts(size, launches, whole_rows, width, rates: Rates, c: Kernels):
    """Kernels that quantize `size` 16-bit activations to `width` bytes, one after the other: the
    last reads and writes, one before it looks for the largest. A scale a row needs the whole row
    first, as a norm does; a scale a block of 16 to 128 does not.
    """
    bytes = size * (2.0 + width + 2.0 * (launches >= 2.0))
    share = np.where(whole_rows, c.stream.norm, c.stream.rows)
    return launches * c.stream.start_rows / rates.clock + bytes / (
        share * rates.stream * rates.bandwidth
    )


def _cold(m, n, k, width, out, l2):
    """DRAM time of activations and of weights in calls replayed with six copies of the weights:
    what fits in L2 costs WARM_COST of it.
    """
    a, b, y = width * m * k, width * k * n, out * m * n
    return 1.0 - (1.0 - WARM_COST) * _fits((a + y) / l2), 1.0 - (1.0 - WARM_COST) * _fits(
        (6.0 * b + a + y) / l2
    )


def _fits(share):
    """How much of a set of `share` times a cache's size is still there the next time: all up to
    0.85, none from 1.15.
    """
    return np.clip((1.15 - share) / 0.3, 0.0, 1.0)


def _warm_matmul(m, n, k, width, out, cold, cold_weights, rates: Rates, c: Kernels):
    """`matmul` with less DRAM time for activations and weights."""
    traffic = cold * (width * m * k + out * m * n) + cold_weights * width * k * n
    return tiled(
        m,
        n,
        k,
        np.ones_like(m),
        width,
        traffic,
        2.0 * width * m * n * k / rates.footprint,
        rates,
        c,
    )


def roofline(group: Group, rates: Rates):
    """The plain printed roofline of the rows [s]."""
    a, width = group.args, rates.width
    if group.op == "matmul":
        flops = 2.0 * a["batch"] * a["m"] * a["n"] * a["k"]
        out = 2.0 if width <= 2.0 else 4.0
        return lower_bound(
            flops,
            0.0,
            a["batch"] * (width * (a["m"] * a["k"] + a["k"] * a["n"]) + out * a["m"] * a["n"]),
            rates,
        )
    if group.op == "attention":
        columns = visible_columns(a["q_len"], a["kv_len"], a["causal"], a["window"])
        flops = attention_flops(a["batch"], a["heads"], a["q_len"], columns, a["head_dim"])
        per_head = a["q_len"] * a["heads"] + a["kv_len"] * a["kv_heads"]
        moved = 2.0 * width * a["batch"] * a["head_dim"] * per_head
        return lower_bound(flops, 0.0, moved, rates)
    if group.op == "conv":
        flops = (
            2.0 * a["batch"] * a["pixels_out"] * a["taps"] * a["c_in"] * a["c_out"] / a["groups"]
        )
        x, y, w = (
            a["pixels_in"] * a["c_in"],
            a["pixels_out"] * a["c_out"],
            a["taps"] * a["c_in"] * a["c_out"] / a["groups"],
        )
        return lower_bound(flops, 0.0, width * (a["batch"] * (x + y) + w), rates)
    return lower_bound(0.0, a["flops"], a["bytes"], rates)


def rows(group: Group, device: Device, c: Kernels | None = None) -> pd.DataFrame:
    """The group as a table: what it is, seconds measured, predicted and by the printed roofline.
    Rows faster than 1 / 1.05 of the roofline are broken measurements and left out (convolutions are
    not: Winograd saves FLOPs).
    """
    c = c or constants.kernels()
    rates = resolve(device, group.format, c).rates
    table = pd.DataFrame(
        {
            "seconds": group.seconds,
            "predicted": seconds(group, device, rates, c),
            "roofline": roofline(group, rates),
        }
    )
    table.insert(0, "format", group.format)
    table.insert(0, "kind", group.kind)
    table.insert(0, "op", group.op)
    table.insert(0, "device", device.id)
    table.insert(0, "file", group.file)
    for name, values in group.args.items():
        table[name] = values
    return table if group.op == "conv" else table[table.seconds >= table.roofline / 1.05]


def evaluate(
    path: str, find: Callable[[str], Device] = hwdb.device, c: Kernels | None = None
) -> pd.DataFrame:
    """All rows of a file of measured kernels with their forecasts; those of devices that hwdb does
    not know are left out.
    """
    tables = []
    for group in read(path):
        try:
            device = find(group.device)
        except UnknownName:
            continue
        tables.append(rows(group, device, c))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def summary(table: pd.DataFrame, by=("file", "device", "op", "kind", "format")) -> pd.DataFrame:
    """Rows, bias and median / mean |predicted / measured - 1| of each group, the plain roofline's
    beside it.
    """

    def figures(g):
        error, naive = g.predicted / g.seconds - 1.0, g.roofline / g.seconds - 1.0
        return pd.Series(
            {
                "rows": len(g),
                "bias": error.median(),
                "median": error.abs().median(),
                "mean": error.abs().mean(),
                "roofline_median": naive.abs().median(),
                "roofline_mean": naive.abs().mean(),
            }
        )

    return table.groupby(list(by)).apply(figures, include_groups=False)


def spread(table: pd.DataFrame, count: int = 50) -> pd.DataFrame:
    """A fixed choice of rows: evenly spaced in the order of their measured time (ties in the file's
    order).
    """
    ordered = table.sort_values("seconds", kind="stable")
    return ordered.iloc[
        np.unique(np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int))
    ]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(summary(evaluate(name)).to_string(float_format="%.3f"))
