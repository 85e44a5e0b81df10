"""What the machine at hand says of itself: name, cores, caches, instruction set. What it does not
say is absent.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import NamedTuple

VENDORS = {
    "GenuineIntel": "Intel",
    "AuthenticAMD": "AMD",
    "0x41": "Arm",
    "0xc0": "Ampere",
    "0x61": "Apple",
}
WIDE = re.compile(
    r"sse4_2|avx|avx2|fma|f16c|avx512\w*|avx_\w+|amx_\w+|neon|asimd\w*|sve\w*|bf16|i8mm"
)


class Cache(NamedTuple):
    """One level of data cache."""

    bytes: int  # of one instance
    instances: int  # that the threads at hand reach


class Host(NamedTuple):
    """A machine as far as it is known; None and empty are unknown."""

    name: str
    vendor: str
    architecture: str
    system: str
    threads: int  # that may run at once
    cores: int  # that they are spread over
    caches: dict[str, Cache]  # "l1" ..
    memory: int | None  # bytes
    clock: float | None  # Hz, the greatest
    isa: tuple[str, ...]


def find(root: Path = Path("/"), cpus: frozenset[int] | None = None) -> Host:
    """The machine at hand; on Linux, and under another root than that of the machine, by the /proc
    and /sys there. `cpus`: those this process may use.
    """
    if root == Path("/") and platform.system() in ("Darwin", "Windows"):
        from roofcast.simulator.machine import other_hosts

        return other_hosts.find(platform.system())
    cpus = cpus or frozenset(
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    told = _cpuinfo(root)
    folder = root / "sys/devices/system/cpu"
    cores = {_text(folder / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in cpus}
    threads = max(1, min(len(cpus), _quota(root)))
    vendor = told.get("vendor_id") or told.get("CPU implementer", "")
    return Host(
        name=" ".join(
            (
                told.get("model name") or platform.processor() or platform.machine() or "a CPU"
            ).split()
        ),
        vendor=VENDORS.get(vendor, vendor),
        architecture=platform.machine(),
        system=f"{platform.system()} {platform.release()}",
        threads=threads,
        cores=min(len(cores), threads),
        caches=_caches(folder, cpus),
        memory=_memory(root),
        clock=_clock(folder, told, min(cpus)),
        isa=tuple(
            sorted(
                {
                    flag
                    for flag in (told.get("flags") or told.get("Features") or "").split()
                    if WIDE.fullmatch(flag)
                }
            )
        ),
    )


def load() -> float | None:
    """Runnable processes, averaged over the last minute."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None


def _cpuinfo(root: Path) -> dict[str, str]:
    """What /proc/cpuinfo says of the first processor."""
    pairs = (
        line.partition(":") for line in _text(root / "proc/cpuinfo").split("\n\n")[0].splitlines()
    )
    return {key.strip(): value.strip() for key, _, value in pairs}


def _caches(folder: Path, cpus: frozenset[int]) -> dict[str, Cache]:
    """Data and unified caches: how large one is, and how many different ones the processors
    share.
    """
    sizes: dict[str, int] = {}
    shared: dict[str, set[str]] = {}
    for cpu in cpus:
        for place in folder.glob(f"cpu{cpu}/cache/index*"):
            size = re.fullmatch(r"(\d+)([KM]?)", _text(place / "size"))
            if not size or _text(place / "type") == "Instruction":
                continue
            level = f"l{_text(place / 'level')}"
            sizes[level] = int(size[1]) * {"": 1, "K": 1024, "M": 1024**2}[size[2]]
            shared.setdefault(level, set()).add(_text(place / "shared_cpu_list") or str(cpu))
    return {
        level: Cache(sizes[level], len(shared[level]))
        for level in ("l1", "l2", "l3")
        if sizes.get(level)
    }


def _memory(root: Path) -> int | None:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _clock(folder: Path, told: dict[str, str], cpu: int) -> float | None:
    """The greatest clock, else that of now."""
    most = _number(folder / f"cpu{cpu}/cpufreq/cpuinfo_max_freq")
    if most:
        return most * 1e3
    try:
        return float(told["cpu MHz"]) * 1e6
    except (KeyError, ValueError):
        return None


def _quota(root: Path) -> int:
    """Whole processors a control group (a container) may use at once."""
    limit = _text(root / "sys/fs/cgroup/cpu.max").split()
    if len(limit) == 2 and all(part.isdigit() for part in limit):
        return max(1, round(int(limit[0]) / int(limit[1])))
    return os.cpu_count() or 1
