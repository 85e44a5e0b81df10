"""What users call to forecast a server of generated text: `serving`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.serving.asked import Serving
from roofcast.simulator.serving.chain import serve
from roofcast.simulator.serving.load import Load, of_trace, read_trace
from roofcast.simulator.serving.result import ServingForecast
from roofcast.simulator.serving.slo import level, with_level


class Served(ServingForecast, frozen=True, kw_only=True):
    """A forecast of a model served under a load, in SI units and USD. Printed, it is the page of
    `roofcast serving`.

    Every number is a field: `ttft_s.mean`, `tpot_s.p99`, `output_tokens_per_s`,
    `memory.largest_concurrency`, `usd_per_million_output` ...
    """

    def __str__(self) -> str:
        from roofcast.reports.pages.serving import text

        return text(self)

    __repr__ = __str__


def serving(
    model: str,
    device: str,
    *,
    concurrency: int | None = None,
    rate: float | None = None,
    batch: int | None = None,
    offline: bool = False,
    trace: str | Path | None = None,
    slo: str | None = None,
    input_len: int = 1024,
    output_len: int = 512,
    prefix_share: float = 0.0,
    set: Mapping[str, str | float | int] | None = None,
    system: str | None = None,
    devices: int | None = None,
    tp: int | None = None,
    pp: int | None = None,
    ep: int | None = None,
    dp: int | None = None,
    weights: str | None = None,
    kv: str | None = None,
    stack: str | None = None,
    speculate: int = 0,
    acceptance: float | None = None,
    requests: int | None = None,
    seed: int = 0,
    price_per_hour: float | None = None,
) -> Served:
    """Forecast latency, throughput, memory, energy and cost of a model that generates text.

    One load is given, or a service level: concurrency (users, each with one request under way),
    rate (requests per second, arriving at random), batch (a static batch), offline (all requests
    queued), trace (a .csv with the columns time [s], input, output [tokens]), or slo
    ("ttft=500ms,tpot=30ms": the highest rate that holds it for 90 % of the requests). Default:
    concurrency 1.

    model: a shipped name, or the path of a config.json.
    device: name of a device, or path of a .toml file; set: changes to it.
    input_len, output_len: tokens of a prompt and of an answer, the first token among them.
    prefix_share: share of a prompt that is in the cache already, 0 to below 1.
    devices, tp, pp, ep, dp: number of devices and degrees of parallelism. dp with ep is
        data-parallel attention, without it replicas. Default: tensor parallelism within a node.
    weights, kv: formats of weights and cache: bf16, fp8, int4, nvfp4, q4_k_m ...
    stack: serving software: "vllm" (default), "sglang", "trt-llm", "llama.cpp" ...
    speculate, acceptance: tokens drafted per step, and the probability that one is kept.
    requests, seed: of the replay that percentiles come from.
    price_per_hour: USD per device-hour. Default: the median of public quotes.

    Raises RoofcastError: one line that says what is wrong and what would do.

    >>> served = serving("llama-3.1-8b", "h100-sxm5", concurrency=64)
    >>> served.memory.cache_bytes_per_token
    131072.0
    """
    given = {"concurrency": concurrency, "rate": rate, "batch": batch, "slo": slo, "trace": trace}
    kinds = [k for k, value in given.items() if value is not None] + ["offline"] * bool(offline)
    if len(kinds) > 1:
        raise BadInput(f"{kinds[0]} and {kinds[1]}: two loads; give one of them")
    kind = kinds[0] if kinds else "concurrency"
    trace_of = read_trace(trace, prefix_share) if trace is not None else None
    if trace_of is not None:
        load = of_trace(trace_of, prefix_share, seed)
    else:
        amount = given.get(kind)
        load = Load(
            kind="rate" if kind == "slo" else kind,
            amount=float(amount) if isinstance(amount, int | float) else 1.0,
            input_len=input_len,
            output_len=output_len,
            cached=prefix_share,
            requests=requests,
            seed=seed,
        )
    asked = Serving(
        model=model, device=device, load=load, set=dict(set or {}), system=system,
        devices=devices, tp=tp, pp=pp, ep=ep, dp=dp, weights=weights, kv=kv, stack=stack,
        speculate=speculate, acceptance=acceptance, price_per_hour=price_per_hour,
    )  # fmt: skip
    found = with_level(asked, level(slo)) if slo is not None else serve(asked, trace_of)
    return _served(found)


def _served(found: ServingForecast) -> Served:
    """The engine's forecast with what a person wants to see of it."""
    fields: dict[str, Any] = {name: getattr(found, name) for name in found.__struct_fields__}
    return Served(**fields)
