"""Forecasts of serving as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from roofcast.simulator.serving.result import ServingForecast, Spread

PLAIN = (
    "model", "device", "devices", "replicas", "stack", "weights", "kv", "load", "amount",
    "input_len", "output_len", "requests_per_s", "output_tokens_per_s", "total_tokens_per_s",
    "output_tokens_per_s_per_device", "tokens_per_s_per_user", "prefill_tokens_per_s", "decoding",
    "waiting_s", "use", "means", "highest_requests_per_s", "decode_step_s", "prefill_s", "power_w",
    "energy_j_per_output_token", "price_usd_per_hour", "usd_per_million_input",
    "usd_per_million_output", "usd_per_million_output_all",
)  # fmt: skip
TIMES = ("ttft_s", "tpot_s", "e2e_s")
MEMORY = (
    "weights_bytes", "cache_bytes", "runtime_bytes", "peak_bytes", "usable_bytes",
    "cache_bytes_per_token", "largest_concurrency_total", "fits",
)  # fmt: skip


def table(found: Sequence[ServingForecast]) -> list[dict[str, Any]]:
    """A row per forecast, in SI units."""
    return [_row(each) for each in found]


def _row(f: ServingForecast) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(f, name) for name in PLAIN}
    row |= f.layout
    for name in TIMES:
        spread: Spread = getattr(f, name)
        row[name] = spread.mean
        for part in ("low", "high", "p50", "p90", "p99"):
            row[f"{name}_{part}"] = getattr(spread, part)
    return row | {name: getattr(f.memory, name) for name in MEMORY}
