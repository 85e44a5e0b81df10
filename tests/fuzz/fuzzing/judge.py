"""Runs a case in this process under limits, and says what is wrong with the answer.

Right is: exit code 0, or 2 with one line of at most 500 characters; no exception; at most 10 s and
2 GB; no raw control character; no hostile text quoted at length; and in the JSON of a success no
number that is infinite, NaN or (but where a sign is meant) negative.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec

from fuzzing.cases import Case
from fuzzing.hostile import MARK
from roofcast.reports.command import main

SECONDS = 10.0  # processor time of one command
STUCK = 120.0  # seconds of a clock, for what waits instead of computing
BYTES = 2 * 10**9
LONGEST = 500  # characters of a message
QUOTED = 80  # of them that may be quoted from an input
CONTROL = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
SIGNED = re.compile(
    r"error|bias|saved_s|elasticit|better_s|difference|median|mean|worst|overall|hidden"
)  # keys of signed numbers


class Fault(NamedTuple):
    """One fault: its class, and where or what it is, the same for faults of one cause."""

    kind: str
    detail: str


class _TooLong(BaseException):
    """The command took more than its share of time."""


def _stop(number: int, frame: Any) -> None:
    raise _TooLong("".join(traceback.format_stack(frame)[-1:]).strip().replace("\n", " "))


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Inside, time and memory end."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + BYTES
    before = [signal.signal(each, _stop) for each in (signal.SIGPROF, signal.SIGALRM)]
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS, 5.0)
    signal.setitimer(signal.ITIMER_REAL, STUCK, 5.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        for each, handler in zip((signal.SIGPROF, signal.SIGALRM), before, strict=True):
            # a signal that is under way must not end the process
            signal.signal(each, signal.SIG_IGN if handler == signal.SIG_DFL else handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def judged(case: Case, folder: Path) -> list[Fault]:
    """What is wrong with the answer to a case. Its files are written into `folder`, an empty one,
    which is the working directory while it runs.
    """
    for name, data in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    here = os.getcwd()
    os.chdir(folder)
    try:
        return _run(case.args)
    finally:
        os.chdir(here)


def _run(args: tuple[str, ...]) -> list[Fault]:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    printed: list[Any] = []
    encode = msgspec.json.encode

    def seen(value: Any, **more: Any) -> bytes:
        printed.append(value)
        return encode(value, **more)

    status: Any = 0
    failed: Fault | None = None
    try:
        with (
            warnings.catch_warnings(record=True) as warned,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            patch("msgspec.json.encode", seen),
            # without the net that cuts what is too long: the causes are looked for
            patch("roofcast.reports.command.LONGEST", sys.maxsize, create=True),
            # which would close this process's own output
            patch("roofcast.reports.command._drop_output"),
            _limited(),
        ):
            warnings.simplefilter("always")
            main(list(args))
    except SystemExit as done:
        status = done.code
    except _TooLong as late:
        failed = Fault("slow", str(late)[:200])
    except MemoryError as error:
        failed = Fault("memory", _where(error))
    except BaseException as error:
        failed = Fault("traceback", f"{type(error).__name__} at {_where(error)}")
    for stream in (out, err):
        stream.flush()
    shown, said = (s.buffer.getvalue().decode("utf-8", "replace") for s in (out, err))
    if failed:
        return [failed]
    found = [
        Fault("warning", f"{w.category.__name__} {str(w.message)[:60]} {w.filename[-40:]}")
        for w in warned
    ]
    return [*found, *_of_texts(status, shown, said), *_of_numbers(printed if status == 0 else [])]


def _where(error: BaseException) -> str:
    """The innermost line of ours in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        f for f in frames if "site-packages" not in f.filename and "/lib/python" not in f.filename
    ]
    last = (ours or frames)[-1]
    return f"{'/'.join(Path(last.filename).parts[-3:])}:{last.name}"


def _of_texts(status: Any, out: str, err: str) -> Iterator[Fault]:
    if status not in (0, 2):
        yield Fault("exit code", str(status))
    if status == 2 and err.count("\n") != 1:
        yield Fault("lines", f"{err.count(chr(10))} lines: {err[:100]!r}")
    message = max(err.splitlines(), key=len, default="")
    if len(message) > LONGEST:
        yield Fault("long", _gist(message))
    if MARK * (QUOTED + 1) in err:
        yield Fault("quoted", _gist(err))
    for text in (out, err):
        if wild := CONTROL.search(text):
            at = wild.start()
            yield Fault("control", f"{wild[0]!r} in {_gist(text[max(at - 60, 0) : at + 20])}")


def _gist(text: str) -> str:
    """A message without the quoted parts that differ from case to case."""
    return re.sub(r"\d+", "0", re.sub(rf"{MARK}+", MARK, text))[:160]


def _of_numbers(printed: list[Any]) -> Iterator[Fault]:
    for value in printed:
        yield from _wrong(msgspec.to_builtins(value, enc_hook=float), "")


def _wrong(value: Any, key: str) -> Iterator[Fault]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _wrong(inner, f"{key}.{name}" if len(key) < 60 else key)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _wrong(inner, key)
    elif isinstance(value, float) and not math.isfinite(value):
        yield Fault("number", f"{value} at {key}")
    elif isinstance(value, int | float) and value < 0 and not SIGNED.search(key):
        yield Fault("number", f"negative at {key}")
