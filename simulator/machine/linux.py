"""The description of a Linux machine, read from /proc and /sys."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from roofcast.simulator.machine.host import VENDORS, Cache, Host, vector_flags

UNITS = {"": 1, "K": 1024, "M": 1024**2}  # of a cache size


def linux(root: Path, cpus: frozenset[int]) -> Host:
    """The machine whose /proc and /sys lie under `root`; `cpus` are the processors to use."""
    info = _cpuinfo(root)
    folder = root / "sys/devices/system/cpu"
    cores = {_text(folder / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in cpus}
    threads = max(1, min(len(cpus), _cgroup_limit(root)))
    vendor = info.get("vendor_id") or info.get("CPU implementer", "")
    name = info.get("model name") or platform.processor() or platform.machine() or "a CPU"
    return Host(
        name=" ".join(name.split()),
        vendor=VENDORS.get(vendor, vendor),
        architecture=platform.machine(),
        system=f"{platform.system()} {platform.release()}",
        threads=threads,
        cores=min(len(cores), threads),
        caches=_caches(folder, cpus),
        memory=_memory(root),
        clock=_clock(folder, info, min(cpus)),
        isa=vector_flags((info.get("flags") or info.get("Features") or "").split()),
    )


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
    """The entry of the first processor in /proc/cpuinfo."""
    first = _text(root / "proc/cpuinfo").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _caches(folder: Path, cpus: frozenset[int]) -> dict[str, Cache]:
    """Data and unified caches of the processors, by level."""
    sizes: dict[str, int] = {}
    sharing: dict[str, set[str]] = {}  # the sets of processors that share one cache, by level
    for cpu in cpus:
        for index in folder.glob(f"cpu{cpu}/cache/index*"):
            size = re.fullmatch(r"(\d+)([KM]?)", _text(index / "size"))
            if not size or _text(index / "type") == "Instruction":
                continue
            level = f"l{_text(index / 'level')}"
            sizes[level] = int(size[1]) * UNITS[size[2]]
            sharing.setdefault(level, set()).add(_text(index / "shared_cpu_list") or str(cpu))
    return {
        level: Cache(sizes[level], len(sharing[level]))
        for level in ("l1", "l2", "l3")
        if sizes.get(level)
    }


def _memory(root: Path) -> int | None:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _clock(folder: Path, info: dict[str, str], cpu: int) -> float | None:
    """The maximum frequency [Hz]; the current one if the maximum is not reported."""
    maximum = _number(folder / f"cpu{cpu}/cpufreq/cpuinfo_max_freq")
    if maximum:
        return maximum * 1e3
    try:
        return float(info["cpu MHz"]) * 1e6
    except (KeyError, ValueError):
        return None


def _cgroup_limit(root: Path) -> int:
    """CPU limit of the control group (container), rounded to whole processors."""
    limit = _text(root / "sys/fs/cgroup/cpu.max").split()
    if len(limit) == 2 and all(part.isdigit() for part in limit):
        return max(1, round(int(limit[0]) / int(limit[1])))
    return os.cpu_count() or 1
