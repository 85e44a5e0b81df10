"""Forecasts of measured kernels: time, prediction and printed roofline per row, errors per group.

    python -m roofcast.scenarios.measured.kernel_errors FILE.csv[.gz] ...

FILE holds measured kernels in one of the layouts of `kernels.py`; the shipped tables are
scenarios/measured/runs/kernels-*.csv. Prints the errors of each file, device, op and format.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from roofcast import hwdb
from roofcast.hwdb import constants
from roofcast.hwdb.constants import Kernels
from roofcast.hwdb.errors import UnknownName
from roofcast.hwdb.records import Device
from roofcast.scenarios.measured.kernels import Group, read
from roofcast.simulator.times.attention import attention, visible_columns
from roofcast.simulator.times.bounds import lower_bound
from roofcast.simulator.times.conv import conv, least_flops
from roofcast.simulator.times.matmul import matmul, tiled
from roofcast.simulator.times.power import Board, Energy, at_clocks, board_of, clocks, held
from roofcast.simulator.times.rates import Rates, resolve
from roofcast.simulator.times.stream import stream
from roofcast.simulator.work.ops.attention import attention_flops

if TYPE_CHECKING:
    import pandas as pd

# start of an attention call of a serving framework: rotary embedding, cache append, kernel [cycles]
CALL_ATTENTION = 25000.0
# time of operands that are still in the L2 cache, as a fraction of their DRAM time: in replayed
# calls on boards with a large L2 and GDDR memory; in memory-bound kernels timed in a loop
WARM_COST, WARM_STREAM = 0.3, 0.87
# copies of the weights that a replayed call cycles through
COPIES = 6.0
# rate of the convolution algorithm that the library's heuristics choose, of the one a search finds
HEURISTIC = 0.9
# power that a board takes before its limit acts, of that limit: in replays of a few milliseconds
BURST = 1.7
# part of the host's time that shows beside a long kernel when two events bracket one call
EVENT_GAP = 0.6


def seconds(group: Group, device: Device, rates: Rates, c: Kernels) -> np.ndarray:
    """Predicted seconds of each row, as the group's clock would measure them.

    Replays are too short for the power limit of the board to act in full. Between two events a call
    shows part of its launch.
    """
    board = board_of(device, c.power)
    if board is None:
        t = _device_seconds(group, device, rates, c)
    else:
        x = clocks(c.power)
        at_each = _device_seconds(group, device, at_clocks(rates, x), c)
        at_each = np.broadcast_to(at_each, (len(x), len(group.seconds)))
        limit = board.limit * (BURST if group.clock in ("call", "kernel") else 1.0)
        t = held(at_each, _work(group, rates, board), board._replace(limit=limit), c.power).seconds
    if group.clock != "event":
        return t
    floor = np.quantile(group.seconds, 0.05)
    return np.maximum(floor, EVENT_GAP * floor + t)


def _work(group: Group, rates: Rates, board: Board) -> Energy:
    """Energy of each row at the highest clock and voltage."""
    a = group.args
    if group.op == "stream":
        operations = a["flops"] + 2.0 * a["special"]
        return Energy(board.vector * operations, board.byte * a["bytes"])
    flops, moved = WORK[group.op](a, rates)
    if group.op == "conv" and not rates.tensor:
        flops = least_flops(flops, a["taps"], a["groups"], rates, a["unit_stride"])
    flop = board.matrix[rates.format] if rates.tensor else board.vector
    return Energy(flop * flops, board.byte * moved)


def _device_seconds(group: Group, device: Device, rates: Rates, c: Kernels) -> np.ndarray:
    """Predicted seconds of each row's kernels, back to back."""
    formula = {"matmul": _matmul, "attention": _attention, "conv": _conv}.get(group.op, _stream)
    return formula(group, device, rates, c)


def _matmul(group: Group, device: Device, rates: Rates, c: Kernels) -> np.ndarray:
    """A product, and the kernels of the same call that quantize its activations."""
    a, width, out = group.args, rates.width, _out_bytes(rates)
    cold: np.ndarray | float = 1.0
    if group.clock == "call" and device.memory.type.startswith("GDDR"):
        l2 = float(device.cache["l2"].capacity)
        cold, cold_weights = _cold_fractions(a["m"], a["n"], a["k"], width, out, l2)
        traffic = cold * (width * a["m"] * a["k"] + out * a["m"] * a["n"])
        traffic = traffic + cold_weights * width * a["k"] * a["n"]
        reread = 2.0 * width * a["m"] * a["n"] * a["k"] / rates.footprint
        one = np.ones_like(a["m"])
        t = tiled(a["m"], a["n"], a["k"], one, width, traffic, reread, rates, c)
    else:
        t = matmul(a["m"], a["n"], a["k"], a["batch"], width, out, rates, c)
    if "casts" in a:
        t = t + _casts(cold * a["m"] * a["k"], a["casts"], a["whole_rows"], width, rates, c)
    return t


def _out_bytes(rates: Rates) -> float:
    """Bytes per element of a product's result."""
    return 2.0 if rates.width <= 2.0 else 4.0


def _casts(
    size: np.ndarray,
    launches: np.ndarray,
    whole_rows: np.ndarray,
    width: float,
    rates: Rates,
    c: Kernels,
) -> np.ndarray:
    """Seconds of kernels that quantize `size` 16-bit activations to `width` bytes, one by one.

    The last kernel reads and writes; one before it finds the largest value. A scale per row needs
    the whole row first, as a norm does; a scale per block of 16 to 128 does not.
    """
    bytes = size * (2.0 + width + 2.0 * (launches >= 2.0))
    share = np.where(whole_rows, c.stream.norm, c.stream.rows)
    start = launches * c.stream.start_rows / rates.clock
    return start + bytes / (share * rates.stream * rates.bandwidth)


def _cold_fractions(
    m: np.ndarray, n: np.ndarray, k: np.ndarray, width: float, out: float, l2: float
) -> tuple[np.ndarray, np.ndarray]:
    """DRAM time of activations and of weights in replayed calls, of what it would be without L2."""
    a, b, y = width * m * k, width * k * n, out * m * n
    activations = 1.0 - (1.0 - WARM_COST) * _still_cached((a + y) / l2)
    weights = 1.0 - (1.0 - WARM_COST) * _still_cached((COPIES * b + a + y) / l2)
    return activations, weights


def _still_cached(size: ArrayLike) -> np.ndarray:
    """The part of a working set, given in cache sizes, that the next call finds in the cache.

    All of it up to 0.85 cache sizes, nothing from 1.15.
    """
    return np.clip((1.15 - np.asarray(size)) / 0.3, 0.0, 1.0)


def _attention(group: Group, device: Device, rates: Rates, c: Kernels) -> np.ndarray:
    if group.clock == "call":
        start = msgspec.structs.replace(c.attention, start=CALL_ATTENTION)
        c = msgspec.structs.replace(c, attention=start)
    a = group.args
    lengths = a["q_len"], a["kv_len"], a["head_dim"]
    return attention(
        a["batch"], a["heads"], a["kv_heads"], *lengths, a["causal"], rates.width, rates, c,
        window=a["window"],
    )  # fmt: skip


def _conv(group: Group, device: Device, rates: Rates, c: Kernels) -> np.ndarray:
    t = conv(group.kind, **group.args, width_bytes=rates.width, rates=rates, c=c)
    return t / HEURISTIC if group.clock == "event" else t


def _stream(group: Group, device: Device, rates: Rates, c: Kernels) -> np.ndarray:
    moved = group.args["bytes"]
    if group.clock == "kernel" and group.kind in ("elementwise", "rms_norm"):
        cached = _still_cached(moved / device.cache["l2"].capacity)
        moved = moved * (1.0 - (1.0 - WARM_STREAM) * cached)
    return stream(group.kind, moved, group.args["flops"], group.args["special"], rates, c)


def roofline(group: Group, rates: Rates) -> np.ndarray:
    """Seconds of each row by the roofline at datasheet peaks."""
    a = group.args
    if group.op == "stream":
        return lower_bound(0.0, a["flops"], a["bytes"], rates)
    flops, moved = WORK[group.op](a, rates)
    return lower_bound(flops, 0.0, moved, rates)


Work = tuple[np.ndarray, np.ndarray]  # FLOPs on matrix units, and compulsory bytes


def _matmul_work(a: dict[str, np.ndarray], rates: Rates) -> Work:
    m, n, k = a["m"], a["n"], a["k"]
    moved = a["batch"] * (rates.width * (m * k + k * n) + _out_bytes(rates) * m * n)
    return 2.0 * a["batch"] * m * n * k, moved


def _attention_work(a: dict[str, np.ndarray], rates: Rates) -> Work:
    columns = visible_columns(a["q_len"], a["kv_len"], a["causal"], a["window"])
    flops = attention_flops(a["batch"], a["heads"], a["q_len"], columns, a["head_dim"])
    per_head = a["q_len"] * a["heads"] + a["kv_len"] * a["kv_heads"]
    return flops, 2.0 * rates.width * a["batch"] * a["head_dim"] * per_head


def _conv_work(a: dict[str, np.ndarray], rates: Rates) -> Work:
    x, y = a["pixels_in"] * a["c_in"], a["pixels_out"] * a["c_out"]
    w = a["taps"] * a["c_in"] * a["c_out"] / a["groups"]
    flops = 2.0 * a["batch"] * a["pixels_out"] * a["taps"] * a["c_in"] * a["c_out"] / a["groups"]
    return flops, rates.width * (a["batch"] * (x + y) + w)


WORK = {"matmul": _matmul_work, "attention": _attention_work, "conv": _conv_work}


def rows(group: Group, device: Device, c: Kernels | None = None) -> pd.DataFrame:
    """The group as a table: file, device, op, kind, format, seconds measured, predicted and by the
    roofline at datasheet peaks, and the arguments.

    Rows more than 5 % faster than the roofline are broken measurements and are left out, except
    convolutions, which Winograd kernels compute with fewer FLOPs.
    """
    import pandas as pd

    c = c or constants.kernels()
    rates = resolve(device, group.format, c).rates
    table = pd.DataFrame(
        {
            "file": group.file,
            "device": device.id,
            "op": group.op,
            "kind": group.kind,
            "format": group.format,
            "seconds": group.seconds,
            "predicted": seconds(group, device, rates, c),
            "roofline": roofline(group, rates),
            **group.args,
        }
    )
    return table if group.op == "conv" else table[table.seconds >= table.roofline / 1.05]


def evaluate(
    path: str | Path, find: Callable[[str], Device] = hwdb.device, c: Kernels | None = None
) -> pd.DataFrame:
    """`rows` of every group of a file; devices that `find` does not know are left out.

    Raises BadInput where the file is not a table of measured kernels.
    """
    import pandas as pd

    tables = []
    for group in read(path):
        try:
            device = find(group.device)
        except UnknownName:
            continue
        tables.append(rows(group, device, c))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def summary(
    table: pd.DataFrame, by: Sequence[str] = ("file", "device", "op", "kind", "format")
) -> pd.DataFrame:
    """Errors of each group of `rows`, as fractions.

    Columns: rows; bias (median of predicted / measured - 1); median and mean of its absolute value;
    the same two of the roofline at datasheet peaks.
    """
    import pandas as pd

    error = table.predicted / table.seconds - 1.0
    size, roofline_size = error.abs(), (table.roofline / table.seconds - 1.0).abs()
    keys = [table[key] for key in by]
    return pd.DataFrame(
        {
            "rows": table.groupby(keys).size().astype(float),
            "bias": error.groupby(keys).median(),
            "median": size.groupby(keys).median(),
            "mean": size.groupby(keys).mean(),
            "roofline_median": roofline_size.groupby(keys).median(),
            "roofline_mean": roofline_size.groupby(keys).mean(),
        }
    )


def spread(table: pd.DataFrame, count: int = 50) -> pd.DataFrame:
    """At most `count` rows, evenly spaced in the order of their measured time.

    The rows of scenarios/measured/runs/kernels-*.csv were chosen from their sources in this way.
    Rows with equal times keep the order of the file.
    """
    ordered = table.sort_values("seconds", kind="stable")
    places = np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int)
    return ordered.iloc[np.unique(places)]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(summary(evaluate(name)).to_string(float_format="%.3f"))
