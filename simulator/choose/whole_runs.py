"""What a run takes as a whole, for many steps at once: as `predict` forecasts its campaign."""

from __future__ import annotations

from roofcast.hwdb.records import Device
from roofcast.simulator.campaign.energy import SCOPES
from roofcast.simulator.campaign.terms import terms
from roofcast.simulator.campaign.whole import Facts, Part, chance, mean_time_s
from roofcast.simulator.choose.floors import Floor
from roofcast.simulator.choose.wanted import probability
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.forecast.whole_run import host_rate


def site_joules(found: Forecast) -> float | None:
    """Electricity of a run at the site [J], with what failures repeat; None where it is unknown."""
    joules = found.energy_by_scope_j.get(SCOPES[-1])
    if joules is None or found.campaign is None:
        return joules
    return found.campaign.energy_j


class Length:
    """How long a run is, and what it takes."""

    def __init__(self, scenario: Scenario) -> None:
        s = scenario
        self.given = not (s.tokens is None and s.samples is None and s.epochs is None)
        self.whole = self.given and s.mode == "train"  # with checkpoints, failures and restarts
        self.terms = terms(s.campaign)
        self._intervals: dict[str, Forecast] = {}

    def seconds(self, of: Floor, device: Device, devices: int, step_s: float) -> float:
        """Seconds of the whole run; of one step where it has no length."""
        if not self.whole:
            return of.steps * step_s
        return mean_time_s(self._facts(of, device, devices, step_s), self.terms)

    def chance(
        self,
        of: Floor,
        scenario: Scenario,
        device: Device,
        devices: int,
        step_s: float,
        limit_s: float,
    ) -> float:
        """The probability that the run takes no longer: by the interval of the first layout of a
        device that is asked about.
        """
        if scenario.device not in self._intervals:
            self._intervals[scenario.device] = forecast(scenario)
        f = self._intervals[scenario.device]
        interval = {
            level: (low / f.step_time_s * step_s, high / f.step_time_s * step_s)
            for level, (low, high) in f.interval_s.items()
        }
        return self.sure(of, device, devices, step_s, interval, limit_s)

    def sure(
        self,
        of: Floor,
        device: Device,
        devices: int,
        step_s: float,
        interval_s: dict[str, tuple[float, float]],
        limit_s: float,
    ) -> float:
        """The same by the interval of a step."""
        if not self.whole:
            return probability(interval_s, limit_s / of.steps, step_s)
        low, high = interval_s.get("80", (None, None))
        facts = self._facts(of, device, devices, step_s)
        part = facts.parts[0]._replace(low_s=low, high_s=high)
        return chance(facts._replace(parts=(part,)), self.terms, limit_s)

    def _facts(self, of: Floor, device: Device, devices: int, step_s: float) -> Facts:
        step = Part(
            steps=of.steps, step_s=step_s, low_s=None, high_s=None, forward=1.0,
            samples=of.samples, tokens=None, step_j=None,
        )  # fmt: skip
        return Facts(
            device=device, devices=devices, parts=(step,), state_bytes=of.state_bytes or 0.0,
            host_rate=host_rate(device), power_scope="", price=None, price_given=False,
        )  # fmt: skip
