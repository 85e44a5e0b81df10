"""Fit how much the slowest node of many delays training with sharded weights.

    python -m roofcast.scenarios.fits.overlap [--write]

Rows: published ZeRO-3 runs that differ in nothing but the number of devices and the micro-batch,
in groups of one source, model, sequence, device and recomputation. Each group's mean error is taken
off, so that rates of products and attention do not count, only how speed falls with devices.
Fitted, to the groups of FITTED: straggling of [kinds]. The groups of other sources are forecast and
printed. --write puts value and residual into hwdb/collectives.toml.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import msgspec
import numpy as np

from roofcast.hwdb.collective_constants import collectives
from roofcast.hwdb.constants import HERE
from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.fits.writing import put
from roofcast.scenarios.measured.training import LlmRun, published
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.parallel import traffic

FITTED = "llm-foundry"  # one network known to all rows, 8 to 64 A100
# columns that a group has in common
ALIKE = ("model_name", "seq_len", "device", "dtype", "recompute", "tp", "zero_stage", "shard")
TRIED = np.arange(0.0, 0.0501, 0.0025)


def groups(stages: tuple[int, ...] = (3,)) -> dict[tuple[str, ...], list[LlmRun]]:
    """Published runs under these ZeRO stages by what they have in common, where device counts
    differ.
    """
    found: dict[tuple[str, ...], list[LlmRun]] = defaultdict(list)
    for run in published():
        scenario = run.scenario
        if run.measured_s and scenario and not run.excluded and scenario.zero in stages:
            if scenario.pp == 1:
                found[run.source, *(str(run.row.get(c)) for c in ALIKE)].append(run)
    counts = {key: {r.row["n_devices"] for r in runs} for key, runs in found.items()}
    return {key: runs for key, runs in found.items() if len(counts[key]) > 1}


@contextmanager
def trial(straggling: float) -> Iterator[None]:
    """A context in which nodes differ so much."""
    c = collectives()
    changed = msgspec.structs.replace(
        c, kinds=msgspec.structs.replace(c.kinds, straggling=straggling)
    )
    with patch.object(traffic, "network_constants", lambda: changed):
        yield


def errors(found: dict[tuple[str, ...], list[LlmRun]]) -> dict[str, float]:
    """Mean of |ln(predicted / measured)| by source, the mean of each group taken off."""
    sizes: dict[str, list[float]] = defaultdict(list)
    for key, runs in found.items():
        logs = []
        for run in runs:
            assert run.scenario and run.measured_s, "groups() takes no others"
            try:
                logs.append(np.log(forecast(run.scenario).step_time_s / run.measured_s))
            except RoofcastError:
                continue
        if logs:
            sizes[key[0]] += list(np.abs(np.array(logs) - np.mean(logs)))
    return {source: float(np.mean(rows)) for source, rows in sizes.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put the constant into its file")
    options = parser.parse_args()
    found = groups()
    mine = {key: runs for key, runs in found.items() if FITTED in key[0]}
    loss = {}
    for value in TRIED:
        with trial(float(value)):
            loss[float(value)] = float(np.mean(list(errors(mine).values())))
        print(f"straggling {value:.4f}: {100 * loss[float(value)]:.2f} %", flush=True)
    best = min(loss, key=lambda value: loss[value])
    for value in (0.0, best):
        with trial(value):
            print(f"straggling {value:.4f}, mean error of the fall with devices by source:")
            for source, error in errors(found).items():
                print(f"  {source}: {100 * error:.2f} %")
    rows = sum(len(runs) for runs in mine.values())
    residual = f"{100 * loss[0.0]:.1f} -> {100 * loss[best]:.1f} % mean over {rows} rows"
    if options.write:
        put(HERE / "collectives.toml", "kinds", "straggling", best, residual)


if __name__ == "__main__":
    main()
