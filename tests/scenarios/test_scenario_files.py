"""Scenario files: what is written is read back, and a bad file is an error on one line."""

from __future__ import annotations

import os

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roofcast.hwdb.errors import BadInput
from roofcast.scenarios import files
from roofcast.simulator.forecast.scenario import Scenario

WHOLE = Scenario(
    model="gpt2",
    device="a100-sxm4-80gb",
    set={"memory.bandwidth": "3 TB/s", "peak_flops.bf16": 4e14},
    batch=8,
    sequence=1024,
    precision="amp-bf16",
    optimizer="lion",
    recompute="modules:mlp,norm",
    attention="flash",
    stack="pytorch-eager",
    tokens="1.5T",
    epochs=1.5,
    offload=("activations", "optimizer"),
    devices=32,
    system="dgx-a100-640gb",
    tp=2,
    sp=False,
    pp=2,
    vpp=2,
    dp=4,
    cp=2,
    stages=(3, 2, 3, 4),
    cp_kind="all-gather",
    ep=4,
    etp=2,
    zero=3,
    shard=4,
    reshard=False,
    schedule="interleaved",
    micro_batch=2,
    price_per_hour=2.5,
)


def test_what_is_written_is_read_back(tmp_path):
    files.write(WHOLE, tmp_path / "a.toml")
    assert files.read(tmp_path / "a.toml") == WHOLE
    assert files.read(str(tmp_path / "a.toml")) == WHOLE


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda s: "/" not in s and "." not in s
)


@settings(max_examples=60)
@given(NAMES, st.floats(allow_nan=False))
def test_any_string_and_number_is_read_back(tmp_path_factory, name, number):
    path = tmp_path_factory.mktemp("scenario") / "a.toml"
    scenario = Scenario(model=name, device="x", set={name: number}, samples=number)
    files.write(scenario, path)
    assert files.read(path) == scenario


def test_defaults_are_left_out(tmp_path):
    files.write(Scenario(model="gpt2", device="l4"), tmp_path / "a.toml")
    assert (tmp_path / "a.toml").read_text() == 'model = "gpt2"\ndevice = "l4"\n'


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path, monkeypatch):
    (tmp_path / "nets").mkdir()
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    files.write(Scenario(model="nets/my.toml", device="./chip.toml"), "runs/a.toml")
    assert (
        tmp_path / "runs/a.toml"
    ).read_text() == 'model = "../nets/my.toml"\ndevice = "../chip.toml"\n'
    scenario = files.read("runs/a.toml")
    assert (scenario.model, scenario.device) == (os.path.join("nets", "my.toml"), "chip.toml")
    monkeypatch.chdir(tmp_path / "nets")
    assert files.read("../runs/a.toml").model == "../nets/my.toml"
    files.write(Scenario(model=str(tmp_path / "nets/my.toml"), device="l4"), "b.toml")
    assert files.read("b.toml").model == str(tmp_path / "nets/my.toml")


def test_paths_of_stack_and_system_start_at_the_folder_of_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    files.write(
        Scenario(model="gpt2", device="l4", stack="./my_stack.toml", system="nodes/my_node.toml"),
        "runs/a.toml",
    )
    assert (
        'stack = "../my_stack.toml"\nsystem = "../nodes/my_node.toml"\n'
        in (tmp_path / "runs/a.toml").read_text()
    )
    scenario = files.read("runs/a.toml")
    assert (scenario.stack, scenario.system) == ("my_stack.toml", "nodes/my_node.toml")
    files.write(
        Scenario(model="gpt2", device="l4", stack="llm.c", system="dgx-h100"), "runs/b.toml"
    )
    assert (files.read("runs/b.toml").stack, files.read("runs/b.toml").system) == (
        "llm.c",
        "dgx-h100",
    )


def test_edits_may_be_written_as_dotted_keys(tmp_path):
    (tmp_path / "a.toml").write_text(
        'model = "gpt2"\ndevice = "l4"\n[set]\nmemory.bandwidth = "1 TB/s"\nname = "x"\n'
    )
    assert files.read(tmp_path / "a.toml").set == {"memory.bandwidth": "1 TB/s", "name": "x"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('model = "gpt2"\ndevise = "l4"', "no key 'devise'; did you mean device"),
        ('model = "gpt2"', "device is missing; add it"),
        ('model = "gpt2"\ndevice = "l4"\nbatch = "8"', "batch is '8'; wanted a whole number"),
        ('model = "gpt2"\ndevice = "l4"\nbatch = 8.5', "batch is 8.5; wanted a whole number"),
        ('model = 3\ndevice = "l4"', "model is 3; wanted a string in quotes"),
        (
            'model = "gpt2"\ndevice = "l4"\ntokens = true',
            "tokens is True; wanted a number or a string in quotes",
        ),
        ('model = "gpt2"\ndevice = "l4"\nset = 3', "set is 3; wanted a table"),
        ('model = "gpt2"\ndevice = "l4"\n[set]\na = [1]', "set"),
        ('model = "gpt2', "is not valid TOML, or is cut off: "),
        ("", "model is missing; add it"),
    ],
)
def test_a_bad_file_is_one_line_with_file_and_key(tmp_path, text, says):
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(BadInput) as error:
        files.read(path)
    assert str(error.value).startswith(f"{path}: {says}") and "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_or_written_is_an_error(tmp_path):
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    for path, says in (
        (tmp_path / "no.toml", "no such file"),
        (tmp_path, "is a directory"),
        (tmp_path / "b.toml", "is not text in UTF-8"),
    ):
        with pytest.raises(BadInput, match=says):
            files.read(path)
    with pytest.raises(BadInput, match="cannot be written .No such file or directory"):
        files.write(WHOLE, tmp_path / "no" / "a.toml")
    with pytest.raises(BadInput, match="is a directory"):
        files.write(WHOLE, tmp_path)


def test_an_interrupted_write_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "a.toml"
    files.write(WHOLE, path)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write(msgspec.structs.replace(WHOLE, batch=9), path)
    assert files.read(path) == WHOLE
    assert [p.name for p in tmp_path.iterdir()] == ["a.toml"]
