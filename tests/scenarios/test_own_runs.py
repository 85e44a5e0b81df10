"""predict --runs: the user's own measured runs, from a file to the forecast."""

import json

import pytest
from click.testing import CliRunner

from roofcast import RoofcastError, Scenario, predict
from roofcast.reports.command import main
from roofcast.scenarios import files

HEAD = "model,device,precision,mode,batch_per_device,step_time_ms\n"
ASKED = {"model": "resnet50", "device": "rtx-3090", "precision": "amp-fp16", "batch": 256}


@pytest.fixture(scope="module")
def plain():
    return predict(**ASKED)


@pytest.fixture
def mine(tmp_path, plain):
    """Three runs of this machine, all 8 % slower than forecast, and one on another device."""
    path = tmp_path / "mine.csv"
    rows = []
    for batch in (64, 128, 192):
        f = predict(**ASKED | {"batch": batch})
        rows.append(f"resnet50,rtx-3090,amp-fp16,train,{batch},{1.08e3 * f.step_time_s:.6g}")
    rows.append("resnet50,a100-sxm4-40gb,amp-fp16,train,64,80")
    path.write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_runs_that_are_slower_shift_the_forecast_and_narrow_its_interval(mine, plain):
    f = predict(**ASKED, runs=mine)
    assert 1.04 < f.step_time_s / plain.step_time_s < 1.08
    assert f.own_runs == 3
    assert f.own_factor == pytest.approx(f.step_time_s / plain.step_time_s)
    assert f.high_s / f.low_s < plain.high_s / plain.low_s
    assert any(a.startswith("calibrated on 3 of your 4 runs in mine.csv: ") for a in f.assumptions)


def test_runs_on_another_device_change_nothing_and_that_is_said(mine, plain):
    f = predict(**ASKED | {"device": "rtx-4090"}, runs=[str(mine)])
    without = predict(**ASKED | {"device": "rtx-4090"})
    assert (f.step_time_s, f.low_s, f.own_runs) == (without.step_time_s, without.low_s, 0)
    said = [a for a in f.assumptions if a not in without.assumptions]
    assert len(said) == 1 and said[0].startswith(
        "none of your 4 runs in mine.csv is like this step"
    )


def test_the_command_and_a_scenario_file_do_the_same(mine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["predict", "resnet50", "--on", "rtx-3090", "--precision", "amp-fp16", "--batch", "256"]
    saved = str(tmp_path / "saved.toml")
    done = CliRunner().invoke(
        main, [*asked, "--runs", "mine.csv", "--json", "--save", "saved.toml"]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["own_runs"] == 3
    assert 'runs = ["mine.csv"]' in (tmp_path / "saved.toml").read_text(encoding="utf-8")
    assert files.read(saved) == Scenario(**ASKED, runs=(str(mine),))
    again = json.loads(CliRunner().invoke(main, ["run", saved, "--json"]).stdout)
    assert again["step_time_s"] == found["step_time_s"]
    text = CliRunner(env={"COLUMNS": "200"}).invoke(main, [*asked, "--runs", "mine.csv"]).stdout
    text = " ".join(text.split())
    assert "calibrated on 3 of your runs" in text and "calibrated on 3 of your 4 runs" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD, "no row with a step time"),
        (HEAD + "resnet50,rtx-3090,fp32,train,64,\n", "row 1: no step time"),
        (HEAD + "resnet50,rtx-3090,fp32,train,64,90\nresnet50,rtx-3090,fp32,train,64,fast\n",
         "row 2: no step time"),
        (HEAD + "resnet50,rtx-3090,fp32,train,64,-3\n", "row 1: step time is not a positive"),
        (HEAD + "resnet50,rtx-3090,fp32,train,64,1e-320\n", "that can be measured"),
        (HEAD + f"resnet50,rtx-3090,fp32,train,{'9' * 5000},90\n", "line 2: '99999"),
        (HEAD + "no-such-net,rtx-3090,fp32,train,64,90\n", "row 1: "),
        (HEAD + "resnet50,rtx-309,fp32,train,64,90\n", "row 1: no device 'rtx-309'"),
        ("a,b\n1,2\n", "no column 'model'"),
        (None, "no such file"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_line_that_names_the_row(text, says, tmp_path):
    path = tmp_path / "mine.csv"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(RoofcastError) as error:
        predict(**ASKED, runs=path)
    assert says in str(error.value) and "\n" not in str(error.value)
    done = CliRunner().invoke(
        main, ["predict", "resnet50", "--on", "rtx-3090", "--runs", str(path)]
    )
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and "mine.csv" in done.stderr


def test_a_row_to_be_excluded_is_passed_over(tmp_path, plain):
    path = tmp_path / "mine.csv"
    head = HEAD.replace("mode,", "mode,optimizer,exclude,")
    same, ms = "resnet50,rtx-3090,amp-fp16,train,adamw", 1e3 * plain.step_time_s
    rows = f"{same},warm-up,256,900\n{same},,256,{ms:.6g}\n"
    path.write_text(head + rows, encoding="utf-8")
    f = predict(**ASKED, runs=path)
    assert f.own_runs == 1 and f.step_time_s == pytest.approx(plain.step_time_s, rel=1e-4)


def test_runs_that_are_no_files_are_refused():
    with pytest.raises(RoofcastError, match="runs 3: a list of files is wanted"):
        predict(**ASKED, runs=3)
