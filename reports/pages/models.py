"""The models known by name, for reading: by what they are for, or one line per model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from roofcast.hwdb.errors import number_of
from roofcast.reports.console import Justify, fitted_table, page, say, section, show
from roofcast.reports.format import words
from roofcast.simulator.models.catalog import Description

# what models are for: their families, in the order of the listing
GROUPS = {
    "Language models": (
        "gpt2", "gpt_neo", "gptj", "gpt_neox", "opt", "bloom", "llama", "falcon",
        "mistral", "qwen2", "qwen3", "gemma",
        "gemma2", "gemma3_text", "phi3", "starcoder2", "transformer_xl",
        "phi", "gemma3n_text", "gemma4_text", "olmo", "olmo2", "olmo3", "cohere", "cohere2",
        "granite", "smollm3", "stablelm", "nemotron", "exaone", "exaone4", "seed_oss", "ernie4_5",
        "internlm3", "helium", "glm", "glm4", "hunyuan_v1_dense", "hyperclovax", "arcee", "apertus",
        "ministral3", "gpt_bigcode", "mpt", "codegen", "xglm",
    ),
    "Language models, mixtures of experts": (
        "mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v2", "deepseek_v3", "deepseek_v32",
        "kimi_k2", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa", "minimax_m2", "llama4_text",
        "gpt_oss", "olmoe", "flex_olmo", "granitemoe", "phimoe", "ernie4_5_moe", "hunyuan_v1_moe",
        "dots1", "dbrx",
    ),
    "Language models with state-space layers, linear attention or recurrences": (
        "mamba", "mamba2", "falcon_mamba", "nemotron_h", "jamba", "bamba", "granitemoehybrid",
        "falcon_h1", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "minimax",
        "recurrent_gemma", "rwkv", "rwkv7", "lfm2", "lfm2_moe", "zamba", "zamba2", "kimi_linear",
    ),
    "Encoders and translation": (
        "bert", "roberta", "xlm-roberta", "distilbert", "albert", "electra", "mpnet", "deberta-v2",
        "modernbert", "roberta-prelayernorm", "xlm-roberta-xl", "data2vec-text", "ernie",
        "megatron-bert", "longformer", "esm", "bart", "mbart", "plbart", "pegasus", "led",
        "blenderbot", "m2m_100", "marian", "t5", "mt5", "umt5", "vaswani", "gnmt",
    ),
    "Speech": (
        "whisper", "wav2vec2", "hubert", "wavlm", "unispeech-sat", "speech", "jasper",
    ),
    "Image classification, convolutional": (
        "alexnet", "vgg", "inception", "xception", "resnet", "resnetv2", "densenet", "darknet",
        "efficientnet", "regnet", "convnext", "convnextv2",
    ),
    "Image classification, transformers and mixers": (
        "vit", "beit", "swin", "maxvit", "mixer", "clip", "siglip", "dinov2", "dinov3_vit",
        "vit_mae",
    ),
    "Detection and segmentation": (
        "yolo", "ssd", "rcnn", "depth_anything", "detr", "sam", "sam_vision_model", "segformer",
        "segment", "volume",
    ),
    "U-Nets and image generation": (
        "unet", "UNet2DConditionModel", "SD3Transformer2DModel", "FluxTransformer2DModel",
        "DiTTransformer2DModel", "PixArtTransformer2DModel", "WanTransformer3DModel",
        "QwenImageTransformer2DModel", "AutoencoderKL", "dcgan", "stylegan",
    ),
    "Recommendation": ("recommend",),
    "Small nets": ("mlp", "small", "recurrent"),
}  # fmt: skip
OTHERS = "Others"
_COLUMNS: list[tuple[str, Justify]] = [
    ("model", "left"), ("family", "left"), ("parameters", "right"), ("source", "fold")
]  # fmt: skip
_OWN = "a Hugging Face config.json, a .toml list of layers, a .onnx file or a PyTorch module"


def grouped(rows: Sequence[Description]) -> dict[str, list[str]]:
    """Names by what the models are for, families together, sizes in order."""
    place = {family: (n, i) for n, group in enumerate(GROUPS.values())
             for i, family in enumerate(group)}  # fmt: skip
    titles, last = [*GROUPS, OTHERS], (len(GROUPS), 0)
    found: dict[str, list[str]] = {title: [] for title in titles}
    for row in sorted(rows, key=lambda r: (*place.get(r.family, last), _natural(r.name))):
        found[titles[place.get(row.family, last)[0]]].append(row.name)
    return {title: names for title, names in found.items() if names}


def searched(row: Description) -> str:
    """What a word is looked for in: name, family and group of a model."""
    titles = [title for title, families in GROUPS.items() if row.family in families]
    return " ".join((row.name, row.family, *titles)).lower()


def _natural(name: str) -> list[tuple[bool, float, str]]:
    """A key that sorts numbers in names by their value.

    >>> sorted(["llama-13b", "llama-7b"], key=_natural)
    ['llama-7b', 'llama-13b']
    """
    parts = re.findall(r"\d+(?:\.\d+)?|[^\d]+", name)
    return [(p[0].isdigit(), float(p) if p[0].isdigit() else 0.0, p) for p in parts]


def print_models(rows: Sequence[Description]) -> None:
    """All names, grouped, and how to see more."""
    with page() as out:
        for title, names in grouped(rows).items():
            out.print(f"{title} ({len(names)})", style="bold")
            say(out, "  ".join(names))
        section(out, number_of(len(rows), "model"))
        say(out, "roofcast models WORD: those with that word, and their parameters")
        say(out, "roofcast models --long: all of them with family, parameters and source")
        say(out, f"MODEL can also be {_OWN}.")


def print_table(rows: Sequence[Description], long: bool) -> None:
    """One line per model: family and parameters; long: and the source."""
    spare = ("source", "family") if long else ("family",)
    columns = _COLUMNS if long else _COLUMNS[:-1]
    cells = [[r.name, r.family, words(r.parameters or 0), r.source][: len(columns)] for r in rows]
    with page() as out:
        show(out, fitted_table(out.width - 2, columns, cells, spare))
        text = f"{number_of(len(rows), 'model')}."
        say(out, text if len(rows) < 10 else f"{text} MODEL can also be {_OWN}.", indent=0)
