"""Distillation: a student's training step with the forward of a frozen teacher beside it."""

from __future__ import annotations

from typing import Any

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.tape import Tape, Value

AS_THEY_ARE = ("torch", "onnx")  # families of models that run as they are


def taught(student: Model, teacher: Model) -> Model:
    """The student, whose step first runs the teacher on the same batch, without gradients, and
    then compares the logits of both.

    Raises BadInput where they do not read the same inputs, or not from a tape.
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
        logits = t.beside("teacher", lambda: teacher.program(t, batch, size))
        if not isinstance(logits, Value):
            raise BadInput(f"teacher {teacher.name}: it gives no single tensor of logits")
        t.taught = logits
        loss = student.program(t, batch, size)
        if t.taught is not None:
            raise BadInput(
                f"teacher {teacher.name}: the loss of {student.name} is no cross-entropy over"
                " classes, whose logits could be compared"
            )
        return loss

    return student._replace(program=program, quick=None)
