"""From measured ceilings to device files: one of the machine with all its threads, one of a single
thread of it.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from importlib import metadata
from statistics import median

from roofcast.simulator.machine.host import Host
from roofcast.simulator.machine.sampling import AGREE, OURS, Rate

Ceilings = Mapping[str, Rate]  # by key of its job
HOST = "what the operating system says of the machine (/proc and /sys, sysctl, or the registry)"


def disagreement(ceilings: Ceilings) -> float:
    """By how much the halves of the rounds differ, median over the ceilings."""
    return median(rate.differ for rate in ceilings.values())


def share(ceilings: Ceilings) -> float:
    """Of the processors' time that the threads had, median over the ceilings; starting threads is
    waiting, and left out.
    """
    return median(rate.share for key, rate in ceilings.items() if key != "fork")


def versions(load: float | None) -> str:
    """When and with what it was measured."""
    from roofcast.simulator.machine.kernels.compiled import numba

    try:
        own = metadata.version("roofcast")
    except metadata.PackageNotFoundError:
        own = "source"
    try:
        layer = f", threads by {numba.threading_layer()}"
    except ValueError:  # no parallel loop has run
        layer = ""
    busy = "" if load is None else f", load average {load:.1f}"
    return (
        f"roofcast calibrate, {datetime.date.today()}, roofcast {own}, numba"
        f" {numba.__version__}{layer}{busy}"
    )


def text(host: Host, ceilings: Ceilings, alone: bool, stamp: str) -> str:
    """The device file. `ceilings`: those of one thread, or those of all. Nothing of the machine is
    printed anywhere, so what stands where other files have printed rates is the best that was
    measured, and says so.
    """
    threads = 1 if alone else host.threads
    instances = {level: 1 if alone else cache.instances for level, cache in host.caches.items()}
    products = [
        key for key in ("gemm 512", "gemm 1024", "blas 512", "blas 1024") if key in ceilings
    ]
    best = max(("fma32", *products), key=lambda key: ceilings[key].value)
    peak, bandwidth = ceilings[best].value, _roof(ceilings, "memory")
    lines = [
        (
            "name ="
            f" {quoted(host.name + (', one thread' if threads == 1 else f', {threads} threads'))}"
        ),
        f"vendor = {quoted(host.vendor)}",
        'kind = "cpu"',
        f"architecture = {quoted(host.architecture)}",
        'core = "core"',
        f"notes = {json.dumps(_notes(host, ceilings, alone), ensure_ascii=False, indent=4)}",
        "",
        f"cores = {told(1 if alone else host.cores)}",
    ]
    if host.clock:
        lines.append(f"clock = {told(host.clock)}")
    lines += [
        "",
        "[peak_flops]  # measured: the best of chains of multiply-adds and of products [FLOP/s]",
    ]
    lines += [f"fp32 = {_figure(ceilings, best)}", f"fp64 = {_figure(ceilings, 'fma64')}"]
    lines += [
        "",
        "[vector_flops]",
        f"fp32 = {_figure(ceilings, best)}",
        f"fp64 = {_figure(ceilings, 'fma64')}",
    ]
    lines += ["", "[memory]", f"bandwidth = {_figure(ceilings, bandwidth)}"]
    if host.memory:
        lines.append(f"capacity = {told(host.memory)}")
    for level, cache in host.caches.items():
        lines += ["", f"[cache.{level}]", f"capacity = {told(cache.bytes * instances[level])}"]
        lines.append(f"bandwidth = {_figure(ceilings, _roof(ceilings, level))}")
    lines += ["", "[achieved]  # shares of the rates above"]
    lines += [
        "matmul_fp32 ="
        f" {_share(ceilings, max(products, key=lambda key: ceilings[key].value), peak)}"
    ]
    # the longest product of the library that frameworks call
    lines += [f"sustained_fp32 = {_share(ceilings, products[-1], peak)}"]
    for key, name in (
        ("triad", "stream"),
        ("scale", "stream_scale"),
        ("read", "stream_read"),
        ("fill", "stream_write"),
    ):
        if f"memory {key}" in ceilings:
            lines.append(f"{name} = {_share(ceilings, f'memory {key}', ceilings[bandwidth].value)}")
    lines += [
        f"{name} = {_figure(ceilings, key)}" for key, name in RATES.items() if key in ceilings
    ]
    lines += [
        f"{name} = {entry(1.0 / ceilings[key].value, key, ceilings[key])}"
        for key, name in TIMES.items()
        if key in ceilings
    ]
    lines += ["", "[sources]", f"measured = {quoted(stamp)}", f"host = {quoted(HOST)}"]
    return "\n".join(lines) + "\n"


RATES = {"exp": "exp", "erf": "erf", "tanh": "tanh", "div": "division"}
RATES |= {f"{level} fill": f"fill_{level}" for level in ("l1", "l2", "l3")}
RATES |= {
    f"{far} {name}": f"{name}_{far}"
    for name in ("read", "fill")
    for far in ("32mib", "64mib", "128mib")
}
TIMES = {"loop": "loop", "call": "call", "fork": "fork_join"}  # seconds of one


def _roof(ceilings: Ceilings, level: str) -> str:
    """The stream that is fastest at a level."""
    return max(
        (key for key in ceilings if key.startswith(f"{level} ")),
        key=lambda key: ceilings[key].value,
    )


def _notes(host: Host, ceilings: Ceilings, alone: bool) -> list[str]:
    differ = disagreement(ceilings)
    notes = [
        "every rate was measured, none is printed: what would be a printed roof is the best that a"
        " kernel reached"
    ]
    notes.append(
        "one thread, by its CPU time"
        if alone or host.threads == 1
        else "all threads, by the best wall time"
    )
    if differ > AGREE:
        notes.append(
            f"NOISY: two halves of the rounds differ by {differ:.0%} (median over the ceilings);"
            " calibrate again when it is idle"
        )
    else:
        notes.append(f"two halves of the rounds differ by {differ:.1%} (median over the ceilings)")
    if share(ceilings) < OURS:
        notes.append(
            f"NOISY: others were at work, the threads had {share(ceilings):.0%} of the processors'"
            " time; calibrate again"
        )
    notes.append(
        "bandwidths count the lines a level fills: bytes read, and bytes freshly written; writing"
        " back what was read is free"
    )
    if host.isa:
        notes.append("instruction set: " + " ".join(host.isa))
    if not host.caches:
        notes.append("caches unknown: only main memory was measured")
    elif host.caches.get("l3") and 2 * host.caches["l3"].bytes > 256 * 2**20:
        notes.append(
            "the last cache is said to be so large that the set for main memory, 256 MiB, may"
            " partly lie in it"
        )
    return notes


def entry(value: float, what: str, rate: Rate) -> str:
    """A measured figure as a TOML table: `value` in the key's SI unit, `what` was run for it, and
    how steady `rate` was.
    """
    where = f"{what}; halves of {rate.rounds} rounds differ by {rate.differ:.1%}" + (
        ", noisy" if rate.noisy else ""
    )
    return (
        f'{{value = {value:.5g}, source = "measured", status = "measured", where ='
        f" {quoted(where)}}}"
    )


def _figure(ceilings: Ceilings, key: str) -> str:
    return entry(ceilings[key].value, key, ceilings[key])


def _share(ceilings: Ceilings, key: str, of: float) -> str:
    return entry(ceilings[key].value / of, key, ceilings[key])


def told(value: float) -> str:
    """A figure that the operating system tells (clock in Hz, capacities in bytes, numbers of cores)
    as a TOML table.
    """
    return f'{{value = {value:.15g}, source = "host", status = "read"}}'


def quoted(words: str) -> str:
    """The words as a TOML text in quotes: a JSON string is one."""
    return json.dumps(words, ensure_ascii=False)
