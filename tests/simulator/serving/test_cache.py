"""Bytes of the cache of a sequence: published ones, and those of transformers' own cache."""

import csv
from pathlib import Path

import pytest

from roofcast.simulator.models import catalog
from roofcast.simulator.models.names import SHIPPED
from roofcast.simulator.serving.cache import cached
from roofcast.simulator.serving.server import Degrees, Server
from roofcast.simulator.work.generation import Formats, forward
from roofcast.simulator.work.traced import ALONE

ORACLE = Path(__file__).parents[1] / "oracle" / "caches.csv"
# transformers' Falcon keeps a copy of the keys and values of a group for each of its heads
REPEATED = {"falcon-40b": 16}
PUBLISHED = {  # bytes per token in 16 bits, and where all windows are full
    # Llama 2 and 3, DeepSeek-V3: 2 x layers x kv heads x width; (512 + 64) x 61 x 2
    "llama-3-8b": (131_072, 131_072), "llama-2-7b": (524_288, 524_288),
    "llama-3-70b": (327_680, 327_680), "llama-3.1-405b": (516_096, 516_096),
    "mixtral-8x7b": (131_072, 131_072), "qwen3-32b": (262_144, 262_144),
    "qwen3-235b-a22b": (192_512, 192_512), "deepseek-v3": (70_272, 70_272),
    "gpt-j-6b": (458_752, 458_752), "bloom-176b": (4_014_080, 4_014_080),
    # every second layer looks back on 128 tokens; 52 of 62 on 1024; all on 4096; 36 of 48 on 8192
    "gpt-oss-120b": (73_728, 36_864), "gemma-3-27b": (507_904, 81_920),
    "mistral-7b": (131_072, 0), "llama-4-scout": (196_608, 49_152),
}  # fmt: skip


def of(name, width=2.0):
    """The cache of a sequence of a model on one device."""
    return cached(forward(catalog.resolve(name), "decode", Formats("bf16"), ALONE), width)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_bytes_per_token(name):
    """Growth with the first tokens, and behind all windows."""
    cache = of(name)
    assert (cache.per_token, cache.per_token_past_windows) == PUBLISHED[name]
    first = float(cache.bytes(100)) - float(cache.bytes(99))
    last = float(cache.bytes(200_001)) - float(cache.bytes(200_000))
    assert (first, last) == PUBLISHED[name]


def test_the_cache_of_transformers():
    """To the byte, at two lengths, of every shipped model that transformers can run without
    numbers (tests/simulator/oracle/caches.py).
    """
    compared = 0
    with ORACLE.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            cache, more = of(row["model"]), REPEATED.get(row["model"], 1)
            found = float(cache.bytes(9)) * more, float(cache.bytes(17)) * more
            assert found == (float(row["first"]), float(row["last"])), row["model"]
            compared += 1
    assert compared > 200
    assert {"llama-3-8b", "deepseek-v3", "mamba2-1.3b", "qwen3-next-80b-a3b"} <= set(SHIPPED)


def test_widths_and_ranks():
    """8 bits take half, but for states; stages of a pipeline share layers."""
    assert float(of("llama-3-8b", 1.0).bytes(7)) == 0.5 * float(of("llama-3-8b").bytes(7))
    hybrid = of("qwen3-next-80b-a3b"), of("qwen3-next-80b-a3b", 1.0)
    assert hybrid[0].fixed == hybrid[1].fixed > 0
    one, two = (Server("llama-3-8b", "h100-sxm5", Degrees(pp=pp)).cache_bytes(50) for pp in (1, 2))
    assert float(two) == 0.5 * float(one)
