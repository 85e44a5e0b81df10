"""Layouts per second that the search evaluates on one core: `python benchmarks/layouts.py`.

GPT-3 175B on H100s over a grid of dp, tp, pp, vpp, cp, zero, micro-batch and recompute. The time is
that of a whole search, tracing of ranks included, after one search that has imported and read
everything.
"""

import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported

from roofcast import Scenario  # noqa: E402
from roofcast.simulator.choose.search import search  # noqa: E402

SCENARIO = Scenario(
    model="gpt3-175b",
    device="h100-sxm5",
    batch=1536,
    sequence=2048,
    precision="bf16",
    optimizer="adamw",
    stack="pytorch-eager",
)
GRID = {
    "tp": [1, 2, 4, 8],
    "cp": [1, 2],
    "micro_batch": [1, 2, 4],
    "recompute": ["none", "selective", "full"],
    "dp": [d for d in range(1, 513) if 1536 % d == 0] + [5, 7, 10, 20, 40, 80],
    "pp": [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 96],
    "vpp": [1, 2, 3, 4, 6, 8, 12],
    "zero": [0, 1, 2, 3],
}


def main() -> None:
    """Print how many layouts there are, the best, and the rates."""
    search(SCENARIO, {name: values[:1] for name, values in GRID.items()})
    start = time.process_time()
    found = search(SCENARIO, GRID)
    seconds = time.process_time() - start
    n, refused = len(found.step_s), int(found.refused.sum())
    fit, best = int(found.fits.sum()), found.best()
    print(f"{n} layouts in {seconds:.2f} s of one core: {refused} invalid, {n - refused} forecast,")
    print(f"of which {fit} fit in memory")
    layout = {name: column[best].item() for name, column in found.layouts.items()}
    print(f"best: {layout}, {found.step_s[best]:.2f} s per step")
    print(f"{int((n - refused) / seconds)} layouts per second forecast")
    print(f"{int(refused / seconds)} invalid layouts per second rejected in the same time")


if __name__ == "__main__":
    main()
