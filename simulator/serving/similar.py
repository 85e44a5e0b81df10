"""The measured servers most like a forecast one, and the errors of their own forecasts.

hwdb/serving_series.csv, written by scenarios/fits/serving_series.py, has a line for each series:
runs of one source, of one server under one kind of load.
"""

from __future__ import annotations

import csv
import functools
from pathlib import Path

import numpy as np

from roofcast import hwdb
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.likeness import class_of
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.profiles import program
from roofcast.simulator.serving.result import NearServer
from roofcast.simulator.serving.server import Server
from roofcast.simulator.times.rates import family_name

FILE = Path(hwdb.__file__).parent / "serving_series.csv"
QUANTITIES = ("ttft", "tpot", "output", "prefill")
SHOWN = 3
# how far apart servers are: of another model, by its size, with experts or without; of another
# family, maker or kind of device; of another program, class of software; under another kind of load
MODEL, SIZE, EXPERTS = 1.0, 0.7, 2.0
FAMILY, MAKER, KIND = 1.0, 2.0, 4.0
PROGRAM, SOFTWARE, LOAD = 0.5, 3.0, 1.0
DEVICES, BITS, LENGTHS = 0.5, 0.5, 0.25  # per power of two


class Series(NamedTuple):
    """Columns of the file, [series]; of `near` the struct of each."""

    near: list[NearServer]
    text: dict[str, np.ndarray]
    number: dict[str, np.ndarray]


TEXT = ("model", "stack", "device", "load", "family", "maker", "kind")
NUMBER = (
    "parameters", "experts", "replica", "bits", "least", "most", "prompt_least", "prompt_most",
    "answer_least", "answer_most",
)  # fmt: skip
COLUMNS = (
    "source", *TEXT, "weights", "devices", "rows", "fitted", *NUMBER,
    *(f"{q}_{end}" for q in QUANTITIES for end in ("least", "most", "error")),
)  # fmt: skip


@functools.cache
def shipped() -> Series:
    """Every shipped series."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    text = {name: np.array([row[name] for row in rows], dtype=object) for name in TEXT}
    number = {name: np.array([float(row[name] or 0.0) for row in rows]) for name in NUMBER}
    text["program"] = np.array([program(name) for name in text["stack"]], dtype=object)
    text["class"] = np.array([class_of(name) for name in text["stack"]], dtype=object)
    return Series([_near(row) for row in rows], text, number)


def size_of(server: Server) -> tuple[float, bool]:
    """Parameters of a model, all ranks together, and whether it has experts."""
    d, made = server.degrees, server.engines["decode"].forward
    parts = ((w.size * w.count * d.tp * (d.dp if w.expert else 1), w.expert) for w in made.weights)
    sizes, experts = zip(*parts, strict=True)
    return float(sum(sizes)), any(experts)


def bits_of(server: Server) -> float:
    """Mean bits of a weight."""
    parameters = size_of(server)[0] / server.devices
    return 8.0 * server.weight_bytes / parameters if parameters else 16.0


def similar(server: Server, load: Load) -> tuple[NearServer, ...]:
    """The series nearest to a server under a load, of each source and model one at most."""
    near, text, number = shipped()
    order = np.argsort(distance(server, load, text, number), kind="stable")
    chosen: dict[tuple[str, str], NearServer] = {}
    for i in order:
        chosen.setdefault((near[i].source, near[i].model), near[i])
        if len(chosen) == SHOWN:
            break
    return tuple(chosen.values())


def distance(
    server: Server, load: Load, text: dict[str, np.ndarray], number: dict[str, np.ndarray]
) -> np.ndarray:
    """How far each series is from a server under a load [series]."""
    device = server.device
    parameters, experts = size_of(server)
    other = text["model"] != server.model.name
    found = other * (MODEL + SIZE * np.abs(np.log2(parameters / number["parameters"])))
    found = found + other * EXPERTS * (number["experts"] != experts)
    beyond = np.where(text["maker"] != device.vendor, MAKER, FAMILY)
    beyond = np.where(text["kind"] != device.kind, KIND, beyond)
    beyond = np.where(text["family"] != family_name(device), beyond, 0.5 * FAMILY)
    found = found + np.where(text["device"] != (device.base or device.id), beyond, 0)
    stack = server.profile.name
    soft = np.where(text["class"] != class_of(stack), SOFTWARE, 1.0)
    soft = np.where(text["program"] != program(stack), soft, PROGRAM)
    found = found + np.where(text["stack"] != stack, soft, 0.0)
    found = found + LOAD * (text["load"] != load.kind)
    found = found + DEVICES * np.abs(np.log2(server.devices / number["replica"]))
    found = found + BITS * np.abs(np.log2(bits_of(server) / number["bits"]))
    for value, column in ((load.input_len, "prompt"), (load.output_len, "answer")):
        found = found + LENGTHS * _outside(
            value, number[f"{column}_least"], number[f"{column}_most"]
        )
    if load.kind in ("batch", "concurrency"):
        return found + LENGTHS * _outside(load.amount, number["least"], number["most"])
    return found


def _outside(value: float, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Powers of two by which a value is below or above a range."""
    low, high = np.maximum(least, 1.0), np.maximum(most, 1.0)
    at = max(value, 1.0)
    return np.maximum(np.maximum(np.log2(low / at), np.log2(at / high)), 0.0)


def _near(row: dict[str, str]) -> NearServer:
    pairs = {
        q: (float(row[f"{q}_least"]), float(row[f"{q}_most"]))
        for q in QUANTITIES
        if row[f"{q}_error"]
    }
    numbers = {name: float(row[name] or 0.0) for name in NUMBER}
    return NearServer(
        model=row["model"],
        source=row["source"],
        device=row["device"],
        devices=int(row["devices"]),
        stack=row["stack"],
        weights=row["weights"],
        load=row["load"],
        amount=(numbers["least"], numbers["most"]),
        input_len=(int(numbers["prompt_least"]), int(numbers["prompt_most"])),
        output_len=(int(numbers["answer_least"]), int(numbers["answer_most"])),
        runs=int(row["rows"]),
        fitted=row["fitted"] == "yes",
        measured=pairs,
        errors={q: float(row[f"{q}_error"]) for q in pairs},
    )
