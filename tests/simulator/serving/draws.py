"""Random servers for laws: models, devices, layouts, formats and software."""

from random import Random

from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.serving.asked import Serving
from roofcast.simulator.serving.chain import held_of, replica
from roofcast.simulator.serving.load import Load

MODELS = (
    "llama-3-8b", "llama-3.1-70b", "qwen3-30b-a3b", "deepseek-v3", "gpt-oss-20b", "gpt-oss-120b",
    "mixtral-8x7b", "gemma-3-27b", "mistral-7b", "llama-3.2-1b", "mamba2-1.3b", "falcon-7b",
    "qwen3-next-80b-a3b", "llama-4-scout",
)  # fmt: skip
DEVICES = (
    "h100-sxm5", "h200-sxm", "a100-sxm4-80gb", "b200-sxm", "rtx-4090", "mi300x", "l40s", "gaudi3",
    "a100-pcie-80gb",
)  # fmt: skip
STACKS = ("vllm", "vllm", "sglang", "trt-llm", "vllm-2024", "vllm-2025", "llama.cpp")


def drawn(random: Random, **given) -> Serving:
    """A random question that can be answered; `given` is as given."""
    while True:
        words = {
            "model": random.choice(MODELS),
            "device": random.choice(DEVICES),
            "tp": random.choice((1, 1, 2, 4, 8)),
            "pp": random.choice((1, 1, 1, 2)),
            "weights": random.choice((None, "fp8", "int4")),
            "stack": random.choice(STACKS),
            "load": Load(
                kind="offline",
                input_len=int(2 ** random.uniform(5, 13)),
                output_len=int(2 ** random.uniform(4, 11)),
            ),
        } | given
        asked = Serving(**words)
        try:
            held_of(replica(asked), asked.load)
        except RoofcastError:
            continue
        return asked
