"""Parameters of multimodal models and of classes with other heads, as transformers has them:
`python benchmarks/count_config_json.py tests/simulator/oracle/config_json.csv`.

Needs an environment with torch and transformers, nothing of ours. Modules are built on the meta
device; the configurations are ours, their towers mostly at published sizes.
"""

import csv
import json
import sys

import torch
import transformers

SMALL = {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000,
}  # fmt: skip
WIDE = SMALL | {"head_dim": 64}
CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "image_size": 336,
    "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
    "patch_size": 14,
}  # fmt: skip
SIGLIP = {
    "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
    "num_hidden_layers": 27, "num_attention_heads": 16, "patch_size": 14, "image_size": 896,
    "vision_use_head": False,
}  # fmt: skip
PIXTRAL = {
    "model_type": "pixtral", "hidden_size": 1024, "intermediate_size": 4096,
    "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 16, "image_size": 1024,
}  # fmt: skip
INTERN = {
    "model_type": "internvl_vision", "hidden_size": 1024, "intermediate_size": 4096,
    "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": [448, 448],
    "patch_size": [14, 14],
}  # fmt: skip
LLAMA4 = {
    "model_type": "llama4_vision_model", "hidden_size": 1408, "image_size": 336,
    "intermediate_size": 5632, "num_attention_heads": 16, "num_hidden_layers": 34,
    "patch_size": 14, "projector_input_dim": 4096, "projector_output_dim": 4096,
    "vision_output_dim": 4096,
}  # fmt: skip


def whole(kind: str, text: dict, vision: dict, **other: object) -> dict:
    """A multimodal configuration."""
    return {"model_type": kind, "text_config": text, "vision_config": vision, **other}


def qwen(kind: str, vision: dict, **text: object) -> dict:
    """One of Qwen's, whose parts are named after it."""
    of = {"model_type": f"{kind}_text", **SMALL, **text}
    return whole(kind, of, {"model_type": kind, "patch_size": 14, **vision})


def headed(name: str, kind: str, **other: object) -> dict:
    """A configuration whose class has a head of its own."""
    return {"architectures": [name], "model_type": kind, **SMALL, **other}


def heard(kind: str, of: str, text: dict, **other: object) -> dict:
    """A model that hears: towers at published sizes, their outputs as wide as the text's."""
    return {"architectures": [of], "model_type": kind, "text_config": text, **other}


EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 128}
GEMMA = {
    **WIDE, "hidden_size_per_layer_input": 32, "vocab_size_per_layer_input": 900,
    "num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"],
    "pad_token_id": 0,
}  # fmt: skip
GEMMA3N = GEMMA | {
    "model_type": "gemma3n_text", "activation_sparsity_pattern": [0.0, 0.0],
    "altup_num_inputs": 2, "laurel_rank": 16,
}  # fmt: skip
DELTA = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
QWEN3 = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "out_hidden_size": 256}
CONFIGS = {
    "gemma3": whole("gemma3", {"model_type": "gemma3_text", **WIDE}, SIGLIP),
    "gemma3-head": whole(
        "gemma3", {"model_type": "gemma3_text", **WIDE},
        SIGLIP | {"num_hidden_layers": 2, "vision_use_head": True},
    ),
    "llama4": whole(
        "llama4", {"model_type": "llama4_text", "intermediate_size_mlp": 512, **WIDE}, LLAMA4
    ),
    "mistral3": whole(
        "mistral3", {"model_type": "mistral", **WIDE}, PIXTRAL | {"patch_size": 14},
        tie_word_embeddings=False, spatial_merge_size=2,
    ),
    "pixtral": whole("llava", {"model_type": "mistral", **WIDE}, PIXTRAL),
    "llava-clip": whole("llava", {"model_type": "llama", **SMALL}, CLIP),
    "llava-siglip": whole(
        "llava", {"model_type": "qwen2", **SMALL}, SIGLIP | {"num_hidden_layers": 3},
        vision_feature_layer=[-1, -2],
    ),
    "llava-next": whole("llava_next", {"model_type": "mistral", **WIDE}, CLIP),
    "llava-onevision": whole("llava_onevision", {"model_type": "qwen2", **SMALL}, SIGLIP),
    "idefics3": whole(
        "idefics3", {"model_type": "llama", **SMALL},
        SIGLIP | {"model_type": "idefics3_vision", "image_size": 364}, scale_factor=3,
        tie_word_embeddings=False,
    ),
    "smolvlm": whole(
        "smolvlm", {"model_type": "llama", **SMALL, "tie_word_embeddings": True},
        SIGLIP | {"model_type": "smolvlm_vision", "image_size": 512, "patch_size": 16},
        scale_factor=4, tie_word_embeddings=True,
    ),
    "paligemma": whole(
        "paligemma", {"model_type": "gemma", **WIDE}, SIGLIP | {"image_size": 224}
    ),
    "internvl": whole(
        "internvl", {"model_type": "qwen2", **SMALL}, INTERN | {"attention_bias": True},
        tie_word_embeddings=False,
    ),
    "internvl-norms": whole(
        "internvl", {"model_type": "qwen3", **SMALL, "head_dim": 128},
        INTERN | {"num_hidden_layers": 2, "use_qk_norm": True, "norm_type": "rms_norm",
                  "use_mean_pooling": False, "use_mask_token": True},
        tie_word_embeddings=False,
    ),
    "qwen2-vl": qwen("qwen2_vl", {"embed_dim": 1280, "hidden_size": 256}),
    "qwen2.5-vl": qwen(
        "qwen2_5_vl", {"hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 256}
    ),
    "qwen3-vl": qwen("qwen3_vl", QWEN3, head_dim=128),
    "qwen3-vl-moe": qwen("qwen3_vl_moe", QWEN3, head_dim=128, **EXPERTS),
    "qwen3.5": qwen("qwen3_5", QWEN3 | {"patch_size": 16}, head_dim=64, **DELTA),
    "qwen3.5-moe": qwen(
        "qwen3_5_moe", QWEN3 | {"patch_size": 16}, head_dim=64, **DELTA, **EXPERTS,
        shared_expert_intermediate_size=128,
    ),
    "qwen2-audio": heard(
        "qwen2_audio", "Qwen2AudioForConditionalGeneration", {"model_type": "qwen2", **SMALL},
        audio_config={"model_type": "qwen2_audio_encoder"},
    ),
    "qwen2.5-omni": heard(
        "qwen2_5_omni_thinker", "Qwen2_5OmniThinkerForConditionalGeneration",
        {"model_type": "qwen2_5_omni_text", **SMALL}, audio_config={"output_dim": 256},
        vision_config={"hidden_size": 1280, "out_hidden_size": 256},
    ),
    "qwen3-omni": heard(
        "qwen3_omni_moe_thinker", "Qwen3OmniMoeThinkerForConditionalGeneration",
        {"model_type": "qwen3_omni_moe_text", **WIDE, **EXPERTS}, audio_config={"output_dim": 256},
        vision_config={"out_hidden_size": 256},
    ),
    "voxtral": heard(
        "voxtral", "VoxtralForConditionalGeneration",
        {"model_type": "llama", **WIDE, "tie_word_embeddings": False},
        audio_config={"model_type": "voxtral_encoder"},
    ),
    "phi-4-multimodal": {
        "architectures": ["Phi4MultimodalForCausalLM"], "model_type": "phi4_multimodal", **SMALL,
        "pad_token_id": 0, "vision_config": {}, "audio_config": {"time_reduction": 8},
    },
    "gemma-3n": heard(
        "gemma3n", "Gemma3nForConditionalGeneration", GEMMA3N, audio_config={},
        vision_config={"architecture": "mobilenetv5_300m_enc"},
    ),
    "gemma-4": heard(
        "gemma4", "Gemma4ForConditionalGeneration",
        GEMMA | {"model_type": "gemma4_text", "global_head_dim": 64},
        audio_config={}, vision_config={},
    ),
    "sequence": headed("LlamaForSequenceClassification", "llama", num_labels=3),
    "sequence-labels": headed(
        "MistralForSequenceClassification", "mistral", id2label={"0": "a"}, label2id={"a": 0}
    ),
    "tokens": headed("Qwen2ForTokenClassification", "qwen2", num_labels=5),
    "answer": headed("LlamaForQuestionAnswering", "llama"),
    "no-head": headed("Qwen3Model", "qwen3"),
}  # fmt: skip


def parameters(raw: dict) -> int:
    """Elements of all parameters of the module that a configuration describes, tied ones once."""
    keys = {key: value for key, value in raw.items() if key != "model_type"}
    config = transformers.CONFIG_MAPPING[raw["model_type"]](**json.loads(json.dumps(keys)))
    with torch.device("meta"):
        if "architectures" in raw:
            module = getattr(transformers, raw["architectures"][0])(config)
        else:
            module = transformers.AutoModelForImageTextToText.from_config(config)
            module.tie_weights()
    return sum(p.numel() for p in module.parameters())


def main(path: str) -> None:
    """Write the table."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(f"# parameters in transformers {transformers.__version__}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("name", "config", "parameters"))
        for name, raw in CONFIGS.items():
            writer.writerow((name, json.dumps(raw), parameters(raw)))


if __name__ == "__main__":
    main(sys.argv[1])
