"""Layouts per second that the search evaluates on one core, and random ones beside predict.

    python benchmarks/layouts.py [--law N]

GPT-3 175B on H100s over a grid of dp, tp, pp, vpp, cp, zero, micro-batch and recompute. The time is
that of a whole search, tracing of ranks included, after one search that has imported and read
everything. --law N: N random layouts instead, over families, systems, stacks and schedules, each
compared with predict's time and memory.
"""

import argparse
import os
import random
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported

import msgspec  # noqa: E402

from roofcast import Scenario, predict  # noqa: E402
from roofcast.hwdb.errors import RoofcastError  # noqa: E402
from roofcast.simulator.choose.search import search, search_layouts  # noqa: E402

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


MODELS = (
    "llama-3-8b", "llama-3-70b", "gpt2-xl", "gpt3-175b", "mixtral-8x7b", "deepseek-v3",
    "gemma-2-9b", "bloom-7b1", "t5-large", "bert-large", "falcon-7b", "qwen3-30b-a3b", "mamba-2.8b",
    "llama-4-scout", "resnet50", "vit-b16", "dlrm",
)  # fmt: skip
ON = (
    ("h100-sxm5", None), ("a100-sxm4-80gb", "jean-zay-a100"), ("gb200", "gb200-nvl72"),
    ("tpu-v4", None), ("tpu-v5e", None), ("mi300x", None), ("v100-sxm2-32gb", "dgx-2"),
    ("h100-sxm5", "dgx-superpod-h100"), ("rtx-4090", None), ("trainium2", None), ("l40s", None),
)  # fmt: skip
STACKS = (None, "te-nemo-2024", "megatron", "maxtext", "deepspeed-megatron-2022")
OPTIONS = {
    "tp": (1, 1, 2, 4, 8), "sp": (None, None, False), "pp": (1, 1, 2, 3, 4, 8),
    "dp": (1, 2, 3, 4, 8, 16, 64), "cp": (1, 1, 1, 2, 4),
    "cp_kind": (None, None, "all-gather", "ulysses"), "ep": (1, 1, 2, 8), "etp": (None, None, 1),
    "vpp": (None, None, 2, 4), "zero": (0, 1, 2, 3), "shard": (None, None, 4, 8),
    "reshard": (None, None, True, False), "micro_batch": (1, 1, 2, 4),
    "schedule": (None, None, "gpipe", "zb-h1", "zb-v", "dualpipe"),
    "recompute": ("none", "none", "selective", "full", "uniform:2", "block:1"),
    "offload": ((), (), (), ("optimizer",), ("activations",)),
}  # fmt: skip
TOGETHER = 40  # layouts of one scenario


def law(wanted: int) -> None:
    """Print the largest relative difference from predict over so many valid random layouts."""
    rng = random.Random(0)
    valid = invalid = 0
    worst, where = 0.0, ""
    while valid < wanted:
        device, system = rng.choice(ON)
        scenario = Scenario(
            model=rng.choice(MODELS), device=device, system=system, stack=rng.choice(STACKS),
            batch=rng.choice((64, 192)), mode=rng.choice(("train", "train", "train", "infer")),
        )  # fmt: skip
        shapes = [_random_shape(rng, scenario) for _ in range(TOGETHER)]
        try:
            found = search_layouts(scenario, shapes)
        except RoofcastError:
            continue
        for i in range(TOGETHER):
            one = msgspec.structs.replace(scenario, **found.layout(i))
            try:
                f = predict(one)
            except RoofcastError as error:
                assert found.refused[i], f"{one}: {error}"
                invalid += 1
                continue
            assert not found.refused[i], one
            valid += 1
            off = abs(found.step_s[i] / f.step_time_s - 1)
            off = max(off, abs(found.peak_bytes[i] / f.memory.peak_bytes - 1))
            if off > worst:
                worst, where = off, str(one)
    print(f"{valid} valid random layouts: largest difference from predict {worst:.1e}")
    print(f"{invalid} invalid ones, refused by both")
    if worst > 1e-9:
        raise SystemExit(where)


def _random_shape(rng: random.Random, scenario: Scenario) -> dict:
    """A random layout; mostly without options that it could not have."""
    shape = {name: rng.choice(values) for name, values in OPTIONS.items()}
    if shape["pp"] == 1:
        shape |= {"schedule": None, "vpp": None}
    if shape["cp"] == 1:
        shape["cp_kind"] = None
    if shape["zero"] != 3:
        shape["reshard"] = None
    if scenario.mode == "infer":
        shape |= {"pp": 1, "zero": 0, "schedule": None, "vpp": None, "recompute": "none"}
        shape |= {"offload": (), "reshard": None, "shard": None}
    return {name: value for name, value in shape.items() if value is not None}


def main() -> None:
    """Print how many layouts there are, the best, and the rates; or the law."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--law", type=int, metavar="N")
    wanted = parser.parse_args().law
    if wanted is not None:
        law(wanted)
        return
    search(SCENARIO, {name: values[:1] for name, values in GRID.items()})
    start = time.process_time()
    found = search(SCENARIO, GRID)
    seconds = time.process_time() - start
    n, refused = len(found.step_s), int(found.refused.sum())
    fit, best = int(found.fits.sum()), found.best()
    print(f"{n} layouts in {seconds:.2f} s of one core: {refused} invalid, {n - refused} forecast,")
    print(f"of which {fit} fit in memory")
    layout = found.layout(best)
    print(f"best: {layout}, {found.step_s[best]:.2f} s per step")
    print(f"{int(n / seconds)} layouts per second, of which {100 * refused / n:.0f} % are invalid:")
    print(f"{int((n - refused) / seconds)} layouts per second forecast")
    print(f"{int(refused / seconds)} invalid layouts per second rejected in the same time")


if __name__ == "__main__":
    main()
