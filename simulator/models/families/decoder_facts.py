"""What each `model_type` of the Llama-like decoders in decoder.py fixes, and its default keys.

A row says where transformers' model of that type differs from Llama: in its code (norms, rotary
embeddings, biases, MLP) and in the defaults of its configuration class. A key of config.json wins
over a default.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, NamedTuple

NOTHING: Any = MappingProxyType({})


class Rotary(NamedTuple):
    """How rotary embeddings are composed of kernels [su2021].

    wide      the tables stay in fp32, and so does the rotation until its result is cast
    upcast    queries and keys are cast to fp32 first
    expanded  neighboring pairs rotate: the tables are expanded anew in every layer
    joined    the rotated elements are concatenated with the others, even if there are none
    flash     flash-attn's kernel rotates where attention is fused
    """

    wide: bool = False
    upcast: bool = False
    expanded: bool = False
    joined: bool = False
    flash: bool = False


class Facts(NamedTuple):
    """What a model_type fixes.

    norm      llama, gpt_oss, helium or bare (RMS), or layer, plain, one_plus or cohere (LayerNorm)
    placed    norms before attention and MLP, after them, around them, or one shared by both, which
              then run in parallel
    qk_norm   queries and keys: "" (none), heads, width (all heads together), rotated (after the
              rotary embedding)
    rotary    see Rotary
    unrotated no rotary embedding in layers without a window
    qkv       name of the one product that makes queries, keys and values; "": three
    mlp       gated, fused (gate and up in one product), halved (gated; intermediate_size counts
              gate and up together) or plain
    biased    which products follow the bias keys: qkv, o, mlp
    tables    rotary tables per kind of layer (windowed or full) instead of one for all
    tempered  queries are multiplied by a factor of their position
    first     a norm between embedding and layers
    every     a full layer after every so many windowed ones; 0: all are windowed
    keys      default values of keys
    names     other names of keys
    """

    norm: str = "llama"
    placed: str = "before"
    qk_norm: str = ""
    rotary: Rotary = Rotary()
    unrotated: bool = False
    qkv: str = ""
    mlp: str = "gated"
    biased: str = "qkv o mlp"
    tables: bool = False
    first: bool = False
    tempered: bool = False
    every: int = 0
    keys: Any = NOTHING
    names: Any = NOTHING


PAIRS = Rotary(expanded=True)
COHERE = Facts(
    "cohere",
    "shared",
    rotary=Rotary(upcast=True),
    biased="qkv o",
    keys={"tie_word_embeddings": True, "logit_scale": 0.0625, "max_position_embeddings": 8192},
)
COHERE2 = {**COHERE.keys, "sliding_window": 4096}
GLM = Facts(
    rotary=Rotary(expanded=True, joined=True),
    mlp="fused",
    biased="qkv",
    keys={
        "attention_bias": True,
        "head_dim": 128,
        "num_key_value_heads": 2,
        "partial_rotary_factor": 0.5,
        "max_position_embeddings": 131072,
    },
)
OLMO2 = Facts("gpt_oss", "after", "width", Rotary(wide=True), biased="qkv o")
SCALED = {"embedding_multiplier": 1.0, "residual_multiplier": 1.0, "logits_scaling": 1.0}
RELU2 = {"hidden_act": "relu2"}

FACTS: dict[str, Facts] = {
    "apertus": Facts(
        qk_norm="heads",
        mlp="plain",
        biased="qkv o",
        keys={"hidden_act": "xielu", "max_position_embeddings": 65536},
    ),
    "arcee": Facts(mlp="plain", keys={**RELU2, "max_position_embeddings": 4096}),
    # code beside the weights: huggingface baichuan-inc/Baichuan2-7B-Chat, modeling_baichuan.py
    "baichuan": Facts(
        rotary=Rotary(wide=True, upcast=True),
        qkv="W_pack",
        biased="",
        names={"model_max_length": ("max_position_embeddings",)},
    ),
    # code beside the weights: huggingface THUDM/chatglm3-6b, modeling_chatglm.py
    "chatglm": Facts(
        rotary=Rotary(joined=True),
        qkv="query_key_value",
        mlp="fused",
        keys={"attention_bias": True, "partial_rotary_factor": 0.5, "attention_out_bias": False},
        names={
            "num_layers": ("num_hidden_layers",),
            "padded_vocab_size": ("vocab_size",),
            "ffn_hidden_size": ("intermediate_size",),
            "kv_channels": ("head_dim",),
            "multi_query_group_num": ("num_key_value_heads",),
            "seq_length": ("max_position_embeddings",),
            "add_qkv_bias": ("attention_bias",),
            "add_bias_linear": ("mlp_bias", "attention_out_bias"),
        },
    ),
    "cohere": COHERE,
    "cohere2": COHERE._replace(unrotated=True, every=4, keys=COHERE2),
    "cwm": Facts(
        biased="mlp",
        every=-4,
        keys={"head_dim": 128, "num_key_value_heads": 8, "sliding_window": 8192}
        | {"max_position_embeddings": 131072},
    ),
    "ernie4_5": Facts(
        rotary=Rotary(wide=True, upcast=True, expanded=True),
        keys={"head_dim": 128, "num_key_value_heads": 2, "tie_word_embeddings": True}
        | {"max_position_embeddings": 131072},
        names={"use_bias": ("attention_bias", "mlp_bias")},
    ),
    "exaone": Facts(
        keys={"num_key_value_heads": 8, "max_position_embeddings": 4096},
        names={"num_layers": ("num_hidden_layers",), "activation_function": ("hidden_act",)},
    ),
    "exaone4": Facts(
        placed="after",
        qk_norm="heads",
        unrotated=True,
        biased="",
        every=4,
        keys={"num_key_value_heads": 32, "sliding_window": 4096},
    ),
    "glm": GLM,
    "glm4": GLM._replace(placed="around"),
    "granite": Facts(keys=SCALED),
    "helium": Facts(
        "helium",
        rotary=PAIRS,
        biased="qkv mlp",
        keys={"head_dim": 128, "num_key_value_heads": 20, "max_position_embeddings": 4096},
    ),
    "hunyuan_v1_dense": Facts(qk_norm="rotated", biased="qkv o"),
    "hyperclovax": Facts(placed="around", keys=SCALED),
    "internlm3": Facts(
        keys={"head_dim": 128, "num_key_value_heads": 2, "max_position_embeddings": 32768},
        names={"qkv_bias": ("attention_bias",), "bias": ("mlp_bias",)},
    ),
    "jais2": Facts(
        "layer",
        mlp="plain",
        keys={**RELU2, "attention_bias": True, "mlp_bias": True, "head_dim": 128}
        | {"max_position_embeddings": 8192},
    ),
    "ministral": Facts(
        biased="",
        keys={"num_key_value_heads": 8, "sliding_window": 4096, "max_position_embeddings": 131072},
    ),
    "ministral3": Facts(
        biased="",
        tempered=True,
        keys={"num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 262144},
    ),
    "nanochat": Facts(
        "bare",
        qk_norm="rotated",
        mlp="plain",
        biased="qkv o",
        first=True,
        keys={**RELU2, "final_logit_softcapping": 15.0},
    ),
    "nemotron": Facts(
        "one_plus",
        rotary=Rotary(joined=True),
        mlp="plain",
        keys={**RELU2, "partial_rotary_factor": 0.5, "max_position_embeddings": 4096},
    ),
    "olmo": Facts("plain", rotary=Rotary(wide=True), biased="qkv o"),
    "olmo2": OLMO2,
    "olmo3": OLMO2._replace(every=4, tables=True, keys={"sliding_window": 4096}),
    # code beside the weights: huggingface Qwen/Qwen-7B-Chat, modeling_qwen.py
    "qwen": Facts(
        rotary=Rotary(wide=True, upcast=True, joined=True, flash=True),
        qkv="c_attn",
        mlp="halved",
        biased="qkv",
        keys={"attention_bias": True},
        names={"kv_channels": ("head_dim",), "seq_length": ("max_position_embeddings",)},
    ),
    "seed_oss": Facts(
        keys={"attention_bias": True, "attention_out_bias": False, "head_dim": 128}
        | {"num_key_value_heads": 8, "attention_dropout": 0.1, "residual_dropout": 0.1}
        | {"max_position_embeddings": 524288}
    ),
    "smollm3": Facts(
        keys={"num_key_value_heads": 4, "tie_word_embeddings": True, "no_rope_layer_interval": 4}
        | {"max_position_embeddings": 32768}
    ),
    "stablelm": Facts(
        "layer",
        rotary=Rotary(joined=True),
        biased="qkv",
        keys={"partial_rotary_factor": 0.25, "max_position_embeddings": 4096},
        names={"use_qkv_bias": ("attention_bias",)},
    ),
}
