"""The highest rate of requests at which two pools hold a service level; forecasts over users."""

from __future__ import annotations

import msgspec
import numpy as np

from roofcast.simulator.serving.asked import Level
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.pools.asked import Pools
from roofcast.simulator.serving.pools.chain import Run, at_lengths, means, replayed, run, serve
from roofcast.simulator.serving.result import ServingForecast
from roofcast.simulator.serving.slo import SLOWEST, Curve, reached

STEP = 4  # between two numbers of users


class PoolsCurve(Curve):
    """A percentile of the times of requests over the rate at which they arrive, of two pools."""

    def __init__(self, made: Run, load: Load, wanted: Level) -> None:
        self.made, self.load, self.wanted = made, load, wanted
        self.likeness = made.of.likeness
        self.highest = float(made.costing.totals.highest)
        self.found: dict[float, dict[str, float]] = {}

    def at(self, rate: float) -> dict[str, float]:
        """Seconds by what is limited, at a rate of all instances."""
        if rate not in self.found:
            one = msgspec.structs.replace(self.load, amount=rate)
            met = replayed(self.made, one, means(self.made, one))
            assert met is not None, "a rate is replayed"
            self.found[rate] = {
                name: met.percentile(name, self.wanted.percent)
                for name in self.wanted.limits
                if np.isfinite(getattr(met.found, name)).any()
            }
        return self.found[rate]


def with_level(asked: Pools, wanted: Level) -> ServingForecast:
    """The forecast at the highest rate that holds a service level. Raises BadInput where not even
    requests that come alone hold it.
    """
    load = msgspec.structs.replace(asked.decode.load, kind="rate")
    made = run(at_lengths(asked, load))
    curve = PoolsCurve(made, load, wanted)

    def missed(worst: str) -> str:
        alone = means(made, msgspec.structs.replace(load, amount=SLOWEST * curve.highest)).mean
        need = {"ttft": alone.ttft, "tpot": alone.tpot, "e2e": alone.e2e}[worst]
        return (
            f"slo {worst} {1000 * wanted.limits[worst]:g} ms: no rate holds it; a request alone"
            f" needs about {1000 * need:.3g} ms; allow more, or use more or faster devices"
        )

    def forecast(rate: float) -> ServingForecast:
        return serve(at_lengths(asked, msgspec.structs.replace(load, amount=rate)))

    return reached(curve, forecast, missed)


def front(asked: Pools) -> list[ServingForecast]:
    """Forecasts of 1, 4, 16 ... users of each decoding instance, up to as many as fit."""
    made = run(asked)
    n = made.costing.n
    numbers = [1]
    while numbers[-1] * STEP < made.costing.places:
        numbers.append(numbers[-1] * STEP)
    if numbers[-1] < made.costing.places:
        numbers.append(int(made.costing.places))
    found = []
    for users in numbers:
        load = msgspec.structs.replace(
            asked.decode.load, kind="concurrency", amount=float(users * n)
        )
        found.append(serve(at_lengths(asked, load), replays=None))
    return found
