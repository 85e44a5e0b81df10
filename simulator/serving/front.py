"""The front of a server: throughput per device against speed per user, over numbers of users."""

from __future__ import annotations

import msgspec

from roofcast.simulator.serving.asked import Serving
from roofcast.simulator.serving.chain import held_of, replica, serve
from roofcast.simulator.serving.result import ServingForecast

STEP = 4  # between two numbers of users


def front(asked: Serving) -> list[ServingForecast]:
    """Forecasts of 1, 4, 16 ... users for each replica, up to as many as fit."""
    of = replica(asked)
    held = held_of(of, asked.load)
    most = max(held.sequences(asked.load.input_len + asked.load.output_len), 1)
    numbers = [1]
    while numbers[-1] * STEP < most:
        numbers.append(numbers[-1] * STEP)
    if numbers[-1] < most:
        numbers.append(most)
    found = []
    for users in numbers:
        amount = float(users * of.cut.replicas)
        load = msgspec.structs.replace(asked.load, kind="concurrency", amount=amount)
        found.append(serve(msgspec.structs.replace(asked, load=load), replays=None))
    return found
