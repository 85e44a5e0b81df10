"""The description of a macOS machine (from sysctl) or Windows machine (environment and registry).

Both report less than Linux does; what they do not report stays unknown.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping

from roofcast.simulator.machine.host import VENDORS, Cache, Host, vector_flags

TIMEOUT = 5.0  # s, of sysctl
PROCESSOR = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"


def local(system: str) -> Host:
    """The local machine; `system` is "Darwin" or "Windows", as platform.system() names them."""
    threads = os.cpu_count() or 1
    if system == "Darwin":
        return mac(_sysctl(), threads)
    return windows(os.environ, _registry(), threads)


def mac(info: Mapping[str, str], threads: int) -> Host:
    """A Mac from the output of `sysctl -a`.

    If the cores differ, the caches are those of the performance cores (perflevel0), with one
    instance for each group of cores that share it.
    """
    cores = _number(info, "hw.physicalcpu") or threads
    old = (info.get(f"machdep.cpu.{key}", "") for key in ("features", "leaf7_features"))
    flags = " ".join(old).lower().replace("avx1.0", "avx").split()
    if "1" in (info.get("hw.optional.neon"), info.get("hw.optional.AdvSIMD")):
        flags.append("neon")
    name = info.get("machdep.cpu.brand_string") or platform.processor() or "a CPU"
    return Host(
        name=name,
        vendor="Apple" if "Apple" in name else VENDORS.get(info.get("machdep.cpu.vendor", ""), ""),
        architecture=platform.machine(),
        system=f"macOS {info.get('kern.osproductversion', '')}".strip(),
        threads=threads,
        cores=min(cores, threads),
        caches=_mac_caches(info, cores),
        memory=_number(info, "hw.memsize"),
        clock=_number(info, "hw.cpufrequency_max", "hw.cpufrequency"),
        isa=vector_flags(flags),
    )


def _mac_caches(info: Mapping[str, str], cores: int) -> dict[str, Cache]:
    """Caches by level; without a reported group size, L3 is shared by all cores, L2 by none."""
    keys = {"l1": "l1dcachesize", "l2": "l2cachesize", "l3": "l3cachesize"}
    caches = {}
    for level, key in keys.items():
        size = _number(info, f"hw.perflevel0.{key}", f"hw.{key}")
        if not size:
            continue
        sharing = _number(info, f"hw.perflevel0.cpusper{level}") if level != "l1" else 1
        sharing = sharing or (1 if level == "l2" else cores)
        caches[level] = Cache(size, max(1, cores // sharing))
    return caches


def windows(environment: Mapping[str, str], registry: Mapping[str, object], threads: int) -> Host:
    """A Windows machine from the environment and the registry entry of its first processor.

    Caches, memory and instruction sets stay unknown.
    """
    vendor = str(registry.get("VendorIdentifier") or "")
    name = (
        registry.get("ProcessorNameString")
        or environment.get("PROCESSOR_IDENTIFIER")
        or platform.processor()
        or "a CPU"
    )
    clock = registry.get("~MHz")
    return Host(
        name=" ".join(str(name).split()),
        vendor=VENDORS.get(vendor, vendor),
        architecture=environment.get("PROCESSOR_ARCHITECTURE") or platform.machine(),
        system=f"Windows {platform.release()}",
        threads=threads,
        cores=threads,
        caches={},
        memory=None,
        clock=float(clock) * 1e6 if isinstance(clock, int) else None,
        isa=(),
    )


def _sysctl() -> dict[str, str]:
    """`sysctl -a` as a dictionary; empty if it cannot be run."""
    command = ["sysctl", "-a"]
    try:
        text = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, errors="replace"
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _registry() -> dict[str, object]:
    """The registry entry of the first processor; empty if there is none."""
    if sys.platform != "win32":
        return {}
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, PROCESSOR) as entry:
            values = (winreg.EnumValue(entry, i) for i in range(winreg.QueryInfoKey(entry)[1]))
            return {name: value for name, value, _ in values}
    except OSError:
        return {}


def _number(info: Mapping[str, str], *keys: str) -> int | None:
    """The value of the first key that holds a positive whole number."""
    found = (int(info[key]) for key in keys if info.get(key, "").isdigit())
    return next((number for number in found if number), None)
