"""The module that builds each Hugging Face `model_type`, and each `_class_name` of diffusers.

A family module has `Config`, a frozen record of the config.json keys it needs with Hugging Face's
defaults for optional ones, and `build(tape, config, batch, size)`, where `size` is the sequence
length [tokens] or the side of the image [pixels]; its default is `size` of a Config that has it.
"""

FAMILIES = {
    "albert": "albert",
    "bart": "encdec",
    "bert": "bert",
    "bloom": "bloom",
    "camembert": "bert",
    "clip": "clip",
    "clip_vision_model": "vision_tower",
    "deberta-v2": "deberta",
    "deepseek_v2": "deepseek",
    "deepseek_v3": "deepseek",
    "dinov2": "dino",
    "dinov3_vit": "dino",
    "distilbert": "distilbert",
    "electra": "bert",
    "falcon": "falcon",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3": "text_part",
    "gemma3_text": "gemma",
    "gpt2": "gpt2",
    "gpt_neo": "gpt_neo",
    "gpt_neox": "neox",
    "gpt_oss": "gpt_oss",
    "gptj": "gptj",
    "hubert": "speech_encoder",
    "llama": "llama",
    "llama4": "text_part",
    "llama4_text": "llama4",
    "mamba": "mamba",
    "mistral": "llama",
    "mixtral": "llama",
    "modernbert": "modernbert",
    "mpnet": "mpnet",
    "mt5": "t5",
    "opt": "opt",
    "phi": "neox",
    "phi3": "llama",
    "qwen2": "llama",
    "qwen3": "llama",
    "qwen3_moe": "llama",
    "roberta": "bert",
    "siglip": "siglip",
    "siglip_vision_model": "vision_tower",
    "starcoder2": "neox",
    "swin": "swin",
    "t5": "t5",
    "vit": "vit",
    "wav2vec2": "speech_encoder",
    "whisper": "encdec",
    "xlm-roberta": "bert",
}
CLASSES = {  # `_class_name` of diffusers -> module
    "AutoencoderKL": "autoencoder_kl",
    "DiTTransformer2DModel": "dit",
    "FluxTransformer2DModel": "flux",
    "SD3Transformer2DModel": "mmdit",
    "UNet2DConditionModel": "unet_condition",
}
# take images; all others take token sequences
IMAGE_FAMILIES = {"clip_vision_model", "dinov2", "dinov3_vit", "siglip_vision_model", "swin", "vit"}
