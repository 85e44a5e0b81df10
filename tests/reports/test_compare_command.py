"""`roofcast compare` as a person types it."""

import csv
import json

import pytest
from click.testing import CliRunner

from roofcast import predict
from roofcast.reports.command import main
from roofcast.reports.format import duration, energy, money

STEPS = {
    "a": ("llama-3-8b", "--on", "h100-sxm5"),
    "b": ("llama-3-8b", "--on", "a100-sxm4-80gb", "--batch", "2"),
    "c": ("llama-3-8b", "--on", "h100-sxm5", "--devices", "16", "--tp", "2", "--pp", "4"),
    "d": ("resnet50", "--on", "rtx-4090", "--batch", "32", "--mode", "infer"),
}


def run(*words, columns="100"):
    return CliRunner(env={"COLUMNS": columns}).invoke(main, words)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenarios")
    for name, words in STEPS.items():
        assert run("predict", *words, "--save", str(folder / f"{name}.toml")).exit_code == 0
    return folder


def test_causes_sum_to_the_difference(saved):
    files = [str(saved / f"{name}.toml") for name in STEPS]
    found = json.loads(run("compare", *files, "--json").stdout)
    assert [each["name"] for each in found["scenarios"]] == list(STEPS)
    base = predict("llama-3-8b", "h100-sxm5")
    assert found["scenarios"][0]["step_time_s"] == base.step_time_s
    for each, other in zip(found["differences"], found["scenarios"][1:], strict=True):
        by = other["step_time_s"] - base.step_time_s
        assert each["step_time_s"] == pytest.approx(by)
        assert sum(each["causes_s"].values()) == pytest.approx(by, rel=1e-6)
        by = other["peak_bytes"] - base.memory.peak_bytes
        assert sum(each["causes_bytes"].values()) == pytest.approx(by, rel=1e-6)


def test_a_faster_memory_is_the_cause_of_its_gain(tmp_path):
    step = ("gpt2", "--on", "h100-sxm5", "--stack", "pytorch-compiled", "--batch", "32")
    for name, more in (("as-built", ()), ("faster", ("--set", "memory.bandwidth=x2"))):
        run("predict", *step, *more, "--save", str(tmp_path / f"{name}.toml"))
    files = [str(tmp_path / name) for name in ("as-built.toml", "faster.toml")]
    causes = json.loads(run("compare", *files, "--json").stdout)["differences"][0]["causes_s"]
    assert min(causes, key=causes.get) == "memory bandwidth" and causes["memory bandwidth"] < 0
    text = run("compare", *files).stdout
    assert "set default -> memory.bandwidth=x2" in text


def test_runs_with_an_end_are_compared_by_their_time_cost_and_energy(tmp_path):
    """Those of the whole training, as predict prints them."""
    files = [str(tmp_path / f"{device}.toml") for device in ("t4", "h100-sxm5")]
    for file, device in zip(files, ("t4", "h100-sxm5"), strict=True):
        run("predict", "gpt2", "--on", device, "--tokens", "1T", "--save", file)
    text = run("compare", *files).stdout
    for device in ("t4", "h100-sxm5"):
        whole = predict("gpt2", device, tokens=1e12).campaign
        assert duration(whole.time_s) in text and money(whole.cost_usd) in text
        assert energy(whole.energy_j) in text and "energy of the run (site)" in text


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_the_page_fits_the_terminal(saved, columns):
    result = run("compare", str(saved / "a.toml"), str(saved / "c.toml"), columns=columns)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= int(columns)
    assert "network" in result.stdout and "From a to c" in result.stdout


@pytest.mark.parametrize("suffix", ["csv", "html", "md"])
def test_the_comparison_is_written(saved, tmp_path, suffix):
    target = tmp_path / f"out.{suffix}"
    files = (str(saved / "a.toml"), str(saved / "b.toml"))
    assert run("compare", *files, "-o", str(target)).exit_code == 0
    text = target.read_text(encoding="utf-8")
    if suffix == "csv":
        rows = list(csv.DictReader(text.splitlines()))
        assert [row["scenario"] for row in rows] == ["a", "b"]
        for row in rows:
            parts = sum(float(v) for key, v in row.items() if key.endswith(" [s]") and v)
            assert parts == pytest.approx(float(row["step_time_s"]))
    else:
        assert "a100-sxm4-80gb" in text and "memory bandwidth" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "SCENARIO... is missing"),
        (("resnet50-train",), "give two scenarios or more"),
        (("resnet50-train", "nothing"), "no scenario"),
        (("resnet50-train", "resnet50-train", "-o", "x.pdf"), "use .csv or .html or .md"),
    ],
)
def test_mistakes_are_one_line(words, said):
    result = run("compare", *words)
    assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1
