"""Watts of decoding at a measured rate: joules of a step over the seconds that it took."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import msgspec

from roofcast import hwdb
from roofcast.hwdb import constants
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.formats import WIDTH
from roofcast.simulator.forecast.chain import without_interval
from roofcast.simulator.forecast.resolve import resolve
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.times.power import board_of
from roofcast.simulator.work.step import of_one_batch, trace
from roofcast.simulator.work.traced import Kernel

PROMPT = 150.0  # mean tokens before a reply, which sources do not state; assumed
# bytes of recurrent state that a request reads and writes per step: layers x heads x width x state
# elements of 4 bytes, twice
STATE = {"nemotron-nano-9b-v2": 27 * 128 * 80 * 128 * 4.0 * 2.0}
# what a core spends on an element of a weight beside its bytes, of any width: the energy of a byte
# in decoding over that in training, of 2-byte elements (98 and 63 pJ) [J]
PER_ELEMENT = 70e-12
TOKENS_EACH = 8.0  # rows per expert where tokens are as many as experts: so many are chosen
LARGEST = 4096  # requests at a time that are traced


class Work(NamedTuple):
    """Work of one step of decoding on one board of a tensor-parallel group."""

    matrix: float  # FLOP, those of attention's scores among them
    vector: float  # vector FLOP, and twice the special results
    moved: float  # bytes, without keys and values
    cached: float  # bytes of keys and values
    wanted: float  # FLOP of the products, without rows that pad a tile


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
    asked = resolve(scenario)
    stack = asked.recipe.stack  # servers run the chosen experts only
    stack = msgspec.structs.replace(
        stack, implementations=stack.implementations | {"experts": "grouped"}
    )
    recipe = msgspec.structs.replace(asked.recipe, batch=batch, stack=stack)
    step = of_one_batch(trace(asked.model, recipe))
    matrix = vector = moved = wanted = 0.0
    cached = STATE.get(model, 0.0) * batch
    for k in step.kernels:
        if step.nodes[k.node].name.endswith(".scan"):
            continue  # a scan over a prompt; in decoding it is one small update of the state
        matrix += k.matrix * k.count * _padded(k, precision)
        wanted += k.matrix * k.count
        vector += (k.vector + 2.0 * k.special) * k.count
        moved += (k.read + k.written) * k.count * _chosen(k)
        if k.kind == "attention":
            _, heads, kv_heads, _, _, dim, _ = k.shape
            matrix += 4.0 * batch * heads * columns * dim * k.count
            cached += 4.0 * batch * kv_heads * columns * dim * k.count
    if step.caches:  # as stored: compressed by latent attention, cut by windows
        each = sum(c.bytes * c.count * min(columns, c.window or columns) for c in step.caches)
        cached = batch * (STATE.get(model, 0.0) + float(each))
    return Work(*(each / devices for each in (matrix, vector, moved, cached, wanted)))


def _chosen(kernel: Kernel) -> float:
    """Part of the experts whose weights a product reads: those that a token chose. With a tokens
    per expert in the mean, 1 - e^-a of them are chosen (Poisson).
    """
    if kernel.kind != "matmul" or len(kernel.shape) != 4 or kernel.shape[0] <= 1:
        return 1.0
    return 1.0 - math.exp(-float(kernel.shape[1]))


def _padded(kernel: Kernel, precision: str) -> float:
    """Rows that a product of experts computes over those that are wanted: tiles of vLLM's
    fused_moe, of 16 rows where there are fewer tokens than experts, else of 64; with 8-bit blocks
    always of 64.
    """
    if kernel.kind != "matmul" or len(kernel.shape) != 4 or kernel.shape[0] <= 1:
        return 1.0
    each = float(kernel.shape[1])  # rows per expert in the mean
    rows = 64.0 if precision == "fp8" or each > TOKENS_EACH else 16.0
    chosen = 1.0 - math.exp(-each)
    return max(chosen * rows * math.ceil(each / chosen / rows) / each, 1.0)


def decoding_watts(
    device: str, model: str, batch: float, devices: int, precision: str, output: float,
    tokens_per_s: float, prompt: float = 0.0,
) -> float:  # fmt: skip
    """Watts of one board at the measured rate. Raises BadInput where its power is not modelled.

    prompt: tokens of a request before its reply beyond those of a plain question, of images.
    """
    if not 1 <= batch <= LARGEST:
        raise BadInput(f"{batch:g} requests at a time: from 1 to {LARGEST:,} are traced")
    record, c = hwdb.device(device), constants.kernels().power
    board = board_of(record, c)
    if board is None:
        raise BadInput(f"{device}: joules of its kernels are not known")
    work = decoded(device, model, round(batch), devices, precision, PROMPT + output / 2.0)
    kind = precision if precision in board.matrix else "bf16"
    matrix = (
        work.matrix + work.wanted * prompt / output
    )  # a token of a prompt has the same products
    joules = board.matrix[kind] * matrix + board.vector * work.vector
    byte = board.byte + PER_ELEMENT * (1.0 / WIDTH.get(precision, 2.0) - 1.0 / WIDTH["bf16"])
    joules += byte * work.moved + board.cached * work.cached
    return min(board.idle + board.active + joules * tokens_per_s / batch, board.limit)


class Pass(NamedTuple):
    """A pass of a diffusion model on one board. SI units."""

    seconds: float
    host: float  # of launches
    watts: float
    idle: float
    active: float  # while kernels run, beside those


@lru_cache(maxsize=512)
def passed(device: str, model: str, batch: int) -> Pass:
    """A pass on one board. Raises BadInput where its power is not modelled."""
    scenario = Scenario(model=model, device=device, mode="infer", batch=batch, precision="bf16")
    found, _, _ = without_interval(scenario)
    board = board_of(hwdb.device(device), constants.kernels().power)
    if found.power_w is None or board is None:
        raise BadInput(f"{device}: joules of its kernels are not known")
    return Pass(found.step_time_s, found.host_s, found.power_w, board.idle, board.active)


def pass_watts(device: str, model: str, batch: int, devices: int, serial: float) -> float:
    """Watts of one board in a pass of a diffusion model over several boards.

    serial: part of a request on one board that the others wait for (text encoder, decoder of the
    image). Of n boards each is busy for ((1 - s) / n + s / n) of s + (1 - s) / n.
    """
    n, one = devices, passed(device, model, batch)
    busy = one.seconds / n
    span = max(busy, one.host)  # launches take as long on every board
    rest = one.idle + one.active * busy / span
    watts = rest + (one.watts - one.idle - one.active) * busy / span
    wall = serial + (1.0 - serial) / n
    return rest + (watts - rest) / (n * wall)
