"""Write how far measured peak memory lies from its forecast.

    python -m roofcast.scenarios.fits.memory [--write]

Rows: every shipped run with a measured peak, of one device or of several; of inference, programs
that generate text (scenarios/measured/serving/memory.csv) and what vLLM held beside its cache at
starts that no constant was fitted to (starts.csv). --write puts into hwdb/memory.toml, by mode, the
factors on a forecast peak between which 80 % of the measured peaks lie. Every source weighs the
same, however many rows it has. A source is left out, by mode, whose measured runs all need less
than a gigabyte: what is then missed is a constant, not a fraction.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.measured import serving, training
from roofcast.scenarios.measured.nets import read, tables
from roofcast.scenarios.measured.peaks import counted
from roofcast.scenarios.measured.scores import score
from roofcast.scenarios.measured.serving.forecasts import score as served
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.serving.profiles import profile
from roofcast.simulator.serving.server import Degrees, Server

PATH = Path(hwdb.__file__).parent / "memory.toml"
LEVEL = 80  # percent
GIB = 2.0**30
LEAST_BYTES = 1e9  # a source whose largest measured run of a mode needs less tells no factor
HEAD = """\
# Factors on a forecast peak of memory between which {level} % of the measured peaks lie. Each
# source weighs the same. Written by `python -m roofcast.scenarios.fits.memory --write`.
"""


class Peak(NamedTuple):
    """A measured peak beside its forecast."""

    source: str
    mode: str
    measured: float  # bytes
    ratio: float  # measured / forecast, both counted as the source measured


def peaks() -> list[Peak]:
    """The measured peaks of the shipped runs that can be forecast."""
    found = []
    for run in (run for path in tables() if path.parent != training.HERE for run in read(path)):
        if run.scenario is None or not run.peak_bytes:
            continue
        try:
            found_bytes = counted(forecast(run.scenario), "allocated", run.outputs_held)
        except RoofcastError:
            continue
        ratio = run.peak_bytes / found_bytes
        found.append(Peak(run.source, run.scenario.mode, run.peak_bytes, ratio))
    for path in sorted(training.HERE.glob("*.csv")):
        for row in training.read(path):
            if row.memory_gib and not row.oom and (told := score(row).memory_gib):
                measured = row.memory_gib * 2**30
                found.append(Peak(row.source, "train", measured, row.memory_gib / told))
    return [*found, *generating(), *starts()]


def generating() -> list[Peak]:
    """Programs that generate text."""
    found = []
    for row in _rows("memory.csv"):
        told, measured = served(row).predicted.peak_mem_gib, float(row["peak_mem_gib"])
        if told:
            found.append(Peak(row["source_name"], "infer", measured * GIB, measured / told))
    return found


def starts(source: str = "lmcache") -> list[Peak]:
    """What vLLM held beside its cache: the memory that it may use less the cache that it logged."""
    found = []
    for row in _rows("starts.csv"):
        if row["source"] != source:
            continue
        tuned = msgspec.structs.replace(profile(row["stack"]), memory_use=float(row["memory_use"]))
        server = Server(row["model"], row["device"], Degrees(tp=int(row["tp"])), stack=tuned)
        measured = float(server.memory_bytes) - float(row["kv_gib"]) * GIB
        told = server.weight_bytes + server.runtime_bytes
        found.append(Peak(f"vLLM starts, {source}", "infer", measured, measured / told))
    return found


def _rows(name: str) -> list[dict[str, str]]:
    lines = Path(serving.__file__).with_name(name).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def factors(of: list[Peak], level: float = LEVEL) -> tuple[float, float]:
    """The factors between which `level` percent of the measured peaks lie, by weight.

    >>> factors([Peak("a", "train", 1.0, 0.9)] * 9 + [Peak("b", "train", 1.0, 1.1)])
    (0.9, 1.1)
    """
    ratios = np.array([peak.ratio for peak in of])
    sources = [peak.source for peak in of]
    weight = np.array([1.0 / sources.count(source) for source in sources])
    order = np.argsort(ratios)
    reached = np.cumsum(weight[order]) / weight.sum()
    edges = ((100 - level) / 200, (100 + level) / 200)
    low, high = (min(int(np.searchsorted(reached, edge)), len(of) - 1) for edge in edges)
    return float(ratios[order][low]), float(ratios[order][high])


def text(of: list[Peak]) -> str:
    """The file of factors."""
    lines = [HEAD.format(level=LEVEL)]
    for mode in dict.fromkeys(peak.mode for peak in of):
        mine = [peak for peak in of if peak.mode == mode]
        most = {p.source: max(q.measured for q in mine if q.source == p.source) for p in mine}
        mine = [peak for peak in mine if most[peak.source] >= LEAST_BYTES]
        if not mine:
            continue
        low, high = factors(mine)
        rows = {source: sum(p.source == source for p in mine) for source in
                dict.fromkeys(p.source for p in mine)}  # fmt: skip
        named = "; ".join(f"{source}: {count}" for source, count in rows.items())
        lines += [f"[{mode}]", f"low = {low:.3f}", f"high = {high:.3f}", f'source = "{named}"', ""]
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write hwdb/memory.toml")
    written = text(peaks())
    print(written)
    if parser.parse_args().write:
        PATH.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
