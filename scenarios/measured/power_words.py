"""What tables of watts call devices, models and settings -> names of hwdb and of the models."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.measured.device_words import device_named
from roofcast.simulator import models

DEVICES = {  # words of tables, lower case; the form that the source's limits or vendor tell
    "v100 pcie": "v100-pcie-32gb", "p100 16gb": "p100-pcie-16gb", "p100": "p100-pcie-16gb",
    "h100-sxm5-80gb": "h100-sxm5", "h100": "h100-sxm5", "b200": "b200-sxm", "h200": "h200-sxm",
    # the Quadro RTX 6000 has the chip and the limit of the 8000, and half its memory
    "a100-40": "a100-sxm4-40gb", "a100-sxm4-80gb": "a100-sxm4-80gb", "a100": "a100-sxm4-40gb",
    "v100": "v100-pcie-32gb", "tpu v3": "tpu-v3", "tpu v4": "tpu-v4", "tpu v2": "tpu-v2",
    "mi300x": "mi300x", "a40": "a40", "rtx6000": "quadro-rtx-8000", "rtx 6000": "quadro-rtx-8000",
    "quadro rtx 6000": "quadro-rtx-8000",
}  # fmt: skip
SXM_V100 = "v100-sxm2-32gb"  # where the limit passes that of the PCIe board
NETS = Path(__file__).parent.parent / "nets"
MODELS = (  # pattern of a lower-case name, the model, and whether it only resembles it
    (r"shufflenet", "mobilenetv2_100", True),
    (r"bert_base|bert-base", "bert-base", False),
    (r"^bert", "bert-large", False),
    (r"deepspeech2", "deepspeech2", False),
    (r"^ncf", "ncf", False),
    (r"llama2_70b|llama-2-70b", "llama-2-70b", False),
    (r"llama3\d?_?1?_405b", "llama-3.1-405b", False),
    (r"llama3\d?_?1?_8b", "llama-3.1-8b", False),
    (r"llama-2-7b|llama2_7b", "llama-2-7b", False),
    (r"^unet3d", "unet3d-medical", False),
    (r"^dlrm", str(NETS / "dlrm-dcnv2-dense.toml"), True),
    (r"^ssd|retinanet", "faster-rcnn-r50-fpn", True),
    (r"^resnet$", "resnet50", False),
    (r"gpt3|gpt-3", "gpt3-175b", False),
    (r"stable_diffusion|sd-2|stable diffusion", "sd-2.1-unet", False),
    (r"pixart-sigma", "pixart-sigma-1024", False),
    (r"hunyuandit", "sd3.5-medium", True),
    (r"flux", "flux-dev", False),
    (r"3\.5-medium", "sd3.5-medium", False),
    (r"3\.5-large", "sd3.5-large", False),
    (r"stable-diffusion-3", "sd3-medium", False),
    (r"sana", "pixart-sigma-1024", True),
    (r"wan.*1\.3b", "wan2.1-t2v-1.3b", False),
    (r"wan", "wan2.1-t2v-14b", False),
    (r"cogvideox|hunyuanvideo", "wan2.1-t2v-14b", True),
    (r"qwen3-coder-30b|qwen3-30b", "qwen3-30b-a3b", False),
    (r"qwen3-coder-480b", "qwen3-235b-a22b", True),
    (r"qwen3-vl-235b", "qwen3-235b-a22b", False),
    (r"qwen3-235b", "qwen3-235b-a22b", False),
    (r"qwen3-vl-30b|qwen3-omni-30b", "qwen3-30b-a3b", False),
    (r"qwen3-vl-(\d+b)", r"qwen3-\1", False),
    (r"qwen3-(\d+(?:\.\d+)?b)", r"qwen3-\1", False),
    (r"llama-4-scout", "llama-4-scout", False),
    (r"llama-4-maverick", "llama-4-maverick", False),
    (r"llama-3\.[13]-(8|70|405)b", r"llama-3.1-\1b", False),
    (r"gemma-3-(\d+)b", r"gemma-3-\1b", False),
    (r"gpt-oss-(20|120)b", r"gpt-oss-\1b", False),
    (r"nemotron-nano-9b", "nemotron-nano-9b-v2", False),
    (r"nemotron-nano-12b", "nemotron-nano-9b-v2", True),
    (r"deepseek-(?:v3|r1)", "deepseek-v3", False),
    (r"olmo", "olmo-7b", False),
    (r"bloom", "bloom-176b", False),
)  # fmt: skip
# of a sequence; of tweets the longest of a batch: 140 characters, four per token, and two markers
TOKENS = {"squad": 256, "sentiment140": 37, "bert training window": 128, "mlperf bert": 512,
          "mlperf llama": 8192, "mlperf gpt": 2048}  # fmt: skip
IMAGES = {"cifar": 64}  # a stand-in with the first stride of 2 reads 32 x 32 images as 64 x 64
PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "fp8": "fp8", "mxfp4": "mxfp4"}


@cache
def device_of(words: str, limit: float = 0.0) -> str:
    """The device of hwdb that a table names; limit: the highest power limit in its rows [W].

    Raises UnknownName.

    >>> device_of("V100 (PCIe/SXM not stated)", 250.0), device_of("V100", 300.0)
    ('v100-pcie-32gb', 'v100-sxm2-32gb')
    """
    name = device_named(words.replace("(R)", ""), DEVICES)
    tdp = hwdb.device(name).power.tdp
    return SXM_V100 if name == "v100-pcie-32gb" and tdp and limit > float(tdp) else name


@cache
def model_of(words: str) -> tuple[str, bool]:
    """The model that a table names, and whether it only resembles it. Raises UnknownName.

    >>> model_of("Qwen/Qwen3-VL-8B-Instruct"), model_of("resnet18")
    (('qwen3-8b', False), ('resnet18', False))
    """
    bare = words.split("/")[-1].lower().strip()
    for pattern, name, alike in MODELS:
        found = re.search(pattern, bare)
        if found:
            return found.expand(name), alike
    try:
        models.resolve(bare, (), "gpu")
        return bare, False
    except RoofcastError:
        trimmed = re.sub(r"-(instruct|it|chat|base|hf|bf16|fp8|thinking|\d{4}).*$", "", bare)
    models.resolve(trimmed, (), "gpu")  # raises with the nearest names
    return trimmed, False


def sizes_of(workload: str, model: str) -> dict[str, Any]:
    """Length of the sequence, or side of the image, that a workload has."""
    lower = workload.lower()
    for word, side in IMAGES.items():
        if word in lower:
            return {"image": side} if "mobilenet" in model else {"image": side // 2}
    for words, tokens in TOKENS.items():
        if all(word in lower for word in words.split()):
            return {"sequence": tokens}
    return {}
