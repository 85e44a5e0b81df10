"""Time per layout of the closed forms of pipelines and collectives.

python benchmarks/schedules.py
"""

import time
from collections.abc import Callable

import numpy as np

from roofcast import hwdb
from roofcast.hwdb.collective_constants import collectives
from roofcast.simulator.parallel.collectives import all_gather, all_reduce, all_to_all, send_recv
from roofcast.simulator.parallel.fabric import groups
from roofcast.simulator.parallel.networks import fabric_of
from roofcast.simulator.parallel.pipeline.schedule import KINDS, Stages, pipeline

LAYOUTS = 100_000


def timed(name: str, run: Callable[[], object]) -> None:
    """Print the nanoseconds per layout of a formula over all LAYOUTS: the best of three runs."""
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    print(f"{name:16s} {1e9 * best / LAYOUTS:7.0f} ns per layout")


def main() -> None:
    """Print one line per formula."""
    rng = np.random.default_rng(0)
    tp, pp, dp = (2.0 ** rng.integers(0, 4, LAYOUTS) for _ in range(3))
    vpp = 2.0 ** rng.integers(0, 3, LAYOUTS)
    micro_batches = pp * 2.0 ** rng.integers(0, 5, LAYOUTS)
    forward, backward = rng.uniform(1, 2, LAYOUTS), rng.uniform(1, 4, LAYOUTS)
    ends = (0.1 * forward, 0.1 * backward, 0.1 * forward)
    stages = Stages(forward, backward, forward, ends, ends)
    bytes = 1e6 * forward
    fabric, c = fabric_of(None, hwdb.device("h100-sxm5"), 512), collectives()
    timed("groups", lambda: groups(fabric, tp, 1.0, dp, pp))
    placed = groups(fabric, tp, 1.0, dp, pp)
    for name, formula in {
        "all-reduce": all_reduce,
        "all-gather": all_gather,
        "all-to-all": all_to_all,
        "send": send_recv,
    }.items():
        timed(name, lambda formula=formula: formula(bytes, placed.gradient, fabric, c))
    for kind in KINDS:
        timed(kind, lambda kind=kind: pipeline(kind, stages, pp, vpp, micro_batches, 0.01))


if __name__ == "__main__":
    main()
