"""Measured runs, from a CSV, as scenarios beside their measured times.

Columns (others are ignored): model, device, precision, mode, batch_per_device, and step_time_ms or
throughput_samples_s; further input ("224x224x3", "Sequence Length=128"), sequence, n_devices,
layout, framework, stack, optimizer, recompute, attention; micro_batches between two updates; tokens
of a sample that a throughput in tokens counts; id, source_name, source_where for the report. What
tables call models, devices and frameworks stands in runs/names.toml, and so does what the scripts
of a source set; a column goes before it. peak_memory_mib is what torch.cuda.max_memory_allocated
gives: tensors, and the workspaces that PyTorch allocates for libraries, at the fullest moment of
the timed steps [MiB of 2^20 bytes]; neither the device's context nor what the allocator holds in
reserve.
"""

from __future__ import annotations

import csv
import functools
import gzip
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

from roofcast.hwdb.errors import BadInput
from roofcast.scenarios.measured import training as llm_runs
from roofcast.simulator import models
from roofcast.simulator.forecast.scenario import Scenario

HERE = Path(__file__).parent
REQUIRED = ("model", "device", "batch_per_device", "precision", "mode")
PRECISION = {
    "amp": "amp-fp16",
    "mixed": "amp-fp16",
    "mixed precision": "amp-fp16",
    "see submission (not in log)": "amp-fp16",  # MLPerf on GPUs
    "float32": "fp32",
    "bfloat16": "bf16",
    "float16": "fp16",
}
KNOWN_PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "amp-bf16", "amp-fp16", "fp8")
MODES = {
    "train": "train",
    "training": "train",
    "infer": "infer",
    "inference": "infer",
    "forward": "infer",
    "eval": "infer",
}
LAYOUT = {"nchw": "contiguous", "nhwc": "channels_last"}
# where no column says: what benchmarks of these models train with
OPTIMIZER = {"image": "momentum", "sequence": "adamw"}
NO_UPDATE = (
    r"forward (?:\+|and) backward|fwd ?\+ ?bwd|no optimi[sz]er|without (?:an |the"
    r" )?(?:optimi[sz]er|update)"
)
MIB = 2**20  # bytes
SPOKEN = ("jasper", "quartznet", "deepspeech2")  # nets of recordings, which differ in length
BEFORE_CUDNN_8 = (
    "torch7",
    "caffe",
    "cudnn[r",
    "cudnn 4",
    "cudnn 5",
    "theano",
    "chainer",
    "nervana",
    "neon",
    "cl-nn",
    "fbfft",
)


class Run(NamedTuple):
    """One measured step of one device, or of several that share a batch (data parallel)."""

    id: str
    source: str
    scenario: Scenario | None  # None where the row cannot be asked for
    measured_s: float | None
    refused: str  # why not
    row: dict[str, str]
    peak_bytes: float | None = None  # allocated at the fullest moment, without the device's context


@functools.cache
def synonyms() -> dict[str, dict[str, str]]:
    """What tables call models, devices and frameworks."""
    return tomllib.loads((HERE / "runs" / "names.toml").read_text(encoding="utf-8"))


def shipped() -> tuple[Path, ...]:
    """The tables of measured runs that come with the project and may be fitted to: single devices,
    and many.
    """
    return tuple(path for path in tables() if not llm_runs.is_blind(path))


def blind() -> tuple[Path, ...]:
    """The tables of measured runs that come with the project and that nothing is fitted to."""
    return tuple(path for path in tables() if llm_runs.is_blind(path))


def tables() -> tuple[Path, ...]:
    """Every shipped table of measured runs."""
    single = (path for path in (HERE / "runs").glob("*.csv") if not path.stem.startswith("kernels"))
    return (*sorted(single), *sorted(llm_runs.HERE.glob("*.csv")))


def read_to_fit(path: str | Path) -> list[Run]:
    """As `read`, for a fit or a calibration: a table that is kept for blind tests is refused."""
    if llm_runs.is_blind(path):
        raise BadInput(
            f"{path}: its first line keeps it for blind tests; a fit takes other tables, python -m"
            " roofcast.scenarios.fits.blind forecasts it"
        )
    return read(path)


def shipped_kernels() -> tuple[Path, ...]:
    """The tables of measured kernels that come with the project."""
    return tuple(sorted((HERE / "runs").glob("kernels*.csv")))


def read(path: str | Path) -> list[Run]:
    """Every row of a CSV (or .csv.gz) of measured runs, those that cannot be forecast with the
    reason.
    """
    path = Path(path)
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8", newline="")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8", newline="")
        ) as file:
            reader = csv.DictReader(line for line in file if not line.startswith("#"))
            if (
                llm_runs.claims(reader.fieldnames or ())
                and "batch_per_device" not in reader.fieldnames
            ):
                return [of_many(run) for run in llm_runs.read(path)]
            missing = [c for c in REQUIRED if c not in (reader.fieldnames or ())]
            if missing:
                raise BadInput(
                    f"{path}: no column {missing[0]!r}; wanted: {', '.join(REQUIRED)}, and"
                    " step_time_ms or throughput_samples_s"
                )
            return [run(row, path.parent) for row in reader]
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: not a CSV of measured runs ({error})") from None


def of_many(r: llm_runs.LlmRun) -> Run:
    """A run of a table of runs on many devices."""
    refused = r.refused or (
        f"excluded: {r.excluded}" if r.excluded else "" if r.measured_s else "no step time"
    )
    return Run(r.id, r.source, None if refused else r.scenario, r.measured_s, refused, r.row)


def run(row: dict[str, str], folder: Path = HERE) -> Run:
    """One row as a scenario, or the reason why it is none. Files that it names lie where their
    paths lead from `folder`.
    """
    scripts = settings(row)
    get = lambda key: (row.get(key) or "").strip() or scripts.get(key, "")  # noqa: E731
    name, source = get("id"), get("source_name")

    def refuse(why: str) -> Run:
        return Run(name, source, None, None, why, row)

    count = re.fullmatch(r"([1-9]\d*)(\.0*)?", get("n_devices") or "1")
    if not count:
        return refuse(f"n_devices {get('n_devices')!r}: not a number of devices")
    devices = int(count[1])
    if get("exclude"):
        return refuse(f"excluded: {get('exclude')}")
    mode = MODES.get(get("mode").lower())
    if mode is None:
        return refuse(f"mode {get('mode')!r}: neither training nor inference")
    precision = _precision(get("precision"))
    if precision not in KNOWN_PRECISIONS:
        return refuse(f"precision {precision!r} is not known")
    if precision.startswith("amp") and scripts.get("mixed"):
        precision = scripts["mixed"]
    micro_batches = re.fullmatch(r"([1-9]\d*)(\.0*)?", get("micro_batches") or "1")
    if not micro_batches:
        return refuse(f"micro_batches {get('micro_batches')!r}: not a number of micro-batches")
    framework = f"{get('framework')} {source}"
    model = beside(folder, _model(get("model"), framework, get("source_where"), get("input")))
    batch, seconds, why = _step(
        get, devices * int(micro_batches[1]), synonyms()["tokens"].get(model)
    )
    if why:
        return refuse(why)
    try:
        peak = float(get("peak_memory_mib")) * MIB if get("peak_memory_mib") else None
    except ValueError:
        peak = 0.0
    if peak is not None and not 0.0 < peak < float("inf"):
        return refuse(f"peak_memory_mib {get('peak_memory_mib')!r}: not a number of MiB")
    image, sequence = _image(get("input")), _sequence(get("sequence") or get("input"))
    if sequence is None and ("bert" in model or model in SPOKEN):
        return refuse("length of its sequences not stated")
    if model == "transformer" and batch > 1024:
        return refuse("batch counts tokens")
    if model == "dlrm":
        return refuse(
            "DLRM of the Criteo terabyte trains with sparse gradients: not the shipped net"
        )
    scenario = Scenario(
        model=model,
        device=beside(
            folder,
            synonyms()["devices"].get(
                get("device").lower(), re.sub(r"\s*\(.*\)$", "", get("device"))
            ),
        ),
        batch=batch * devices * int(micro_batches[1]),
        image=None if sequence else image,
        sequence=sequence,
        precision=precision,
        mode=mode,
        optimizer=(
            (get("optimizer") or _optimizer(framework, get("notes"), sequence is not None))
            if mode == "train"
            else None
        ),
        recompute=get("recompute") or "none",
        stack=beside(folder, get("stack")) or stack_of(framework),
        attention=get("attention")
        or ("eager" if scores_written(framework, sequence is not None) else None),
        memory_format=next(
            (LAYOUT[word] for word in LAYOUT if get("layout").lower().startswith(word)), None
        ),
        **({"devices": devices} if devices > 1 else {}),
        **({"micro_batch": batch} if devices > 1 or int(micro_batches[1]) > 1 else {}),
    )
    return Run(name, source, scenario, seconds, "", row, peak)


def _precision(said: str) -> str:
    return PRECISION.get(said.lower().strip(), said.lower().strip())


def settings(row: dict[str, str]) -> dict[str, str]:
    """What the scripts of the place in the source set, by column; every entry of names.toml whose
    words all stand in `source_where`.

    `mixed` is the format behind the words mixed precision; `layout_mixed` and `layout_full` are a
    layout by precision; `update` samples are between two updates, on all devices.
    """
    where = row.get("source_where") or ""
    found: dict = {}
    for entry in synonyms()["settings"]:
        if all(word in where for word in entry["where"]):
            found.update(entry)
    found.pop("where", None)
    by = found.pop("layout_mixed", ""), found.pop("layout_full", "")
    if any(by):
        found["layout"] = (
            by[0] if _precision(row.get("precision") or "").startswith("amp") else by[1]
        )
    if "stack" in found:
        found["stack"] = str(HERE / "runs" / found["stack"])
    if "update" in found and MODES.get((row.get("mode") or "").lower()) == "train":
        try:
            share = float(row.get("batch_per_device") or "") * float(row.get("n_devices") or "1")
            found["micro_batches"] = str(max(1, int(found["update"] // share)))
        except (ValueError, ZeroDivisionError):
            pass
    return found


def _step(get, shares: int, tokens: float | None) -> tuple[int, float, str]:
    """Samples of a micro-batch and seconds of a step of `shares` of them, or why they cannot be
    told. Throughput is that of all devices.

    `tokens` of a sample that a throughput in tokens counts, where the model says it and no column
    does.
    """
    try:
        batch = float(get("batch_per_device"))
    except ValueError:
        return 0, 0.0, "no batch"
    if not 1 <= batch < 1e9 or batch != int(batch):
        return 0, 0.0, f"batch {batch:g}: not a number of samples"
    try:
        seconds = (
            float(get("step_time_ms")) / 1e3
            if get("step_time_ms")
            else shares * batch / float(get("throughput_samples_s"))
        )
        tokens = float(get("tokens")) if get("tokens") else tokens
    except (ValueError, ZeroDivisionError):
        return 0, 0.0, "no step time and no throughput"
    unit = get("throughput_unit").lower()
    if not get("step_time_ms") and "tok" in unit and tokens:
        seconds *= tokens
    elif not get("step_time_ms") and re.search(r"tok|frame|mol|see ", unit):
        return 0, 0.0, f"throughput in {unit}: samples of unknown length"
    if not 0.0 < seconds < float("inf"):
        return 0, 0.0, "step time is not a positive number"
    return int(batch), seconds, ""


def _model(name: str, framework: str = "", where: str = "", given: str = "") -> str:
    """Our name of a model: as the table has it, or one that names.toml gives, whatever the case,
    the owner in front and the dashes.

    The same word may mean another model in another framework. Where the place in the source says
    "Large model" or the input "Dimension=3", a model so called goes before.
    """
    plain = name.lower().rpartition("/")[2] if name.count("/") == 1 else name.lower()
    candidates = [
        name.lower(),
        plain,
        re.sub(r"[ _]+", "-", plain),
        re.sub(r"(?<=gpt)-(?=\d)", "", re.sub(r"[ _]+", "-", plain)),
    ]
    size, dims = (
        re.search(r"> (base|large) model", where.lower()),
        re.match(r"dimension=([23])", given.lower()),
    )
    more = f"-{size[1]}" if size else f"-{dims[1]}d" if dims else ""
    known, named = models.names(), synonyms()
    own = next(
        (table for word, table in named["models_of"].items() if word in framework.lower()), {}
    )
    for candidate in [c + more for c in candidates] * bool(more) + candidates:
        ours = own.get(candidate) or named["models"].get(candidate)
        if ours:
            return str(HERE.parent / ours) if ours.startswith("nets/") else ours
        if candidate in known:
            return candidate
    return name


def beside(folder: Path, name: str) -> str:
    """A name as it is; of a .toml file that lies where its path leads from `folder`, the path from
    here.
    """
    path = folder / name
    return str(path) if name.endswith(".toml") and path.is_file() else name


def stack_of(framework: str) -> str:
    """Our stack for what a table calls its framework.

    >>> stack_of("PyTorch 2.4.0 CPU torch.compile/dynamo"), stack_of("TensorFlow2"), stack_of("")
    ('pytorch-compiled', 'tensorflow', 'pytorch-eager')
    """
    words = framework.lower()
    return next(
        (stack for word, stack in synonyms()["stacks"].items() if word in words), "pytorch-eager"
    )


def scores_written(framework: str, language: bool) -> bool:
    """Whether attention is eager: PyTorch has fused attention since 2.0, and transformers calls it
    in its older families since 2024.

    >>> scores_written("PyTorch 1.13 cu117 eager", False), scores_written("PyTorch 2.1.0", False), scores_written("PyTorch 2.1.0", True)
    (True, False, True)
    """
    words = framework.lower()
    version = re.search(r"torch[^0-9]*(\d+)\.(\d+)", words)
    if stack_of(framework) != "pytorch-eager" or re.search("sdpa|flash", words):
        return False
    if version is None:
        return language
    return (int(version[1]), int(version[2])) < ((2, 3) if language else (2, 0))


def _optimizer(framework: str, notes: str, language: bool) -> str:
    """What the table trained with, where no column says. Old benchmarks time forward and backward,
    without an update.
    """
    if any(word in framework.lower() for word in BEFORE_CUDNN_8) or re.search(
        NO_UPDATE, notes.lower()
    ):
        return "none"
    return OPTIMIZER["sequence" if language else "image"]


def _image(text: str) -> int | None:
    """224x224x3 or Resolution=224x224 -> 224; None where it is not a square picture."""
    match = re.match(r"(?:resolution=)?(\d+)x(\d+)(?:x[134])?\b", text.lower().strip())
    return int(match[1]) if match and match[1] == match[2] else None


def _sequence(text: str) -> int | None:
    """Sequence Length=128, seq=128, seq_len 128, 128 tokens or 128 -> 128."""
    words = text.lower().strip()
    match = re.match(r"(\d+)(?:\.0)?(?: ?tok(?:en)?s?)?$", words) or re.search(
        r"(?:seq(?:uence)?[ _-]*(?:len(?:gth)?)?|tokens)\s*[=: ]\s*(\d+)", words
    )
    return int(match[1]) if match else None
