"""A bar of progress: on a terminal alone, after two seconds, and never on stdout."""

import io
import os
import sys

import pytest

from roofcast.reports.progress import AFTER, TRACING_AFTER, tracing, watched
from roofcast.simulator.importers import user_code


class Terminal(io.StringIO):
    def isatty(self):
        return True


def terminal(monkeypatch):
    """A terminal as stderr; set in the test itself, as pytest resets stderr after the fixtures."""
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    return stream


def test_what_is_watched_is_unchanged():
    assert list(watched([3, 1, 2], "rows")) == [3, 1, 2] and list(watched([], "rows")) == []


def test_a_short_command_is_silent(monkeypatch):
    stderr = terminal(monkeypatch)
    list(watched(range(1000), "rows"))
    assert stderr.getvalue() == "" and AFTER == 2.0


def test_a_long_command_shows_how_far_it_is(monkeypatch):
    stderr, stdout = terminal(monkeypatch), io.StringIO()
    monkeypatch.setattr("sys.stdout", stdout)
    list(watched(range(5), "training runs", after=0.0))
    assert "training runs" in stderr.getvalue() and "of 5" in stderr.getvalue()
    assert stdout.getvalue() == ""


def test_nothing_is_written_where_stderr_is_no_terminal(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    list(watched(range(5), "rows", after=0.0))
    assert stream.getvalue() == ""


def shown_while_tracing(monkeypatch, words, after=0.0, terminal=True):
    """What a trace of 1,234 ops writes to a pseudo-terminal, or to a pipe."""
    pty = pytest.importorskip("pty")
    reading, writing = pty.openpty() if terminal else os.pipe()
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with tracing(words, after):
            for show in user_code.progress:
                show(1234)
        monkeypatch.undo()
        os.write(stream.fileno(), b"end")
        text = os.read(reading, 10_000).decode()
    os.close(reading)
    return text.removesuffix("end")


def test_a_long_trace_of_a_module_shows_its_ops_on_a_terminal_and_clears_the_line(monkeypatch):
    shown = shown_while_tracing(monkeypatch, ["count", "net.py:Net", "--input", "4x8"])
    assert "running the module: 1,234 ops" in shown and shown.endswith("\r\033[K")
    assert not user_code.progress


def test_a_short_trace_is_silent(monkeypatch):
    words = ["count", "net.py:Net"]
    assert shown_while_tracing(monkeypatch, words, 3600.0) == "" and TRACING_AFTER == 1.0


@pytest.mark.parametrize(
    ("words", "terminal"),
    [
        (["count", "net.py:Net", "--json"], True),
        (["count", "net.py:Net"], False),
        (["count", "gpt2"], True),
    ],
)
def test_a_trace_shows_nothing_with_json_or_in_a_pipe(words, terminal, monkeypatch):
    assert shown_while_tracing(monkeypatch, words, terminal=terminal) == ""
