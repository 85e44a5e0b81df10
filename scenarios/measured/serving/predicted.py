"""What is forecast of a row of measured servers, by its kind of load."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np

from roofcast.hwdb.errors import BadInput, quoted
from roofcast.scenarios.measured.cells import LARGEST, LEAST, Row
from roofcast.scenarios.measured.serving.bench import benched
from roofcast.scenarios.measured.serving.protocols import Protocol, looked_back, protocol
from roofcast.scenarios.measured.serving.rows import Ran, ran, turns
from roofcast.scenarios.measured.serving.separate import POOLS, dealt, separate, served, two
from roofcast.simulator.serving.backends import STACK
from roofcast.simulator.serving.capacity import Room, room
from roofcast.simulator.serving.costs import Costs
from roofcast.simulator.serving.load import Load, Requests
from roofcast.simulator.serving.means import Mean, mean
from roofcast.simulator.serving.profiles import profile
from roofcast.simulator.serving.replay import replay
from roofcast.simulator.serving.server import Server
from roofcast.simulator.serving.steps import Steps

GIB = 2.0**30
CHAT = 300.0  # tokens of a prompt of a chat benchmark that states none
SHORT = 128.0  # of any other
NARROW, SIXTEEN = ("fp8", "nvfp4"), 2.0  # formats of weights; bytes of an element
PASSES = 6  # of prompts that wait for steps, whose times depend on them
USED = 0.95  # share of the memory that a server which ran may have used: they are tuned


class Predicted(NamedTuple):
    """What is forecast of a row; None where the row asks for no such thing."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    output_tokens_per_s: float | None = None
    prefill_tokens_per_s: float | None = None
    peak_mem_gib: float | None = None


def number(row: Mapping[str, str], name: str) -> float | None:
    """The positive number in a cell; None where there is none. Raises BadInput for other text."""
    text = (row.get(name) or "").strip()
    if not text or text.lower() in ("nan", "none"):
        return None
    try:
        value = float(text)
    except ValueError:
        raise BadInput(f"{name} {quoted(text)}: a number is wanted") from None
    return value if LEAST < value < LARGEST else None


def predict(row: Row, at: Ran, server: Server) -> Predicted:
    """What a row asks for."""
    asked = number(row, "load") or 1.0
    new, out = number(row, "input_len"), number(row, "output_len")
    context = number(row, "context_len") or 0.0
    share = max(asked / at.replicas, 1.0)
    if separate(row) and row["phase"] not in ("prefill", "decode"):
        return _separate(row, at)
    processes = min(turns(row), share)
    if row["phase"] == "prefill":
        return _prompts(server, share, new or SHORT, context, at, processes)
    if row["phase"] == "decode":
        context = max(context, (new or 1.0) + (out or 0.0) / 2)
        return _decode(server, share, context, at, processes)
    steady = row["load_kind"] == "batch" and row["mode"] == "agg"
    load = load_of(row, at)
    held = roomy(server, room(server, load.input_len, load.input_len + load.output_len), at)
    run = protocol(row)
    if run.bench:
        all_ = held._replace(limit=2**30).sequences(load.input_len + load.output_len)
        server, most = benched(server, all_, load.input_len, load.output_len)
        held = held._replace(limit=most)
    if steady:
        return _steady(server, load, at, run)
    if run.processes:  # as servers have them whose API is a process of its own
        server = copy.copy(server)
        server.request_s = min(profile(STACK).ttft_s, server.request_s)
    if row["load_kind"] == "all_at_once":
        return _all_at_once(server, load, held, at)
    if load.kind == "offline" and run.requests:
        sent = msgspec.structs.replace(load, amount=math.ceil(run.requests / at.replicas))
        return _all_at_once(server, sent, held, at)
    return _served(server, load, held, at, run.waits)


KINDS = {"concurrency": "concurrency", "offline_max": "offline", "request_rate": "rate"}


def load_of(row: Mapping[str, str], at: Ran) -> Load:
    """The load of one replica of a row; a static batch where no other is stated."""
    asked = number(row, "load")
    kind = KINDS.get(row["load_kind"], "batch")
    if kind in ("rate", "concurrency") and asked is None:
        what = {"rate": "rate of requests", "concurrency": "number of users"}[kind]
        raise BadInput(f"the {what} is unstated")
    share = (asked or 1.0) / at.replicas
    chat = row["load_kind"] == "batch" and row["mode"] == "agg"
    run = protocol(row)
    new = number(row, "input_len") or run.input_len or (CHAT if chat else SHORT)
    return Load(
        kind=kind,
        amount={"rate": share, "offline": 1.0}.get(kind, max(share, 1.0)),
        input_len=max(round(run.lengths * new), 1),
        output_len=max(round(run.lengths * (number(row, "output_len") or 1.0)), 1),
        spread=run.spread,
    )


def roomy(server: Server, held: Room, at: Ran) -> Room:
    """The memory of a server that ran: its share is tuned, at least one sequence fitted, and a
    cache whose format is not stated has 8 bits beside weights of 8 or 4.
    """
    if at.kv is None and at.weights in NARROW and server.formats.cache == SIXTEEN:
        held = held._replace(fixed=held.fixed / 2, per_token=held.per_token / 2)
    memory = max(held.memory_bytes, USED * server.capacity_bytes)
    least = held.weight_bytes + held.runtime_bytes + held.of_sequence(1.0)
    return held._replace(memory_bytes=memory if memory > least else math.inf)


def _peak(server: Server, sequences: float, tokens: float) -> float:
    """Memory of a device [GiB]."""
    cache = math.ceil(sequences / server.attention_groups) * float(server.cache_bytes(tokens))
    return (server.weight_bytes + server.runtime_bytes + cache) / GIB


def in_turns(server: Server, phase: str, each: float, processes: float) -> float:
    """Seconds of a forward of processes that share a device, of which each has the whole one for
    `each` seconds in turn; they start their kernels side by side.
    """
    starts = server.engines[phase].forward.kernels * server.profile.start_s
    return processes * each - (processes - 1.0) * min(starts, each)


def _prompts(
    server: Server, prompts: float, new: float, cached: float, at: Ran, processes: float
) -> Predicted:
    """Prompts in one pass, or one of each process."""
    each = float(server.prefill(prompts / processes, new, cached))
    seconds = in_turns(server, "prefill", each, processes)
    rate = prompts * new / seconds * at.replicas
    return Predicted(seconds, None, None, rate, _peak(server, prompts, new + cached))


def _decode(
    server: Server, sequences: float, context: float, at: Ran, processes: float
) -> Predicted:
    """A decode step, or one of each process."""
    each = float(server.decode(sequences / processes, max(context, 1.0)))
    step = in_turns(server, "decode", each, processes)
    rate = sequences / step * at.replicas
    return Predicted(None, step, rate, None, _peak(server, sequences, context))


def _steady(server: Server, load: Load, at: Ran, run: Protocol) -> Predicted:
    """A mean number of sequences in steady state, with prompts mixed in; answers of all lengths."""
    behind = looked_back(run.requests, load.amount * at.replicas, run.repeats)
    context = load.input_len + behind * load.output_len
    met = Load(kind="offline", input_len=load.input_len, output_len=load.output_len)
    costs = Costs(server, met, load.amount)
    step = float(server.decode(load.amount, context))
    stalls = load.amount * costs.added(load.amount) / max(load.output_len - 1, 1)
    rate = load.amount / (step + stalls) * at.replicas
    return Predicted(None, step, rate, None, _peak(server, load.amount, context))


def _all_at_once(server: Server, load: Load, held: Room, at: Ran) -> Predicted:
    """So many requests at one moment: a replay."""
    count = int(load.amount)
    longest = load.input_len + load.output_len
    steps = Steps(server, max(held.sequences(load.input_len), 1), longest, load.input_len)
    ones = np.ones(count, dtype=np.int64)
    asked = Requests(
        np.zeros(count), load.input_len * ones, load.output_len * ones, np.zeros_like(ones)
    )
    found = replay(steps, asked, held, None, server.request_s)
    output = count * load.output_len / found.seconds * at.replicas
    peak = _peak(server, min(count, held.sequences(longest) or 1), longest)
    tpot = float(np.nanmean(found.tpot)) if load.output_len > 1 else None
    return Predicted(float(found.ttft.mean()), tpot, output, None, peak)


def split_of(row: Row) -> list[str]:
    """Deal the devices of a row out to two pools, in its columns; what was taken for that. The row
    becomes that of an instance that decodes.
    """
    given = dealt(row)
    for pool, d in zip(POOLS, given.degrees, strict=True):
        row |= {f"{pool}_{name}": str(getattr(d, name)) for name in ("tp", "pp", "ep", "dp")}
    d = given.degrees[1]
    row |= {name: str(getattr(d, name)) for name in ("tp", "pp", "ep", "dp")}
    row["n_devices"] = str(d.tp * d.pp * d.dp)
    at = ran(row)
    load = _load_of_pools(row, at)
    _, known, taken = two(at, given, load, lambda server: _room_of(server, load, at))
    for pool, d, n in zip(POOLS, known.degrees, known.instances or (1, 1), strict=True):
        row[f"{pool}_devices"] = str(n * d.tp * d.pp * d.dp)
    return [taken] if taken else []


def _load_of_pools(row: Row, at: Ran) -> Load:
    """The load of all instances."""
    load = load_of(row, at._replace(replicas=1))
    if load.kind == "batch":  # so many at once are so many users
        load = msgspec.structs.replace(load, kind="concurrency")
    return load


def _room_of(server: Server, load: Load, at: Ran) -> Room:
    return roomy(server, room(server, load.input_len, load.input_len + load.output_len), at)


def _separate(row: Row, at: Ran) -> Predicted:
    """Two pools, with the transfer between them."""
    load = _load_of_pools(row, at)
    costing, _, _ = two(at, dealt(row), load, lambda server: _room_of(server, load, at))
    found = served(costing, load).mean
    server = costing.of.decode.server
    peak = _peak(server, float(found.decoding), load.input_len + 0.6 * load.output_len)
    prefill = load.new * float(costing.totals.prefill)
    output = float(found.requests_per_s) * load.output_len
    return Predicted(float(found.ttft), float(found.tpot), output, prefill, peak)


def waited(server: Server, load: Load, held: Room, waits: float, ramp: float | None = None) -> Mean:
    """Mean values of a load whose prompts wait for `waits` decode steps until a step takes them.

    ramp: share of prompts that come together, if not the profile's.
    """
    made: list[Costs] = []
    ramp = server.profile.ramp if ramp is None else ramp

    def remembered(*given: Any) -> Costs:
        made.append(made[0] if made else Costs(*given))
        return made[-1]

    found = mean(server, load, held, ramp=ramp, made=remembered)
    for _ in range(PASSES if waits else 0):
        made[0].request_s = server.request_s + waits * found.tpot
        found = mean(server, load, held, ramp=ramp, made=remembered)
    return found


def _served(server: Server, load: Load, held: Room, at: Ran, waits: float) -> Predicted:
    """Mean values of a load."""
    found = waited(server, load, held, waits)
    output = found.requests_per_s * load.output_len * at.replicas
    tokens = load.input_len + (1.0 if load.kind == "batch" else 0.6) * load.output_len
    prefill = load.new * (load.amount if load.kind == "batch" else 1.0) / found.alone * at.replicas
    return Predicted(
        found.ttft, found.tpot or None, output, prefill, _peak(server, found.decoding, tokens)
    )
