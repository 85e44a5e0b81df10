"""A row of a table of training runs as the Scenario that it describes.

published/README.md lists the columns and the default of each. Functions here append every default
that they had to take to `assumptions`.
"""

from __future__ import annotations

import re
from typing import cast

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.scenarios.measured.architectures import model_of, names
from roofcast.scenarios.measured.cells import Row, first_match, number, text
from roofcast.scenarios.measured.device_words import device_named
from roofcast.scenarios.measured.networks import system_of
from roofcast.scenarios.measured.recompute_words import recompute_of
from roofcast.scenarios.measured.siblings import SAID
from roofcast.scenarios.measured.stack_words import NO, YES, stack_of
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.software import stack as stacks

# dtype column -> number format of the matrix products; the first word that occurs decides
PRECISION = {
    "nvfp4": "nvfp4", "fp8": "fp8", "float8": "fp8", "amp-bf16": "amp-bf16", "bfloat16": "bf16",
    "fp16": "fp16", "float16": "fp16", "fp32": "fp32", "tf32": "tf32",
}  # fmt: skip
OPTIMIZER = {"8bit": "adam8bit", "adafactor": "adafactor", "lion": "lion", "sgd": "momentum"}
WHOLE_EXPERTS = "megatron-bridge"  # framework whose recipes have expert_tensor_parallel_size 1
MOST_TOKENS = 16384  # default micro-batch without a pipeline: the largest with at most these tokens
ADAPTERS = re.compile(r"METHOD=(q?lora|dora)|\bq?lora\b", re.IGNORECASE)


def scenario_of(row: Row, assumptions: list[str]) -> Scenario:
    """The scenario of a row.

    Raises BadInput where a required value is missing or the run is of a kind that is not modeled,
    UnknownName for a device, stack or model that is not known.
    """
    devices, sequence, batch = (
        _required(row, column) for column in ("n_devices", "seq_len", "global_batch_seqs")
    )
    _check_adapters(row)
    device, devices, cores = device_of(text(row, "device"), devices)
    stack, attention = stack_of(row, device, assumptions)
    tp, pp, cp = (number(row, column) or 1 for column in ("tp", "pp", "cp"))
    if cores > 1 and tp % cores == 0:
        tp //= cores
    precision = precision_of(text(row, "dtype"), assumptions)
    zero, vpp = zero_of(row, stack, pp, assumptions), number(row, "vpp") or 1
    if text(row, SAID):
        assumptions.append(f"{vpp} virtual stages (not given; as row {text(row, SAID)})")
    elif not text(row, "vpp") and pp > 1:
        assumptions.append("no virtual stages (not given)")
    dp = devices // max(tp * pp * cp, 1)
    micro_batch = number(row, "micro_batch")
    if not micro_batch:
        micro_batch = _usual_micro_batch(batch, dp, pp, sequence)
        assumptions.append(f"micro-batch of {micro_batch} (not given)")
    model = model_of(row, sequence, assumptions, _dropout(row, stack, attention))
    on_one_device = Scenario(
        model=cast("str", model),  # a Model in hand serves for its name, as in `predict`
        device=device,
        batch=batch,
        sequence=sequence,
        precision=precision,
        stack=stack,
        attention=attention,
        offload=tuple(text(row, "offload").split()),
        optimizer=optimizer_of(text(row, "optimizer")),
        recompute=recompute_of(row, assumptions),
    )
    if devices == 1 and micro_batch == batch:
        return on_one_device
    return msgspec.structs.replace(
        on_one_device,
        sp=sequence_parallel(text(row, "sp"), stack, tp, sequence // cp, assumptions),
        devices=devices,
        system=system_of(row, device),
        tp=tp,
        pp=pp,
        vpp=vpp,
        dp=dp,
        cp=cp,
        ep=number(row, "ep") or 1,
        zero=zero,
        shard=number(row, "shard") if zero else None,
        etp=number(row, "etp") or (1 if WHOLE_EXPERTS in text(row, "framework").lower() else None),
        micro_batch=micro_batch,
        schedule=_schedule(row),
    )


def _check_adapters(row: Row) -> None:
    """Raises BadInput for fine-tuning of adapters."""
    if ADAPTERS.search(text(row, "notes") + text(row, "model_name")):
        raise BadInput(
            "adapter fine-tuning (LoRA and its like) is not read here; `validate --finetune` takes"
            " such rows, and `roofcast predict --lora` forecasts one"
        )


def _schedule(row: Row) -> str | None:
    """The pipeline schedule: of its column, or DualPipe where the framework says so."""
    dualpipe = "dualpipe" in text(row, "framework").lower()
    return text(row, "schedule") or ("dualpipe" if dualpipe else None)


def _dropout(row: Row, stack: str, attention: str | None) -> float:
    """The share of activations that are dropped: as the row says, else Megatron's default in the
    years in which it wrote the scores out.
    """
    eager = (attention or stacks.stack(stack).implementations.get("attention")) == "eager"
    drops = eager and stack.startswith(("megatron", "deepspeed"))
    try:
        share = float(text(row, "dropout") or (0.1 if drops else 0.0))
    except ValueError:
        share = -1.0
    if not 0.0 <= share < 1.0:
        raise BadInput(f"dropout {text(row, 'dropout')!r}: give a share from 0 to below 1")
    return share


def _required(row: Row, column: str) -> int:
    value = number(row, column)
    if not value:
        raise BadInput(f"{column}: not given")
    return value


def _usual_micro_batch(batch: int, dp: int, pp: int, sequence: int) -> int:
    """1 in a pipeline; else the largest divisor of a rank's sequences with at most MOST_TOKENS."""
    if pp > 1:
        return 1
    each = max(batch // max(dp, 1), 1)
    sizes = [d for d in range(1, each + 1) if each % d == 0 and d * sequence <= MOST_TOKENS]
    return max(sizes, default=1)


def device_of(name: str, devices: int) -> tuple[str, int, int]:
    """The device of hwdb, how many of it there are, and how many of the table's devices form one.

    Only NeuronCores differ: two of them form a Trainium chip. Raises UnknownName.
    """
    found = device_named(name, names().devices)
    if "neuroncore" in name.lower() and devices % 2 == 0:
        return found, devices // 2, 2
    return found, devices, 1


def precision_of(dtype: str, assumptions: list[str]) -> str:
    """Number format of the matrix products; weights and activations are 16-bit unless all is fp32.

    Mixtures such as "bf16 with fp32 accumulation" are bf16.
    """
    words = dtype.lower()
    for word, precision in PRECISION.items():
        if word in words and not (word in ("fp32", "tf32") and "bf16" in words):
            return precision
    if not words:
        assumptions.append("bf16 (not given)")
    return "bf16"


def bf16(row: Row) -> bool:
    """Whether a row computes in bf16."""
    return precision_of(text(row, "dtype"), []) == "bf16"


def optimizer_of(words: str) -> str:
    """The optimizer that a table names; AdamW where it names none that is known."""
    return first_match(words.replace("-", ""), OPTIMIZER) or "adamw"


def zero_of(row: Row, stack: str, pp: int, assumptions: list[str]) -> int:
    """ZeRO stage: of the columns zero_stage or fsdp, else what the stack does."""
    stage = text(row, "zero_stage")[:1]
    if stage == "0" and "deepspeed" in text(row, "framework").lower() and pp > 1 and bf16(row):
        assumptions.append("ZeRO 1: with bf16, DeepSpeed's BF16_Optimizer shards under stage 0 too")
        return 1
    if stage and stage in "0123":
        return int(stage)
    if text(row, "fsdp").lower() in YES:
        return 3
    sharded = stack.startswith(("fsdp", "maxtext", "deepspeed-zero3")) and pp == 1
    zero = 3 if sharded else 0 if stack.startswith(("megatron-2021", "megatron-2022")) else 1
    assumptions.append(f"ZeRO {zero} (not given)")
    return zero


def sequence_parallel(cell: str, stack: str, tp: int, tokens: int, assumptions: list[str]) -> bool:
    """Whether `tp` ranks also split the `tokens` of a sequence between tensor-parallel regions.

    Where the cell is empty: with tensor parallelism, on stacks since 2023.
    """
    if tp == 1:
        return False
    if cell.lower() in YES + NO:
        return cell.lower() in YES
    sp = not stack.startswith(("megatron-2021", "megatron-2022", "deepspeed")) and tokens % tp == 0
    assumptions.append(f"{'with' if sp else 'no'} sequence parallelism (not given)")
    return sp
