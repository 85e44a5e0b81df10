"""Measured training steps as a dated table for `roofcast validate --runs`."""

from __future__ import annotations

import csv
import datetime
import os
import re
from pathlib import Path

from roofcast.reports.files import replacing
from roofcast.simulator.machine.crosscheck import measure
from roofcast.simulator.machine.crosscheck.measure import Session
from roofcast.simulator.machine.crosscheck.steps import STACK, Trained

FIELDS = (
    "id", "source_name", "model", "device", "cpu", "threads", "framework", "stack", "precision",
    "mode", "batch_per_device", "input", "sequence", "optimizer", "step_time_ms", "noise", "rounds",
    "gemm_flops", "own_flops", "triad_bytes_s", "pool_per_s", "date", "notes",
)  # fmt: skip
CALLED = {"ncf": "ncf-dot-ml1m"}  # in tables of measured runs, ncf is MLPerf's model: NeuMF
ALLOCATOR = (
    "# The allocator keeps its memory between steps (MALLOC_MMAP_MAX_=0, MALLOC_TRIM_THRESHOLD_):"
    " with glibc's defaults tensors of over\n# 32 MiB are mapped anew in every step, which costs a"
    " page fault for every 4 KiB.\n"
)
IDLE = 0.5  # largest load average of an otherwise idle machine
THREADS = re.compile(r", (one|\d+) threads?$")  # end of the name of a calibrated device
SUSTAINED = re.compile(r"^sustained_fp32 = .*$", re.MULTILINE)


def write_device(session: Session, calibrated: Path, folder: Path) -> Path:
    """Write the calibrated device with the matrix rate of the networks' own library; its path.

    Calibration times numba's matrix product, networks call a BLAS; its rate was measured between
    their steps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = folder / f"{calibrated.stem}-{datetime.date.today()}.toml"
    text = calibrated.read_text(encoding="utf-8")
    if session.probes:  # not measured on a GPU
        text = SUSTAINED.sub(_sustained(session, calibrated), text)
    with replacing(device) as part:
        part.write_text(text, encoding="utf-8")
    return device


def _sustained(session: Session, calibrated: Path) -> str:
    """The line of the device file with that rate, as a fraction of the peak."""
    from roofcast import hwdb

    probe, whose = ("mm", "PyTorch") if "mm" in session.probes else ("gemm", "numpy")
    share = measure.rate(session, probe) / float(hwdb.device(calibrated).peak_flops["fp32"])
    where = f"{whose}'s product of {measure.PROBE}, in the rounds of the training steps"
    return (
        f'sustained_fp32 = {{value = {share:.5g}, source = "measured", status = "measured", where ='
        f' "{where}"}}'
    )


def write(rows: list[Trained], session: Session, device: Path, cpu: str, threads: int = 1) -> Path:
    """Write the table beside the device's file; its path."""
    day, folder = datetime.date.today().isoformat(), device.parent
    table = folder / f"crosscheck-{device.stem}.csv"
    versions = ", ".join(f"{name} {version}" for name, version in session.versions.items())
    busy = "on a contended machine, " if session.load[0] > IDLE else ""
    load = (
        f"{busy}load average {session.load[0]:.1f} at the start, {session.load[1]:.1f} at the end"
    )
    with replacing(table) as part, part.open("w", encoding="utf-8", newline="") as file:
        file.write(
            f"# Training steps of roofcast crosscheck on {cpu}, {day}: {versions}; {load}.\n"
        )
        clock = "CPU" if session.probes and threads == 1 else "Wall"
        middle = "median" if threads == 1 else "best"
        file.write(
            f"# {clock} time, {middle} of interleaved rounds; noise: how far halves of them differ."
            " Paths are relative to here.\n"
        )
        file.write(ALLOCATOR)
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(one(row, session, device.name, cpu, folder, day) for row in rows)
    return table


def one(row: Trained, session: Session, device: str, cpu: str, folder: Path, day: str) -> dict:
    """A row of the table."""
    net = row.net
    unit = " CPU" if session.probes else ""  # probes run on CPUs only
    engine = {
        "torch": f"PyTorch {session.versions.get('torch')}{unit}",
        "numba": f"numba {session.versions.get('numba')}",
    }[net.by]
    own = "mm" if net.by == "torch" and "mm" in session.probes else "gemm"
    return {
        "id": measure.key(net),
        "source_name": "roofcast crosscheck",
        "model": beside(CALLED.get(net.model, net.model), folder),
        "device": device,
        "cpu": THREADS.sub("", cpu),
        "threads": row.threads,
        "framework": engine,
        "stack": beside(STACK[net.by], folder),
        "precision": "fp32",
        "mode": "train",
        "batch_per_device": net.batch,
        "input": f"{net.size}x{net.size}" if net.takes == "image" else "",
        "sequence": net.size if net.takes == "sequence" else "",
        "optimizer": net.optimizer,
        "step_time_ms": f"{1e3 * row.measured_s:.6g}",
        "noise": f"{row.noise:.3g}",
        "rounds": len(session.found[measure.key(net)].rounds),
        "gemm_flops": _rate(session, "gemm"),
        "own_flops": _rate(session, own),
        "triad_bytes_s": _rate(session, "triad"),
        "pool_per_s": _rate(session, "pool"),
        "date": day,
        "notes": net.note,
    }


def _rate(session: Session, probe: str) -> str:
    """The rate of a probe; empty if it was not measured."""
    return f"{measure.rate(session, probe):.5g}" if probe in session.probes else ""


def beside(name: str, folder: Path) -> str:
    """A name unchanged; a .toml file by its path relative to the folder of the table."""
    return Path(os.path.relpath(name, folder)).as_posix() if name.endswith(".toml") else name
