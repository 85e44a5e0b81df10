"""Writes hwdb/serving_series.csv: measured servers in series, with the errors of their forecasts,
of which `roofcast serving` shows the most similar ones.

    python -m roofcast.scenarios.fits.serving_series [TABLE.csv.gz] [--write]

A series: runs of one source, model, device, layout, software, format of weights and kind of load.
Suspect runs and those that do not state their format or layout are in none.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.fits.serving import measured
from roofcast.scenarios.measured.cells import Row
from roofcast.scenarios.measured.serving.forecasts import QUANTITIES, Scored, completed, score_all
from roofcast.scenarios.measured.serving.predicted import KINDS, number
from roofcast.scenarios.measured.serving.rows import Ran, ran, server_of
from roofcast.simulator.serving.similar import COLUMNS, FILE, bits_of, size_of
from roofcast.simulator.times.rates import family_name

HEAD = "# Written by scenarios/fits/serving_series.py from scenarios/measured/serving/published.\n"


def series(table: Iterable[Row]) -> list[dict[str, Any]]:
    """The lines of the file."""
    groups: dict[tuple[Any, ...], list[tuple[Scored, Ran]]] = defaultdict(list)
    for s in score_all(table):
        if s.suspect or s.refused or s.taken or s.row.get("load_kind") == "all_at_once":
            continue
        at = ran(completed(s.row)[0])
        groups[(s.row.get("source_name", ""), at, s.row.get("load_kind"))].append((s, at))
    found = [_line(of) for of in groups.values()]
    return sorted(found, key=lambda line: tuple(str(line[name]) for name in COLUMNS))


def _line(of: list[tuple[Scored, Ran]]) -> dict[str, Any]:
    """One series."""
    (first, at), every = of[0], [s for s, _ in of]
    server = server_of(at)
    parameters, experts = size_of(server)
    line: dict[str, Any] = {
        "source": first.row.get("source_name", ""),
        "model": server.model.name,
        "stack": at.stack,
        "device": at.device,
        "family": family_name(server.device),
        "maker": server.device.vendor,
        "kind": server.device.kind,
        "load": KINDS.get(first.row.get("load_kind", ""), "batch"),
        "weights": server.formats.weights,
        "devices": server.devices * at.replicas,
        "rows": len(of),
        "fitted": "yes" if any(s.fitted(name) for s in every for name in QUANTITIES) else "no",
        "parameters": f"{parameters:.4g}",
        "experts": int(experts),
        "replica": server.devices,
        "bits": f"{bits_of(server):.3g}",
    }
    for name, column in (("", "load"), ("prompt_", "input_len"), ("answer_", "output_len")):
        sizes = [x for s in every if (x := number(s.row, column))] or [0.0]
        line |= {f"{name}least": f"{min(sizes):g}", f"{name}most": f"{max(sizes):g}"}
    for column, quantity in QUANTITIES.items():
        pairs = [(s.value(column), s.error(column)) for s in every if s.error(column) is not None]
        if pairs:
            values, errors = zip(*pairs, strict=True)
            line |= {
                f"{quantity}_least": f"{min(values):.3g}",
                f"{quantity}_most": f"{max(values):.3g}",
            }
            line[f"{quantity}_error"] = f"{float(np.median(errors)):.3f}"
    return dict.fromkeys(COLUMNS, "") | line


def main(arguments: list[str]) -> None:
    """Count, and perhaps write."""
    found = series(measured(arguments))
    print(f"{len(found):,} series of {sum(line['rows'] for line in found):,} runs")
    if "--write" in arguments:
        with FILE.open("w", encoding="utf-8", newline="") as file:
            file.write(HEAD)
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(found)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RoofcastError as error:
        sys.exit(f"roofcast: {error}")
