"""Which submodule of a torch module is running, by name."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from roofcast.simulator.importers.torch_extra import torch
from roofcast.simulator.importers.user_code import frames

LONGEST = 80  # characters of a layer's arguments in a message


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

    def failed(self, error: BaseException) -> str:
        """The innermost submodule on the way to an exception, and what it was given."""
        layer, args = None, {}
        for local in frames(error):
            own = local.get("self")
            if isinstance(own, torch.nn.Module) and own in self.names:
                layer, args = own, local
        if layer is None or not self.names[layer]:
            return ""
        if isinstance(layer, torch.jit.ScriptModule):
            return f" in layer {self.names[layer]}"
        text = type(layer).__name__
        if layer in self.leaves:
            with contextlib.suppress(Exception):  # it is code of the layer
                whole = f"{text}({layer.extra_repr()})"
                text = whole if len(whole) <= LONGEST else text
        shapes = [
            "x".join(map(str, v.shape)) or "a scalar"
            for key, v in args.items()
            if isinstance(v, torch.Tensor) and key != "self"
        ]
        given = f" given {', '.join(shapes[:3])}" if shapes and layer in self.leaves else ""
        return f" in layer {self.names[layer]}, {text}{given},"

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
