"""The kernels of one decode step or one prefill, as a roofline draws them: FLOPs, bytes and seconds
of each, as they make up the step of `roofcast serving`.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from roofcast.simulator.forecast.result import Point
from roofcast.simulator.serving.asked import Serving
from roofcast.simulator.serving.chain import replica
from roofcast.simulator.serving.engine import Clocked, Engine, Seconds
from roofcast.simulator.serving.kinds import Kinds, Spent
from roofcast.simulator.serving.passes import Spending
from roofcast.simulator.serving.server import Server
from roofcast.simulator.times.rates import Rates
from roofcast.simulator.work.generation import Launch

PHASES = ("decode", "prefill")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel of a step on one device: all its launches."""

    name: str
    part: str  # products | experts | attention | streams
    unit: str  # matrix | vector
    precision: str
    launches: int
    flops: float  # executed, of the matrix units; of kernels without any, of the vector units
    bytes: float
    time_s: float


class StepForecast(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a server. SI units, of one device."""

    model: str
    device: str
    devices: int
    layout: dict[str, int]
    stack: str
    phase: str  # decode | prefill
    batch: int
    tokens: int  # of a sequence: in the cache, or of a prompt
    weights: str
    kv: str
    step_time_s: float
    parts_s: dict[str, float]  # with exchanges and host
    rows: tuple[Row, ...]  # the longest first
    weights_bytes: float  # held by a device
    cache_bytes: float  # of the sequences, on a device
    usable_bytes: float | None = None  # of a device, that the software uses
    assumptions: tuple[str, ...] = ()

    @property
    def points(self) -> tuple[Point, ...]:
        """The kernels as points of a roofline."""
        return tuple(
            Point(
                name=r.name, op=r.part, phase="forward", unit=r.unit, precision=r.precision,
                flops=r.flops, bytes=r.bytes, time_s=r.time_s,
            )
            for r in self.rows
        )  # fmt: skip


class _Recorder(Engine):
    """An engine that remembers its kernels."""

    def __init__(self, of: Engine):
        self.__dict__.update(of.__dict__)
        self._pending: list[tuple[list[Launch], Rates, tuple[np.ndarray, ...]]] = []
        self.rows: list[Row] = []

    def _clocked(
        self,
        ks: Kinds,
        seconds: Seconds,
        rates: Rates,
        work: tuple[np.ndarray, np.ndarray, np.ndarray],
        part: str,
        cached: bool = False,
    ) -> Clocked:
        self._pending.append((ks.launches, rates, work))
        return super()._clocked(ks, seconds, rates, work, part, cached)

    def _held(self, found: list[Clocked]) -> Spent:
        for (ks, rates, work), one in zip(self._pending, found, strict=True):
            t, _ = self._at_limit([one])[0]
            matrix, vector, moved = (np.broadcast_to(w, t.shape) for w in work)
            for i, k in enumerate(ks):
                flops = matrix[i, 0] if matrix[i, 0] > 0 else vector[i, 0]
                self.rows.append(
                    Row(
                        name=k.name,
                        part=one.part,
                        unit="matrix" if rates.tensor and matrix[i, 0] > 0 else "vector",
                        precision=rates.format,
                        launches=int(k.count),
                        flops=float(k.count * flops),
                        bytes=float(k.count * moved[i, 0]),
                        time_s=float(k.count * t[i, 0]),
                    )
                )
        self._pending = []
        return super()._held(found)


def step(asked: Serving, phase: str, batch: int) -> StepForecast:
    """One decode step of `batch` sequences with `input_len` tokens in the cache, or one prefill of
    as many prompts; of one replica. Raises BadInput for what cannot be.
    """
    of = replica(msgspec.structs.replace(asked, devices=None))
    server, tokens = of.server, asked.load.input_len
    spent, rows = _recorded(server, phase, batch, tokens)
    parts = {name: float(value) for name, value in spent.seconds.items()}
    context = float(tokens if phase == "decode" else asked.load.hit + tokens)
    sequences = np.ceil(batch / server.attention_groups)
    return StepForecast(
        model=asked.model,
        device=of.device.id,
        devices=server.devices,
        layout={"tp": of.cut.tp, "pp": of.cut.pp, "ep": of.cut.ep, "dp": of.cut.dp},
        stack=server.profile.name,
        phase=phase,
        batch=batch,
        tokens=tokens,
        weights=server.formats.weights,
        kv=(asked.kv or f"{8 * server.formats.cache:g} bits").lower(),
        step_time_s=float(spent.total),
        parts_s=dict(sorted(parts.items(), key=lambda each: -each[1])),
        rows=tuple(sorted(_scaled(rows, parts), key=lambda row: -row.time_s)),
        weights_bytes=float(server.weight_bytes),
        cache_bytes=float(sequences * server.cache_bytes(context)),
        usable_bytes=float(server.memory_bytes) if math.isfinite(server.memory_bytes) else None,
        assumptions=of.said,
    )


def _recorded(server: Server, phase: str, batch: int, tokens: int) -> tuple[Spending, list[Row]]:
    """A step with its kernels. The server itself, which others may hold, stays as it is."""
    recorder = _Recorder(server.engines[phase])
    twin: Any = object.__new__(Server)
    twin.__dict__.update(server.__dict__)
    twin.engines = server.engines | {phase: recorder}
    run = twin.decoding if phase == "decode" else twin.prefilling
    return run(batch, tokens), recorder.rows


def _scaled(rows: list[Row], parts: dict[str, float]) -> list[Row]:
    """The kernels of one name together, as long as the parts of the step that they make up: with
    what the software adds to them.
    """
    sums: dict[str, float] = {}
    for row in rows:
        sums[row.part] = sums.get(row.part, 0.0) + row.time_s
    found: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        key = (row.part, row.name, row.precision)
        longer = parts.get(row.part, 0.0) / sums[row.part] if sums[row.part] > 0 else 1.0
        own = msgspec.structs.replace(row, time_s=row.time_s * longer)
        if key in found:
            was = found[key]
            own = msgspec.structs.replace(
                was,
                launches=was.launches + own.launches,
                flops=was.flops + own.flops,
                bytes=was.bytes + own.bytes,
                time_s=was.time_s + own.time_s,
            )
        found[key] = own
    return list(found.values())
