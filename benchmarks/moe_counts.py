"""Count mixtures of experts with PyTorch: `python benchmarks/moe_counts.py > TABLE.csv`.

Needs an environment with torch and transformers (not roofcast): every model is built on the meta
device, so that no weight is held, and run forward and backward with its shapes only. Prints one row
per model, input, format and attention, as tests/simulator/oracle/families.csv has them. Models are
the configurations in simulator/models/configs/ with the names below, and small ones written out.
`python benchmarks/moe_counts.py NAME ...` counts only these; `--parameters` prints the parameters
of every shipped mixture of experts instead.

FLOPs are those of FlopCounterMode, with grouped expert products added (2 M N K). Saved bytes are
storages packed for backward, once each; the model's inputs and copies of weights in another format
are columns of their own. Attention is the kernel that a CUDA build picks: flash for bf16 without a
mask and equal widths of keys and values, memory-efficient otherwise.
"""

import csv
import json
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

CONFIGS = Path(__file__).parents[1] / "simulator" / "models" / "configs"
aten = torch.ops.aten
COLUMNS = (
    "model,batch,sequence,precision,attention,parameters,flops_forward,flops_backward,saved_bytes,"
    "saved_input_bytes,saved_weight_copy_bytes"
)
FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def grouped_flops(a, b, *_args, out_shape=None, **_kwargs):
    """2 M N K of a grouped product: rows sorted by expert times their matrices, or its gradient."""
    return 2 * math.prod(a) * b[-1]


FLOPS = {aten._grouped_mm: grouped_flops}


def storage(tensor):
    return tensor.untyped_storage()._cdata


def sdpa(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """The kernel that F.scaled_dot_product_attention picks on a GPU."""
    same, width = q.shape[-1] == v.shape[-1], q.shape[-1]
    if q.dtype is torch.bfloat16 and attn_mask is None and same and width <= 256:
        scale = scale or 1 / math.sqrt(width)
        pad = -width % 8
        q, k, v = (F.pad(x, (0, pad)) if pad else x for x in (q, k, v))
        flash = aten._scaled_dot_product_flash_attention
        return flash(q, k, v, dropout_p, is_causal, False, scale=scale)[0][..., :width]
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    if attn_mask is not None:
        if attn_mask.dtype is torch.bool:
            attn_mask = torch.where(attn_mask, 0.0, float("-inf")).to(q.dtype)
        length = attn_mask.shape[-1]
        attn_mask = F.pad(attn_mask, (0, -length % 16))[..., :length]
        attn_mask = attn_mask.expand(*q.shape[:3], length)
    efficient = aten._scaled_dot_product_efficient_attention
    return efficient(q, k, v, attn_mask, True, dropout_p, is_causal, scale=scale)[0]


class Copies(TorchDispatchMode):
    """Storages that are a parameter in another format."""

    def __init__(self, parameters):
        super().__init__()
        self.parameters, self.found = parameters, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is aten._to_copy.default and storage(args[0]) in self.parameters:
            self.found.add(storage(out))
        return out


def count(model, inputs):
    """Parameters, FLOPs forward and backward, and bytes kept by kind."""
    own = {storage(p) for p in model.parameters()}
    buffers = {storage(b) for b in model.buffers()}
    given = {storage(t) for t in tree_leaves(inputs)}
    kept = {}  # storages stay alive in it, so that no address is used twice

    def pack(t):
        if storage(t) not in own | buffers:
            kept[storage(t)] = t.untyped_storage()
        return t

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t)
    forward = FlopCounterMode(display=False, custom_mapping=FLOPS)
    backward = FlopCounterMode(display=False, custom_mapping=FLOPS)
    with forward, hooks, Copies(own) as copies:
        loss = model(**inputs).loss
    with backward:
        loss.backward()
    size = {k: s.nbytes() for k, s in kept.items()}
    copied = sum(size[k] for k in size if k in copies.found)
    entered = sum(size[k] for k in size if k in given)
    return (
        sum(p.numel() for p in model.parameters()),
        forward.get_total_flops(),
        backward.get_total_flops(),
        sum(size.values()) - copied - entered,
        entered,
        copied,
    )


def configuration(raw):
    """The transformers configuration of the keys of a config.json."""
    raw = dict(raw)
    kind = raw.pop("model_type")
    kind = {"kimi_k2": "deepseek_v3"}.get(kind, kind)
    if kind == "dbrx":  # transformers 5.24 reads a key that its own configuration lacks
        transformers.models.dbrx.configuration_dbrx.DbrxAttentionConfig.rope_theta = 10000.0
    return transformers.AutoConfig.for_model(kind, **raw)


def build(config, attention="sdpa", dtype=torch.bfloat16):
    """The model on the meta device, in training."""
    config._attn_implementation = attention
    multimodal = hasattr(config, "text_config")
    auto = transformers.AutoModelForCausalLM
    if multimodal:
        config.text_config._attn_implementation = attention
        auto = transformers.AutoModelForImageTextToText
    with torch.device("meta"):
        model = auto.from_config(config)
    model.tie_weights()
    return model.to(dtype).train()


def named(name):
    """The keys of a shipped configuration, or of one that is written out."""
    return json.loads(name if name[0] == "{" else (CONFIGS / f"{name}.json").read_text())


def row(name, batch, sequence, precision, attention):
    """One line of the table."""
    kind = "eager" if attention == "eager" else "sdpa"
    model = build(configuration(named(name)), kind, FORMATS[precision])
    model.config.use_cache = False
    ids = torch.zeros((batch, sequence), dtype=torch.int64, device="meta")
    return (
        name,
        batch,
        sequence,
        precision,
        attention,
        *count(model, dict(input_ids=ids, labels=ids)),
    )


BASE = {
    "vocab_size": 101,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
LATENT = {
    **BASE,
    "num_key_value_heads": 6,
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 24,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "n_group": 4,
    "topk_group": 2,
}
INDEXED = {**LATENT, "index_n_heads": 4, "index_head_dim": 16, "index_topk": 16}
GROUPS = {
    "n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 3, "n_group": 4,
    "topk_group": 2, "moe_intermediate_size": 32, "first_k_dense_replace": 1,
}  # fmt: skip
SMALL = (  # keys that no shipped size uses
    {**BASE, "model_type": "glm4_moe", "head_dim": 16, "use_qk_norm": True, **GROUPS},
    {**BASE, "model_type": "minimax_m2", "head_dim": 16, "rotary_dim": 4, "num_local_experts": 8},
    {**BASE, "model_type": "qwen2_moe", "num_experts": 8, "decoder_sparse_step": 2,
     "mlp_only_layers": [1], "norm_topk_prob": True, "moe_intermediate_size": 32,
     "shared_expert_intermediate_size": 40, "use_sliding_window": True, "sliding_window": 16,
     "max_window_layers": 2},
    {**BASE, "model_type": "olmoe", "clip_qkv": 8.0, "attention_bias": True, "num_experts": 10},
    {**BASE, "model_type": "flex_olmo", "norm_topk_prob": True, "pad_token_id": None},
    {**BASE, "model_type": "phimoe", "attention_bias": True, "sliding_window": 16},
    {**BASE, "model_type": "granitemoe", "attention_bias": True, "tie_word_embeddings": True,
     "residual_multiplier": 0.5, "embedding_multiplier": 2.0, "logits_scaling": 2.0},
    {**BASE, "model_type": "ernie4_5_moe", "use_bias": True, "moe_layer_interval": 2,
     "moe_num_experts": 8, "moe_num_shared_experts": 1, "moe_k": 3, "moe_intermediate_size": 32,
     "tie_word_embeddings": False},
    {**BASE, "model_type": "hunyuan_v1_moe", "head_dim": 8, "num_experts": 8,
     "moe_topk": [3, 3, 3, 3], "moe_intermediate_size": [32, 32, 32, 32], "attention_bias": True},
    {**BASE, "model_type": "dots1", "sliding_window": 16, "max_window_layers": 2, **GROUPS},
    {**LATENT, "model_type": "kimi_k2", "norm_topk_prob": False},
    {**LATENT, "model_type": "glm4_moe_lite", "mlp_layer_types": ["dense", "sparse"] * 2},
    {**INDEXED, "model_type": "deepseek_v32"},
    {**INDEXED, "model_type": "glm_moe_dsa", "index_topk_freq": 2, "index_skip_topk_offset": 1},
)  # fmt: skip
NAMES = (
    "deepseek-v3.2", "dots-llm1", "ernie-4.5-21b-a3b", "flex-olmo-7x7b", "glm-4.5-air",
    "glm-4.7-flash", "glm-5", "granite-3.1-1b-a400m", "hunyuan-a13b", "kimi-k2", "minimax-m2",
    "olmoe-7b", "phi-3.5-moe", "qwen1.5-moe-a2.7b",
)  # fmt: skip


def shipped():
    """Names of the shipped mixtures of experts that transformers builds with sdpa."""
    for path in sorted(CONFIGS.glob("*.json")):
        raw = json.loads(path.read_text())
        if any("expert" in key or key == "ffn_config" for key in raw):
            if raw["model_type"] != "gpt_oss":
                yield path.stem


def rows(names):
    """What is counted: (model, batch, sequence, format, attention)."""
    for name in names:
        for batch, sequence, attention in ((1, 2048, "flash"), (4, 512, "flash"), (3, 40, "eager")):
            yield name, batch, sequence, "bf16", attention


def main(arguments):
    """Print the table."""
    F.scaled_dot_product_attention = torch.nn.functional.scaled_dot_product_attention = sdpa
    transformers.masking_utils.find_packed_sequence_indices = lambda *_args, **_kwargs: None
    versions = f"# torch {torch.__version__}, transformers {transformers.__version__}, meta device"
    print(f"{versions}; written by benchmarks/moe_counts.py")
    if arguments[:1] == ["--parameters"]:
        print("model,parameters")
        for name in arguments[1:] or shipped():
            model = build(configuration(named(name)))
            print(f"{name},{sum(p.numel() for p in model.parameters())}", flush=True)
        return
    print(COLUMNS)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for asked in rows(arguments or (*NAMES, *map(json.dumps, SMALL))):
        writer.writerow(row(*asked))
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
