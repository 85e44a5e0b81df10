"""PyTorch and the parts of it that a trace uses, or one line that says how to install it."""

from __future__ import annotations

from typing import Any

from roofcast.hwdb.errors import BadInput

try:
    import torch
except ImportError:
    raise BadInput(
        "tracing a module needs PyTorch, which is not installed: pip install 'roofcast[torch]'"
    ) from None

import torch.nn.functional as F
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

CPU, CUDA, META = torch.device("cpu"), torch.device("cuda:0"), torch.device("meta")
DEVICE_OF = torch.ops.prim.device.default  # the op that asks a tensor for its device
aten = torch.ops.aten

__all__ = [
    "CPU",
    "CUDA",
    "DEVICE_OF",
    "F",
    "FakeTensor",
    "FakeTensorMode",
    "META",
    "TorchDispatchMode",
    "TorchFunctionMode",
    "aten",
    "fake_tensor",
    "tensors",
    "torch",
    "tree_iter",
    "tree_map",
]


def tensors(tree: Any) -> list[torch.Tensor]:
    """The tensors of a tree, in order. Most trees are arguments of an op: plain and shallow."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    if type(tree) in (tuple, list):
        return [t for part in tree if part is not None for t in tensors(part)]
    if type(tree) is dict:
        return [t for part in tree.values() for t in tensors(part)] if tree else []
    if isinstance(tree, (int, float, str, torch.dtype, torch.device)):
        return []
    return [a for a in tree_iter(tree) if isinstance(a, torch.Tensor)]
