"""Counts of transformers' dense decoders, for tests/simulator/oracle/*_dense.csv.

    python benchmarks/reference_dense.py counts > tests/simulator/oracle/families_dense.csv
    python benchmarks/reference_dense.py parameters > tests/simulator/oracle/parameters_dense.csv

Needs an environment with torch (a CPU build will do) and transformers, no GPU, no network, no
Roofcast. Models are built on the meta device, so nothing is allocated or timed. `counts` runs one
training step of each configuration of CONFIGURATIONS forward and backward: FLOPs of
FlopCounterMode and of the grouped products that it leaves out, and the storages that autograd
packs for backward, each once. Attention and dropout are sent to the kernels that PyTorch runs on a
CUDA device. `parameters` counts those of every shipped configuration of the same model types.
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
CONFIGURATIONS = ROOT / "tests" / "simulator" / "oracle" / "configurations_dense.json"
COLUMNS = (
    "model,batch,sequence,precision,attention,parameters,flops_forward,flops_backward,saved_bytes,"
    "saved_input_bytes,saved_weight_copy_bytes"
).split(",")
VERSIONS = f"PyTorch {torch.__version__}, transformers {transformers.__version__}"
aten = torch.ops.aten


def sdpa(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """The kernel of a CUDA build: flash in 16 bits without a mask, else the efficient one."""
    dim = q.shape[-1]
    if q.element_size() == 2 and attn_mask is None and dim == v.shape[-1] <= 256:
        pad = -dim % 8
        scale = scale or 1 / math.sqrt(dim)
        q, k, v = (F.pad(x, (0, pad)) if pad else x for x in (q, k, v))
        out = aten._scaled_dot_product_flash_attention(
            q, k, v, dropout_p, is_causal, False, scale=scale
        )[0]
        return out[..., :dim] if pad else out
    if enable_gqa and k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.where(attn_mask, 0.0, float("-inf"))
        attn_mask = attn_mask.to(q.dtype)
        length = attn_mask.shape[-1]
        if length % 16:
            attn_mask = F.pad(attn_mask, (0, -length % 16))[..., :length]
        attn_mask = attn_mask.expand(*q.shape[:3], k.shape[2])
    return aten._scaled_dot_product_efficient_attention(
        q, k, v, attn_mask, True, dropout_p, is_causal, scale=scale
    )[0]


def dropout(
    x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    """Dropout that keeps a mask of bools, as on a CUDA device."""
    return aten.native_dropout(x, p, True)[0] if p and training else x


class WeightCopies(TorchDispatchMode):
    """Storages of copies of parameters in another format."""

    def __init__(self, parameters: set[int]):
        super().__init__()
        self.parameters, self.copies = parameters, {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is aten._to_copy.default and key(args[0]) in self.parameters:
            self.copies[key(out)] = out.untyped_storage()
        return out


def grouped(a: tuple, b: tuple, *args: Any, out_shape: Any = None, **options: Any) -> int:
    """FLOPs of a grouped product, which PyTorch's counter leaves out, for operands' shapes."""
    rows, inner = a[-2:]
    return 2 * rows * inner * b[-1]


def key(tensor: torch.Tensor) -> int:
    """The identity of a tensor's storage."""
    return tensor.untyped_storage()._cdata


def model_of(config: dict[str, Any], attention: str, dtype: torch.dtype) -> torch.nn.Module:
    """The model that transformers builds, on the meta device."""
    config = dict(config)
    kind = config.pop("model_type")
    config.setdefault("pad_token_id", 0)  # some default ones lie outside small vocabularies
    made = transformers.AutoConfig.for_model(kind, **config)
    made.use_cache = False
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(
            made, attn_implementation=attention, dtype=dtype
        ).train()


def count(case: dict[str, Any]) -> dict[str, Any]:
    """One row of the table."""
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[case["precision"]]
    how = "eager" if case["attention"] == "eager" else "sdpa"
    model = model_of(case["config"], how, dtype)
    ids = torch.zeros(case["batch"], case["sequence"], dtype=torch.int64, device="meta")
    parameters = list(model.parameters())
    own = {key(p) for p in parameters}
    skipped = own | {key(b) for b in model.buffers()}
    copies, saved = WeightCopies(own), {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        if key(t) not in skipped:
            saved[key(t)] = t.untyped_storage()
        return t

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t)
    forward, backward = (
        FlopCounterMode(display=False, custom_mapping={aten._grouped_mm: grouped}) for _ in range(2)
    )
    with hooks, forward, copies:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    sizes = {"saved_bytes": 0, "saved_input_bytes": 0, "saved_weight_copy_bytes": 0}
    for k, storage in saved.items():
        kind = "input_" if k == key(ids) else "weight_copy_" if k in copies.copies else ""
        sizes[f"saved_{kind}bytes"] += storage.nbytes()
    with backward:
        loss.backward()
    return {
        **{k: case[k] for k in ("batch", "sequence", "precision", "attention")},
        "model": json.dumps(case["config"]),
        "parameters": sum(p.numel() for p in parameters),
        "flops_forward": forward.get_total_flops(),
        "flops_backward": backward.get_total_flops(),
        **sizes,
    }


def counts(only: str = "") -> None:
    """The table of counts, on stdout."""
    cases = json.loads(CONFIGURATIONS.read_text())
    print(f"# {VERSIONS}; configurations are ours; training mode, no padding mask, no cache.")
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for case in cases:
        if case["config"]["model_type"].startswith(only):
            writer.writerow(count(case))
            sys.stdout.flush()


def parameters(only: str = "") -> None:
    """The table of parameters of shipped configurations, on stdout."""
    cases = json.loads(CONFIGURATIONS.read_text())
    kinds = {case["config"]["model_type"] for case in cases}
    print(f"# {VERSIONS}; AutoModelForCausalLM on the meta device, tied weights once.")
    print("model,parameters")
    for path in sorted((ROOT / "simulator" / "models" / "configs").glob("*.json")):
        config = json.loads(path.read_text())
        if config["model_type"] in kinds and path.stem.startswith(only):
            model = model_of(config, "eager", torch.bfloat16)
            print(f"{path.stem},{sum(p.numel() for p in model.parameters())}")


if __name__ == "__main__":
    with (
        mock.patch.object(F, "scaled_dot_product_attention", sdpa),
        mock.patch.object(F, "dropout", dropout),
        mock.patch("transformers.masking_utils.find_packed_sequence_indices", lambda ids: None),
    ):
        {"counts": counts, "parameters": parameters}[sys.argv[1]](*sys.argv[2:])
