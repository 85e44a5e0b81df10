"""Inference in fewer bits: published ratios of speed beside forecast ones.

    python -m roofcast.scenarios.measured.ratios                          print the table
    python -m roofcast.scenarios.measured.ratios --write docs/formats.md  put it into the document

No constant is fitted to these rows.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from roofcast import hwdb
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario

TABLE = Path(__file__).parent / "formats" / "ratios.csv"
HEADS = ("predictions",)  # ops that the published nets, which answer questions, do not have
CORE_BANDWIDTH = 0.1  # of the memory bandwidth of a socket that one core draws
MARKER = re.compile(r"(<!-- table: ratios -->\n).*?(<!-- end -->)", re.S)


class Pair(NamedTuple):
    """One net in two formats: published, and as a scenario of the first format."""

    id: str
    source: str
    low: str  # format of fewer bits
    high: str
    published: float  # rate in `low` over rate in `high`
    low_s: float  # published seconds of a batch in `low`; nan where only the ratio is
    scenario: Scenario
    outside: str  # why the forecast is not expected to meet it; empty: it is


def pairs(path: Path = TABLE) -> list[Pair]:
    """The rows of a table of ratios."""
    with path.open(encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return [_pair(row) for row in rows]


def _pair(row: dict[str, str]) -> Pair:
    low, high = float(row["low_value"]), float(row["high_value"])
    rates = row["unit"] == "per second"
    scenario = Scenario(
        model=row["model"],
        device=row["device"],
        mode="infer",
        batch=int(row["batch"]),
        sequence=int(row["sequence"]) if row["sequence"] else None,
        image=int(row["image"]) if row["image"] else None,
        precision=row["low"],
        stack=row["stack"],
        set=_part_of(row["device"], float(row["share"])),
    )
    seconds = int(row["batch"]) / low if rates else low / 1000.0
    return Pair(
        row["id"], row["source"], row["low"], row["high"], low / high if rates else high / low,
        seconds if low != 1.0 else float("nan"), scenario, row["outside"],
    )  # fmt: skip


def _part_of(name: str, share: float) -> dict[str, str | float]:
    """Edits that leave a share of a device's cores."""
    if share == 1.0:
        return {}
    edits: dict[str, str | float] = {"memory.bandwidth": f"x{CORE_BANDWIDTH}"}
    device = hwdb.device(name)
    rates = (
        "cores", *(f"peak_flops.{key}" for key in device.peak_flops),
        *(f"vector_flops.{key}" for key in device.vector_flops),
    )  # fmt: skip
    return edits | {key: f"x{share}" for key in rates}


def seconds_of(found: Forecast) -> float:
    """Seconds of a forecast without the head that published nets do not have."""
    return found.step_time_s - sum(
        layer.time_s for layer in found.layers if layer.name.startswith(HEADS)
    )


def forecast_ratio(pair: Pair) -> tuple[float, float]:
    """Forecast rate in the format of fewer bits over that in the other, and seconds in the former.

    >>> round(forecast_ratio(pairs()[0])[0], 1)
    1.6
    """
    low = seconds_of(forecast(pair.scenario))
    wider = msgspec.structs.replace(pair.scenario, precision=pair.high)
    high = seconds_of(forecast(wider))
    return high / low, low


def table(path: Path = TABLE) -> str:
    """The table in Markdown, and a line on its errors."""
    lines = [
        "| device | net | batch x size | formats | published | forecast | off by | source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    errors, every, notes = [], [], []
    for pair in pairs(path):
        ratio, _ = forecast_ratio(pair)
        error = ratio / pair.published - 1.0
        s = pair.scenario
        size = s.sequence or s.image
        note = ""
        every.append(error)
        if pair.outside:
            if pair.outside != "as above":
                notes.append(pair.outside)
            note = f" ({len(notes)})"
        else:
            errors.append(error)
        lines.append(
            f"| {s.device}{', a part' if s.set else ''} | {s.model} |"
            f" {s.batch}{f' x {size}' if size else ''} | {pair.low} / {pair.high} |"
            f" {pair.published:.2f} | {ratio:.2f} | {100 * error:+.0f} %{note} | {pair.source} |"
        )
    worst = max(errors, key=abs)
    lines += ["", *(f"({i}) {note[0].upper()}{note[1:]}." for i, note in enumerate(notes, 1)), ""]
    lines.append(
        f"Without the numbered rows: {len(errors)} ratios, median error"
        f" {100 * median(map(abs, errors)):.0f} %, largest {100 * worst:+.0f} %, mean"
        f" {100 * sum(errors) / len(errors):+.0f} %. All {len(every)}: median error"
        f" {100 * median(map(abs, every)):.0f} %, mean {100 * sum(every) / len(every):+.0f} %."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, or write it between the markers of a document."""
    text = table()
    if len(sys.argv) == 3 and sys.argv[1] == "--write":
        path = Path(sys.argv[2])
        old = path.read_text(encoding="utf-8")
        path.write_text(MARKER.sub(lambda m: f"{m[1]}{text}{m[2]}", old), encoding="utf-8")
    elif len(sys.argv) == 1:
        print(text, end="")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
