"""Compare the forecasts of two versions: write several hundred forecasts, then compare two files.

    python benchmarks/same_forecasts.py write before.json      # with the older version installed
    python benchmarks/same_forecasts.py write after.json       # with the newer one
    python benchmarks/same_forecasts.py compare before.json after.json

The forecasts are the answers of `roofcast predict .. --json` and `roofcast count .. --json` for
every shipped model, every stack, some fifty devices, and every kind of layout, recomputation,
offload and schedule, in training and inference. Numbers must agree within 1e-12, and what one
version rejects the other must reject. Missing keys, changed values and changed numbers are listed.
Text for people (PROSE) may change, and keys may be added.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

PROSE = ("assumptions", "diagnosis", "peak_moment")  # sentences: their words may change
TOLERANCE = 1e-12  # relative
# what is left of the step time after all other parts are subtracted: rounding of the step itself
REMAINDERS = ("waiting_for_host_s", "uneven_stages_s")
DEVICES = """
    h100-sxm5 a100-sxm4-80gb rtx-3090 v100-sxm2-16gb tpu-v4 mi300x b200-sxm rtx-4090 tpu-v5p gaudi2
    l40s t4 h200-sxm a100-sxm4-40gb mi250x rtx-5090 tpu-v3 gtx-1080-ti a10g l4 trainium1 trainium2
    gb200 b300-sxm tpu-v6e mi355x p100-sxm2 rtx-3060 titan-v ascend-910b gaudi3 h800-sxm5 h20
    rtx-6000-ada a6000 p4 tpu-v2 tpu-v5e mi100 mi210 apple-m2 i9-10940x xeon-8280 epyc-7742 m1-max
    a800-sxm4-80gb
""".split()
PRECISIONS = ("bf16", "amp-bf16", "amp-fp16", "fp32", "tf32", "fp16", "fp8")
OPTIMIZERS = ("adamw", "sgd", "momentum", "adam8bit", "lamb", "adafactor", "none")
STACKS = (  # of the forecasts of models; "": the default
    "", "", "pytorch-compiled", "jax-xla", "nvidia-tuned", "megatron", "megatron-2022",
    "te-nemo-2024", "fsdp-eager", "tensorflow-xla",
)  # fmt: skip


def options(table: str) -> list[list[str]]:
    """The options of each line."""
    return [line.split() for line in table.strip().splitlines()]


OPTIONS = options(  # on one device
    """
    --recompute full
    --recompute selective
    --recompute uniform:4
    --recompute every:2
    --recompute block:3
    --recompute modules:mlp,norm
    --offload activations
    --offload optimizer
    --offload activations --offload optimizer
    --attention eager
    --attention efficient
    --batch 8
    --seq 512
    --set memory.bandwidth=x2
    --set peak_flops.bf16=+20%
    --tokens 1B --price 2
    --mode infer
    --mode infer --batch 16
    --mode infer --precision fp8
    --mode infer --precision int8
    --mode infer --precision nvfp4
    """
)
LAYOUTS = options(  # of dense models
    """
    --devices 8
    --devices 8 --zero 1 --batch 16
    --devices 8 --zero 3 --batch 8
    --devices 64 --zero 2 --batch 64
    --devices 512 --zero 3 --batch 512
    --devices 16 --tp 2 --pp 4 --vpp 2 --batch 64 --micro-batch 1
    --devices 8 --tp 4 --no-sp --dp 2 --batch 8
    --devices 8 --tp 8 --batch 4
    --devices 8 --pp 4 --schedule zb-h1 --batch 32
    --devices 8 --pp 4 --schedule gpipe --batch 32
    --devices 8 --pp 4 --schedule zb-v --batch 32
    --devices 8 --pp 4 --schedule dualpipe --batch 32
    --devices 16 --zero 3 --shard 8 --no-reshard --batch 16
    --devices 8 --pp 2 --zero 3 --batch 16
    --devices 8 --cp 8 --cp-kind ulysses --zero 3 --seq 65536 --recompute full --batch 1
    --devices 8 --cp 4 --cp-kind ring --seq 16384 --batch 2
    --devices 8 --cp 2 --cp-kind all-gather --seq 8192 --batch 4
    --devices 64 --tp 8 --pp 2 --zero 1 --batch 64
    --devices 8 --mode infer --tp 8 --batch 8
    --devices 8 --offload optimizer --zero 1 --batch 8
    --devices 8 --offload activations --zero 3 --batch 8
    --devices 128 --tp 4 --pp 8 --batch 256
    --devices 256 --tp 8 --cp 2 --pp 4 --seq 8192 --batch 256 --recompute selective
    --devices 32 --pp 2 --tp 2 --recompute block:4 --batch 32
    """
)
EXPERTS = options(  # of mixtures of experts
    """
    --devices 32 --tp 2 --ep 4 --etp 2 --zero 1 --batch 32 --recompute selective
    --devices 8 --ep 8 --batch 8
    --devices 64 --ep 8 --pp 4 --batch 64
    --devices 16 --tp 2 --ep 8 --etp 1 --batch 16
    --devices 64 --ep 16 --zero 3 --batch 64
    """
)
DENSE = (
    "llama-3-8b", "gpt3-175b", "llama-3-70b", "bert-large", "t5-large", "opt-13b", "mamba-1.4b",
    "gemma-2-9b",
)  # fmt: skip
SPARSE = ("mixtral-8x7b", "deepseek-v3", "qwen3-30b-a3b", "gpt-oss-120b")
CLUSTERS = (
    "h100-sxm5", "a100-sxm4-80gb", "v100-sxm2-32gb", "tpu-v4", "b200-sxm", "mi300x", "gb200",
    "trainium2",
)  # fmt: skip
Run = Callable[[list[str]], Result]  # runs the command with these arguments


def command_lines(run: Run) -> list[list[str]]:
    """The command lines: the same for every version with the same models, devices and stacks."""
    devices = [device for device in DEVICES if device in listed(run, "devices", "id")]
    lines = of_models(listed(run, "models", "name"), devices)
    for i, option in enumerate(OPTIONS):
        for j, model in enumerate(("llama-3-8b", "gpt2", "resnet50", "vit-b-16")):
            lines.append(["predict", model, "--on", devices[(i + j) % len(devices)], *option])
    lines += [*of_layouts(DENSE, LAYOUTS, 4), *of_layouts(SPARSE, EXPERTS, 3)]
    lines += of_stacks(listed(run, "stacks", "name"))
    lines += [
        ["count", model, "--precision", precision]
        for model in ("llama-3-8b", "resnet50", "bert-base", "unet3d")
        for precision in PRECISIONS[:4]
    ]
    return [[*line, "--json"] for line in lines]


def listed(run: Run, kind: str, key: str) -> list[str]:
    """The names that `roofcast devices`, `models` or `stacks` lists, as records or as strings."""
    entries = json.loads(run([kind, "--json"]).output)[kind]
    return [entry[key] if isinstance(entry, dict) else entry for entry in entries]


def of_models(models: list[str], devices: list[str]) -> list[list[str]]:
    """Every model, on devices, in formats, under stacks and with optimizers that take turns."""
    lines = []
    for i, model in enumerate(models):
        line = ["predict", model, "--on", devices[(7 * i) % len(devices)]]
        stack = STACKS[i % len(STACKS)]
        line += ["--precision", PRECISIONS[i % len(PRECISIONS)]] if i % 3 else []
        line += ["--stack", stack] if stack else []
        line += ["--optimizer", OPTIMIZERS[i % 7]] if i % 4 == 1 else []
        line += ["--mode", "infer"] if i % 4 == 3 else []
        lines.append(line)
    return lines


def of_layouts(models: Sequence[str], table: list[list[str]], each: int) -> list[list[str]]:
    """Each line of a table for `each` models and clusters."""
    return [
        [
            "predict", models[(i + j) % len(models)],
            "--on", CLUSTERS[(i + 3 * j) % len(CLUSTERS)], *option,
        ]
        for i, option in enumerate(table)
        for j in range(each)
    ]  # fmt: skip


def of_stacks(stacks: list[str]) -> list[list[str]]:
    """Every stack, on one device and on several."""
    layout = "--on h100-sxm5 --devices 16 --tp 4 --pp 2 --batch 16".split()
    lines = []
    for i, stack in enumerate(stacks):
        for model, device in (("gpt2-xl", "a100-sxm4-80gb"), ("resnet50", "h100-sxm5")):
            lines.append(["predict", model, "--on", device, "--stack", stack])
        lines.append(["predict", DENSE[i % 4], *layout, "--stack", stack])
    return lines


def write(path: str) -> None:
    """Write every answer, by its command line."""
    entries = importlib.metadata.entry_points(group="console_scripts", name="roofcast")
    command, runner = next(iter(entries)).load(), CliRunner()

    def run(arguments: list[str]) -> Result:
        return runner.invoke(command, arguments)

    answers = {}
    for line in command_lines(run):
        result = run(line)
        answers[" ".join(line)] = {
            "code": result.exit_code,
            "answer": json.loads(result.output) if result.exit_code == 0 else None,
        }
    Path(path).write_text(json.dumps(answers), encoding="utf-8")
    refused = sum(a["code"] == 2 for a in answers.values())
    failed = [line for line, a in answers.items() if a["code"] not in (0, 2)]
    print(f"{len(answers)} command lines, {refused} rejected, {len(failed)} failed, in {path}")
    print(*failed, sep="\n    ")


def differences(old: Any, new: Any, where: str = "") -> Iterator[tuple[str, str, Any, Any]]:
    """Kind, place, old and new value of everything that differs."""
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
    elif not (is_number(old) and is_number(new)):
        if old != new:
            yield "value", where, old, new
    elif not math.isclose(
        old, new, rel_tol=TOLERANCE, abs_tol=TOLERANCE if where.endswith(REMAINDERS) else 0.0
    ):
        yield "number", where, old, new


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def compare(before: str, after: str) -> int:
    """How many command lines differ; prints up to twenty differences of each."""
    old, new = (json.loads(Path(p).read_text(encoding="utf-8")) for p in (before, after))
    different = 0
    for line, answer in old.items():
        found = list(differences(answer, new.get(line, {})))
        different += bool(found)
        for kind, where, a, b in found[:20]:
            print(f"{line}\n    {kind} {where}: {str(a)[:80]} -> {str(b)[:80]}")
    answered = sum(answer["code"] == 0 for answer in old.values())
    print(f"{len(old)} command lines, {answered} with an answer, {different} differ")
    return different


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "write":
        write(sys.argv[2])
    elif len(sys.argv) == 4 and sys.argv[1] == "compare":
        sys.exit(bool(compare(sys.argv[2], sys.argv[3])))
    else:
        sys.exit(__doc__)
