"""Bytes held during a step on one device, by kind, at peak; and what a framework adds."""

from __future__ import annotations

import msgspec

from roofcast.hwdb.formats import WIDTH
from roofcast.hwdb.records import Device
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.software.stack import Stack
from roofcast.simulator.work.ops.optimizer import optimizer
from roofcast.simulator.work.recompute import policy
from roofcast.simulator.work.step import Recipe, Step
from roofcast.simulator.work.traced import Kernel

MASTER = 4.0  # bytes per weight of the fp32 copy, and per moment, in stacks that keep one
WIDENED = 4.0  # bytes per weight of the fp32 copy of a 16-bit gradient that an update reads
UPDATE = "optimizer step"  # a moment of the peak
# fp32 tensors that torchao's update of a weight with 8-bit states computes with: the weight and its
# two moments (github pytorch/ao, torchao/optim/adam.py: single_param_adam)
FP32_COPIES = 3
IN_FLIGHT = 2  # layers whose offloaded activations are being copied at any time
GATHERED = 2  # units of weights on the device under ZeRO-3 and offload: one in use, one on its way


class Held(NamedTuple):
    """Bytes on the device at peak, by kind."""

    parameters: float
    gradients: float
    optimizer: float
    activations: float
    transient: float
    framework: float
    moment: str

    @property
    def total(self) -> float:
        """All kinds together [bytes]."""
        stays = self.parameters + self.gradients + self.optimizer
        return stays + self.activations + self.transient + self.framework


class _Unit(msgspec.Struct):
    """What the backward pass treats as one: an op outside the blocks, or a block with all its
    repetitions.
    """

    name: str
    count: int
    layer: bool = False  # a block
    kept: float = 0.0  # bytes kept for backward, without inputs of the step, all repetitions
    gradients: float = 0.0  # bytes of its weights' gradients, all repetitions
    largest: float = 0.0  # bytes of the largest set of tensors with gradients in flight
    inside: float = 0.0  # of a block: bytes one repetition keeps when nothing is recomputed
    weights: float = 0.0  # bytes of its weights, all repetitions


def held(step: Step, framework_bytes: float, slack: float) -> Held:
    """Memory of a step at peak.

    framework_bytes: context, kernels and workspaces; slack: allocator overhead as a fraction of
    activations and transient tensors.

    Training: activations accumulate during the forward pass and are freed during the backward pass,
    while gradients accumulate. Candidates for the peak are the start of each block's backward (what
    is kept below it, the gradients above it, the block's own largest tensors, and under
    recomputation the whole inside of the block once more) and the optimizer step. A table that is
    both embedding and output layer has its first gradient from the start; at the end there are a
    second one and their sum. Gradients are freed between steps (zero_grad(set_to_none=True)).
    Inference: weights, inputs and the two largest neighbouring tensors.
    """
    if step.recipe.mode != "train":
        return _inference(step, framework_bytes, slack)
    return max(_moments(step, framework_bytes, slack), key=lambda h: h.total)


def held_on(step: Step, device: Device) -> Held:
    """Memory of a step at peak on one device; a CPU has no context to hold."""
    stack = step.recipe.stack
    return held(step, stack.framework_bytes if device.kind != "cpu" else 0.0, stack.slack)


def moments_on(step: Step, device: Device) -> list[Held]:
    """Memory of a training step on one device through its backward pass and update: the moments
    among which `held` finds the peak, in the order in which they come.
    """
    stack = step.recipe.stack
    return _moments(step, stack.framework_bytes if device.kind != "cpu" else 0.0, stack.slack)


def _inference(step: Step, framework_bytes: float, slack: float) -> Held:
    still = ("parameter", "buffer")
    tensors = ((v for v in (*k.inputs, *k.outputs) if v.kind not in still) for k in step.kernels)
    working = max((sum(v.bytes for v in each) for each in tensors), default=0.0)
    framework = framework_bytes + slack * working
    parameters = step.parameter_bytes
    return Held(parameters, 0.0, 0.0, step.input_bytes, working, framework, "forward")


def _moments(step: Step, framework_bytes: float, slack: float) -> list[Held]:
    """The candidates for the peak of a training step, from the end of the forward on."""
    units, stack = _units(step), step.recipe.stack
    leaving = _offloaded(units) if "activations" in step.recipe.offload else 0.0
    weights = sum(w.size * w.count for w in step.weights if w.trainable)
    away = "parameters" in step.recipe.offload
    parameters = _live(step, units) if away else step.parameter_bytes
    states = _states(step, weights)
    # in_backward: each gradient is used up as soon as it is there
    at_once = stack.implementations.get("update") == "in_backward"
    one = max(u.gradients / u.count for u in units)

    def gradients_held(so_far: float) -> float:
        if away:  # those of two units, one computed and one on its way to the host
            return min(held_gradient(stack, step.trained_width) * weights, so_far, GATHERED * one)
        if stack.master and step.recipe.optimizer is not None:  # buffers that stay
            return held_gradient(stack, step.trained_width) * weights
        return min(so_far, one) if at_once else so_far

    again = policy(step.recipe.recompute)
    # layers whose activations all exist while one of them is in backward
    remade = again.n if again.kind == "uniform" else float(again.by_layer)
    below = sum(u.kept for u in units) + step.input_bytes + leaving
    above, twice = 0.0, step.used_twice
    moments: list[Held] = []
    for name, live in asides(step):
        kept, gradients = step.input_bytes, gradients_held(0.0)
        framework = framework_bytes + slack * (kept + live)
        at = f"forward of {name}"
        moments.append(Held(parameters, gradients, states, kept, live, framework, at))
    for u in reversed(units):
        early = twice if u is not units[0] else 2.0 * twice
        for part, one_of, done, moment in _within(u, remade):
            kept, transient = below - u.kept + part, u.largest + one_of
            gradients = gradients_held(above + early + done)
            framework = framework_bytes + slack * (kept + transient)
            moments.append(Held(parameters, gradients, states, kept, transient, framework, moment))
        below -= u.kept
        above += u.gradients
    gradients = gradients_held(one if at_once else step.gradient_bytes)
    scratch = _scratch(step) + (WIDENED * weights if narrow_buffers(stack) else 0.0)
    scratch += fp32_copies(step)
    update = (step.input_bytes, scratch, framework_bytes, UPDATE)
    return [*moments, Held(parameters, gradients, states, *update)]


def asides(step: Step) -> list[tuple[str, float]]:
    """Of each frozen model that runs before the one that trains its name, and the most bytes that
    its tensors take at once: each from the kernel that writes it to the last one that reads it.
    """
    found = []
    for first, last in step.asides:
        kernels = [k for k in step.kernels if first <= k.node < last and k.phase == "forward"]
        until: dict[int, int] = {}  # storage -> the last kernel that reads or writes it
        for i, k in enumerate(kernels):
            until |= dict.fromkeys((v.storage for v in (*k.inputs, *k.outputs)), i)
        live: dict[int, float] = {}
        most = 0.0
        for i, k in enumerate(kernels):
            live |= {v.storage: v.held for v in k.outputs if v.kind == "activation"}
            most = max(most, sum(live.values()))
            live = {s: n for s, n in live.items() if until[s] > i}
        found.append((step.nodes[first].name.partition(".")[0], most))
    return found


def _within(u: _Unit, remade: float) -> list[tuple[float, float, float, str]]:
    """Moments of a unit's backward: bytes of what it keeps that are still there, of the layers that
    are computed again at once (`remade`), and of its gradients so far.

    At the start, and where its last group of layers starts, all of a group exist again; at the end
    one is left of it.
    """
    group, each = min(remade, float(u.count)), u.gradients / u.count
    # no more than all layers keep where none is computed again
    again = min(u.inside * group, max(u.inside * u.count - u.kept, 0.0))
    start = u.kept, again, each, f"backward of {u.name}"
    if u.count == 1:
        return [start]
    at_once = max(group, 1.0)
    left = u.kept * at_once / u.count
    last = left, again, u.gradients - each * (at_once - 1.0), f"end of the backward of {u.name}"
    if group <= 1.0:
        return [start, last]
    return [start, last, (left, u.inside, u.gradients, last[3])]


def in_flight(kernel: Kernel) -> float:
    """Bytes that the backward of a forward kernel holds beside what is kept: the gradients of its
    tensors, and weights that it dequantizes.
    """
    return sum(
        v.in_flight
        for v in (*kernel.inputs, *kernel.outputs)
        if (v.grad and v.kind == "activation") or v.kind == "dequantized"
    )


def narrow_buffers(stack: Stack) -> bool:
    """Whether gradients are accumulated in 16 bits, and widened for the update alone: Megatron's
    `grad_reduce_in_fp32 = False`, whatever `gradient_bytes` says of what ranks exchange.
    """
    return stack.master and stack.implementations.get("gradients") == "16-bit"


def held_gradient(stack: Stack, width: float) -> float:
    """Bytes per gradient that a rank holds, of a weight of `width` bytes."""
    if not stack.master:
        return width
    return 2.0 if narrow_buffers(stack) else stack.gradient_bytes


def state_width(recipe: Recipe, width: float) -> float:
    """Bytes per trained weight of `width` bytes of optimizer states and master weights on the
    device: under master weights an fp32 copy, and states in fp32.
    """
    if recipe.optimizer is None or "optimizer" in recipe.offload:
        return 0.0
    o, stack = optimizer(recipe.optimizer), recipe.stack
    if o.paged:
        return MASTER if stack.master else 0.0
    if not stack.master:
        return o.states * width + o.fixed
    # DeepSpeed widens its part of 16-bit gradients to fp32 first, and keeps that
    widened = WIDENED if stack.gradient_bytes < WIDENED else 0.0
    return MASTER * (1 + o.states) + o.fixed + widened


def copy_width(recipe: Recipe, width: float) -> float:
    """Bytes per trained weight of `width` bytes that a foreach update copies: of the fp32 master
    weight where there is one.
    """
    if not recipe.copied_by_update:
        return 0.0
    return MASTER if recipe.stack.master else width


def fp32_copies(step: Step) -> float:
    """Bytes of the fp32 tensors in which torchao updates one weight after another, at the largest:
    of a stack that takes its 8-bit optimizers from it (`eight_bit = "torchao"`).
    """
    recipe = step.recipe
    if recipe.stack.implementations.get("eight_bit") != "torchao" or recipe.optimizer is None:
        return 0.0
    o = optimizer(recipe.optimizer)
    if not recipe.optimizer.endswith("8bit") or o.paged or "optimizer" in recipe.offload:
        return 0.0
    largest = max((w.updated for w in step.weights if w.trainable), default=0)
    return FP32_COPIES * WIDENED * largest


def _states(step: Step, weights: float) -> float:
    """Bytes of optimizer states and master weights on the device."""
    if "optimizer" not in step.recipe.offload and not step.recipe.stack.master:
        return step.state_bytes  # weights may differ in width
    return state_width(step.recipe, step.trained_width) * weights


def _units(step: Step) -> list[_Unit]:
    """The units of a step in the order of the forward."""
    key = [("block", node.layer) if node.layer else ("op", i) for i, node in enumerate(step.nodes)]
    for first, last in step.together:  # recomputed as one
        key[first:last] = [("part", first)] * (last - first)
    units: dict[tuple[str, int], _Unit] = {}
    for i, node in enumerate(step.nodes):
        of = step.blocks[node.layer] if node.layer else node
        name = of.name if key[i][0] != "part" else node.name.rpartition(".")[0]
        units.setdefault(key[i], _Unit(name, of.count, node.layer > 0))
    for s in step.saved:
        if s.kind != "input":
            units[key[s.node]].kept += s.bytes * s.count
    for w in step.weights:
        units[key[w.node]].weights += w.size * w.count * WIDTH[w.dtype]
        if w.trainable:
            units[key[w.node]].gradients += w.updated * w.count * WIDTH[w.dtype]
    for k in step.kernels:  # gradients of a kernel's tensors, as its backward holds them
        if k.phase == "forward":
            unit = units[key[k.node]]
            unit.largest = max(unit.largest, in_flight(k))
    for s in step.counted:
        if s.kind == "activation" and key[s.node][0] != "op":
            unit = units[key[s.node]]
            unit.inside += s.bytes * s.count / unit.count
    return list(units.values())


def _live(step: Step, units: list[_Unit]) -> float:
    """Bytes of offloaded weights that are on the device at any time."""
    two = GATHERED * max(u.weights / u.count for u in units)
    kept = step.recipe.stack.live_weights * step.weight_width
    return min(max(two, kept), step.parameter_bytes)


def _offloaded(units: list[_Unit]) -> float:
    """Bytes of the layers that are being copied to host memory or back at any time; all layers' own
    are taken from their units.
    """
    layers = [u for u in units if u.layer]
    whole = sum(u.kept for u in layers)
    most = IN_FLIGHT * max((u.kept / u.count for u in layers), default=0.0)
    for u in layers:
        u.kept = 0.0
    return min(whole, most)


def _scratch(step: Step) -> float:
    """Bytes the update needs beside states."""
    trained = (w for w in step.weights if w.trainable)
    return sum(w.updated * w.count * copy_width(step.recipe, WIDTH[w.dtype]) for w in trained)
