"""A forecast step as a timeline: op after op on one device, or micro-batch after micro-batch over
pipeline stages, with what the ranks send beside it.

Over several devices, compute has gaps where it waits for what is sent; what a rank sends of each
kind is a stream of its own. Sends that compute hides run beside it. When within a pass a send
starts is not modelled: each ends with the pass of its layer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from roofcast.hwdb.constants import kernels as constants
from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.simulator.forecast.assemble_parallel import Placed
from roofcast.simulator.forecast.chain import forecast, placed
from roofcast.simulator.forecast.resolve import Asked, resolve
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.memory import Held, moments_on
from roofcast.simulator.parallel.passes import passes
from roofcast.simulator.parallel.pipeline.replay import Event, replay
from roofcast.simulator.parallel.reductions import reduction
from roofcast.simulator.parallel.stages import units
from roofcast.simulator.parallel.step import dealt
from roofcast.simulator.parallel.traffic import Placement, gathered, gathers, network
from roofcast.simulator.times.dispatch import runs_ahead
from roofcast.simulator.times.host import combine
from roofcast.simulator.work.step import Step, trace

MOST = 30_000  # passes of one trace: a viewer shows hardly more, and more take minutes
MANY = 20_000  # layers times micro-batches from which on a pass is not divided into layers
PASSES = {  # first letter of an event of the schedule: the passes it has; W computes alone
    "F": ("forward",),
    "B": ("backward",),
    "D": ("backward",),
    "X": ("forward", "backward"),
}
STREAMS = {  # kind of traffic: its stream
    "tp": "tensor parallel",
    "cp": "context parallel",
    "ep": "expert parallel",
    "etp": "tensor parallel of experts",
    "dp": "data parallel",
    "fsdp": "ZeRO 3",
}


def timeline(scenario: Scenario) -> tuple[Event, ...]:
    """Events of one step; the last ends when the forecast step does."""
    asked = resolve(scenario)
    if asked.layout is not None:
        return _over_stages(asked)
    return _on_one_device(forecast(scenario), trace(asked.model, asked.recipe))


def moments(scenario: Scenario) -> list[Held]:
    """Memory through the backward pass and the update of a training step on one device, in the
    order in which the moments come; empty where it is not known by moment.
    """
    try:
        asked = resolve(scenario)
        if asked.layout is not None or scenario.mode != "train":
            return []
        return moments_on(trace(asked.model, asked.longest or asked.recipe), asked.device)
    except RoofcastError:
        return []


def _on_one_device(whole: Forecast, step: Step) -> tuple[Event, ...]:
    """Ops in forward order, in backward order, then the update; repeated layers one by one."""
    rows = {layer.name: layer for layer in whole.layers}
    blocks = [list(nodes) for _, nodes in itertools.groupby(step.nodes, key=lambda n: n.layer)]
    events: list[Event] = []
    clock = 0.0
    for phase, order in (("forward", blocks), ("backward", blocks[::-1]), ("update", blocks)):
        for nodes in order:
            once = phase == "update" or not nodes[0].layer
            repeats = 1 if once else nodes[0].count
            for i in range(repeats):
                index = i if phase == "forward" else repeats - 1 - i
                for node in nodes if phase != "backward" else nodes[::-1]:
                    row = rows[node.name]
                    part = node.count / row.count / repeats
                    seconds = getattr(row, f"{phase}_s") * part
                    if seconds > 0:
                        name = f"{node.name} [{index}]" if repeats > 1 else node.name
                        events.append(Event(0, phase, name, clock, seconds))
                        clock += seconds
    return tuple(events)


def _over_stages(asked: Asked) -> tuple[Event, ...]:
    """The schedule replayed, then the exposed reduction of gradients, then the update, on every
    stage.
    """
    layout, at = asked.layout, placed(asked)
    assert layout is not None, "several devices have a layout"
    count = 2 * layout.micro_batches * layout.pp * layout.vpp
    if count > MOST:
        raise BadInput(
            f"a trace of {layout.micro_batches:,} micro-batches has {count:,} passes; it can have"
            f" at most {MOST:,}: give a smaller --batch or a larger --micro-batch"
        )
    pipe = at.outcome.pipe
    run = replay(pipe.schedule, pipe.stages, layout.pp, layout.vpp, layout.micro_batches, pipe.hop)
    sending = _Sending(Placement(at.step, asked.device, layout, network(layout, at.fabric)), at)
    events = [part for event in run.events for part in sending.parts(event)]
    clock = run.total + pipe.reducing
    events += sending.reduced(clock)
    if at.outcome.update_s > 0:
        update = at.outcome.update_s
        events += [Event(s, "compute", "optimizer", clock, update) for s in range(layout.pp)]
    return tuple(events)


class _Whole(NamedTuple):
    """A pass of some units in one phase: seconds, those in which compute waits, kind and seconds of
    what is sent.
    """

    seconds: float
    waits: float
    sent: list[tuple[str, float]]


class _Sending:
    """Splits the passes of a replayed step into compute and what is sent, layer by layer."""

    def __init__(self, place: Placement, at: Placed) -> None:
        self.place, self.layout = place, place.layout
        self.rows = units(place, at.times)
        self.passes = passes(self.rows, place)
        self.stages = dealt(place, self.rows)
        # on one stage by layer, unless these would be too many
        count = len(self.stages[0]) * self.layout.micro_batches
        self.by_layer = self.layout.pp == 1 and count <= MANY
        self.known: dict[tuple[tuple[int, ...], str], _Whole] = {}

    def parts(self, event: Event) -> Iterator[Event]:
        """A compute event of the schedule, without its waits, and what is sent meanwhile."""
        phases = PASSES.get(event.name[:1], ())
        if event.stream != "compute" or not phases or event.duration <= 0:
            if event.duration > 0:
                yield event
            return
        chosen = self.stages[event.stage]
        whole = [self._whole(tuple(chosen), phase) for phase in phases]
        takes = sum(each.seconds for each in whole)
        scale = event.duration / takes if takes > 0 else 0.0
        if not self.by_layer:
            waits = sum(each.waits for each in whole)
            sent = [one for each in whole for one in each.sent]
            yield from _pass(event, event.start, event.duration, waits * scale, sent, scale)
            return
        clock, seen = event.start, [0] * len(self.rows)
        for phase in phases:
            for u in chosen if phase == "forward" else chosen[::-1]:
                long = self._seconds(u, phase) * scale
                name = self._name(u, phase, seen[u], event.name)
                seen[u] += 1
                one = self._whole((u,), phase)
                of_layer = event._replace(name=name)
                yield from _pass(of_layer, clock, long, one.waits * scale, one.sent, scale)
                clock += long

    def reduced(self, end: float) -> Iterator[Event]:
        """The reduction of gradients on every stage; it ends when the update starts."""
        counts = ("trained", "trained_expert", "tensors", "buckets")
        held = [[sum(getattr(self.rows[u], n) for u in s) for n in counts] for s in self.stages]
        dense, expert = (max(stage[i] for stage in held) for i in range(2))
        each = max(held, key=lambda stage: stage[0] + stage[1])[2:]
        long = min(float(reduction(self.place, dense, expert, *each).both.seconds), end)
        if long > 0:
            for stage in range(self.layout.pp):
                yield Event(stage, STREAMS["dp"], "gradients", end - long, long)

    def _whole(self, units_: tuple[int, ...], phase: str) -> _Whole:
        """A pass of units, the same for every micro-batch."""
        key = units_, phase
        if key not in self.known:
            self.known[key] = _Whole(
                sum(self._seconds(u, phase) for u in units_),
                sum(self._waits(u, phase) for u in units_),
                [each for u in units_ for each in self._sent(u, phase)],
            )
        return self.known[key]

    def _seconds(self, u: int, phase: str) -> float:
        """Seconds of one pass of a unit, with its traffic."""
        by_phase = self.passes.forward if phase == "forward" else self.passes.backward
        return float(by_phase[u])

    def _waits(self, u: int, phase: str) -> float:
        """Seconds of one pass of a unit in which compute waits for what is sent."""
        row, recipe = self.rows[u], self.place.step.recipe
        base, host = row.compute[0], row.host[0]
        if phase == "backward":
            base = row.compute[1] + row.compute[2] - row.added / self.layout.micro_batches
            host = row.host[1] + row.host[2]
        ahead = runs_ahead(row.layers, row.expert, recipe.stack)
        alone = combine(base, host, constants(), ahead, recipe.stack.blocking)
        counts = row.waits[phase == "backward"]
        return max(self._seconds(u, phase) - float(alone) - counts, 0.0)

    def _sent(self, u: int, phase: str) -> Iterator[tuple[str, float]]:
        """Kind and seconds of what one pass of a unit sends."""
        row = self.rows[u]
        for (when, group, _), cost in row.traffic.items():
            if (when == "forward") == (phase == "forward"):
                yield group, float(cost.seconds)
        if gathers(self.layout) and (row.dense or row.expert):
            trained = (row.trained, row.trained_expert)
            down, up, alone = gathered(self.place, (row.dense, row.expert), trained, phase)
            yield "fsdp", float(down.plus(up).plus(alone).seconds)

    def _name(self, u: int, phase: str, index: int, event: str) -> str:
        """A layer of a pass, and its micro-batch where there are several."""
        row = self.rows[u]
        layer = row.layers - 1 - index if phase == "backward" else index
        name = f"{phase} {row.name}" + (f" [{layer}]" if row.layers > 1 else "")
        micro = re.search(r"\d+", event)
        several = self.layout.micro_batches > 1 and micro
        return f"{name}, micro-batch {micro[0]}" if several and micro else name


def _pass(
    event: Event,
    start: float,
    long: float,
    waits: float,
    sent: Sequence[tuple[str, float]],
    scale: float,
) -> Iterator[Event]:
    """Compute without its waits, and what is sent, by kind, each until the end of the pass."""
    if long > waits:
        yield event._replace(start=start, duration=long - waits)
    streams: dict[str, float] = {}
    for kind, seconds in sent:
        name = STREAMS.get(kind, kind)
        streams[name] = streams.get(name, 0.0) + seconds * scale
    for stream, seconds in streams.items():
        if (took := min(seconds, long)) > 0:
            yield Event(event.stage, stream, f"send {event.name}", start + long - took, took)
