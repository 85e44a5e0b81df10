"""Stacks by the version of their framework that a table states."""

from __future__ import annotations

import re

FLASH_2 = (2, 2)  # PyTorch whose fused attention is FlashAttention 2, and whose compiler pads
OF_2023 = {  # PyTorch 2.0 and 2.1
    "pytorch-eager": "pytorch-eager-2023",
    "pytorch-compiled": "pytorch-compiled-2023",
}
EARLY_STOP = (2023, 10)  # PyTorch 2.1, whose checkpoints do not compute what backward does not read
BEFORE_EARLY_STOP = {"fsdp-eager": "fsdp-eager-2023"}
NEMO = {"te-nemo-2024": "te-nemo-2024-experts"}  # NeMo 24.x: before fused permutation and DeepEP


def torch_version(framework: str) -> tuple[int, int] | None:
    """Major and minor version of PyTorch; None where the words state none.

    >>> torch_version("PyTorch 2.1.0 cu121 eager"), torch_version("PyTorch (pytorch-20.06-py3)")
    ((2, 1), (20, 6))
    """
    found = re.search(r"torch[^0-9]*(\d+)\.(\d+)", framework.lower())
    return (int(found[1]), int(found[2])) if found else None


def month(framework: str) -> tuple[int, int] | None:
    """Year and month that the words date the software or its table to; None where they do not.

    >>> month("llm-foundry/Composer PyTorch FSDP (2023-07 README)"), month("torchtitan")
    ((2023, 7), None)
    """
    found = re.search(r"(?<!\d)(20\d\d)-(\d\d)(?!\d)", framework)
    return (int(found[1]), int(found[2])) if found else None


def dated(stack: str, framework: str, experts: bool = False) -> str:
    """The stack as it was in the version that `framework` states; experts: the model has some.

    >>> dated("pytorch-eager", "PyTorch 2.1.0 eager"), dated("pytorch-eager", "PyTorch 2.4.0 eager")
    ('pytorch-eager-2023', 'pytorch-eager')
    >>> dated("te-nemo-2024", "NeMo 24.11", experts=True)
    'te-nemo-2024-experts'
    >>> dated("fsdp-eager", "llm-foundry (2023-07 README)")
    'fsdp-eager-2023'
    """
    if experts and re.search(r"nemo 24\.", framework.lower()):
        return NEMO.get(stack, stack)
    when = month(framework)
    if when is not None and when < EARLY_STOP:
        stack = BEFORE_EARLY_STOP.get(stack, stack)
    version = torch_version(framework)
    old = version is not None and (2, 0) <= version < FLASH_2
    return OF_2023.get(stack, stack) if old else stack
