"""Write caches.csv: bytes of transformers' own cache of one sequence, of every shipped decoder.

    python tests/simulator/oracle/caches.py simulator/models/configs > caches.csv

A sequence of 9 and one of 17 tokens in bf16, on the meta device, so that no weight exists and no
window is full. Counters of windows are left out. transformers 5.24, torch 2.13. Models whose code
needs numbers, and those that transformers does not know, are named on the standard error.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

LENGTHS = (9, 17)
FIELDS = ("past_key_values", "cache_params", "state")  # of a model's output
DROPPED = ("quantization_config",)


def tensor_bytes(x: object, seen: set[int]) -> int:
    """Bytes of the tensors of floats that an object holds."""
    import torch

    if id(x) in seen:
        return 0
    seen.add(id(x))
    if isinstance(x, torch.Tensor):
        return x.numel() * x.element_size() if x.is_floating_point() else 0
    if isinstance(x, dict):
        return sum(tensor_bytes(v, seen) for v in x.values())
    if isinstance(x, (list, tuple)):
        return sum(tensor_bytes(v, seen) for v in x)
    if type(x).__module__.startswith("transformers"):
        return sum(tensor_bytes(v, seen) for v in vars(x).values())
    return 0


def cache_bytes(path: Path) -> list[int]:
    """Bytes behind a pass over each of LENGTHS."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    raw = json.loads(path.read_text(encoding="utf-8"))
    keys = {k: v for k, v in raw.items() if k not in DROPPED} | {"use_cache": True}
    config = AutoConfig.for_model(**keys)
    if config.is_encoder_decoder:
        raise ValueError("an encoder")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation="eager"
        ).eval()
    found = []
    for length in LENGTHS:
        with torch.no_grad():
            ids = torch.zeros(1, length, dtype=torch.long, device="meta")
            out = model(ids, use_cache=True)
        held = [x for x in (getattr(out, name, None) for name in FIELDS) if x is not None]
        if not held:
            raise ValueError("no cache")
        found.append(tensor_bytes(held[0], set()))
    return found


def main(folder: str) -> None:
    """A row per model."""
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["model", "first", "last"])
    for path in sorted(Path(folder).glob("*.json")):
        try:
            rows.writerow([path.stem, *cache_bytes(path)])
        except Exception as error:  # of any kind, in the model's own code
            print(path.stem, type(error).__name__, str(error)[:100], file=sys.stderr)
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
