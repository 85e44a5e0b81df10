"""Forecasts of measured watts, row by row: `roofcast validate --power`.

Every kind of row is answered by what may be compared: under power caps the watts, and the time as
a ratio to that at the highest cap of the same run; in serving the watts at the rate as measured;
of whole nodes the watts of the node; of processor packages the watts against load.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from roofcast import hwdb
from roofcast.hwdb import constants
from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.hwdb.sites import site_of
from roofcast.scenarios.measured.cells import Row, positive, rows, text
from roofcast.scenarios.measured.power_serving import decoding_watts, pass_watts
from roofcast.scenarios.measured.power_words import PRECISIONS, device_of, model_of, sizes_of
from roofcast.simulator.campaign.package import package_tdp, package_watts
from roofcast.simulator.forecast.chain import without_interval
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.times.power import board_of

DEFAULT_BATCH = 32  # of a run whose table does not say
KWH = 3.6e6
# tokens of a request before its reply beyond a plain question, of pictures and code; assumed
PICTURES = {"image-chat": 1000.0, "video-chat": 2000.0, "sourcegraph-fim": 2000.0}
UNGUIDED = ("flux-dev", "flux-schnell")  # a sample is one pass; others pass it twice, guided
# part of a request on one board, in text encoder and decoder of the picture: fitted to watts of
# 2 to 8 H100 (ML.ENERGY)
SERIAL = {"image": 0.02, "video": 0.01}
# samples of an epoch; where it took longer than its steps are forecast to, the board waited
EPOCHS = {
    "imagenet": 1281167, "squad": 88524, "librispeech": 281241, "movielens-1m": 4970845,
    "sentiment140": 1600000,
}  # fmt: skip
AT_REST = 100  # W below which a forecast step is taken to wait for its host


class Answer(NamedTuple):
    """The forecast of a row. SI units; None where the row has no such quantity."""

    power_w: float | None = None
    time_s: float | None = None
    energy_j: float | None = None
    scope: str = ""  # whose watts: board, accelerator, node, package, fleet
    compared: str = ""  # what may be compared
    anchor: bool = False  # its time is that of the row itself
    pue: float | None = None
    refused: str = ""


class Answered(NamedTuple):
    """A row with its forecast."""

    row: dict[str, str]
    answer: Answer


def number(row: Row, column: str) -> float | None:
    """A positive number of a cell; None for none."""
    return positive(text(row, column))


def answers(path: Path) -> list[Answered]:
    """The forecasts of a table. Raises BadInput where it is no such table."""
    table = list(rows(path, "a table of measured watts"))
    if table and not {"kind", "device", "avg_power_w"} <= set(table[0]):
        raise BadInput(
            f"{path}: no measured watts; wanted the columns kind, device, workload, model,"
            " avg_power_w ..."
        )
    return answered(table)


def answered(table: Sequence[Row]) -> list[Answered]:
    """The forecasts of rows; those of one run under several limits are to be among them."""
    tops = _highest_caps(table)
    return [Answered(dict(row), _answer(row, tops)) for row in table]


Run = tuple[str, ...]


def _run(row: Row) -> Run:
    """What the rows of one run under several caps share."""
    columns = ("source", "device", "n_devices", "workload", "model", "batch", "optimizer")
    return tuple(text(row, column) for column in columns)


def _short(model: str) -> str:
    """The name of a model, or of its file without the folder."""
    return model.rsplit("/", 1)[-1].removesuffix(".toml")


def _highest_caps(table: Iterable[Row]) -> dict[Run, tuple[float, float]]:
    """The highest cap of each run, and the time there."""
    found: dict[Run, tuple[float, float]] = {}
    for row in table:
        cap, seconds = number(row, "power_limit_w"), number(row, "time_s")
        if cap is not None and seconds is not None and cap > found.get(_run(row), (0.0, 0.0))[0]:
            found[_run(row)] = cap, seconds
    return found


def _answer(row: Row, tops: dict[Run, tuple[float, float]]) -> Answer:
    kind = text(row, "kind")
    how = KINDS.get(kind)
    try:
        if kind == "power_cap_training":
            return _capped(row, tops)
        if how is None:
            known = ", ".join(("power_cap_training", *KINDS))
            raise BadInput(f"kind {kind!r} is not known; known: {known}")
        return how(row)
    except RoofcastError as error:
        return Answer(refused=str(error))


@lru_cache(maxsize=4096)
def trained(
    device: str, model: str, batch: int, cap: float | None, sizes: tuple[tuple[str, int], ...],
    precision: str | None = "fp32",
) -> Forecast:  # fmt: skip
    """A training step on one device, under a power limit where one is given [W]."""
    edits: dict[str, Any] = {"power.cap": cap} if cap is not None else {}
    settings: dict[str, Any] = dict(sizes)
    scenario = Scenario(
        model=model, device=device, batch=batch, precision=precision, set=edits, **settings
    )
    return without_interval(scenario)[0]


def _capped(row: Row, tops: dict[Run, tuple[float, float]]) -> Answer:
    """Training under a cap: watts; time over that at the highest cap of the run."""
    cap = number(row, "power_limit_w")
    if cap is None:
        raise BadInput("power_limit_w is missing; the watts under a cap need one")
    top, seconds = tops.get(_run(row), (cap, 0.0))
    device, (model, alike) = device_of(text(row, "device"), top), model_of(text(row, "model"))
    n = int(number(row, "n_devices") or 1)
    batch = max(int(number(row, "batch") or DEFAULT_BATCH * n) // n, 1)
    sizes = tuple(sizes_of(text(row, "workload"), model).items())
    precision = PRECISIONS.get(text(row, "precision"), text(row, "precision") or "fp32")
    found, first = (trained(device, model, batch, w, sizes, precision) for w in (cap, top))
    boards = n if _of_all(row, n) else 1
    slower = 1.0 if alike else _slower(row, batch * n, first.step_time_s, seconds)
    watts = boards * _at_rate(_known(found.power_w, device), device, slower)
    longer = (found.step_time_s / first.step_time_s - 1.0) / slower  # no limit lengthens waiting
    time = seconds * (1.0 + longer) if seconds else None
    like = f"; {_short(model)} stands for the model" if alike else ""
    return Answer(
        watts, time, watts * time if time is not None else None, "board",
        f"watts; time over that at {top:g} W, the highest cap of the run{like}", cap == top,
    )  # fmt: skip


def _of_all(row: Row, n: int) -> bool:
    """Whether the watts of a row are those of all its boards: its joules tell."""
    watts, seconds, joules = (number(row, c) for c in ("avg_power_w", "time_s", "energy_j"))
    if n == 1 or watts is None or seconds is None or joules is None:
        return True
    return joules < watts * seconds * (1 + n) / 2


def _slower(row: Row, batch: int, step_s: float, epoch_s: float) -> float:
    """How many times its forecast an epoch took, at least 1; 1 where its samples are not known."""
    workload = text(row, "workload")
    samples = next((n for word, n in EPOCHS.items() if word in workload), None)
    if samples is None or text(row, "time_unit") != "one epoch" or not epoch_s:
        return 1.0
    return max(epoch_s / (samples / batch * step_s), 1.0)


def _at_rate(watts: float, device: str, slower: float) -> float:
    """Watts where the same work took longer: joules of the work over the time it took, and the
    board at rest, with kernels resident where the device was the limit.
    """
    board = board_of(hwdb.device(device), constants.kernels().power)
    if board is None or slower <= 1.0:
        return watts
    rest = board.idle + (board.active if watts > AT_REST else 0.0)
    return rest + max(watts - rest, 0.0) / slower


def _serving(row: Row) -> Answer:
    """Serving: watts of all boards at the rate as measured; joules of a request."""
    device, (model, alike) = device_of(text(row, "device")), model_of(text(row, "model"))
    n = int(number(row, "n_devices") or 1)
    rate = number(row, "tokens_per_s")
    if rate is not None:
        batch = number(row, "avg_batch") or number(row, "batch") or 1.0
        output = number(row, "output_tokens") or _output(text(row, "note"))
        precision = PRECISIONS.get(text(row, "precision"), "bf16")
        more = next((t for w, t in PICTURES.items() if w in text(row, "workload")), 0.0)
        each = decoding_watts(device, model, batch, n, precision, output, rate, more)
        how = "watts at the measured tokens/s and batch"
    else:
        video = "video" in text(row, "workload")
        passes = 1 if model in UNGUIDED else 2
        batch = passes * int(number(row, "batch") or 1)
        each = pass_watts(device, model, batch, n, SERIAL["video" if video else "image"])
        how = "watts of a denoising pass"
    measured, joules = number(row, "avg_power_w"), number(row, "energy_j")
    seconds = joules / measured if joules is not None and measured is not None else None
    like = f"; {_short(model)} stands for the model" if alike else ""
    watts = n * each
    return Answer(
        watts, seconds, watts * seconds if seconds is not None else None, "board",
        f"{how}; seconds of a request as measured (energy_j / avg_power_w){like}", True,
    )  # fmt: skip


def _output(note: str) -> float:
    """Mean tokens of a reply, of a note."""
    found = re.search(r"avg output ([\d.]+)", note)
    return float(found[1]) if found else 300.0


TUNED = {"stack": "nvidia-tuned", "precision": "amp-fp16"}  # nets, as submissions run them
LANGUAGE = {"stack": "te-nemo-2024", "precision": "fp8"}  # large language models
RANK = 16  # of the adapters of MLPerf's llama2_70b_lora
SPLIT = {"llama-2-70b": 4, "llama-3.1-405b": 8, "gpt3-175b": 8}  # tensor-parallel degree


@lru_cache(maxsize=256)
def _node_step(
    device: str, model: str, devices: int, batch: int, sizes: tuple[tuple[str, int], ...],
    adapted: bool,
) -> Forecast:  # fmt: skip
    tp = SPLIT.get(model, 1)
    settings: dict[str, Any] = dict(sizes) | (LANGUAGE if tp > 1 else TUNED)
    settings |= {"lora": RANK} if adapted else {}
    while tp > 1 and devices // tp > batch and tp < devices:
        tp *= 2
    least = max(devices // tp, 1)
    scenario = Scenario(
        model=model, device=device, devices=devices, tp=tp,
        batch=max(batch // least, 1) * least, **settings,
    )  # fmt: skip
    return without_interval(scenario)[0]


def _node(row: Row) -> Answer:
    """Whole nodes in training: the mean over the run of one node's watts."""
    device, (model, alike) = device_of(text(row, "device")), model_of(text(row, "model"))
    n = int(number(row, "n_devices") or 8)
    batch = int(number(row, "batch") or DEFAULT_BATCH * n)
    sizes = tuple(sizes_of(text(row, "workload"), model).items())
    found = _node_step(device, model, n, batch, sizes, "lora" in text(row, "model"))
    scope = "accelerator" if "dc-power" in text(row, "source_name") else "node"
    per = int(found.node_devices or 8)
    watts = found.power_by_scope_w[scope] * min(per, n)
    seconds = number(row, "time_s")
    like = f"; {_short(model)} stands for the model" if alike else ""
    where = "behind the power supplies" if scope == "accelerator" else "at the plug"
    return Answer(
        watts, seconds, watts * seconds * max(n / per, 1.0) if seconds is not None else None,
        scope, f"watts of one node {where}; time as measured{like}", True,
    )  # fmt: skip


def _package(row: Row) -> Answer:
    """A processor package against its load."""
    tdp = package_tdp(text(row, "device"))
    load = (positive(text(row, "utilisation_pct")) or 0.0) / 100.0
    watts = package_watts(tdp, load, "some" in text(row, "workload"))
    seconds = number(row, "time_s")
    return Answer(
        watts, seconds, watts * seconds if seconds is not None else None, "package",
        "watts of the package; time as measured", True,
    )  # fmt: skip


def _training_watts(device: str) -> Forecast:
    """A typical training step of a language model on a device."""
    return trained(device, "gpt2-xl", 8, None, (("sequence", 1024),), None)


def _with_host(row: Row) -> Answer:
    """Mean watts of an accelerator with its share of the host."""
    words = text(row, "device")
    device = device_of(words, 300.0 if "V100" in words else 0.0)
    if device == "v100-pcie-32gb":
        device = "v100-sxm2-32gb"
    watts = _training_watts(device).power_by_scope_w["accelerator"]
    return Answer(watts, None, None, "accelerator", "watts in training a transformer")


def _boards(row: Row) -> Answer:
    """Watts of a board in training, of a reading."""
    device = device_of(text(row, "device"))
    watts = _known(_training_watts(device).power_w, device)
    return Answer(watts, None, None, "board", "watts in training a transformer")


RUNS: dict[str, dict[str, Any]] = {  # tokens that the papers state
    "olmo-7b": {"tokens": 2.46e12, "sequence": 2048, "batch": 2160, "zero": 3},
    "bloom-176b": {"tokens": 366e9, "sequence": 2048, "batch": 2048, "tp": 4, "pp": 12,
                   "stack": "deepspeed-megatron-blocking"},
}  # fmt: skip


def _run_energy(row: Row) -> Answer:
    """Energy of the boards over a published run."""
    words = text(row, "device")
    found = re.search(r"\(([^()]+)\)", words)
    model, _ = model_of(found[1] if found else words)
    if model not in RUNS:
        raise BadInput(f"{words}: tokens of this run are not known; known: {', '.join(RUNS)}")
    device = "a100-sxm4-80gb" if model == "bloom-176b" else device_of(words)
    scenario = Scenario(
        model=model, device=device, devices=int(number(row, "n_devices") or 8), **RUNS[model]
    )
    done = without_interval(scenario)[0]
    joules = done.energy_by_scope_j["board"]
    return Answer(
        done.power_w, done.time_to_train_s, joules, "board",
        f"energy of the boards ({joules / KWH / 1000:.0f} MWh), without failures and idling",
    )  # fmt: skip


def _pue(row: Row) -> Answer:
    """The PUE of a kind of site."""
    where = "gcp-" if "google" in text(row, "device").lower() else ""
    name, site = site_of(where)
    return Answer(pue=site.pue, scope="site", compared=f"PUE of the site {name}: no watts")


def _known(watts: float | None, device: str) -> float:
    if watts is None:
        raise BadInput(f"{device}: its power is not known")
    return watts


KINDS: dict[str, Callable[[Row], Answer]] = {
    "inference_serving": _serving,
    "node_power_training": _node,
    "cpu_load": _package,
    "accelerator_power_with_host": _with_host,
    "gpu_power_training": _boards,
    "power_fluctuation": _boards,
    "run_energy": _run_energy,
    "pue": _pue,
}
