"""Latency of the command and of the engine: `python benchmarks/latency.py`.

The command as a whole process (CPU and wall time of several runs after one to warm up: the best,
which other work on the machine disturbs least, and the median), and predict() in a process that has
already imported and read everything.
"""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

COMMANDS = ("--help", "predict llama-3-8b --on h100-sxm5", "predict resnet50 --on rtx-3090")
FORECASTS = (("llama-3-8b", "h100-sxm5"), ("resnet50", "rtx-3090"), ("bert-base", "tpu-v4"))
RUNS = 15


def process(arguments: list[str]) -> tuple[float, float]:
    """CPU and wall seconds of one run of the command."""
    command = [sys.executable, "-m", "roofcast.reports.command", *arguments]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def told(seconds: Sequence[float]) -> str:
    """The best and the median, in milliseconds."""
    return f"{1e3 * min(seconds):7.1f} {1e3 * statistics.median(seconds):7.1f}"


def cold(line: str, runs: int = RUNS) -> str:
    """CPU and wall milliseconds of a command line as a whole process."""
    process(line.split())
    cpu, wall = zip(*(process(line.split()) for _ in range(runs)), strict=True)
    return f"{told(cpu)} ms CPU {told(wall)} ms wall"


def warm(model: str, device: str, runs: int = 50) -> float:
    """Median seconds of a predict() when everything has been imported and read."""
    from roofcast import predict

    times = []
    for _ in range(runs):
        start = time.perf_counter()
        predict(model=model, device=device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print one line per command and per forecast."""
    print(f"{'':50s}    best  median")
    for line in COMMANDS:
        print(f"{'roofcast ' + line:50s} {cold(line)}")
    for model, device in FORECASTS:
        print(f"{f'predict({model!r}, {device!r}) warm':50s} {1e3 * warm(model, device):.2f} ms")


if __name__ == "__main__":
    main()
