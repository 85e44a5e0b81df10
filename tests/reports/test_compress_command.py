"""roofcast compress, and the options of compression, as a person types them."""

import csv
import json

import pytest
from click.testing import CliRunner

from roofcast.reports.command import main

GPT2 = ["compress", "gpt2", "--on", "a100-sxm4-80gb", "--batch", "4"]


def run(*words, columns=100):
    return CliRunner().invoke(main, list(words), env={"COLUMNS": str(columns)})


@pytest.mark.parametrize("columns", [60, 120])
def test_the_table_fits_the_page(columns):
    found = run(*GPT2, columns=columns)
    assert found.exit_code == 0
    assert max(map(len, found.output.splitlines())) <= columns
    for word in (
        "as it is",
        "int4",
        "2:4",
        "student",
        "Refused",
        "Not forecast",
        "bound by",
        "accuracy",
    ):
        assert word in found.output


def test_json_and_table_tell_the_same_as_predict(tmp_path):
    path = tmp_path / "forms.csv"
    found = json.loads(run(*GPT2, "--json", "-o", str(path)).output)
    forms = {row["form"]: row for row in found["forms"]}
    assert forms["nvfp4"]["refused_because"] and "accuracy" in found["not_said"][0]
    row = forms["int4 weights"]
    options = ["--batch", "4", "--mode", "infer", "--weights", row["option_weights"], "--json"]
    one = json.loads(run("predict", "gpt2", "--on", "a100-sxm4-80gb", *options).output)
    assert one["step_time_s"] == row["step_time_s"]
    assert one["memory"]["peak_bytes"] == row["peak_bytes"]
    with path.open() as file:
        assert [r["form"] for r in csv.DictReader(file)] == list(forms)


@pytest.mark.parametrize(
    "words, line",
    [
        (["compress", "gpt2"], "--on is missing"),
        (["compress", "gpt2", "--on", "a100-sxm4-80gb", "-o", "x.txt"], ".csv"),
        (["compress", "gpt2", "--on", "nothing"], "no device"),
        ("predict resnet50 --on t4 --mode infer --sparsity 2:4".split(), "no units that skip"),
        ("predict gpt2 --on t4 --mode infer --weights int5".split(), "int5"),
        ("predict gpt2 --on l4 --mode infer --prune heads=100%".split(), "below 100"),
        ("search gpt2 --on l4 --devices 2 --teacher gpt2-xl".split(), "not searched"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(words, line):
    found = run(*words)
    assert found.exit_code == 2
    assert line in found.output and len(found.output.strip().splitlines()) == 1


def test_formats_and_prunings_are_swept():
    words = (
        "sweep gpt2 --on l4 --mode infer --vary weights=int8,int4 --vary prune=ffn=25%,heads=25%"
    )
    found = run(*words.split())
    assert found.exit_code == 0
    assert "int4" in found.output and "heads=25%" in found.output


def test_a_scenario_file_keeps_the_options(tmp_path):
    path = str(tmp_path / "s.toml")
    words = "predict gpt2 --on l4 --teacher gpt2-medium --prune ffn=25% --json --save"
    one = json.loads(run(*words.split(), path).output)
    two = json.loads(run("run", path, "--json").output)
    assert one["step_time_s"] == two["step_time_s"] and one["student_alone_s"]


def test_a_stack_without_int8_convolutions_says_so():
    eager = run(*"predict resnet50 --on t4 --mode infer --precision int8".split()).output
    assert "pytorch-eager has no int8 convolutions" in " ".join(eager.split())
    words = "predict resnet50 --on t4 --mode infer --precision int8 --stack nvidia-tuned".split()
    assert "has no int8 convolutions" not in " ".join(run(*words).output.split())
