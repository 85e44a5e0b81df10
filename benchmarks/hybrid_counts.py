"""Count hybrids of state-space layers, linear attention and recurrences with transformers.

    python benchmarks/hybrid_counts.py counts > tests/simulator/oracle/families_hybrid.csv
    python benchmarks/hybrid_counts.py parameters > tests/simulator/oracle/parameters_hybrid.csv

Needs torch (a CPU build will do) and transformers; neither mamba-ssm, causal-conv1d and
flash-linear-attention, so that transformers composes their kernels of PyTorch's ops, nor Roofcast.
Models are built on the meta device: nothing is held or timed.

counts      one step of every configuration of oracle/configurations_hybrid.json: FLOPs of
            FlopCounterMode, with grouped expert products added (2 M N K) and without the factor of
            groups too many that it counts for the backward of grouped convolutions; storages that
            autograd packs for backward, each once
parameters  of every shipped configuration of these families, tied weights once
"""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
ORACLE = ROOT / "tests" / "simulator" / "oracle"
FORMATS = {"bf16": torch.bfloat16, "fp32": torch.float32}
COLUMNS = (
    "model batch sequence precision attention parameters flops_forward flops_backward saved_bytes"
    " saved_input_bytes saved_weight_copy_bytes"
).split()
VERSIONS = f"PyTorch {torch.__version__}, transformers {transformers.__version__}"
aten = torch.ops.aten


def key(tensor: torch.Tensor) -> int:
    """The identity of a tensor's storage."""
    return tensor.untyped_storage()._cdata


def fused_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """The kernel that a CUDA build runs: flash in bf16 without a mask, else the efficient one."""
    dim, scale = q.shape[-1], scale or 1 / math.sqrt(q.shape[-1])
    if q.dtype is torch.bfloat16 and attn_mask is None and dim == v.shape[-1] <= 256:
        pad = -dim % 8
        q, k, v = (F.pad(x, (0, pad)) if pad else x for x in (q, k, v))
        flash = aten._scaled_dot_product_flash_attention
        out = flash(q, k, v, dropout_p, is_causal, False, scale=scale)[0]
        return out[..., :dim] if pad else out
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    if attn_mask is not None:
        if attn_mask.dtype is torch.bool:
            attn_mask = torch.where(attn_mask, 0.0, float("-inf"))
        attn_mask = attn_mask.to(q.dtype)
        length = attn_mask.shape[-1]
        if length % 16:
            attn_mask = F.pad(attn_mask, (0, -length % 16))[..., :length]
        attn_mask = attn_mask.expand(*q.shape[:3], k.shape[2])
    efficient = aten._scaled_dot_product_efficient_attention
    return efficient(q, k, v, attn_mask, True, dropout_p, is_causal, scale=scale)[0]


def grouped_product(a: Any, b: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """2 M N K of rows sorted by expert times their matrices, or of the matrices' gradient."""
    return 2 * math.prod(a) * b[-1]


class Watch(TorchDispatchMode):
    """Copies of parameters in another format; FLOPs counted too often for grouped convolutions."""

    def __init__(self, parameters: set[int]):
        super().__init__()
        self.parameters, self.copies, self.excess = parameters, {}, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is aten._to_copy.default and key(args[0]) in self.parameters:
            self.copies[key(out)] = out.untyped_storage()
        if func is aten.convolution_backward.default and args[9] > 1 and args[10][1]:
            gradient, x, w, groups = args[0], args[1], args[2], args[9]
            positions = x.shape[0] * math.prod(gradient.shape[2:]) * math.prod(w.shape[2:])
            full = 2 * positions * x.shape[1] * gradient.shape[1]
            self.excess += full - full // groups
        return out


def built(config: dict[str, Any], attention: str, dtype: torch.dtype) -> torch.nn.Module:
    """The model that transformers builds of a config.json, on the meta device."""
    keys = {k: v for k, v in config.items() if k not in ("model_type", "architectures")}
    made = transformers.AutoConfig.for_model(config["model_type"], **keys)
    how = "eager" if attention == "eager" else "sdpa"
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(
            made, attn_implementation=how, dtype=dtype
        )


def count(case: dict[str, Any]) -> dict[str, Any]:
    """One row of the table."""
    model = built(case["config"], case["attention"], FORMATS[case["precision"]]).train()
    ids = torch.zeros(case["batch"], case["sequence"], dtype=torch.int64, device="meta")
    own = {key(p) for p in model.parameters()}
    skipped, watch = own | {key(b) for b in model.buffers()}, Watch(own)
    saved: dict[int, Any] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        if key(t) not in skipped:
            saved[key(t)] = t.untyped_storage()
        return t

    more = {aten._grouped_mm: grouped_product}
    forward, backward = (FlopCounterMode(display=False, custom_mapping=more) for _ in range(2))
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t)
    with hooks, forward, watch:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    sizes = dict.fromkeys(COLUMNS[-3:], 0)
    for k, storage in saved.items():
        kind = "input_" if k == key(ids) else "weight_copy_" if k in watch.copies else ""
        sizes[f"saved_{kind}bytes"] += storage.nbytes()
    with backward, watch:
        loss.backward()
    return {
        **{k: case[k] for k in ("batch", "sequence", "precision", "attention")},
        "model": json.dumps(case["config"]),
        "parameters": sum(p.numel() for p in model.parameters()),
        "flops_forward": forward.get_total_flops(),
        "flops_backward": backward.get_total_flops() - watch.excess,
        **sizes,
    }


def counts(cases: list[dict[str, Any]]) -> None:
    """The table of counts, on stdout."""
    print(f"# {VERSIONS}; small configurations of ours; training mode, no padding mask, no cache.")
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for case in cases:
        writer.writerow(count(case))
        sys.stdout.flush()


def parameters(cases: list[dict[str, Any]]) -> None:
    """The table of parameters, on stdout."""
    kinds = {case["config"]["model_type"] for case in cases}
    print(f"# {VERSIONS}; AutoModelForCausalLM on the meta device.")
    print("model,parameters")
    for path in sorted((ROOT / "simulator" / "models" / "configs").glob("*.json")):
        config = json.loads(path.read_text())
        if config["model_type"] in kinds:
            model = built(config, "eager", torch.bfloat16)
            print(f"{path.stem},{sum(p.numel() for p in model.parameters())}", flush=True)


if __name__ == "__main__":
    with (
        mock.patch.object(F, "scaled_dot_product_attention", fused_attention),
        mock.patch("transformers.masking_utils.find_packed_sequence_indices", lambda ids: None),
    ):
        given = json.loads((ORACLE / "configurations_hybrid.json").read_text())
        {"counts": counts, "parameters": parameters}[sys.argv[1]](given)
