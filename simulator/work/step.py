"""One step of training or inference: a model run on a tape under a recipe and a stack, frozen."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.software.stack import Stack
from roofcast.simulator.work.checkpoints import active, checkpointed
from roofcast.simulator.work.compressed import said_of_weights
from roofcast.simulator.work.epilogue import with_epilogues
from roofcast.simulator.work.fusion import fuse
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.ops.optimizer import optimizer, state_bytes, update_traffic
from roofcast.simulator.work.precision import WIDTH, precision
from roofcast.simulator.work.recompute import needed, policy, recomputed
from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.traced import (
    ALONE,
    Block,
    Cache,
    Kept,
    Kernel,
    Node,
    Parallel,
    Traffic,
    Weight,
)
from roofcast.simulator.work.tuning import Tuning, check_matches, check_prompts

FOREACH_GROUP = 30  # tensors per launch of PyTorch's multi-tensor kernels, approximately


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is trained or run, with every default resolved."""

    mode: str  # train | infer
    batch: int
    size: int | None  # tokens per sample, or pixels per side
    precision: str
    optimizer: str | None
    recompute: str  # a policy of simulator/work/recompute.py
    stack: Stack
    # kept in host memory: activations, optimizer, parameters
    offload: tuple[str, ...] = ()
    # bandwidth of the NVMe drives of a device that offloaded parameters and optimizer states lie on
    # [B/s]; None: they lie in host memory
    nvme: float | None = None
    tuning: Tuning | None = None  # what trains, and how frozen weights are held; None: all train

    @property
    def copied_by_update(self) -> bool:
        """Whether the update makes a copy of what it updates, as a foreach implementation does."""
        if (
            not self.optimizer
            or "optimizer" in self.offload
            or optimizer(self.optimizer).states < 2
        ):
            return False
        return self.stack.implementations.get("optimizer") != "fused"


class Step(NamedTuple):
    """Everything that a step computes and keeps, kernel by kernel."""

    nodes: tuple[Node, ...]
    kernels: tuple[Kernel, ...]  # phases: forward, backward, recompute, update
    weights: tuple[Weight, ...]
    blocks: tuple[Block, ...]
    saved: tuple[Kept, ...]  # for backward, after recomputation
    counted: tuple[Kept, ...]  # for backward, without recomputation
    input_bytes: float
    state_bytes: float  # of the optimizer
    recipe: Recipe
    traffic: tuple[Traffic, ...] = ()
    assumptions: tuple[str, ...] = ()  # made by the model
    caches: tuple[Cache, ...] = ()  # that generation would keep
    adapted: tuple[str, ...] = ()  # names of layers with an adapter
    # first op, and op behind the last one, of what is recomputed together outside of the blocks
    together: tuple[tuple[int, int], ...] = ()
    asides: tuple[tuple[int, int], ...] = ()  # the same of frozen models that run first

    @property
    def active_parameters(self) -> int:
        """Parameters that one token uses: of experts, those of the ones that it chooses."""
        return round(sum(w.size * w.count * w.share for w in self.weights))

    @property
    def trainable_parameters(self) -> int:
        """Number of weights that train, over all repetitions of a layer; 0 in inference."""
        if self.recipe.mode != "train":
            return 0
        return sum(w.size * w.count for w in self.weights if w.trainable)

    @property
    def trained_width(self) -> float:
        """Bytes per weight that trains, a mean; of all weights where none does."""
        n = self.trainable_parameters
        if not n:
            return self.weight_width
        return sum(w.size * w.count * WIDTH[w.dtype] for w in self.weights if w.trainable) / n

    @property
    def parameters(self) -> int:
        """Number of weights, over all repetitions of a layer."""
        return sum(w.size * w.count for w in self.weights)

    @property
    def weight_width(self) -> float:
        """Bytes per weight as the kernels of the step read it, a mean over all weights."""
        return self.parameter_bytes / self.parameters if self.parameters else 4.0

    @property
    def parameter_bytes(self) -> float:
        """Bytes of all weights in the formats in which they are held."""
        return sum(w.size * w.count * WIDTH[w.dtype] for w in self.weights)

    @property
    def gradient_bytes(self) -> float:
        """Bytes of the gradients of all trainable weights; 0 in inference."""
        if self.recipe.mode != "train":
            return 0
        return sum(w.updated * w.count * WIDTH[w.dtype] for w in self.weights if w.trainable)

    @property
    def used_twice(self) -> float:
        """Bytes of the gradients of weights that two ops use, such as a table that embeds tokens
        and, transposed, gives the logits; 0 in inference.
        """
        if self.recipe.mode != "train":
            return 0.0
        users: dict[int, set[int]] = {}
        size: dict[int, float] = {}
        for k in self.kernels:
            for v in k.inputs:
                if v.kind == "parameter":
                    size[v.storage] = v.bytes
                    if v.grad and k.phase == "forward":
                        users.setdefault(v.storage, set()).add(k.node)
        return float(sum(size[s] for s, nodes in users.items() if len(nodes) > 1))

    @property
    def attention(self) -> str:
        """How attention runs: as the stack says (flash, efficient), or eager where every layer
        does.
        """
        layers, composed = attentions(self.nodes, self.kernels)
        how = self.recipe.stack.implementations.get("attention", "flash")
        return "eager" if 0 < layers == composed else how

    @property
    def runs(self) -> list[tuple[str, int]]:
        """For every node, the group of consecutive nodes to which it belongs.

        ("block", i) for a node of repeated block i; ("op", i) for a node outside of the blocks,
        where i is the next block, or -1 after the last one.
        """
        found, block = [], -1
        for node in reversed(self.nodes):
            block = node.layer or block
            found.append(("block", node.layer) if node.layer else ("op", block))
        return found[::-1]


class Recorded(NamedTuple):
    """A model on a tape: what all steps share but for recomputation, optimizer and offload."""

    tape: Tape
    kernels: list[Kernel]  # compiled, where the stack has a compiler
    counted: tuple[Kept, ...]  # for backward, without recomputation


Records = dict[tuple, Recorded]  # by what they depend on


def recorded_by(recipe: Recipe, parallel: Parallel) -> tuple:
    """What a record of a model depends on."""
    r = recipe
    how = msgspec.msgpack.encode((r.mode, r.batch, r.size, r.precision, r.stack, r.tuning))
    return how, r.mode == "train" and _checkpointed(r), parallel._replace(stages=1)


def record(model: Model, recipe: Recipe, parallel: Parallel = ALONE) -> Recorded:
    """The model on a tape, before anything is recomputed or updated."""
    stack, training = recipe.stack, recipe.mode == "train"
    held = precision(recipe.precision)
    tape = Tape(held, training=training, implementations=stack.implementations, parallel=parallel)
    size = recipe.size // parallel.cp if recipe.size else recipe.size
    tape.tuning = recipe.tuning
    if recipe.tuning is not None and training and size:
        size += recipe.tuning.prompt
    tape.inputs_need_grad = training and _checkpointed(recipe)
    model.run(tape, recipe.batch, size)
    if recipe.tuning is not None and training:
        weights = [(tape.nodes[w.node], w) for w in tape.weights]
        of = tape.adapted, tape.linears, weights, model.name
        tape.assumptions += check_matches(recipe.tuning, *of)
        check_prompts(recipe.tuning, tape.prompted, model.name)
    elif recipe.tuning is not None:
        tape.assumptions.extend(said_of_weights(tape, recipe.tuning, model.name))
    return Recorded(tape, *_compiled(tape, stack))


def trace(
    model: Model, recipe: Recipe, parallel: Parallel = ALONE, records: Records | None = None
) -> Step:
    """The whole step of a model, or one rank's share. records: of the model in other steps."""
    stack, training = recipe.stack, recipe.mode == "train"
    if records is None:
        tape, kernels, counted = record(model, recipe, parallel)
    else:
        if (key := recorded_by(recipe, parallel)) not in records:
            records[key] = record(model, recipe, parallel)
        tape, kernels, counted = records[key]
    saved = counted
    if training and recipe.recompute != "none":
        again, saved = _recomputed(tape, kernels, saved, recipe, model.name, parallel)
        if stack.prunes:
            again = needed(again, counted, saved)
        kernels = [*kernels, *again]
    if training and stack.accumulate_bytes:
        kernels = [*kernels, *accumulated(tape, stack.accumulate_bytes)]
    if training:
        kernels = [*kernels, *update(tape, recipe)]
    return Step(
        tuple(tape.nodes), tuple(kernels), tuple(tape.weights), tuple(tape.blocks), saved, counted,
        sum(v.bytes for v in tape.inputs), _state_bytes(tape, recipe) if training else 0.0, recipe,
        tuple(tape.traffic), (*tape.assumptions, *_composed_attention(tape, model.name)),
        () if tape.headed else tuple(tape.caches),  # a classifier generates nothing
        tuple(tape.adapted),
        _outside(tape, kernels) if training and recipe.recompute == "full" else (),
        tuple(tape.asides),
    )  # fmt: skip


def _recomputed(
    tape: Tape,
    kernels: Sequence[Kernel],
    saved: tuple[Kept, ...],
    recipe: Recipe,
    name: str,
    parallel: Parallel,
) -> tuple[list[Kernel], tuple[Kept, ...]]:
    """Kernels that run again, and what is still kept: by the model's own checkpoints where it has
    some and all are asked for, else by layers or parts of them.
    """
    if tape.checkpoints and recipe.recompute == "full":
        of = tape.checkpoints, tape.savers, tape.carried
        return checkpointed(tape.nodes, kernels, saved, *of)
    stages = parallel.stages
    return recomputed(tape.nodes, tape.blocks, kernels, saved, recipe.recompute, name, stages)


def _outside(tape: Tape, kernels: Sequence[Kernel]) -> tuple[tuple[int, int], ...]:
    """The ops of checkpoints outside of the repeated blocks."""
    found = active(tape.checkpoints, kernels)
    return tuple((c.first, c.last) for c in found if not tape.nodes[c.first].layer)


def _checkpointed(recipe: Recipe) -> bool:
    """Whether inputs get a gradient so that checkpoints pass one to the adapters inside, as PEFT
    and transformers arrange it (enable_input_require_grads).
    """
    tuned = recipe.tuning is not None and recipe.tuning.rank is not None
    return tuned and policy(recipe.recompute).by_layer


def _composed_attention(tape: Tape, name: str) -> tuple[str, ...]:
    """A line where the stack asks for a fused attention and layers of the model have none."""
    asked = tape.implementation("attention", "flash")
    layers, composed = attentions(tape.nodes, tape.kernels)
    if asked == "eager" or not composed:
        return ()
    where = f" in {composed} of {layers} attention layers" if composed < layers else ""
    why = "no fused kernel computes its scores"
    return (f"attention {asked}: {name} runs eager attention{where}: {why}",)


def attentions(nodes: Sequence[Node], kernels: Sequence[Kernel]) -> tuple[int, int]:
    """Attention layers, and how many of them run as single kernels (eager) instead of a fused one.

    >>> attentions((), ())
    (0, 0)
    """
    layers = {i: node.count for i, node in enumerate(nodes) if node.op == "attention"}
    fused = {k.node for k in kernels if k.kind == "attention"}
    return sum(layers.values()), sum(n for i, n in layers.items() if i not in fused)


def _compiled(tape: Tape, stack: Stack) -> tuple[list[Kernel], tuple[Kept, ...]]:
    """Kernels and kept storages on the tape, fused if the stack has a compiler."""
    saved = tuple(
        Kept(entry.node, entry.bytes, entry.count, entry.kind, storage, entry.behind)
        for storage, entry in tape.saved.items()
    )
    kernels = tape.kernels
    fused = stack.implementations.get("epilogue") == "fused"
    if not tape.training and (fused or tape.filters):
        kernels = with_epilogues(kernels, tape.nodes, tape.carried, not fused)
    if not stack.fusion:
        return kernels, saved
    if not tape.training:
        kernels = _without_positions(kernels)
    by_layer = stack.implementations.get("compiled") == "layers"
    layers = {i for i, node in enumerate(tape.nodes) if node.layer} if by_layer else None
    return fuse(kernels, saved, stack.fusion, layers)


def _without_positions(kernels: Sequence[Kernel]) -> list[Kernel]:
    """Kernels of inference under a compiler: no pool writes positions of maxima that nothing reads.

    Eager PyTorch writes them.
    """
    read = {v.storage for k in kernels for v in k.inputs}
    out = []
    for k in kernels:
        unread = [v for v in k.outputs[1:] if k.kind == "pool" and v.storage not in read]
        kept = tuple(v for v in k.outputs if v not in unread)
        out.append(k._replace(written=k.written - sum(v.bytes for v in unread), outputs=kept))
    return out


def _state_bytes(tape: Tape, recipe: Recipe) -> float:
    """Bytes of the optimizer's states for all trainable weights."""
    if recipe.optimizer is None:
        return 0.0
    o = optimizer(recipe.optimizer)
    if o.paged:
        return 0.0
    trainable = (w for w in tape.weights if w.trainable)
    return sum(state_bytes(o, w.size * w.count, WIDTH[w.dtype]) for w in trainable)


def of_one_batch(step: Step) -> Step:
    """The step if it is the only micro-batch of its batch.

    Stacks that use the gradients of the first micro-batch as the sum then accumulate nothing.
    """
    if step.recipe.stack.accumulate_first:
        return step
    return step._replace(
        kernels=tuple(k for k in step.kernels if not (k.kind == "accumulate" and k.shape))
    )


def accumulated(tape: Tape, bytes_: float) -> list[Kernel]:
    """Kernels that add a micro-batch's weight gradients to the sum, moving `bytes_` per weight.

    Autograd's engine launches them without returning to Python.
    """
    read, written = 0.6 * bytes_, 0.4 * bytes_  # reads 16 and 32 bits, writes 32 bits
    kernels = []
    for w in tape.weights:
        if w.trainable:
            n = w.updated
            work = 0, n, 0, read * n, written * n, (0.0,), w.count
            kernels.append(Kernel(w.node, "backward", "accumulate", "fp32", *work))
    return kernels


def update(tape: Tape, recipe: Recipe) -> list[Kernel]:
    """The optimizer's kernels, one per weight; none without an optimizer.

    Optimizers with fp32 master weights divide by the loss scale in the same kernel: on one node of
    A100, Megatron-DeepSpeed moves about 36 bytes per weight between two steps, and the update alone
    accounts for 34.
    """
    if recipe.optimizer is None:
        return []
    o = optimizer(recipe.optimizer)
    fused = recipe.stack.implementations.get("optimizer") == "fused"
    launches = 1 if fused else o.kernels
    kernels = []
    for w in tape.weights:
        if not w.trainable:
            continue
        n = w.updated * w.count
        read, written = _update_bytes(w, recipe, fused)
        # Tensors share launches: the launch of a group is divided over its members.
        shape = (launches * w.count / FOREACH_GROUP,)
        work = 0, o.flops * n, n, read, written, shape, 1
        kernels.append(Kernel(w.node, "update", "optimizer", w.dtype, *work))
    return kernels


def _update_bytes(w: Weight, recipe: Recipe, fused: bool) -> tuple[float, float]:
    """Bytes read and written by the update of one weight tensor, all its repetitions."""
    assert recipe.optimizer is not None, "update() returns early without an optimizer"
    n, width, master = w.updated * w.count, WIDTH[w.dtype], recipe.stack.master
    o = optimizer(recipe.optimizer)
    read, written = update_traffic(o, n, 4.0 if master else width, fused)
    if master:  # gradients are read once more for their norm; 16-bit weights are written from fp32
        return read + 4.0 * n, written + width * n
    if precision(recipe.precision).product == "fp16":  # unscale and check gradients, in place
        return read + width * n, written + width * n
    return read, written
