"""Device files from measured ceilings: the machine with all its threads, and one thread of it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from importlib import metadata
from statistics import median

from roofcast.simulator.machine.host import Host
from roofcast.simulator.machine.sampling import AGREE, OURS, Rate

Ceilings = Mapping[str, Rate]  # by job key
HOST = "reported by the operating system (/proc and /sys, sysctl, or the registry)"
NO_DATASHEET = (
    "all rates are measured, none is from a datasheet: peaks are the best rates that a kernel"
    " reached"
)
PRODUCTS = ("gemm 512", "gemm 1024", "blas 512", "blas 1024")
# ceiling -> key of [achieved]
STREAMS = {
    "triad": "stream", "scale": "stream_scale", "read": "stream_read", "fill": "stream_write"
}  # fmt: skip
RATES = {"exp": "exp", "erf": "erf", "tanh": "tanh", "div": "division"}
RATES |= {f"{level} fill": f"fill_{level}" for level in ("l1", "l2", "l3")}
RATES |= {
    f"{far} {name}": f"{name}_{far}"
    for name in ("read", "fill")
    for far in ("32mib", "64mib", "128mib")
}
TIMES = {"loop": "loop", "call": "call", "fork": "fork_join"}  # seconds each


def disagreement(ceilings: Ceilings) -> float:
    """Relative difference between the halves of the rounds, median over the ceilings."""
    return median(rate.differ for rate in ceilings.values())


def share(ceilings: Ceilings) -> float:
    """Fraction of the processors' time that the threads got, median over the ceilings.

    Starting threads is left out, as it consists of waiting.
    """
    return median(rate.share for key, rate in ceilings.items() if key != "fork")


def versions(load: float | None) -> str:
    """Date, versions of roofcast and numba, and the load average before the measurement."""
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
    """The TOML text of a device file, from the ceilings of all threads or, if `alone`, of one.

    No datasheet rates are known, so the best measured rates stand in their place, marked as
    measured.
    """
    products = [key for key in PRODUCTS if key in ceilings]
    best = max(("fma32", *products), key=lambda key: ceilings[key].value)
    fp32, fp64 = _figure(ceilings, best), _figure(ceilings, "fma64")
    lines = [
        *_heading(host, ceilings, alone),
        "",
        "[peak_flops]  # measured: the best of chains of multiply-adds and of products [FLOP/s]",
        f"fp32 = {fp32}",
        f"fp64 = {fp64}",
        "",
        "[vector_flops]",
        f"fp32 = {fp32}",
        f"fp64 = {fp64}",
        *_memory(host, ceilings, alone),
        *_achieved(ceilings, products, ceilings[best].value),
        "",
        "[sources]",
        f"measured = {quoted(stamp)}",
        f"host = {quoted(HOST)}",
    ]
    return "\n".join(lines) + "\n"


def _heading(host: Host, ceilings: Ceilings, alone: bool) -> list[str]:
    """Name, kind, notes, cores and clock."""
    count = ", one thread" if alone or host.threads == 1 else f", {host.threads} threads"
    lines = [
        f"name = {quoted(host.name + count)}",
        f"vendor = {quoted(host.vendor)}",
        'kind = "cpu"',
        f"architecture = {quoted(host.architecture)}",
        'core = "core"',
        f"notes = {json.dumps(_notes(host, ceilings, alone), ensure_ascii=False, indent=4)}",
        "",
        f"cores = {reported(1 if alone else host.cores)}",
    ]
    return [*lines, f"clock = {reported(host.clock)}"] if host.clock else lines


def _memory(host: Host, ceilings: Ceilings, alone: bool) -> list[str]:
    """[memory] and [cache.*]: capacity, and bandwidth of the fastest stream."""
    bandwidth = _figure(ceilings, _fastest_stream(ceilings, "memory"))
    lines = ["", "[memory]", f"bandwidth = {bandwidth}"]
    if host.memory:
        lines.append(f"capacity = {reported(host.memory)}")
    for level, cache in host.caches.items():
        capacity = cache.bytes * (1 if alone else cache.instances)
        bandwidth = _figure(ceilings, _fastest_stream(ceilings, level))
        lines += ["", f"[cache.{level}]", f"capacity = {reported(capacity)}"]
        lines.append(f"bandwidth = {bandwidth}")
    return lines


def _achieved(ceilings: Ceilings, products: list[str], peak: float) -> list[str]:
    """[achieved]: fractions of the peak and of the memory bandwidth, other rates, and times."""
    best = max(products, key=lambda key: ceilings[key].value)
    bandwidth = ceilings[_fastest_stream(ceilings, "memory")].value
    lines = ["", "[achieved]  # fractions of the rates above"]
    lines.append(f"matmul_fp32 = {_fraction(ceilings, best, peak)}")
    # the largest product of the library that frameworks call
    lines.append(f"sustained_fp32 = {_fraction(ceilings, products[-1], peak)}")
    for stream, name in STREAMS.items():
        if f"memory {stream}" in ceilings:
            lines.append(f"{name} = {_fraction(ceilings, f'memory {stream}', bandwidth)}")
    for key, name in RATES.items():
        if key in ceilings:
            lines.append(f"{name} = {_figure(ceilings, key)}")
    for key, name in TIMES.items():
        if key in ceilings:
            lines.append(f"{name} = {entry(1.0 / ceilings[key].value, key, ceilings[key])}")
    return lines


def _fastest_stream(ceilings: Ceilings, level: str) -> str:
    """The key of the fastest stream through a level of memory."""
    return max(
        (key for key in ceilings if key.startswith(f"{level} ")),
        key=lambda key: ceilings[key].value,
    )


def _notes(host: Host, ceilings: Ceilings, alone: bool) -> list[str]:
    differ, got = disagreement(ceilings), share(ceilings)
    single = alone or host.threads == 1
    notes = [NO_DATASHEET, "one thread, CPU time" if single else "all threads, best wall time"]
    if differ > AGREE:
        notes.append(
            f"NOISY: two halves of the rounds differ by {differ:.0%} (median over the ceilings);"
            " calibrate again when the machine is idle"
        )
    else:
        notes.append(f"two halves of the rounds differ by {differ:.1%} (median over the ceilings)")
    if got < OURS:
        notes.append(
            f"NOISY: other processes were running, the threads had {got:.0%} of the processors'"
            " time; calibrate again"
        )
    notes.append(
        "bandwidths count the cache lines that are filled: bytes read, and bytes written that were"
        " not read; write-backs are not counted"
    )
    if host.isa:
        notes.append("instruction set: " + " ".join(host.isa))
    if not host.caches:
        notes.append("caches unknown: only main memory was measured")
    elif host.caches.get("l3") and 2 * host.caches["l3"].bytes > 256 * 2**20:
        notes.append(
            "the last-level cache is so large that it may hold part of the working set for main"
            " memory (256 MiB)"
        )
    return notes


def entry(value: float, what: str, rate: Rate) -> str:
    """A measured figure as a TOML table.

    `value` is in the SI unit of its key, `what` names the job, `rate` says how steady it was.
    """
    noisy = ", noisy" if rate.noisy else ""
    where = quoted(f"{what}; halves of {rate.rounds} rounds differ by {rate.differ:.1%}{noisy}")
    return f'{{value = {value:.5g}, source = "measured", status = "measured", where = {where}}}'


def _figure(ceilings: Ceilings, key: str) -> str:
    return entry(ceilings[key].value, key, ceilings[key])


def _fraction(ceilings: Ceilings, key: str, of: float) -> str:
    return entry(ceilings[key].value / of, key, ceilings[key])


def reported(value: float) -> str:
    """A figure that the operating system reports (Hz, bytes, number of cores) as a TOML table."""
    return f'{{value = {value:.15g}, source = "host", status = "read"}}'


def quoted(words: str) -> str:
    """A TOML string; JSON strings are valid TOML."""
    return json.dumps(words, ensure_ascii=False)
