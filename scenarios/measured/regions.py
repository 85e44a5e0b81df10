"""Transcribe carbon intensities of electricity into hwdb/power/regions.csv.

    python -m roofcast.scenarios.measured.regions FOLDER

FOLDER: codecarbon/data of the package codecarbon (MIT): private_infra/global_energy_mix.json
(countries; Our World in Data), private_infra/2023/usa_emissions.json (states; EPA eGRID), and
cloud/impact.csv (regions of Google Cloud, by Google).
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

from roofcast.hwdb.sites import FOLDER

TARGET = FOLDER / "regions.csv"
COLUMNS = ("region", "name", "g_per_kwh", "year", "source")
HEAD = """\
# Carbon intensity of electricity [g CO2e/kWh], transcribed by scenarios/measured/regions.py from \
codecarbon 3.3.2 (MIT).
# owid: Our World in Data, energy, life cycle, yearly mean of the country. egrid: US EPA eGRID, \
yearly mean of the state.
# google: cloud.google.com/sustainability/region-carbon, location-based yearly mean of the grid.
"""
GOOGLE_YEAR = "2023"  # of the table that codecarbon cites, as published in 2024
POUND_KG = 0.45359237


def rows(folder: Path) -> list[dict[str, str]]:
    """The rows of the table. Raises OSError where a file is missing."""
    found = []
    text = (folder / "private_infra/global_energy_mix.json").read_text(encoding="utf-8")
    for code, each in sorted(json.loads(text).items()):
        found.append(_row(code, each["country_name"], each["carbon_intensity"], each["year"],
                          "owid"))  # fmt: skip
    text = (folder / "private_infra/2023/usa_emissions.json").read_text(encoding="utf-8")
    states = json.loads(text)
    year = states["_source"]["year"]
    for state, each in sorted(states.items()):
        if not state.startswith("_"):  # lb/MWh
            rate = float(each["emissions"]) * POUND_KG
            found.append(_row(f"US-{each['regionCode']}", state.title(), rate, year, "egrid"))
    with (folder / "cloud/impact.csv").open(encoding="utf-8-sig", newline="") as file:
        for each in csv.DictReader(file):
            if each["impact"] and each["provider"] == "gcp":
                name = f"Google Cloud, {each['city'] or each['country_name']}"
                found.append(_row(each["region"], name, float(each["impact"]), GOOGLE_YEAR,
                                  "google"))  # fmt: skip
    return found


def _row(region: str, name: str, rate: float, year: object, source: str) -> dict[str, str]:
    return dict(zip(COLUMNS, (region, name, f"{rate:.0f}", str(year), source), strict=True))


def main(folder: str) -> None:
    """Write the table."""
    found = rows(Path(folder))
    with TARGET.open("w", encoding="utf-8", newline="") as file:
        file.write(HEAD)
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    print(f"{len(found)} regions")


if __name__ == "__main__":
    main(sys.argv[1])
