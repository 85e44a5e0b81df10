"""The local machine, whatever its operating system."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from roofcast.simulator.machine.host import Host
from roofcast.simulator.machine.linux import linux
from roofcast.simulator.machine.other_hosts import local


def find(root: Path = Path("/"), cpus: frozenset[int] | None = None) -> Host:
    """The local machine, as its operating system describes it.

    With another `root` than "/", the machine whose /proc and /sys are there (for tests). `cpus`:
    the processors to use; by default those that this process may run on.
    """
    system = platform.system()
    if root == Path("/") and system in ("Darwin", "Windows"):
        return local(system)
    return linux(root, cpus or _allowed())


def load() -> float | None:
    """Load average of the last minute; None where the system does not report one."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _allowed() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))
