"""Layouts of a server as rows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from roofcast.simulator.serving.result import CLOSED, REPLAY
from roofcast.simulator.serving.search import Found
from roofcast.simulator.serving.settled import Shown

FIRST = ("amount",)


def rows_of(found: Found, shown: Shown, indices: Iterable[int]) -> list[dict[str, Any]]:
    """A row for each of these forecasts of a search, in SI units and USD."""
    front, replayed = set(shown.whole), set(shown.replayed)
    holds = found.holds
    named = [_layout(found, i) for i in range(len(found.layouts))]
    columns = {name: values.tolist() for name, values in found.rows.items()}
    of = found.layout.tolist()
    rows = []
    for i in indices:
        values = {name: _known(column[i]) for name, column in columns.items()}
        users = values.pop("amount")
        more: dict[str, Any] = {"on_front": i in front, "means": means_of(i in replayed)}
        if found.level is not None:
            more["holds_slo"] = bool(holds[i])
        rows.append({**named[of[i]], "users": users, **values, **more})
    return rows


def means_of(replayed: bool) -> str:
    """What the means of a row are from."""
    return REPLAY if replayed else CLOSED


def _layout(found: Found, i: int) -> dict[str, Any]:
    """The columns of a layout."""
    laid = found.layouts[i]
    cut, server = laid.replica.cut, laid.replica.server
    return {
        "model": laid.asked.model,
        "device": laid.replica.device.id,
        "devices": cut.devices,
        "replicas": cut.replicas,
        "tp": cut.tp,
        "pp": cut.pp,
        "ep": cut.ep,
        "dp": cut.dp,
        "stack": server.profile.name,
        "weights": weights_of(found, i),
        "kv": cache_of(found, i),
        "weights_bytes": laid.held.weight_bytes,
        "runtime_bytes": laid.held.runtime_bytes,
        "usable_bytes": _known(laid.held.memory_bytes),
    }


def weights_of(found: Found, i: int) -> str:
    """Format of the weights of a layout."""
    laid = found.layouts[i]
    return laid.replica.server.formats.weights


def cache_of(found: Found, i: int) -> str:
    """Format of the cache of a layout."""
    laid = found.layouts[i]
    bits = 8 * laid.replica.server.formats.cache
    return laid.asked.kv or f"{bits:g} bits"


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
