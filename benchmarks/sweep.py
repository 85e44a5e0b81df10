"""A sweep of 10,000 points on one core and on two, in one run: the ratio of their times.

python benchmarks/sweep.py [POINTS]
"""

import sys
import time

from roofcast.simulator.choose.axes import axis, grid
from roofcast.simulator.choose.sweep import chunks, here
from roofcast.simulator.choose.workers import processes
from roofcast.simulator.forecast.scenario import Scenario

POINTS = 10_000


def main() -> None:
    """Print the seconds on one core and on two, and their ratio."""
    points = int(sys.argv[1]) if len(sys.argv) > 1 else POINTS
    axes = [
        axis("batch=1..100:1"),
        axis(f"memory.bandwidth=x1..x{1 + (points / 100 - 1) / 100}:0.01"),
    ]
    todo = chunks(Scenario(model="llama-3-8b", device="h100-sxm5"), axes, grid(axes))
    seconds, rows = [], []
    for run in (here, processes(2)):
        begin = time.perf_counter()
        rows.append(dict(run(todo)))
        seconds.append(time.perf_counter() - begin)
    print(f"{sum(map(len, rows[0].values())):,} points, the same rows: {rows[0] == rows[1]}")
    print(
        f"one core {seconds[0]:.1f} s, two {seconds[1]:.1f} s: {seconds[0] / seconds[1]:.2f} times"
    )


if __name__ == "__main__":
    main()
