"""The shipped names: language models are config.json files in configs/, other nets are modules with
arguments.
"""

from typing import Any, NamedTuple


class Shipped(NamedTuple):
    """A config.json that we ship, and where its numbers were read."""

    source: str


class Net(NamedTuple):
    """A net known by name: `module` (under simulator.models) has `build(tape, batch, size,
    **arguments)`.
    """

    module: str
    arguments: dict[str, Any]
    takes: str  # image | sequence | table
    size: int | None  # default side of the picture or length of the sequence
    source: str


def _picture(module: str, source: str, size: int = 224, **arguments) -> Net:
    return Net(module, arguments, "image", size, source)


def _sequence(module: str, source: str, size: int, **arguments) -> Net:
    return Net(module, arguments, "sequence", size, source)


def _table(module: str, source: str, **arguments) -> Net:
    return Net(module, arguments, "table", None, source)


SHIPPED = {
    "bart-large": Shipped(
        "huggingface.co/facebook/bart-large config.json; Lewis et al. 2019, Section 5"
    ),
    "bert-base": Shipped(
        "huggingface.co/google-bert/bert-base-uncased config.json; Devlin et al. 2018, Section 3"
    ),
    "bert-large": Shipped(
        "huggingface.co/google-bert/bert-large-uncased config.json; Devlin et al. 2018, Section 3"
    ),
    "bloom-176b": Shipped(
        "huggingface.co/bigscience/bloom config.json; Le Scao et al. 2022, Table 3"
    ),
    "bloom-1b7": Shipped(
        "huggingface.co/bigscience/bloom-1b7 config.json; Le Scao et al. 2022, Table 3"
    ),
    "bloom-3b": Shipped(
        "huggingface.co/bigscience/bloom-3b config.json; Le Scao et al. 2022, Table 3"
    ),
    "bloom-560m": Shipped(
        "huggingface.co/bigscience/bloom-560m config.json; Le Scao et al. 2022, Table 3"
    ),
    "bloom-7b1": Shipped(
        "huggingface.co/bigscience/bloom-7b1 config.json; Le Scao et al. 2022, Table 3"
    ),
    "clip-vit-base-patch32": Shipped(
        "huggingface.co/openai/clip-vit-base-patch32 config.json; Radford et al. 2021, Table 20"
    ),
    "codellama-34b": Shipped(
        "huggingface.co/codellama/CodeLlama-34b-hf config.json; Roziere et al. 2023, Section 2"
    ),
    "deepseek-v2": Shipped(
        "huggingface.co/deepseek-ai/DeepSeek-V2 config.json; DeepSeek-AI 2024, DeepSeek-V2,"
        " Section 3.1"
    ),
    "deepseek-v2-lite": Shipped(
        "huggingface.co/deepseek-ai/DeepSeek-V2-Lite config.json; DeepSeek-AI 2024, DeepSeek-V2,"
        " Appendix B"
    ),
    "deepseek-v3": Shipped(
        "huggingface.co/deepseek-ai/DeepSeek-V3 config.json; DeepSeek-AI 2024, DeepSeek-V3,"
        " Section 4.2"
    ),
    "falcon-40b": Shipped(
        "huggingface.co/tiiuae/falcon-40b config.json; Almazrouei et al. 2023, Table 15"
    ),
    "falcon-7b": Shipped(
        "huggingface.co/tiiuae/falcon-7b config.json; Almazrouei et al. 2023, Table 15"
    ),
    "gemma-2-27b": Shipped(
        "huggingface.co/google/gemma-2-27b config.json; Gemma team 2024, Gemma 2, Table 1"
    ),
    "gemma-2-2b": Shipped(
        "huggingface.co/google/gemma-2-2b config.json; Gemma team 2024, Gemma 2, Table 1"
    ),
    "gemma-2-9b": Shipped(
        "huggingface.co/google/gemma-2-9b config.json; Gemma team 2024, Gemma 2, Table 1"
    ),
    "gemma-2b": Shipped("huggingface.co/google/gemma-2b config.json; Gemma team 2024, Table 1"),
    "gemma-3-12b": Shipped(
        "huggingface.co/google/gemma-3-12b-pt config.json; text part; Gemma team 2025, Table 1"
    ),
    "gemma-3-1b": Shipped(
        "huggingface.co/google/gemma-3-1b-pt config.json; Gemma team 2025, Table 1"
    ),
    "gemma-3-27b": Shipped(
        "huggingface.co/google/gemma-3-27b-pt config.json; text part; Gemma team 2025, Table 1"
    ),
    "gemma-3-4b": Shipped(
        "huggingface.co/google/gemma-3-4b-pt config.json; text part; Gemma team 2025, Table 1"
    ),
    "gpt-j-6b": Shipped(
        "huggingface.co/EleutherAI/gpt-j-6b config.json; Wang and Komatsuzaki 2021"
    ),
    "gpt-neox-20b": Shipped(
        "huggingface.co/EleutherAI/gpt-neox-20b config.json; Black et al. 2022, Section 2"
    ),
    "gpt-oss-120b": Shipped("huggingface.co/openai/gpt-oss-120b config.json; OpenAI 2025, Table 1"),
    "gpt-oss-20b": Shipped("huggingface.co/openai/gpt-oss-20b config.json; OpenAI 2025, Table 1"),
    "gpt2": Shipped(
        "huggingface.co/openai-community/gpt2 config.json; Radford et al. 2019, Table 2"
    ),
    "gpt2-large": Shipped(
        "huggingface.co/openai-community/gpt2-large config.json; Radford et al. 2019, Table 2"
    ),
    "gpt2-medium": Shipped(
        "huggingface.co/openai-community/gpt2-medium config.json; Radford et al. 2019, Table 2"
    ),
    "gpt2-xl": Shipped(
        "huggingface.co/openai-community/gpt2-xl config.json; Radford et al. 2019, Table 2"
    ),
    "gpt3-175b": Shipped(
        "Brown et al. 2020, Table 2.1; vocabulary and 2048 positions as in its Section 2.1, in"
        " GPT-2's form"
    ),
    "llama-13b": Shipped(
        "huggingface.co/huggyllama/llama-13b config.json; Touvron et al. 2023, LLaMA, Table 2"
    ),
    "llama-2-13b": Shipped(
        "huggingface.co/meta-llama/Llama-2-13b-hf config.json; Touvron et al. 2023, Llama 2,"
        " Table 1"
    ),
    "llama-2-70b": Shipped(
        "huggingface.co/meta-llama/Llama-2-70b-hf config.json; Touvron et al. 2023, Llama 2,"
        " Table 1"
    ),
    "llama-2-7b": Shipped(
        "huggingface.co/meta-llama/Llama-2-7b-hf config.json; Touvron et al. 2023, Llama 2, Table 1"
    ),
    "llama-3-70b": Shipped(
        "huggingface.co/meta-llama/Meta-Llama-3-70B config.json; Llama team 2024, Table 3"
    ),
    "llama-3-8b": Shipped(
        "huggingface.co/meta-llama/Meta-Llama-3-8B config.json; Llama team 2024, Table 3"
    ),
    "llama-3.1-405b": Shipped(
        "huggingface.co/meta-llama/Llama-3.1-405B config.json; Llama team 2024, Table 3"
    ),
    "llama-3.1-70b": Shipped(
        "huggingface.co/meta-llama/Llama-3.1-70B config.json; Llama team 2024, Table 3"
    ),
    "llama-3.1-8b": Shipped(
        "huggingface.co/meta-llama/Llama-3.1-8B config.json; Llama team 2024, Table 3"
    ),
    "llama-3.2-1b": Shipped("huggingface.co/meta-llama/Llama-3.2-1B config.json"),
    "llama-3.2-3b": Shipped("huggingface.co/meta-llama/Llama-3.2-3B config.json"),
    "llama-30b": Shipped(
        "huggingface.co/huggyllama/llama-30b config.json; Touvron et al. 2023, LLaMA, Table 2"
    ),
    "llama-4-scout": Shipped(
        "huggingface.co/meta-llama/Llama-4-Scout-17B-16E config.json; text part"
    ),
    "llama-65b": Shipped(
        "huggingface.co/huggyllama/llama-65b config.json; Touvron et al. 2023, LLaMA, Table 2"
    ),
    "llama-7b": Shipped(
        "huggingface.co/huggyllama/llama-7b config.json; Touvron et al. 2023, LLaMA, Table 2"
    ),
    "mamba-1.4b": Shipped(
        "huggingface.co/state-spaces/mamba-1.4b-hf config.json; Gu and Dao 2023, Table 12"
    ),
    "mamba-130m": Shipped(
        "huggingface.co/state-spaces/mamba-130m-hf config.json; Gu and Dao 2023, Table 12"
    ),
    "mamba-2.8b": Shipped(
        "huggingface.co/state-spaces/mamba-2.8b-hf config.json; Gu and Dao 2023, Table 12"
    ),
    "mamba-370m": Shipped(
        "huggingface.co/state-spaces/mamba-370m-hf config.json; Gu and Dao 2023, Table 12"
    ),
    "mistral-7b": Shipped(
        "huggingface.co/mistralai/Mistral-7B-v0.1 config.json; Jiang et al. 2023, Table 1"
    ),
    "mistral-nemo-12b": Shipped("huggingface.co/mistralai/Mistral-Nemo-Base-2407 config.json"),
    "mistral-small-24b": Shipped(
        "huggingface.co/mistralai/Mistral-Small-24B-Base-2501 config.json"
    ),
    "mixtral-8x22b": Shipped("huggingface.co/mistralai/Mixtral-8x22B-v0.1 config.json"),
    "mixtral-8x7b": Shipped(
        "huggingface.co/mistralai/Mixtral-8x7B-v0.1 config.json; Jiang et al. 2024, Table 1"
    ),
    "opt-1.3b": Shipped("huggingface.co/facebook/opt-1.3b config.json; Zhang et al. 2022, Table 1"),
    "opt-125m": Shipped("huggingface.co/facebook/opt-125m config.json; Zhang et al. 2022, Table 1"),
    "opt-13b": Shipped("huggingface.co/facebook/opt-13b config.json; Zhang et al. 2022, Table 1"),
    "opt-175b": Shipped(
        "Zhang et al. 2022, Table 1, in the form of huggingface.co/facebook/opt-66b config.json"
    ),
    "opt-2.7b": Shipped("huggingface.co/facebook/opt-2.7b config.json; Zhang et al. 2022, Table 1"),
    "opt-30b": Shipped("huggingface.co/facebook/opt-30b config.json; Zhang et al. 2022, Table 1"),
    "opt-6.7b": Shipped("huggingface.co/facebook/opt-6.7b config.json; Zhang et al. 2022, Table 1"),
    "opt-66b": Shipped("huggingface.co/facebook/opt-66b config.json; Zhang et al. 2022, Table 1"),
    "phi-3-mini": Shipped(
        "huggingface.co/microsoft/Phi-3-mini-4k-instruct config.json; Abdin et al. 2024, Section 2"
    ),
    "phi-4": Shipped(
        "huggingface.co/microsoft/phi-4 config.json; Abdin et al. 2024, Phi-4, Section 3"
    ),
    "pythia-1.4b": Shipped(
        "huggingface.co/EleutherAI/pythia-1.4b config.json; Biderman et al. 2023, Table 1"
    ),
    "pythia-12b": Shipped(
        "huggingface.co/EleutherAI/pythia-12b config.json; Biderman et al. 2023, Table 1"
    ),
    "pythia-160m": Shipped(
        "huggingface.co/EleutherAI/pythia-160m config.json; Biderman et al. 2023, Table 1"
    ),
    "pythia-1b": Shipped(
        "huggingface.co/EleutherAI/pythia-1b config.json; Biderman et al. 2023, Table 1"
    ),
    "pythia-2.8b": Shipped(
        "huggingface.co/EleutherAI/pythia-2.8b config.json; Biderman et al. 2023, Table 1"
    ),
    "pythia-410m": Shipped(
        "huggingface.co/EleutherAI/pythia-410m config.json; Biderman et al. 2023, Table 1"
    ),
    "pythia-6.9b": Shipped(
        "huggingface.co/EleutherAI/pythia-6.9b config.json; Biderman et al. 2023, Table 1"
    ),
    "qwen2.5-0.5b": Shipped(
        "huggingface.co/Qwen/Qwen2.5-0.5B config.json; Qwen team 2024, Table 1"
    ),
    "qwen2.5-1.5b": Shipped(
        "huggingface.co/Qwen/Qwen2.5-1.5B config.json; Qwen team 2024, Table 1"
    ),
    "qwen2.5-14b": Shipped("huggingface.co/Qwen/Qwen2.5-14B config.json; Qwen team 2024, Table 1"),
    "qwen2.5-32b": Shipped("huggingface.co/Qwen/Qwen2.5-32B config.json; Qwen team 2024, Table 1"),
    "qwen2.5-3b": Shipped("huggingface.co/Qwen/Qwen2.5-3B config.json; Qwen team 2024, Table 1"),
    "qwen2.5-72b": Shipped("huggingface.co/Qwen/Qwen2.5-72B config.json; Qwen team 2024, Table 1"),
    "qwen2.5-7b": Shipped("huggingface.co/Qwen/Qwen2.5-7B config.json; Qwen team 2024, Table 1"),
    "qwen3-0.6b": Shipped("huggingface.co/Qwen/Qwen3-0.6B config.json; Qwen team 2025, Table 1"),
    "qwen3-1.7b": Shipped("huggingface.co/Qwen/Qwen3-1.7B config.json; Qwen team 2025, Table 1"),
    "qwen3-14b": Shipped("huggingface.co/Qwen/Qwen3-14B config.json; Qwen team 2025, Table 1"),
    "qwen3-235b-a22b": Shipped(
        "huggingface.co/Qwen/Qwen3-235B-A22B config.json; Qwen team 2025, Table 2"
    ),
    "qwen3-30b-a3b": Shipped(
        "huggingface.co/Qwen/Qwen3-30B-A3B config.json; Qwen team 2025, Table 2"
    ),
    "qwen3-32b": Shipped("huggingface.co/Qwen/Qwen3-32B config.json; Qwen team 2025, Table 1"),
    "qwen3-4b": Shipped("huggingface.co/Qwen/Qwen3-4B config.json; Qwen team 2025, Table 1"),
    "qwen3-8b": Shipped("huggingface.co/Qwen/Qwen3-8B config.json; Qwen team 2025, Table 1"),
    "roberta-base": Shipped(
        "huggingface.co/FacebookAI/roberta-base config.json; Liu et al. 2019, Section 2"
    ),
    "smollm2-1.7b": Shipped("huggingface.co/HuggingFaceTB/SmolLM2-1.7B config.json"),
    "smollm2-135m": Shipped("huggingface.co/HuggingFaceTB/SmolLM2-135M config.json"),
    "smollm2-360m": Shipped("huggingface.co/HuggingFaceTB/SmolLM2-360M config.json"),
    "starcoder2-7b": Shipped(
        "huggingface.co/bigcode/starcoder2-7b config.json; Lozhkov et al. 2024, Table 6"
    ),
    "swin-tiny": Shipped(
        "huggingface.co/microsoft/swin-tiny-patch4-window7-224 config.json; Liu et al. 2021,"
        " Section 3.3"
    ),
    "t5-11b": Shipped(
        "huggingface.co/google-t5/t5-11b config.json; Raffel et al. 2020, Section 3.7"
    ),
    "t5-3b": Shipped("huggingface.co/google-t5/t5-3b config.json; Raffel et al. 2020, Section 3.7"),
    "t5-base": Shipped(
        "huggingface.co/google-t5/t5-base config.json; Raffel et al. 2020, Section 3.7"
    ),
    "t5-large": Shipped(
        "huggingface.co/google-t5/t5-large config.json; Raffel et al. 2020, Section 3.7"
    ),
    "t5-small": Shipped(
        "huggingface.co/google-t5/t5-small config.json; Raffel et al. 2020, Section 3.7"
    ),
    "tinyllama-1.1b": Shipped(
        "huggingface.co/TinyLlama/TinyLlama-1.1B-Chat-v1.0 config.json; Zhang et al. 2024, Table 1"
    ),
    "whisper-base": Shipped(
        "huggingface.co/openai/whisper-base config.json; Radford et al. 2022, Table 1"
    ),
    "whisper-large-v3": Shipped(
        "huggingface.co/openai/whisper-large-v3 config.json; Radford et al. 2022, Table 1"
    ),
    "whisper-medium": Shipped(
        "huggingface.co/openai/whisper-medium config.json; Radford et al. 2022, Table 1"
    ),
    "whisper-small": Shipped(
        "huggingface.co/openai/whisper-small config.json; Radford et al. 2022, Table 1"
    ),
    "whisper-tiny": Shipped(
        "huggingface.co/openai/whisper-tiny config.json; Radford et al. 2022, Table 1"
    ),
    "yi-34b": Shipped("huggingface.co/01-ai/Yi-34B config.json; Young et al. 2024, Table 1"),
    "yi-6b": Shipped("huggingface.co/01-ai/Yi-6B config.json; Young et al. 2024, Table 1"),
}

HE = "He et al. 2015, Table 1"
VIT = "Dosovitskiy et al. 2020, Table 1"
DEIT = "Touvron et al. 2020, Table 1"
DEIT3 = "Touvron et al. 2022, Table 2"
EFFICIENT = "Tan and Le 2019, Table 1"
EFFICIENT_V2 = "Tan and Le 2021, Table 4; the released code"
REGNET = "Radosavovic et al. 2020, Tables 5 and 6; pycls configurations"
CONVNEXT = "Liu et al. 2022, Section 3"
SWIN = "Liu et al. 2021, Section 3.3"
SWIN_V2 = "Liu et al. 2021, Swin Transformer V2, Section 4.1"
MAXVIT = "Tu et al. 2022, Table 1"
DENSE = "Huang et al. 2016, Table 1"
VGG = "Simonyan and Zisserman 2014, Table 1"

NETS: dict[str, Net] = {
    "resnet18": _picture("vision.resnet", HE, block="basic", depths=(2, 2, 2, 2)),
    "resnet34": _picture("vision.resnet", HE, block="basic", depths=(3, 4, 6, 3)),
    "resnet50": _picture("vision.resnet", HE, block="bottleneck", depths=(3, 4, 6, 3)),
    "resnet101": _picture("vision.resnet", HE, block="bottleneck", depths=(3, 4, 23, 3)),
    "resnet152": _picture("vision.resnet", HE, block="bottleneck", depths=(3, 8, 36, 3)),
    "wide_resnet50_2": _picture(
        "vision.resnet",
        "Zagoruyko and Komodakis 2016, Section 3.4",
        block="bottleneck",
        depths=(3, 4, 6, 3),
        width=128,
    ),
    "resnext50_32x4d": _picture(
        "vision.resnet",
        "Xie et al. 2016, Table 1",
        block="bottleneck",
        depths=(3, 4, 6, 3),
        groups=32,
        width=4,
    ),
    "resnext101_32x8d": _picture(
        "vision.resnet",
        "Xie et al. 2016, Section 5",
        block="bottleneck",
        depths=(3, 4, 23, 3),
        groups=32,
        width=8,
    ),
    "resnext101_32x4d": _picture(
        "vision.resnet",
        "Xie et al. 2016, Table 3",
        block="bottleneck",
        depths=(3, 4, 23, 3),
        groups=32,
        width=4,
    ),
    "seresnext101_32x4d": _picture(
        "vision.resnet",
        "Hu et al. 2017, Table 2",
        block="bottleneck",
        depths=(3, 4, 23, 3),
        groups=32,
        width=4,
        excite=16,
    ),
    "seresnet50": _picture(
        "vision.resnet",
        "Hu et al. 2017, Table 1",
        block="bottleneck",
        depths=(3, 4, 6, 3),
        excite=16,
    ),
    "vgg11": _picture("vision.vgg", VGG, depths=(1, 1, 2, 2, 2)),
    "vgg16": _picture("vision.vgg", VGG, depths=(2, 2, 3, 3, 3)),
    "vgg19": _picture("vision.vgg", VGG, depths=(2, 2, 4, 4, 4)),
    "vgg16_bn": _picture("vision.vgg", VGG, depths=(2, 2, 3, 3, 3), normed=True),
    "vgg19_bn": _picture("vision.vgg", VGG, depths=(2, 2, 4, 4, 4), normed=True),
    "alexnet": _picture("vision.alexnet", "Krizhevsky 2014, as torchvision has it"),
    "inception_v3": _picture("vision.inception", "Szegedy et al. 2015, Table 1", 299, version="v3"),
    "inception_v4": _picture(
        "vision.inception", "Szegedy et al. 2016, Figures 3 to 9", 299, version="v4"
    ),
    "xception": _picture("vision.xception", "Chollet 2016, Figure 5", 299),
    "densenet121": _picture("vision.densenet", DENSE, depths=(6, 12, 24, 16)),
    "densenet169": _picture("vision.densenet", DENSE, depths=(6, 12, 32, 32)),
    "densenet201": _picture("vision.densenet", DENSE, depths=(6, 12, 48, 32)),
    "mobilenetv2_100": _picture(
        "vision.efficientnet", "Sandler et al. 2018, Table 2", net="mobilenetv2"
    ),
    "mobilenetv3_large_100": _picture(
        "vision.efficientnet", "Howard et al. 2019, Table 1", net="mobilenetv3_large"
    ),
    "mobilenetv3_small_100": _picture(
        "vision.efficientnet", "Howard et al. 2019, Table 2", net="mobilenetv3_small"
    ),
    "mnasnet_100": _picture(
        "vision.efficientnet", "Tan et al. 2018, B1 of the released code", net="mnasnet"
    ),
    "efficientnet_b0": _picture("vision.efficientnet", EFFICIENT, net="efficientnet"),
    "tf_efficientnet_b0": _picture("vision.efficientnet", EFFICIENT, net="efficientnet", same=True),
    "efficientnet_b1": _picture(
        "vision.efficientnet", EFFICIENT, 240, net="efficientnet", width=1.0, depth=1.1
    ),
    "tf_efficientnet_b1": _picture(
        "vision.efficientnet", EFFICIENT, 240, net="efficientnet", width=1.0, depth=1.1, same=True
    ),
    "efficientnet_b2": _picture(
        "vision.efficientnet", EFFICIENT, 260, net="efficientnet", width=1.1, depth=1.2
    ),
    "tf_efficientnet_b2": _picture(
        "vision.efficientnet", EFFICIENT, 260, net="efficientnet", width=1.1, depth=1.2, same=True
    ),
    "efficientnet_b3": _picture(
        "vision.efficientnet", EFFICIENT, 300, net="efficientnet", width=1.2, depth=1.4
    ),
    "tf_efficientnet_b3": _picture(
        "vision.efficientnet", EFFICIENT, 300, net="efficientnet", width=1.2, depth=1.4, same=True
    ),
    "efficientnet_b4": _picture(
        "vision.efficientnet", EFFICIENT, 380, net="efficientnet", width=1.4, depth=1.8
    ),
    "tf_efficientnet_b4": _picture(
        "vision.efficientnet", EFFICIENT, 380, net="efficientnet", width=1.4, depth=1.8, same=True
    ),
    "efficientnet_b5": _picture(
        "vision.efficientnet", EFFICIENT, 456, net="efficientnet", width=1.6, depth=2.2
    ),
    "tf_efficientnet_b5": _picture(
        "vision.efficientnet", EFFICIENT, 456, net="efficientnet", width=1.6, depth=2.2, same=True
    ),
    "efficientnet_b6": _picture(
        "vision.efficientnet", EFFICIENT, 528, net="efficientnet", width=1.8, depth=2.6
    ),
    "tf_efficientnet_b6": _picture(
        "vision.efficientnet", EFFICIENT, 528, net="efficientnet", width=1.8, depth=2.6, same=True
    ),
    "efficientnet_b7": _picture(
        "vision.efficientnet", EFFICIENT, 600, net="efficientnet", width=2.0, depth=3.1
    ),
    "tf_efficientnet_b7": _picture(
        "vision.efficientnet", EFFICIENT, 600, net="efficientnet", width=2.0, depth=3.1, same=True
    ),
    "efficientnetv2_s": _picture("vision.efficientnet", EFFICIENT_V2, 300, net="efficientnetv2_s"),
    "tf_efficientnetv2_s": _picture(
        "vision.efficientnet", EFFICIENT_V2, 300, net="efficientnetv2_s", same=True
    ),
    "efficientnetv2_m": _picture("vision.efficientnet", EFFICIENT_V2, 384, net="efficientnetv2_m"),
    "tf_efficientnetv2_m": _picture(
        "vision.efficientnet", EFFICIENT_V2, 384, net="efficientnetv2_m", same=True
    ),
    "efficientnetv2_l": _picture("vision.efficientnet", EFFICIENT_V2, 384, net="efficientnetv2_l"),
    "tf_efficientnetv2_l": _picture(
        "vision.efficientnet", EFFICIENT_V2, 384, net="efficientnetv2_l", same=True
    ),
    "regnetx_032": _picture(
        "vision.regnet", REGNET, slope=26.31, first=88, factor=2.25, depth=25, group=48
    ),
    "regnety_032": _picture(
        "vision.regnet", REGNET, slope=42.63, first=80, factor=2.66, depth=21, group=24, excite=0.25
    ),
    "regnety_040": _picture(
        "vision.regnet", REGNET, slope=31.41, first=96, factor=2.24, depth=22, group=64, excite=0.25
    ),
    "regnety_080": _picture(
        "vision.regnet",
        REGNET,
        slope=76.82,
        first=192,
        factor=2.19,
        depth=17,
        group=56,
        excite=0.25,
    ),
    "regnety_160": _picture(
        "vision.regnet",
        REGNET,
        slope=106.23,
        first=200,
        factor=2.48,
        depth=18,
        group=112,
        excite=0.25,
    ),
    "regnety_320": _picture(
        "vision.regnet",
        REGNET,
        slope=115.89,
        first=232,
        factor=2.53,
        depth=20,
        group=232,
        excite=0.25,
    ),
    "convnext_tiny": _picture(
        "vision.convnext", CONVNEXT, depths=(3, 3, 9, 3), widths=(96, 192, 384, 768)
    ),
    "convnext_small": _picture(
        "vision.convnext", CONVNEXT, depths=(3, 3, 27, 3), widths=(96, 192, 384, 768)
    ),
    "convnext_base": _picture(
        "vision.convnext", CONVNEXT, depths=(3, 3, 27, 3), widths=(128, 256, 512, 1024)
    ),
    "convnext_large": _picture(
        "vision.convnext", CONVNEXT, depths=(3, 3, 27, 3), widths=(192, 384, 768, 1536)
    ),
    "mixer_b16_224": _picture(
        "vision.mixer", "Tolstikhin et al. 2021, Table 1", width=768, depth=12, patch=16
    ),
    "mixer_l16_224": _picture(
        "vision.mixer", "Tolstikhin et al. 2021, Table 1", width=1024, depth=24, patch=16
    ),
    "beit_base_patch16_224": _picture(
        "vision.beit", "Bao et al. 2021, Section 3.1", width=768, depth=12, heads=12
    ),
    "resnetv2_50": _picture("vision.resnetv2", "He et al. 2016, Section 4", depths=(3, 4, 6, 3)),
    "resnetv2_101": _picture("vision.resnetv2", "He et al. 2016, Section 4", depths=(3, 4, 23, 3)),
    "darknet53": _picture("vision.darknet", "Redmon and Farhadi 2018, Table 1", 256),
    "swin_tiny_patch4_window7_224": _picture(
        "vision.swin", SWIN, width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24)
    ),
    "swin_small_patch4_window7_224": _picture(
        "vision.swin", SWIN, width=96, depths=(2, 2, 18, 2), heads=(3, 6, 12, 24)
    ),
    "swin_base_patch4_window7_224": _picture(
        "vision.swin", SWIN, width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32)
    ),
    "swin_large_patch4_window7_224": _picture(
        "vision.swin", SWIN, width=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48)
    ),
    "swinv2_tiny_window8_256": _picture(
        "vision.swin",
        SWIN_V2,
        256,
        width=96,
        depths=(2, 2, 6, 2),
        heads=(3, 6, 12, 24),
        window=8,
        second=True,
    ),
    "swinv2_small_window8_256": _picture(
        "vision.swin",
        SWIN_V2,
        256,
        width=96,
        depths=(2, 2, 18, 2),
        heads=(3, 6, 12, 24),
        window=8,
        second=True,
    ),
    "swinv2_base_window8_256": _picture(
        "vision.swin",
        SWIN_V2,
        256,
        width=128,
        depths=(2, 2, 18, 2),
        heads=(4, 8, 16, 32),
        window=8,
        second=True,
    ),
    "maxvit_tiny_tf_224": _picture(
        "vision.maxvit", MAXVIT, stem=64, widths=(64, 128, 256, 512), depths=(2, 2, 5, 2)
    ),
    "maxvit_small_tf_224": _picture(
        "vision.maxvit", MAXVIT, stem=64, widths=(96, 192, 384, 768), depths=(2, 2, 5, 2)
    ),
    "maxvit_base_tf_224": _picture(
        "vision.maxvit", MAXVIT, stem=64, widths=(96, 192, 384, 768), depths=(2, 6, 14, 2)
    ),
    "lenet": _picture(
        "vision.small",
        "LeCun et al. 1998, with relu and max-pools as in the PyTorch CIFAR-10 tutorial",
        32,
        channels=3,
        convolutions=(6, 16),
        kernel=5,
        padding=0,
        flat=400,
        widths=(120, 84),
    ),
    "cnn-32x32": _picture(
        "vision.small",
        "a CIFAR-10 tutorial net: conv 32, 64; dense 128",
        32,
        channels=3,
        convolutions=(32, 64),
        kernel=3,
        padding=1,
        flat=4096,
        widths=(128,),
    ),
    "cnn-224": _picture(
        "vision.small",
        "a tutorial net: conv 64, 128; dense 1024",
        channels=3,
        convolutions=(64, 128),
        kernel=3,
        padding=1,
        flat=401408,
        widths=(1024,),
    ),
    "keras-mnist-cnn": _picture(
        "vision.small",
        "keras.io/examples/vision/mnist_convnet",
        28,
        channels=1,
        convolutions=(32, 64),
        kernel=3,
        padding=0,
        flat=1600,
        dropout=0.5,
    ),
    "vit_tiny_patch16_224": _picture("vision.vit", DEIT, width=192, depth=12, heads=3, patch=16),
    "vit_small_patch16_224": _picture("vision.vit", DEIT, width=384, depth=12, heads=6, patch=16),
    "vit_base_patch16_224": _picture("vision.vit", VIT, width=768, depth=12, heads=12, patch=16),
    "vit_base_patch32_224": _picture("vision.vit", VIT, width=768, depth=12, heads=12, patch=32),
    "vit_large_patch16_224": _picture("vision.vit", VIT, width=1024, depth=24, heads=16, patch=16),
    "vit_huge_patch14_224": _picture("vision.vit", VIT, width=1280, depth=32, heads=16, patch=14),
    "deit_tiny_patch16_224": _picture("vision.vit", DEIT, width=192, depth=12, heads=3, patch=16),
    "deit_small_patch16_224": _picture("vision.vit", DEIT, width=384, depth=12, heads=6, patch=16),
    "deit_base_patch16_224": _picture("vision.vit", DEIT, width=768, depth=12, heads=12, patch=16),
    "deit3_small_patch16_224": _picture(
        "vision.vit", DEIT3, width=384, depth=12, heads=6, patch=16, scaled=True, class_placed=False
    ),
    "deit3_base_patch16_224": _picture(
        "vision.vit",
        DEIT3,
        width=768,
        depth=12,
        heads=12,
        patch=16,
        scaled=True,
        class_placed=False,
    ),
    "deit3_large_patch16_224": _picture(
        "vision.vit",
        DEIT3,
        width=1024,
        depth=24,
        heads=16,
        patch=16,
        scaled=True,
        class_placed=False,
    ),
    "mlp": _picture("other.mlp", "an MNIST net: dense 784, 512, 512, 10", 28, widths=(512, 512)),
    "linear-regression": _table(
        "other.mlp",
        "least squares on 13 features (Boston housing)",
        features=13,
        outputs=1,
        regression=True,
    ),
    "bilstm64": _sequence(
        "other.recurrent",
        "BiLSTM(64) over sequences of four letters",
        1000,
        vocabulary=4,
        width=64,
        hidden=64,
        classes=2,
    ),
    "ncf": _table(
        "other.recommend",
        "keras.io/examples/structured_data/collaborative_filtering_movielens; MovieLens-1M",
        kind="dot",
        users=6040,
        items=3706,
        width=50,
    ),
    "neumf": _table(
        "other.recommend",
        "He et al. 2017, Section 3.4; MLPerf Training v0.5 sizes on MovieLens-20M",
        kind="neumf",
        users=138493,
        items=26744,
        factors=64,
        widths=(256, 256, 128, 64),
    ),
    "dlrm": _table(
        "other.recommend",
        "Naumov et al. 2019, Section 2, with eight tables of a million rows",
        kind="dlrm",
        tables=8,
        rows=1000000,
        width=64,
        lookups=10,
        dense_features=13,
        bottom=(512, 256, 64),
        top=(512, 256, 1),
    ),
    "vae-cf": _table(
        "other.recommend",
        "Liang et al. 2018, Section 4; MovieLens-20M: 9.99 million likes of 136,677 users",
        kind="vae",
        items=20108,
        seen=73,
        hidden=600,
        latent=200,
    ),
    "dcgan-generator": _table(
        "other.dcgan", "Radford et al. 2015, Figure 1, with 64 base channels", part="generator"
    ),
    "dcgan-discriminator": _picture(
        "other.dcgan",
        "Radford et al. 2015, Section 3, with 64 base channels",
        64,
        part="discriminator",
    ),
    "unet": _picture(
        "vision.unet",
        "Ronneberger et al. 2015, Figure 1, with padding and batch norms",
        256,
        kind="segment",
    ),
    "unet-medical": _picture(
        "vision.segment",
        "Ronneberger et al. 2015, Figure 1; github NVIDIA/DeepLearningExamples, UNet_Medical",
        572,
        kind="medical",
    ),
    "unet-industrial": _picture(
        "vision.segment",
        "github NVIDIA/DeepLearningExamples, UNet_Industrial, its default TinyUNet",
        512,
        kind="industrial",
    ),
    "unet3d": _picture(
        "vision.volume",
        "Isensee et al. 2018; MLPerf Training v1.0, KiTS19",
        128,
        channels=1,
        classes=3,
    ),
    "unet3d-medical": _picture(
        "vision.volume",
        "Isensee et al. 2018; github NVIDIA/DeepLearningExamples, UNet_3D_Medical on BraTS",
        128,
        channels=4,
        classes=4,
        act="leaky_relu",
        last=3,
    ),
    "nnunet-2d": _picture(
        "vision.volume",
        "Isensee et al. 2018; github NVIDIA/DeepLearningExamples, nnUNet on slices of 192x160",
        192,
        channels=4,
        classes=4,
        shape=(6, 5),
        act="leaky_relu",
    ),
    "nnunet-3d": _picture(
        "vision.volume",
        "Isensee et al. 2018; github NVIDIA/DeepLearningExamples, nnUNet on volumes of 128^3",
        128,
        channels=4,
        classes=4,
        act="leaky_relu",
    ),
    "vnet": _picture(
        "vision.volume",
        "Milletari et al. 2016, Figure 2; github NVIDIA/DeepLearningExamples, VNet",
        32,
        kind="vnet",
    ),
    "unet-diffusion": _picture(
        "vision.unet", "Ho et al. 2020, Appendix B, the CIFAR-10 net", 32, kind="denoise"
    ),
    "yolov3": _picture("vision.yolo", "Redmon and Farhadi 2018", 416),
    "mask-rcnn-r50-fpn": _picture(
        "vision.rcnn",
        "He et al. 2017, Mask R-CNN; stem and first stage not trained; as many pixels as 800x1312",
        1024,
        masks=True,
        frozen=2,
    ),
    "ssd300": _picture(
        "vision.ssd",
        "Liu et al. 2015; github NVIDIA/DeepLearningExamples, SSD300 v1.1 on ResNet-50",
        300,
        block="bottleneck",
        depths=(3, 4, 6),
        widths=(512, 512, 256, 256, 256),
    ),
    "ssd300-r34": _picture(
        "vision.ssd",
        "Liu et al. 2015; MLPerf Training v0.5 to v1.1, SSD on ResNet-34",
        300,
        block="basic",
        depths=(3, 4, 6),
        widths=(512, 512, 256, 256, 256),
        normed=False,
    ),
    "ssd320-r50-fpn": _picture(
        "vision.ssd",
        "Lin et al. 2017, Section 4; TensorFlow's ssd_resnet50_v1_fpn as NVIDIA trains it",
        320,
        kind="retina",
    ),
    "faster-rcnn-r50-fpn": _picture(
        "vision.rcnn", "Ren et al. 2015; Lin et al. 2016; sizes of torchvision", 800
    ),
    "transformer": _sequence(
        "other.vaswani",
        "Vaswani et al. 2017, Table 3, base",
        128,
        vocabulary=37000,
        width=512,
        hidden=2048,
        heads=8,
        layers=6,
    ),
    "transformer-big": _sequence(
        "other.vaswani",
        "Vaswani et al. 2017, Table 3, big",
        128,
        vocabulary=37000,
        width=1024,
        hidden=4096,
        heads=16,
        layers=6,
        dropout=0.3,
    ),
    "transformer-xl-base": _sequence(
        "other.transformer_xl",
        "Dai et al. 2019; github NVIDIA/DeepLearningExamples, Transformer-XL, base on WikiText-103",
        192,
        layers=16,
        width=512,
        heads=8,
        dim=64,
        hidden=2048,
    ),
    "transformer-xl-large": _sequence(
        "other.transformer_xl",
        "Dai et al. 2019, Section 4.1, large on WikiText-103",
        384,
        layers=18,
        width=1024,
        heads=16,
        dim=64,
        hidden=4096,
        dropout=0.2,
        drop_attention=0.2,
        divisor=4,
    ),
    "gnmt": _sequence(
        "other.gnmt",
        "Wu et al. 2016; github NVIDIA/DeepLearningExamples, GNMT v2, four layers; MLPerf Training"
        " v0.5 to v0.7",
        27,
        layers=4,
        vocabulary=32320,
        width=1024,
    ),
    "gnmt-8": _sequence(
        "other.gnmt",
        "Wu et al. 2016, Section 3: eight layers",
        27,
        layers=8,
        vocabulary=32320,
        width=1024,
    ),
    "stylegan2-generator": _picture("other.stylegan", "Karras et al. 2019, configuration F", 256),
    "jasper": _sequence(
        "other.jasper",
        "Li et al. 2019, Table 1, 10x5 with dense residuals; sequences of 16.8 s",
        1680,
        net="jasper",
    ),
    "quartznet": _sequence(
        "other.jasper",
        "Kriman et al. 2019, Table 1, 15x5; sequences of 16.8 s",
        1680,
        net="quartznet",
    ),
    "deepspeech2": _sequence(
        "other.speech", "Amodei et al. 2015, Section 3, with five recurrent layers of 800", 1000
    ),
}
