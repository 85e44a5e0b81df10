"""How many layouts a second the closed forms of schedule and collectives cost: `python
benchmarks/schedules.py`.
"""

import time

import numpy as np

from roofcast import hwdb
from roofcast.hwdb.collective_constants import collectives
from roofcast.simulator.parallel.collectives import all_gather, all_reduce, all_to_all, send_recv
from roofcast.simulator.parallel.fabric import fabric_of, groups
from roofcast.simulator.parallel.pipeline.schedule import KINDS, Stages, pipeline

LAYOUTS = 100_000


def timed(name: str, run) -> None:
    """Best of three."""
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    print(f"{name:16s} {1e9 * best / LAYOUTS:7.0f} ns a layout")


def main() -> None:
    rng = np.random.default_rng(0)
    tp, pp, dp = (2.0 ** rng.integers(0, 4, LAYOUTS) for _ in range(3))
    v, m = 2.0 ** rng.integers(0, 3, LAYOUTS), pp * 2.0 ** rng.integers(0, 5, LAYOUTS)
    f, b = rng.uniform(1, 2, LAYOUTS), rng.uniform(1, 4, LAYOUTS)
    ends = (0.1 * f, 0.1 * b, 0.1 * f)
    stages = Stages(f, b, f, ends, ends)
    fabric, c = fabric_of(None, hwdb.device("h100-sxm5"), 512), collectives()
    timed("groups", lambda: groups(fabric, tp, 1.0, dp, pp))
    placed = groups(fabric, tp, 1.0, dp, pp)
    for name, formula in {
        "all-reduce": all_reduce,
        "all-gather": all_gather,
        "all-to-all": all_to_all,
        "send": send_recv,
    }.items():
        timed(name, lambda formula=formula: formula(1e6 * f, placed.gradient, fabric, c))
    for kind in KINDS:
        timed(kind, lambda kind=kind: pipeline(kind, stages, pp, v, m, 0.01))


if __name__ == "__main__":
    main()
