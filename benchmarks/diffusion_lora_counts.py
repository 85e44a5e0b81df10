"""What PyTorch, diffusers and PEFT count when a denoiser is fine-tuned, as rows of
tests/simulator/oracle/diffusion_lora.csv.

Usage, from the repository's root, in an environment of its own with torch, diffusers, transformers
and peft (the core install needs none of them):

    python benchmarks/diffusion_lora_counts.py [WORD ...] > rows.csv

With words, only the models whose name or configuration has one of them. Modules are built on the
`meta` device, as in vision_counts.py, and get adapters by their own `add_adapter`, as the training
scripts of diffusers do. Under checkpointing (`enable_gradient_checkpointing`), FLOPs of the
backward contain the recomputation, of whole parts (PyTorch's early stop is off), and saved bytes
are what checkpoints are given and what is kept outside of them.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent))
from vision_cases import SMALL_FLUX, SMALL_SD3, SMALL_UNET, denoiser  # noqa: E402
from vision_counts import CONFIGS, FORMATS, of_a_gpu  # noqa: E402

COLUMNS = (
    "model batch size precision lora targets recompute parameters trainable_parameters"
    " flops_forward flops_backward saved_bytes saved_input_bytes"
).split()
ATTENTION = "to_q,to_k,to_v,to_out.0"  # of train_text_to_image_lora.py, train_dreambooth_lora.py
SD3 = (  # of train_dreambooth_lora_sd3.py
    "attn.to_q,attn.to_k,attn.to_v,attn.to_out.0,attn.add_q_proj,attn.add_k_proj,attn.add_v_proj,"
    "attn.to_add_out"
)
FLUX = SD3 + ",ff.net.0.proj,ff.net.2,ff_context.net.0.proj,ff_context.net.2"  # ..._lora_flux.py
MODELS = (
    ("sd-1.5-unet", 512, ATTENTION),
    ("sd-2.1-unet", 768, ATTENTION),
    ("sdxl-unet", 1024, ATTENTION),
    ("sd3-medium", 512, SD3),
    ("sd3.5-medium", 512, SD3),
    ("flux-dev", 512, FLUX),
    ("flux-dev", 512, ATTENTION),
    (SMALL_UNET, 128, ATTENTION),
    (SMALL_SD3, 128, SD3),
    (SMALL_FLUX, 64, FLUX),
)
Loss = Callable[[], torch.Tensor]


def storage(x: torch.Tensor) -> int:
    """What tells the memory behind a tensor from that of others."""
    return x.untyped_storage()._cdata


class Saved:
    """Bytes that autograd and checkpoints keep, by storage."""

    def __init__(self, model: torch.nn.Module, inputs: list[torch.Tensor]):
        self.own = {storage(p) for p in (*model.parameters(), *model.buffers())}
        self.given = {storage(x) for x in inputs}
        self.held: dict[int, Any] = {}

    def keep(self, x: torch.Tensor) -> torch.Tensor:
        """A tensor that is kept."""
        if storage(x) not in self.own:
            self.held.setdefault(storage(x), x.untyped_storage())
        return x

    def checkpointed(self, function: Any, *args: Any) -> Any:
        """diffusers' checkpoint; what it is given stays where something inside has a gradient."""
        before = dict(self.held)
        out = checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)
        results = out if isinstance(out, tuple) else (out,)
        if any(x is not None and x.requires_grad for x in results):
            for x in args:
                for each in x if isinstance(x, tuple) else (x,):
                    if isinstance(each, torch.Tensor):
                        self.keep(each)
        else:  # it is forgotten with what it was given
            self.held = before
        return out

    def bytes(self) -> tuple[int, int]:
        """Of activations, and of inputs."""
        sizes = {key: kept.nbytes() for key, kept in self.held.items()}
        inputs = sum(n for key, n in sizes.items() if key in self.given)
        return sum(sizes.values()) - inputs, inputs


def counted(model: Any, loss: Loss, inputs: list[torch.Tensor], recompute: str) -> list[int]:
    """The numbers of a row."""
    saved = Saved(model, inputs)
    if recompute == "full":
        model.enable_gradient_checkpointing(saved.checkpointed)
    hooks = torch.autograd.graph.saved_tensors_hooks(saved.keep, lambda x: x)
    with set_checkpoint_early_stop(False), FlopCounterMode(display=False) as forward, hooks:
        result = loss()
    own, given = saved.bytes()
    saved.held.clear()
    with set_checkpoint_early_stop(False), FlopCounterMode(display=False) as backward:
        result.backward()
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return [
        sum(n for n, _ in sizes),
        sum(n for n, trains in sizes if trains),
        forward.get_total_flops(),
        backward.get_total_flops(),
        own,
        given,
    ]


def row(model: str, batch: int, size: int, precision: str, rank: int, targets: str, how: str):
    """One row of the table; rank 0: all weights train."""
    import peft

    raw = json.loads(model if model[0] == "{" else (CONFIGS / f"{model}.json").read_text())
    with torch.device("meta"):
        module, inputs, loss = denoiser(raw, batch, size, FORMATS[precision])
        if rank:
            module.requires_grad_(False)
            module.add_adapter(peft.LoraConfig(r=rank, target_modules=targets.split(",")))
            for name, p in module.named_parameters():
                if "lora_" in name:
                    p.data = p.data.to(FORMATS[precision])
        counts = counted(module.train(), loss, inputs, how)
    return [model, batch, size, precision, rank, targets if rank else "", how, *counts]


def main() -> None:
    """Write the rows of the models that the arguments select."""
    import diffusers
    import peft

    F.scaled_dot_product_attention = of_a_gpu
    torch.nn.functional.scaled_dot_product_attention = of_a_gpu
    versions = torch.__version__, diffusers.__version__, peft.__version__
    print(
        "# torch {}, diffusers {}, peft {}; benchmarks/diffusion_lora_counts.py".format(*versions)
    )
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(COLUMNS)
    words = sys.argv[1:]
    for model, size, targets in MODELS:
        if words and not any(word in model for word in words):
            continue
        for rank, how in ((4, "none"), (16, "full"), (0, "full")):
            batch = 1 if rank == 4 else 2
            out.writerow(row(model, batch, size, "bf16", rank, targets, how))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
