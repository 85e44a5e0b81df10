"""Command lines whose options have hostile values."""

from __future__ import annotations

from random import Random

from fuzzing import hostile
from fuzzing.hostile import Raw

MODELS = (
    "gpt2", "llama-3-8b", "resnet50", "mixtral-8x7b", "bert-base", "mamba-130m", "t5-small",
    "swin_tiny_patch4_window7_224", "deepspeech2", "dlrm", "unet", "clip-vit-base-patch32",
    "gemma-2-2b", "deepseek-v2-lite", "gpt-oss-20b", "gnmt", "ssd300",
)  # fmt: skip
DEVICES = (
    "h100-sxm5", "xeon-8480", "tpu-v4", "mi300x", "rtx-3090", "t4", "b200-sxm", "a100-sxm4-80gb",
)  # fmt: skip
WHOLE = (
    "batch", "seq", "image", "devices", "tp", "pp", "vpp", "dp", "cp", "ep", "etp", "shard",
    "micro-batch",
)  # fmt: skip
CHOICES = {
    "precision": (
        "fp32 tf32 bf16 fp16 amp-bf16 amp-fp16 fp8 nvfp4 int8 int4 mxfp4 int8-fp32".split()
    ),
    "attention": "eager efficient flash".split(),
    "mode": "train infer".split(),
    "cp-kind": "ring all-gather ulysses".split(),
    "schedule": "gpipe 1f1b interleaved zb-h1 zb-v dualpipe".split(),
    "zero": "0 1 2 3".split(),
    "optimizer": "sgd momentum adam adamw lamb lion adafactor none".split(),
    "recompute": "none selective full uniform:4 every:2 block:3 modules:mlp".split(),
    "offload": "activations optimizer parameters".split(),
    "offload-to": "host nvme".split(),
    "stack": "pytorch-eager jax-xla megatron pytorch-compiled nvidia-tuned fsdp-eager".split(),
    "system": "dgx-h100 aws-p4d azure-nd-mi300x-v5 aws-trn2".split(),
}
FREE = ("tokens", "samples", "epochs", "price", "stages", "input", "set")
FIELDS = (
    *(each.replace("-", "_") for each in (*WHOLE, *CHOICES, *FREE)),
    "model",
    "device",
    "sequence",
)
SIZES = (
    "0", "1", "2", "3", "7", "8", "64", "127", "1000", "4096", "99999", "1000000", "16777216",
    "1e18", "1000000000", "1000000000000", "1000000000000000", "1000000000000001", "-1", "1.5",
    "nan", "",
)  # fmt: skip
SETTINGS = (
    "memory.bandwidth", "memory.capacity", "peak_flops.bf16", "achieved.matmul.bf16", "clock_hz",
    "power.tdp", "price.cloud_usd_per_hour", "achieved.bandwidth", "cores", "memory", "nothing",
)  # fmt: skip


def line(random: Random) -> list[str]:
    """A command with a model, a device, and one to five options."""
    command = random.choice(
        ("predict", "predict", "predict", "memory", "count", "trace", "roofline")
    )
    model = random.choice(MODELS) if random.random() < 0.93 else _text(random)
    words = [command, model]
    if command != "count":
        words += ["--on", random.choice(DEVICES) if random.random() < 0.93 else _text(random)]
    if command in ("predict", "memory", "count") and random.random() < 0.7:
        words.append("--json")
    if command in ("trace", "roofline"):
        words += [
            "-o",
            random.choice(("out.json", "out.svg", "", "/dev/full", "no/where.json", ".")),
        ]
    for _ in range(random.choice((1, 1, 2, 3, 5))):
        words += _option(random, command)
    return [_encodable(word) for word in words]


def _option(random: Random, command: str) -> list[str]:
    kind = random.randrange(10)
    if kind < 4:
        name = random.choice(WHOLE if command != "count" else ("batch", "seq", "image", "depth"))
        return [f"--{name}", random.choice(SIZES) if random.random() < 0.9 else _text(random)]
    if kind < 7:
        known = (
            tuple(CHOICES) if command != "count" else ("precision", "attention", "mode", "stack")
        )
        name = random.choice(known)
        return [
            f"--{name}",
            random.choice(CHOICES[name]) if random.random() < 0.85 else _text(random),
        ]
    if kind == 7 and command != "count":
        value = random.choice(("x2", "x0", "+1e308%", "-100%", "1e-300", "8 TB/s", _text(random)))
        return ["--set", f"{random.choice(SETTINGS)}={value}"]
    if kind == 8 and command == "predict":
        return [
            f"--{random.choice(FREE)}",
            random.choice(("15T", "1e308", "3,5", "4x8", _text(random))),
        ]
    if kind == 9:
        return [
            random.choice(
                ("--sp", "--no-sp", "--reshard", "--no-reshard", "--nothing", _text(random))
            )
        ]
    return []


def _text(random: Random) -> str:
    """Any hostile text or number."""
    found = random.choice((*hostile.TEXTS, *hostile.NUMBERS))
    return found.text if isinstance(found, Raw) else str(found)


def _encodable(word: str) -> str:
    """What a shell can pass: no null byte, at most 100,000 characters."""
    return word.replace("\x00", "")[:100_000]
