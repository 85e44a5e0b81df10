"""Devices, pipes, directories and files without end: refused in one line, for every argument that
names a file.
"""

import gzip
import os

import pytest
from click.testing import CliRunner

from roofcast.hwdb import contents
from roofcast.reports.command import main

# a command for each argument that names a file; FILE stands for it
READING = {
    "model .json": ("count", "FILE.json"),
    "model .toml": ("count", "FILE.toml"),
    "model without a suffix": ("count", "./FILE"),
    "folder with a config.json": ("count", "FOLDER"),
    "device": ("predict", "gpt2", "--on", "./FILE.toml"),
    "device shown": ("devices", "show", "./FILE.toml"),
    "system": ("predict", "gpt2", "--system", "./FILE.toml"),
    "system shown": ("systems", "show", "./FILE.toml"),
    "link": ("links", "show", "./FILE.toml"),
    "stack": ("predict", "gpt2", "--on", "t4", "--stack", "./FILE.toml"),
    "stack shown": ("stacks", "show", "./FILE.toml"),
    "scenario": ("run", "./FILE.toml"),
    "runs": ("validate", "--runs", "FILE.csv"),
    "runs, packed": ("validate", "--runs", "FILE.csv.gz"),
    "ops": ("validate", "--ops", "FILE.csv"),
    "ops, packed": ("validate", "--ops", "FILE.csv.gz"),
    "document": ("validate", "--write", "FILE.md"),
    "kernels": ("roofline", "--on", "this-machine", "--kernels", "FILE.csv", "-o", "out.svg"),
}  # fmt: skip


def _zero(path):
    os.symlink("/dev/zero", path)


def _pipe(path):
    os.mkfifo(path)


def _folder(path):
    os.mkdir(path)


def _large(path):
    """A sparse file of a TiB."""
    with open(path, "wb") as file:
        file.truncate(2**40)


def _bomb(path):
    """Zeros that are a thousand times larger than their file."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(9):
            file.write(b"\0" * 2**25)


ENDLESS = {"zero": _zero, "pipe": _pipe, "folder": _folder, "large": _large}


def refused(words):
    """The line with which a command refuses its input."""
    result = CliRunner().invoke(main, words)
    assert isinstance(result.exception, SystemExit) and result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1 and len(result.stderr) <= 501 and not result.stdout
    return result.stderr


@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("argument", READING)
def test_a_file_without_end_is_one_line(argument, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = READING[argument]
    if "FOLDER" in words:
        os.mkdir("FOLDER")
        ENDLESS[kind]("FOLDER/config.json")
    else:
        (name,) = [word for word in words if "FILE" in word]
        ENDLESS[kind](name)
    line = refused(words)
    if kind == "folder":
        assert "directory" in line or "config.json" in line
    elif kind == "large":
        assert "is larger than" in line or "not a .gz" in line or "Not a gzipped" in line
    else:
        assert "is a device or a pipe" in line


@pytest.mark.parametrize("option", ["--runs", "--ops"])
def test_a_packed_bomb_is_one_line(option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _bomb("FILE.csv.gz")
    assert "is larger than 256 MiB" in refused(("validate", option, "FILE.csv.gz"))


def test_a_file_of_the_largest_size_is_read(tmp_path):
    path = tmp_path / "a.toml"
    path.write_bytes(b"#" * 10)
    assert contents.text(path, "anything", 10) == "#" * 10
    with pytest.raises(contents.BadInput, match="is larger than"):
        contents.text(path, "anything", 9)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads anything")
def test_a_file_without_permission_is_one_line(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("")
    path.chmod(0)
    assert "Permission denied" in refused(("run", str(path)))
