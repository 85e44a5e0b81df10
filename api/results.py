"""The Forecast that `predict` returns: the engine's, with what a person wants to see of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.forecast import result
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.written import Written

if TYPE_CHECKING:
    import pandas


class Forecast(result.Forecast, frozen=True, kw_only=True, dict=True):
    """A forecast of one step, in SI units. Printed, it is a summary of about ten lines; in a
    notebook, a table.

    Every number is a field: `step_time_s`, `mfu`, `memory.peak_bytes`, `layers` ... A forecast can
    be saved with `to_json` and read back with `from_json`.
    """

    @classmethod
    def of(cls, found: result.Forecast, scenario: Scenario) -> Forecast:
        """The engine's forecast of a scenario, which is kept for what is computed on demand."""
        forecast = cls(**msgspec.structs.asdict(found))
        msgspec.structs.force_setattr(forecast, "scenario", scenario)
        return forecast

    @property
    def largest_batch(self) -> int | None:
        """The largest batch that fits the device, all else equal, as `roofcast memory` shows it
        [samples]; None where the capacity is unknown or any batch fits. Computed when first asked.
        """
        known = self.__dict__.get("_largest_batch", self.memory.largest_batch)
        scenario = self.__dict__.get("scenario")
        if known is None and scenario is not None and "_largest_batch" not in self.__dict__:
            from roofcast.simulator.forecast.chain import with_largest_batch

            known = with_largest_batch(self, scenario).memory.largest_batch
            msgspec.structs.force_setattr(self, "_largest_batch", known)
        return known

    def with_remedies(self) -> Forecast:
        """The forecast with `remedies`: what each change would save, every one forecast; the
        largest first. Raises BadInput for a forecast that was read from JSON.
        """
        from roofcast.simulator.choose.remedies import with_remedies

        scenario = self.__dict__.get("scenario")
        if scenario is None:
            raise BadInput("remedies: a forecast from JSON has no scenario; predict again")
        return Forecast.of(with_remedies(self, scenario), scenario)

    def to_frame(self) -> pandas.DataFrame:
        """The layers as a pandas table, one row per named op, in SI units.

        On one device `time_s` includes the op's optimizer update, which the printed table sums in
        a row of its own.
        """
        import pandas

        return pandas.DataFrame([msgspec.structs.asdict(layer) for layer in self.layers])

    def plot_roofline(self, path: str | Path) -> Path:
        """Draw the roofline of the step into a .png, .svg or .pdf, and return its path, which
        a notebook shows as the picture.

        Raises BadInput where the suffix is another, or where the forecast was read from JSON and
        its device was changed: the changes are not in it.
        """
        from roofcast import hwdb
        from roofcast.reports.files import PICTURES, check_target
        from roofcast.reports.pictures.roofline import draw
        from roofcast.reports.pictures.roofs import machine
        from roofcast.reports.pictures.style import write

        check_target(str(path), PICTURES)
        scenario = self.__dict__.get("scenario")
        if scenario is None and any(a.startswith("hypothetical: ") for a in self.assumptions):
            raise BadInput(f"{self.device}: an edited device is not kept in JSON; predict again")
        wanted, edits = (scenario.device, scenario.set) if scenario else (self.device, {})
        found = machine(hwdb.device(wanted, edits), self.mode == "train")
        write(path, lambda: draw([self], [found]))
        return Written(path)

    def report(self, path: str | Path, sensitivity: bool = True) -> Path:
        """Write the report that `roofcast report` writes, as .html (one file, works offline) or
        .md, and return its path, which a notebook shows as the page.

        sensitivity: whether it says what each number of the hardware is worth. Raises BadInput
        where the suffix is another, or where the forecast was read from JSON, which has no
        scenario: predict again.
        """
        from roofcast.reports.files import check_target
        from roofcast.reports.html.data import answered
        from roofcast.reports.html.page import write

        target = check_target(str(path), (".html", ".md"))
        scenario = self.__dict__.get("scenario")
        if scenario is None:
            raise BadInput("a forecast read from JSON has no scenario to report; predict again")
        write([answered(scenario, self, sensitivity)], target, "Forecast.report")
        return Written(target)

    def __str__(self) -> str:
        from roofcast.reports.pages.summary import summary

        return summary(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from roofcast.reports.pages.summary import html

        return html(self)
