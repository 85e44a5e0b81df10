"""What torch.cuda answers to a module that is traced or constructed: one idle GPU.

Without this, a build of PyTorch without CUDA refuses every question, even those that only choose a
code path.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

from roofcast.simulator.importers.torch_extra import CUDA, torch

CAPABILITY = (9, 0)  # compute capability: Hopper
MEMORY = 80 * 2**30  # bytes
NAME = "NVIDIA H100 80GB HBM3"
PROPERTIES = SimpleNamespace(
    name=NAME, major=9, minor=0, total_memory=MEMORY, multi_processor_count=132, warp_size=32,
    gcnArchName="",
)  # fmt: skip
ANSWERS: dict[str, Any] = {
    "is_bf16_supported": True, "get_device_capability": CAPABILITY, "device_count": 1,
    "current_device": 0, "get_device_name": NAME, "get_device_properties": PROPERTIES,
    "mem_get_info": (MEMORY, MEMORY), "utilization": 0, "synchronize": None, "empty_cache": None,
    "set_device": None, "init": None, "ipc_collect": None, "reset_peak_memory_stats": None,
    "reset_max_memory_allocated": None, "memory_allocated": 0, "memory_reserved": 0,
    "max_memory_allocated": 0, "max_memory_reserved": 0, "memory_summary": "", "memory_stats": {},
    "nvtx.range_push": 0, "nvtx.range_pop": 0, "nvtx.mark": None,
}  # fmt: skip


class Idle:
    """A stream, an event or a context of a GPU on which nothing runs."""

    device = CUDA
    cuda_stream = stream_id = 0

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __enter__(self) -> Idle:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def query(self) -> bool:
        """All work is done."""
        return True

    def elapsed_time(self, end: Idle) -> float:
        """Milliseconds between two events: no time passes."""
        return 0.0

    def nothing(self, *args: Any, **kwargs: Any) -> Idle:
        """Every other method."""
        return self

    record = wait = synchronize = wait_stream = wait_event = record_event = nothing


STAND_INS = (
    "Stream",
    "Event",
    "stream",
    "current_stream",
    "default_stream",
    "device",
    "set_stream",
)


@contextlib.contextmanager
def one_gpu() -> Iterator[None]:
    """Inside, torch.cuda answers as with one idle GPU; a real one is neither asked nor used."""
    with contextlib.ExitStack() as stack:
        for name, answer in ANSWERS.items():
            patch = mock.patch(f"torch.cuda.{name}", lambda *a, _answer=answer, **k: _answer)
            stack.enter_context(patch)
        for name in STAND_INS:
            stack.enter_context(mock.patch.object(torch.cuda, name, Idle))
        yield
