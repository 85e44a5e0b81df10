"""Count LoRA fine-tuning with transformers and PEFT, on the meta device.

    python benchmarks/lora_counts.py > tests/simulator/oracle/lora.csv

Needs an environment with torch (a CPU build will do), transformers and peft, not Roofcast. Prints
one row per configuration, target, format of the adapters and checkpointing; `lora_counts.py NAME`
only those of one model_type.

FLOPs are those of FlopCounterMode. Under checkpointing, those of the backward contain the
recomputation, of whole layers (PyTorch's early stop is off), and saved bytes are the inputs of the
layers and what is kept outside of them. Adapters are PEFT's own; `peft` in the column
`adapters` is its default, fp32 adapters beside 16-bit weights.
"""
# ruff: noqa: E402

from __future__ import annotations

import csv
import json
import sys
from typing import Any
from unittest import mock

sys.modules["torchvision"] = None  # type: ignore[assignment]  # its operators need its own torch

import peft
import torch
import torch.fx.experimental._config
import torch.nn.functional as F
import torch.utils.checkpoint
import transformers
from hybrid_counts import FORMATS, aten, fused_attention, grouped_product, key
from text_counts import Held, built, dropped, inputs_of
from torch.utils.flop_counter import FlopCounterMode
from transformers.modeling_layers import GradientCheckpointingLayer

COLUMNS = (
    "model", "batch", "sequence", "precision", "attention", "lora", "targets", "adapters",
    "dropout", "recompute", "parameters", "trainable_parameters", "flops_forward",
    "flops_backward", "saved_bytes", "saved_input_bytes", "saved_weight_copy_bytes",
)  # fmt: skip
BASE = {
    "vocab_size": 101, "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
PLAIN = {k: v for k, v in BASE.items() if k != "num_key_value_heads"}
LATENT = {
    "vocab_size": 101, "hidden_size": 48, "intermediate_size": 64, "moe_intermediate_size": 32,
    "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 6,
    "n_shared_experts": 2, "n_routed_experts": 8, "num_experts_per_tok": 3, "kv_lora_rank": 24,
    "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16,
    "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2,
}  # fmt: skip
NETS = (
    {**BASE, "model_type": "llama"},
    {**BASE, "model_type": "mistral", "sliding_window": 16},
    {**BASE, "model_type": "qwen2"},
    {**BASE, "model_type": "qwen3", "head_dim": 16},
    {**BASE, "model_type": "gemma", "head_dim": 16, "pad_token_id": 0},
    {**BASE, "model_type": "gemma2", "head_dim": 16, "pad_token_id": 0, "sliding_window": 16},
    {**BASE, "model_type": "gemma3_text", "head_dim": 16, "pad_token_id": 0, "sliding_window": 16},
    {**BASE, "model_type": "phi3", "pad_token_id": 0, "head_dim": 8},
    {**BASE, "model_type": "phi", "hidden_size": 120},
    {**BASE, "model_type": "starcoder2", "hidden_size": 96},
    {**BASE, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
    {**LATENT, "model_type": "deepseek_v3"},
    {"model_type": "gpt2", "vocab_size": 101, "n_embd": 48, "n_layer": 3, "n_head": 6},
    {"model_type": "opt", "vocab_size": 101, "hidden_size": 48, "ffn_dim": 72,
     "num_hidden_layers": 3, "num_attention_heads": 6, "max_position_embeddings": 128},
    {"model_type": "bloom", "vocab_size": 101, "hidden_size": 96, "n_layer": 3, "n_head": 6},
    {"model_type": "falcon", "vocab_size": 101, "hidden_size": 48, "num_hidden_layers": 3,
     "num_attention_heads": 6},
    {**PLAIN, "model_type": "gpt_neox", "hidden_size": 96},
    {"model_type": "gptj", "vocab_size": 101, "n_embd": 96, "n_layer": 3, "n_head": 6,
     "rotary_dim": 8},
    {**PLAIN, "model_type": "bert"},
    {**PLAIN, "model_type": "roberta"},
    {"model_type": "distilbert", "vocab_size": 101, "dim": 60, "n_layers": 2, "n_heads": 6,
     "hidden_dim": 72},
    {"model_type": "t5", "vocab_size": 101, "d_model": 48, "d_kv": 8, "d_ff": 64, "num_layers": 3,
     "num_heads": 6, "decoder_start_token_id": 0},
    {"model_type": "bart", "vocab_size": 101, "d_model": 48, "encoder_layers": 2,
     "encoder_attention_heads": 6, "decoder_layers": 2, "decoder_attention_heads": 4,
     "encoder_ffn_dim": 64, "decoder_ffn_dim": 80, "max_position_embeddings": 60,
     "pad_token_id": 0, "decoder_start_token_id": 1},
    {"model_type": "vit", "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6,
     "intermediate_size": 72, "image_size": 32, "patch_size": 8, "num_labels": 10},
)  # fmt: skip
QV = {  # modules like q and v of each family, as PEFT's own list of defaults has them
    "gpt2": "c_attn", "bloom": "query_key_value", "falcon": "query_key_value",
    "gpt_neox": "query_key_value", "bert": "query,value", "roberta": "query,value",
    "distilbert": "q_lin,v_lin", "t5": "q,v", "phi3": "qkv_proj", "vit": "q_proj,v_proj",
    "deepseek_v3": "q_b_proj,kv_b_proj",
}  # fmt: skip


EAGER = {"bloom", "falcon", "gemma2", "gptj"}  # without a fused attention, or with a mask
WIDE = {  # all layers with adapters, where PEFT would adapt the experts too
    "mixtral": "q_proj,k_proj,v_proj,o_proj",
    "deepseek_v3": "q_a_proj,q_b_proj,kv_a_proj_with_mqa,kv_b_proj,o_proj",
}
# Checkpoints of their decoders also hold the encoder's output and position biases, which Roofcast
# counts only where a layer keeps them.
CROSSED = {"t5", "bart"}


def cases(net: dict[str, Any]) -> list[dict[str, Any]]:
    """What is counted of a configuration."""
    kind = net["model_type"]
    few, wide = QV.get(kind, "q_proj,v_proj"), WIDE.get(kind, "all")
    fused = "eager" if kind in EAGER else "flash"
    size = {"batch": 3, "sequence": 32}
    some = (
        ("bf16", fused, 8, wide, "bf16", 0.0, "none"),
        ("bf16", fused, 8, few, "bf16", 0.0, "none"),
        ("bf16", fused, 8, few, "bf16", 0.0, "full"),
        ("bf16", fused, 4, wide, "bf16", 0.1, "full"),
        ("bf16", fused, 4, few, "peft", 0.05, "none"),
        ("fp32", "eager", 4, wide, "fp32", 0.0, "none"),
    )
    names = ("precision", "attention", "lora", "targets", "adapters", "dropout", "recompute")
    made = [{"config": net, **size, **dict(zip(names, row, strict=True))} for row in some]
    if kind in CROSSED:
        return [case for case in made if case["recompute"] == "none"]
    return made[:-1] if kind in WIDE else made  # grouped products of experts are in bf16 alone


def base_model(case: dict[str, Any], dtype: torch.dtype) -> torch.nn.Module:
    """The model without adapters, on the meta device."""
    config = case["config"]
    if config["model_type"] != "vit":
        return built(config, case["attention"], dtype).to(dtype)
    keys = {k: v for k, v in config.items() if k != "model_type"}
    made = transformers.AutoConfig.for_model("vit", **keys)
    how = "eager" if case["attention"] == "eager" else "sdpa"
    with torch.device("meta"):
        auto = transformers.AutoModelForImageClassification
        return auto.from_config(made, attn_implementation=how, dtype=dtype)


def given_to(case: dict[str, Any], model: torch.nn.Module, dtype: torch.dtype) -> dict[str, Any]:
    """What a step is given."""
    config, batch = case["config"], case["batch"]
    if config["model_type"] == "vit":
        side = config["image_size"]
        image = torch.zeros(batch, 3, side, side, dtype=dtype, device="meta")
        return {"pixel_values": image, "labels": torch.zeros(batch, dtype=int, device="meta")}
    return inputs_of(case, model, dtype)


def adapted(case: dict[str, Any], dtype: torch.dtype) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The model, and the same with adapters and checkpoints."""
    model = base_model(case, dtype)
    model.config.use_cache = False
    if case["recompute"] == "full":
        how = {"use_reentrant": False, "preserve_rng_state": False}
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
    targets = "all-linear" if case["targets"] == "all" else case["targets"].split(",")
    config = peft.LoraConfig(
        r=case["lora"], target_modules=targets, lora_dropout=case["dropout"], bias="none"
    )
    with torch.device("meta"):
        tuned = peft.get_peft_model(
            model, config, autocast_adapter_dtype=case["adapters"] == "peft"
        )
    if case["adapters"] != "peft":
        for name, p in tuned.named_parameters():
            if "lora_" in name:
                p.data = p.data.to(dtype)
    return model, tuned.train()


def count(case: dict[str, Any]) -> dict[str, Any]:
    """One row of the table."""
    dtype = FORMATS[case["precision"]]
    model, tuned = adapted(case, dtype)
    given = given_to(case, model, dtype)
    own = {key(p) for p in tuned.parameters()}
    skipped, watch = own | {key(b) for b in tuned.buffers()}, Held(own)
    entered = {key(x) for x in given.values()}
    saved: dict[int, Any] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        if key(t) not in skipped:
            saved[key(t)] = t.untyped_storage()
        return t

    def entering(_: Any, args: Any, kwargs: Any) -> None:
        for x in (*args, *kwargs.values()):
            if isinstance(x, torch.Tensor) and x.requires_grad:
                pack(x)

    if case["recompute"] == "full":
        for module in tuned.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.register_forward_pre_hook(entering, with_kwargs=True)
    more = {aten._grouped_mm: grouped_product}
    forward, backward = (FlopCounterMode(display=False, custom_mapping=more) for _ in range(2))
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t)
    whole = torch.utils.checkpoint.set_checkpoint_early_stop
    with whole(False), hooks, forward, watch:
        loss = tuned(**given).loss
    sizes = dict.fromkeys(COLUMNS[-3:], 0)
    for k, storage in saved.items():
        kind = "input_" if k in entered else "weight_copy_" if k in watch.copies else ""
        sizes[f"saved_{kind}bytes"] += storage.nbytes()
    with whole(False), backward, watch:
        loss.backward()
    parameters = [p for p in tuned.parameters()]
    return {
        **{k: case[k] for k in COLUMNS[1:10]},
        "model": json.dumps(case["config"]),
        "parameters": sum(p.numel() for p in parameters),
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "flops_forward": forward.get_total_flops(),
        "flops_backward": backward.get_total_flops() - watch.excess,
        **sizes,
    }


def main() -> None:
    """The table, on stdout."""
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(
        f"# {versions}, peft {peft.__version__}, meta device; written by benchmarks/lora_counts.py;"
        " small configurations of ours; training mode, no padding mask, no cache."
    )
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for net in NETS:
        if sys.argv[1:] and net["model_type"] not in sys.argv[1:]:
            continue
        for case in cases(net):
            writer.writerow(count(case))
            sys.stdout.flush()


if __name__ == "__main__":
    torch.fx.experimental._config.meta_nonzero_assume_all_nonzero = True  # no label is missing
    with (
        mock.patch.object(F, "scaled_dot_product_attention", fused_attention),
        mock.patch.object(F, "dropout", dropped),
        mock.patch("transformers.masking_utils.find_packed_sequence_indices", lambda ids: None),
    ):
        main()
