"""What tables call their software -> a stack, and its attention where that differs.

The columns `stack`, `framework`, `flash_attention`, `overlap` and `cuda_graphs` say it; where they
name nothing known, the device and the layout decide (`usual_stack`).
"""

from __future__ import annotations

import re

from roofcast import hwdb
from roofcast.hwdb.errors import quoted
from roofcast.hwdb.records import Device
from roofcast.scenarios.measured.architectures import names
from roofcast.scenarios.measured.cells import Row, first_match, number, text
from roofcast.scenarios.measured.siblings import GRAPHS, graphs_of
from roofcast.scenarios.measured.versions import dated
from roofcast.simulator.software import stack as stacks

YES, NO = ("yes", "true", "1"), ("no", "false", "0")
# stacks without overlap of tensor-parallel traffic -> with it: of the column or the notes
OVERLAPPED = dict.fromkeys(("te-nemo-2023", "megatron", "megatron-grouped"), "te-nemo-2024")
PLAIN = {"te-nemo-2024": "te-nemo-2023"}
# cuda_graphs column -> stack: nothing, all but experts, or the whole step is captured
GRAPHED = {"none": "te-nemo-2024", "partial": "te-nemo-graphs", "full": "megatron-bridge-2026"}
DROPPED = {"te-nemo-2024": "te-nemo-capacity"}  # stack -> with experts of a fixed capacity
# stacks -> with exchanges between experts behind the products of another micro-batch
EXCHANGED = {"te-nemo-graphs": "te-nemo-graphs-a2a"}
ON_GPUS = {"maxtext": "maxtext-gpu"}  # stack -> on GPUs
COMPILED = {"fsdp-torchtitan": "fsdp-torchtitan-compiled"}  # stack -> under torch.compile
TRANSFORMER_ENGINE = 2022  # on devices of that year and later, Megatron runs on Transformer Engine
# software is no older than the device that it runs on: on devices of that year and later, products
# of all experts are one launch
GROUPED = 2024
OF_MEGATRON = ("megatron-2021", "megatron-2022")  # before Transformer Engine
# kind of device, vendor -> the stacks that run on it; any other device: those of GPUs and CPUs
OWN = {
    ("tpu", "Google"): ("maxtext", "jax-xla"),
    ("npu", "AWS"): ("neuron",),
    ("npu", "Intel Habana"): ("gaudi-megatron", "optimum-habana"),
    ("npu", "Huawei"): ("modellink", "pytorch-eager"),
}
# "compile", "torch.compile", "compiled", and that it was not
COMPILE = re.compile(r"(?<![\w-])(?:torch[._ ])?compiled?(?![\w-])")
UNCOMPILED = re.compile(
    r"(?:no|without|not|un-?)[\s-]*(?:torch\.)?compiled?|compile\s*[=:]?\s*(?:off|no|false)"
)


def stack_of(row: Row, device: str, assumptions: list[str]) -> tuple[str, str | None]:
    """The software stack of a row, and its attention where that differs from the stack's."""
    stated, framework, source = (text(row, c) for c in ("stack", "framework", "source_name"))
    record = hwdb.device(device)
    stack = stated or _named(framework, source, record)
    if not stack:
        stack = usual_stack(record, *_layout(row))
        why = f"framework {quoted(framework)}" if framework else "not given"
        assumptions.append(f"stack {stack} ({why})")
    if stack in OF_MEGATRON and not stated and (record.year or 0) >= TRANSFORMER_ENGINE:
        stack = "megatron"
    if stack in GRAPHED.values() and not stated:
        graphs = graphs_of(row) or (text(row, GRAPHS) if stack == "te-nemo-2024" else "")
        stack = GRAPHED.get(graphs, stack)
    if "tokendrop" in text(row, "model_name").lower() and not stated:
        stack = DROPPED.get(stack, stack)
    if record.kind == "gpu" and not stated:
        stack = ON_GPUS.get(stack, stack)
    if stack in COMPILED and not stated and compiled(f"{framework} {text(row, 'notes')}"):
        stack = COMPILED[stack]
    experts = text(row, "experts") not in ("", "0", "1", "1.0")
    stack = _with_overlap(row, dated(stack, framework, experts))
    exchanged = re.search(r"moe_a2a_overlap\s*[=:]\s*true", text(row, "notes").lower())
    if exchanged or text(row, "overlap").lower() == "ep":
        stack = EXCHANGED.get(stack, stack)
    flash = text(row, "flash_attention").lower()
    if stack == "te-nemo-2024" and number(row, "tp") not in (None, 1) and flash == "no":
        stack = "megatron-2021"
    usual = stacks.stack(stack).implementations.get("attention", "flash")
    attention = "eager" if flash == "no" else "flash" if flash.startswith("yes") else None
    return stack, attention if attention != usual else None


def _named(framework: str, source: str, device: Device) -> str:
    """The stack that the words name, if it runs on the device; "" for none."""
    known, own = names().stacks, OWN.get((device.kind, device.vendor))
    mlperf = f"{source}; {framework}" if "mlperf" in source.lower() else framework
    for words in (mlperf, framework):
        found = first_match(words, known)
        if found and (own is None or found in own):
            return found
    return ""


def compiled(words: str) -> bool:
    """Whether the words say that the model ran under torch.compile.

    >>> compiled("torchtitan, compile"), compiled("torchtitan, no compile"), compiled("torchtitan")
    (True, False, False)
    """
    lower = words.lower()
    return bool(COMPILE.search(lower)) and not UNCOMPILED.search(lower)


def _layout(row: Row) -> tuple[bool, bool]:
    """Whether a row splits its layers over devices or multiplies in 8 bits, and whether it shards
    their weights.
    """
    split = any((number(row, column) or 1) > 1 for column in ("tp", "pp", "cp", "ep"))
    split = split or bool(re.search(r"fp8|float8|fp4", text(row, "dtype").lower()))
    sharded = text(row, "zero_stage").startswith("3") or text(row, "fsdp").lower() in YES
    return split, sharded


def usual_stack(device: Device, split: bool, sharded: bool) -> str:
    """The stack of a framework that has no profile.

    split: tensor, pipeline, context or expert parallelism, or products in 8 bits; frameworks that
    have these run on Transformer Engine where devices are new enough for it, and multiply for all
    experts at once where only software of later years runs. sharded: ZeRO 3.

    >>> usual_stack(hwdb.device("h100-sxm5"), True, False)
    'megatron'
    >>> usual_stack(hwdb.device("gb200"), True, False)
    'megatron-grouped'
    """
    own = OWN.get((device.kind, device.vendor))
    if own:
        return own[0]
    if device.kind == "npu":
        return "compiled-graph"
    if device.kind == "gpu" and split and (device.year or 0) >= TRANSFORMER_ENGINE:
        return "megatron-grouped" if (device.year or 0) >= GROUPED else "megatron"
    return "fsdp-torchtitan" if sharded else "pytorch-eager"


def _with_overlap(row: Row, stack: str) -> str:
    """The stack with or without overlapped tensor-parallel traffic, as the row states it."""
    found = re.search(r"tp_comm_overlap\s*[=:]\s*(\w+)", text(row, "notes").lower())
    cell = text(row, "overlap").lower() or (found[1] if found else "")
    if cell in (*YES, "on", "tp"):
        return OVERLAPPED.get(stack, stack)
    return PLAIN.get(stack, stack) if cell in (*NO, "off", "none") else stack
