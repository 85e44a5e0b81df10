"""Laws that every forecast keeps, over random scenarios: `python benchmarks/laws.py [DRAWS]`.

A draw is a model, a device and options of every kind: precision, stack, optimizer, recomputation,
offload, and all that a layout has. Every violation of a law is listed with the scenario that shows
it; `--law WORD` checks only the laws with that word in their name. What predict refuses counts as
refused. tests/simulator/test_random_laws.py checks the same laws with fewer draws.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator import models
from roofcast.simulator.choose.search import search
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario as Asked
from roofcast.simulator.software import stack as stacks

SAME = 1e-9  # relative: what rounding may change
COLUMNS: dict[str, list[Any]] = {  # what a search can vary; the first is the most likely
    "tp": [1, 2, 4, 8],
    "sp": [None, True, False],
    "cp": [1, 2, 4],
    "cp_kind": [None, "ring", "all-gather", "ulysses"],
    "ep": [None, 2, 4, 8],
    "etp": [None, 1, 2],
    "dp": [1, 2, 3, 4, 8, 16, 64],
    "pp": [1, 2, 3, 4, 8],
    "vpp": [None, 2, 3],
    "schedule": [None, "gpipe", "1f1b", "interleaved", "zb-h1", "zb-v", "dualpipe"],
    "zero": [0, 1, 2, 3],
    "shard": [None, 2, 4, 8],
    "reshard": [None, True, False],
    "micro_batch": [None, 1, 2, 4],
    "offload": [(), ("activations",), ("optimizer",), ("activations", "optimizer")],
    "recompute": ["none", "full", "selective", "uniform:2", "every:2", "block:2", "modules:mlp"],
}
RECIPE: dict[str, list[Any]] = {
    "batch": [None, 1, 8, 32, 96, 256],
    "sequence": [None, 128, 512, 2048, 4096],
    "precision": [None, "bf16", "amp-bf16", "amp-fp16", "fp32", "tf32", "fp16", "fp8"],
    "optimizer": [None, "adamw", "sgd", "momentum", "adam8bit", "lamb", "adafactor", "none"],
    "attention": [None, "eager", "efficient", "flash"],
    "mode": ["train", "infer"],
    "price_per_hour": [None, 2.5],
    "tokens": [None, "1B"],
}


SOME = 0.3  # how often an option is given that the scenario can do without


def draw(rng: random.Random) -> Asked:
    """A scenario. Most are valid: degrees and options go together, the batch is a multiple of what
    the layout needs; one in five then has an option at random.
    """
    model = rng.choice(models.names())
    known = models.resolve(model)
    tokens = known.takes == "sequence"
    options: dict[str, Any] = {"model": model, "device": rng.choice(hwdb.devices())}
    for name, values in RECIPE.items():
        if rng.random() < SOME and (tokens or name not in ("sequence", "attention", "tokens")):
            options[name] = rng.choice(values)
    if rng.random() < SOME:
        options["stack"] = rng.choice(stacks.names())
    if options.get("mode") == "infer":
        options.pop("optimizer", None)
        options.pop("recompute", None)
    if rng.random() < 0.7:
        options |= layout(rng, tokens, "experts" in repr(known.config), options)
    if rng.random() < 0.2:
        name = rng.choice(sorted(COLUMNS))
        options[name] = rng.choice(COLUMNS[name])
    return Asked(**options)


def layout(
    rng: random.Random, tokens: bool, experts: bool, recipe: dict[str, Any]
) -> dict[str, Any]:
    """Options of several devices that go together. tokens, experts: what the model has."""
    training = recipe.get("mode") != "infer"
    cut = tokens and rng.random() < 0.7  # by more than data parallelism
    tp, cp = (rng.choice([1, 1, 2, 4, 8]), rng.choice([1, 1, 1, 2, 4])) if cut else (1, 1)
    pp = rng.choice([1, 1, 2, 3, 4, 8]) if cut and training else 1
    x: dict[str, Any] = {"tp": tp, "cp": cp, "pp": pp, "dp": rng.choice([1, 2, 3, 8, 64])}
    micro = rng.choice([None, 1, 2, 4])
    if tp > 1:
        x["sp"] = rng.choice([None, True, False])
    if cp > 1:
        x["cp_kind"] = rng.choice(COLUMNS["cp_kind"])
    if experts and rng.random() < 0.7:
        x["ep"], x["etp"] = rng.choice([2, 4, 8]), rng.choice([None, None, 2])
        x["dp"] *= 8
    if pp > 1:
        x["schedule"] = rng.choice([None, "gpipe", "1f1b", "zb-h1", "zb-v", "dualpipe"])
        if x["schedule"] is None:
            x["vpp"] = rng.choice([None, 2, 3])
    if training:
        x["zero"] = rng.choice([0, 1, 2, 3] if pp == 1 else [0, 1, 3])
        x["offload"] = rng.choice(COLUMNS["offload"][:1] * 3 + COLUMNS["offload"])
        if x["zero"] and rng.random() < SOME:
            x["shard"] = rng.choice([d for d in range(1, 65) if x["dp"] * cp % d == 0])
        if x["zero"] == 3:
            x["reshard"] = rng.choice([None, None, True, False])
        if tokens and rng.random() < SOME:
            x["recompute"] = rng.choice(COLUMNS["recompute"])
    batches = rng.choice([1, 2, 4]) * (2 * pp if pp > 1 else 1)
    return x | {"micro_batch": micro, "batch": x["dp"] * (micro or 1) * batches}


# ------------------------------------------------------------------ laws of one forecast
def parts_sum(s: Asked, f: Forecast) -> Iterator[str]:
    """Parameters of the rows sum to the model's, memory by kind to the peak; time does not exceed
    the step.
    """
    if (sum_ := sum(row.parameters for row in f.layers)) != f.parameters and f.devices == 1:
        yield f"parameters of the rows {sum_:,}, of the model {f.parameters:,}"
    m = f.memory
    parts = (
        m.parameters_bytes, m.gradients_bytes, m.optimizer_bytes, m.activations_bytes,
        m.transient_bytes, m.framework_bytes,
    )  # fmt: skip
    if not math.isclose(sum(parts), m.peak_bytes, rel_tol=SAME):
        yield f"memory by kind {sum(parts):.6g}, peak {m.peak_bytes:.6g}"
    if min(parts) < 0:
        yield f"memory below zero: {min(parts):.6g}"
    told = sum(row.time_s for row in f.layers) + f.between_steps_s
    if f.layout is not None:
        told += f.update_s + sum(f.exposed_communication_s.values())
        told += (f.bubble_fraction or 0.0) * f.step_time_s + (f.uneven_stages_s or 0.0)
        told += f.waiting_for_host_s or 0.0
    if told > f.step_time_s * (1 + 1e-6):
        yield f"parts of the time sum to {told:.6g} s, the step is {f.step_time_s:.6g} s"


def bounds_hold(s: Asked, f: Forecast) -> Iterator[str]:
    """The estimate is not below its lower bound (but on GeForce boards), the interval holds it,
    utilisation is at most 1 or explained, and all of it is finite.
    """
    if not (0 < f.step_time_s < math.inf and f.memory.peak_bytes > 0):
        yield f"step {f.step_time_s} s, peak {f.memory.peak_bytes} bytes"
    above_clock = "GeForce" in hwdb.device(s.device).name  # they run above their printed clock
    if f.lower_bound_s > f.step_time_s * (1 + SAME) and not above_clock:
        yield f"estimate {f.step_time_s:.6g} s below its bound {f.lower_bound_s:.6g} s"
    if f.low_s is not None and not f.low_s <= f.step_time_s <= (f.high_s or math.inf):
        yield f"interval {f.low_s:.6g} to {f.high_s:.6g} s without the {f.step_time_s:.6g} s"
    explained = any("MFU above 1" in text for text in f.assumptions)
    for name, value in () if explained else (("MFU", f.mfu), ("HFU", f.hfu)):
        if value is not None and value > 1.0 + SAME:
            yield f"{name} {value:.3f}"
    if f.bubble_fraction is not None and not 0 <= f.bubble_fraction < 1:
        yield f"bubble {f.bubble_fraction:.3f}"


# ------------------------------------------------------------------ laws of two forecasts
def changed(s: Asked, **options: Any) -> Forecast | None:
    """The forecast of a changed scenario; None where it is refused."""
    try:
        return forecast(Asked(**{**as_dict(s), **options}))
    except RoofcastError:
        return None


def as_dict(s: Asked) -> dict[str, Any]:
    """The options of a scenario."""
    return {name: getattr(s, name) for name in s.__struct_fields__}


def saved_and_read(s: Asked, f: Forecast) -> Iterator[str]:
    """A forecast that was written and read writes the same text."""
    text = f.to_json()
    if Forecast.from_json(text).to_json() != text:
        yield "another text after to_json, from_json, to_json"


def two_micro_batches(s: Asked, f: Forecast) -> Iterator[str]:
    """A step of two micro-batches per rank never needs less memory than a step of one."""
    if f.layout is None or f.layout.pp > 1 or s.mode == "infer":
        return
    micro, dp = f.layout.micro_batch, f.layout.dp
    one, two = (changed(s, batch=n * micro * dp, micro_batch=micro) for n in (1, 2))
    if one and two and two.memory.peak_bytes < one.memory.peak_bytes * (1 - SAME):
        less = two.memory.peak_bytes / one.memory.peak_bytes - 1
        yield f"two micro-batches of {micro} need {100 * less:.2f} % of memory beyond one"


def better_hardware(s: Asked, f: Forecast) -> Iterator[str]:
    """More bandwidth, peak, capacity or link rate never makes a step slower; all rates of a device
    doubled never make it more than twice as fast.
    """
    rates = list(rates_of(s.device))
    some = random.Random(repr(s)).sample(rates, min(len(rates), 4))
    # the order of zb-v is greedy: with faster ops it can be a worse one
    allowed = 0.01 if s.schedule == "zb-v" else SAME
    for edit in [*({rate: "x2"} for rate in some), dict.fromkeys(rates, "x2")]:
        after = changed(s, set=edit, micro_batch=f.layout.micro_batch if f.layout else None)
        if after is None:
            continue
        what = "all rates" if len(edit) > 1 else next(iter(edit))
        if after.step_time_s > f.step_time_s * (1 + allowed):
            yield f"{what} doubled: {f.step_time_s:.6g} -> {after.step_time_s:.6g} s"
        if after.step_time_s < f.step_time_s * (0.5 - SAME):
            yield f"{what} doubled: {f.step_time_s / after.step_time_s:.4f} times as fast"
        if f.memory.fits and after.memory.fits is False:
            yield f"{what} doubled: no longer fits"


def rates_of(name: str) -> Iterator[str]:
    """Names of what more of is better, as edits name it."""
    device = hwdb.device(name)
    yield "memory.bandwidth"
    yield from (f"peak_flops.{name}" for name in device.peak_flops)
    yield from (f"vector_flops.{name}" for name in device.vector_flops)
    if device.clock:
        yield "clock"
    if device.memory.capacity:
        yield "memory.capacity"
    if device.scale_up.bandwidth:
        yield "scale_up.bandwidth"


def sharded_weights(s: Asked, f: Forecast) -> Iterator[str]:
    """ZeRO-3 exchanges what ZeRO-1 does and more, so that it gains at most the seconds that ZeRO-1
    leaves exposed: those of the weights gathered after the update hide behind compute.
    """
    if f.layout is None or f.layout.pp > 1 or f.layout.dp == 1 or s.mode == "infer":
        return
    fixed = {"micro_batch": f.layout.micro_batch, "shard": s.shard, "reshard": None}
    one, three = (changed(s, zero=stage, **fixed) for stage in (1, 3))
    if one and three:
        exposed = one.exposed_communication_s.get("data", 0.0)
        if three.step_time_s < (one.step_time_s - exposed) * (1 - SAME):
            gain = three.step_time_s / one.step_time_s - 1
            yield f"ZeRO-3 {gain:+.2%}, ZeRO-1 exposes {exposed / one.step_time_s:.2%}"


def search_equals_predict(s: Asked, f: Forecast | None) -> Iterator[str]:
    """The row of a search that has the scenario's layout has its time and memory, and is refused
    where predict refuses it.
    """
    rng = random.Random(repr(s))
    row = {n: getattr(s, n) for n in COLUMNS}
    beside = {n: rng.choice(COLUMNS[n]) for n in rng.sample(sorted(COLUMNS), 3)}
    grid = {n: list(dict.fromkeys([v, beside.get(n, v)])) for n, v in row.items()}
    yield from differences(s, grid, limit=3)


def differences(s: Asked, grid: dict[str, list[Any]], limit: int = 10**9) -> Iterator[str]:
    """Rows of a search that are not what predict says: the first, and random others up to so
    many.
    """
    try:
        found = search(s, grid)
    except RoofcastError:
        found = None
    count = math.prod(map(len, grid.values()))
    order = [0, *random.Random(count).sample(range(1, count), min(count - 1, limit - 1))]
    for i in order if found else [0]:
        layout = found.layout(i) if found else {n: v[0] for n, v in grid.items()}
        f = changed(s, **layout)
        said = {n: v for n, v in layout.items() if v not in (None, 1, ())}
        if found is None or found.refused[i]:
            if f is not None:
                yield f"the search refuses {said}"
        elif f is None:
            yield f"the search lists {said}, which predict refuses"
        else:
            for what, mine, its in (
                ("step", found.step_s[i], f.step_time_s),
                ("peak memory", found.peak_bytes[i], f.memory.peak_bytes),
            ):
                if not math.isclose(mine, its, rel_tol=SAME):
                    yield f"{what} {mine / its - 1:+.3%} in the search: {said}"


LAWS: dict[str, Callable[[Asked, Any], Iterator[str]]] = {
    "parts sum": parts_sum,
    "bounds hold": bounds_hold,
    "saved and read": saved_and_read,
    "two micro-batches": two_micro_batches,
    "better hardware": better_hardware,
    "sharded weights": sharded_weights,
    "search equals predict": search_equals_predict,
}


def violations(s: Asked, word: str = "") -> Iterator[tuple[str, str]]:
    """Law and text of every violation that a scenario shows."""
    try:
        f: Forecast | None = forecast(s)
    except RoofcastError:
        f = None
    for name, law in LAWS.items():
        if word in name and (f is not None or law is search_equals_predict):
            for text in law(s, f):
                yield name, text


def told(s: Asked) -> str:
    """A scenario in words."""
    plain = Asked(model=s.model, device=s.device)
    options = {n: v for n, v in as_dict(s).items() if v != getattr(plain, n)}
    return f"{s.model} on {s.device} {options or ''}"


def main() -> None:
    """Print every violation, and how many there are of each law."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("draws", nargs="?", type=int, default=1000)
    parser.add_argument("seed", nargs="?", type=int, default=0)
    parser.add_argument("--law", default="")
    given = parser.parse_args()
    rng, broken, start = random.Random(given.seed), Counter[str](), time.perf_counter()
    for _ in range(given.draws):
        s = draw(rng)
        broken["refused"] += changed(s) is None
        for law, text in violations(s, given.law):
            broken[law] += 1
            print(f"{law}: {text}\n    {told(s)}")
    seconds = time.perf_counter() - start
    print(f"{given.draws} draws, seed {given.seed}, {seconds:.0f} s; predict refuses")
    print(f"{broken['refused']} of them:")
    print(*(f"    {broken[name]:4d} violations: {name}" for name in LAWS), sep="\n")


if __name__ == "__main__":
    main()
