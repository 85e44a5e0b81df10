"""The cache of keys and values that generation would hold: a pass over whole sequences has none."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from roofcast.hwdb.errors import BadInput, number_of
from roofcast.simulator.forecast.lengths import at_longest
from roofcast.simulator.forecast.resolve import resolve
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.work.generation import Formats, forward
from roofcast.simulator.work.step import Step
from roofcast.simulator.work.traced import ALONE

STATES = "whatever the length"  # how a line on states ends
# ops with a state
STATEFUL = {"scan", "delta_rule", "linear_attention", "recurrent", "wkv", "short_conv"}


def cache_fields(step: Step, layout: Layout | None = None) -> dict[str, Any]:
    """Fields of a MemoryForecast: bytes of keys and values per token and sequence on one device,
    of all layers and of those that look back on all tokens, and bytes of the keys and values of
    the encoder's output. None but for inference of a language model.
    """
    if step.recipe.mode != "infer" or not step.caches:
        return {}
    share = 1.0 / (layout.pp * layout.cp) if layout else 1.0
    own = [c for c in step.caches if c.tokens is None]
    fields = {
        "kv_cache_bytes_per_token": float(sum(c.bytes * c.count for c in own) * share),
        "kv_cache_bytes_per_token_past_windows": float(
            sum(c.bytes * c.count for c in own if c.window is None) * share
        ),
    }
    source = sum(c.bytes * c.count * c.tokens for c in step.caches if c.tokens is not None)
    if step.recipe.size:
        tokens = float(step.recipe.size)
        held = sum(c.bytes * c.count * min(tokens, c.window or tokens) for c in own)
        fields["kv_cache_bytes_per_sequence"] = float((held + source) * share)
    return fields | ({"cross_cache_bytes_per_sequence": float(source * share)} if source else {})


def said_of_cache(step: Step, layout: Layout | None = None) -> tuple[str, ...]:
    """A line that no cache is counted, and how large one would be."""
    fields = cache_fields(step, layout)
    stateful = any(node.op in STATEFUL for node in step.nodes)
    if not fields:
        said = f"no cache counted: the recurrent state of the layers, {STATES}"
        return (said,) if stateful and step.recipe.mode == "infer" else ()
    names = ("kv_cache_bytes_per_token", "kv_cache_bytes_per_token_past_windows")
    size, past = (_bytes(fields[name]) for name in names)
    source = [_bytes(v) for name, v in fields.items() if name.startswith("cross_cache")]
    windows = sorted({c.window for c in step.caches if c.window is not None})
    of = "token and device" if layout and layout.devices > 1 else "token"
    text = f"{NOT_COUNTED} {size} per {of} of each sequence"
    if windows:
        spans = " and ".join(f"{w:,}" for w in windows[:3])
        text += f", and {past} per token further back than the attention window of {spans} tokens"
    if source:
        tokens = max(c.tokens for c in step.caches if c.tokens is not None)
        text += f", and {source[0]} per sequence for the {tokens:,} tokens of the encoder's output"
    if any(node.op == "short_conv" for node in step.nodes):
        text += f"; other layers hold the last inputs of a convolution, {STATES}"
    elif stateful:
        text += f"; other layers hold a recurrent state, {STATES}"
    return (text,)


def state_bytes(s: Scenario) -> float:
    """Bytes of the recurrent states of a sequence on one device; 0 of what generates no tokens."""
    asked = resolve(s)
    layout = asked.layout
    parallel = layout.parallel if layout else ALONE
    try:
        made = forward(asked.model, "decode", Formats(asked.recipe.precision), parallel)
    except BadInput:
        return 0.0
    return sum(c.bytes * c.count for c in made.states) / (layout.pp if layout else 1)


NOT_COUNTED = "no KV cache counted: generation would hold"


def with_cache(found: Forecast, scenario: Scenario) -> Forecast:
    """The forecast of an inference pass of `scenario` with the cache of all its sequences, at its
    length, and their recurrent states in its memory; as it is where nothing is generated, or no
    length is known.
    """
    m = found.memory
    states = state_bytes(scenario) if any(x.endswith(STATES) for x in found.assumptions) else 0.0
    if m.kv_cache_bytes is not None or (m.kv_cache_bytes_per_sequence is None and not states):
        return found
    ranks = found.layout.dp if found.layout is not None else 1
    batch = math.ceil(found.batch / ranks)
    one = (m.kv_cache_bytes_per_sequence or 0.0) + states
    cache = one * batch
    peak, capacity = m.peak_bytes + cache, m.capacity_bytes
    per_pass = (m.activations_bytes + m.transient_bytes) / batch

    def most(known: int | None, above: float) -> int | None:
        """The largest batch whose peak, `above` times its forecast, fits beside its caches."""
        growing = above * per_pass + one
        if capacity is None or growing <= 0:
            return known
        left = capacity - above * m.peak_bytes - cache
        fitting = max(math.floor(left / growing + batch), 0) * ranks
        return fitting if known is None else min(known, fitting)

    above = None if m.high_bytes is None else m.high_bytes / m.peak_bytes
    many = f"{number_of(batch, 'sequence')} per device"
    longest = at_longest(scenario).sequence or found.sequence
    beside = f"KV cache counted: {many} of {longest:,} tokens, "
    said = [
        beside + line.removeprefix(NOT_COUNTED).strip() if line.startswith(NOT_COUNTED) else line
        for line in found.assumptions
    ]
    if states:
        size = f": {_bytes(states)} per sequence, counted"
        said = [x.removeprefix("no ") + size if x.endswith(STATES) else x for x in said]
    memory = msgspec.structs.replace(
        m,
        kv_cache_bytes=cache,
        kv_cache_bytes_per_sequence=one,
        peak_bytes=peak,
        fits=None if capacity is None else peak <= capacity,
        low_bytes=None if m.low_bytes is None else m.low_bytes + cache,
        high_bytes=None if m.high_bytes is None else m.high_bytes + cache,
        largest_batch=most(m.largest_batch, 1.0),
        largest_batch_surely=most(m.largest_batch_surely, above) if above else None,
    )
    return msgspec.structs.replace(found, memory=memory, assumptions=tuple(said))


def _bytes(value: float) -> str:
    """Bytes in KiB, or from 1000 KiB on in MiB, without decimals where there are none.

    >>> _bytes(131072.0), _bytes(70272.0), _bytes(1310720.0)
    ('128 KiB', '68.6 KiB', '1.25 MiB')
    """
    kib = value / 1024
    return f"{kib:.3g} KiB" if kib < 999.5 else f"{kib / 1024:.3g} MiB"
