"""A measured row -> the steps that it consists of, by the physics of its server; what is suspect.

The time of a quantity is a weighted sum of steps: a decode step; a prompt's pass and output - 1
steps; a step and what the prompts of others add to it. Constants of the host enter later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from roofcast.hwdb.errors import BadInput
from roofcast.scenarios.measured.serving.protocols import looked_back, protocol
from roofcast.scenarios.measured.serving.rows import Ran, ran, server_of, turns
from roofcast.simulator.serving.capacity import OFFLINE
from roofcast.simulator.serving.engine import DOTS, FEW
from roofcast.simulator.serving.exchange import exchanges, in_turn
from roofcast.simulator.serving.kinds import Point
from roofcast.simulator.serving.passes import Spending
from roofcast.simulator.serving.server import Server

UNSTATED_PROMPT = 300.0  # tokens of a chat prompt where a table states none
MOST = 2048
FIRST_S = 0.05  # of a first token beside the steps, where users decode meanwhile
STREAMED = 0.9  # of the printed bandwidth, that weights alone may take of a measured step
REACHED = 0.7  # of the printed peak, that products of prompts reach at most
PASSES = 4  # of the number of sequences that decode in a closed loop


class Step(NamedTuple):
    """A forward, so many times: what of its time depends on a profile, and what does not."""

    weight: float
    parts: dict[str, float]  # seconds of the device, without exchanges
    library: float  # seconds of its exchanges by the library's collectives
    own: float  # seconds of the engine's own sums, without their starts
    sums: float  # how many of them
    launches: float
    rows: float  # sequences
    layers: float  # with experts
    prompt: bool
    streamed: float  # bytes of products per clock and core of the device [s at 1 byte]
    counted: float  # weights of products per clock and core of the device [s at 1 weight]
    dotted: float  # seconds of a CPU's int8 dot products at the rate of its vector units


class Case(NamedTuple):
    """A measured quantity, and its steps."""

    id: str
    source: str
    device: str
    at: Ran
    quantity: str  # tpot | decode | e2e | offline | prefill
    measured: float  # seconds
    steps: tuple[Step, ...]
    suspect: str


def case(row: Mapping[str, str]) -> Case:
    """The case of a row; raises BadInput with the reason where there is none."""
    at = ran(row)
    server = server_of(at, True)
    quantity, measured = _quantity(row)
    lengths = _lengths(row)
    taking_turns = turns(row)
    load = float(row["load"] or 0) / at.replicas / taking_turns
    steps = _steps(server, quantity, load, lengths, row)
    if taking_turns > 1.0:
        steps = [_by_turns(s, taking_turns, server) for s in steps]
    if quantity == "offline":
        steps = [s._replace(weight=s.weight / at.replicas) for s in steps]
    return Case(
        row["id"], row["source_name"], at.device, at, quantity, measured, tuple(steps),
        suspect(row, server),
    )  # fmt: skip


def _by_turns(s: Step, processes: float, server: Server) -> Step:
    """A step of processes that share a device, as `predicted.in_turns` has it."""
    kernels = server.engines["prefill" if s.prompt else "decode"].forward.kernels
    starts = (1.0 - 1.0 / processes) * kernels * server.profile.start_s
    products = max(s.parts["products"] - starts, 0.0)
    return s._replace(weight=s.weight * processes, parts=s.parts | {"products": products})


def _step(
    server: Server, weight: float, spent: Spending, phase: str, rows: float, times: float = 1.0
) -> Step:
    """A step of a server without constants of its own; times: forwards that it consists of."""
    seconds = {name: float(t) for name, t in spent.seconds.items()}
    library = seconds.pop("exchanges", 0.0)
    host = seconds.pop("host")
    assert host == 0.0, "a neutral profile has no host"
    made = server.engines[phase].forward
    launches = times * float(made.kernels + sum(s.count for s in made.sends))
    sums = times * sum(s.count for s in made.sends) if server.degrees.dp == 1 else 0.0
    own = library if not sums else _own(server, phase, rows, times)
    device, few = server.device, phase == "decode" and rows <= FEW
    clocks = float(device.cores or 1.0) * float(device.clock or device.base_clock or 1e9)
    bytes_ = sum(k.count * k.weights for k in made.launches if k.kind == "matmul")
    weights = sum(k.count * k.shape[2] * k.shape[3] for k in made.launches if k.kind == "matmul")
    own_kernels = few and device.kind == "gpu"
    streamed, counted = (x / clocks if own_kernels else 0.0 for x in (bytes_, weights))
    dotted = times * _dotted(server, phase, rows)
    layers = sum(k.count for k in made.launches if k.kind == "expert_matmul") / 2.0
    layers = 0.0 if server.fused_experts else layers
    return Step(
        weight, seconds, library, own, sums, launches, rows, times * layers, phase == "prefill",
        streamed, counted, dotted,
    )  # fmt: skip


def _dotted(server: Server, phase: str, tokens: float) -> float:
    """Seconds of a forward's products on a CPU at the rate of its int8 dot products; 0 where a
    library multiplies.
    """
    engine = server.engines[phase]
    if server.device.kind != "cpu" or not engine.how.dots:
        return 0.0
    products = [k for k in engine.forward.launches if k.kind in ("matmul", "expert_matmul")]
    once, sequence, token = np.sum([k.count * k.matrix for k in products], axis=0)
    sequences = tokens if phase == "decode" else 1.0
    flops = once + sequence * sequences + token * tokens
    return float(flops / (DOTS * engine.rates.vector))


def _own(server: Server, phase: str, rows: float, times: float) -> float:
    """Seconds of the sums of a forward in one step each, without their starts."""
    over = server.links._replace(own_s=1e-12)
    one = np.array([max(rows, 1.0)])
    made = server.engines[phase].forward
    return times * float(exchanges(made, Point(one, one, one), over, in_turn())[0])


def _number(row: Mapping[str, str], name: str) -> float:
    return float(row[name]) if row[name] else math.nan


def _quantity(row: Mapping[str, str]) -> tuple[str, float]:
    """What of a row is compared, in seconds."""
    tpot, e2e = _number(row, "tpot_s"), _number(row, "e2e_s")
    if row["phase"] == "prefill":
        tokens = _number(row, "input_len") * float(row["load"] or 1)
        rate = _number(row, "prefill_tokens_per_s")
        if not rate > 0:
            raise BadInput("no measured value")
        return "prefill", tokens / rate
    if row["mode"] == "offline":
        rate = _number(row, "output_tokens_per_s")
        if not rate > 0 or row["load_kind"] != "offline_max":
            raise BadInput("no static or offline value")
        return "offline", 1.0 / rate
    if row["phase"] == "decode" or row["load_kind"] == "batch" and row["mode"] == "agg":
        if not tpot > 0:
            raise BadInput("no measured value")
        return "decode", tpot
    if row["mode"] == "agg" and row["load_kind"] == "concurrency" and tpot > 0:
        return "tpot", tpot
    if row["mode"] == "static" and tpot > 0 and row["source_name"].startswith(("Split", "AWS")):
        return "decode", tpot
    if row["mode"] == "static" and e2e > 0:
        return "e2e", e2e
    raise BadInput("no quantity that is compared")


def _lengths(row: Mapping[str, str]) -> tuple[float, float, float]:
    """Tokens of a prompt, of an answer, and the mean context of a decode step."""
    new, out, run = _number(row, "input_len"), _number(row, "output_len"), protocol(row)
    if math.isnan(new):
        new = run.input_len or UNSTATED_PROMPT
    out = 0.0 if math.isnan(out) else out
    new, out = (run.lengths * tokens for tokens in (new, out))
    context = _number(row, "context_len")
    if math.isnan(context):
        steady = row["load_kind"] == "batch" and row["mode"] == "agg"
        at_once = float(row["load"] or 1)
        behind = looked_back(run.requests, at_once, run.repeats) if steady else 0.5
        context = new + behind * out
    return new, out, context


def _steps(
    server: Server, quantity: str, load: float, lengths: tuple[float, float, float],
    row: Mapping[str, str],
) -> list[Step]:  # fmt: skip
    """The steps of a quantity."""
    new, out, context = lengths
    if quantity == "decode":
        return [_decode(server, 1.0, max(load, 1.0), context)]
    if quantity == "prefill":
        cached = 0.0 if math.isnan(_number(row, "context_len")) else _number(row, "context_len")
        return [_prefill(server, 1.0, max(load, 1.0), new, cached)]
    if quantity == "e2e":
        found = [_prefill(server, 1.0, max(load, 1.0), max(new, 1.0), 0.0)]
        if out > 1:
            found.append(_decode(server, out - 1.0, max(load, 1.0), context))
        return found
    if quantity == "offline":
        most = _fitting(server, new, out)
        found = _served(server, most, new, out)
        return [s._replace(weight=s.weight / most) for s in found]
    return _closed(server, load, new, out)


def _fitting(server: Server, new: float, out: float) -> float:
    """Sequences that fit at once."""
    tokens = new + (OFFLINE if server.evicts else 1.0) * out
    free = server.memory_bytes - server.weight_bytes - server.runtime_bytes
    held = server.attention_groups * free / float(server.cache_bytes(tokens))
    most = float(server.most_sequences or MOST)
    if held < 1.0:
        raise BadInput("does not fit")
    return float(min(held, most))


def _served(server: Server, b: float, new: float, out: float) -> list[Step]:
    """A decode step and what the prompts of the other sequences add to one."""
    step = _decode(server, 1.0, b, new + 0.5 * out)
    per_step = max(b - 1.0, 0.0) / max(out, 1.0)  # prompts
    chunk = float(min(new, server.chunk_tokens))
    times = per_step * new / chunk
    spent = server.mixing(b, new + 0.5 * out, chunk, 0.5 * (new - chunk))
    mixed = _step(server, times, spent, "prefill", b + chunk)._replace(rows=b + 1.0)
    return [step, mixed, step._replace(weight=-times)]


def _closed(server: Server, users: float, new: float, out: float) -> list[Step]:
    """A closed loop of users: those that decode at once by Little's law."""
    most = min(users, _fitting(server, new, out))
    b, alone = most, float(server.prefill(1.0, new))
    found: list[Step] = []
    for _ in range(PASSES):
        found = _served(server, b, new, out)
        tpot = sum(s.weight * (sum(s.parts.values()) + s.library) for s in found)
        first = alone + 0.5 * sum(found[0].parts.values()) + FIRST_S
        b = max(min(users * out * tpot / (out * tpot + first), most), 1.0)
    return found


def _decode(server: Server, weight: float, b: float, context: float) -> Step:
    return _step(server, weight, server.decoding(b, context), "decode", b)


def _prefill(server: Server, weight: float, b: float, new: float, cached: float) -> Step:
    micro = server.profile.micro_batch
    parts = math.ceil(b * new / micro) if micro else 1.0
    found = _step(
        server, weight, server.prefilling(b, new, cached), "prefill", b * new / parts, parts
    )
    return found._replace(rows=b)


def suspect(row: Mapping[str, str], server: Server) -> str:
    """Why a row is left out of fits, by rules that do not look at its error; empty: it is not."""
    if server.weight_bytes > server.capacity_bytes:
        return "the weights do not fit the devices"
    if streams_more(row, server):
        return "memory cannot stream as much in the measured time"
    if "disagg" not in row["mode"].lower() and computes_more(row, server):
        return "products of all prompts need more than the printed peak: a cache of prefixes"
    if row["flags"] and "no_bound" not in row["flags"]:
        return row["flags"].lower()
    if row["repeat_of"]:
        return "a repeat"
    if converted(row, server):
        return "a cache in fp8 on a GPU without fp8 units: converted by arithmetic, not modelled"
    if row["speculative"] == "yes":
        return "speculative decoding"
    rules = (
        ("Argonne", "mixtral", "equal prompts hit equal experts"),
        ("Ampere", "", "the best of many splits of processes"),
        ("InferenceX", "deepseek-r1", "label: other rows of this point differ"),
        ("optimum-habana CI", "", "a floor of a regression test"),
        ("premAI", "", "lengths and counts not comparable"),
    )
    for source, model, why in rules:
        if row["source_name"].startswith(source) and model in row["model"].lower():
            return why
    if contradicted(row):
        return "a slower board of the same chip is 1.3 to 13 times as fast in the same table"
    return ""


def contradicted(row: Mapping[str, str]) -> bool:
    """Whether another row of the table of XiongjieDai, of A100 PCIe boards, says that this one of
    A100 SXM, with more power and bandwidth, is of something else: prompts of Llama 3 8B in 16 bits
    on one, and of 70B in 4 bits on four (which are slower than on one).
    """
    key = row["source_name"][:11], row["phase"], row["roofcast_device"]
    if key != ("XiongjieDai", "prefill", "a100-sxm4-80gb"):
        return False
    what = row["model"].lower(), row["n_devices"]
    return what in (("llama 8b f16", "1"), ("llama 70b q4_k - medium", "4"))


def converted(row: Mapping[str, str], server: Server) -> bool:
    """Whether a GPU without fp8 units keeps its cache in fp8, which it converts by arithmetic: not
    modelled. It reads int8 as any other number.
    """
    device = server.device
    fp8 = device.kind == "gpu" and not device.peak_flops.get("fp8")
    return fp8 and row["kv_prec"].lower().startswith("fp8")


def streams_more(row: Mapping[str, str], server: Server) -> bool:
    """Whether a decode step would read weights faster than memory's printed rate allows: another
    model, format or count of tokens than the row says.
    """
    tpot = _number(row, "tpot_s")
    if not tpot > 0 or any(w.expert for w in server.engines["decode"].forward.weights):
        return False
    bandwidth = float(server.device.memory.bandwidth)
    return server.weight_bytes / bandwidth > STREAMED * tpot


def computes_more(row: Mapping[str, str], server: Server) -> bool:
    """Whether users in a closed loop have more products computed than the printed peak allows."""
    ttft, tpot, users = (_number(row, name) for name in ("ttft_s", "tpot_s", "load"))
    new, out = _number(row, "input_len"), _number(row, "output_len")
    if row["load_kind"] != "concurrency" or not min(ttft, tpot, users, new, out) > 0:
        return False
    made = server.engines["prefill"].forward
    products = [k for k in made.launches if k.kind in ("matmul", "expert_matmul")]
    flops = sum(k.count * k.matrix[2] for k in products)  # of a token on a rank
    peak = max(float(server.device.peak_flops.get(k.product) or 0.0) for k in products)
    tokens = users * (new + out) / (ttft + out * tpot)
    return peak > 0 and flops * tokens > REACHED * peak
