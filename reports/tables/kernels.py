"""Measured kernels kept as a dated table, and read again: `roofcast validate --ops` and the
roofline of this machine.
"""

from __future__ import annotations

import csv
import datetime
import io
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from roofcast.hwdb import contents
from roofcast.hwdb.errors import BadInput, listed, quoted
from roofcast.reports.files import replacing
from roofcast.simulator.machine.crosscheck.measure import Measured, Session

if TYPE_CHECKING:
    from roofcast.simulator.machine.crosscheck.steps import Ran

FIELDS = (
    "kernel", "size", "threads", "device", "seconds", "noise", "rounds", "flops", "bytes", "cpu",
    "date",
)  # fmt: skip
MOST_THREADS = 100_000
FORK = re.compile(r"^fork_join = .*$", re.MULTILINE)


class Kept(NamedTuple):
    """A table: per number of threads, a Session and the device file it was measured with."""

    sessions: dict[int, Session]
    devices: dict[int, str]
    cpu: str
    date: str


def write(
    sessions: dict[int, Session], calibrated: dict[int, Path], cpu: str, folder: Path
) -> Path:
    """Write a table with the calibrated devices beside it, which get the start of all threads as
    it was between the kernels; return its path.

    Both dicts are by number of threads, and hold the entry 1.
    """
    day = datetime.date.today().isoformat()
    folder.mkdir(parents=True, exist_ok=True)
    devices = {threads: folder / f"{path.stem}-{day}.toml" for threads, path in calibrated.items()}
    for threads, path in devices.items():
        # a file of the training steps holds the rate of their library as well: keep it
        if not path.exists():
            with replacing(path) as part:
                part.write_text(calibrated[threads].read_text(encoding="utf-8"), encoding="utf-8")
        if "fork" in sessions[threads].probes:
            text = FORK.sub(_fork(sessions[threads]), path.read_text(encoding="utf-8"))
            with replacing(path) as part:
                part.write_text(text, encoding="utf-8")
    table = folder / f"kernels-{devices[1].stem}.csv"
    versions = ", ".join(f"{name} {version}" for name, version in sessions[1].versions.items())
    busy = max(session.load[0] for session in sessions.values())
    with replacing(table) as part, part.open("w", encoding="utf-8", newline="") as file:
        file.write(
            f"# Kernels of roofcast crosscheck on {cpu}, {day}: {versions}; load average"
            f" {busy:.1f} at the start.\n"
            "# One thread: CPU time, median of rounds; more: the best wall time. Bytes: read, and"
            " freshly written.\n"
        )
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(FIELDS)
        for threads, session in sessions.items():
            rows.writerows(_rows(session, threads, devices[threads].name, cpu, day))
    return table


def _fork(session: Session) -> str:
    """The line of a device file with the start of all threads [s]."""
    found = session.probes["fork"]
    where = f"fork, in the rounds of the kernels; halves of them differ by {found.noise:.1%}"
    return (
        f'fork_join = {{value = {found.seconds:.5g}, source = "measured", status = "measured",'
        f' where = "{where}"}}'
    )


def _rows(
    session: Session, threads: int, device: str, cpu: str, day: str
) -> Iterable[tuple[object, ...]]:
    from roofcast.simulator.machine.crosscheck.kernels import work_of

    for point, found in session.found.items():
        _, work = work_of(point)
        name, size = point.split(":")
        seconds, noise, rounds = f"{found.seconds:.6g}", f"{found.noise:.3g}", len(found.rounds)
        flops, moved = f"{work.flops:.6g}", f"{work.read + work.fresh:.6g}"
        yield name, size, threads, device, seconds, noise, rounds, flops, moved, cpu, day


def claims(path: str | Path) -> bool:
    """Whether a file is a table that `write` made."""
    return [line.strip() for line in _lines(path)[:1]] == [",".join(FIELDS)]


def read(path: str | Path) -> Kept:
    """Read a table. Raises BadInput, with the number of the row."""
    from roofcast.simulator.machine.kernels.registry import KERNELS

    found: dict[int, dict[str, Measured]] = {}
    devices: dict[int, str] = {}
    cpu = date = ""
    for number, row in enumerate(_rows_of(path), 1):
        try:
            threads, seconds = int(row["threads"]), float(row["seconds"])
            measured = Measured(seconds, float(row["noise"]), (seconds,))
        except (TypeError, ValueError):
            threads, measured = 0, Measured(0.0, math.nan, ())
        if not 1 <= threads <= MOST_THREADS or not 0.0 <= measured.noise < math.inf:
            raise BadInput(
                f"{path}: row {number}: threads, seconds and noise must be numbers, threads from 1"
                f" to {MOST_THREADS}"
            )
        if row["kernel"] not in KERNELS or not 0.0 < seconds < math.inf:
            known = listed(KERNELS)
            raise BadInput(
                f"{path}: row {number}: no kernel {quoted(row['kernel'])}, or no time; known:"
                f" {known}"
            )
        wanted = "x".join(map(str, KERNELS[row["kernel"]].sizes[0]))
        if not re.fullmatch(re.sub(r"\d+", r"\\d{1,12}", wanted), row["size"]):
            raise BadInput(
                f"{path}: row {number}: size is {quoted(row['size'])}; wanted for example {wanted}"
            )
        found.setdefault(threads, {})[f"{row['kernel']}:{row['size']}"] = measured
        devices[threads] = str(Path(path).parent / row["device"])
        cpu, date = row["cpu"], row["date"]
    if not found:
        raise BadInput(f"{path}: no kernel in it; roofcast crosscheck --kernels writes such tables")
    sessions = {threads: Session(each, {}, {}, (0.0, 0.0)) for threads, each in found.items()}
    return Kept(sessions, devices, cpu, date)


def _rows_of(path: str | Path) -> list[dict[str, str]]:
    """The rows of a table of FIELDS, none with fewer or more. Raises BadInput."""
    try:
        rows = list(csv.DictReader(_lines(path)))
    except csv.Error as error:
        raise BadInput(f"{path}: not a CSV of measured kernels ({error})") from None
    for number, row in enumerate(rows, 1):
        if None in row.values() or None in row or set(row) != set(FIELDS):
            raise BadInput(f"{path}: row {number}: wanted the columns {', '.join(FIELDS)}")
    return rows


def newest(folder: Path, stem: str) -> Path | None:
    """The latest table of a calibrated device in a folder, by the date in its name."""
    return max(folder.glob(f"kernels-{stem}-*.csv"), default=None)


def _lines(path: str | Path) -> list[str]:
    text = contents.text(path, "a CSV of measured kernels", contents.LARGEST_TABLE)
    lines = io.StringIO(text, newline="")
    return [line for line in lines if line.strip() and not line.startswith("#")]


def check(path: str | Path) -> Iterable[tuple[int, str, list[Ran], list[Ran]]]:
    """Forecasts of a table, by number of threads.

    Yields the number of threads, the device's name, the rows forecast with the constants of the
    ops, and the rows forecast by the ceilings alone.
    """
    from roofcast import hwdb
    from roofcast.simulator.machine.crosscheck.kernels import forecasts

    kept = read(path)
    for threads, session in kept.sessions.items():
        device = hwdb.device(kept.devices[threads])
        rows = forecasts(session, device, threads=threads)
        bare = forecasts(session, device, constants=False, threads=threads)
        yield threads, device.name, rows, bare
