"""Latency of forecasts of serving: `python benchmarks/serving_latency.py`.

CPU and wall milliseconds, of several runs the best and the median: other work on the machine
disturbs the best CPU time least. Cold: the command as a whole process, its bytecode compiled. Warm:
a forecast of another load in a process that knows the server; mean values alone, as search and
tables use them, and with a replay of requests for percentiles. Beside them the replay of a long
trace.
"""

import time
from collections.abc import Callable

import numpy as np
from latency import cold, told

from roofcast.simulator.serving.asked import Serving
from roofcast.simulator.serving.chain import held_of, replica, serve, steps_of
from roofcast.simulator.serving.load import Load, requests
from roofcast.simulator.serving.replay import replay

COLD = (
    "serving llama-3-8b --on h100-sxm5 --batch 8",
    "serving llama-3-8b --on h100-sxm5 --concurrency 64",
    "serving llama-3-8b --on h100-sxm5 --rate 5",
    "serving llama-3-8b --on h100-sxm5 --slo tpot=20ms",
    "serving deepseek-v3 --on h200-sxm --tp 8 --weights fp8 --concurrency 64",
)
SERVERS = (
    {"model": "llama-3-8b", "device": "h100-sxm5"},
    {"model": "deepseek-v3", "device": "h200-sxm", "tp": 8, "weights": "fp8"},
)
RUNS = 15
COLD_RUNS = 7
TRACE = 100_000  # requests


def timed(run: Callable[[int], object], runs: int = RUNS) -> str:
    """CPU and wall milliseconds of run(i), after one to warm up."""
    run(0)
    cpu, wall = [], []
    for i in range(1, runs + 1):
        before, start = time.process_time(), time.perf_counter()
        run(i)
        cpu.append(time.process_time() - before)
        wall.append(time.perf_counter() - start)
    return f"{told(cpu)} ms CPU {told(wall)} ms wall"


def warm(server: dict[str, object], kind: str, replays: bool) -> str:
    """A forecast of one load after another."""
    start = {"concurrency": 40.0, "batch": 8.0, "rate": 0.5}[kind]

    def run(i: int) -> object:
        load = Load(kind=kind, amount=start * (1 + 0.01 * i) // 1 or start)
        return serve(Serving(load=load, **server), replays=replays)  # type: ignore[arg-type]

    return timed(run, RUNS if not replays else 5)


def long_trace() -> str:
    """100,000 requests at 70 % of the highest rate."""
    of = replica(Serving(load=Load(kind="offline"), **SERVERS[0]))  # type: ignore[arg-type]
    load = Load(kind="rate", amount=9.0)
    held = held_of(of, load)
    steps = steps_of(of, load, held, 1.1 * (load.input_len + load.output_len))
    asked = requests(load, TRACE)
    before, start = time.process_time(), time.perf_counter()
    found = replay(steps, asked, held)
    cpu, wall = time.process_time() - before, time.perf_counter() - start
    assert np.isfinite(found.e2e).all()
    return f"{cpu:8.2f} s CPU  {wall:8.2f} s wall"


def main() -> None:
    """Print a line per case."""
    print(f"{'':72}   best  median")
    for line in COLD:
        print(f"{line[:70]:72}{cold(line, COLD_RUNS)}")
    for server in SERVERS:
        for kind in ("batch", "concurrency", "rate"):
            for replays in (False, True):
                what = "with replay" if replays else "mean values"
                name = f"warm: {server['model']}, {kind}, {what}"
                print(f"{name:72}{warm(server, kind, replays)}")
    print(f"{f'replay of {TRACE:,} requests':72}{long_trace()}")


if __name__ == "__main__":
    main()
