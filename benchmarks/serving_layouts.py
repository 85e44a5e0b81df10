"""(device, layout, number of users) points per second that a search over servers forecasts on one
core, and the seconds of a choice over all devices with a price.

    python benchmarks/serving_layouts.py [--every] [--choose]

Llama 3.1 70B on 8 of each of 4 GPUs, three formats of weights and two of the cache; tracing
included, imports and files not. --every: every number of users, not some 50 for each layout.
"""

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported

import numpy as np  # noqa: E402

from roofcast import hwdb  # noqa: E402
from roofcast.simulator.choose.wanted import Wanted  # noqa: E402
from roofcast.simulator.serving import search as module  # noqa: E402
from roofcast.simulator.serving.asked import Level, Serving  # noqa: E402
from roofcast.simulator.serving.hardware_chosen import choose  # noqa: E402
from roofcast.simulator.serving.load import Load  # noqa: E402

ON = ["h100-sxm5", "h200-sxm", "a100-sxm4-80gb", "mi300x"]
MODELS = ("llama-3.1-8b", "llama-3.1-70b", "deepseek-v3")
LEVEL = Level({"ttft": 0.5, "tpot": 0.05})


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--every", action="store_true")
    parser.add_argument("--choose", action="store_true")
    wanted = parser.parse_args()
    if wanted.choose:
        devices = [name for name in hwdb.devices() if hwdb.device(name).kind != "cpu"]
        for model in MODELS:
            load = Load(kind="rate", amount=5.0)
            asked = Serving(model=model, device="", load=load, weights="fp8")
            start = time.process_time()
            found = choose(asked, devices, Wanted(), "cost", LEVEL)
            seconds = time.process_time() - start
            best = found.choices[0]
            print(f"{model}: {seconds:.1f} s, {found.layouts} layouts, {found.counted} counted;"
                  f" {best.devices} {best.device}")  # fmt: skip
        return
    if wanted.every:
        module.numbers = lambda most: np.arange(1.0, most + 1)  # type: ignore[attr-defined]
    load = Load(kind="concurrency")
    asked = Serving(model="llama-3.1-70b", device="", load=load, devices=8, weights="any", kv="any")
    module.search(Serving(model="gpt2", device="", load=load, devices=1), ON)  # imports and files
    start = time.process_time()
    found = module.search(asked, ON)
    seconds = time.process_time() - start
    rows = len(found.layout)
    print(f"{found.considered} layouts on {len(ON)} devices, {rows} points in {seconds:.2f} s")
    print(f"{len(found.layouts) / seconds:.0f} layouts per second, {rows / seconds:.0f} points")


if __name__ == "__main__":
    main()
