"""Names of the configurations in configs/ (Hugging Face config.json) and their sources."""


def _hub(model: str, cited: str = "") -> str:
    """The source of a configuration: its Hugging Face Hub page, and the paper that prints it."""
    return f"huggingface.co/{model} config.json" + (f"; {cited}" if cited else "")


OPT = "Zhang et al. 2022, Table 1"
PYTHIA = "Biderman et al. 2023, Table 1"
QWEN2 = "Qwen team 2024, Table 1"
BLOOM = "Le Scao et al. 2022, Table 3"
LLAMA3 = "Llama team 2024, Table 3"
T5 = "Raffel et al. 2020, Section 3.7"
WHISPER = "Radford et al. 2022, Table 1"
GPT2 = "Radford et al. 2019, Table 2"
LLAMA = "Touvron et al. 2023, LLaMA, Table 2"
MAMBA = "Gu and Dao 2023, Table 12"
LLAMA2 = "Touvron et al. 2023, Llama 2, Table 1"
GEMMA2 = "Gemma team 2024, Gemma 2, Table 1"

SHIPPED: dict[str, str] = {  # name -> source
    "bart-large": _hub("facebook/bart-large", "Lewis et al. 2019, Section 5"),
    "bert-base": _hub("google-bert/bert-base-uncased", "Devlin et al. 2018, Section 3"),
    "bert-large": _hub("google-bert/bert-large-uncased", "Devlin et al. 2018, Section 3"),
    "bloom-176b": _hub("bigscience/bloom", BLOOM),
    "bloom-1b7": _hub("bigscience/bloom-1b7", BLOOM),
    "bloom-3b": _hub("bigscience/bloom-3b", BLOOM),
    "bloom-560m": _hub("bigscience/bloom-560m", BLOOM),
    "bloom-7b1": _hub("bigscience/bloom-7b1", BLOOM),
    "clip-vit-base-patch32": _hub("openai/clip-vit-base-patch32", "Radford et al. 2021, Table 20"),
    "codellama-34b": _hub("codellama/CodeLlama-34b-hf", "Roziere et al. 2023, Section 2"),
    "deepseek-v2": _hub("deepseek-ai/DeepSeek-V2", "DeepSeek-AI 2024, DeepSeek-V2, Section 3.1"),
    "deepseek-v2-lite": _hub(
        "deepseek-ai/DeepSeek-V2-Lite", "DeepSeek-AI 2024, DeepSeek-V2, Appendix B"
    ),
    "deepseek-v3": _hub("deepseek-ai/DeepSeek-V3", "DeepSeek-AI 2024, DeepSeek-V3, Section 4.2"),
    "falcon-40b": _hub("tiiuae/falcon-40b", "Almazrouei et al. 2023, Table 15"),
    "falcon-7b": _hub("tiiuae/falcon-7b", "Almazrouei et al. 2023, Table 15"),
    "gemma-2-27b": _hub("google/gemma-2-27b", GEMMA2),
    "gemma-2-2b": _hub("google/gemma-2-2b", GEMMA2),
    "gemma-2-9b": _hub("google/gemma-2-9b", GEMMA2),
    "gemma-2b": _hub("google/gemma-2b", "Gemma team 2024, Table 1"),
    "gemma-3-12b": _hub("google/gemma-3-12b-pt", "text part; Gemma team 2025, Table 1"),
    "gemma-3-1b": _hub("google/gemma-3-1b-pt", "Gemma team 2025, Table 1"),
    "gemma-3-27b": _hub("google/gemma-3-27b-pt", "text part; Gemma team 2025, Table 1"),
    "gemma-3-4b": _hub("google/gemma-3-4b-pt", "text part; Gemma team 2025, Table 1"),
    "gpt-j-6b": _hub("EleutherAI/gpt-j-6b", "Wang and Komatsuzaki 2021"),
    "gpt-neox-20b": _hub("EleutherAI/gpt-neox-20b", "Black et al. 2022, Section 2"),
    "gpt-oss-120b": _hub("openai/gpt-oss-120b", "OpenAI 2025, Table 1"),
    "gpt-oss-20b": _hub("openai/gpt-oss-20b", "OpenAI 2025, Table 1"),
    "gpt2": _hub("openai-community/gpt2", GPT2),
    "gpt2-large": _hub("openai-community/gpt2-large", GPT2),
    "gpt2-medium": _hub("openai-community/gpt2-medium", GPT2),
    "gpt2-xl": _hub("openai-community/gpt2-xl", GPT2),
    "gpt3-175b": "Brown et al. 2020, Table 2.1; vocabulary and 2048 positions as in its Section"
    " 2.1, in GPT-2's form",
    "llama-13b": _hub("huggyllama/llama-13b", LLAMA),
    "llama-2-13b": _hub("meta-llama/Llama-2-13b-hf", LLAMA2),
    "llama-2-70b": _hub("meta-llama/Llama-2-70b-hf", LLAMA2),
    "llama-2-7b": _hub("meta-llama/Llama-2-7b-hf", LLAMA2),
    "llama-3-70b": _hub("meta-llama/Meta-Llama-3-70B", LLAMA3),
    "llama-3-8b": _hub("meta-llama/Meta-Llama-3-8B", LLAMA3),
    "llama-3.1-405b": _hub("meta-llama/Llama-3.1-405B", LLAMA3),
    "llama-3.1-70b": _hub("meta-llama/Llama-3.1-70B", LLAMA3),
    "llama-3.1-8b": _hub("meta-llama/Llama-3.1-8B", LLAMA3),
    "llama-3.2-1b": _hub("meta-llama/Llama-3.2-1B"),
    "llama-3.2-3b": _hub("meta-llama/Llama-3.2-3B"),
    "llama-30b": _hub("huggyllama/llama-30b", LLAMA),
    "llama-4-scout": _hub("meta-llama/Llama-4-Scout-17B-16E", "text part"),
    "llama-65b": _hub("huggyllama/llama-65b", LLAMA),
    "llama-7b": _hub("huggyllama/llama-7b", LLAMA),
    "mamba-1.4b": _hub("state-spaces/mamba-1.4b-hf", MAMBA),
    "mamba-130m": _hub("state-spaces/mamba-130m-hf", MAMBA),
    "mamba-2.8b": _hub("state-spaces/mamba-2.8b-hf", MAMBA),
    "mamba-370m": _hub("state-spaces/mamba-370m-hf", MAMBA),
    "mistral-7b": _hub("mistralai/Mistral-7B-v0.1", "Jiang et al. 2023, Table 1"),
    "mistral-nemo-12b": _hub("mistralai/Mistral-Nemo-Base-2407"),
    "mistral-small-24b": _hub("mistralai/Mistral-Small-24B-Base-2501"),
    "mixtral-8x22b": _hub("mistralai/Mixtral-8x22B-v0.1"),
    "mixtral-8x7b": _hub("mistralai/Mixtral-8x7B-v0.1", "Jiang et al. 2024, Table 1"),
    "opt-1.3b": _hub("facebook/opt-1.3b", OPT),
    "opt-125m": _hub("facebook/opt-125m", OPT),
    "opt-13b": _hub("facebook/opt-13b", OPT),
    "opt-175b": OPT + ", in the form of huggingface.co/facebook/opt-66b config.json",
    "opt-2.7b": _hub("facebook/opt-2.7b", OPT),
    "opt-30b": _hub("facebook/opt-30b", OPT),
    "opt-6.7b": _hub("facebook/opt-6.7b", OPT),
    "opt-66b": _hub("facebook/opt-66b", OPT),
    "phi-3-mini": _hub("microsoft/Phi-3-mini-4k-instruct", "Abdin et al. 2024, Section 2"),
    "phi-4": _hub("microsoft/phi-4", "Abdin et al. 2024, Phi-4, Section 3"),
    "pythia-1.4b": _hub("EleutherAI/pythia-1.4b", PYTHIA),
    "pythia-12b": _hub("EleutherAI/pythia-12b", PYTHIA),
    "pythia-160m": _hub("EleutherAI/pythia-160m", PYTHIA),
    "pythia-1b": _hub("EleutherAI/pythia-1b", PYTHIA),
    "pythia-2.8b": _hub("EleutherAI/pythia-2.8b", PYTHIA),
    "pythia-410m": _hub("EleutherAI/pythia-410m", PYTHIA),
    "pythia-6.9b": _hub("EleutherAI/pythia-6.9b", PYTHIA),
    "qwen2.5-0.5b": _hub("Qwen/Qwen2.5-0.5B", QWEN2),
    "qwen2.5-1.5b": _hub("Qwen/Qwen2.5-1.5B", QWEN2),
    "qwen2.5-14b": _hub("Qwen/Qwen2.5-14B", QWEN2),
    "qwen2.5-32b": _hub("Qwen/Qwen2.5-32B", QWEN2),
    "qwen2.5-3b": _hub("Qwen/Qwen2.5-3B", QWEN2),
    "qwen2.5-72b": _hub("Qwen/Qwen2.5-72B", QWEN2),
    "qwen2.5-7b": _hub("Qwen/Qwen2.5-7B", QWEN2),
    "qwen3-0.6b": _hub("Qwen/Qwen3-0.6B", "Qwen team 2025, Table 1"),
    "qwen3-1.7b": _hub("Qwen/Qwen3-1.7B", "Qwen team 2025, Table 1"),
    "qwen3-14b": _hub("Qwen/Qwen3-14B", "Qwen team 2025, Table 1"),
    "qwen3-235b-a22b": _hub("Qwen/Qwen3-235B-A22B", "Qwen team 2025, Table 2"),
    "qwen3-30b-a3b": _hub("Qwen/Qwen3-30B-A3B", "Qwen team 2025, Table 2"),
    "qwen3-32b": _hub("Qwen/Qwen3-32B", "Qwen team 2025, Table 1"),
    "qwen3-4b": _hub("Qwen/Qwen3-4B", "Qwen team 2025, Table 1"),
    "qwen3-8b": _hub("Qwen/Qwen3-8B", "Qwen team 2025, Table 1"),
    "roberta-base": _hub("FacebookAI/roberta-base", "Liu et al. 2019, Section 2"),
    "smollm2-1.7b": _hub("HuggingFaceTB/SmolLM2-1.7B"),
    "smollm2-135m": _hub("HuggingFaceTB/SmolLM2-135M"),
    "smollm2-360m": _hub("HuggingFaceTB/SmolLM2-360M"),
    "starcoder2-7b": _hub("bigcode/starcoder2-7b", "Lozhkov et al. 2024, Table 6"),
    "swin-tiny": _hub("microsoft/swin-tiny-patch4-window7-224", "Liu et al. 2021, Section 3.3"),
    "t5-11b": _hub("google-t5/t5-11b", T5),
    "t5-3b": _hub("google-t5/t5-3b", T5),
    "t5-base": _hub("google-t5/t5-base", T5),
    "t5-large": _hub("google-t5/t5-large", T5),
    "t5-small": _hub("google-t5/t5-small", T5),
    "tinyllama-1.1b": _hub("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "Zhang et al. 2024, Table 1"),
    "whisper-base": _hub("openai/whisper-base", WHISPER),
    "whisper-large-v3": _hub("openai/whisper-large-v3", WHISPER),
    "whisper-medium": _hub("openai/whisper-medium", WHISPER),
    "whisper-small": _hub("openai/whisper-small", WHISPER),
    "whisper-tiny": _hub("openai/whisper-tiny", WHISPER),
    "yi-34b": _hub("01-ai/Yi-34B", "Young et al. 2024, Table 1"),
    "yi-6b": _hub("01-ai/Yi-6B", "Young et al. 2024, Table 1"),
    "dit-xl-2": _hub("facebook/DiT-XL-2-256", "Peebles and Xie 2022, Table 1"),
    "dit-xl-2-512": _hub("facebook/DiT-XL-2-512", "Peebles and Xie 2022, Table 1"),
    "flux-dev": _hub("black-forest-labs/FLUX.1-dev", "transformer/"),
    "flux-schnell": _hub("black-forest-labs/FLUX.1-schnell", "transformer/"),
    "flux-vae": _hub("black-forest-labs/FLUX.1-dev", "vae/"),
    "sd-1.5-unet": _hub("stable-diffusion-v1-5/stable-diffusion-v1-5", "unet/"),
    "sd-2.1-unet": _hub("stabilityai/stable-diffusion-2-1", "unet/"),
    "sd-vae": _hub("stabilityai/sd-vae-ft-mse"),
    "sd3-medium": _hub("stabilityai/stable-diffusion-3-medium-diffusers", "transformer/"),
    "sd3.5-large": _hub("stabilityai/stable-diffusion-3.5-large", "transformer/"),
    "sd3.5-medium": _hub("stabilityai/stable-diffusion-3.5-medium", "transformer/"),
    "sdxl-unet": _hub("stabilityai/stable-diffusion-xl-base-1.0", "unet/; Podell et al. 2023"),
    "sdxl-vae": _hub("stabilityai/sdxl-vae"),
    "modernbert-base": _hub("answerdotai/ModernBERT-base", "Warner et al. 2024, Table 4"),
    "modernbert-large": _hub("answerdotai/ModernBERT-large", "Warner et al. 2024, Table 4"),
    "albert-base": _hub("albert/albert-base-v2", "Lan et al. 2019, Table 1"),
    "albert-large": _hub("albert/albert-large-v2", "Lan et al. 2019, Table 1"),
    "albert-xlarge": _hub("albert/albert-xlarge-v2", "Lan et al. 2019, Table 1"),
    "albert-xxlarge": _hub("albert/albert-xxlarge-v2", "Lan et al. 2019, Table 1"),
    "bert-base-multilingual": _hub("google-bert/bert-base-multilingual-cased"),
    "bge-m3": _hub("BAAI/bge-m3"),
    "deberta-v2-xlarge": _hub("microsoft/deberta-v2-xlarge", "He et al. 2020"),
    "deberta-v3-base": _hub("microsoft/deberta-v3-base", "He et al. 2021"),
    "deberta-v3-large": _hub("microsoft/deberta-v3-large", "He et al. 2021"),
    "deberta-v3-small": _hub("microsoft/deberta-v3-small", "He et al. 2021"),
    "deberta-v3-xsmall": _hub("microsoft/deberta-v3-xsmall", "He et al. 2021"),
    "distilbert-base": _hub("distilbert/distilbert-base-uncased", "Sanh et al. 2019, Section 3"),
    "distilroberta-base": _hub("distilbert/distilroberta-base"),
    "electra-base": _hub("google/electra-base-discriminator", "Clark et al. 2020, Table 6"),
    "minilm-l12": _hub("sentence-transformers/all-MiniLM-L12-v2"),
    "minilm-l6": _hub("sentence-transformers/all-MiniLM-L6-v2"),
    "mpnet-base": _hub("microsoft/mpnet-base", "Song et al. 2020, Section 4.1"),
    "roberta-large": _hub("FacebookAI/roberta-large", "Liu et al. 2019, Section 2"),
    "xlm-roberta-base": _hub("FacebookAI/xlm-roberta-base", "Conneau et al. 2019, Table 5"),
    "xlm-roberta-large": _hub("FacebookAI/xlm-roberta-large", "Conneau et al. 2019, Table 5"),
    "dinov2-small": _hub("facebook/dinov2-small", "Oquab et al. 2023, Table 17"),
    "dinov2-base": _hub("facebook/dinov2-base", "Oquab et al. 2023, Table 17"),
    "dinov2-large": _hub("facebook/dinov2-large", "Oquab et al. 2023, Table 17"),
    "dinov2-giant": _hub("facebook/dinov2-giant", "Oquab et al. 2023, Table 17"),
    "dinov3-vits16": _hub("facebook/dinov3-vits16-pretrain-lvd1689m", "Simeoni et al. 2025"),
    "dinov3-vitb16": _hub("facebook/dinov3-vitb16-pretrain-lvd1689m", "Simeoni et al. 2025"),
    "dinov3-vitl16": _hub("facebook/dinov3-vitl16-pretrain-lvd1689m", "Simeoni et al. 2025"),
    "dinov3-vit7b16": _hub("facebook/dinov3-vit7b16-pretrain-lvd1689m", "Simeoni et al. 2025"),
    "siglip-base-patch16-224": _hub(
        "google/siglip-base-patch16-224", "Zhai et al. 2023, Section 4"
    ),
    "siglip-large-patch16-256": _hub(
        "google/siglip-large-patch16-256", "Zhai et al. 2023, Section 4"
    ),
    "siglip-so400m-patch14-384": _hub(
        "google/siglip-so400m-patch14-384", "Zhai et al. 2023, Section 4"
    ),
    "siglip2-base-patch16-224": _hub("google/siglip2-base-patch16-224", "Tschannen et al. 2025"),
    "siglip2-so400m-patch14-384": _hub(
        "google/siglip2-so400m-patch14-384", "Tschannen et al. 2025"
    ),
    "clip-vit-base-patch16": _hub("openai/clip-vit-base-patch16", "Radford et al. 2021, Table 20"),
    "clip-vit-large-patch14": _hub(
        "openai/clip-vit-large-patch14", "Radford et al. 2021, Table 20"
    ),
    "clip-vit-large-patch14-336": _hub(
        "openai/clip-vit-large-patch14-336", "Radford et al. 2021, Table 20"
    ),
    "wav2vec2-base": _hub("facebook/wav2vec2-base-960h", "Baevski et al. 2020, Section 4.2"),
    "wav2vec2-large": _hub(
        "facebook/wav2vec2-large-960h-lv60-self", "Baevski et al. 2020, Section 4.2"
    ),
    "hubert-base": _hub("facebook/hubert-base-ls960", "Hsu et al. 2021, Table I"),
    "hubert-large": _hub("facebook/hubert-large-ls960-ft", "Hsu et al. 2021, Table I"),
}
