"""Which module builds which Hugging Face `model_type`. A family module has `Config` (a frozen record of the keys it
needs, with Hugging Face's defaults for those that may be left out) and `build(tape, config, batch, sequence_or_image)`.
"""

FAMILIES = {
    "bert": "bert",
    "bloom": "bloom",
    "camembert": "bert",
    "deepseek_v2": "deepseek",
    "deepseek_v3": "deepseek",
    "distilbert": "distilbert",
    "electra": "bert",
    "falcon": "falcon",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3_text": "gemma",
    "gpt2": "gpt2",
    "gpt_neox": "neox",
    "gpt_oss": "gpt_oss",
    "gptj": "gptj",
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "opt": "opt",
    "phi": "neox",
    "phi3": "llama",
    "qwen2": "llama",
    "qwen3": "llama",
    "qwen3_moe": "llama",
    "roberta": "bert",
    "starcoder2": "neox",
    "t5": "t5",
    "vit": "vit",
    "xlm-roberta": "bert",
}
PICTURES = {"vit"}  # take images; all others take token sequences
