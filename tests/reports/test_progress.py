"""A bar of progress: on a terminal alone, after two seconds, and never on stdout."""

import io

from roofcast.reports.progress import AFTER, watched


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
