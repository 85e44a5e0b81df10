"""How long the command and the engine take: `python benchmarks/latency.py`.

The command as a whole process (CPU and wall, median of seven after one warm-up), and predict() warm
in one process.
"""

import resource
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "roofcast --help": ["--help"],
    "roofcast predict llama-3-8b --on h100-sxm5": ["predict", "llama-3-8b", "--on", "h100-sxm5"],
    "roofcast predict resnet50 --on rtx-3090": ["predict", "resnet50", "--on", "rtx-3090"],
}
RUNS = 7


def process(arguments: list[str]) -> tuple[float, float]:
    """CPU and wall seconds of one run of the command."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "roofcast.reports.command", *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def warm(model: str, device: str, runs: int = 50) -> float:
    """Median seconds of predict() when everything has been imported and read."""
    from roofcast import predict

    times = []
    for _ in range(runs):
        start = time.perf_counter()
        predict(model=model, device=device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    for title, arguments in COMMANDS.items():
        process(arguments)
        cpu, wall = zip(*(process(arguments) for _ in range(RUNS)), strict=True)
        print(
            f"{title:50s} {statistics.median(cpu):.3f} s CPU   {statistics.median(wall):.3f} s wall"
        )
    for model, device in (
        ("llama-3-8b", "h100-sxm5"),
        ("resnet50", "rtx-3090"),
        ("bert-base", "tpu-v4"),
    ):
        print(f"{f'predict({model!r}, {device!r}) warm':50s} {1e3 * warm(model, device):.2f} ms")
