"""Distillation: a student's training step with the forward of a frozen teacher beside it."""

from __future__ import annotations

from typing import Any

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.tape import Tape, Value

AS_THEY_ARE = ("torch", "onnx")  # families of models that run as they are


def taught(
    student: Model, teacher: Model, elsewhere: bool = False, top: int | None = None
) -> Model:
    """The student, whose step first runs the teacher on the same batch, without gradients, and
    then compares the logits of both.

    elsewhere: the teacher runs on other devices, and its logits are an input of the step; top: of
    each token the largest so many, with their places in the vocabulary. Raises BadInput where they
    do not read the same inputs, or not from a tape.
    """
    for model in (student, teacher):
        if model.family in AS_THEY_ARE:
            raise BadInput(
                f"teacher {teacher.name}: {model.name} is taken as it is; write the distillation"
                " into the module, or give names or config.jsons"
            )
    if student.takes != teacher.takes:
        raise BadInput(
            f"teacher {teacher.name}: it reads {teacher.takes}s, {student.name} {student.takes}s;"
            " both must read the same inputs"
        )

    def program(t: Tape, batch: int, size: int | None) -> Any:
        if not t.training:
            return student.program(t, batch, size)
        if elsewhere:
            t.taught = _received(t, teacher, batch, size, top)
        else:
            t.taught = _logits(
                teacher, t.beside("teacher", lambda: teacher.program(t, batch, size))
            )
        loss = student.program(t, batch, size)
        if t.taught is not None:
            raise BadInput(
                f"teacher {teacher.name}: the loss of {student.name} is no cross-entropy over"
                " classes, whose logits could be compared"
            )
        return loss

    return student._replace(program=program, quick=None)


def _logits(teacher: Model, made: Any) -> Value:
    """The logits of a teacher. Raises BadInput where it gives something else."""
    if not isinstance(made, Value):
        raise BadInput(f"teacher {teacher.name}: it gives no single tensor of logits")
    return made


def of_batch(t: Tape, teacher: Model, batch: int, size: int | None) -> Value:
    """The logits of a teacher on a batch, in the format and the cut of the tape's rank."""
    alone = Tape(
        t.precision, training=False, implementations=t.implementations, parallel=t.parallel
    )
    return _logits(teacher, teacher.program(alone, batch, size))


def _received(t: Tape, teacher: Model, batch: int, size: int | None, top: int | None) -> Value:
    """Logits that other devices have computed, as an input of the step."""
    logits = of_batch(t, teacher, batch, size)
    classes = logits.shape[-1]
    if top is not None and top > classes:
        raise BadInput(f"teacher_top_k {top}: teacher {teacher.name} has {classes:,} classes")
    if top is not None:
        t.taught_classes = classes
        t.input((*logits.shape[:-1], top), "int64")
        logits = t.new((*logits.shape[:-1], top), logits.dtype)
    found = t.input(logits.shape, logits.dtype)
    found.split = logits.split
    return found
