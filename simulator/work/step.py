"""One step of training or inference: a model run on a tape under a recipe and a stack, frozen."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from roofcast.simulator.software.stack import Stack
from roofcast.simulator.work.fusion import fuse
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.ops.optimizer import optimizer, state_bytes, update_traffic
from roofcast.simulator.work.precision import WIDTH, precision
from roofcast.simulator.work.recompute import recomputed
from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.traced import (
    ALONE,
    Block,
    Kept,
    Kernel,
    Node,
    Parallel,
    Traffic,
    Weight,
)

FOREACH_GROUP = 30  # tensors that PyTorch's multi-tensor kernels take in one launch, about


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is trained or run: everything decided."""

    mode: str  # train | infer
    batch: int
    size: int | None  # tokens a sample, or pixels a side
    precision: str
    optimizer: str | None
    recompute: str  # as simulator/work/recompute.py lists them
    stack: Stack
    offload: tuple[str, ...] = ()  # what is kept in the host's memory: activations, optimizer


class Step(NamedTuple):
    """Everything a step does and keeps, kernel by kernel."""

    nodes: tuple[Node, ...]
    kernels: tuple[Kernel, ...]  # phases: forward, backward, recompute, update
    weights: tuple[Weight, ...]
    blocks: tuple[Block, ...]
    saved: tuple[Kept, ...]  # what recomputation leaves
    counted: tuple[Kept, ...]  # without recomputation
    input_bytes: float
    state_bytes: float
    recipe: Recipe
    traffic: tuple[Traffic, ...] = ()
    said: tuple[str, ...] = ()  # what the model had to assume

    @property
    def parameters(self) -> int:
        """Weights, all repetitions of a layer."""
        return sum(w.size * w.count for w in self.weights)

    @property
    def weight_width(self) -> float:
        """Bytes of a weight as the step's kernels read it."""
        return WIDTH[self.weights[0].dtype] if self.weights else 4.0

    @property
    def parameter_bytes(self) -> float:
        """Bytes of all weights as they are held."""
        return sum(w.size * w.count * WIDTH[w.dtype] for w in self.weights)

    @property
    def gradient_bytes(self) -> float:
        """Bytes of the gradients of all trainable weights; none in inference."""
        return (
            sum(w.size * w.count * WIDTH[w.dtype] for w in self.weights if w.trainable)
            if self.recipe.mode == "train"
            else 0
        )


def trace(model: Model, recipe: Recipe, parallel: Parallel = ALONE) -> Step:
    """Model, recipe -> Step: the whole of it, or one rank's share under `parallel`."""
    training = recipe.mode == "train"
    tape = Tape(
        precision(recipe.precision),
        training=training,
        implementations=recipe.stack.implementations,
        parallel=parallel,
    )
    model.run(
        tape,
        recipe.batch,
        recipe.size // parallel.cp if recipe.size and parallel.cp > 1 else recipe.size,
    )
    counted = tuple(
        Kept(node, held, count, kind, storage)
        for storage, (node, held, count, kind, _) in tape.saved.items()
    )
    kernels = tape.kernels
    saved = counted
    if recipe.stack.fusion:
        by_layer = recipe.stack.implementations.get("compiled") == "layers"
        layers = {i for i, node in enumerate(tape.nodes) if node.layer} if by_layer else None
        kernels, saved = fuse(kernels, saved, recipe.stack.fusion, layers)
        counted = saved
    if training and recipe.recompute != "none":
        again, saved = recomputed(
            tape.nodes, tape.blocks, kernels, saved, recipe.recompute, model.name, parallel.stages
        )
        kernels = [*kernels, *again]
    if training and recipe.stack.accumulate_bytes:
        kernels = [*kernels, *accumulated(tape, recipe.stack.accumulate_bytes)]
    states = 0.0
    if training and recipe.optimizer:
        states = sum(
            state_bytes(optimizer(recipe.optimizer), w.size * w.count, WIDTH[w.dtype])
            for w in tape.weights
            if w.trainable
        )
        kernels = [*kernels, *update(tape, recipe)]
    return Step(
        tuple(tape.nodes), tuple(kernels), tuple(tape.weights), tuple(tape.blocks), saved, counted,
        sum(v.bytes for v in tape.inputs), states, recipe, tuple(tape.traffic), tuple(tape.said),
    )  # fmt: skip


def runs(step: Step) -> list[tuple[str, int]]:
    """What each node belongs to: the repeated block it is in, or what stands outside the blocks
    before the next one.
    """
    found, block = [], -1
    for node in reversed(step.nodes):
        block = node.layer or block
        found.append(("block", node.layer) if node.layer else ("op", block))
    return found[::-1]


def of_one_batch(step: Step) -> Step:
    """The step where it is no part of a larger one: a stack whose first micro-batch's gradients are
    the sum adds nothing up.
    """
    if step.recipe.stack.accumulate_first:
        return step
    return step._replace(
        kernels=tuple(k for k in step.kernels if not (k.kind == "accumulate" and k.shape))
    )


def accumulated(tape: Tape, bytes_: float) -> list[Kernel]:
    """A micro-batch's weight gradients added to the sum: so many bytes a weight; autograd's engine
    launches that without Python.
    """
    read, written = 0.6 * bytes_, 0.4 * bytes_  # 16 bits in, 32 bits in and out
    return [
        Kernel(
            w.node,
            "backward",
            "accumulate",
            "fp32",
            0,
            w.size,
            0,
            read * w.size,
            written * w.size,
            (0.0,),
            w.count,
        )
        for w in tape.weights
        if w.trainable
    ]


def update(tape: Tape, recipe: Recipe) -> list[Kernel]:
    """The optimizer's kernels, node by node. Optimizers of fp32 copies divide by the loss's scale
    in the same kernel: Megatron-DeepSpeed on one node of A100 moves some 36 bytes a weight between
    two steps, where the update alone is 34.
    """
    o = optimizer(recipe.optimizer)
    fused = recipe.stack.implementations.get("optimizer") == "fused"
    launches = 1 if fused else o.kernels
    kernels = []
    for w in tape.weights:
        if not w.trainable:
            continue
        read, written = update_traffic(
            o, w.size * w.count, 4.0 if recipe.stack.master else WIDTH[w.dtype], fused
        )
        # gradients are read once more for their norm, and the 16-bit weights written from the fp32
        # ones
        if recipe.stack.master:
            read, written = (
                read + 4.0 * w.size * w.count,
                written + WIDTH[w.dtype] * w.size * w.count,
            )
        elif (
            precision(recipe.precision).product == "fp16"
        ):  # they are checked and divided by the scale of the loss, in place
            gradients = WIDTH[w.dtype] * w.size * w.count
            read, written = read + gradients, written + gradients
        # tensors share launches: the group's launch is spread over them
        kernels.append(
            Kernel(
                w.node,
                "update",
                "optimizer",
                w.dtype,
                0,
                o.flops * w.size * w.count,
                w.size * w.count,
                read,
                written,
                (launches * w.count / FOREACH_GROUP,),
                1,
            )
        )
    return kernels
