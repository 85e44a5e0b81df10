"""What a terminal, a shell and a file system can do to the command: closed streams, no width, names
that hold control characters, links, a umask, a full disk.
"""

import json
import os
import re
import stat
import subprocess
import sys

import pytest
from click.testing import CliRunner

from roofcast.reports.command import LONGEST, main

PREDICT = ("predict", "gpt2", "--on", "t4", "--batch", "1")
RED = "a\x1b[31mb\x9b1m\x07\u202ec"
NET = 'name = {name}\ninput = [8]\n[[layers]]\nkind = "linear"\nout = 4\nname = {name}\n'
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


def run(*words, **env):
    return CliRunner().invoke(main, words, env=env)


def shell(line, **env):
    """What a shell does with a line; `roofcast` is this Python's."""
    here = f"{sys.executable} -m roofcast"
    return subprocess.run(
        ["bash", "-c", line.replace("roofcast", here)],
        capture_output=True, text=True, timeout=120, env={**os.environ, **env},
    )  # fmt: skip


@pytest.mark.parametrize(
    "redirected", [">&-", "<&-", "2>&-", ">&- 2>&-", ">&- 2>&- <&-", "| head -1", "| true"]
)
def test_a_closed_stream_is_no_error(redirected):
    found = shell(f"set -o pipefail; roofcast {' '.join(PREDICT)} {redirected}")
    assert found.returncode == 0 and "Traceback" not in found.stderr


def test_what_cannot_be_printed_is_one_line():
    found = shell(f"roofcast {' '.join(PREDICT)} > /dev/full")
    assert found.returncode == 2 and found.stderr.count("\n") == 1 and "No space" in found.stderr
    found = shell("roofcast predict nothing --on t4 2> /dev/full")
    assert found.returncode == 2


@pytest.mark.parametrize("columns", ["0", "1", "-7", "abc", "", "1000000"])
def test_any_width_is_printed(columns):
    found = run(*PREDICT, COLUMNS=columns)
    assert found.exit_code == 0 and "gpt2" in found.stdout


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"TERM": ""}])
def test_any_terminal_is_printed_to(env):
    assert run(*PREDICT, **env).exit_code == 0


def test_a_terminal_without_unicode_is_printed_to():
    plain = {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    found = shell(f"roofcast {' '.join(PREDICT)}", **plain)
    assert found.returncode == 0 and found.stdout.isascii()


@pytest.mark.parametrize("more", [(), ("--json",)])
@pytest.mark.parametrize(
    "command", [("count",), ("predict", "--on", "t4"), ("memory", "--on", "t4")]
)
def test_control_characters_of_names_never_reach_the_terminal(command, more, tmp_path):
    path = tmp_path / f"{RED}.toml"
    path.write_text(NET.format(name=json.dumps(RED)), encoding="utf-8")
    found = run(command[0], str(path), *command[1:], *more)
    assert found.exit_code == 0 and not CONTROL.search(found.stdout + found.stderr)
    assert "\\u001b[31m" in found.stdout if more else "\\x1b[31m" in found.stdout


def test_control_characters_of_a_mistake_never_reach_the_terminal(tmp_path):
    path = tmp_path / "net.toml"
    path.write_text(f"[[layers]]\nkind = 'relu'\n{json.dumps(RED)} = 1\n", encoding="utf-8")
    for words in (("count", str(path)), ("count", RED), ("predict", "gpt2", "--on", RED), (RED,)):
        found = run(*words)
        assert found.exit_code == 2 and found.stderr.count("\n") == 1
        assert not CONTROL.search(found.stderr) and "\\x1b" in found.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("{}",), ("predict", "{}", "--on", "t4"), ("predict", "gpt2", "--on", "{}"),
        ("predict", "gpt2", "--on", "t4", "--batch", "{}"), ("predict", "gpt2", "--{}"),
        ("predict", "gpt2", "--on", "t4", "--set", "{}"), ("run", "{}"), ("run", "{}.toml"),
        ("predict", "gpt2", "--on", "t4", "--mode", "{}"), ("devices", "--vendor", "{}"),
        ("predict", "gpt2", "--on", "t4", "--recompute", "{}"), ("models", "{}"),
        ("predict", "gpt2", "--on", "t4", "--stack", "{}"), ("validate", "--runs", "{}"),
        ("predict", "gpt2", "--on", "t4", "--stages", "{}"), ("count", "{}.json"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_message_quotes_at_most_80_characters(words):
    found = run(*(word.format("q" * 3000) for word in words))
    assert found.exit_code == 2 and found.stderr.count("\n") == 1
    assert "q" * 81 not in found.stderr and len(found.stderr) <= LONGEST + 1


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_a_byte_order_mark_is_no_part_of_a_text(suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    config = {"model_type": "gpt2", "vocab_size": 10, "n_embd": 8, "n_layer": 1, "n_head": 2}
    text = json.dumps(config) if suffix == "json" else NET.format(name='"x"')
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert run("count", str(path)).exit_code == 0


def test_a_byte_order_mark_is_no_part_of_a_table(tmp_path):
    path = tmp_path / "runs.csv"
    head = "model,device,precision,mode,batch_per_device,step_time_ms\n"
    path.write_bytes(b"\xef\xbb\xbf" + (head + "resnet50,t4,fp32,training,8,100\n").encode())
    assert run("validate", "--runs", str(path)).exit_code == 0


@pytest.fixture
def saving(tmp_path):
    """A function that saves a scenario or a picture to a name in an empty folder."""

    def save(command, name):
        target = str(tmp_path / name)
        if command == "predict":
            return run(*PREDICT, "--save", target)
        return run(command, *PREDICT[1:], "-o", target)

    return save


SAVED = {"predict": "a.toml", "roofline": "a.svg", "trace": "a.json"}


@pytest.mark.parametrize("command, name", SAVED.items())
def test_a_link_stays_and_its_target_is_written(command, name, saving, tmp_path):
    (tmp_path / f"real-{name}").write_text("old")
    (tmp_path / name).symlink_to(f"real-{name}")
    assert saving(command, name).exit_code == 0
    assert (tmp_path / name).is_symlink() and (tmp_path / f"real-{name}").read_text() != "old"


@pytest.mark.parametrize("command, name", SAVED.items())
def test_a_umask_is_kept(command, name, saving, tmp_path):
    before = os.umask(0o077)
    try:
        assert saving(command, name).exit_code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("command, name", SAVED.items())
def test_what_is_no_file_is_not_replaced(command, name, saving, tmp_path):
    os.mkfifo(tmp_path / f"pipe-{name}")
    (tmp_path / name).symlink_to(f"pipe-{name}")  # as a link to /dev/null would be
    os.mkdir(tmp_path / f"folder-{name}")
    for target in (name, f"pipe-{name}", f"folder-{name}", f"none/{name}"):
        found = saving(command, target)
        assert found.exit_code == 2 and found.stderr.count("\n") == 1, target
    assert stat.S_ISFIFO((tmp_path / name).stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == sorted((name, f"pipe-{name}", f"folder-{name}"))


@pytest.mark.parametrize("command, name", SAVED.items())
def test_a_full_disk_keeps_the_old_file(command, name, saving, tmp_path, monkeypatch):
    (tmp_path / name).write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    found = saving(command, name)
    assert found.exit_code == 2 and "No space left" in found.stderr
    assert (tmp_path / name).read_text() == "old" and os.listdir(tmp_path) == [name]


def test_what_has_no_effect_is_said_once():
    for key in ("power.idle=35 W", "price.cloud_usd_per_hour=3", "peak_flops.fp64=x2"):
        said = json.loads(run(*PREDICT, "--set", key, "--json").stdout)["assumptions"]
        words = ("no effect", "shown only", "leave the time")
        assert sum(any(word in line for word in words) for line in said) == 1, said
