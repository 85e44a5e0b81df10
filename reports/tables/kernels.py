"""Measured kernels kept as a dated table, and read again: `roofcast validate --ops` and the
roofline of this machine.
"""

from __future__ import annotations

import csv
import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from roofcast.hwdb.errors import BadInput
from roofcast.reports.files import replacing
from roofcast.simulator.machine.crosscheck.measure import Measured, Session

FIELDS = (
    "kernel",
    "size",
    "threads",
    "device",
    "seconds",
    "noise",
    "rounds",
    "flops",
    "bytes",
    "cpu",
    "date",
)


class Kept(NamedTuple):
    """A table: a Session for each number of threads, and the device file it was measured with."""

    sessions: dict[int, Session]
    devices: dict[int, str]
    cpu: str
    date: str


def write(
    sessions: dict[int, Session], calibrated: dict[int, Path], cpu: str, folder: Path
) -> Path:
    """Write the table, the calibrated devices beside it; where it is."""
    from roofcast.simulator.machine.crosscheck.kernels import work_of

    day = datetime.date.today().isoformat()
    folder.mkdir(parents=True, exist_ok=True)
    devices = {threads: folder / f"{path.stem}-{day}.toml" for threads, path in calibrated.items()}
    for threads, path in devices.items():
        if (
            not path.exists()
        ):  # the training steps may have written it, with the rate of their library
            with replacing(path) as part:
                part.write_text(calibrated[threads].read_text(encoding="utf-8"), encoding="utf-8")
    table = folder / f"kernels-{devices[1].stem}.csv"
    with replacing(table) as part, part.open("w", encoding="utf-8", newline="") as file:
        said = ", ".join(f"{name} {version}" for name, version in sessions[1].versions.items())
        busy = max(session.load[0] for session in sessions.values())
        file.write(
            f"# Kernels of roofcast crosscheck on {cpu}, {day}: {said}; load average {busy:.1f} at"
            " the start.\n"
        )
        file.write(
            "# One thread: CPU time, median of rounds; more: the best wall time. Bytes: read, and"
            " freshly written.\n"
        )
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(FIELDS)
        for threads, session in sessions.items():
            for point, found in session.found.items():
                _, work = work_of(point)
                name, size = point.split(":")
                rows.writerow(
                    (
                        name,
                        size,
                        threads,
                        devices[threads].name,
                        f"{found.seconds:.6g}",
                        f"{found.noise:.3g}",
                        len(found.rounds),
                        f"{work.flops:.6g}",
                        f"{work.read + work.fresh:.6g}",
                        cpu,
                        day,
                    )
                )
    return table


def claims(path: str | Path) -> bool:
    """Whether a file is such a table."""
    return _lines(path)[:1] == [",".join(FIELDS)]


def read(path: str | Path) -> Kept:
    """A table as sessions by threads."""
    from roofcast.simulator.machine.kernels.registry import KERNELS

    found: dict[int, dict[str, Measured]] = {}
    devices: dict[int, str] = {}
    cpu = date = ""
    for number, row in enumerate(csv.DictReader(_lines(path)), 1):
        try:
            threads, seconds = int(row["threads"]), float(row["seconds"])
            measured = Measured(seconds, float(row["noise"]), (seconds,))
        except (TypeError, ValueError):
            raise BadInput(
                f"{path}: row {number}: threads, seconds and noise must be numbers"
            ) from None
        if row["kernel"] not in KERNELS or seconds <= 0.0:
            raise BadInput(
                f"{path}: row {number}: no kernel {row['kernel']!r}, or no time; known:"
                f" {', '.join(KERNELS)}"
            )
        found.setdefault(threads, {})[f"{row['kernel']}:{row['size']}"] = measured
        devices[threads], cpu, date = (
            str(Path(path).parent / row["device"]),
            row["cpu"],
            row["date"],
        )
    if not found:
        raise BadInput(f"{path}: no kernel in it; roofcast crosscheck --kernels writes such tables")
    return Kept(
        {threads: Session(each, {}, {}, (0.0, 0.0)) for threads, each in found.items()},
        devices,
        cpu,
        date,
    )


def newest(folder: Path, stem: str) -> Path | None:
    """The latest table of a calibrated device in a folder; dates sort."""
    return max(folder.glob(f"kernels-{stem}-*.csv"), default=None)


def _lines(path: str | Path) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def check(path: str | Path) -> Iterable[tuple[int, str, list, list]]:
    """Of each number of threads: the threads, the device's name, rows forecast with constants, and
    by the ceilings alone.
    """
    from roofcast import hwdb
    from roofcast.simulator.machine.crosscheck import kernels as kernel_check

    kept = read(path)
    for threads, session in kept.sessions.items():
        device = hwdb.device(kept.devices[threads])
        yield (
            threads, device.name, kernel_check.forecasts(session, device, threads=threads),
            kernel_check.forecasts(session, device, constants=False, threads=threads),
        )  # fmt: skip
