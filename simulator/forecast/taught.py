"""Distillation in a forecast: what a scenario may ask of a teacher, and what it costs."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.simulator import models
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.models.taught import taught
from roofcast.simulator.work.model import Model

GIB = 2.0**30


def with_teacher(s: Scenario, student: Model, kind: str) -> Model:
    """The student with the teacher of a scenario, or as it is. kind: of the device.

    Raises BadInput for what cannot be.
    """
    if s.teacher is None:
        return student
    said = f"teacher {s.teacher}"
    if s.mode == "infer":
        raise BadInput(f"{said}: an inference step learns nothing; leave it out, or --mode train")
    if (s.pp or 1) > 1 or s.zero == 3:
        option = "--zero 3" if s.zero == 3 else "--pp"
        raise BadInput(
            f"{said} with {option}: a teacher is modelled whole on every rank, or cut by --tp; use"
            " --tp, --dp and --zero up to 2"
        )
    return taught(student, models.resolve(s.teacher, (), kind))


def with_cost(found: Forecast, s: Scenario, forecast: Callable[[Scenario], Forecast]) -> Forecast:
    """The forecast of a distillation, with what the student alone would take among its
    assumptions. forecast: of any scenario.
    """
    if s.teacher is None:
        return found
    micro = found.layout.micro_batch if found.layout else None
    alone = forecast(msgspec.structs.replace(s, teacher=None, batch=found.batch, micro_batch=micro))
    slower = found.step_time_s / alone.step_time_s - 1
    more = (found.memory.peak_bytes - alone.memory.peak_bytes) / GIB
    frozen = found.parameters - alone.parameters
    line = (
        f"teacher {s.teacher}: {frozen:,} frozen weights in the student's precision, a forward on"
        " the same batch, its logits compared beside the student's own loss; the student alone"
        f" takes {1e3 * alone.step_time_s:.4g} ms a step ({100 * slower:+.0f} % with the teacher)"
        f" and {more:.3g} GiB less; hidden states are not compared"
    )
    return msgspec.structs.replace(
        found, assumptions=(*found.assumptions, line), student_alone_s=alone.step_time_s
    )
