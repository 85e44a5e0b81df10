"""What PyTorch counts for the modules of diffusers and transformers, as rows of
tests/simulator/oracle/vision.csv.

Usage, from the repository's root, in an environment of its own with torch, diffusers and
transformers (the core install needs none of them):

    python benchmarks/vision_counts.py [WORD ...] > rows.csv

With words, only the models whose name or configuration has one of them. Modules are built on the
`meta` device: shapes without numbers. Scaled dot-product attention runs the operator that a GPU
would run: flash in bf16 without a mask, else memory-efficient. Dropout is set to zero, because
`meta` keeps the masks of a CPU.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent))
from vision_cases import CASES, called  # noqa: E402

CONFIGS = Path(__file__).parents[1] / "simulator" / "models" / "configs"
FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16}
COLUMNS = (
    "model batch size precision attention parameters flops_forward flops_backward saved_bytes"
    " saved_input_bytes"
).split()
aten = torch.ops.aten


def of_a_gpu(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """F.scaled_dot_product_attention as PyTorch's CUDA build dispatches it."""
    q, k, v = query, key, value
    d = q.shape[-1]
    if q.dtype != torch.float32 and attn_mask is None and d <= 256 and d == v.shape[-1]:
        scale, pad = scale or 1 / math.sqrt(d), -d % 8
        q, k, v = (F.pad(x, (0, pad)) if pad else x for x in (q, k, v))
        out = aten._scaled_dot_product_flash_attention(
            q, k, v, dropout_p, is_causal, False, scale=scale
        )[0]
        return out[..., :d] if pad else out
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.where(attn_mask, 0.0, float("-inf")).to(q.dtype)
        short = -attn_mask.shape[-1] % 16
        if short and not attn_mask.requires_grad:
            attn_mask = F.pad(attn_mask, (0, short))[..., : attn_mask.shape[-1]]
        attn_mask = attn_mask.to(q.dtype).expand(*q.shape[:3], k.shape[2])
    return aten._scaled_dot_product_efficient_attention(
        q, k, v, attn_mask, q.requires_grad, dropout_p, is_causal, scale=scale
    )[0]


class Grouped(TorchDispatchMode):
    """FLOPs that PyTorch's counter has too many: of gradients of grouped filters."""

    def __init__(self) -> None:
        super().__init__()
        self.excess = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten.convolution_backward.default and args[9] > 1 and args[10][1]:
            gradient, x, w, transposed, groups = args[0], args[1], args[2], args[7], args[9]
            space = (x if transposed else gradient).shape[2:].numel()
            full = 2 * len(x) * x.shape[1] * gradient.shape[1] * w.shape[2:].numel() * space
            self.excess += full - full // groups
        return func(*args, **(kwargs or {}))


def counted(model: torch.nn.Module, loss: Callable[[], Any], inputs: list[Any]) -> list[int]:
    """Parameters, FLOPs forward and backward, bytes kept for backward, and those of inputs."""
    own = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}
    given = {x.untyped_storage()._cdata for x in inputs}
    held: dict[int, Any] = {}

    def keep(x: Any) -> Any:
        storage = x.untyped_storage()
        if storage._cdata not in own:
            held.setdefault(storage._cdata, storage)
        return x

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x)
    with FlopCounterMode(display=False) as forward, hooks:
        result = loss()
    result = result if result.dim() == 0 else result.sum()
    saved = {key: storage.nbytes() for key, storage in held.items()}
    held.clear()
    with FlopCounterMode(display=False) as backward, Grouped() as grouped:
        result.backward()
    parameters = sum(p.numel() for p in model.parameters())
    own_bytes = sum(n for key, n in saved.items() if key not in given)
    input_bytes = sum(n for key, n in saved.items() if key in given)
    flops = forward.get_total_flops(), backward.get_total_flops() - grouped.excess
    return [parameters, *flops, own_bytes, input_bytes]


def row(model: str, batch: int, size: int, precision: str, attention: str) -> list[Any]:
    """One row of the table; `model` is a shipped name or a configuration."""
    raw = json.loads(model if model[0] == "{" else (CONFIGS / f"{model}.json").read_text())
    with torch.device("meta"):
        module, inputs, loss = called(raw, batch, size, FORMATS[precision], attention)
        counts = counted(module.train(), loss, inputs)
    return [model, batch, size, precision, attention, *counts]


def main() -> None:
    """Write the rows of the cases that the arguments select."""
    import diffusers
    import transformers

    F.scaled_dot_product_attention = of_a_gpu
    # keeps a buffer on a CPU and on `meta` that CUDA does not keep
    F.logsigmoid = lambda x: -F.softplus(-x)
    torch.nn.functional.scaled_dot_product_attention = of_a_gpu
    versions = (torch.__version__, diffusers.__version__, transformers.__version__)
    print(
        "# torch {}, diffusers {}, transformers {}; benchmarks/vision_counts.py".format(*versions)
    )
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(COLUMNS)
    words = sys.argv[1:]
    for case in CASES:
        if not words or any(word in case[0] for word in words):
            out.writerow(row(*case))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
