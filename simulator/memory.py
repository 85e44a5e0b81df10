"""Bytes held over a step, by kind, block by block; the fullest moment and what a framework adds."""

from __future__ import annotations

from typing import NamedTuple

from roofcast.simulator.work.ops.optimizer import optimizer
from roofcast.simulator.work.precision import WIDTH
from roofcast.simulator.work.recompute import policy
from roofcast.simulator.work.step import Step

MASTER = 12.0  # bytes a weight of fp32 copy and two fp32 moments, under a stack that keeps them
IN_FLIGHT = 2  # layers whose offloaded activations are on their way


class Held(NamedTuple):
    """Bytes on the device at the fullest moment, by kind."""

    parameters: float
    gradients: float
    optimizer: float
    activations: float
    transient: float
    framework: float
    moment: str

    @property
    def total(self) -> float:
        """All kinds together [B]."""
        return (
            self.parameters
            + self.gradients
            + self.optimizer
            + self.activations
            + self.transient
            + self.framework
        )


def held(step: Step, framework_bytes: float, slack: float) -> Held:
    """The fullest moment of a step.

    Training: activations pile up through the forward, then go as the backward passes, while
    gradients come; the moments looked at are the start of each block's backward (what is kept below
    it, gradients above it, the block's own largest tensors, and under recomputation the block's
    whole inside once more) and the optimizer step. A table that is embedding and output layer has
    its first gradient from the start; at the end stand a second one and their sum. Gradients are
    freed between steps (zero_grad(set_to_none=True)). Inference: weights, inputs and the two
    largest neighbouring tensors.
    """
    parameters = step.parameter_bytes
    if step.recipe.mode != "train":
        working = max(
            (
                sum(
                    v.bytes
                    for v in (*k.inputs, *k.outputs)
                    if v.kind not in ("parameter", "buffer")
                )
                for k in step.kernels
            ),
            default=0.0,
        )
        activations = step.input_bytes
        return Held(
            parameters, 0.0, 0.0, activations, working, framework_bytes + slack * working, "forward"
        )
    units, offload = _units(step), step.recipe.offload
    if "activations" in offload:  # of layers, all but those on their way are with the host
        units = [
            u._replace(kept=u.kept * min(IN_FLIGHT, u.count) / u.count) if u.count > 1 else u
            for u in units
        ]
    weights, stack = sum(w.size * w.count for w in step.weights if w.trainable), step.recipe.stack
    # gradients are added up in buffers that stay
    master = stack.master and step.recipe.optimizer is not None
    states = 0.0 if "optimizer" in offload else step.state_bytes
    if master and states:
        states = (MASTER + (4.0 if stack.gradient_bytes < 4.0 else 0.0)) * weights
    again = policy(step.recipe.recompute)
    # layers that stand whole while one passes backward
    remade = again.n if again.kind == "uniform" else float(again.by_layer)
    below = sum(u.kept for u in units) + step.input_bytes
    above = 0.0
    # each gradient is used up as it comes
    at_once = step.recipe.stack.implementations.get("update") == "in_backward"
    one = max(u.gradients / u.count for u in units)
    twice = used_twice(step)
    moments = []
    for u in reversed(units):
        transient = u.largest + u.inside * min(remade, u.count)
        early = twice if u is not units[0] else 2.0 * twice
        starts = (below, above + early + u.gradients / u.count, f"backward of {u.name}")
        ends = (
            below - u.kept + u.kept / u.count,
            above + early + u.gradients,
            f"end of the backward of {u.name}",
        )
        for activations, gradients, moment in (starts, ends) if u.count > 1 else (starts,):
            gradients = (
                stack.gradient_bytes * weights
                if master
                else min(gradients, one)
                if at_once
                else gradients
            )
            extra = framework_bytes + slack * (activations + transient)
            moments.append(
                Held(parameters, gradients, states, activations, transient, extra, moment)
            )
        below -= u.kept
        above += u.gradients
    gradients = (
        stack.gradient_bytes * weights if master else one if at_once else step.gradient_bytes
    )
    moments.append(
        Held(
            parameters,
            gradients,
            states,
            step.input_bytes,
            _scratch(step),
            framework_bytes,
            "optimizer step",
        )
    )
    return max(moments, key=lambda h: h.total)


def used_twice(step: Step) -> float:
    """Bytes of the gradients of weights that two ops use: a table that embeds and, transposed,
    gives the logits.
    """
    users: dict[int, set[int]] = {}
    for k in step.kernels:
        if k.phase == "forward":
            for v in k.inputs:
                if v.kind == "parameter" and v.grad:
                    users.setdefault(v.storage, set()).add(k.node)
    bytes_ = {v.storage: v.bytes for k in step.kernels for v in k.inputs if v.kind == "parameter"}
    return (
        float(sum(bytes_[s] for s, nodes in users.items() if len(nodes) > 1))
        if step.recipe.mode == "train"
        else 0.0
    )


class _Unit(NamedTuple):
    """What backward passes as one: an op outside the blocks, or a block with all its
    repetitions.
    """

    name: str
    count: int
    kept: float  # bytes kept for backward, inputs of the step apart, all repetitions
    gradients: float  # of its weights, all repetitions
    largest: float  # the largest set of tensors with gradients in flight
    inside: float  # of a block: what one repetition keeps when nothing is recomputed


def _units(step: Step) -> list[_Unit]:
    """The units of a step in the order of the forward."""
    key = [("block", node.layer) if node.layer else ("op", i) for i, node in enumerate(step.nodes)]
    count = [step.blocks[node.layer].count if node.layer else node.count for node in step.nodes]
    rows: dict[tuple, list[float]] = {}
    for i, node in enumerate(step.nodes):
        name = step.blocks[node.layer].name if node.layer else node.name
        rows.setdefault(key[i], [name, count[i], 0.0, 0.0, 0.0, 0.0])
    for s in step.saved:
        if s.kind != "input":
            rows[key[s.node]][2] += s.bytes * s.count
    for w in step.weights:
        if w.trainable:
            rows[key[w.node]][3] += w.size * w.count * WIDTH[w.dtype]
    for k in step.kernels:  # gradients of a kernel's tensors, as its backward holds them
        if k.phase == "forward":
            live = sum(
                v.bytes for v in (*k.inputs, *k.outputs) if v.grad and v.kind == "activation"
            )
            row = rows[key[k.node]]
            row[4] = max(row[4], live)
    for s in step.counted:
        if s.kind == "activation" and step.nodes[s.node].layer:
            rows[key[s.node]][5] += s.bytes * s.count / count[s.node]
    return [_Unit(*row) for row in rows.values()]


def _scratch(step: Step) -> float:
    """What the update holds beside states: a foreach update makes one copy the size of the
    weights.
    """
    r = step.recipe
    fused = r.stack.implementations.get("optimizer") == "fused"
    if not r.optimizer or "optimizer" in r.offload or fused or optimizer(r.optimizer).states < 2:
        return 0.0
    return step.parameter_bytes
