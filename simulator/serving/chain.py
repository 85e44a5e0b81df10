"""The chain: what is asked of serving -> its forecast."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.lookup import as_set
from roofcast.hwdb.records import Device
from roofcast.simulator.models.catalog import resolve
from roofcast.simulator.serving.answer import Replica, assemble
from roofcast.simulator.serving.asked import Serving, check_heads, degrees, layers_of
from roofcast.simulator.serving.backends import stack_of
from roofcast.simulator.serving.capacity import Room, room
from roofcast.simulator.serving.costs import Costs
from roofcast.simulator.serving.formats import fewer_bits
from roofcast.simulator.serving.load import Load, Requests, crowded
from roofcast.simulator.serving.means import WAVE, Mean, mean, most_of, too_many
from roofcast.simulator.serving.profiles import elsewhere, profile
from roofcast.simulator.serving.remember import Shared
from roofcast.simulator.serving.replay import Replayed, replay
from roofcast.simulator.serving.result import ServingForecast
from roofcast.simulator.serving.sample import (
    Sample,
    alike,
    at_rate,
    in_loop,
    looped,
    seen,
    together,
)
from roofcast.simulator.serving.server import Degrees as Cut
from roofcast.simulator.serving.server import Server
from roofcast.simulator.serving.similar import similar
from roofcast.simulator.serving.speculation import Speculation, speculation
from roofcast.simulator.serving.steps import Steps
from roofcast.simulator.work.model import Model

REPLAYED, MOST_REPLAYED = 400, 20000
FEWEST, FEWEST_MEANS = 200, 400  # of a closed loop; where its means are those of the replay
PER_USER = 5
NEAR = (0.9, 0.95, 1.0, 1.05, 1.1)  # lengths of prompts, over their mean, whose passes are timed
# where mean values are taken in closed form: share of the time that prompts take at most, tokens of
# an answer; at a rate, places per decoding sequence, places
BUSY, LONG, WIDE, MANY = 0.15, 50, 4.0, 64
EVEN = 0.03  # and of TTFT by which the mean pass of a prompt differs from that of a mean one


def replica(asked: Serving, found: Model | None = None, shared: Shared | None = None) -> Replica:
    """The server of one replica. Raises BadInput for what cannot be.

    found: the model, where it is resolved already: what is traced of it is traced once. shared:
    with it, engines that other layouts of the device have made.
    """
    device = as_set(asked.device, asked.set)
    cut = degrees(asked)
    spec, said = speculation(asked.speculate, asked.acceptance)
    at = Cut(cut.tp, cut.pp, cut.dp, cut.ep)
    stack = stack_of(asked.stack, device)
    named = (asked.weights, asked.kv, stack, asked.system)
    names = (asked.model, asked.device, asked.stack or "", asked.system or "")
    if found is not None:
        server = _server(found, device, at, *named, shared)
    elif any("/" in name or Path(name).suffix in (".json", ".toml") for name in names):
        server = _server(asked.model, device, at, *named)  # files may change
    else:
        server = _remembered(
            asked.model, asked.device, tuple(sorted(asked.set.items())), at, *named
        )
    _check(server, asked, cut.ep)
    default = () if asked.stack else (f"stack {stack}: --stack gives another",)
    if asked.stack and stack != asked.stack:
        default = (f"stack {stack}: {asked.stack} as it runs on {device.id}",)
    default = (*default, *elsewhere(server.profile, device))
    edits = ", ".join(f"{key}={value}" for key, value in asked.set.items())
    changed = (f"hypothetical: {device.id} with {edits}",) if edits else ()
    every = (*device.read_as, *changed, *default, *cut.said, *server.assumptions, *said)
    return Replica(asked, server, device, cut, spec, every)


def _server(
    model: str | Model,
    device: Device,
    at: Cut,
    weights: str | None,
    kv: str | None,
    stack: str,
    system: str | None,
    shared: Shared | None = None,
) -> Server:
    """The server of a model that generates text."""
    found = resolve(model)
    if found.takes != "sequence":
        raise BadInput(
            f"{found.name} does not generate text; give a language model, or forecast one pass with"
            f" roofcast predict {found.name} --mode infer"
        )
    check_heads(found, at.tp, profile(stack))
    layers = layers_of(found)
    if layers is not None and at.pp > layers:
        raise BadInput(f"pp {at.pp}: more stages than the {layers} layers of {found.name}")
    node = hwdb.system(system) if system else None
    return Server(
        found, device, at, weights=weights, kv=kv, stack=stack, system=node, shared=shared
    )


@functools.lru_cache(maxsize=32)
def _remembered(
    model: str, device: str, edits: tuple[tuple[str, str | float | int], ...], *rest: Any
) -> Server:
    """The same by names, made once."""
    return _server(model, hwdb.device(device, dict(edits)), *rest)


def _check(server: Server, asked: Serving, ep: int) -> None:
    """Refuses what no server runs so."""
    made = server.engines["decode"].forward
    if not made.caches and not made.states:
        raise BadInput(f"{asked.model} keeps no cache: it does not generate text token by token")
    if any(c.tokens is not None for c in made.caches):
        raise BadInput(f"{asked.model}: serving of models with an encoder is not modelled")
    if ep > 1 and not any(w.expert for w in made.weights):
        raise BadInput(f"ep {ep}: {asked.model} has no experts; leave ep out")


def held_of(of: Replica, load: Load, longest: int | None = None) -> Room:
    """The memory of a replica for the sequences of a load. Raises BadInput where nothing fits."""
    held = room(of.server, load.input_len, longest or load.input_len + load.output_len)
    if held.cache_bytes <= 0:
        gib, weights = 2.0**30, of.server.formats.weights
        left = held.memory_bytes - held.runtime_bytes
        raise BadInput(
            f"{of.asked.model} does not fit: weights of {held.weight_bytes / gib:.1f} GiB per"
            f" device ({weights}) and {held.runtime_bytes / gib:.1f} GiB of runtime, where"
            f" {held.memory_bytes / gib:.1f} GiB of {of.device.id} are usable; use more devices"
            f" (--tp){fewer_bits(weights, left / held.weight_bytes, of.server.profile.name)}"
        )
    return held


def share_of(load: Load, replicas: int) -> Load:
    """The part of a load that one replica gets."""
    if load.kind not in ("batch", "concurrency", "rate", "trace") or replicas == 1:
        return load
    part = load.amount / replicas
    if load.kind in ("batch", "concurrency"):
        part = math.ceil(part)
    counted = None if load.requests is None else max(load.requests // replicas, 1)
    return msgspec.structs.replace(load, amount=part, requests=counted)


def serve(
    asked: Serving, trace: Requests | None = None, replays: bool | None = True
) -> ServingForecast:
    """The forecast of a model served under a load.

    trace: the requests of a trace, whose load is `of_trace`. replays: with percentiles, from a
    replay of requests; False: mean values alone, but for a rate where these do not hold; None: a
    replay where they do not, whose means the forecast then has.
    Raises BadInput or UnknownName: one line that says what is wrong.
    """
    of = replica(asked)
    longest = int((trace.input + trace.output).max()) if trace is not None else None
    held = held_of(of, asked.load, longest)
    load = share_of(asked.load, of.cut.replicas)
    found = _means(of, load, held)
    doubt = doubts(of, load, held, found)
    alone = replays is not None  # one forecast, not one of a table
    if replays is None or load.kind == "rate":
        replays = replays or bool(doubt)
    replays = replays and not crowded(load, found.use)
    met = replayed(of, load, held, found, trace) if replays else None
    if met is not None and (doubt or load.kind in ("rate", "trace")):
        met = met._replace(means=True)
        found = _followed(of, load, held, found, met)
    forecast = assemble(of, load, held, found, met, doubt)
    return (
        msgspec.structs.replace(forecast, nearest=similar(of.server, load)) if alone else forecast
    )


@functools.lru_cache(maxsize=64)
def _remembered_costs(
    server: Server, lengths: Load, most: float, spec: Speculation, ramp: float
) -> Costs:
    """Seconds of steps at the lengths of a load, made once."""
    return Costs(server, lengths, most, spec, ramp)


def costs(server: Server, load: Load, most: float, spec: Speculation, ramp: float) -> Costs:
    """The same for any load of these lengths."""
    lengths = Load(
        kind="offline", input_len=load.input_len, output_len=load.output_len, cached=load.cached
    )
    return _remembered_costs(server, lengths, most, spec, ramp).of(load)


def _means(of: Replica, load: Load, held: Room) -> Mean:
    """Mean values of one replica; of a trace that is more than it can hold, those of its limit."""
    ramp = of.server.profile.ramp
    try:
        if load.kind == "trace":
            open_load = msgspec.structs.replace(load, kind="rate")
            return mean(of.server, open_load, held, of.spec, ramp, costs)
        return mean(of.server, load, held, of.spec, ramp, costs)
    except BadInput:
        if load.kind == "trace":
            full = msgspec.structs.replace(load, kind="offline")
            return mean(of.server, full, held, of.spec, ramp, costs)
        if of.cut.replicas == 1 or load.kind != "rate":
            raise
        full = msgspec.structs.replace(load, kind="offline")
        highest = mean(of.server, full, held, of.spec, ramp, costs).requests_per_s
        n, on = of.cut.replicas, f"{of.cut.replicas} replicas of {of.server.devices}"
        raise BadInput(too_many(of.asked.load.amount, highest * n, f"{on} devices")) from None


def trusted(of: Replica, load: Load, held: Room, found: Mean) -> bool:
    """Whether the mean values of a rate or a closed loop hold as well as a replay."""
    return not doubts(of, load, held, found)


def doubts(of: Replica, load: Load, held: Room, found: Mean) -> str:
    """Why the mean values of a rate or a closed loop do not hold as well as a replay, the first
    reason, in words; "" where they do: on one pipeline stage, without kernels of its own for few
    sequences, where prompts take little of the time, answers are long, a chunk holds two prompts or
    more, and, where requests arrive at random, places are many. Elsewhere requests do not share the
    engine evenly, as the mean values take them to.
    """
    if load.kind not in ("rate", "concurrency") or crowded(load, found.use):
        return ""
    places = held.sequences(load.input_len + held.reserved * load.output_len)
    profile, busy = of.server.profile, found.requests_per_s * found.prompt
    few = places < max(WIDE * found.decoding, MANY) if load.kind == "rate" else found.use >= 1.0
    why = {
        "a pipeline has several batches under way": of.cut.pp > 1,
        f"{profile.name} has kernels of its own for few sequences": profile.gemv,
        f"prompts take more than {BUSY:.0%} of the time": busy > BUSY,
        f"answers have fewer than {LONG} tokens": load.output_len < LONG,
        "a step takes less than two prompts": 2 * load.new > of.server.chunk_tokens,
        "places are few": few,
        "passes of prompts of nearly one length differ by tiles": (
            _uneven(of.server, load) * found.prefill > EVEN * found.ttft
        ),
    }
    return next((name for name, there in why.items() if there), "")


def _uneven(server: Server, load: Load) -> float:
    """By how much the passes of prompts of the lengths of a load differ in the mean from that of
    the mean length, as a share of it; 0 where all have one length, or take several chunks.
    """
    if not load.spread or load.new > server.chunk_tokens:
        return 0.0
    return _remembered_uneven(server, load.new, load.hit)


@functools.lru_cache(maxsize=64)
def _remembered_uneven(server: Server, new: int, hit: int) -> float:
    """The same, made once."""
    passes = np.asarray(server.prefill(1.0, new * np.array(NEAR), hit), float)
    return abs(float(passes.mean() / passes[NEAR.index(1.0)]) - 1.0)


def _followed(of: Replica, load: Load, held: Room, found: Mean, met: Sample) -> Mean:
    """Means of a replay, which follows the queue request by request. Users of a closed loop send
    one request each in the time of one (Little's law).
    """
    before, ramp = max(found.decoding, 1.0), of.server.profile.ramp
    highest = found.requests_per_s / found.use
    found, late = looped(found, load, met, highest)
    if load.kind == "trace":
        rate = len(met.weight) / met.found.seconds / of.cut.replicas
        found = found._replace(requests_per_s=rate, use=rate / highest)
    found = seen(found, met, found.overhead)
    found = found.delayed(late * found.e2e)
    known = costs(of.server, load, most_of(of.server, load, held, of.spec), of.spec, ramp)
    now = known.decode(np.array([max(found.decoding, 1.0), before]))
    return found._replace(step=found.step * float(now[0] / now[1]))


def count(load: Load, use: float = 0.0, means: bool = False) -> int:
    """Requests of a replay that count, where the load does not say: more near the highest rate,
    where the queue is long at times, and where the means of a closed loop are those of the replay.
    """
    if load.requests is not None:
        return load.requests
    if load.kind == "concurrency":
        fewest = FEWEST_MEANS if means else FEWEST
        return int(min(max(PER_USER * load.amount, fewest), MOST_REPLAYED))
    return int(min(REPLAYED / max(1.0 - use, 0.01), MOST_REPLAYED))


def steps_of(of: Replica, load: Load, held: Room, longest: float) -> Steps:
    """Tables of a server's steps for sequences up to this length."""
    most = held.sequences(load.input_len) or 1
    return _remembered_steps(of.server, most, longest, load.new, of.spec)


@functools.lru_cache(maxsize=16)
def _remembered_steps(
    server: Server, most: int, longest: float, typical: float, spec: Speculation
) -> Steps:
    """Tables of steps, made once."""
    near = [typical * share for share in NEAR]
    return Steps(server, most, longest, typical, spec, near)


def replayed(
    of: Replica, load: Load, held: Room, found: Mean, trace: Requests | None = None
) -> Sample | None:
    """Requests replayed on one replica; those of a trace on all. found: its mean values."""
    way = found.overhead
    if trace is not None:
        steps = steps_of(of, load, held, float((trace.input + trace.output).max()))
        parts = [
            Requests(*(v[k :: of.cut.replicas] for v in trace)) for k in range(of.cut.replicas)
        ]
        runs = [replay(steps, part, held, None, way) for part in parts if len(part.input)]
        return together([alike(run) for run in runs])
    if load.kind not in ("concurrency", "rate"):
        return None
    steps = steps_of(of, load, held, (1 + load.spread) * (load.input_len + load.output_len))

    def run(sent: Requests, users: int | None, needed: int) -> Replayed:
        return replay(steps, sent, held, users, way, needed)

    own, doubt = load.requests is None, bool(doubts(of, load, held, found))
    if load.kind == "rate":
        there = found.requests_per_s * found.e2e
        return at_rate(load, count(load, found.use), there, run, doubt and own)
    number = count(load, means=doubt)
    first = WAVE if own else load.amount / number
    share = first if load.amount > 1 else 0.0
    taken = found.decoding if found.waiting > 0.0 else 0.0
    return in_loop(load, number, min(share, 1.0), found.e2e, run, doubt and own, taken)
