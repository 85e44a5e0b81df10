"""Tables of measured training runs on many devices: each row as a scenario and what was measured.

published/README.md describes the columns; others are ignored. A value that a row leaves open gets
the default stated there and is listed in `assumptions`. A row that cannot be forecast has the
reason in `refused`. `training_rows` turns the columns into a Scenario.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from roofcast.hwdb import contents
from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.hwdb.tuples import NamedTuple
from roofcast.scenarios.measured.cells import Row, positive, rows, text
from roofcast.scenarios.measured.recompute_words import UNSTATED, ladder
from roofcast.scenarios.measured.siblings import filled
from roofcast.scenarios.measured.training_rows import scenario_of
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.scenario import Scenario

HERE = Path(__file__).parent / "published"
WHAT = "a CSV of measured runs"
HALF = 0.95  # of a forecast peak: half of the measured ones lie between this and 1.04 of it
TOO_MUCH = "and needs"  # of a run that no policy makes fit
# assumptions of what a row leaves open
MICRO_BATCH = re.compile(r"micro-batch of \d+ \(not given\)")
ZERO = re.compile(r"ZeRO [01] \(not given\)")
BLIND = "# Blind:"  # first line of a table that no constant may be fitted to
REQUIRED = ("n_devices", "device", "seq_len", "global_batch_seqs")
# the other known layout of columns: GPT on one node, as Megatron-DeepSpeed ran it in 2022
SHORT = (
    "n_devices", "global_batch_seqs", "micro_batch", "hidden", "heads", "layers", "seq_len",
    "tp", "dp", "pp", "measured_s",
)  # fmt: skip
SHORT_DEFAULTS = {
    "source_name": "Megatron-DeepSpeed single node",
    "tier": "A",
    "device": "A100-SXM4-80GB",
    "activation": "gelu",
    "recompute": "full",
    "flash_attention": "no",
    "framework": "Megatron-DeepSpeed 2022",
    "dtype": "fp16",
    "zero_stage": "0",
    "sp": "no",
    "vocab": "51200",
    "tied_embeddings": "yes",
}


class LlmRun(NamedTuple):
    """One measured run."""

    id: str
    source: str
    tier: str  # A: everything known; B: micro-batch or recomputation is not printed
    family: str  # dense | moe
    scenario: Scenario | None  # None where the row cannot be forecast
    refused: str  # why it cannot be forecast
    excluded: str  # why it is left out of the summary, though it can be forecast
    measured_s: float | None  # seconds per step
    memory_gib: float | None  # measured peak
    memory_kind: str  # allocated | reserved | nvidia-smi: what that peak counts
    oom: bool  # the run failed for lack of memory
    assumptions: tuple[str, ...]  # defaults that the row left open
    row: Row


def published() -> list[LlmRun]:
    """Every shipped run that constants may be fitted to."""
    return [run for path in sorted(HERE.glob("*.csv")) if not is_blind(path) for run in read(path)]


def is_blind(path: str | Path) -> bool:
    """Whether the first line of a table reserves it for blind tests; False if it is unreadable."""
    try:
        return contents.text(path, WHAT, contents.LARGEST_TABLE).startswith(BLIND)
    except BadInput:
        return False  # whoever reads the rows reports the error


def claims(columns: Sequence[str]) -> bool:
    """Whether these are the columns of a table of training runs."""
    return all(c in columns for c in REQUIRED) or all(c in columns for c in SHORT)


def read(path: str | Path) -> list[LlmRun]:
    """Every row of a CSV of training runs; lines that start with # are comments.

    Raises BadInput where the file cannot be read or lacks a required column.
    """
    path = Path(path)
    try:
        reader = rows(path, WHAT)
        columns = reader.fieldnames or ()
        short = all(c in columns for c in SHORT) and "device" not in columns
        missing = [c for c in REQUIRED if c not in columns]
        if missing and not short:
            raise BadInput(
                f"{path}: no column {missing[0]!r}; wanted: {', '.join(REQUIRED)}, iter_time_s"
                " (all columns: scenarios/measured/published/README.md)"
            )
        return [
            run(_completed(row, i) if short else row) for i, row in enumerate(filled(reader), 1)
        ]
    except csv.Error as error:
        raise BadInput(f"{path}: not a CSV of measured runs ({error})") from None


def _completed(row: Row, i: int) -> Row:
    """Row number `i` of a table of SHORT columns, with all other columns filled in."""
    return {
        **SHORT_DEFAULTS,
        **row,
        "id": row.get("id") or f"SN{i:04d}",
        "iter_time_s": row["measured_s"],
        "model_name": "gpt",
    }


def run(row: Row) -> LlmRun:
    """One row as a run; where no scenario can be made of it, with the reason."""
    assumptions: list[str] = []
    scenario, refused = None, ""
    try:
        scenario = scenario_of(row, assumptions)
    except RoofcastError as error:
        refused = str(error)
    measured_s = positive(text(row, "iter_time_s"))
    oom = text(row, "oom").lower() in ("yes", "true", "1")
    if scenario is not None and measured_s and not oom:
        scenario = as_it_ran(scenario, assumptions)
    experts = text(row, "experts") not in ("", "0", "1", "1.0")
    return LlmRun(
        id=text(row, "id"),
        source=text(row, "source_name"),
        tier=text(row, "tier"),
        family=text(row, "family") or ("moe" if experts else "dense"),
        scenario=scenario,
        refused=refused,
        excluded=text(row, "exclude"),
        measured_s=measured_s,
        memory_gib=positive(text(row, "peak_mem_gib")),
        memory_kind=text(row, "memory_kind") or memory_kind(text(row, "framework")),
        oom=oom,
        assumptions=tuple(assumptions),
        row=row,
    )


def as_it_ran(scenario: Scenario, assumptions: list[str]) -> Scenario:
    """The scenario of a run that ran, with what its row left open so that it fits.

    The least recomputation with which it fits; where no policy is enough, a micro-batch of one
    sequence, then ZeRO 3, if these were left open too. Assumptions say what was taken.
    """
    if UNSTATED not in assumptions:
        return scenario
    how, why = least_recompute(scenario)
    found = msgspec.structs.replace(scenario, recompute=how)
    if TOO_MUCH in why:
        for said, change in ((MICRO_BATCH, {"micro_batch": 1}), (ZERO, {"zero": 3})):
            place = next((i for i, a in enumerate(assumptions) if said.match(a)), None)
            if place is None:
                continue
            scenario = msgspec.structs.replace(scenario, **change)
            other, words = least_recompute(scenario)
            if TOO_MUCH not in words:
                found, why = msgspec.structs.replace(scenario, recompute=other), words
                taken = "ZeRO 3" if said is ZERO else "micro-batch of 1"
                usual = assumptions[place].split(" (")[0]
                assumptions[place] = f"{taken} (not given; {usual} does not fit)"
                break
    assumptions[assumptions.index(UNSTATED)] = why
    return found


def least_recompute(scenario: Scenario) -> tuple[str, str]:
    """The least recomputation with which a run that ran is forecast to fit, or to be as near to
    what the device has as half of the measured peaks are to their forecasts, and the words for it.

    A policy of the stack's `ladder`; the last where not even that fits. A policy that the model
    does not have, and a scenario that cannot be forecast, are passed over.
    """
    peaks: dict[str, str] = {}
    for how in ladder(scenario.stack or ""):
        try:
            memory = forecast(msgspec.structs.replace(scenario, recompute=how)).memory
        except RoofcastError:
            continue
        most = memory.capacity_bytes
        if memory.fits is not False or (most is not None and HALF * memory.peak_bytes <= most):
            less = "".join(f", {other} needs {peak}" for other, peak in peaks.items())
            return how, UNSTATED if how == "none" else f"recompute {how} (not given{less})"
        assert most is not None, "only a known capacity can be exceeded"
        room = most / 2**30
        peaks[how] = f"{memory.peak_bytes / 2**30:.0f} of {room:.0f} GiB"
    if not peaks:
        return "none", UNSTATED
    how = list(peaks)[-1]
    return how, f"recompute {how} (not given, {TOO_MUCH} {peaks[how]})"


def memory_kind(framework: str) -> str:
    """What a framework's own tables print as peak memory.

    >>> memory_kind("torchtune"), memory_kind("Megatron-DeepSpeed Feb-2022"), memory_kind("")
    ('allocated', 'nvidia-smi', 'reserved')
    """
    words = framework.lower()
    if "torchtune" in words or "litgpt" in words:
        return "allocated"
    return "nvidia-smi" if "deepspeed" in words else "reserved"
