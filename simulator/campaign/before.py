"""A run before its failures: the work of its parts, its checkpoints, the rate of failures."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from roofcast.hwdb.failures import NODE, Rate, aged, ageing, hours_between, rate
from roofcast.hwdb.market import costs
from roofcast.hwdb.records import Device
from roofcast.simulator.campaign import checkpoints as saves
from roofcast.simulator.campaign import defaults
from roofcast.simulator.campaign.goodput import Rhythm
from roofcast.simulator.campaign.terms import Terms

HOUR, DAY = 3600.0, 86400.0


class Part(NamedTuple):
    """What the forecast of a step says, of a stage or of the whole run."""

    steps: float
    step_s: float
    low_s: float | None  # its 80 % interval
    high_s: float | None
    forward: float  # share of a forward pass in a step
    samples: float  # of a step
    tokens: float | None
    step_j: float | None  # of all devices
    batch: float | None = None  # where packed samples are more than the sequences of a step
    sequence: int | None = None
    name: str = ""


class Facts(NamedTuple):
    """What the forecasts of the steps say of the run."""

    device: Device
    devices: int
    parts: tuple[Part, ...]
    state_bytes: float
    host_rate: float | None  # copy from a device to its host [B/s]; None: unknown
    power_scope: str
    price: float | None  # USD per device-hour
    price_given: bool

    @property
    def steps(self) -> float:
        """Steps of all stages."""
        return sum(p.steps for p in self.parts)


class Work(NamedTuple):
    """Seconds of a part, without checkpoints and failures."""

    step_s: float  # as the input allows
    steps_s: float
    slow_s: float
    eval_s: float

    @property
    def all_s(self) -> float:
        """Seconds of steps, slower steps and evaluations."""
        return self.steps_s + self.slow_s + self.eval_s


class Plan(NamedTuple):
    """The run before failures."""

    parts: tuple[Work, ...]
    step_s: float  # mean over the run
    start_s: float
    rhythm: Rhythm
    saved: dict[str, Any]
    rate: Rate

    @property
    def steps_s(self) -> float:
        """Seconds of the steps."""
        return sum(p.steps_s for p in self.parts)

    @property
    def work_s(self) -> float:
        """Seconds of work, without checkpoints and failures."""
        return sum(p.all_s for p in self.parts)


def before(f: Facts, t: Terms) -> Plan:
    """The run before its failures."""
    nodes = math.ceil(f.devices / NODE)
    slow = t.slow if t.slow is not None else defaults.SLOW if nodes > 1 else 0.0
    parts = _works(f, t, nodes, slow)
    step_s = parts[0].step_s if len(parts) == 1 else sum(w.steps_s for w in parts) / f.steps
    start_s = defaults.RESTART_S if nodes > 1 else defaults.RESTART_ONE_S
    known = rate() if t.failure_rate is None else Rate(t.failure_rate, 0.0)
    if t.cluster_age_s is not None:
        life = costs().years_of_life * 365.25  # days
        days = (start_s + sum(w.all_s for w in parts)) / DAY
        known = known._replace(median=known.median * aged(t.cluster_age_s / DAY, days, life))
    per_day = known.median
    between_s = hours_between(per_day, f.devices) * HOUR if per_day > 0 else math.inf
    between_s, preempted = _interrupted(between_s, t.preemptions_per_hour)
    rhythm, saved = _rhythm(f, t, between_s, start_s, step_s * (1 + slow), preempted)
    return Plan(tuple(parts), step_s, start_s, rhythm, saved, known)


def _works(f: Facts, t: Terms, nodes: int, slow: float) -> list[Work]:
    """The work of each part."""
    parts, done = [], 0.0
    for p in f.parts:
        step_s = p.step_s
        if t.input_samples:
            step_s = max(step_s, p.samples / (t.input_samples * nodes))
        if t.input_tokens and p.tokens:
            step_s = max(step_s, p.tokens / (t.input_tokens * nodes))
        steps_s, evaluations = p.steps * step_s, 0
        if t.eval_every:
            after = done + p.steps
            evaluations = math.floor(after / t.eval_every) - math.floor(done / t.eval_every)
        each_s = _evaluation_s(p, t) if evaluations else 0.0
        parts.append(Work(step_s, steps_s, slow * steps_s, evaluations * each_s))
        done += p.steps
    return parts


def _interrupted(between_s: float, per_hour: float) -> tuple[float, float]:
    """Seconds between interruptions of failures and preemptions together, two independent Poisson
    processes, whose rates add; and the share of preemptions in them.

    >>> _interrupted(7200.0, 0.5)
    (3600.0, 0.5)
    """
    if not per_hour:
        return between_s, 0.0
    preemptions, failing = per_hour / HOUR, 1.0 / between_s
    return 1.0 / (failing + preemptions), preemptions / (failing + preemptions)


def _evaluation_s(p: Part, t: Terms) -> float:
    """Seconds of one evaluation: forward passes in batches like those of a step."""
    size = t.eval_samples / p.samples if t.eval_samples else 0.0
    if t.eval_tokens and p.tokens:
        size = t.eval_tokens / p.tokens
    return size * p.step_s * p.forward


def _rhythm(
    f: Facts, t: Terms, between_s: float, start_s: float, step_s: float, preempted: float
) -> tuple[Rhythm, dict[str, Any]]:
    """Checkpoints and failures of the run, and the fields of Checkpoints."""
    nodes = math.ceil(f.devices / NODE)
    bandwidth = t.bandwidth or defaults.SAVE_RATE * nodes
    save_s = f.state_bytes / bandwidth
    stall_s, late_s = save_s, 0.0
    if t.asynchronous and f.host_rate:
        stall_s = min(f.state_bytes / f.devices / f.host_rate, save_s)
        late_s = save_s
    detect_s = defaults.DETECTION_S if t.detection_s is None else t.detection_s
    restart_s = start_s + save_s if t.restart_s is None else t.restart_s
    down_s = (1.0 - preempted) * detect_s + preempted * t.wait_s
    finite = math.isfinite(between_s)
    every_s, chosen = f.steps * step_s, "once, at the end"
    if t.every_s is not None or t.every_steps is not None:
        every_s, chosen = t.every_s or (t.every_steps or 1) * step_s, "given"
    elif finite:
        every_s = min(max(saves.best(stall_s, between_s), late_s, step_s), every_s)
        chosen = "shortest mean run"
    saved: dict[str, Any] = {
        "bytes": f.state_bytes, "bandwidth": bandwidth, "stall_s": stall_s, "save_s": save_s,
        "every_s": every_s, "every_steps": every_s / step_s, "chosen": chosen,
    }  # fmt: skip
    if finite:
        saved |= {
            "young_s": saves.young(stall_s, between_s),
            "daly_s": saves.daly(stall_s, between_s),
            "available_s": saves.available(stall_s, between_s, down_s + restart_s),
        }
    r = Rhythm(every_s, stall_s, late_s, detect_s, restart_s, between_s, preempted, t.wait_s)
    return r, saved


def said(f: Facts, t: Terms, plan: Plan) -> tuple[str, ...]:
    """What is assumed of the run."""
    r, known = plan.rhythm, plan.rate
    lines = []
    if t.failure_rate is None:
        kind = "" if f.device.kind == "gpu" else "; counted on GPUs alone"
        usual = rate()
        lines.append(
            f"failures: {usual.median:.1f} per 1000 node-days ({usual.low:.1f} to"
            f" {usual.high:.1f}), nodes of {NODE} devices, as in published runs{kind}"
        )
    if t.detection_s is None or t.restart_s is None:
        lines.append(
            f"a failure is detected after {r.detect_s / 60:.3g} min, and the restart takes"
            f" {r.restart_s / 60:.3g} min, reading the checkpoint included; a node to replace the"
            " failed one is there by then"
        )
    if t.bandwidth is None:
        lines.append(f"checkpoints: {defaults.SAVE_RATE / 1e9:g} GB/s per node of {NODE} devices")
    if t.asynchronous and f.host_rate is None:
        lines.append("checkpoints: the link to the host is unknown; saved synchronously")
    if t.cluster_age_s is not None:
        lines.append(
            f"failures become rarer as the cluster ages, {t.cluster_age_s / DAY:.4g} days old at"
            f" the start: {known.median:.3g} per 1000 node-days in the mean of the run; up to an"
            f" age t they grow as t to the power {ageing().shape:g}, and over the"
            f" {costs().years_of_life:g} years of a cluster their rate is that of any age"
        )
    if r.preempted:
        back = "there again by the restart (--wait)"
        if r.wait_s:
            back = f"back after {r.wait_s / 60:.3g} min in the mean"
            back += "" if t.owned else ", and not paid until then"
        lines.append(
            f"preemptions: {t.preemptions_per_hour:g} per hour of the run, as failures are but"
            f" announced, so that nothing is detected; capacity is {back}"
        )
    if t.slow is None and any(w.slow_s for w in plan.parts):
        lines.append(f"steps take {100 * defaults.SLOW:g} % longer over a long run")
    if not t.eval_every:
        lines.append("no evaluation (--eval-every)")
    if t.owned:
        lines.append(
            "owned: loss of value of 28 % a year, and the electricity of the site (where its energy"
            " is unknown, the printed power with host and building: hwdb/prices/costs.toml); no"
            " network, space and staff"
        )
    elif f.price is not None and f.price_given and t.price_date is None:
        lines.append(f"price of {f.price:g} USD per device-hour: given without a date")
    return tuple(lines)
