"""What users call to choose: `search` over layouts, `choose` over devices, counts and layouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roofcast import hwdb
from roofcast.calls import scenario_of
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.market import Own, priced
from roofcast.simulator.choose import chosen, explore
from roofcast.simulator.choose.amounts import limit
from roofcast.simulator.choose.assigned import Assigned, assign_files
from roofcast.simulator.choose.tables import choices_table, layouts_table
from roofcast.simulator.choose.wanted import MOST_DEVICES, Wanted
from roofcast.simulator.forecast.scenario import Scenario

if TYPE_CHECKING:
    import pandas

LIMITS = {
    "within": ("within_s", "s"), "under": ("under_usd", "USD"), "max_power": ("max_power_w", "W"),
    "max_energy": ("max_energy_j", "J"),
}  # fmt: skip


class Search:
    """Layouts of a model on devices of one kind, the fastest that fit first."""

    def __init__(self, found: explore.Explored) -> None:
        self.found = found
        """The layouts in columns: options, step_s [s], peak_bytes, fits, reasons."""

    def best(self, top: int = 10) -> list[Scenario]:
        """Scenarios of the fastest layouts that fit, which `predict` takes."""
        return [self.found.scenario_of(i) for i in self.found.best(top)]

    def front(self) -> list[Scenario]:
        """Scenarios of the layouts that no other beats in both time and memory."""
        return [self.found.scenario_of(i) for i in self.found.front()]

    def to_frame(self) -> pandas.DataFrame:
        """Every valid layout as a pandas table, the fastest first, in SI units."""
        import pandas

        return pandas.DataFrame(layouts_table(self.found))


class Choices(chosen.Chosen, frozen=True, kw_only=True, dict=True):
    """What to rent or buy for a run; SI units and USD."""

    def to_frame(self) -> pandas.DataFrame:
        """The choices, then the other points of the front, as a pandas table."""
        import pandas

        return pandas.DataFrame(choices_table(self))


def search(model: Any = None, device: str | None = None, *, devices: int, **fields: Any) -> Search:
    """The layouts of a model on so many devices, each forecast as `predict` forecasts it.

    model, device and fields are those of `predict`; a layout option that is given holds for all.
    Raises RoofcastError as `predict` does.

    >>> search("llama-3-8b", "h100-sxm5", devices=8, batch=32).best(1)[0].dp
    8
    """
    return Search(explore.explore(scenario_of(model, {"device": device, **fields}), devices))


def choose(
    model: Any = None,
    *,
    within: str | float | None = None,
    under: str | float | None = None,
    max_power: str | float | None = None,
    max_energy: str | float | None = None,
    sure: float | None = None,
    goal: str | None = None,
    on: Sequence[str] | None = None,
    devices: int = MOST_DEVICES,
    contract: str = "on-demand",
    provider: str | None = None,
    buy: bool = False,
    owned: Mapping[str, int] | None = None,
    prices: Mapping[str, float] | None = None,
    kinds: Sequence[str] = (),
    top: int = 5,
    **fields: Any,
) -> Choices:
    """Which devices, how many, and in which layout, for a run.

    model and fields are those of `predict`, without a device or a layout, with the run's length;
    without one, what holds the training, by its purchase price, its power or what is owned.
    within, under, max_power, max_energy: limits, as texts ("10d", "50k", "300W", "5MWh") or in s,
        USD, W, J.
    sure: probability with which deadline and budget hold, 0.5 to 1. Default: at the forecast time.
    goal: "cost" (default under a deadline or without limits), "time", "energy", "devices", "power".
    on: devices to choose from. Default: all of makers on whose devices runs were measured.
    kinds: "gpu", "tpu", "npu", "cpu". Default: those of on, else all but CPUs.
    devices: at most so many. contract: "on-demand", "spot", "reserved-1y", "reserved-3y".
    provider: "specialised", "hyperscaler" or "marketplace". buy: purchase, not rent.
    owned: devices there are, by name. prices: USD per device-hour, by device.

    Raises RoofcastError: one line that says what is wrong and what would do.
    """
    given: dict[str, Any] = {"within": within, "under": under}
    given |= {"max_power": max_power, "max_energy": max_energy}
    limits: dict[str, Any] = {
        name: limit(given[key], unit)
        for key, (name, unit) in LIMITS.items()
        if given[key] is not None
    }
    for name in ("device", "devices", "tp", "pp", "dp", "cp", "system"):
        if name in fields:
            raise BadInput(f"{name}: choose finds devices and layouts itself; give on, or leave it")
    among = list(owned) if owned else on
    own = {
        priced(name, among or ()): Own(on_demand=float(usd), spot=float(usd))
        for name, usd in (prices or {}).items()
    }
    there = {hwdb.device(name).typed: number for name, number in (owned or {}).items()}
    wanted = Wanted(
        **limits, sure=sure, goal=goal, contract=contract, provider=provider, buy=buy,
        devices=devices, owned=there, prices=own,
    )  # fmt: skip
    scenario = scenario_of(model, {"device": "h100-sxm5", **fields})  # the device is not read
    found = chosen.choose(scenario, among, wanted, top, kinds)
    return Choices(**{name: getattr(found, name) for name in found.__struct_fields__})


def assign(jobs: str | Path, pool: str | Path, goal: str = "makespan") -> Assigned:
    """A plan of the trainings in a file on the devices in another, as `roofcast assign` makes it.

    goal: what is least once the most priority is finished: "makespan" or "cost". Raises
    RoofcastError where a file is wrong, or where no device of the pool can run any job.
    """
    return assign_files(jobs, pool, goal)
