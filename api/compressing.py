"""What users call to compare compressed forms of a net: `compress`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from roofcast.calls import scenario_of
from roofcast.results import Forecast
from roofcast.simulator.choose import compress as engine

if TYPE_CHECKING:
    import pandas


class Compressed:
    """A net as it is and in its compressed forms, the net as it is first."""

    def __init__(self, found: engine.Compressed) -> None:
        self.found = found
        """The forms: name, options, needs, forecast, and why one is refused."""

    @property
    def forecasts(self) -> dict[str, Forecast]:
        """The forecast of each form that is not refused, by its name."""
        return {
            v.name: Forecast.of(v.forecast, self.found.scenario_of(v))
            for v in self.found.variants
            if v.forecast is not None
        }

    @property
    def refused(self) -> dict[str, str]:
        """Why a form is refused, by its name."""
        return {v.name: v.refused for v in self.found.variants if v.forecast is None}

    @property
    def not_said(self) -> tuple[str, ...]:
        """What no forecast says of a compressed net, accuracy first."""
        return engine.NOT_SAID

    def to_frame(self) -> pandas.DataFrame:
        """One row per form as a pandas table, in SI units."""
        import pandas

        return pandas.DataFrame(engine.table(self.found))


def compress(model: Any = None, device: str | None = None, **fields: Any) -> Compressed:
    """One inference pass of a net as it is, in few bits, with 2 of every 4 weights, pruned, and as
    a student of half the size; each as `predict` forecasts it.

    model, device and fields are those of `predict`, without those that compress. Raises
    RoofcastError as `predict` does.

    >>> found = compress("gpt2", "a100-sxm4-80gb", batch=8)
    >>> found.forecasts["int4 weights"].weights, sorted(found.refused)
    ('int4', ['fp8', 'nvfp4'])
    """
    scenario = scenario_of(model, {"device": device, "mode": "infer", **fields})
    return Compressed(engine.compress(scenario))
