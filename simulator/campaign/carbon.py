"""Carbon of a run's electricity: energy of the site times the intensity of its grid."""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.sites import region as region_of
from roofcast.hwdb.tuples import NamedTuple

KWH = 3.6e6  # J
DIRTIEST = 3000.0  # g/kWh that is taken for possible


class Grid(NamedTuple):
    """Where the electricity comes from."""

    region: str  # id of a region; "" where the intensity was given
    g_per_kwh: float  # CO2e
    year: str
    name: str
    source: str

    def kg(self, joules: float) -> float:
        """Emissions of so much electricity [kg CO2e].

        >>> Grid("", 100.0, "", "", "").kg(3.6e9)
        100.0
        """
        return joules / KWH * self.g_per_kwh / 1000.0

    def said(self) -> str:
        """The intensity in words."""
        if not self.region:
            return f"{self.g_per_kwh:g} g CO2e/kWh, given"
        return (
            f"{self.g_per_kwh:g} g CO2e/kWh, mean of {self.name} in {self.year} ({self.source}),"
            " by location"
        )


def grid_of(region: str | None, carbon: float | None) -> Grid | None:
    """The grid of a region, or of a given intensity [g/kWh]; None where neither is asked for.

    Raises BadInput for an intensity that cannot be, UnknownName for an unknown region.
    """
    if region is not None and carbon is not None:
        raise BadInput("region and carbon are two intensities of one grid; give one of them")
    if region is not None:
        found = region_of(region)
        return Grid(found.id, found.g_per_kwh, found.year, found.name, found.source)
    if carbon is None:
        return None
    if not 0.0 <= carbon <= DIRTIEST:
        raise BadInput(
            f"carbon {carbon:g}: grams of CO2e per kWh are wanted, from 0 to {DIRTIEST:g}, for"
            " example 56"
        )
    return Grid("", float(carbon), "", "", "")
