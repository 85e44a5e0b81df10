"""Watts of decoding at a measured rate: joules of a step over the seconds that it took."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import msgspec

from roofcast import hwdb
from roofcast.hwdb import constants
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.forecast.chain import without_interval
from roofcast.simulator.forecast.resolve import resolve
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.times.power import board_of
from roofcast.simulator.work.step import of_one_batch, trace

PROMPT = 150.0  # mean tokens before a reply, which sources do not state; assumed
LARGEST = 4096  # requests at a time that are traced


class Work(NamedTuple):
    """Work of one step of decoding on one board of a tensor-parallel group."""

    matrix: float  # FLOP, those of attention's scores among them
    vector: float  # vector FLOP, and twice the special results
    moved: float  # bytes, without keys and values
    cached: float  # bytes of keys and values


@lru_cache(maxsize=512)
def decoded(
    device: str, model: str, batch: int, devices: int, precision: str, columns: float
) -> Work:
    """One step of decoding: a token of each of `batch` requests, which have `columns` tokens in
    the cache.
    """
    scenario = Scenario(
        model=model, device=device, mode="infer", batch=batch, sequence=1, precision=precision
    )
    if devices > 1:
        scenario = msgspec.structs.replace(scenario, tp=devices, sp=False)
    asked = resolve(scenario)
    recipe = msgspec.structs.replace(asked.recipe, batch=batch)
    if asked.layout is not None:
        step = trace(asked.model, recipe, asked.layout.parallel)
    else:
        step = of_one_batch(trace(asked.model, recipe))
    matrix = vector = moved = cached = 0.0
    for k in step.kernels:
        matrix += k.matrix * k.count
        vector += (k.vector + 2.0 * k.special) * k.count
        moved += (k.read + k.written) * k.count
        if k.kind == "attention":
            _, heads, kv_heads, _, _, dim, _ = k.shape
            matrix += 4.0 * batch * heads * columns * dim * k.count
            cached += 4.0 * batch * kv_heads * columns * dim * k.count
    return Work(matrix, vector, moved, cached)


def decoding_watts(
    device: str, model: str, batch: float, devices: int, precision: str, output: float,
    tokens_per_s: float,
) -> float:  # fmt: skip
    """Watts of one board at the measured rate. Raises BadInput where its power is not modelled."""
    if not 1 <= batch <= LARGEST:
        raise BadInput(f"{batch:g} requests at a time: from 1 to {LARGEST:,} are traced")
    record, c = hwdb.device(device), constants.kernels().power
    board = board_of(record, c)
    if board is None:
        raise BadInput(f"{device}: joules of its kernels are not known")
    work = decoded(device, model, round(batch), devices, precision, PROMPT + output / 2.0)
    kind = precision if precision in board.matrix else "bf16"
    joules = board.matrix[kind] * work.matrix + board.vector * work.vector
    joules += board.byte * work.moved + board.cached * work.cached
    return min(board.idle + board.active + joules * tokens_per_s / batch, board.limit)


@lru_cache(maxsize=512)
def pass_watts(device: str, model: str, batch: int, devices: int) -> float:
    """Watts of one board in a pass of a diffusion model, of its part of a batch."""
    scenario = Scenario(
        model=model, device=device, mode="infer", batch=max(batch // devices, 1), precision="bf16"
    )
    found, _, _ = without_interval(scenario)
    if found.power_w is None:
        raise BadInput(f"{device}: its power is not known")
    return found.power_w
