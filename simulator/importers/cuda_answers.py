"""What torch.cuda answers to a module that is traced or constructed: one idle GPU.

Without this, a build of PyTorch without CUDA refuses every question, even those that only choose a
code path.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

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


# what is replaced in PyTorch now: where, its name there, and what stood there
_replaced: list[tuple[Any, str, Any]] = []


@contextlib.contextmanager
def replaced(where: Any, name: str, ours: Any) -> Iterator[None]:
    """Inside, an attribute of a module of PyTorch is ours."""
    own = getattr(where, name)
    _replaced.append((where, name, own))
    setattr(where, name, ours)
    try:
        yield
    finally:
        setattr(where, name, own)
        _replaced.pop()


@contextlib.contextmanager
def one_gpu() -> Iterator[None]:
    """Inside, torch.cuda answers as with one idle GPU; a real one is neither asked nor used."""
    with contextlib.ExitStack() as stack:
        for path, answer in ANSWERS.items():
            *inside, name = path.split(".")
            where = functools.reduce(getattr, inside, torch.cuda)
            stack.enter_context(replaced(where, name, lambda *a, _answer=answer, **k: _answer))
        for name in STAND_INS:
            stack.enter_context(replaced(torch.cuda, name, Idle))
        yield


def load_compiler() -> None:
    """Import PyTorch's compiler as it is without what is replaced, of which it takes copies.

    The Python around fake tensors imports it, and so do PyTorch's shape rules in Python.
    """
    if "torch._dynamo" in sys.modules:
        return
    ours = [getattr(where, name) for where, name, _ in _replaced]
    for where, name, own in reversed(_replaced):
        setattr(where, name, own)
    try:
        with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
            importlib.import_module("torch._dynamo.config")
    finally:
        for (where, name, _), one in zip(_replaced, ours, strict=True):
            setattr(where, name, one)
