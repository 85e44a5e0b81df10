"""A recorder that also writes down the step at a larger batch, where that follows from this one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from roofcast.simulator.importers.aten_products import Called
from roofcast.simulator.importers.batch_axes import Untold
from roofcast.simulator.importers.cuda_dispatch import DeviceAnswers
from roofcast.simulator.importers.larger_batch import Larger
from roofcast.simulator.importers.module_path import ModulePath
from roofcast.simulator.importers.record import Record
from roofcast.simulator.importers.recorder import Recorder
from roofcast.simulator.importers.torch_extra import torch
from roofcast.simulator.importers.user_code import Clock
from roofcast.simulator.work.value import Value


class LargerRecorder(Recorder):
    """Records two steps of one run: as it is, and at a larger batch."""

    def __init__(self, answers: DeviceAnswers, path: ModulePath, clock: Clock, larger: Larger):
        super().__init__(answers, path, False, clock)
        self.larger = larger
        answers.watch = larger.watch

    def mark(self, kind: str, tensors: Iterable[torch.Tensor]) -> None:
        """Declare the kind of tensors: parameter, buffer or input."""
        tensors = list(tensors)
        super().mark(kind, tensors)
        for t in tensors:
            if kind != "input":
                self.larger.fix(t)
            elif not hasattr(t, "_batch_axes"):
                self.larger.mark([t])

    def _moved_here(self, a: object) -> object:
        """A tensor of another device on the traced one, whose size is not of the batch."""
        moved = super()._moved_here(a)
        if moved is not a and isinstance(moved, torch.Tensor):
            self.larger.fix(moved)
        return moved

    def _written(self, name: str, pointwise: bool, c: Called, grad: bool, launches: bool) -> None:
        """Record the op at the larger batch, as long as that follows from this one."""
        larger = self.larger
        if larger.lost:
            return
        function = torch._C._current_autograd_node() if self.phase == "backward" else None
        try:
            sequence = function._sequence_nr() if function is not None else None
            for t in c.ins:
                if not hasattr(t, "_batch_axes") and self.storage(t) not in larger.held:
                    larger.fix(t)  # it was there before the module ran
            operands = [larger.of(t) for t in c.ins]
            made = larger.results(name, pointwise, c, sequence)
            larger.made(c.outs, made)
            if self.phase == "forward":
                forward = torch._C._autograd._get_sequence_nr() - 1
                larger.operands.setdefault(forward, []).extend((*operands, *made))
            storages = [self.storage(t) for t in (*c.ins, *c.outs)]
            twin = larger.called(c, operands, made, storages)
            if launches:
                kernels = larger.works(name, pointwise, twin)
                inputs, outputs = self._values(c, grad)
                values = (
                    tuple(map(_longer, inputs, twin.ins)),
                    tuple(map(_longer, outputs, twin.outs)),
                )
                larger.launches += self._launched(name, kernels, twin, *values)
        except Untold:
            larger.watch.lost = f"the op {name}"

    def larger_record(self, record: Record, fed: Iterable[torch.Tensor]) -> Record | None:
        """The record at the larger batch; None where that is not known."""
        held = self.larger.held
        sparse = any(w.looked_up is not None for w in record.weights)
        if self.larger.lost or sparse or any(k.storage not in held for k in record.kept):
            return None
        twins = [self.larger.twin(t, self.larger.of(t), self.storage(t)) for t in fed]
        return record._replace(
            launches=tuple(self.larger.launches),
            kept=tuple(k._replace(bytes=held[k.storage]) for k in record.kept),
            inputs=tuple(map(_longer, record.inputs, twins)),
        )


def _longer(v: Value, t: Any) -> Value:
    """A value of the trace at the larger batch. t: its twin."""
    out = Value(t.shape, v.dtype, v.storage, v.grad, v.kind, v.repeats, t.storage, v.split)
    out.bytes = t.size_bytes
    return out
