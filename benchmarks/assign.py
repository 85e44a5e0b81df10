"""How long `roofcast assign` takes on 30 jobs and 8 kinds of devices, and what it gains.

python benchmarks/assign.py
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from roofcast.simulator.choose.assigned import assign_files

POOL = {
    "h100-sxm5": 64, "a100-sxm4-80gb": 64, "v100-sxm2-32gb": 32, "mi300x": 16, "l40s": 16,
    "rtx-4090": 8, "b200-sxm": 16, "tpu-v5p": 64,
}  # fmt: skip
MODELS = {  # model: tokens or samples in units of 1e9 or 1e6
    "llama-2-7b": 20, "llama-2-13b": 10, "llama-3-8b": 15, "mixtral-8x7b": 8, "gpt2-xl": 30,
    "bert-large": 40, "mistral-7b": 12, "gemma-2-2b": 30, "qwen2.5-7b": 10, "resnet50": 300,
}  # fmt: skip
DEADLINES = (None, 4, 2, 8, None)  # days


def jobs() -> str:
    """Thirty jobs: ten models, three lengths each."""
    text = []
    for i in range(30):
        model = list(MODELS)[i % len(MODELS)]
        size = MODELS[model] * (1 + i // len(MODELS))
        images = model == "resnet50"
        length = f'samples = "{size}M"' if images else f'tokens = "{size}B"'
        batch = (1024 if images else 256) * (1 + i // 20)
        text.append(f'[[jobs]]\nname = "{i} {model}"\nmodel = "{model}"\nbatch = {batch}')
        text.append(f"{length}\npriority = {1 + i % 4}")
        days = DEADLINES[i % len(DEADLINES)]
        if days is not None:
            text.append(f'deadline = "{days}d"')
    return "\n".join(text)


def main() -> None:
    """Print seconds, plan and greedy plan of both goals."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "jobs.toml").write_text(jobs(), encoding="utf-8")
        entries = "\n".join(f"{name} = {count}" for name, count in POOL.items())
        (place / "pool.toml").write_text(f"[devices]\n{entries}\n", encoding="utf-8")
        for goal in ("makespan", "cost"):
            wall, cpu = time.monotonic(), time.process_time()
            found = assign_files(place / "jobs.toml", place / "pool.toml", goal)
            wall, cpu = time.monotonic() - wall, time.process_time() - cpu
            print(f"{goal}: {wall:.1f} s, {cpu:.1f} s of the processor; {found.layouts:,} layouts")
            print(f"  plan   {found.total}\n  greedy {found.greedy}")
            print(f"  proven the best: {found.best}; gap {found.gap}")
            for each in found.left:
                print(f"  left: {each.job}: {each.why}")


if __name__ == "__main__":
    main()
