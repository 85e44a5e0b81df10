"""Are the forecasts of two versions the same? Writes a few hundred forecasts, then compares two
such files.

    python benchmarks/same_forecasts.py write before.json      # with the older version installed
    python benchmarks/same_forecasts.py write after.json       # with the newer one
    python benchmarks/same_forecasts.py compare before.json after.json

Every shipped model, every stack, some fifty devices, every kind of layout, recomputation, offload
and schedule, training and inference, as `roofcast predict .. --json` and `roofcast count .. --json`
print them. Numbers must agree within 1e-12; a refusal must stay a refusal. Keys that are gone,
changed values that are not prose, and changed numbers are listed; prose (PROSE) may change, and
keys may be added.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import sys
from pathlib import Path

from click.testing import CliRunner

PROSE = ("assumptions", "diagnosis", "peak_moment")  # sentences: their words may change
TOLERANCE = 1e-12
DEVICES = """h100-sxm5 a100-sxm4-80gb rtx-3090 v100-sxm2-16gb tpu-v4 mi300x b200-sxm rtx-4090 tpu-v5p gaudi2 l40s t4 h200-sxm
    a100-sxm4-40gb mi250x rtx-5090 tpu-v3 gtx-1080-ti a10g l4 trainium1 trainium2 gb200 b300-sxm tpu-v6e mi355x p100-sxm2 rtx-3060
    titan-v ascend-910b gaudi3 h800-sxm5 h20 rtx-6000-ada a6000 p4 tpu-v2 tpu-v5e mi100 mi210 apple-m2 i9-10940x xeon-8280 epyc-7742
    m1-max a800-sxm4-80gb""".split()
PRECISIONS = ("bf16", "amp-bf16", "amp-fp16", "fp32", "tf32", "fp16", "fp8")
OPTIMIZERS = ("adamw", "sgd", "momentum", "adam8bit", "lamb", "adafactor", "none")
OPTIONS = """--recompute full|--recompute selective|--recompute uniform:4|--recompute every:2|--recompute block:3|--recompute modules:mlp,norm
    --offload activations|--offload optimizer|--offload activations --offload optimizer|--attention eager|--attention efficient|--batch 8
    --seq 512|--set memory.bandwidth=x2|--set peak_flops.bf16=+20%|--tokens 1B --price 2|--mode infer|--mode infer --batch 16
    --mode infer --precision fp8|--mode infer --precision int8|--mode infer --precision nvfp4""".replace(
    "\n", "|"
).split("|")
LAYOUTS = """--devices 8|--devices 8 --zero 1 --batch 16|--devices 8 --zero 3 --batch 8|--devices 64 --zero 2 --batch 64|--devices 512 --zero 3 --batch 512
    --devices 16 --tp 2 --pp 4 --vpp 2 --batch 64 --micro-batch 1|--devices 8 --tp 4 --no-sp --dp 2 --batch 8|--devices 8 --tp 8 --batch 4
    --devices 8 --pp 4 --schedule zb-h1 --batch 32|--devices 8 --pp 4 --schedule gpipe --batch 32|--devices 8 --pp 4 --schedule zb-v --batch 32
    --devices 8 --pp 4 --schedule dualpipe --batch 32|--devices 16 --zero 3 --shard 8 --no-reshard --batch 16|--devices 8 --pp 2 --zero 3 --batch 16
    --devices 8 --cp 8 --cp-kind ulysses --zero 3 --seq 65536 --recompute full --batch 1|--devices 8 --cp 4 --cp-kind ring --seq 16384 --batch 2
    --devices 8 --cp 2 --cp-kind all-gather --seq 8192 --batch 4|--devices 64 --tp 8 --pp 2 --zero 1 --batch 64|--devices 8 --mode infer --tp 8 --batch 8
    --devices 8 --offload optimizer --zero 1 --batch 8|--devices 8 --offload activations --zero 3 --batch 8|--devices 128 --tp 4 --pp 8 --batch 256
    --devices 256 --tp 8 --cp 2 --pp 4 --seq 8192 --batch 256 --recompute selective|--devices 32 --pp 2 --tp 2 --recompute block:4 --batch 32""".replace(
    "\n", "|"
).split("|")
EXPERTS = """--devices 32 --tp 2 --ep 4 --etp 2 --zero 1 --batch 32 --recompute selective|--devices 8 --ep 8 --batch 8|--devices 64 --ep 8 --pp 4 --batch 64
    --devices 16 --tp 2 --ep 8 --etp 1 --batch 16|--devices 64 --ep 16 --zero 3 --batch 64""".replace(
    "\n", "|"
).split("|")
DENSE = (
    "llama-3-8b",
    "gpt3-175b",
    "llama-3-70b",
    "bert-large",
    "t5-large",
    "opt-13b",
    "mamba-1.4b",
    "gemma-2-9b",
)
SPARSE = ("mixtral-8x7b", "deepseek-v3", "qwen3-30b-a3b", "gpt-oss-120b")
CLUSTERS = (
    "h100-sxm5",
    "a100-sxm4-80gb",
    "v100-sxm2-32gb",
    "tpu-v4",
    "b200-sxm",
    "mi300x",
    "gb200",
    "trainium2",
)


def asked(run) -> list[list[str]]:
    """The command lines, always the same ones."""
    listed = json.loads(run(["devices", "--json"]).output)
    known = {entry["id"] for entry in listed["devices"]}
    devices = [device for device in DEVICES if device in known]
    models = json.loads(run(["models", "--json"]).output)["models"]
    models = [entry["name"] if isinstance(entry, dict) else entry for entry in models]
    stacks = [
        "",
        "",
        "pytorch-compiled",
        "jax-xla",
        "nvidia-tuned",
        "megatron",
        "megatron-2022",
        "te-nemo-2024",
        "fsdp-eager",
        "tensorflow-xla",
    ]
    lines = []
    for i, model in enumerate(models):
        line = ["predict", model, "--on", devices[(7 * i) % len(devices)]]
        line += ["--precision", PRECISIONS[i % len(PRECISIONS)]] if i % 3 else []
        line += ["--stack", stacks[i % len(stacks)]] if stacks[i % len(stacks)] else []
        line += (
            ["--optimizer", OPTIMIZERS[i % 7]]
            if i % 4 == 1
            else ["--mode", "infer"]
            if i % 4 == 3
            else []
        )
        lines.append(line)
    for i, option in enumerate(option.split() for option in OPTIONS):
        lines += [
            ["predict", m, "--on", devices[(i + j) % len(devices)], *option]
            for j, m in enumerate(("llama-3-8b", "gpt2", "resnet50", "vit-b-16"))
        ]
    for i, option in enumerate(option.split() for option in LAYOUTS):
        lines += [
            [
                "predict",
                DENSE[(i + j) % len(DENSE)],
                "--on",
                CLUSTERS[(i + 3 * j) % len(CLUSTERS)],
                *option,
            ]
            for j in range(4)
        ]
    for i, option in enumerate(option.split() for option in EXPERTS):
        lines += [
            [
                "predict",
                SPARSE[(i + j) % len(SPARSE)],
                "--on",
                CLUSTERS[(i + 3 * j) % len(CLUSTERS)],
                *option,
            ]
            for j in range(3)
        ]
    named = [entry["name"] for entry in json.loads(run(["stacks", "--json"]).output)["stacks"]]
    for i, stack in enumerate(named):
        stack = stack["name"] if isinstance(stack, dict) else stack
        lines += [
            ["predict", m, "--on", d, "--stack", stack]
            for m, d in (("gpt2-xl", "a100-sxm4-80gb"), ("resnet50", "h100-sxm5"))
        ]
        lines.append(
            [
                "predict",
                DENSE[i % 4],
                "--on",
                "h100-sxm5",
                "--devices",
                "16",
                "--tp",
                "4",
                "--pp",
                "2",
                "--batch",
                "16",
                "--stack",
                stack,
            ]
        )
    lines += [
        ["count", m, "--precision", p]
        for m in ("llama-3-8b", "resnet50", "bert-base", "unet3d")
        for p in PRECISIONS[:4]
    ]
    return [[*line, "--json"] for line in lines]


def write(path: str) -> None:
    """Every answer, keyed by its command line."""
    command = next(
        e for e in importlib.metadata.entry_points(group="console_scripts") if e.name == "roofcast"
    ).load()
    runner = CliRunner()

    def run(arguments):
        return runner.invoke(command, arguments)

    answers = {}
    for line in asked(run):
        result = run(line)
        answers[" ".join(line)] = {
            "code": result.exit_code,
            "answer": json.loads(result.output) if result.exit_code == 0 else None,
        }
    Path(path).write_text(json.dumps(answers), encoding="utf-8")
    refused = sum(a["code"] == 2 for a in answers.values())
    failed = [line for line, a in answers.items() if a["code"] not in (0, 2)]
    print(
        f"{len(answers)} command lines, {refused} of them refused, {len(failed)} failed, written to"
        f" {path}",
        *failed,
        sep="\n    ",
    )


def differences(old, new, where=""):
    """(kind, place, old, new) of everything that is not the same."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in old.items():
            if key in PROSE:
                continue
            if key not in new:
                yield "key gone", f"{where}.{key}", value, None
            else:
                yield from differences(value, new[key], f"{where}.{key}")
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield "length", where, len(old), len(new)
        for i, (a, b) in enumerate(zip(old, new, strict=False)):
            yield from differences(a, b, f"{where}[{i}]")
    elif (
        isinstance(old, bool)
        or isinstance(new, bool)
        or not (isinstance(old, (int, float)) and isinstance(new, (int, float)))
    ):
        if old != new:
            yield "value", where, old, new
    elif not math.isclose(old, new, rel_tol=TOLERANCE, abs_tol=0.0):
        yield "number", where, old, new


def compare(before: str, after: str) -> int:
    """How many forecasts differ; each difference printed, the first twenty of each."""
    old, new = (json.loads(Path(p).read_text(encoding="utf-8")) for p in (before, after))
    different = 0
    for line, answer in old.items():
        found = list(differences(answer, new.get(line, {})))
        different += bool(found)
        for kind, where, a, b in found[:20]:
            print(f"{line}\n    {kind} {where}: {a!r} -> {b!r}")
    print(
        f"{len(old)} command lines, {different} differ; {sum(a['code'] == 0 for a in old.values())}"
        " forecasts and counts among them"
    )
    return different


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "write":
        write(sys.argv[2])
    elif len(sys.argv) == 4 and sys.argv[1] == "compare":
        sys.exit(bool(compare(sys.argv[2], sys.argv[3])))
    else:
        sys.exit(__doc__)
