"""The values that an option may have: what the command line offers and what the engine accepts."""

from __future__ import annotations

PRECISIONS = (
    "fp32", "tf32", "bf16", "fp16", "amp-bf16", "amp-fp16", "fp8", "nvfp4", "int8", "int8-fp32",
    "mxfp4", "int4",
)  # fmt: skip
ATTENTION = ("eager", "efficient", "flash")
MODES = ("train", "infer")
MEMORY_FORMATS = ("contiguous", "channels_last")
CP_KINDS = ("ring", "all-gather", "ulysses")
OFFLOAD = ("activations", "optimizer", "parameters")
OFFLOAD_TO = ("host", "nvme")  # memory that parameters and optimizer states are offloaded to
# formats of weights that do not train
WEIGHTS = ("nf4", "int8", "fp8", "bf16", "int4", "nvfp4", "mxfp4", "q4_k_m")
ADAPTERS = ("fp32", "bf16", "fp16")  # formats of LoRA's adapters
SCHEDULES = ("gpipe", "1f1b", "interleaved", "zb-h1", "zb-v", "dualpipe", "sequential")
ZERO_STAGES = (0, 1, 2, 3)
GOALS = ("cost", "time", "energy", "devices", "power")  # what choices of hardware are ranked by


def with_optimizer(offload: tuple[str, ...]) -> tuple[str, ...]:
    """What is offloaded where `offload` is asked for: parameters take the optimizer with them, as
    FSDP's CPU offload and ZeRO-Infinity update them where they lie.

    >>> with_optimizer(("parameters",))
    ('parameters', 'optimizer')
    """
    more = ("optimizer",) if "parameters" in offload else ()
    return tuple(dict.fromkeys((*offload, *more)))
