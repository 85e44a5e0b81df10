"""What a forecast of serving says: totals over replicas, memory, energy and money."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from roofcast.hwdb.records import Device
from roofcast.simulator.serving.asked import Degrees, Serving
from roofcast.simulator.serving.capacity import BLOCK, OFFLINE, Room
from roofcast.simulator.serving.interval import Ranges, ranges
from roofcast.simulator.serving.load import Load, percentiles
from roofcast.simulator.serving.means import Mean
from roofcast.simulator.serving.pricing import dollars, price_of
from roofcast.simulator.serving.replay import Replayed
from roofcast.simulator.serving.result import ServingForecast, ServingMemory, Spread
from roofcast.simulator.serving.server import Server, Spending
from roofcast.simulator.serving.speculation import Speculation

SHOWN = 0.001  # of a step: smaller shares of what bounds it are left out


class Replica(NamedTuple):
    """A server, what it is asked, and how it is laid out."""

    asked: Serving
    server: Server
    device: Device
    cut: Degrees
    spec: Speculation
    said: tuple[str, ...]


def assemble(
    of: Replica, load: Load, held: Room, found: Mean, met: list[Replayed]
) -> ServingForecast:
    """The forecast from the mean values of one replica, and from replays where there are any."""
    asked, n = of.asked, of.cut.replicas
    rate = found.requests_per_s * n
    if asked.load.kind == "trace" and met:
        rate = sum(len(r.e2e) / r.seconds for r in met)
    batch = load.amount if load.kind == "batch" else 1.0
    prefill = load.new * batch / found.alone * n
    times = _times(load, found, met)
    known = ranges(of.server.profile.name, times, rate * load.output_len, prefill)
    steady = load.kind != "batch"
    return ServingForecast(
        model=asked.model,
        device=of.device.id,
        devices=of.cut.devices,
        replicas=n,
        layout={"tp": of.cut.tp, "pp": of.cut.pp, "ep": of.cut.ep, "dp": of.cut.dp},
        stack=of.server.profile.name,
        weights=asked.weights or of.server.formats.formats.precision,
        kv=asked.kv or ("16 bits" if of.server.formats.cache == 2.0 else "8 bits"),
        load=asked.load.kind,
        amount=None if asked.load.kind == "offline" else asked.load.amount,
        input_len=load.input_len,
        output_len=load.output_len,
        requests_per_s=rate,
        total_tokens_per_s=rate * (load.input_len + load.output_len),
        output_tokens_per_s_per_device=rate * load.output_len / of.cut.devices,
        tokens_per_s_per_user=1.0 / times["tpot"].mean if times["tpot"].mean > 0 else 0.0,
        decoding=float(found.decoding),
        waiting_s=float(found.waiting),
        use=float(found.use) if steady else None,
        highest_requests_per_s=found.requests_per_s * n / found.use if steady else None,
        preempted=sum(r.preempted for r in met) if met else None,
        replayed=sum(len(r.e2e) for r in met) if met else None,
        decode_step_s=found.step,
        prefill_s=found.alone,
        memory=_memory(of, load, held, found),
        assumptions=(*of.said, *_said(of, load, held, met)),
        **_rated(known, rate * load.output_len, prefill),
        **_bounds(of, load, found),
        **_energy(of, load, found, rate),
    )


def _times(load: Load, found: Mean, met: list[Replayed]) -> dict[str, Spread]:
    """Time to the first token, per token after it, and to the last: means, percentiles.

    Means of a rate and of a trace are those of the replay, which follows the queue; those of a
    closed loop the mean values, which have no start and no end.
    """
    means = {"ttft": found.ttft, "tpot": found.tpot, "e2e": found.e2e}
    if not met:
        return {name: Spread(mean=value) for name, value in means.items()}
    spreads = {}
    for name, value in means.items():
        every = np.concatenate([getattr(r, name) for r in met])
        every = every[np.isfinite(every)]
        if not len(every):
            spreads[name] = Spread(mean=value)
            continue
        p50, p90, p99 = percentiles(every)
        mean = value if load.kind == "concurrency" else float(every.mean())
        spreads[name] = Spread(mean=mean, p50=p50, p90=p90, p99=p99)
    return spreads


def _rated(known: Ranges, output: float, prefill: float) -> dict[str, Any]:
    """Times and rates with their intervals."""
    return {
        "ttft_s": known.times["ttft"],
        "tpot_s": known.times["tpot"],
        "e2e_s": known.times["e2e"],
        "output_tokens_per_s": output,
        "output_tokens_per_s_range": known.output,
        "prefill_tokens_per_s": prefill,
        "prefill_tokens_per_s_range": known.prefill,
    }


def _memory(of: Replica, load: Load, held: Room, found: Mean) -> ServingMemory:
    """Bytes of a device, and how many sequences fit."""
    tokens = load.input_len + load.output_len
    full = held.of_sequence(tokens)
    there = found.decoding
    if load.kind == "batch":
        cache = math.ceil(load.amount / held.groups) * full
    else:  # sequences of every age
        cache = there / held.groups * held.of_sequence(load.input_len + OFFLINE * load.output_len)
    usable = held.memory_bytes if math.isfinite(held.memory_bytes) else None
    capacity = of.device.memory.capacity
    most = held.sequences(tokens)
    longest = held.longest()
    peak = held.weight_bytes + held.runtime_bytes + cache
    fits = usable is None or (peak <= usable and most >= 1)
    return ServingMemory(
        weights_bytes=held.weight_bytes,
        runtime_bytes=held.runtime_bytes,
        cache_bytes=cache,
        peak_bytes=peak,
        usable_bytes=usable,
        capacity_bytes=float(capacity) if capacity else None,
        cache_bytes_per_token=of.server.cache.per_token / of.cut.pp,
        cache_bytes_per_token_past_windows=of.server.cache.per_token_past_windows / of.cut.pp,
        cache_bytes_per_sequence=full,
        largest_concurrency=most,
        largest_concurrency_total=most * of.cut.replicas,
        longest_sequence=longest if math.isfinite(longest) else None,
        fits=fits,
    )


def _bounds(of: Replica, load: Load, found: Mean) -> dict[str, Any]:
    """Shares of a decode step and of a prompt's pass by part."""
    decode = of.server.decoding(max(found.decoding, 1.0), load.context)
    prompts = load.amount if load.kind == "batch" else 1.0
    prefill = of.server.prefilling(prompts, load.new, load.hit)
    return {"decode_bounds": _shares(decode), "prefill_bounds": _shares(prefill)}


def _shares(spent: Spending) -> dict[str, float]:
    """Parts of a step, the largest first."""
    total = float(spent.total)
    parts = {name: float(value) / total for name, value in spent.seconds.items()}
    ordered = sorted(parts.items(), key=lambda each: -each[1])
    return {name: share for name, share in ordered if share >= SHOWN}


def prompt_share(load: Load, found: Mean) -> float:
    """Share of the engine's time that prompts take."""
    more = max(load.output_len - 1, 0)
    prompt = found.alone / load.amount if load.kind == "batch" else found.prompt
    decode = more * found.step / np.maximum(found.decoding, 1.0)
    return prompt / (prompt + decode)


def _energy(of: Replica, load: Load, found: Mean, rate: float) -> dict[str, Any]:
    """Watts, joules and US dollars."""
    price = price_of(of.device, of.asked.price_per_hour)
    share = float(prompt_share(load, found))
    lengths = load.input_len, load.output_len
    cost = dollars(price.usd_per_hour, of.cut.devices, rate, lengths, share)
    watts, scope = _watts(of, load, found)
    per_token = None
    if watts is not None and rate > 0:
        per_token = watts * of.cut.devices / (rate * load.output_len)
    return {
        "power_w": watts,
        "power_scope": scope,
        "energy_j_per_output_token": per_token,
        "price_usd_per_hour": price.usd_per_hour,
        "price_said": price.said,
        "prompt_share": share,
        "usd_per_million_input": cost.input,
        "usd_per_million_output": cost.output,
        "usd_per_million_output_all": cost.output_all,
    }


def _watts(of: Replica, load: Load, found: Mean) -> tuple[float | None, str]:
    """Mean watts of one device, and what of."""
    decoding = max(found.decoding, 1.0)
    more = max(load.output_len - 1, 0)
    if load.kind == "batch":
        prompt = of.server.prefilling(load.amount, load.new, load.hit)
        prompts = float(prompt.joules) / load.amount
    else:
        plain = of.server.decoding(decoding, load.context)
        with_one = of.server.mixing(decoding, load.context, load.new, load.hit)
        prompts = max(float(with_one.joules) - float(plain.joules), 0.0)
    step = of.server.decoding(decoding, load.context)
    steps = more / of.spec.tokens
    joules = prompts + steps * float(step.joules) / decoding
    tdp = of.device.power.tdp
    if not math.isfinite(joules) or of.server.idle_w is None:
        cap = of.device.power.cap
        watts = min(float(tdp), float(cap)) if tdp and cap else float(tdp) if tdp else None
        return watts, "TDP" if watts else ""
    prompt_s = found.alone / load.amount if load.kind == "batch" else found.prompt
    working = prompt_s + more * found.step / decoding  # of the engine, per request
    busy = min(found.requests_per_s * working, 1.0)
    watts = joules / max(working, 1e-12) / of.server.devices
    return busy * watts + (1.0 - busy) * of.server.idle_w, "board"


def _said(of: Replica, load: Load, held: Room, met: list[Replayed]) -> tuple[str, ...]:
    """What was assumed for the load."""
    said = []
    context = getattr(of.server.model.config, "context", None)
    tokens = load.input_len + load.output_len
    if isinstance(context, int) and tokens > context:
        said.append(
            f"{tokens:,} tokens of a sequence: more than the {context:,} that {of.asked.model} was"
            " made for; times and memory are as if it could"
        )
    if load.hit:
        said.append(f"{load.hit:,} of the {load.input_len:,} tokens of a prompt are in the cache")
    if load.spread and met:
        said.append(
            f"percentiles of {sum(len(r.e2e) for r in met):,} replayed requests (seed {load.seed})"
            f" whose lengths lie within {load.spread:.0%} of those given"
        )
    if load.kind == "concurrency":
        said.append("closed loop: the first requests of all users come at once, a tenth of all")
    if load.kind == "rate":
        said.append("requests arrive at random, one independent of the other (Poisson)")
    said.append(f"cache in blocks of {BLOCK} tokens")
    if any(r.preempted for r in met):
        said.append("requests that lose their cache to others are computed again")
    return tuple(said)
