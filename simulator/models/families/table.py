"""The module that builds each Hugging Face `model_type`.

A family module has `Config`, a frozen record of the config.json keys it needs with Hugging Face's
defaults for optional ones, and `build(tape, config, batch, size)`, where `size` is the sequence
length [tokens] or the side of the image [pixels].
"""

FAMILIES = {
    "bamba": "bamba",
    "bart": "encdec",
    "bert": "bert",
    "bloom": "bloom",
    "camembert": "bert",
    "clip": "clip",
    "deepseek_v2": "deepseek",
    "deepseek_v3": "deepseek",
    "distilbert": "distilbert",
    "electra": "bert",
    "falcon": "falcon",
    "falcon_h1": "falcon_h1",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3": "text_part",
    "gemma3_text": "gemma",
    "gpt2": "gpt2",
    "gpt_neo": "gpt_neo",
    "gpt_neox": "neox",
    "gpt_oss": "gpt_oss",
    "gptj": "gptj",
    "granitemoehybrid": "bamba",
    "llama": "llama",
    "llama4": "text_part",
    "llama4_text": "llama4",
    "mamba": "mamba",
    "mamba2": "mamba2",
    "mistral": "llama",
    "mixtral": "llama",
    "mt5": "t5",
    "nemotron_h": "nemotron_h",
    "opt": "opt",
    "phi": "neox",
    "phi3": "llama",
    "qwen2": "llama",
    "qwen3": "llama",
    "qwen3_moe": "llama",
    "roberta": "bert",
    "starcoder2": "neox",
    "swin": "swin",
    "t5": "t5",
    "vit": "vit",
    "whisper": "encdec",
    "xlm-roberta": "bert",
}
IMAGE_FAMILIES = {"swin", "vit"}  # take images; all others take token sequences
