"""Lazy modules (nn.LazyLinear and others): their sizes are those of the first input they see."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any
from unittest import mock

from roofcast.simulator.importers.torch_extra import torch

Uninitialized: Any = torch.nn.parameter.UninitializedTensorMixin  # type: ignore[attr-defined]


def is_lazy(module: torch.nn.Module) -> bool:
    """Whether a module has weights without a size."""
    return any(_open(m) for m in module.modules())


def _open(m: torch.nn.Module) -> bool:
    tensors = (*m._parameters.values(), *m._buffers.values())
    return any(isinstance(t, Uninitialized) for t in tensors)


def copied(module: torch.nn.Module) -> torch.nn.Module:
    """A copy of a module that shares all tensors that have a size."""
    memo: dict[int, Any] = {}
    for m in module.modules():
        for t in (*m._parameters.values(), *m._buffers.values()):
            if isinstance(t, torch.nn.parameter.UninitializedBuffer):
                memo[id(t)] = torch.nn.parameter.UninitializedBuffer()
            elif t is not None and not isinstance(t, Uninitialized):
                memo[id(t)] = t
    return copy.deepcopy(module, memo)


@contextlib.contextmanager
def sized() -> Iterator[None]:
    """Inside, a lazy module takes its sizes from its input before it runs, without numbers."""
    hook = torch.nn.modules.module.register_module_forward_pre_hook(_size)
    try:
        yield
    finally:
        hook.remove()


def _size(module: torch.nn.Module, args: Any) -> None:
    """Give the weights of a lazy module their sizes, outside of every mode."""
    if not isinstance(module, torch.nn.modules.lazy.LazyModuleMixin) or not _open(module):
        return
    no_numbers = mock.patch.object(type(module), "reset_parameters", lambda self: None, create=True)
    with torch.utils._python_dispatch._disable_current_modes(), no_numbers:
        with torch._C.DisableTorchFunction():
            module.initialize_parameters(*args)
