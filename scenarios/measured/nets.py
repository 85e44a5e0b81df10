"""Tables of measured runs of single nets: each row as a scenario and its measured time.

Columns; others are ignored, and a table of training runs on many devices is read as `training` has
it:

    model, device, precision, mode, batch_per_device, and step_time_ms or throughput_samples_s
                        required; throughput is that of all devices
    input, sequence     "224x224x3", "Sequence Length=128", 128
    n_devices, layout, framework, stack, optimizer, recompute, attention
    micro_batches       between two updates
    tokens              of a sample, where a throughput counts tokens
    peak_memory_mib     torch.cuda.max_memory_allocated over the timed steps [MiB of 2^20 bytes]:
                        tensors, and the workspaces that PyTorch allocates for libraries; neither
                        the device's context nor memory that the allocator holds in reserve
    exclude             why the row is not forecast
    id, source_name, source_where, notes

`net_words` turns what tables call models, devices and frameworks into names of this project.
"""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

from roofcast.hwdb.errors import BadInput, quoted
from roofcast.hwdb.tuples import NamedTuple
from roofcast.scenarios.measured import net_words as words
from roofcast.scenarios.measured import training as llm_runs
from roofcast.scenarios.measured.cells import LARGEST, LEAST, Row, positive, rows, text
from roofcast.simulator.forecast.scenario import Scenario

HERE = Path(__file__).parent
REQUIRED = ("model", "device", "batch_per_device", "precision", "mode")
MIB = 2**20  # bytes
SPOKEN = ("jasper", "quartznet", "deepspeech2")  # speech nets: recordings differ in length


class Run(NamedTuple):
    """One measured step of one device, or of several that share a batch (data parallel)."""

    id: str
    source: str
    scenario: Scenario | None  # None where the row cannot be forecast
    measured_s: float | None  # seconds per step
    refused: str  # why it cannot be forecast
    row: Row
    peak_bytes: float | None = None  # peak of allocated memory, without the device's context
    outputs_held: bool = False  # in which the outputs of the step before are counted


def shipped() -> tuple[Path, ...]:
    """The shipped tables that constants may be fitted to: runs of single nets, then of training."""
    return tuple(path for path in tables() if not llm_runs.is_blind(path))


def blind() -> tuple[Path, ...]:
    """The shipped tables that are kept for blind tests: no constant is fitted to them."""
    return tuple(path for path in tables() if llm_runs.is_blind(path))


def tables() -> tuple[Path, ...]:
    """Every shipped table of measured runs."""
    nets = (path for path in (HERE / "runs").glob("*.csv") if not path.stem.startswith("kernels"))
    return (*sorted(nets), *sorted(llm_runs.HERE.glob("*.csv")))


def shipped_kernels() -> tuple[Path, ...]:
    """The shipped tables of measured kernels."""
    return tuple(sorted((HERE / "runs").glob("kernels*.csv")))


def read_to_fit(path: str | Path) -> list[Run]:
    """As `read`, for a fit or a calibration; raises BadInput for a table kept for blind tests."""
    if llm_runs.is_blind(path):
        raise BadInput(
            f"{path}: its first line keeps it for blind tests; a fit takes other tables, python -m"
            " roofcast.scenarios.fits.blind forecasts it"
        )
    return read(path)


def read(path: str | Path) -> list[Run]:
    """Every row of a CSV or .csv.gz of measured runs; rows that cannot be forecast say why.

    Lines that start with # are comments. Raises BadInput where the file cannot be read or lacks a
    required column.
    """
    path = Path(path)
    try:
        reader = rows(path, llm_runs.WHAT)
        columns = reader.fieldnames or ()
        if llm_runs.claims(columns) and "batch_per_device" not in columns:
            return [of_training(run) for run in llm_runs.read(path)]
        missing = [c for c in REQUIRED if c not in columns]
        if missing:
            raise BadInput(
                f"{path}: no column {missing[0]!r}; wanted: {', '.join(REQUIRED)}, and"
                " step_time_ms or throughput_samples_s"
            )
        return [run(row, path.parent) for row in reader]
    except csv.Error as error:
        raise BadInput(f"{path}: not a CSV of measured runs ({error})") from None


def of_training(r: llm_runs.LlmRun) -> Run:
    """A run of a table of training runs on many devices."""
    refused = r.refused
    if not refused and r.excluded:
        refused = f"excluded: {r.excluded}"
    elif not refused and not r.measured_s:
        refused = "no step time"
    return Run(r.id, r.source, None if refused else r.scenario, r.measured_s, refused, r.row)


class _Refused(Exception):
    """Why a row cannot be forecast."""


def run(row: Row, folder: Path = HERE) -> Run:
    """One row as a run; where no scenario can be made of it, with the reason.

    Paths of files in the row start at `folder`.
    """
    scripts = words.settings(row)
    filled = scripts | {column: cell for column in row if column and (cell := text(row, column))}
    name, source = filled.get("id", ""), filled.get("source_name", "")
    try:
        scenario, seconds, peak = _measurement(filled, scripts.get("mixed"), folder)
    except _Refused as why:
        return Run(name, source, None, None, str(why), row)
    held = scripts.get("outputs") == "held"
    return Run(name, source, scenario, seconds, "", row, peak, held)


def _measurement(
    filled: Row, mixed: str | None, folder: Path
) -> tuple[Scenario, float, float | None]:
    """Scenario, seconds per step and peak bytes of a row whose empty cells have been filled in.

    mixed: the number format that mixed precision means in the scripts of the source.
    """
    devices = _count(filled, "n_devices", "devices")
    if text(filled, "exclude"):
        raise _Refused(f"excluded: {text(filled, 'exclude')}")
    mode = words.mode_of(text(filled, "mode"))
    if mode is None:
        raise _Refused(f"mode {quoted(text(filled, 'mode'))}: neither training nor inference")
    precision = words.precision_of(text(filled, "precision"))
    if precision not in words.KNOWN_PRECISIONS:
        raise _Refused(f"precision {quoted(precision)} is not known")
    if precision.startswith("amp"):
        precision = mixed or precision
    micro_batches = _count(filled, "micro_batches", "micro-batches")
    framework = f"{text(filled, 'framework')} {text(filled, 'source_name')}"
    name = words.model_of(
        text(filled, "model"), framework, text(filled, "source_where"), text(filled, "input")
    )
    model = beside(folder, name)
    batch, seconds = _step(filled, devices * micro_batches, model)
    peak = _peak_bytes(text(filled, "peak_memory_mib"))
    sequence = words.sequence_of(text(filled, "sequence") or text(filled, "input"))
    _check_units(model, batch, sequence)
    optimizer = text(filled, "optimizer") or words.optimizer_of(
        framework, text(filled, "notes"), sequence is not None
    )
    eager = words.scores_written(framework, sequence is not None)
    stack = beside(folder, text(filled, "stack")) or words.stack_of(framework)
    scenario = Scenario(
        model=model,
        device=beside(folder, words.device_of(text(filled, "device"))),
        batch=batch * devices * micro_batches,
        image=None if sequence else words.image_of(text(filled, "input")),
        sequence=sequence,
        precision=precision,
        mode=mode,
        optimizer=optimizer if mode == "train" else None,
        recompute=text(filled, "recompute") or "none",
        stack=stack,
        attention=text(filled, "attention") or ("eager" if eager else None),
        memory_format=words.layout_of(text(filled, "layout"), stack),
        devices=devices if devices > 1 else None,
        micro_batch=batch if devices > 1 or micro_batches > 1 else None,
    )
    return scenario, seconds, peak


def _count(filled: Row, column: str, what: str) -> int:
    """A number of devices or micro-batches; 1 where the cell is empty."""
    cell = text(filled, column)
    found = re.fullmatch(r"([1-9]\d*)(\.0*)?", cell or "1")
    if not found:
        raise _Refused(f"{column} {quoted(cell)}: not a number of {what}")
    return int(found[1])


def _step(filled: Row, shares: int, model: str) -> tuple[int, float]:
    """Samples of a micro-batch, and seconds of a step of `shares` micro-batches on all devices.

    A throughput in tokens counts those of the column, else those that names.toml has for the model.
    """
    try:
        batch = float(text(filled, "batch_per_device"))
    except ValueError:
        raise _Refused("no batch") from None
    if not 1 <= batch < 1e9 or batch != int(batch):
        raise _Refused(f"batch {batch:g}: not a number of samples")
    timed = text(filled, "step_time_ms")
    try:
        if timed:
            seconds = float(timed) / 1e3
        else:
            seconds = shares * batch / float(text(filled, "throughput_samples_s"))
        cell = text(filled, "tokens")
        tokens = float(cell) if cell else words.tokens_of(model)
    except (ValueError, ZeroDivisionError):
        raise _Refused("no step time and no throughput") from None
    unit = text(filled, "throughput_unit").lower()
    if not timed and "tok" in unit and tokens:
        seconds *= tokens
    elif not timed and re.search(r"tok|frame|mol|see ", unit):
        raise _Refused(f"throughput in {unit}: samples of unknown length")
    if not LEAST < seconds < LARGEST:
        raise _Refused("step time is not a positive number that can be measured")
    return int(batch), seconds


def _peak_bytes(cell: str) -> float | None:
    """The measured peak of allocated memory [bytes]; None where the cell is empty."""
    if not cell:
        return None
    mebibytes = positive(cell)
    if mebibytes is None:
        raise _Refused(f"peak_memory_mib {quoted(cell)}: not a number of MiB")
    return mebibytes * MIB


def _check_units(model: str, batch: int, sequence: int | None) -> None:
    """Refuses rows whose batch or sequence does not mean what a scenario means by it."""
    if sequence is None and ("bert" in model or model in SPOKEN):
        raise _Refused("length of its sequences not stated")
    if model == "transformer" and batch > 1024:
        raise _Refused("batch counts tokens")
    if model == "dlrm":
        raise _Refused(
            "DLRM of the Criteo terabyte trains with sparse gradients: not the shipped net"
        )


def beside(folder: Path, name: str) -> str:
    """`name`; where it is a .toml file that exists in `folder`, the path of that file."""
    path = folder / name
    return str(path) if name.endswith(".toml") and os.path.isfile(path) else name
