"""Layers dealt to pipeline stages: equal runs, equal work, or as many as were asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.parallel.stages import Unit
from roofcast.simulator.work.step import Step


def deal(units: list[Unit], x: Layout, balanced: bool = False) -> list[list[int]]:
    """Units (by index) of each pipeline chunk: as many layers as asked for, or equal runs, with the
    remainder in the middle; ops around the layers go to the ends. `balanced`: instead of equal runs
    those of equal work, as nanotron deals layers.
    """
    layers = [i for _, i in sorted((place, i) for i, u in enumerate(units) for place in u.places)]
    n = x.pp * x.vpp
    if n > 1 and len(layers) < n - 2:  # the embedding and the head may be alone on a stage
        raise BadInput(
            f"pp {x.pp} x vpp {x.vpp} = {n} stages, but the model has {len(layers)} layers; use at"
            f" most {len(layers)}"
        )
    each, rest = divmod(len(layers), n)
    middle = sorted(range(n), key=lambda c: abs(2 * c - n + 1))[:rest]
    sizes: Sequence[int] = x.stages or [each + (c in middle) for c in range(n)]
    if balanced and not x.stages and n > 1:
        sizes = _balanced([units[u].products for u in layers], units, n)
    if sum(sizes) != len(layers):
        text = ",".join(map(str, sizes))
        raise BadInput(
            f"stages {text}: {sum(sizes)} layers, but the model has {len(layers)}; make them equal"
        )
    chunks, start = [], 0
    for size in sizes:
        chunks.append(layers[start : start + size])
        start += size
    for i in (i for i, u in enumerate(units) if not u.layers):
        if not layers or i < min(layers):
            chunks[0].insert(0, i)
        elif i > max(layers):
            chunks[-1].append(i)
        else:  # between two kinds of layers: with the first layer of the second kind
            later = (c for c, m in enumerate(chunks) if any(j > i and units[j].layers for j in m))
            chunks[next(later)].append(i)
    return chunks


def counted(members: list[list[int]], units: int) -> np.ndarray:
    """How many times each stage has each unit: (stages, units). members: units (by index) of each
    stage.

    >>> counted([[0, 1, 1], [1, 1, 2]], 3).tolist()
    [[1.0, 2.0, 0.0], [0.0, 2.0, 1.0]]
    """
    return np.array([np.bincount(stage, minlength=units) for stage in members], dtype=float)


def _balanced(layers: list[float], units: list[Unit], n: int) -> list[int]:
    """Layers of each of `n` chunks with equal FLOPs of matrix products, those of the head included;
    the layer that passes a chunk's share is its last one. `layers`: FLOPs of each. Raises BadInput
    where the blocks are too few for each chunk to have one.

    Source: github huggingface/nanotron, helpers of the trainer that assign blocks to ranks; behind
    the layers of its Llama stand a norm, the head, a cast of the logits and the loss.
    """
    head = sum(u.products for u in units if not u.layers)
    whole = sum(layers) + head
    sizes, done, chunk, last = [0] * n, 0.0, 0, 0
    for i, flops in enumerate([*layers, 0.0, head, 0.0, 0.0]):
        sizes[chunk] += i < len(layers)
        done, last = done + flops, chunk
        chunk += done > whole * (chunk + 1) / n and chunk < n - 1
    if last < n - 1:
        raise BadInput(
            f"pp {n}: dealt by FLOPs, {len(layers)} layers and the head leave {n - 1 - last} of {n}"
            " stages without any; use fewer stages"
        )
    return sizes


def is_balanced(step: Step) -> bool:
    """Whether the step's stack deals layers by work."""
    return step.recipe.stack.implementations.get("stages") == "balanced"


def stages(units: list[Unit], x: Layout, balanced: bool = False) -> list[list[int]]:
    """Units (by index) of each pipeline stage: every pp-th chunk, or under a V schedule one chunk
    on the way down and one on the way up. `balanced`: as in `deal`.
    """
    chunks = deal(units, x, balanced)
    if x.schedule == "zb-v" and x.pp > 1:
        return [[*chunks[stage], *chunks[2 * x.pp - 1 - stage]] for stage in range(x.pp)]
    return [
        [u for c in range(stage, x.pp * x.vpp, x.pp) for u in chunks[c]] for stage in range(x.pp)
    ]
