"""What PyTorch's allocator reserves while the lengths of micro-batches change from one to the next.

The tensors of a micro-batch of the longest samples, in the order in which they come and go, are
scaled to the lengths of many micro-batches and replayed (simulator/allocator.py). A block that one
length left is too small for the next longer one, so that a few large tensors, mostly those of the
loss, hold several times their size.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import msgspec
import numpy as np

from roofcast.simulator.allocator import Event, reserved
from roofcast.simulator.forecast.lengths import Varied, varied_of
from roofcast.simulator.forecast.resolve import Asked, resolve
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.work.step import Step, of_one_batch, trace
from roofcast.simulator.work.traced import Kernel
from roofcast.simulator.work.value import Value

MICRO_BATCHES = 300  # replayed, as an epoch of a small data set has; a longer run reserves more
SEED = 0
GOES = -1.0  # bytes of an event that ends a tensor
TENSORS = ("activation", "dequantized")


def over_lengths(scenario: Scenario, found: Forecast) -> float | None:
    """Bytes reserved on the device after many padded micro-batches of different lengths: weights,
    states and gradients, and the allocator's blocks, as many as fit; None where all micro-batches
    are alike, or where a rank holds a part of the layers.
    """
    varied = varied_of(scenario)
    if varied is None or varied.packing or scenario.mode != "train":
        return None
    asked = resolve(scenario)
    parts = 1 if asked.layout is None else asked.layout.devices // asked.layout.dp
    if asked.longest is None or parts > 1:
        return None
    m = found.memory
    blocks = reserved(events(_longest(asked)), _shares(varied, _micro(asked)))
    whole = m.parameters_bytes + m.optimizer_bytes + m.gradients_bytes + blocks
    return min(whole, (m.capacity_bytes or whole) - m.framework_bytes)


def _micro(asked: Asked) -> int:
    return int(asked.layout.micro_batch if asked.layout is not None else asked.recipe.batch)


def _longest(asked: Asked) -> Step:
    """One micro-batch of the longest samples on one device."""
    assert asked.longest is not None, "samples of different lengths have a longest one"
    recipe = msgspec.structs.replace(asked.longest, batch=_micro(asked))
    return of_one_batch(trace(asked.model, recipe))


def _shares(varied: Varied, micro: int) -> np.ndarray:
    """Length of each micro-batch, that of its longest sample, as a share of the longest of all."""
    drawn = np.random.default_rng(SEED).choice(varied.lengths.tokens, (MICRO_BATCHES, micro))
    return drawn.max(axis=1) / varied.longest


def events(step: Step) -> list[Event]:
    """The tensors of a step's forward and backward pass as they come and go.

    Of a block that is repeated what each repetition keeps is there, and the tensors of one
    repetition. Where it is recomputed its forward comes once more before its backward. A gradient
    comes with the kernel that computes it and goes with the one that has used it.
    """
    return _Replay(step).run()


class _Replay:
    """The events of a step so far, and the tensors that are there."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.kernels = [k for k in step.kernels if k.phase == "forward"]
        self.kept = {s.storage: s for s in step.saved if s.kind != "input"}
        again = step.recipe.recompute != "none"
        inside = (s.storage for s in step.counted if s.kind == "activation" and again)
        self.remade = set(inside)  # kept by a block that is computed again
        self.until: dict[int, int] = {}  # storage -> the last kernel of the forward that has it
        for i, k in enumerate(self.kernels):
            self.until |= dict.fromkeys((v.storage for v in (*k.inputs, *k.outputs)), i)
        self.found: list[Event] = []
        self.live: dict[Hashable, None] = {}  # in the order in which they came

    def run(self) -> list[Event]:
        """All events."""
        parts = self._parts()
        for layer, places in parts:
            for tensor, bytes_ in self._repeated(places) if layer else ():
                self._come(tensor, bytes_)
            self._forward(places, "forward", set(self.kept))
        for layer, places in reversed(parts):
            if layer and self.remade:
                self._forward(places, "again", set(self.kept) | self.remade)
            self._backward(places)
            for tensor, _ in self._repeated(places) if layer else ():
                self._go(tensor)
            for tensor in [t for t in self.live if isinstance(t, tuple) and t[0] == "again"]:
                self._go(tensor)
        for tensor in list(self.live):
            self._go(tensor)
        return self.found

    def _parts(self) -> list[tuple[int, list[int]]]:
        """Kernels of each repeated block, and of what lies between: its number, 0; places."""
        parts: list[tuple[int, list[int]]] = []
        for i, k in enumerate(self.kernels):
            layer = self.step.nodes[k.node].layer
            if not parts or parts[-1][0] != layer:
                parts.append((layer, []))
            parts[-1][1].append(i)
        return parts

    def _come(self, tensor: Hashable, bytes_: float) -> None:
        if tensor not in self.live:
            self.live[tensor] = None
            self.found.append(Event(tensor, bytes_))

    def _go(self, tensor: Hashable) -> None:
        if tensor in self.live:
            del self.live[tensor]
            self.found.append(Event(tensor, GOES))

    def _repeated(self, places: list[int]) -> list[Event]:
        """What all repetitions of a block but one keep."""
        nodes = {self.kernels[i].node for i in places}
        return [
            Event(("repeated", s.storage, r), s.bytes)
            for s in self.kept.values()
            if s.node in nodes
            for r in range(1, int(s.count))
        ]

    def _forward(self, places: list[int], when: str, keeps: set[int]) -> None:
        for i in places:
            k = self.kernels[i]
            for v in k.outputs:
                if v.kind in TENSORS:
                    self._come((when, v.storage), v.held)
            for v in (*k.inputs, *k.outputs):
                if self.until[v.storage] == i and v.storage not in keeps:
                    self._go((when, v.storage))

    def _backward(self, places: list[int]) -> None:
        for i in reversed(places):
            k = self.kernels[i]
            if any(v.grad for v in k.outputs):
                self._gradients(k)

    def _gradients(self, k: Kernel) -> None:
        wide = [v for v in k.inputs if v.kind == "dequantized"]
        for v in k.inputs:
            if v.grad and v.kind == "activation":
                self._come(("gradient", v.storage), v.held)
        for v in wide:
            self._come(("dequantized", v.storage), v.held)
        self._gone("gradient", k.outputs)
        self._gone("dequantized", wide)
        self._gone("again", k.outputs)
        self._gone("forward", k.outputs)

    def _gone(self, when: str, values: Sequence[Value]) -> None:
        for v in values:
            self._go((when, v.storage))
