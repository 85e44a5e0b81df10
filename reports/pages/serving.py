"""A forecast of serving for reading: rates, latency, what bounds it, memory, energy and cost."""

from __future__ import annotations

from roofcast.hwdb.errors import number_of
from roofcast.reports.console import (
    Justify,
    as_text,
    fitted_table,
    page,
    say,
    section,
    show,
    unbroken,
)
from roofcast.reports.format import binary, digits, money, percent, rate, seconds, si
from roofcast.reports.pages.serving_nearest import show_nearest
from roofcast.reports.pages.serving_pools import show_pools, where
from roofcast.reports.parts import Console, Table
from roofcast.simulator.serving.result import ServingForecast, ServingMemory, Spread

WORDS = {  # of parts of a step
    "products": "matrix products",
    "experts": "products of experts",
    "attention": "attention over the KV cache",
    "streams": "norms, activations, sampling",
    "host": "host",
    "draft": "drafts of tokens",
}
_MIXED = 1.1  # TPOT over a decode step from which on the page says what is between
TIMES = (("TTFT", "ttft_s"), ("TPOT", "tpot_s"), ("E2E", "e2e_s"))
LEGEND = (
    "TTFT: to the first token; TPOT: per output token after it; E2E: to the last token; 80 %"
    " interval: of the mean"
)
PARTS = {  # of the time to the first token
    "server": "outside the engine: HTTP, tokenization",
    "queue": "in the engine, until a step takes the prompt",
    "prefill": "the steps that compute the prompt",
    "transfer": "of its KV cache to the decode pool",
    "join": "until a step of the decode pool takes it",
}
SATURATED = 0.999
BEYOND = (
    "the rate is above the lower end of that interval: a real server may not hold it; its queue"
    " then grows without bound, and the intervals of the times do not say so"
)
OPEN = ("rate", "trace")  # loads whose requests come at a rate of their own
WIDTH = 100


def print_serving(f: ServingForecast) -> None:
    """Print all of a forecast."""
    with page() as out:
        _page(out, f)


def text(f: ServingForecast) -> str:
    """All of a forecast as text, WIDTH columns wide."""
    out = Console(WIDTH)
    _page(out, f)
    return "\n".join(line.rstrip() for line in as_text(out).splitlines())


def _page(out: Console, f: ServingForecast) -> None:
    _headline(out, f)
    section(out, "Latency")
    show(out, _latency(f, out.width - 2))
    _waits(out, f)
    if f.pools is not None:
        show_pools(out, f)
    section(out, "What bounds it")
    _bounds(out, f)
    section(out, f"Memory, per device{' of the decode pool' if f.pools else ''}")
    _memory(out, f)
    section(out, "Energy and cost")
    _cost(out, f)
    show_nearest(out, f)
    if f.assumptions:
        section(out, "Assumed")
        for each in f.assumptions:
            say(out, each, first="- ")


def load_words(f: ServingForecast) -> str:
    """The load in words."""
    n, sent = f.amount or 0.0, f.replayed or 0
    at = f" at {digits(n)} requests/s" if sent > 1 else ""  # one request has no rate
    return {
        "batch": f"a static batch of {n:,.0f}",
        "concurrency": f"{n:,.0f} users, each with one request under way"
        if n > 1
        else "1 user with one request under way",
        "rate": f"{rate(n)} requests/s that arrive at random",
        "offline": "all requests queued",
        "trace": f"a trace of {number_of(sent, 'request')}{at}",
    }[f.load]


def on_devices(f: ServingForecast) -> str:
    """The devices and their layout."""
    if f.pools is not None:
        return where(f)
    if f.devices == 1:
        return f.device
    degrees = [f"{name} {n}" for name, n in f.layout.items() if n > 1]
    cut = f" ({', '.join(degrees)})" if degrees else ""
    several = f", {f.replicas:,} replicas" if f.replicas > 1 else ""
    return f"{f.devices:,} {f.device}{cut}{several}"


def _headline(out: Console, f: ServingForecast) -> None:
    say(out, f"{f.model} served on {on_devices(f)}", indent=0, style="bold")
    say(out, f"{load_words(f)}; {number_of(f.input_len, 'token')} in, {f.output_len:,} out")
    say(out, f"{f.stack}, weights {f.weights}, KV cache {f.kv}")
    if f.slo:
        say(out, f"the highest rate that holds {f.slo}")
    out.print()
    rates = [f"{rate(f.output_tokens_per_s)} output tokens/s"]
    if f.devices > 1:
        rates.append(f"{rate(f.output_tokens_per_s_per_device)} per device")
    rates += [f"{rate(f.requests_per_s)} requests/s"]
    if f.load not in ("batch", "concurrency"):
        rates.append(_users(f.under_way))
        if f.devices > 1:
            rates.append(f"{digits(f.under_way / f.devices)} per device")
    each = f"{rate(f.tokens_per_s_per_user)} tokens/s per user (1 / TPOT)"
    rates += [each] if f.tpot_s.mean else []
    say(out, "   ".join(map(unbroken, rates)), style="bold")
    if f.output_tokens_per_s_range is not None and f.load not in OPEN:
        low, high = f.output_tokens_per_s_range
        say(out, f"80 % interval {rate(low)} to {rate(high)} output tokens/s")
    _level(out, f)
    if not f.memory.fits:
        turns = f"does not fit at once: runs in turns of {f.memory.largest_concurrency:,} sequences"
        other = "does not fit: times are as if it did"
        say(out, turns if f.load == "batch" else other, style="bold red")
    elif waiting(f):
        say(out, f"more users than the {places(f)}: some wait")


def _users(number: float) -> str:
    """So many users, each with a request under way."""
    return f"{digits(number) if number < 1000 else f'{number:,.0f}'} concurrent users"


def _level(out: Console, f: ServingForecast) -> None:
    """How sure it is that a service level holds, and the rate at which it is so."""
    if f.slo_probability is None or f.slo_sure_requests_per_s is None:
        return
    held = digits(f.slo_sure_requests_per_s)
    sure = f"at {held} requests/s or less" if f.slo_sure_requests_per_s > 0.0 else "at no rate"
    say(
        out,
        f"probability that a real server holds this: {percent(f.slo_probability)}; 90 % {sure}"
        " (from errors of forecasts of measured servers)",
    )


def _latency(f: ServingForecast, width: int) -> Table:
    columns: list[tuple[str, Justify]] = [
        ("", "left"), ("mean", "right"), ("80 % interval", "right"),
    ]  # fmt: skip
    spread = f.ttft_s.p50 is not None
    columns += [("p50", "right"), ("p90", "right"), ("p99", "right")] if spread else []
    rows = []
    for name, field in TIMES:
        s: Spread = getattr(f, field)
        if name == "TPOT" and f.output_len == 1:  # no token after the first
            continue
        between = "" if s.low is None else f"{seconds(s.low)} to {seconds(s.high)}"
        parts = [seconds(v) if v is not None else "" for v in (s.p50, s.p90, s.p99)]
        rows.append([name, seconds(s.mean), between, *(parts if spread else [])])
    return fitted_table(width, columns, rows, ("p90",) if spread else ())


def _waits(out: Console, f: ServingForecast) -> None:
    """What the times are made of, and how near the load is to the most that there can be."""
    over = "; p50, p90, p99: over requests" if f.ttft_s.p50 is not None else ""
    say(out, f"{LEGEND}{over}", style="dim")
    if f.interval_basis:
        say(out, f"80 % intervals: {f.interval_basis}", style="dim")
    parts = {name: value for name, value in f.ttft_parts_s.items() if value > 0.0}
    if len(parts) > 1:
        made = " + ".join(f"{name} {seconds(value)}" for name, value in parts.items())
        means = "; ".join(f"{name}: {PARTS[name]}" for name in parts)
        say(out, f"TTFT = {made}")
        say(out, means, style="dim")
    if f.decode_s > 0.0:
        say(out, f"E2E = TTFT {seconds(f.ttft_s.mean)} + decode {seconds(f.decode_s)}")
    if f.use is not None and f.highest_requests_per_s is not None and f.load != "offline":
        _capacity(out, f, f.highest_requests_per_s, f.use)
    if f.preempted:
        times = "preemption" if f.preempted == 1 else "preemptions"
        lost = "requests whose KV cache was freed for lack of memory, and computed again"
        say(out, f"{f.preempted:,} {times} in the replay: {lost}")


def _capacity(out: Console, f: ServingForecast, highest: float, use: float) -> None:
    """The most requests per second, and how near this load is to it."""
    most = f"at most {rate(highest)} requests/s with more users"
    if f.highest_requests_per_s_range is not None:
        low, high = f.highest_requests_per_s_range
        most += f" (80 % interval {rate(low)} to {rate(high)})"
    reached = f"this load is {percent(use)} of it" if use < SATURATED else "this load reaches it"
    say(out, f"{most}; {reached}")
    if f.load == "rate" and not f.slo and f.highest_requests_per_s_range is not None:
        if f.requests_per_s > f.highest_requests_per_s_range[0]:
            say(out, BEYOND)


def _parts(f: ServingForecast, shares: dict[str, float]) -> str:
    """Parts of a step, the largest first."""
    words = WORDS | {"exchanges": _collectives(f)}
    return ", ".join(f"{words.get(name, name)} {percent(share)}" for name, share in shares.items())


def _collectives(f: ServingForecast) -> str:
    """Communication between the devices of a replica, by what it is."""
    cut = f.layout
    kinds = ["all-reduce"] if cut["tp"] > 1 or (cut["ep"] > 1 and cut["dp"] == 1) else []
    kinds += ["all-to-all or all-gather"] if cut["dp"] > 1 else []
    kinds += ["send-receive"] if cut["pp"] > 1 else []
    return f"communication ({', '.join(kinds)})"


def _bounds(out: Console, f: ServingForecast) -> None:
    if f.output_len > 1:
        _decode_bounds(out, f)
    prompt = f"prefill: {seconds(f.prefill_s)} for"
    what = f"the {f.amount:,.0f} prompts" if (f.amount or 0) > 1 else "a prompt alone"
    what = what if f.load == "batch" else "a prompt alone"
    tokens = f"{rate(f.prefill_tokens_per_s)} tokens/s"
    say(out, f"{prompt} {what}, {tokens}: {_parts(f, f.prefill_bounds)}")


def _decode_bounds(out: Console, f: ServingForecast) -> None:
    """What bounds a decode step, and where times per token are longer than that."""
    n = max(f.decoding, 1.0)
    sequences = digits(n) if n < 1000 else f"{n:,.0f}"
    several = "sequences" if n > 1 else "sequence"
    step = f"decode: {seconds(f.decode_step_s)} for a step of {sequences} {several}"
    if f.tokens_per_step > 1.0:
        step += f", {digits(f.tokens_per_step)} tokens of each"
    say(out, f"{step}: {_parts(f, f.decode_bounds)}")
    longer = f.tpot_s.mean * f.tokens_per_step > _MIXED * f.decode_step_s
    if longer and f.use is not None and f.layout["pp"] == 1:
        say(out, f"TPOT {seconds(f.tpot_s.mean)} holds such steps and those that compute prompts")


def _memory(out: Console, f: ServingForecast) -> None:
    m = f.memory
    per = f"{binary(m.cache_bytes_per_token)} per token of a sequence"
    if m.cache_bytes_per_token_past_windows < m.cache_bytes_per_token:
        per += f", {binary(m.cache_bytes_per_token_past_windows)} beyond the windows"
    rows = [
        ["weights", binary(m.weights_bytes), ""],
        ["runtime", binary(m.runtime_bytes), "context, libraries, workspaces"],
        ["KV cache", binary(m.cache_bytes), per],
        ["peak", binary(m.peak_bytes), f"of this load{_between(m)}"],
    ]
    if m.usable_bytes is not None:
        of = f"of {binary(m.capacity_bytes)}, that {f.stack} uses"
        rows.append(["limit", binary(m.usable_bytes), of if m.capacity_bytes else ""])
        room = max(m.usable_bytes - m.weights_bytes - m.runtime_bytes, 0.0)
        rows.append(["room", binary(room), "for KV cache: limit - weights - runtime"])
    for name, amount, note in rows:
        say(out, f"{name:<8} {amount:>9}   {note}")
    if m.usable_bytes is None:
        say(out, "the capacity of the device is unknown")
        return
    tokens = f.input_len + f.output_len
    total = f" ({m.largest_concurrency_total:,} on all)" if f.replicas > 1 else ""
    limit = f" (the limit of {f.stack}; memory holds more)" if _stack_limits(f) else ""
    say(
        out,
        f"largest concurrency at {tokens:,} tokens: {m.largest_concurrency:,} sequences{total}"
        f" of {binary(m.cache_bytes_per_sequence)}{limit}",
    )
    _longest(out, f)


def _between(m: ServingMemory) -> str:
    """The 80 % interval of a peak, where measured runs tell it, and whether it may not fit."""
    if m.peak_bytes_low is None or m.peak_bytes_high is None:
        return ""
    found = f"; 80 % interval {binary(m.peak_bytes_low)} to {binary(m.peak_bytes_high)}"
    if m.fitting_share is None:
        return found
    capacity = ", the capacity" if m.peak_bytes_high == m.capacity_bytes else ""
    return f"{found}{capacity}: may not fit: about {10.0 * m.fitting_share:.0f} of 10 such runs fit"


def _stack_limits(f: ServingForecast) -> bool:
    """Whether software, not memory, limits the sequences that run at once."""
    m = f.memory
    if m.usable_bytes is None:
        return True
    room = m.usable_bytes - m.weights_bytes - m.runtime_bytes
    return (m.largest_concurrency + 1) * m.cache_bytes_per_sequence / f.layout["dp"] < room


def _longest(out: Console, f: ServingForecast) -> None:
    """The longest sequence: of the memory, and of the model."""
    longest, made = f.memory.longest_sequence, f.memory.model_context
    said = f"{f.model} was made for up to {made:,}" if made else ""
    if longest is not None:
        fits = f"longest sequence whose KV cache fits alone: {longest:,.0f} tokens"
        say(out, f"{fits}; {said}" if said else fits)
    elif said:
        say(out, f"any length of a sequence fits; {said}")


def _cost(out: Console, f: ServingForecast) -> None:
    if f.power_w is not None and f.energy_j_per_output_token is not None:
        joules = f"{si(f.energy_j_per_output_token, 'J')} per output token"
        scope = "per board, without hosts" if f.power_scope == "board" else "the TDP of each board"
        say(out, f"power {si(f.power_w, 'W')} ({scope}); {joules}")
    else:
        say(out, "the power of the device is unknown")
    if f.usd_per_million_output is None or f.usd_per_million_input is None:
        say(out, f.price_said[0] if f.price_said else "no price")
        return
    by = "by pool" if f.pools else "by the time that they take"
    say(
        out,
        f"{money(f.usd_per_million_input)} per million input tokens and"
        f" {money(f.usd_per_million_output)} per million output tokens, split {by}"
        f" ({percent(f.prompt_share)} for prompts); priced on output tokens alone:"
        f" {money(f.usd_per_million_output_all or 0.0)} per million",
    )
    said = f.price_said or (f"{money(f.price_usd_per_hour or 0.0)} per device-hour, as given",)
    say(out, said[0])


def waiting(f: ServingForecast) -> bool:
    """Whether there are more users than sequences that run at once at full length."""
    return f.load == "concurrency" and (f.amount or 0.0) > f.memory.largest_concurrency_total


def places(f: ServingForecast) -> str:
    """The sequences that run at once, and why no more."""
    most = number_of(f.memory.largest_concurrency_total, "sequence")
    if _stack_limits(f):
        return f"{most} that {f.stack} runs at once"
    return f"{most} that fit at their full {f.input_len + f.output_len:,} tokens"
