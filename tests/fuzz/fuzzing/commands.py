"""Kinds of input that forecast many times: search, choose, sweep, sensitivity, assign; and the
options of fine-tuning, power caps, remedies and own runs.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from fuzzing import hostile, texts, trees
from fuzzing.hostile import Raw

ROOT = Path(__file__).resolve().parents[3]
Made = tuple[dict[str, bytes], list[str]]
SMALL = ("gpt2", "resnet50", "bert-base", "mamba-130m", "vit-b16", "dlrm", "t5-small", "x.py:Net")
DEVICES = ("h100-sxm5", "t4", "rtx-4090", "tpu-v5e", "mi300x", "xeon-8480", "l40s", "h100")
AMOUNTS = {
    "within": ("10d", "36h", "1s", "2 weeks", "-1d", "0", "10 kg", "1e400d"),
    "under": ("50k", "$1.5M", "1", "0", "-5", "1e30", "ten"),
    "max-power": ("300W", "200kW", "1 mW", "0W", "5 V"),
    "max-energy": ("500kWh", "20 MWh", "1 J", "0", "x"),
    "tokens": ("1B", "2T", "1", "0", "-1B", "1e26", "inf", "1 kg"),
    "samples": ("1.28M", "1", "0", "nan"),
    "epochs": ("1", "90", "0.5", "0", "1e30"),
    "sure": ("50", "90", "99", "100", "x"),
    "for": ("cost", "time", "energy", "devices", "power", "glory"),
    "rent": ("on-demand", "spot", "reserved-1y", "lease"),
    "provider": ("specialised", "hyperscaler", "marketplace", "friend"),
    "price": ("h100-sxm5=2.1", "t4=0", "t4=-1", "=1", "t4", "t4=1e9", "nothing=1"),
    "devices": ("1", "3", "8", "64", "0", "1000000"),
    "top": ("1", "5", "0", "100000"),
    "batch": ("1", "7", "64", "1000", "0", "99999999999"),
    "vendor": ("NVIDIA", "amd", "Nobody", ""),
}
TUNING = {
    "lora": ("1", "16", "100000", "0", "-1", "x"),
    "lora-targets": ("all", "attention", "mlp", "q,v", "(", "nothing", "q_proj,v_proj", "["),
    "lora-precision": ("fp32", "bf16", "int4"),
    "encoders": ("vae", "text", "vae,text", "audio", ","),
    "prompt-tuning": ("1", "20", "0", "x", "1000000000000"),
    "prefix-tuning": ("1", "30", "-1", "nan"),
    "teacher-devices": ("1", "3", "0", "x"),
    "teacher-top-k": ("1", "64", "1000000000", "0"),
    "lora-dropout": ("0", "0.1", "1", "nan", "-1"),
    "freeze": ("embed", ".*", "(", "nothing", "layers.0"),
    "train": ("head", ".*", "[", "lm_head"),
    "weights": ("nf4", "int8", "fp8", "bf16", "int3"),
    "power-cap": ("500W", "1W", "0W", "1e30W", "-5W", "700", "300 kg", "x2"),
}
AXES = (
    "batch=1..8", "batch=1,2,4", "memory.bandwidth=x1,x2", "precision=bf16,fp32", "batch=8..1",
    "seq=128..512", "nothing=1", "batch=", "=1", "batch=1..1000000000000", "power.cap=100W..700W",
    "memory.bandwidth=x1..x4", "lora=4,8", "clock=x0.5,x1", "batch=a..b", "on=t4,l40s", "tp=1,2,4",
    "peak_flops.bf16=x1..x1", "price=1,2", "memory.capacity=1 GB,1e99 GB", "recompute=none,full",
)  # fmt: skip
JOBS = {
    "jobs": [
        {"name": "a", "model": "gpt2", "tokens": "1B", "batch": 64, "deadline": "2d"},
        {"name": "b", "model": "resnet50", "samples": "1.28M", "epochs": 2, "batch": 64,
         "priority": 2, "optimizer": "sgd"},
        {"model": "bert-base", "tokens": 5e8, "batch": 32, "precision": "bf16"},
    ]
}  # fmt: skip
POOL = {"devices": {"l40s": 2, "t4": {"count": 4, "per-node": 4, "usd-per-hour": 0.5}}}
PRICES = {"l40s": {"on-demand": 1.0, "market": 8000}, "t4": {"spot": 0.2, "server": 3000}}
JOB_WORDS = ("model", "tokens", "deadline", "priority", "lora", "weights", "sequence", "tp", "set")
POOL_WORDS = ("count", "per-node", "usd-per-hour", "h100-sxm5", "h100", "devices")
PRICE_WORDS = ("on-demand", "spot", "reserved-1y", "market", "server", "t4", "nothing")


def _given(random: Random, known: dict[str, tuple[str, ...]], most: int) -> list[str]:
    """Up to so many options with values that are known, or hostile."""
    words = []
    for name in random.sample(sorted(known), random.randint(0, most)):
        value = random.choice(known[name]) if random.random() < 0.9 else _text(random)
        words += [f"--{name}", value]
    return words


def _text(random: Random) -> str:
    found = random.choice((*hostile.TEXTS, *hostile.NUMBERS))
    return (found.text if isinstance(found, Raw) else str(found)).replace("\x00", "")[:100_000]


def _where(random: Random) -> list[str]:
    return ["--on", random.choice(DEVICES) if random.random() < 0.95 else _text(random)]


def _model(random: Random) -> str:
    return random.choice(SMALL) if random.random() < 0.95 else _text(random)


def _ending(random: Random, *more: str) -> list[str]:
    return [*random.choice(([], ["--json"], ["--json"], list(more)))]


def _toml(random: Random, tree: dict[str, Any], words: tuple[str, ...]) -> bytes:
    """A file of a tree, sound or damaged."""
    if random.random() < 0.2:
        return trees.to_toml(tree).encode()
    if random.random() < 0.2:
        return texts.damaged(random, trees.to_toml(tree).encode())
    return trees.to_toml(trees.damaged(random, tree, words)).encode("utf-8", "surrogatepass")


def choose(random: Random) -> Made:
    """Constraints, prices and a pool for a choice among few devices."""
    known = {k: v for k, v in AMOUNTS.items() if k != "vendor"}
    words = ["choose", _model(random), *_given(random, known, 4)]
    if random.random() < 0.8:
        words += random.choice((["--tokens", "1B"], ["--samples", "1M"]))
    if random.random() < 0.3:
        words += _given(random, {k: v for k, v in TUNING.items() if k != "power-cap"}, 2)
    files: dict[str, bytes] = {}
    if random.random() < 0.3:
        files["prices.toml"] = _toml(random, PRICES, PRICE_WORDS)
        words += ["--prices", "prices.toml"]
    if random.random() < 0.3:
        files["owned.toml"] = _toml(random, {"devices": {"l40s": 2, "t4": 8}}, POOL_WORDS)
        words += ["--owned", "owned.toml"]
    else:
        words += [*_where(random), *random.choice(([], _where(random)))]
    if random.random() < 0.2:
        words.append("--buy")
    return files, [*words, *_ending(random, "-o", "out.csv")]


def search(random: Random) -> Made:
    """Layouts on a few devices."""
    sizes = {k: ("1", "2", "3", "8", "0") for k in ("tp", "pp", "cp", "zero", "micro-batch")}
    known = {**sizes, **{k: AMOUNTS[k] for k in ("top", "batch")}, "schedule": ("1f1b", "zb-v")}
    words = ["search", _model(random), *_where(random)]
    words += ["--devices", random.choice(("1", "2", "4", "6", "8", "0", "7"))]
    words += [*_given(random, known, 3), *_given(random, TUNING, 1)]
    return {}, [*words, *_ending(random, "-o", "out.csv", "-o", "no/where.csv")]


def sweep(random: Random) -> Made:
    """A grid of one or two axes."""
    words = ["sweep", _model(random), *_where(random)]
    for _ in range(random.choice((0, 1, 1, 2, 2))):
        words += ["--vary", random.choice(AXES) if random.random() < 0.9 else _text(random)]
    words += random.choice(([], [], ["--zip"], ["--workers", "0"], ["--devices", "4"]))
    return {}, [*words, *_given(random, TUNING, 1), *_ending(random, "-o", "out.csv")]


def sensitivity(random: Random) -> Made:
    """What numbers of the hardware are worth."""
    known = {"devices": ("1", "2", "8"), "mode": ("infer", "train"), "batch": ("1", "8", "0")}
    words = ["sensitivity", _model(random), *_where(random), *_given(random, known, 2)]
    return {}, [*words, *_given(random, TUNING, 1), *_ending(random, "-o", "out.csv")]


def assign(random: Random) -> Made:
    """Jobs and a pool, one of them damaged or both."""
    files = {
        "jobs.toml": _toml(random, JOBS, JOB_WORDS),
        "pool.toml": _toml(random, POOL, POOL_WORDS),
    }
    words = ["assign", "jobs.toml", "--pool", "pool.toml"]
    words += random.choice(([], [], ["--for", "cost"], ["--for", "makespan"]))
    return files, [*words, *_ending(random, "-o", "out.csv")]


def tuning(random: Random) -> Made:
    """Fine-tuning, power caps and remedies of a forecast."""
    command = random.choice(("predict", "predict", "memory", "count"))
    known = {k: v for k, v in TUNING.items() if command != "count" or k != "power-cap"}
    words = [command, _model(random)]
    words += _where(random) if command != "count" else []
    words += _given(random, known, 3)
    if command == "predict" and random.random() < 0.4:
        words.append("--remedies")
    if command != "count" and random.random() < 0.3:
        words += ["--devices", random.choice(("2", "4", "0"))]
    return {}, [*words, *_ending(random)]


def calibrated(random: Random) -> Made:
    """A forecast with the user's own runs, whose table is damaged."""
    path = random.choice(sorted((ROOT / "scenarios/measured/runs").glob("[!k]*.csv")))
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    head = [line for line in lines if not line.startswith("#")][:4]
    data = texts.cells(random, "".join(head)) if random.random() < 0.8 else "".join(head)
    files = {"own.csv": data.encode("utf-8", "surrogatepass")}
    words = ["predict", _model(random), *_where(random), "--runs"]
    words.append(random.choice(("own.csv", "own.csv", "own.csv", "none.csv", "/dev/zero", ".")))
    return files, [*words, *_ending(random)]


KINDS = {
    "choose": choose, "search": search, "sweep": sweep, "sensitivity": sensitivity,
    "assign": assign, "tuning": tuning, "calibrated": calibrated,
}  # fmt: skip
