"""What users call to forecast a server of generated text: `serving`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roofcast.hwdb.errors import BadInput, quoted
from roofcast.reports.option_pools import NAMES, pools_of
from roofcast.simulator.serving.asked import Serving
from roofcast.simulator.serving.chain import serve
from roofcast.simulator.serving.load import Load, of_trace, read_trace
from roofcast.simulator.serving.result import ServingForecast
from roofcast.simulator.serving.slo import level, with_level

KINDS = ("concurrency", "rate", "batch", "offline", "trace", "slo")


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
    pools: Mapping[str, Any] | None = None,
) -> Served:
    """Forecast latency, throughput, memory, energy and cost of a model that generates text.

    One load is given: concurrency (users, each with one request under way; default: 1), rate
    (requests per second, arriving at random), batch (static), offline (all requests queued), trace
    (a .csv with the columns time [s], input, output [tokens]), or slo ("ttft=500ms,tpot=30ms": the
    highest rate that holds it for 90 % of the requests).

    model, device, set, system: as of `predict`.
    input_len, output_len: tokens of a prompt, and of an answer with its first token.
    prefix_share: share of a prompt that is in the cache already, 0 to below 1.
    devices, tp, pp, ep, dp: number of devices, degrees of parallelism. dp with ep is data-parallel
        attention, without it replicas. Default: tensor parallelism within a node.
    weights, kv: formats of weights and cache: bf16, fp8, int4, nvfp4, q4_k_m ...
    stack: serving software: "vllm", "sglang", "trt-llm", "llama.cpp" ...
        Default: the usual one of the device.
    speculate, acceptance: tokens drafted per step, and the probability that one is kept.
    requests, seed: of the replay that percentiles come from.
    price_per_hour: USD per device-hour. Default: the median of public quotes.
    pools: prompts on devices of their own, as the options of `roofcast serving` name it:
        {"prefill_devices": 8, "decode_devices": 16, "prefill_tp": 4, "prefill_on": "h20"}.

    Raises RoofcastError: one line that says what is wrong and what would do.

    >>> serving("llama-3.1-8b", "h100-sxm5", batch=1).memory.cache_bytes_per_token
    131072.0
    """
    return _serving(locals())


def _serving(given: dict[str, Any]) -> Served:
    """The forecast of the arguments of `serving`."""
    kinds = [kind for kind in KINDS if given[kind] is not None and given[kind] is not False]
    if len(kinds) > 1:
        raise BadInput(f"{kinds[0]} and {kinds[1]}: two loads; give one of them")
    kind = kinds[0] if kinds else "concurrency"
    share, seed = given["prefix_share"], given["seed"]
    trace = read_trace(given["trace"], share) if kind == "trace" else None
    load = of_trace(trace, share, seed) if trace is not None else _load(given, kind)
    names = ("model", "device", "system", "devices", "tp", "pp", "ep", "dp", "weights", "kv",
             "stack", "speculate", "acceptance", "price_per_hour")  # fmt: skip
    asked = Serving(
        load=load, set=dict(given["set"] or {}), **{name: given[name] for name in names}
    )
    two = pools_of(_known(given["pools"]), asked) if given["pools"] else None
    if two is not None:
        from roofcast.simulator.serving.pools import chain, slo

        if kind == "slo":
            return _served(slo.with_level(two, level(given["slo"])))
        return _served(chain.serve(two, trace))
    if kind == "slo":
        return _served(with_level(asked, level(given["slo"])))
    return _served(serve(asked, trace))


def _known(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of two pools. Raises BadInput for another name."""
    wrong = next((name for name in given if name not in NAMES), None)
    if wrong is not None:
        raise BadInput(f"pools {quoted(str(wrong))}: known: {', '.join(NAMES)}")
    return dict(given)


def _load(given: dict[str, Any], kind: str) -> Load:
    """The load that the arguments give."""
    amount = given[kind]
    plain = isinstance(amount, int | float) and not isinstance(amount, bool)
    return Load(
        kind="rate" if kind == "slo" else kind,
        amount=float(amount) if plain else 1.0,
        input_len=given["input_len"],
        output_len=given["output_len"],
        cached=given["prefix_share"],
        requests=given["requests"],
        seed=given["seed"],
    )


def _served(found: ServingForecast) -> Served:
    """The engine's forecast with what a person wants to see of it."""
    fields: dict[str, Any] = {name: getattr(found, name) for name in found.__struct_fields__}
    return Served(**fields)
