"""What a forecast of serving says: totals over replicas, memory, energy and money."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from roofcast.hwdb.errors import number_of
from roofcast.hwdb.records import Device
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.forecast.memory_error import band, share_below
from roofcast.simulator.serving.asked import Degrees, Serving
from roofcast.simulator.serving.capacity import BLOCK, Room
from roofcast.simulator.serving.engine import FEW
from roofcast.simulator.serving.interval import Ranges, around, ranges
from roofcast.simulator.serving.likeness import basis
from roofcast.simulator.serving.load import Load, crowded
from roofcast.simulator.serving.means import WAVE, Mean
from roofcast.simulator.serving.passes import Spending, timed
from roofcast.simulator.serving.pricing import dollars, price_of
from roofcast.simulator.serving.result import ServingForecast, ServingMemory
from roofcast.simulator.serving.sample import Sample, means_of, spreads
from roofcast.simulator.serving.server import Server
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
    of: Replica, load: Load, held: Room, found: Mean, met: Sample | None, doubt: str = ""
) -> ServingForecast:
    """The forecast from the mean values of one replica, and from a replay where there is one.

    doubt: why mean values do not hold as well as a replay.
    """
    asked, n = of.asked, of.cut.replicas
    rate = found.requests_per_s * _busy(of, load)
    batch = load.amount if load.kind == "batch" else 1.0
    prefill = load.new * batch / found.alone * n
    times, spent = spreads(found, met), _spent(of, load, found)
    known = ranges(of.server.likeness, times, rate * load.output_len, prefill)
    steady = load.kind != "batch"
    return ServingForecast(
        model=asked.model,
        device=of.device.id,
        devices=of.cut.devices,
        replicas=n,
        layout={"tp": of.cut.tp, "pp": of.cut.pp, "ep": of.cut.ep, "dp": of.cut.dp},
        stack=of.server.profile.name,
        weights=of.server.formats.weights,
        kv=(asked.kv or ("16 bits" if of.server.formats.cache == 2.0 else "8 bits")).lower(),
        load=asked.load.kind,
        amount=None if asked.load.kind == "offline" else asked.load.amount,
        input_len=load.input_len,
        output_len=load.output_len,
        requests_per_s=rate,
        total_tokens_per_s=rate * (load.input_len + load.output_len),
        output_tokens_per_s_per_device=rate * load.output_len / of.cut.devices,
        tokens_per_s_per_user=1.0 / times["tpot"].mean if times["tpot"].mean > 0 else 0.0,
        under_way=rate * found.e2e,
        ttft_parts_s={
            "server": found.overhead,
            "queue": found.queue,
            "prefill": float(found.prefill),
        },
        decode_s=found.e2e - found.ttft,
        decoding=float(found.decoding),
        waiting_s=float(found.waiting),
        use=float(found.use) * _busy(of, load) / n if steady else None,
        preempted=met.found.preempted if met else None,
        replayed=len(met.weight) if met else None,
        means=means_of(met),
        decode_step_s=found.step * of.spec.tokens,
        tokens_per_step=of.spec.tokens,
        prefill_s=found.alone,
        memory=memory_of(of, load, held, found),
        interval_class=of.server.likeness.device,
        interval_basis=basis(of.server.likeness, of.device.id),
        assumptions=(*of.said, *_said(of, load, found, met, doubt)),
        **rated(known, rate * load.output_len, prefill),
        **_highest(of, load, known, found.requests_per_s * n / found.use if steady else None, rate),
        decode_bounds=shares(_checked(of, spent[0], max(found.decoding, 1.0), load.context)),
        prefill_bounds=shares(spent[1]),
        **_energy(of, load, found, rate, spent),
    )


def _busy(of: Replica, load: Load) -> float:
    """Replicas of which each has as many users, or as much of a batch, as the fullest one.

    load: of the fullest replica. Little's law: all users send a request each in its time, whether
    they share the replicas evenly or not.
    """
    if load.kind not in ("concurrency", "batch"):
        return float(of.cut.replicas)
    return of.asked.load.amount / load.amount


def rated(known: Ranges, output: float, prefill: float) -> dict[str, Any]:
    """Times and rates with their intervals."""
    return {
        "ttft_s": known.times["ttft"],
        "tpot_s": known.times["tpot"],
        "e2e_s": known.times["e2e"],
        "output_tokens_per_s": output,
        "prefill_tokens_per_s": prefill,
        "prefill_tokens_per_s_range": known.prefill,
    }


def _highest(
    of: Replica, load: Load, known: Ranges, highest: float | None, rate: float
) -> dict[str, Any]:
    """The most requests per second, with its interval, and the interval of the output.

    Requests that arrive by themselves are answered at the rate at which they come, as long as the
    server holds that.
    """
    if highest is None:
        return {"highest_requests_per_s": None, "output_tokens_per_s_range": known.output}
    low, high = around(highest, "output", of.server.likeness)
    output = known.output
    if load.kind in ("rate", "trace"):
        output = min(rate, low) * load.output_len, rate * load.output_len
    return {
        "highest_requests_per_s": highest,
        "highest_requests_per_s_range": (low, high),
        "output_tokens_per_s_range": output,
    }


def memory_of(of: Replica, load: Load, held: Room, found: Mean) -> ServingMemory:
    """Bytes of a device, and how many sequences fit."""
    tokens = load.input_len + load.output_len
    full = held.of_sequence(tokens)
    there = found.decoding
    usable = held.memory_bytes if math.isfinite(held.memory_bytes) else None
    capacity = of.device.memory.limit
    most = held.sequences(tokens)
    longest = held.longest()
    if load.kind == "batch":  # in turns, where it is more than fits
        cache = math.ceil(min(load.amount, max(most, 1)) / held.groups) * full
    else:  # sequences of every age; where more come than fit, the others wait
        cache = (
            there / held.groups * held.of_sequence(load.input_len + held.reserved * load.output_len)
        )
        cache = min(cache, max(held.cache_bytes, full))
    peak = held.weight_bytes + held.runtime_bytes + cache
    low, high = band(peak, "infer")
    doubt = share_below(low, high, float(capacity)) if capacity else None
    if capacity and doubt is not None and peak <= capacity:
        high = float(capacity)
    fits = usable is None or most >= (load.amount if load.kind == "batch" else 1)
    return ServingMemory(
        weights_bytes=held.weight_bytes,
        runtime_bytes=held.runtime_bytes,
        cache_bytes=cache,
        peak_bytes=peak,
        peak_bytes_low=low,
        peak_bytes_high=high,
        fitting_share=doubt,
        usable_bytes=usable,
        capacity_bytes=float(capacity) if capacity else None,
        cache_bytes_per_token=of.server.cache.per_token / of.cut.pp,
        cache_bytes_per_token_past_windows=of.server.cache.per_token_past_windows / of.cut.pp,
        cache_bytes_per_sequence=full,
        largest_concurrency=most,
        largest_concurrency_total=most * of.cut.replicas,
        longest_sequence=longest if math.isfinite(longest) else None,
        model_context=context_of(of),
        fits=fits,
    )


def context_of(of: Replica) -> int | None:
    """Tokens of the longest sequence that the model was made for, where its configuration says."""
    context = getattr(of.server.model.config, "context", None)
    return context if isinstance(context, int) and context > 0 else None


def step_of(of: Replica, sequences: float, context: float) -> Spending:
    """A step of so many sequences: with speculation, drafts and the step that checks them."""
    return _checked(of, of.server.decoding(sequences, context), sequences, context)


def _checked(of: Replica, plain: Spending, sequences: float, context: float) -> Spending:
    """The same, where the step without speculation is known."""
    if not of.spec.drafted:
        return plain
    drafted = sequences * of.spec.drafted
    checked = of.server.mixing(sequences, context, drafted, context, sequences)
    drafts = {"draft": of.spec.draft * plain.total}
    return Spending(checked.seconds | drafts, checked.joules + of.spec.draft * plain.joules)


def _spent(of: Replica, load: Load, found: Mean) -> tuple[Spending, Spending, Spending]:
    """A decode step, a pass of prompts where nothing decodes, and a step with prompts in it; of a
    static batch, which has none, the second again.
    """
    server, decoding = of.server, max(found.decoding, 1.0)
    if load.kind == "batch":
        prompt = server.prefilling(load.amount, load.new, load.hit)
        return server.decoding(decoding, load.context), prompt, prompt
    k = _prompts_of(of, load, decoding)
    asked = [
        server.asked("decode", decoding, load.context),
        server.asked("mixed", decoding, load.context, k * load.new, load.hit, k),
    ]
    step, mixed = timed(asked)
    return step, server.prefilling(1.0, load.new, load.hit), mixed


def _prompts_of(of: Replica, load: Load, decoding: float) -> float:
    """Prompts of a step, as in the mean values."""
    more = max(load.output_len - 1, 1)
    return max(min(of.spec.tokens * decoding / more, of.server.chunk_tokens / load.new), 1.0)


def shares(spent: Spending) -> dict[str, float]:
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


def _energy(
    of: Replica, load: Load, found: Mean, rate: float, spent: tuple[Spending, Spending, Spending]
) -> dict[str, Any]:
    """Watts, joules and US dollars."""
    price = price_of(of.device, of.asked.price_per_hour)
    share = float(prompt_share(load, found))
    lengths = load.input_len, load.output_len
    cost = dollars(price.usd_per_hour, of.cut.devices, rate, lengths, share)
    watts, scope = _watts(of, load, found, spent)
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


def _watts(
    of: Replica, load: Load, found: Mean, spent: tuple[Spending, Spending, Spending]
) -> tuple[float | None, str]:
    """Mean watts of one device, and what of."""
    step, prompt, mixed = spent
    decoding = max(found.decoding, 1.0)
    more = max(load.output_len - 1, 0)
    if load.kind == "batch":
        prompts = float(prompt.joules) / load.amount
    else:
        k = _prompts_of(of, load, decoding)
        prompts = max(float(mixed.joules) - float(step.joules), 0.0) / k
    steps = more / of.spec.tokens
    whole = _checked(of, step, decoding, load.context)
    joules = prompts + steps * float(whole.joules) / decoding
    tdp = of.device.power.tdp
    if not math.isfinite(joules) or of.server.idle_w is None:
        cap = of.device.power.cap
        watts = min(float(tdp), float(cap)) if tdp and cap else float(tdp) if tdp else None
        return watts, "TDP" if watts else ""
    prompt_s = found.alone / load.amount if load.kind == "batch" else found.prompt
    working = prompt_s + more * found.step / decoding  # of the engine, per request
    busy = min(found.requests_per_s * _busy(of, load) / of.cut.replicas * working, 1.0)
    watts = joules / max(working, 1e-12) / of.server.devices
    return busy * watts + (1.0 - busy) * of.server.idle_w, "board"


def _said(of: Replica, load: Load, found: Mean, met: Sample | None, doubt: str) -> tuple[str, ...]:
    """What was assumed for the load."""
    said = [*_uneven(of, load), *beyond(of, load)]
    if load.hit:
        said.append(
            f"{load.hit:,} of the {load.input_len:,} tokens of a prompt are in the cache already;"
            " memory counts them for each sequence"
        )
    if met:
        said.append(replay_said(load, met, doubt))
    elif doubt:
        said.append(f"mean values; a single load has those of a replay of requests: {doubt}")
    if load.kind == "concurrency" and load.amount > 1:
        said.append(first_wave(load))
    if crowded(load, found.use):
        said.append("users in a queue for nearly all of the time: mean values, no percentiles")
    if load.kind == "trace":
        said.append("requests of the trace in the order of their times, whatever that of the rows")
        said.append("requests/s: those of the trace from the first request to the last answer")
    if load.kind == "rate":
        said.append("requests arrive at random, one independent of the other (Poisson)")
    said.append(f"KV cache in blocks of {BLOCK} tokens")
    few = int(FEW)
    if of.server.profile.gemv:
        at_few, at_more = of.server.decode([FEW, FEW + 1], load.context)
        if at_more < at_few:
            said.append(
                f"{of.server.profile.name}: kernels for up to {few} sequences are slower than those"
                f" for more: a step of more than {few} sequences may be shorter"
            )
    if met and met.found.preempted:
        said.append("preempted requests are computed again from their prompt (recomputation)")
    return tuple(said)


def beyond(of: Replica, load: Load) -> list[str]:
    """That a sequence is longer than the model was made for."""
    context, tokens = context_of(of), load.input_len + load.output_len
    if not context or tokens <= context:
        return []
    return [
        f"{tokens:,} tokens of a sequence: more than the {context:,} that {of.asked.model} was"
        " made for; times and memory are as if it could"
    ]


def _uneven(of: Replica, load: Load) -> list[str]:
    """That replicas do not have equal parts of a load, and whose times are told."""
    n, most = of.asked.load.amount, load.amount
    if load.kind not in ("concurrency", "batch") or n == most * of.cut.replicas:
        return []
    what = "users" if load.kind == "concurrency" else "prompts"
    if n < of.cut.replicas:
        idle = number_of(of.cut.replicas - n, "replica has", "replicas have")
        return [f"fewer {what} than replicas: {idle} none"]
    return [f"{n:,.0f} {what} on {of.cut.replicas:,} replicas: times are of one with {most:,.0f}"]


def replay_said(load: Load, met: Sample, doubt: str = "") -> str:
    """What percentiles are of, and means; doubt: why."""
    lengths = f"; lengths lie within {load.spread:.0%} of those given" if load.spread else ""
    what = "means and percentiles" if met.means else "percentiles"
    of = f"{what} of {len(met.weight):,} replayed requests (seed {load.seed})"
    filled = (
        ", sent while the system is as full as this load keeps it" if load.kind == "rate" else ""
    )
    why = f"; {doubt}" if doubt and met.means and load.kind == "concurrency" else ""
    return f"{of}{filled}{lengths}{why}"


def first_wave(load: Load) -> str:
    """The requests of a closed loop that come together."""
    start = load.amount / max(load.requests, load.amount) if load.requests else WAVE
    return (
        f"closed loop: the first requests of all users arrive together, {start:.0%} of all"
        " requests; the others are of users who are mixed, each at another point of a request"
    )
