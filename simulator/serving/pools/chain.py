"""The chain: two pools and a load -> the forecast."""

from __future__ import annotations

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.answer import first_wave, replay_said
from roofcast.simulator.serving.chain import count
from roofcast.simulator.serving.load import Load, Requests, crowded
from roofcast.simulator.serving.means import WAVE, Mean
from roofcast.simulator.serving.pools.answer import Answer, assemble
from roofcast.simulator.serving.pools.asked import Pair, Pools, pair
from roofcast.simulator.serving.pools.means import Apart, Costing, arriving, closed, full
from roofcast.simulator.serving.pools.replay import groups, lengths, part, sample
from roofcast.simulator.serving.result import ServingForecast
from roofcast.simulator.serving.sample import Sample, looped, seen


class Run(NamedTuple):
    """Two pools with what their lengths cost."""

    of: Pair
    costing: Costing


def run(asked: Pools, longest: int | None = None) -> Run:
    """Two pools, laid out. Raises BadInput for what cannot be."""
    of = pair(asked, longest=longest)
    return Run(of, Costing(of))


def serve(
    asked: Pools, trace: Requests | None = None, replays: bool | None = True
) -> ServingForecast:
    """The forecast of a model on two pools under a load. trace, replays: as of `chain.serve`; None
    replays, as mean values of two pools hold less well.
    """
    replays = replays is not False
    longest = int((trace.input + trace.output).max()) if trace is not None else None
    made = run(asked, longest)
    met = means(made, made.of.load)
    replays = replays and not crowded(made.of.load, met.mean.use)
    found = replayed(made, made.of.load, met, trace) if replays else None
    if found is not None:
        found = found._replace(means=True)
        met = _followed(made, met, found)
    return assemble(Answer(made.of, made.costing, met, found, _said(made, found)))


def means(made: Run, load: Load) -> Apart:
    """Mean values of all instances; of a trace that is more than they serve, those of the most."""
    if load.kind == "concurrency":
        return _floats(closed(made.costing, load.amount))
    if load.kind == "offline":
        return _floats(full(made.costing))
    try:
        return _floats(arriving(made.costing, load.amount))
    except BadInput:
        if load.kind == "trace":
            return _floats(full(made.costing))
        raise


def _floats(found: Apart) -> Apart:
    rest = (float(value) for value in found[1:])
    return Apart(Mean(*(float(value) for value in found.mean)), *rest)


def replayed(made: Run, load: Load, met: Apart, trace: Requests | None = None) -> Sample | None:
    """Requests replayed on one set of instances; those of a trace on all."""
    of, found = made.of, met.mean
    if trace is not None:
        longest = float((trace.input + trace.output).max())
        steps = lengths(of, load, longest, found.overhead, True)
        return sample(steps, load, len(trace.input), 0.0, 0.0, trace)
    if load.kind not in ("concurrency", "rate"):
        return None
    one = part(load, groups(of))
    longest = (1 + load.spread) * (load.input_len + load.output_len)
    steps = lengths(of, load, longest, found.overhead)
    number = count(one, found.use)
    first = one.amount / number if load.requests else WAVE
    there = found.e2e
    if load.kind == "rate":
        there *= found.requests_per_s / groups(of)
    share = min(first if one.amount > 1 else 0.0, 1.0)
    taken = found.decoding if load.kind == "concurrency" and found.waiting > 0.0 else 0.0
    return sample(steps, one, number, there, share, taken=taken)


def _followed(made: Run, met: Apart, found: Sample) -> Apart:
    """Means of the replay, which follows each request. Users of a closed loop send one request each
    in the time of one (Little's law).
    """
    before, n, load = met.mean, made.costing.n, made.of.load
    highest = float(made.costing.totals.highest)
    before, late = looped(before, load, found, highest)
    if load.kind == "trace":
        rate = len(found.weight) / found.found.seconds
        before = before._replace(requests_per_s=rate, use=rate / highest)
    after = seen(before, found, before.overhead)
    after = after.delayed(late * after.e2e)
    after = after._replace(decoding=after.decoding / n)
    step = float(made.costing.costs.decode(max(after.decoding, 1.0)))
    rest = max(after.ttft - after.overhead - after.queue, 0.0)
    known = met.prefill + met.transfer + met.joins
    scale = rest / known if known > 0 else 0.0
    parts = (scale * part for part in (met.prefill, met.transfer, met.joins))
    return _floats(Apart(after._replace(step=step), *parts))


def _said(made: Run, found: Sample | None) -> tuple[str, ...]:
    """What is assumed of two pools."""
    of, load = made.of, made.of.load
    both = [line for line in of.prefill.said if line in of.decode.said]
    said = [
        f"{name} pool: {line}"
        for name, each in (("prefill", of.prefill), ("decode", of.decode))
        for line in each.said
        if line not in both
    ]
    profile = of.prefill.server.profile
    when = {
        "prompt": "behind the whole prompt",
        "chunk": "chunk by chunk, behind each of them",
        "layer": "layer by layer, behind each of them",
    }[profile.transfer]
    token = (
        "the decode pool computes the end of the prompt again and makes the first token"
        if profile.first_again
        else "the first token comes with the cache"
    )
    said += [
        f"{profile.name}: the cache of a prompt is sent {when}; {token}",
        *of.link.said,
        "a router gives a request to the instance with the fewest; its own time is not counted",
        "80 % intervals are those of servers whose prompts share the devices",
    ]
    if load.hit:
        said.append(
            f"{load.hit:,} of the {load.input_len:,} tokens of a prompt are in the cache of the"
            " prefill pool already; all are sent"
        )
    if found is not None:
        said.append(replay_said(load, found))
        if (sets := groups(of)) > 1 and load.kind != "trace":
            said.append(f"the replay is of one of {sets} sets of instances, each with its part")
    elif load.kind in ("concurrency", "rate"):
        said.append("mean values; a single load has those of a replay of requests")
    if load.kind == "concurrency" and load.amount > 1:
        said.append(first_wave(load))
    if load.kind == "rate":
        said.append("requests arrive at random, one independent of the other (Poisson)")
    return tuple(dict.fromkeys([*both, *said]))


def at_lengths(asked: Pools, load: Load) -> Pools:
    """The same pools under another load."""
    pools = {
        name: msgspec.structs.replace(getattr(asked, name), load=load)
        for name in ("prefill", "decode")
    }
    return msgspec.structs.replace(asked, **pools)
