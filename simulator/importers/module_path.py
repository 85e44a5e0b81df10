"""Which submodule of a torch module is running, by name."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from roofcast.simulator.importers.torch_extra import torch


class Place(NamedTuple):
    """A submodule that is running."""

    name: str
    kind: str  # name of its class
    leaf: bool  # it has no submodules


class ModulePath:
    """The submodules that are running, from hooks around every forward."""

    def __init__(self, module: torch.nn.Module):
        self.names = {m: name for name, m in module.named_modules()}
        self.leaves = {m for m in module.modules() if not any(True for _ in m.children())}
        self.stack = [Place("", type(module).__name__, False)]

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, `stack` follows the running submodules."""
        hooks = (
            torch.nn.modules.module.register_module_forward_pre_hook(self._enter),
            torch.nn.modules.module.register_module_forward_hook(self._leave, always_call=True),
        )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, module: torch.nn.Module, args: Any) -> None:
        name = self.names.get(module, self.stack[-1].name)
        self.stack.append(Place(name, type(module).__name__, module in self.leaves))

    def _leave(self, module: torch.nn.Module, args: Any, out: Any) -> None:
        if len(self.stack) > 1:
            self.stack.pop()


def snake(name: str) -> str:
    """The name of a class in snake case: BatchNorm2d -> batch_norm2d.

    >>> snake("LayerNorm"), snake("LlamaRMSNorm"), snake("LeakyReLU")
    ('layer_norm', 'llama_rms_norm', 'leaky_relu')
    """
    name = re.sub(r"(Re|Si|GE|SE|CE|E)LU(?=\d|[A-Z]|$)", lambda found: found[0].capitalize(), name)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
