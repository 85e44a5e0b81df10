"""Distillation in a forecast: what a scenario may ask of a teacher, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.simulator import models
from roofcast.simulator.forecast.lengths import at_longest
from roofcast.simulator.forecast.result import Elsewhere, Forecast, Limit
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.models.taught import of_batch, taught
from roofcast.simulator.parallel.networks import fabric_of
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape

GIB = 2.0**30
OF_TEACHER = ("teacher_on", "teacher_devices", "teacher_top_k")
MANY = 1024  # devices: more than a node has, so that the last level joins nodes
INDEX = 4.0  # bytes of a place in the vocabulary, as it is sent
OF_POWER = (
    "energy_j", "power_w", "step_energy_j", "clock_share", "node_power_w", "carbon_kg",
    "embodied_kg",
)  # fmt: skip
RATES = ("samples_per_s", "tokens_per_s", "tokens_per_s_per_device", "mfu", "hfu")
TIMES = ("step_time_s", "low_s", "high_s", "time_to_train_s")


def with_teacher(s: Scenario, student: Model, kind: str) -> Model:
    """The student with the teacher of a scenario, or as it is. kind: of the device.

    Raises BadInput for what cannot be.
    """
    if s.teacher is None:
        for field in OF_TEACHER:
            if getattr(s, field) is not None:
                raise BadInput(
                    f"{field} {getattr(s, field)}: there is no teacher; give one, for example"
                    " --teacher llama-3.1-8b"
                )
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
    teacher = models.resolve(s.teacher, (), kind)
    if s.teacher_on is None:
        for field in OF_TEACHER[1:]:
            if getattr(s, field) is not None:
                raise BadInput(
                    f"{field} {getattr(s, field)}: the teacher runs on the student's devices; give"
                    " its own, for example --teacher-on h100-sxm5"
                )
        return taught(student, teacher)
    if s.campaign:
        raise BadInput(
            f"{said} on {s.teacher_on}: the whole training with failures and checkpoints is not"
            " modelled over two sets of devices; leave the options of the run out"
        )
    return taught(student, teacher, elsewhere=True, top=s.teacher_top_k)


def with_cost(found: Forecast, s: Scenario, forecast: Callable[[Scenario], Forecast]) -> Forecast:
    """The forecast of a distillation, with what the student alone would take among its
    assumptions. forecast: of any scenario.
    """
    if s.teacher is None:
        return found
    alone = forecast(_without(s, found))
    if s.teacher_on is not None:
        return _elsewhere(found, s, alone, forecast)
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


def _without(s: Scenario, found: Forecast) -> Scenario:
    """The student of a scenario alone, with the batch of its forecast."""
    micro = found.layout.micro_batch if found.layout else None
    none = dict.fromkeys(("teacher", *OF_TEACHER))
    return msgspec.structs.replace(s, **none, batch=found.batch, micro_batch=micro)


def _elsewhere(
    found: Forecast, s: Scenario, alone: Forecast, forecast: Callable[[Scenario], Forecast]
) -> Forecast:
    """The forecast of a student whose teacher works on the next batch on other devices: a step
    takes the longest of the student's own, the teacher's pass and the handover of the logits.
    """
    there, tp = _pass(found, s, forecast)
    devices, sent = s.teacher_devices or 1, _sent_bytes(found, s)
    rate = min(
        n * fabric_of(None, hwdb.device(name, edits), MANY).levels[-1].bandwidth
        for name, edits, n in (
            (s.teacher_on or "", {}, devices), (s.device, s.set, found.devices)
        )
    )  # fmt: skip
    handover_s = sent / rate
    step_s = max(found.step_time_s, there.step_time_s, handover_s)
    waited = step_s - found.step_time_s
    hours = found.steps * step_s / 3600 if found.steps else None
    price = there.price_usd_per_hour
    cost = hours * price * devices if hours is not None and price is not None else None
    teacher = Elsewhere(
        model=there.model,
        device=there.device,
        devices=devices,
        tp=tp,
        pass_s=there.step_time_s,
        handover_s=handover_s,
        sent_bytes=sent,
        waited_s=waited,
        peak_bytes=there.memory.peak_bytes,
        capacity_bytes=there.memory.capacity_bytes,
        fits=there.memory.fits,
        price_usd_per_hour=price,
        cost_usd=cost,
    )
    slowed = _slowed(found, step_s)
    if teacher.fits is False:
        cure = (
            "The teacher does not fit its devices: --teacher-devices, or larger ones, would help."
        )
        slowed = msgspec.structs.replace(slowed, diagnosis=f"{cure} {slowed.diagnosis}")
    both = None
    if cost is not None and slowed.cost_usd is not None:
        both = slowed.cost_usd + cost
    return msgspec.structs.replace(
        slowed,
        teacher=teacher,
        cost_usd=both,
        student_alone_s=alone.step_time_s,
        assumptions=(*slowed.assumptions, *_said_of(teacher, s, found, alone)),
    )


def _pass(
    found: Forecast, s: Scenario, forecast: Callable[[Scenario], Forecast]
) -> tuple[Forecast, int]:
    """The teacher's pass over the batch of a step on its own devices, with the least tensor
    parallelism whose memory fits, and that degree. Raises BadInput where it cannot be.
    """
    devices = s.teacher_devices or 1
    asked = Scenario(
        model=s.teacher or "",
        device=s.teacher_on or "",
        mode="infer",
        batch=found.batch,
        sequence=found.sequence,
        image=found.image,
        stack=s.stack,
        devices=devices if devices > 1 else None,
    )
    tp, last = 1, None
    while tp <= devices:
        if devices % tp == 0 and found.batch % (devices // tp) == 0:
            tried = asked if devices == 1 else msgspec.structs.replace(asked, tp=tp)
            last = _at_longest(forecast(tried), tried, s, forecast), tp
            if last[0].memory.fits is not False:
                return last
        tp *= 2
    if last is None:
        raise BadInput(
            f"teacher_devices {devices}: a batch of {found.batch} is not divided among them; use a"
            " number of devices that divides it, or another batch"
        )
    return last


def _at_longest(
    found: Forecast, tried: Scenario, s: Scenario, forecast: Callable[[Scenario], Forecast]
) -> Forecast:
    """The forecast of a teacher's pass with the memory of the longest samples of a scenario."""
    longest = at_longest(s).sequence
    if s.lengths is None or longest == found.sequence:
        return found
    whole = forecast(msgspec.structs.replace(tried, sequence=longest))
    return msgspec.structs.replace(found, memory=whole.memory)


def _sent_bytes(found: Forecast, s: Scenario) -> float:
    """Bytes of the logits of a step's batch."""
    model = models.resolve(s.teacher or "")
    size = found.sequence if model.takes == "sequence" else found.image
    logits = of_batch(Tape(precision(found.precision)), model, found.batch, size)
    if s.teacher_top_k is None:
        return float(logits.bytes)
    width = logits.bytes / logits.size + INDEX
    return logits.size / logits.shape[-1] * s.teacher_top_k * width


def _slowed(found: Forecast, step_s: float) -> Forecast:
    """A forecast whose step takes step_s, since it waits; what the boards draw meanwhile is not
    modelled.
    """
    times = step_s / found.step_time_s
    if times <= 1.0:
        return found
    new: dict[str, Any] = {}
    for fields, factor in ((TIMES, times), (RATES, 1.0 / times)):
        for field in fields:
            value = getattr(found, field)
            new[field] = None if value is None else value * factor
    new["interval_s"] = {k: (a * times, b * times) for k, (a, b) in found.interval_s.items()}
    if found.cost_usd is not None:
        new["cost_usd"] = found.cost_usd * times
    new |= dict.fromkeys(OF_POWER)
    new |= {field: {} for field in (
        "power_by_scope_w", "step_energy_by_scope_j", "energy_by_scope_j",
    )}  # fmt: skip
    scaled = [
        msgspec.structs.replace(
            limit,
            share=None if limit.share is None else limit.share / times,
            used=limit.used if limit.share is None or limit.used is None else limit.used / times,
            headroom=limit.headroom
            if limit.share is None or limit.used is None
            else 1.0 - limit.used / times,
        )
        for limit in found.limits
    ]
    waiting = Limit(name="teacher", share=1.0 - 1.0 / times)
    new["limits"] = (waiting, *scaled)
    new["diagnosis"] = (
        f"The student waits for its teacher {100 * (1 - 1 / times):.0f} % of the step: more or"
        " faster teacher devices, or --teacher-top-k where the logits take that long."
    )
    return msgspec.structs.replace(found, **new)


def _said_of(teacher: Elsewhere, s: Scenario, found: Forecast, alone: Forecast) -> list[str]:
    """What a teacher on other devices assumes, in sentences."""
    many = f"{teacher.devices} x {teacher.device}" if teacher.devices > 1 else teacher.device
    cut = f", tensor parallelism {teacher.tp}" if teacher.tp > 1 else ""
    what = "all logits" if s.teacher_top_k is None else f"the {s.teacher_top_k} largest logits"
    lines = [
        f"teacher {s.teacher} on {many}{cut}: a pass of {1e3 * teacher.pass_s:.4g} ms over the next"
        f" batch while the student trains; {what} of each token, {teacher.sent_bytes / 1e9:.3g} GB"
        f" a step, sent in {1e3 * teacher.handover_s:.4g} ms between nodes",
        f"the student takes {1e3 * found.step_time_s:.4g} ms a step"
        f" ({1e3 * alone.step_time_s:.4g} ms without a teacher) and waits"
        f" {1e3 * teacher.waited_s:.4g} ms; hidden states are not compared",
    ]
    if teacher.waited_s:
        lines.append("energy: what boards draw while they wait for a teacher is not modelled")
    else:
        lines.append("energy: of the student's devices alone")
    return lines
