"""A user's Python code while it runs inside a command: quiet, in bounds, with errors in one line.

What it prints must not stand in the JSON of a command or before its one line of error; it must not
wait for a keyboard, and it must end.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import signal
import sys
import sysconfig
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TextIO
from unittest import mock

from roofcast.hwdb.errors import BadInput, RoofcastError

SECONDS = 240.0  # of processor time: the longest that a module is traced
LOADING = 60.0  # of processor time: the longest that a file loads
STILL = 15.0  # of processor time without an op of PyTorch, after which a loop is taken as endless
WAITING = 2.5  # seconds by the clock per second of processor time that a limit allows
EVERY = 0.5  # seconds between looks at the clock
LIMIT_VARIABLE = "ROOFCAST_TRACE_SECONDS"  # environment variable that replaces these seconds
# packages that are not called like their module
PACKAGES = {
    "cv2": "opencv-python", "PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml",
    "skimage": "scikit-image", "torch_geometric": "torch-geometric", "tensorflow": "tensorflow",
    "pytorch_lightning": "lightning", "attr": "attrs", "dateutil": "python-dateutil",
}  # fmt: skip
# parts of PyTorch's messages -> what to do
ADVICE = {
    "_nested_": "nested tensors are not modelled: give padded ones",
    "required positional argument": "give it by name: --input step=3 (a number), --input x=4x32",
    "were given": "give inputs by name, --input x=4x32; those of a list, --input xs.0=4x32",
    "too many indices for tensor": "a dict is given by its keys: --input d.feat=4x32",
    "HigherOrderOperator": "this operator is not modelled: call the function it was given",
}
LONGEST = 200  # characters of an exception's text in a message

# called now and then while a module is traced, with the ops so far; a command sets it
progress: list[Callable[[int], None]] = []


class Said(io.TextIOBase):
    """Takes what code prints, and counts its lines."""

    def __init__(self) -> None:
        self.lines = 0

    def writable(self) -> bool:
        """It takes text."""
        return True

    def write(self, text: str) -> int:
        """Count the lines of a text; the number of its characters."""
        self.lines += text.count("\n")
        return len(text)


class _NoKeyboard(io.StringIO):
    """Standard input that has ended."""


@contextlib.contextmanager
def quiet() -> Iterator[Said]:
    """Inside, nothing is printed: not by Python, nor by C++, nor by warnings and loggers."""
    said = Said()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_closed(sys.stdout, 1))
        stack.enter_context(_closed(sys.stderr, 2))
        stack.enter_context(contextlib.redirect_stdout(said))
        stack.enter_context(contextlib.redirect_stderr(io.TextIOWrapper(io.BytesIO())))
        stack.enter_context(mock.patch.object(sys, "stdin", _NoKeyboard()))
        stack.enter_context(mock.patch.object(sys, "breakpointhook", lambda *a, **k: None))
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield said
        finally:
            logging.disable(before)


@contextlib.contextmanager
def _closed(stream: TextIO, number: int) -> Iterator[None]:
    """Inside, what C++ writes to a file descriptor is dropped."""
    try:
        stream.flush()
        kept = os.dup(number)
    except (OSError, ValueError, AttributeError):
        yield
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)


class _TooLong(BaseException):
    """Code ran past a limit; no `except Exception` of the user catches it."""


class Clock:
    """Looks at the clock while code runs, and stops it past its limits."""

    def __init__(self, what: str, seconds: float, still: float):
        self.what = what
        self.ops = 0  # called so far
        raised = _raised_limit()
        self.seconds, self.still = raised or seconds, max(still, (raised or 0) / 4)
        self.begun, self.wall_begun = time.process_time(), time.monotonic()
        self.seen, self.since = -1, self.begun

    def look(self, signum: int, frame: FrameType | None) -> None:
        """Stop the code if it is past a limit."""
        now = time.process_time()
        for show in progress:
            show(self.ops)
        if self.ops != self.seen:
            self.seen, self.since = self.ops, now
        if _answers_cpp(frame):
            return  # the next look is soon
        over = now - self.begun > self.seconds
        if over or time.monotonic() - self.wall_begun > WAITING * self.seconds:
            raise _TooLong(
                f"{self.what}: not done after {self.seconds:.0f} s ({self.ops:,} ops)"
                f"{_own_line(frame)}; an endless loop? {LIMIT_VARIABLE}=SECONDS allows more"
            )
        if now - self.since > self.still:
            raise _TooLong(
                f"{self.what}: no op of PyTorch for {self.still:.0f} s{_own_line(frame)}; an"
                f" endless loop? {LIMIT_VARIABLE}=SECONDS allows more"
            )


def _answers_cpp(frame: FrameType | None) -> bool:
    """Whether PyTorch's C++ is being told the device of a tensor: an exception would abort it."""
    while frame is not None:
        if frame.f_code.co_name == "__torch_dispatch__":
            if str(frame.f_locals.get("func")) == "prim.device.default":
                return True
        frame = frame.f_back
    return False


def _raised_limit() -> float | None:
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        return max(float(text), 1.0)
    except ValueError:
        return None


def _own_line(frame: FrameType | None) -> str:
    """Where the user's code is, for a message."""
    while frame is not None:
        if not internal(frame.f_code.co_filename):
            return f" at {Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


@contextlib.contextmanager
def limited(what: str, seconds: float = SECONDS, still: float = STILL) -> Iterator[Clock]:
    """Inside, code runs at most `seconds` of processor time, and `still` without an op of PyTorch.

    Raises BadInput past that. `what`: its name for messages. Only in the main thread, of systems
    that have timers.
    """
    clock = Clock(what, seconds, still)
    timers = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not timers or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield clock
        return
    before = signal.signal(signal.SIGALRM, clock.look)
    signal.setitimer(signal.ITIMER_REAL, EVERY, EVERY)
    try:
        yield clock
    except _TooLong as error:
        raise BadInput(str(error)) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---------------------------------------------------------------- errors
def reported(what: str, error: BaseException, layer: str = "") -> BadInput:
    """An exception of the user's code as one line: what failed, the layer, file and line, why.

    Raises it itself where it is an error of ours, or an interrupt.
    """
    if isinstance(error, (RoofcastError, KeyboardInterrupt, _TooLong)):
        raise error
    line = line_of(error)
    at = f" at {line}" if line else ""
    if isinstance(error, SystemExit):
        return BadInput(f"{what}{at}: ends the program (sys.exit)")
    if isinstance(error, EOFError) and "reading a line" in str(error):
        return BadInput(f"{what}{at}: asks for input from the keyboard; nobody answers here")
    if isinstance(error, ModuleNotFoundError) and error.name:
        return BadInput(f"{what}{at}: {missing(error.name)}")
    advice = next((f"; {text}" for part, text in ADVICE.items() if part in str(error)), "")
    return BadInput(f"{what}{layer}{at}: {said(error)}{advice}")


def missing(name: str) -> str:
    """What to install for a module that is not there."""
    top = name.split(".")[0]
    if top != name and importlib.util.find_spec(top) is not None:
        return f"needs the module {name}, which the installed {top} lacks; another version has it"
    return (
        f"needs the module {name}, which is not installed: pip install {PACKAGES.get(top, top)},"
        " or put its file beside this one"
    )


def said(error: BaseException) -> str:
    """The type of an exception and the line of its message that says most, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    text = lines[0]
    if "TorchScript interpreter" in text:  # the cause stands last
        text = lines[-1].removeprefix("RuntimeError: ")
    text = "".join(c if c.isprintable() else " " for c in text)
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - 3]}..."
    return f"{type(error).__name__}: {text}"


def line_of(error: BaseException) -> str:
    """file:line of the user's code where an exception comes from; "" if there is none.

    It is the innermost line of a file of hers, else of a library that is not PyTorch.
    """
    hers = theirs = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        name = frame.f_code.co_filename
        if internal(name):
            continue
        if "site-packages" in name or "dist-packages" in name:
            theirs = f"{'/'.join(Path(name).parts[-2:])}:{number}"
        else:
            hers = f"{Path(name).name}:{number}"
    return hers or theirs


_STANDARD = sysconfig.get_paths()["stdlib"]
_OURS = tuple(
    str(Path(p)) for p in {Path(__file__).parents[2], Path(__file__).resolve().parents[2]}
)


def internal(file: str) -> bool:
    """Whether a file is PyTorch's, Python's or ours: no code of the user."""
    torch = getattr(sys.modules.get("torch"), "__file__", None)
    if file.startswith("<") or (torch and file.startswith(str(Path(torch).parent) + os.sep)):
        return True
    libraries = "site-packages" in file or "dist-packages" in file
    if file.startswith(_STANDARD) and not libraries:
        return True
    return any(file.startswith(f"{ours}{os.sep}simulator") for ours in _OURS)


def frames(error: BaseException) -> Iterator[dict[str, Any]]:
    """The local variables of every call on the way to an exception, outermost first."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        yield frame.f_locals
