"""Forecasts of measured servers: what is predicted of each row of a table, and its errors."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from statistics import mean as mean_of
from statistics import median
from typing import NamedTuple

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError, one_line
from roofcast.scenarios.measured.cells import Row, rows
from roofcast.scenarios.measured.serving.cases import suspect
from roofcast.scenarios.measured.serving.fitted import fitted
from roofcast.scenarios.measured.serving.predicted import Predicted, number, predict, split_of
from roofcast.scenarios.measured.serving.rows import PUBLISHED, UNSTATED, model_of, ran, server_of
from roofcast.scenarios.measured.serving.separate import COLUMNS as POOL_COLUMNS
from roofcast.scenarios.measured.serving.separate import separate
from roofcast.simulator.serving.interval import around
from roofcast.simulator.serving.likeness import Likeness

QUANTITIES = {  # column that is measured: quantity whose interval it has
    "ttft_s": "ttft",
    "tpot_s": "tpot",
    "output_tokens_per_s": "output",
    "prefill_tokens_per_s": "prefill",
}
ADDED = (
    *(f"predicted_{q}{end}" for q in QUANTITIES for end in ("", "_low", "_high")),
    "predicted_peak_mem_gib", "taken_as", "suspect", "refused_because",
)  # fmt: skip
STATUS = ("fitted", "left out")  # of a value: whether a constant of time was fitted to it
NATIVE = (  # formats of checkpoints, by their names
    ("nvfp4", "nvfp4"), ("fp8", "fp8"), ("awq", "int4"), ("gptq", "int4"), ("gpt-oss", "mxfp4"),
    ("deepseek-v3", "fp8"), ("deepseek-r1", "fp8"), ("kimi-k2", "fp8"), ("minimax-m2", "fp8"),
)  # fmt: skip


class Scored(NamedTuple):
    """A row and its forecast, or why there is none."""

    row: Row
    predicted: Predicted = Predicted()
    taken: tuple[str, ...] = ()  # what the row does not state
    refused: str = ""
    suspect: str = ""  # why the row counts in no summary, by rules that do not look at its error
    likeness: Likeness = Likeness()  # how far the server is from those that set the intervals
    stack: str = ""  # profile of its software

    @property
    def measured(self) -> bool:
        """Whether the row holds a value that is compared."""
        return any(self.value(name) is not None for name in QUANTITIES)

    def fitted(self, name: str) -> bool:
        """Whether a constant of time was fitted to this value of the row."""
        if self.suspect or self.taken:
            return False
        return fitted(self.stack, self.row.get("load_kind") or "", name)

    def value(self, name: str) -> float | None:
        """The measured value of a column."""
        return number(self.row, name)

    def error(self, name: str) -> float | None:
        """predicted / measured - 1 of a quantity; None where either is missing."""
        found, measured = getattr(self.predicted, name), self.value(name)
        return found / measured - 1.0 if found and measured else None


def score(row: Row) -> Scored:
    """The forecast of one row."""
    try:
        whole, taken = completed(row)
        at = ran(whole)
        server = server_of(at)
        doubt = suspect(whole, server)
        return Scored(
            row,
            predict(whole, at, server),
            taken,
            suspect=doubt,
            likeness=server.likeness,
            stack=at.stack,
        )
    except RoofcastError as error:
        return Scored(row, refused=str(error))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # one model that the engine cannot serve does not take the other rows with it
        return Scored(row, refused=f"not modelled: {one_line(error)}")


def score_all(rows: Iterable[Row]) -> Iterator[Scored]:
    """The forecasts of many rows."""
    return map(score, rows)


def shipped() -> Iterator[Row]:
    """The measured servers that come with Roofcast, in the columns of COLUMNS."""
    heads = tomllib.loads((PUBLISHED / "sources.toml").read_text(encoding="utf-8"))
    for name, same in heads.items():
        for row in rows(PUBLISHED / f"{name}.csv", "shipped servers"):
            ref = same["source_ref"] + row.get("where", "")
            yield {**dict.fromkeys(COLUMNS, ""), **same, **row, "source_ref": ref}


COLUMNS = (
    "model", "engine", "engine_version", "source_name", "device", "roofcast_device", "n_devices",
    "tp", "pp", "ep", "dp", "w_prec", "kv_prec", "phase", "mode", "load_kind", "load", "input_len",
    "output_len", "context_len", "notes", "speculative", "flags", "repeat_of", "e2e_s",
    *POOL_COLUMNS, *QUANTITIES,
)  # fmt: skip


def completed(row: Row) -> tuple[Row, tuple[str, ...]]:
    """The row with what it does not state, and what was taken for it."""
    whole = {name: (row.get(name) or "").strip() for name in (*COLUMNS, *row)}
    whole["roofcast_device"] = whole["roofcast_device"] or _device(whole["device"])
    devices = number(whole, "n_devices") or 1.0
    whole["n_devices"] = str(max(int(devices), 1))
    taken = []
    if whole["w_prec"].lower() in UNSTATED:
        name = whole["model"].lower()
        whole["w_prec"] = next((form for key, form in NATIVE if key in name), "bf16")
        if "mlperf" in whole["source_name"].lower() and _has(whole["roofcast_device"], "fp8"):
            whole["w_prec"] = "fp8"
        taken.append(f"weights {whole['w_prec']}")
    if whole["tp"] in UNSTATED:
        whole["tp"] = str(_smallest(whole))
        taken.append(f"tp {whole['tp']}")
    if separate(whole):
        taken += split_of(whole)
    return whole, tuple(taken)


def _device(words: str) -> str:
    """The name of hwdb that is written like the words; else nothing."""
    name = words.lower().replace(" ", "-")
    try:
        return str(hwdb.device(name).id)
    except RoofcastError:
        return ""


def _has(device: str, form: str) -> bool:
    try:
        return bool(hwdb.device(device).peak_flops.get(form))
    except RoofcastError:
        return False


def _smallest(row: Row) -> int:
    """The smallest tensor-parallel degree that leaves a third of the memory to the cache."""
    devices = int(float(row["n_devices"] or 1))
    model_of(row["model"])
    for tp in (1, 2, 4, 8):
        if devices % tp:
            continue
        at = ran(row | {"tp": str(tp), "n_devices": str(tp)})
        server = server_of(at)
        if server.weight_bytes < 0.67 * server.memory_bytes:
            return tp
    return min(devices, 8)


def cells(scored: Scored) -> dict[str, str]:
    """The columns of ADDED of a row."""
    found: dict[str, str] = {}
    for name, quantity in QUANTITIES.items():
        value = getattr(scored.predicted, name)
        low, high = around(value, quantity, scored.likeness) if value else (None, None)
        for end, each in (("", value), ("_low", low), ("_high", high)):
            found[f"predicted_{name}{end}"] = "" if each is None else f"{each:.6g}"
    peak = scored.predicted.peak_mem_gib
    found["predicted_peak_mem_gib"] = "" if peak is None else f"{peak:.5g}"
    found["taken_as"], found["suspect"] = "; ".join(scored.taken), scored.suspect
    found["refused_because"] = scored.refused
    return found


class Line(NamedTuple):
    """Errors of one source and quantity, as fractions."""

    source: str  # "": all
    quantity: str
    status: str  # fitted | left out, of constants of time; "": both
    rows: int
    median: float
    mean: float
    bias: float  # mean of predicted / measured - 1
    within: float  # share of rows from 0.8 to 1.25 of the measured value
    inside: float  # share of rows inside their 80 % interval


def lines(scored: Iterable[Scored]) -> list[Line]:
    """A line per source, quantity and status, then lines per quantity over all sources; without
    suspect rows.
    """
    groups: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for s in scored:
        for name, quantity in QUANTITIES.items():
            error = s.error(name)
            if error is None or s.suspect:
                continue
            low, high = around(1.0, quantity, s.likeness)
            inside = low <= 1.0 / (1.0 + error) <= high
            status = STATUS[0] if s.fitted(name) else STATUS[1]
            source = s.row.get("source_name") or "no source given"
            for key in ((source, name, status), ("", name, status), ("", name, "")):
                groups.setdefault(key, []).append((error, float(inside)))
    found = [_line(*key, errors) for key, errors in groups.items()]
    order = list(QUANTITIES)
    return sorted(
        found, key=lambda x: (x.source == "", x.source, order.index(x.quantity), x.status)
    )


def _line(source: str, name: str, status: str, errors: list[tuple[float, float]]) -> Line:
    every = [abs(e) for e, _ in errors]
    near = [0.8 <= 1.0 + e <= 1.25 for e, _ in errors]
    return Line(
        source,
        name,
        status,
        len(errors),
        median(every),
        mean_of(every),
        mean_of(e for e, _ in errors),
        mean_of(map(float, near)),
        mean_of(i for _, i in errors),
    )
