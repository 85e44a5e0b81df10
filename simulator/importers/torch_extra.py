"""PyTorch and the parts of it that a trace uses, or one line that says how to install it."""

from __future__ import annotations

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
    "torch",
    "tree_iter",
    "tree_map",
]
