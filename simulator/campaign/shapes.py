"""Shapes of language models of any size, by the pattern of a family: depth, width, heads.

Depth against width is interpolated between published models of the family, in logarithms; widths
are multiples that tensor parallelism of 8 divides, depths multiples that pipelines divide.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from roofcast.hwdb.errors import BadInput, unknown
from roofcast.simulator.models.catalog import from_config
from roofcast.simulator.work.model import Model

DEEPER = 0.3  # weight of the distance to the pattern's depth, against that to the size wanted
SMALLEST, LARGEST = 1e6, 1e14  # parameters


class Family(NamedTuple):
    """The pattern of a family."""

    points: tuple[tuple[int, int], ...]  # width, depth of published models
    head: int  # width of a head
    keys: int  # heads of keys and values; 0: as many as of queries
    wide: float  # width of the feed-forward layer over that of the model
    gated: bool  # three matrices in it, else two
    vocabulary: int
    tied: bool  # one matrix for embedding and head
    source: str


FAMILIES = {
    "llama": Family(
        ((512, 8), (1024, 16), (2048, 22), (3072, 28), (4096, 32), (5120, 40), (6656, 60),
         (8192, 80), (16384, 126)),
        128, 8, 3.5, True, 32000, False,
        "Llama 1 to 3 (arXiv:2302.13971, 2307.09288, 2407.21783), TinyLlama; vocabulary of Llama 2",
    ),
    "qwen3": Family(
        ((512, 14), (1024, 28), (2048, 28), (2560, 36), (4096, 36), (5120, 52), (8192, 80)),
        128, 8, 3.0, True, 151936, False, "Qwen3 (arXiv:2505.09388), 0.6B to 32B",
    ),
    "gpt3": Family(
        ((768, 12), (1024, 24), (1536, 24), (2048, 24), (2560, 32), (4096, 32), (5120, 40),
         (12288, 96)),
        64, 0, 4.0, False, 50257, True, "Brown et al. 2020 (arXiv:2005.14165), Table 2.1",
    ),
}  # fmt: skip


class Shape(NamedTuple):
    """A model of a family."""

    family: str
    width: int
    depth: int
    heads: int
    keys: int
    feed: int  # width of the feed-forward layer
    vocabulary: int

    @property
    def parameters(self) -> float:
        """Parameters, embeddings among them."""
        f = FAMILIES[self.family]
        head = self.width // self.heads
        attention = self.width * head * (2 * self.heads + 2 * self.keys)
        layer = attention + (3 if f.gated else 2) * self.width * self.feed
        return float(self.depth * layer + (1 if f.tied else 2) * self.vocabulary * self.width)

    def model(self, sequence: int) -> Model:
        """The model, with a context of `sequence` tokens."""
        return from_config(self.name, self.config(sequence))

    @property
    def name(self) -> str:
        """The family, and the parameters in words."""
        n = self.parameters
        size = f"{n / 1e9:.3g}b" if n >= 1e9 else f"{n / 1e6:.3g}m"
        return f"{self.family}-{size}"

    def config(self, sequence: int) -> dict[str, Any]:
        """The config.json of the model, with a context of `sequence` tokens."""
        if self.family == "gpt3":
            return {
                "model_type": "gpt2", "vocab_size": self.vocabulary, "n_positions": sequence,
                "n_embd": self.width, "n_layer": self.depth, "n_head": self.heads,
            }  # fmt: skip
        return {
            "model_type": self.family, "vocab_size": self.vocabulary, "hidden_size": self.width,
            "intermediate_size": self.feed, "num_hidden_layers": self.depth,
            "num_attention_heads": self.heads, "num_key_value_heads": self.keys,
            "head_dim": self.width // self.heads, "max_position_embeddings": sequence,
            "hidden_act": "silu", "tie_word_embeddings": False,
        }  # fmt: skip


def shape_of(family: str, parameters: float) -> Shape:
    """The shape of a family nearest to so many parameters. Raises UnknownName for an unknown
    family, BadInput for a size that cannot be.

    >>> s = shape_of("llama", 7e9)
    >>> s.width, s.depth, s.heads, round(s.parameters / 1e9, 1)
    (4096, 32, 32, 7.2)
    """
    if family not in FAMILIES:
        raise unknown("family", family, FAMILIES, f"known: {', '.join(FAMILIES)}")
    if not SMALLEST <= parameters <= LARGEST:
        raise BadInput(
            f"a model of {parameters:.3g} parameters: from {SMALLEST:g} to {LARGEST:g} are planned"
        )
    shapes = (_shape(family, width, depth) for width, depth in _grid(family))
    return min(shapes, key=lambda s: _distance(s, parameters))


def _grid(family: str) -> list[tuple[int, int]]:
    widths = [128 * i for i in range(1, 9)] + [256 * i for i in range(5, 17)]
    widths += [1024 * i for i in range(5, 97)]
    found = []
    for width in widths:
        depth = _depth(family, width)
        by = 4 if depth >= 16 else 2
        near = {max(by * round(depth * r / by), by) for r in (0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4)}
        found += [(width, d) for d in sorted(near)]
    return found


def _depth(family: str, width: float) -> float:
    """Depth of the pattern at a width; beyond the published widths along the last piece."""
    x, y = np.log(np.array(FAMILIES[family].points, dtype=float)).T
    at = math.log(width)
    if at > x[-1]:
        slope = (y[-1] - y[-2]) / (x[-1] - x[-2])
        return math.exp(y[-1] + slope * (at - x[-1]))
    if at < x[0]:
        return math.exp(y[0] + (at - x[0]))
    return math.exp(float(np.interp(at, x, y)))


def _shape(family: str, width: int, depth: int) -> Shape:
    f = FAMILIES[family]
    heads = max(width // f.head, 1) if width >= 1024 or f.head == 64 else max(width // 64, 1)
    keys = min(f.keys or heads, heads)
    keys = keys if heads % keys == 0 else math.gcd(heads, keys)
    feed = 256 * max(round(f.wide * width / 256), 1)
    return Shape(family, width, depth, heads, keys, feed, f.vocabulary)


def _distance(s: Shape, parameters: float) -> float:
    off = abs(math.log(s.parameters / parameters))
    return off + DEEPER * abs(math.log(s.depth / _depth(s.family, s.width)))
