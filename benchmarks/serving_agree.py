"""How far forecasts and replays of requests agree below 70 % load, over random servers.

    python benchmarks/serving_agree.py [--pools 1] [--load rate] [--draws 300] [--seed 0] [--means]

Models, devices, layouts, software, lengths, instances and loads are drawn; for each of TTFT, TPOT
and end to end the share of draws within 5 %, the worst, and the error of replays themselves: twice
the standard error of their mean over seeds. Forecasts are those of a single load: mean values, or,
where these do not hold, those of one replay, which is compared with replays of other seeds.
--means: mean values in closed form everywhere, as searches rank layouts by them; --closed: only
where a forecast has them. --rows prints every draw.
"""

import argparse
import math
from random import Random
from typing import Any, NamedTuple

import msgspec
import numpy as np

from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.serving import chain as one_pool
from roofcast.simulator.serving.asked import Serving
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.pools import chain as two_pools
from roofcast.simulator.serving.pools.asked import Pools
from roofcast.simulator.serving.sample import Sample

MODELS = (
    "llama-3-8b", "llama-3.1-70b", "qwen3-30b-a3b", "deepseek-v3", "gpt-oss-20b", "gpt-oss-120b",
    "mixtral-8x7b", "gemma-3-27b", "mistral-7b", "llama-3.2-1b", "mamba2-1.3b",
    "qwen3-next-80b-a3b",
)  # fmt: skip
DEVICES = ("h100-sxm5", "h200-sxm", "a100-sxm4-80gb", "b200-sxm", "rtx-4090", "mi300x", "l40s")
STACKS = ("vllm", "vllm", "sglang", "trt-llm", "vllm-2025")
TIMES = ("ttft", "tpot", "e2e")
BELOW, WITHIN = 0.7, 0.05
SEEDS, MOST = 6, 16_000  # replays of a draw, and their requests together
ENOUGH = 0.01  # error of the replays at which no other is made


class Row(NamedTuple):
    """One draw: mean values over those of replays, less 1, and the error of the latter."""

    name: str
    use: float
    off: tuple[float, ...]
    noise: tuple[float, ...]


def lengths(random: Random) -> dict[str, Any]:
    """Tokens of prompts and answers."""
    return {
        "input_len": int(2 ** random.uniform(5, 13)),
        "output_len": int(2 ** random.uniform(4, 11)),
    }


def server(random: Random) -> dict[str, Any]:
    """Degrees of one instance, its device, software and formats."""
    return {
        "model": random.choice(MODELS),
        "device": random.choice(DEVICES),
        "tp": random.choice((1, 1, 2, 4, 8)),
        "weights": random.choice((None, "fp8")),
        "stack": random.choice(STACKS),
    }


def compared(name: str, mean: Any, samples: list[Sample]) -> Row:
    """A draw whose load was replayed several times."""
    off, noise = [], []
    for time in TIMES:
        found = np.array([sample.mean(time) for sample in samples])
        off.append(float(getattr(mean, time) / found.mean() - 1.0))
        noise.append(error(found))
    return Row(name, float(mean.use), tuple(off), tuple(noise))


def error(found: np.ndarray) -> float:
    """Two standard errors of a mean, as a share of it; infinite for one value."""
    if len(found) < 2:
        return math.inf
    return float(2.0 * found.std(ddof=1) / math.sqrt(len(found)) / found.mean())


def replays(load: Load, replayed: Any) -> list[Sample]:
    """Replays of one load from several seeds, not that of a forecast, until their mean TTFT is
    known well.
    """
    samples: list[Sample] = []
    sent = 0
    for seed in range(1, SEEDS + 1):
        samples.append(replayed(msgspec.structs.replace(load, seed=seed)))
        sent += len(samples[-1].weight)
        if error(np.array([s.mean("ttft") for s in samples])) < ENOUGH or sent > MOST:
            break
    return samples


def amount(random: Random, kind: str, highest: float, most: float) -> float:
    """Requests per second or users, to be tried."""
    if kind == "rate":
        return random.uniform(0.03, BELOW) * highest
    return float(int(math.exp(random.uniform(0.0, math.log(max(most, 2.0))))))


def draw_one(random: Random, kind: str, wanted: str = "") -> Row | None:
    """A draw of one pool; None where the load is not below 70 %.

    wanted: "means": mean values alone; "closed": None, too, where a single load has no mean values.
    """
    words = server(random) | {"load": Load(kind="offline", **lengths(random))}
    of = one_pool.replica(Serving(**words))
    held = one_pool.held_of(of, of.asked.load)
    load = of.asked.load
    highest = one_pool._means(of, load, held).requests_per_s
    places = held.sequences(load.input_len + held.reserved * load.output_len)
    load = msgspec.structs.replace(load, kind=kind, amount=amount(random, kind, highest, places))
    mean = one_pool._means(of, load, held)
    doubt = one_pool.doubts(of, load, held, mean)
    if mean.use >= BELOW or (doubt and wanted == "closed"):
        return None
    told = mean
    if (doubt or kind == "rate") and wanted != "means":
        seen = one_pool.replayed(of, load, held, mean, None)
        told = one_pool._followed(of, load, held, mean, seen)  # type: ignore[arg-type]
    samples = replays(load, lambda at: one_pool.replayed(of, at, held, mean, None))
    name = f"{named(words)} {load.input_len}/{load.output_len} {kind} {load.amount:.4g}"
    return compared(f"{name}; {doubt}", told, samples)


def draw_two(random: Random, kind: str, wanted: str = "") -> Row | None:
    """The same of two pools."""
    words = server(random)
    load = Load(kind=kind, amount=1e-6 if kind == "rate" else 1.0, **lengths(random))
    count = [random.choice((1, 1, 2, 3, 4)) for _ in range(2)]
    pools = [Serving(**words, devices=words["tp"] * n, load=load) for n in count]
    asked = Pools(prefill=pools[0], decode=pools[1])
    costing = two_pools.run(asked).costing
    most = min(costing.places, 2000.0 / count[1]) * count[1]
    load = msgspec.structs.replace(
        load, amount=amount(random, kind, float(costing.totals.highest), most)
    )
    made = two_pools.run(two_pools.at_lengths(asked, load))
    mean = two_pools.means(made, load)
    if mean.mean.use >= BELOW or wanted == "closed":
        return None
    told = mean
    if wanted != "means":
        seen = two_pools.replayed(made, load, mean)
        told = two_pools._followed(made, mean, seen)  # type: ignore[arg-type]
    samples = replays(load, lambda at: two_pools.replayed(made, at, mean))
    name = f"{named(words)} {count[0]}+{count[1]} {load.input_len}/{load.output_len}"
    return compared(f"{name} {kind} {load.amount:.4g}", told.mean, samples)


def named(words: dict[str, Any]) -> str:
    """A server in words."""
    return " ".join(str(words[k]) for k in ("model", "device", "tp", "weights", "stack"))


def line(row: Row) -> str:
    """A draw in words."""
    off = " ".join(
        f"{100 * x:+6.1f}({100 * e:3.1f})" for x, e in zip(row.off, row.noise, strict=True)
    )
    return f"{100 * row.use:3.0f} %  {off}  {row.name}"


def told(rows: list[Row]) -> None:
    """Print what was found."""
    for k, time in enumerate(TIMES):
        off, noise = (np.array([row[j][k] for row in rows]) for j in (2, 3))
        within = float(np.mean(np.abs(off) <= WITHIN))
        print(
            f"{time:5}{len(rows):5} draws, {100 * within:5.1f} % within {WITHIN:.0%};"
            f" median {100 * np.median(np.abs(off)):.1f} %, from {100 * off.min():+.1f} to"
            f" {100 * off.max():+.1f} %; noise {100 * np.median(noise):.1f} %"
        )


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pools", type=int, default=2, choices=(1, 2))
    parser.add_argument("--load", default="concurrency", choices=("concurrency", "rate"))
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--means", dest="only", action="store_const", const="means", default="")
    parser.add_argument("--closed", dest="only", action="store_const", const="closed")
    parser.add_argument("--rows", action="store_true")
    wanted = parser.parse_args()
    random, rows = Random(wanted.seed), []
    drawn = draw_one if wanted.pools == 1 else draw_two
    while len(rows) < wanted.draws:
        try:
            row = drawn(random, wanted.load, wanted.only)
        except RoofcastError:
            continue
        if row is not None:
            rows.append(row)
            if wanted.rows:
                print(line(row), flush=True)
    told(rows)


if __name__ == "__main__":
    main()
