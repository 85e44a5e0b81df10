"""Forecasts of measured servers: what is predicted of each row of a table, and its errors."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from statistics import mean as mean_of
from statistics import median
from typing import Any, NamedTuple

import msgspec
import numpy as np

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput, RoofcastError, one_line, quoted
from roofcast.scenarios.measured.cells import LARGEST, LEAST, Row
from roofcast.scenarios.measured.serving.cases import suspect
from roofcast.scenarios.measured.serving.protocols import protocol
from roofcast.scenarios.measured.serving.rows import UNSTATED, Ran, model_of, ran, server_of
from roofcast.simulator.serving.capacity import Room, room
from roofcast.simulator.serving.chain import STACK
from roofcast.simulator.serving.costs import Costs
from roofcast.simulator.serving.interval import around
from roofcast.simulator.serving.load import Load, Requests
from roofcast.simulator.serving.means import Mean, mean
from roofcast.simulator.serving.profiles import profile
from roofcast.simulator.serving.replay import replay
from roofcast.simulator.serving.server import Server
from roofcast.simulator.serving.steps import Steps

GIB = 2.0**30
CHAT = 300.0  # tokens of a prompt of a chat benchmark that states none
SHORT = 128.0  # of any other
NARROW, SIXTEEN = ("fp8", "nvfp4"), 2.0  # formats of weights; bytes of an element
PASSES = 6  # of a closed loop, whose times depend on how many users decode
USED = 0.95  # share of the memory that a server which ran may have used: they are tuned
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
NATIVE = (  # formats of checkpoints, by their names
    ("nvfp4", "nvfp4"), ("fp8", "fp8"), ("awq", "int4"), ("gptq", "int4"), ("gpt-oss", "mxfp4"),
    ("deepseek-v3", "fp8"), ("deepseek-r1", "fp8"), ("kimi-k2", "fp8"), ("minimax-m2", "fp8"),
)  # fmt: skip


class Predicted(NamedTuple):
    """What is forecast of a row; None where the row asks for no such thing."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    output_tokens_per_s: float | None = None
    prefill_tokens_per_s: float | None = None
    peak_mem_gib: float | None = None


class Scored(NamedTuple):
    """A row and its forecast, or why there is none."""

    row: Row
    predicted: Predicted = Predicted()
    taken: tuple[str, ...] = ()  # what the row does not state
    refused: str = ""
    suspect: str = ""  # why the row counts in no summary, by rules that do not look at its error
    stack: str = ""  # its serving profile

    @property
    def measured(self) -> bool:
        """Whether the row holds a value that is compared."""
        return any(self.value(name) is not None for name in QUANTITIES)

    def value(self, name: str) -> float | None:
        """The measured value of a column."""
        return number(self.row, name)

    def error(self, name: str) -> float | None:
        """predicted / measured - 1 of a quantity; None where either is missing."""
        found, measured = getattr(self.predicted, name), self.value(name)
        return found / measured - 1.0 if found and measured else None


def number(row: Mapping[str, str], name: str) -> float | None:
    """The positive number in a cell; None where there is none. Raises BadInput for other text."""
    text = (row.get(name) or "").strip()
    if not text or text.lower() in ("nan", "none"):
        return None
    try:
        value = float(text)
    except ValueError:
        raise BadInput(f"{name} {quoted(text)}: a number is wanted") from None
    return value if LEAST < value < LARGEST else None


def score(row: Row) -> Scored:
    """The forecast of one row."""
    try:
        whole, taken = completed(row)
        at = ran(whole)
        server = server_of(at)
        doubt = suspect(whole, server)
        return Scored(row, predict(whole, at, server), taken, suspect=doubt, stack=at.stack)
    except RoofcastError as error:
        return Scored(row, refused=str(error))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # one model that the engine cannot serve does not take the other rows with it
        return Scored(row, refused=f"not modelled: {one_line(error)}")


def score_all(rows: Iterable[Row]) -> Iterator[Scored]:
    """The forecasts of many rows."""
    return map(score, rows)


COLUMNS = (
    "model", "engine", "engine_version", "source_name", "device", "roofcast_device", "n_devices",
    "tp", "pp", "ep", "dp", "w_prec", "kv_prec", "phase", "mode", "load_kind", "load", "input_len",
    "output_len", "context_len", "notes", "speculative", "flags", "repeat_of", "e2e_s",
    *QUANTITIES,
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
    if _apart(whole):
        one = int(number(whole, "tp") or 1) * int(number(whole, "pp") or 1)
        half = int(whole["n_devices"]) // 2
        if half >= one and half % one == 0:
            whole["n_devices"] = str(half)
            taken.append("half of the devices for prefill")
    return whole, tuple(taken)


def _apart(row: Mapping[str, str]) -> bool:
    """Whether prompts and decoding have devices of their own."""
    return "disagg" in row["mode"].lower()


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


def predict(row: Row, at: Ran, server: Server) -> Predicted:
    """What a row asks for."""
    asked = number(row, "load") or 1.0
    new, out = number(row, "input_len"), number(row, "output_len")
    context = number(row, "context_len") or 0.0
    share = max(asked / at.replicas, 1.0)
    if row["phase"] == "prefill":
        return _prompts(server, share, new or SHORT, context, at)
    if row["phase"] == "decode":
        return _decode(server, share, max(context, (new or 1.0) + (out or 0.0) / 2), at)
    steady = row["load_kind"] == "batch" and row["mode"] == "agg"
    load = load_of(row, at)
    held = roomy(server, room(server, load.input_len, load.input_len + load.output_len), at)
    if steady:
        return _steady(server, load, at)
    if _apart(row) and load.kind == "concurrency":
        return _disaggregated(server, load, at)
    run = protocol(row)
    if run.processes:  # as servers have them whose API is a process of its own
        server = copy.copy(server)
        server.request_s = min(profile(STACK).ttft_s, server.request_s)
    if row["load_kind"] == "all_at_once":
        return _all_at_once(server, load, held, at)
    if load.kind == "offline" and run.requests:
        sent = msgspec.structs.replace(load, amount=math.ceil(run.requests / at.replicas))
        return _all_at_once(server, sent, held, at)
    return _served(server, load, held, at, run.waits)


KINDS = {"concurrency": "concurrency", "offline_max": "offline", "request_rate": "rate"}


def load_of(row: Mapping[str, str], at: Ran) -> Load:
    """The load of one replica of a row; a static batch where no other is stated."""
    asked = number(row, "load")
    kind = KINDS.get(row["load_kind"], "batch")
    if kind == "rate" and asked is None:
        raise BadInput("the rate of requests is unstated")
    share = (asked or 1.0) / at.replicas
    chat = row["load_kind"] == "batch" and row["mode"] == "agg"
    run = protocol(row)
    new = number(row, "input_len") or run.input_len or (CHAT if chat else SHORT)
    return Load(
        kind=kind,
        amount={"rate": share, "offline": 1.0}.get(kind, max(share, 1.0)),
        input_len=max(round(run.lengths * new), 1),
        output_len=max(round(run.lengths * (number(row, "output_len") or 1.0)), 1),
        spread=run.spread,
    )


def roomy(server: Server, held: Room, at: Ran) -> Room:
    """The memory of a server that ran: its share is tuned, at least one sequence fitted, and a
    cache whose format is not stated has 8 bits beside weights of 8 or 4.
    """
    if at.kv is None and at.weights in NARROW and server.formats.cache == SIXTEEN:
        held = held._replace(fixed=held.fixed / 2, per_token=held.per_token / 2)
    whole = held.memory_bytes / server.profile.memory_use
    memory = max(held.memory_bytes, USED * whole)
    least = held.weight_bytes + held.runtime_bytes + held.of_sequence(1.0)
    return held._replace(memory_bytes=memory if memory > least else math.inf)


def _peak(server: Server, sequences: float, tokens: float) -> float:
    """Memory of a device [GiB]."""
    cache = math.ceil(sequences / server.attention_groups) * float(server.cache_bytes(tokens))
    return (server.weight_bytes + server.runtime_bytes + cache) / GIB


def _prompts(server: Server, prompts: float, new: float, cached: float, at: Ran) -> Predicted:
    """Prompts in one pass."""
    seconds = float(server.prefill(prompts, new, cached))
    rate = prompts * new / seconds * at.replicas
    return Predicted(seconds, None, None, rate, _peak(server, prompts, new + cached))


def _decode(server: Server, sequences: float, context: float, at: Ran) -> Predicted:
    """A decode step."""
    step = float(server.decode(sequences, max(context, 1.0)))
    rate = sequences / step * at.replicas
    return Predicted(None, step, rate, None, _peak(server, sequences, context))


def _steady(server: Server, load: Load, at: Ran) -> Predicted:
    """A mean number of sequences in steady state, with prompts mixed in; answers of all lengths.

    A sequence is met in proportion to its length: il + ol (1 + cv^2) / 2 tokens in the mean, with
    the spread of chat answers, cv = 1.
    """
    context = load.input_len + load.output_len
    met = Load(kind="offline", input_len=load.input_len, output_len=load.output_len)
    costs = Costs(server, met, load.amount)
    step = float(server.decode(load.amount, context))
    stalls = load.amount * costs.added(load.amount) / max(load.output_len - 1, 1)
    rate = load.amount / (step + stalls) * at.replicas
    return Predicted(None, step, rate, None, _peak(server, load.amount, context))


def _all_at_once(server: Server, load: Load, held: Room, at: Ran) -> Predicted:
    """So many requests at one moment: a replay."""
    count = int(load.amount)
    longest = load.input_len + load.output_len
    steps = Steps(server, max(held.sequences(load.input_len), 1), longest, load.input_len)
    ones = np.ones(count, dtype=np.int64)
    asked = Requests(
        np.zeros(count), load.input_len * ones, load.output_len * ones, np.zeros_like(ones)
    )
    found = replay(steps, asked, held, None, server.request_s)
    output = count * load.output_len / found.seconds * at.replicas
    peak = _peak(server, min(count, held.sequences(longest) or 1), longest)
    tpot = float(np.nanmean(found.tpot)) if load.output_len > 1 else None
    return Predicted(float(found.ttft.mean()), tpot, output, None, peak)


def _disaggregated(server: Server, load: Load, at: Ran) -> Predicted:
    """A closed loop whose prompts are computed on as many devices of their own: no prompt delays a
    token, and users share the decoding servers. The cache is sent while the next prompt runs.
    """
    costs = Costs(server, load, load.amount)
    decoding = load.amount
    for _ in range(PASSES):
        tpot = costs.decode(max(decoding, 1.0))
        rate = load.amount / (costs.more * tpot + costs.first)
        busy = min(rate * costs.first, 0.95)  # of the devices for prompts, M/D/1
        ttft = costs.request_s + costs.first * (1.0 + busy / (2.0 * (1.0 - busy))) + tpot
        rate = load.amount / (costs.more * tpot + ttft)
        decoding = min(rate * costs.more * tpot, load.amount)
    output = rate * load.output_len * at.replicas
    peak = _peak(server, decoding, load.input_len + 0.6 * load.output_len)
    return Predicted(ttft, tpot, output, None, peak)


def waited(server: Server, load: Load, held: Room, waits: float, ramp: float | None = None) -> Mean:
    """Mean values of a load whose prompts wait for `waits` decode steps until a step takes them.

    ramp: share of prompts that come together, if not the profile's.
    """
    made: list[Costs] = []
    ramp = server.profile.ramp if ramp is None else ramp

    def remembered(*given: Any) -> Costs:
        made.append(made[0] if made else Costs(*given))
        return made[-1]

    found = mean(server, load, held, ramp=ramp, made=remembered)
    for _ in range(PASSES if waits else 0):
        made[0].request_s = server.request_s + waits * found.tpot
        found = mean(server, load, held, ramp=ramp, made=remembered)
    return found


def _served(server: Server, load: Load, held: Room, at: Ran, waits: float) -> Predicted:
    """Mean values of a load."""
    found = waited(server, load, held, waits)
    output = found.requests_per_s * load.output_len * at.replicas
    tokens = load.input_len + (1.0 if load.kind == "batch" else 0.6) * load.output_len
    prefill = load.new * (load.amount if load.kind == "batch" else 1.0) / found.alone * at.replicas
    return Predicted(
        found.ttft, found.tpot or None, output, prefill, _peak(server, found.decoding, tokens)
    )


def cells(scored: Scored) -> dict[str, str]:
    """The columns of ADDED of a row."""
    found: dict[str, str] = {}
    for name, quantity in QUANTITIES.items():
        value = getattr(scored.predicted, name)
        low, high = around(value, quantity, scored.stack) if value else (None, None)
        for end, each in (("", value), ("_low", low), ("_high", high)):
            found[f"predicted_{name}{end}"] = "" if each is None else f"{each:.6g}"
    peak = scored.predicted.peak_mem_gib
    found["predicted_peak_mem_gib"] = "" if peak is None else f"{peak:.5g}"
    found["taken_as"], found["suspect"] = "; ".join(scored.taken), scored.suspect
    found["refused_because"] = scored.refused
    return found


class Line(NamedTuple):
    """Errors of one source and quantity, as fractions."""

    source: str
    quantity: str
    rows: int
    median: float
    mean: float
    bias: float  # mean of predicted / measured - 1
    within: float  # share of rows from 0.8 to 1.25 of the measured value
    inside: float  # share of rows inside their 80 % interval


def lines(scored: Iterable[Scored]) -> list[Line]:
    """A line per source and quantity, then a line per quantity over all sources; without suspect
    rows.
    """
    groups: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for s in scored:
        for name, quantity in QUANTITIES.items():
            error = s.error(name)
            if error is None or s.suspect:
                continue
            low, high = around(1.0, quantity, s.stack)
            inside = low <= 1.0 / (1.0 + error) <= high
            for source in (s.row.get("source_name") or "no source given", ""):
                groups.setdefault((source, name), []).append((error, float(inside)))
    found = [_line(source, name, errors) for (source, name), errors in groups.items()]
    order = list(QUANTITIES)
    return sorted(found, key=lambda x: (x.source == "", x.source, order.index(x.quantity)))


def _line(source: str, name: str, errors: list[tuple[float, float]]) -> Line:
    every = [abs(e) for e, _ in errors]
    near = [0.8 <= 1.0 + e <= 1.25 for e, _ in errors]
    return Line(
        source,
        name,
        len(errors),
        median(every),
        mean_of(every),
        mean_of(e for e, _ in errors),
        mean_of(map(float, near)),
        mean_of(i for _, i in errors),
    )
