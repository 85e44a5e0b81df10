"""The forecast of every job on every kind of device of a pool: how long it takes on how many.

Layouts are those of a grid that is coarser than that of `choose`: no pipeline and no context
parallelism, the least and the most tensor parallelism, three micro-batches. Where none of them
fits, the grid of `choose`. Jobs that differ in their length alone are searched once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import msgspec

from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.hwdb.units import quantity
from roofcast.simulator.choose.choosing import Chooser
from roofcast.simulator.choose.jobs import Job, Pooled
from roofcast.simulator.choose.kinds import Kind
from roofcast.simulator.choose.offers import HOUR
from roofcast.simulator.choose.space import Shape
from roofcast.simulator.choose.wanted import Wanted

NUMBERS = 4  # numbers of devices of a kind, beside the least that fits


class Mode(NamedTuple):
    """A way to run a job: so many devices of one kind of the pool."""

    kind: int  # index into the pool
    devices: int
    seconds: float
    usd: float | None
    options: Shape = {}  # layout, as predict takes it


class Pairs(NamedTuple):
    """The modes of every job, and why a job has none on a kind of device."""

    modes: tuple[tuple[Mode, ...], ...]  # of each job
    unable: tuple[dict[str, str], ...]  # of each job: device -> why
    batches: tuple[int, ...]  # of each job
    assumptions: tuple[str, ...]
    layouts: int  # forecast


class _Searched(NamedTuple):
    """A job's steps on the kinds of a pool."""

    step_s: dict[tuple[str, int], tuple[float, Shape]]  # by device and number
    steps: float
    length: float  # tokens or samples of these steps
    batch: int
    unable: dict[str, str]
    assumptions: tuple[str, ...]


def pairs(jobs: Sequence[Job], pool: Sequence[Pooled]) -> Pairs:
    """The modes of jobs on a pool. Raises BadInput for a job that no device can run for a reason
    that lies in the job, naming it.
    """
    known: dict[bytes, _Searched] = {}
    modes, unable, batches, layouts = [], [], [], 0
    said: dict[str, None] = {}
    for job in jobs:
        key, found = _key(job), known.get(_key(job))
        if found is None:
            found, count = _searched(job, pool)
            layouts += count
            known[key] = found
        steps = found.steps * _length(job) / found.length
        place = {entry.device.id: i for i, entry in enumerate(pool)}
        mine = []
        for (device, n), (step_s, options) in found.step_s.items():
            entry, seconds = pool[place[device]], step_s * steps
            usd = None
            if entry.usd_per_hour is not None:
                usd = entry.usd_per_hour * n * seconds / HOUR
            mine.append(Mode(place[device], n, seconds, usd, options))
        modes.append(tuple(mine))
        unable.append(found.unable)
        batches.append(found.batch)
        said.update(dict.fromkeys(f"{job.name}: {text}" for text in found.assumptions))
    return Pairs(tuple(modes), tuple(unable), tuple(batches), tuple(said), layouts)


def _length(job: Job) -> float:
    """The length of a job, in tokens or samples."""
    s = job.scenario
    if s.tokens is not None:
        return quantity(s.tokens, "tokens") * (s.epochs or 1.0)
    return quantity(s.samples or 0.0, "samples") * (s.epochs or 1.0)


def _key(job: Job) -> bytes:
    """What two jobs have in common that differ in length alone; the batch of one without any
    depends on its length.
    """
    s = job.scenario
    if s.batch is None:
        return s.to_json()
    one = {"tokens": 1.0} if s.tokens is not None else {"samples": 1.0}
    return msgspec.structs.replace(s, epochs=None, **one).to_json()


def _searched(job: Job, pool: Sequence[Pooled]) -> tuple[_Searched, int]:
    """A job on all kinds of a pool, and the number of layouts forecast."""
    owned = {entry.device.typed: entry.devices for entry in pool}
    wanted = Wanted(owned=owned, devices=max(owned.values()))
    try:
        chooser = Chooser(job.scenario, list(owned), wanted)
    except RoofcastError as error:
        raise BadInput(f"job {job.name}: {error}") from None
    per_node = {entry.device.id: entry.per_node for entry in pool}
    for name, kind in chooser.kinds.items():
        _search(chooser, kind, per_node[name])
    found = {
        key: (point.step_s, point.options)
        for key, point in chooser.searched.items()
        if point is not None
    }
    unable = dict(chooser.unable)
    for name, kind in chooser.kinds.items():
        if not any(device == name for device, _ in found):
            unable.setdefault(name, _lack(kind, owned[kind.names.device.typed]))
    kind = next(iter(chooser.kinds.values()))
    batch = kind.scenario.batch or 0
    said = tuple(chooser.assumptions)
    return _Searched(found, kind.floor.steps, _length(job), batch, unable, said), chooser.layouts


def _search(chooser: Chooser, kind: Kind, per_node: int | None) -> None:
    """The fastest layout on each number of devices of a kind."""
    capacity = kind.names.device.memory.limit
    counts = [n for n in kind.counts if kind.floor.fits(n, capacity) and _whole(n, per_node)]
    counts = sorted({*counts[:1], *counts[-NUMBERS:]})
    shapes = [s for n in counts for s in kind.space.shapes(n, few=True)]
    policies = kind.space.policies(few=True)
    if coarse := list(_coarse(shapes)):
        chooser._search(kind, coarse, policies)
    name = kind.names.device.id
    if not any(p is not None for (device, _), p in chooser.searched.items() if device == name):
        chooser.search(kind, counts)


def _whole(devices: int, per_node: int | None) -> bool:
    """Whether so many devices are part of a node, or whole nodes."""
    return per_node is None or devices <= per_node or devices % per_node == 0


def _coarse(shapes: Sequence[Shape]) -> list[Shape]:
    found: list[Shape] = []
    for n, every in groupby(shapes, key=lambda s: s["devices"]):
        plain = [s for s in every if s["cp"] == s["pp"] == 1 and (s["zero"] or n == s["tp"])]
        for tp in {1, max((s["tp"] for s in plain), default=1)}:
            mine = [s for s in plain if s["tp"] == tp]
            micros = sorted({s["micro_batch"] for s in mine})
            if micros:
                keep = {micros[0], micros[len(micros) // 2], micros[-1]}
                found += [s for s in mine if s["micro_batch"] in keep]
    return found


def _lack(kind: Kind, there: int) -> str:
    """What the pool lacks of a kind of device for a job."""
    capacity = kind.names.device.memory.limit
    weights = kind.floor.weights_bytes
    if capacity and weights > there * capacity:
        least = int(-(-weights // capacity))
        return (
            f"weights, gradients and states take {weights / 1e9:,.0f} GB: at least {least:,}"
            f" devices of {capacity / 1e9:,.0f} GB; {there:,} there"
        )
    return f"no layout on up to {there:,} of them fits their memory"
