"""Count prompt and prefix tuning with transformers and PEFT, on the meta device.

    python benchmarks/prompt_counts.py > tests/simulator/oracle/prompts.csv

Needs an environment with torch (a CPU build will do), transformers and peft, not Roofcast. Prints
one row per configuration of lora_counts.py and method, with eager attention in bf16: trainable
parameters, and the FLOPs of FlopCounterMode.
"""

from __future__ import annotations

import csv
import json
import sys
from typing import Any

import peft
import torch
from lora_counts import NETS, base_model, given_to
from torch.utils.flop_counter import FlopCounterMode

COLUMNS = (
    "model", "batch", "sequence", "method", "tokens", "parameters", "trainable_parameters",
    "flops_forward", "flops_backward",
)  # fmt: skip
KINDS = ("llama", "mistral", "qwen2", "gpt2", "opt", "starcoder2", "gpt_neox")
METHODS = {"prompt": peft.PromptTuningConfig, "prefix": peft.PrefixTuningConfig}
VIRTUAL = 7  # tokens


def count(net: dict[str, Any], method: str) -> dict[str, Any]:
    """One row of the table."""
    case = {"config": net, "batch": 3, "sequence": 32, "attention": "eager"}
    model = base_model(case, torch.bfloat16)
    given = given_to(case, model, torch.bfloat16)
    config = METHODS[method](task_type="CAUSAL_LM", num_virtual_tokens=VIRTUAL)
    with torch.device("meta"):
        tuned = peft.get_peft_model(model, config).train()
        mask = torch.ones(3, 32, dtype=torch.int64)
        forward, backward = (FlopCounterMode(display=False) for _ in range(2))
        with forward:
            loss = tuned(**given, attention_mask=mask).loss
        with backward:
            loss.backward()
    sizes = [(p.numel(), p.requires_grad) for p in tuned.parameters()]
    return {
        "model": json.dumps(net),
        "batch": 3,
        "sequence": 32,
        "method": method,
        "tokens": VIRTUAL,
        "parameters": sum(n for n, _ in sizes),
        "trainable_parameters": sum(n for n, trains in sizes if trains),
        "flops_forward": forward.get_total_flops(),
        "flops_backward": backward.get_total_flops(),
    }


def main() -> None:
    """The table, on stdout."""
    print(
        f"# torch {torch.__version__}, peft {peft.__version__}, meta device; written by"
        " benchmarks/prompt_counts.py; small configurations of ours"
    )
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for net in NETS:
        for method in METHODS if net["model_type"] in KINDS else ():
            try:
                writer.writerow(count(net, method))
            except Exception as error:  # a family whose masks look at values
                print(f"{net['model_type']} {method}: {error!r}"[:300], file=sys.stderr)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
