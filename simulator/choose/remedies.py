"""What each remedy is worth: the step forecast again with it.

First each limit of the step made free (its rates FREE times as high, its latencies as much lower):
no change of that kind saves more. Then what can be changed: the attention kernel, the batch,
gradient accumulation, CUDA graphs, a compiled stack, another number format, twice the bandwidth,
another layout. Steps with another batch are compared by the time of as many samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.hwdb.units import pretty
from roofcast.simulator.choose import sensitivity
from roofcast.simulator.choose.explore import explore
from roofcast.simulator.forecast.chain import timed
from roofcast.simulator.forecast.limits import COMPUTE, HOST, LATENCY, MEMORY, NETWORK
from roofcast.simulator.forecast.resolve import Asked, resolve
from roofcast.simulator.forecast.result import Forecast, Remedy
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.work.precision import PRECISIONS, WIDTH, precision

FREE = 1e4  # times as fast: what a free resource is forecast as
# cycles alone are what a kernel takes before and after its work: an edited clock moves no peak
LIMIT_OF = {"peak_flops": COMPUTE, "vector_flops": COMPUTE, "clock": LATENCY, "memory": MEMORY}
MORE, PARTS = 2, 4  # times the batch; micro-batches of an accumulated step
COMPILED = {"pytorch-eager": "pytorch-compiled", "pytorch-eager-2023": "pytorch-compiled-2023",
            "torchtune": "torchtune-compiled"}  # fmt: skip
OFTEN = 4096  # devices: layouts are searched up to here


def with_remedies(found: Forecast, scenario: Scenario) -> Forecast:
    """The forecast of a scenario with what each remedy is worth, the largest gain first."""
    asked = resolve(scenario)._replace(rank=None)
    every = [*_free(found, scenario, asked), *_changes(found, scenario, asked)]
    every.sort(key=lambda r: -r.saved_s)
    return msgspec.structs.replace(found, remedies=tuple(every))


def _free(found: Forecast, scenario: Scenario, asked: Asked) -> Iterator[Remedy]:
    """The step where a limit is free."""
    groups: dict[str, list[sensitivity.Number]] = {}
    for number in sensitivity.numbers(asked):
        limit = _limit_of(number)
        if limit:
            groups.setdefault(limit, []).append(number)
    for limit, numbers in groups.items():
        factors = {n: FREE if n.rate else 1.0 / FREE for n in numbers}
        try:
            then = sensitivity.seconds_with(scenario, asked, factors)
        except RoofcastError:  # a rate beyond what a device may have
            continue
        then *= found.own_factor
        yield Remedy(
            name=f"{limit} free",
            limit=limit,
            saved_s=found.step_time_s - then,
            step_time_s=then,
            fits=found.memory.fits,
            peak_bytes=found.memory.peak_bytes,
        )


def _limit_of(number: sensitivity.Number) -> str | None:
    """The limit that a number of the hardware belongs to; None of the power limit, which bounds
    none of its own, and of links to the host.
    """
    if number.name in sensitivity.HOST.values():
        return HOST
    if number.name == sensitivity.KERNELS:
        return LATENCY
    if number.name == sensitivity.COLLECTIVES or number.unit == sensitivity.LINK:
        return NETWORK
    return LIMIT_OF.get(number.name.partition(".")[0].removesuffix("_hz"))


def _changes(found: Forecast, s: Scenario, asked: Asked) -> Iterator[Remedy]:
    """What a user can change."""
    yield from _bandwidth(found, s, asked)
    yield from _graphs(found, asked)
    if s.inputs:  # a traced module would be traced again for each
        return
    wanted = list(_batches(found))
    if s.lengths is not None and not s.packing:
        wanted += _less_padding(found)
    if found.attention == "eager":
        wanted.append(("fused attention", {"attention": "flash"}))
    compiled = COMPILED.get(found.stack)
    if compiled is not None:
        wanted.append(("a compiled stack", {"stack": compiled}))
    wanted += [(f"products in {name}", {"precision": name}) for name in _formats(found, asked)]
    for name, options in wanted:
        if remedy := _remedy(found, s, name, options):
            yield remedy
    if found.layout is not None and 1 < found.devices <= OFTEN:
        yield from _layout(found, s)


def _batches(found: Forecast) -> Iterator[tuple[str, dict[str, Any]]]:
    """A larger batch, and gradients of several batches added up."""
    more: dict[str, Any] = {"batch": MORE * found.batch}
    if found.layout is None:
        yield f"batch {more['batch']:,}", more
        if found.mode == "train":
            batch = PARTS * found.batch
            accumulated = {"batch": batch, "micro_batch": found.batch}
            yield f"batch {batch:,} in {PARTS} micro-batches (accumulation)", accumulated
        return
    more |= {"micro_batch": found.layout.micro_batch}
    yield f"batch {more['batch']:,}: twice as many micro-batches", more
    if found.layout.micro_batches > 1 and found.layout.micro_batches % MORE == 0:
        larger = MORE * found.layout.micro_batch
        yield f"micro-batches of {larger} samples", {"micro_batch": larger}


def _less_padding(found: Forecast) -> Iterator[tuple[str, dict[str, Any]]]:
    """Whole sequences of samples, and smaller micro-batches, whose longest sample is shorter."""
    yield "samples packed into whole sequences", {"packing": True}
    micro = found.layout.micro_batch if found.layout else found.batch
    if micro % MORE == 0 and found.mode == "train":
        yield f"micro-batches of {micro // MORE}: less padding", {"micro_batch": micro // MORE}


def _formats(found: Forecast, asked: Asked) -> Iterator[str]:
    """Formats of fewer bits that the device multiplies faster: one for each format of products."""
    now = precision(found.precision).product
    peak = asked.device.peak_flops
    rate, seen = peak.get(now) or 0.0, set()
    for name, p in PRECISIONS.items():
        usable = p.trains or found.mode == "infer"
        faster = WIDTH[p.product] < WIDTH[now] and (peak.get(p.product) or 0.0) > rate
        if usable and faster and p.product not in seen:
            seen.add(p.product)
            yield name


def _bandwidth(found: Forecast, s: Scenario, asked: Asked) -> Iterator[Remedy]:
    """Twice the memory bandwidth, where a device may have that."""
    key = "memory.bandwidth"
    double = pretty(2.0 * float(asked.device.memory.bandwidth), "B/s") if key in s.set else "x2"
    edits = {**s.set, key: double}
    try:
        then, _ = timed(asked._replace(device=hwdb.device(s.device, edits)))
    except RoofcastError:
        return
    yield _of(found, then, "twice the memory bandwidth", {"set": edits})


def _remedy(found: Forecast, s: Scenario, name: str, options: dict[str, Any]) -> Remedy | None:
    """The step with other options; None where these cannot be, or change nothing."""
    try:
        then, _ = timed(resolve(msgspec.structs.replace(s, **options)))
    except RoofcastError:
        return None
    return _of(found, then, name, options)


def _of(found: Forecast, then: Forecast, name: str, options: dict[str, Any]) -> Remedy:
    samples, more = found.samples_read, then.samples_read
    seconds = then.step_time_s * found.own_factor * samples / more
    return Remedy(
        name=name,
        options=options,
        saved_s=found.step_time_s - seconds,
        step_time_s=then.step_time_s * found.own_factor,
        fits=then.memory.fits,
        peak_bytes=then.memory.peak_bytes,
        note=f"per {samples:,.4g} samples" if more != samples else "",
    )


def _graphs(found: Forecast, asked: Asked) -> Iterator[Remedy]:
    """Launches in CUDA graphs, where the stack has none."""
    stack = asked.recipe.stack
    if stack.graphs or stack.program_s or asked.device.kind != "gpu":
        return
    recipe = msgspec.structs.replace(
        asked.recipe, stack=msgspec.structs.replace(stack, graphs=True)
    )
    then, _ = timed(asked._replace(recipe=recipe))
    yield _of(found, then, "launches in CUDA graphs", {})


def _layout(found: Forecast, s: Scenario) -> Iterator[Remedy]:
    """The fastest layout of a coarse grid on the same devices."""
    free = dict.fromkeys(
        ("tp", "sp", "pp", "vpp", "dp", "cp", "ep", "etp", "zero", "shard", "reshard", "schedule",
         "micro_batch", "cp_kind")
    )  # fmt: skip
    open_ = msgspec.structs.replace(s, **free, stages=(), devices=None, batch=found.batch)
    try:
        each = explore(open_, found.devices, few=True)
        best = each.best(1)
    except RoofcastError:
        return
    if not best:
        return
    options = {k: v for k, v in each.options[best[0]].items() if v not in (None, ())}
    remedy = _remedy(found, s, "another layout", {**free, "stages": (), **options})
    if remedy is None:
        return
    said = {k: v for k, v in options.items() if v not in (1, False) or k == "zero"}
    yield msgspec.structs.replace(
        remedy,
        options=options,
        note=", ".join(f"{k} {v}" for k, v in said.items() if k not in ("devices", "batch")),
    )
