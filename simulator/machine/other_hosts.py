"""What macOS (sysctl) and Windows (environment and registry) say of a machine; less than Linux
does. What they do not say is absent.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping

from roofcast.simulator.machine.host import VENDORS, WIDE, Cache, Host

WAIT = 5.0  # s that sysctl may take
PROCESSOR = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"


def find(system: str) -> Host:
    """The machine at hand, on `system`: Darwin or Windows."""
    threads = os.cpu_count() or 1
    return (
        mac(_sysctl(), threads) if system == "Darwin" else windows(os.environ, _registry(), threads)
    )


def mac(told: Mapping[str, str], threads: int) -> Host:
    """From `sysctl -a`. Of unlike cores the caches of the fast ones (perflevel0) are taken, one
    instance for the cores that share it.
    """
    cores = _number(told, "hw.physicalcpu") or threads
    caches = {}
    for level, key in (("l1", "l1dcachesize"), ("l2", "l2cachesize"), ("l3", "l3cachesize")):
        size = _number(told, f"hw.perflevel0.{key}", f"hw.{key}")
        if size:
            sharing = (
                1
                if level == "l1"
                else _number(told, f"hw.perflevel0.cpusper{level}")
                or (1 if level == "l2" else cores)
            )
            caches[level] = Cache(size, max(1, cores // sharing))
    flags = (
        " ".join(told.get(f"machdep.cpu.{key}", "") for key in ("features", "leaf7_features"))
        .lower()
        .replace("avx1.0", "avx")
        .split()
    )
    flags += ["neon"] * (
        told.get("hw.optional.neon") == "1" or told.get("hw.optional.AdvSIMD") == "1"
    )
    name = told.get("machdep.cpu.brand_string") or platform.processor() or "a CPU"
    return Host(
        name=name,
        vendor="Apple" if "Apple" in name else VENDORS.get(told.get("machdep.cpu.vendor", ""), ""),
        architecture=platform.machine(),
        system=f"macOS {told.get('kern.osproductversion', '')}".strip(),
        threads=threads,
        cores=min(cores, threads),
        caches=caches,
        memory=_number(told, "hw.memsize"),
        clock=_number(told, "hw.cpufrequency_max", "hw.cpufrequency"),
        isa=tuple(sorted({flag for flag in flags if WIDE.fullmatch(flag)})),
    )


def windows(environment: Mapping[str, str], registry: Mapping[str, object], threads: int) -> Host:
    """From the environment and the registry's entry of the first processor; caches and memory stay
    unknown.
    """
    vendor = str(registry.get("VendorIdentifier") or "")
    named = (
        registry.get("ProcessorNameString")
        or environment.get("PROCESSOR_IDENTIFIER")
        or platform.processor()
        or "a CPU"
    )
    clock = registry.get("~MHz")
    return Host(
        name=" ".join(str(named).split()),
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
    """`sysctl -a` as a dictionary; empty where it cannot be asked."""
    try:
        text = subprocess.run(
            ["sysctl", "-a"], capture_output=True, text=True, timeout=WAIT, errors="replace"
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in text.splitlines())
    }


def _registry() -> dict[str, object]:
    """The registry's entry of the first processor; empty where there is none."""
    try:
        import winreg

        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, PROCESSOR) as entry:
            return {
                name: value
                for name, value, _ in (
                    winreg.EnumValue(entry, i) for i in range(winreg.QueryInfoKey(entry)[1])
                )
            }
    except (ImportError, OSError):
        return {}


def _number(told: Mapping[str, str], *keys: str) -> int | None:
    """The first of the keys that holds a number above zero."""
    return next(
        (int(told[key]) for key in keys if told.get(key, "").isdigit() and int(told[key])), None
    )
