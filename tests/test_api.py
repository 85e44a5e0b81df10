"""The package as a user of Python meets it."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

import roofcast
from roofcast import (
    Forecast,
    RoofcastError,
    Scenario,
    __version__,
    count,
    hwdb,
    largest_batch,
    predict,
    roofline,
)
from roofcast.calls import FIELDS, OTHER_NAMES
from roofcast.simulator import models
from roofcast.simulator.forecast.chain import forecast as engine

ASKED = {"device": "h100-sxm5", "batch": 2}


def test_the_public_names_are_there_and_no_other():
    assert all(hasattr(roofcast, name) for name in roofcast.__all__)
    assert set(roofcast.__all__) <= set(dir(roofcast))
    assert __version__ and hwdb.device("h100-sxm5").id == "h100-sxm5"
    with pytest.raises(AttributeError, match="no attribute 'predcit'"):
        roofcast.predcit  # noqa: B018


def test_predict_has_every_field_of_a_scenario_as_a_typed_keyword():
    parameters = dict(inspect.signature(predict).parameters)
    del parameters["unknown"]
    assert set(parameters) == set(Scenario.__struct_fields__)
    assert all(p.annotation is not inspect.Parameter.empty for p in parameters.values())
    assert all(name in predict.__doc__ for name in parameters)


def test_defaults_of_predict_are_those_of_a_scenario():
    usual = Scenario(model="gpt2", device="h100-sxm5")
    for name, parameter in inspect.signature(predict).parameters.items():
        if name not in ("model", "device", "unknown", "set", "campaign"):
            assert parameter.default == getattr(usual, name), name


def test_fields_by_name_and_a_scenario_give_the_same_forecast():
    by_name = predict("gpt2", **ASKED)
    assert by_name == predict(Scenario(model="gpt2", **ASKED)) == predict(model="gpt2", **ASKED)
    assert by_name.step_time_s == engine(Scenario(model="gpt2", **ASKED)).step_time_s


GPT2 = {"model": "gpt2", "device": "h100-sxm5"}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (GPT2 | {"sequnce": 3}, "no field 'sequnce'; did you mean sequence"),
        (GPT2 | {"zzz": 3}, "no field 'zzz'; known: model, device"),
        ({"model": "gpt2"}, "device is missing; give one, for example device='h100-sxm5'"),
        ({"device": "h100-sxm5"}, "model is missing"),
        (GPT2 | {"inputs": "4x4"}, "inputs '4x4': a list is wanted"),
        (GPT2 | {"inputs": numpy.zeros((8, 4))}, "inputs: a list is wanted, for example"),
        (GPT2 | {"inputs": 5}, "inputs 5: a list is wanted"),
        (GPT2 | {"stages": ["8", "8"]}, "a list of whole numbers is wanted, one per stage"),
        (GPT2 | {"set": "memory.bandwidth=x2"}, "set 'memory.bandwidth=x2': a dict of changes"),
        (GPT2 | {"price_per_hour": "2"}, "price_per_hour '2': a number is wanted"),
        (GPT2 | {"price_per_hour": -2}, "a price in USD per device-hour is wanted"),
        (GPT2 | {"sequence": "512"}, "sequence '512': a whole number is wanted"),
        (GPT2 | {"batch": True}, "batch True: a whole number is wanted"),
        (GPT2 | {"sp": "yes"}, "sp 'yes': True or False is wanted"),
        (GPT2 | {"precision": 16}, "precision 16: a text is wanted"),
        ({"model": "gpt2", "on": "h100-sxm5"}, "no field 'on'; did you mean device?"),
        (GPT2 | {"seq": 512}, "no field 'seq'; did you mean sequence?"),
        (GPT2 | {"model": "gtp2"}, "no model 'gtp2'; did you mean gpt2"),
    ],
)
def test_a_wrong_call_is_one_line_with_the_cure(asked, says):
    with pytest.raises(RoofcastError) as error:
        predict(**asked)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_other_names_lead_to_fields_there_are():
    assert set(OTHER_NAMES.values()) <= FIELDS and not set(OTHER_NAMES) & FIELDS


def test_numbers_of_numpy_are_numbers():
    known = predict("gpt2", "h100-sxm5", batch=4)
    assert predict("gpt2", "h100-sxm5", batch=numpy.int64(4)) == known


def test_shapes_of_a_module_in_hand_may_be_tuples():
    net = pytest.importorskip("torch").nn.Linear(16, 4)
    known = predict(net, "h100-sxm5", inputs=["8x16"]).step_time_s
    assert predict(net, "h100-sxm5", inputs=[(8, 16)]).step_time_s == known
    assert predict(net, "h100-sxm5", inputs={"input": (8, 16)}).step_time_s == known


def test_a_config_in_this_folder_has_the_folders_name(tmp_path, monkeypatch):
    shipped = Path(models.__file__).parent / "configs" / "gpt2.json"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_bytes(shipped.read_bytes())
    monkeypatch.chdir(tmp_path / "mine")
    assert predict("config.json", "h100-sxm5").model == "mine"


def test_the_package_runs_as_a_module():
    asked = [sys.executable, "-m", "roofcast", "--help"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert "predict" in done.stdout


def test_a_scenario_with_other_fields_beside_it_is_refused():
    with pytest.raises(RoofcastError, match="batch: a Scenario holds every field already"):
        predict(Scenario(model="gpt2", device="h100-sxm5"), batch=4)


def test_a_forecast_prints_in_about_ten_lines():
    lines = str(predict("gpt2", **ASKED, tokens="1B")).splitlines()
    assert 8 <= len(lines) <= 13
    for words in ("gpt2", "tokens/s", "MFU", "80 % interval", "lower bound", "peak memory", "fits"):
        assert words in "\n".join(lines)
    assert repr(predict("resnet50", **ASKED)).count("samples/s") == 1


def test_a_notebook_shows_a_table_with_everything_escaped():
    html = predict("gpt2", **ASKED)._repr_html_()
    assert html.startswith("<table>") and html.endswith("</table>")
    assert html.count("<tr>") == html.count("</tr>") >= 8 and "step time" in html


def test_a_forecast_survives_json():
    f = predict("llama-3-8b", device="h100-sxm5", devices=8, zero=3, batch=8)
    again = Forecast.from_json(f.to_json())
    assert again == f and type(again) is Forecast and str(again) == str(f)
    assert again.to_json() == f.to_json()


def test_the_largest_batch_is_that_of_the_command():
    from click.testing import CliRunner

    from roofcast.reports.command import main

    shown = CliRunner().invoke(main, ["memory", "gpt2", "--on", "h100-sxm5", "--json"])
    f = predict("gpt2", device="h100-sxm5")
    assert f.largest_batch == json.loads(shown.stdout)["memory"]["largest_batch"] > 1
    assert f.largest_batch == largest_batch(Scenario(model="gpt2", device="h100-sxm5"))


def test_a_forecast_draws_its_roofline(tmp_path):
    path = roofline(tmp_path / "step.png", "gpt2", **ASKED)
    assert path.read_bytes()[:4] == b"\x89PNG"
    edited = predict("gpt2", **ASKED, set={"memory.bandwidth": "8 TB/s"})
    assert edited.plot_roofline(tmp_path / "edited.svg").stat().st_size > 1000
    with pytest.raises(RoofcastError, match="an edited device is not kept in JSON"):
        Forecast.from_json(edited.to_json()).plot_roofline(tmp_path / "again.png")
    with pytest.raises(RoofcastError):
        edited.plot_roofline(tmp_path / "picture.bmp")


def test_a_frame_has_a_row_per_op():
    f = predict("gpt2", **ASKED)
    frame = f.to_frame()
    assert list(frame["name"]) == [row.name for row in f.layers]
    assert frame["time_s"].sum() + f.between_steps_s == pytest.approx(f.step_time_s)


def test_counts_print_as_a_summary():
    counts = count("resnet50", batch=2)
    lines = str(counts).splitlines()
    assert lines[0] == "resnet50: counts of one training step" and len(lines) < 10
    assert f"{counts.parameters:,}" in str(counts) and "images of 224" in lines[1]
    assert counts.to_frame().parameters.sum() == counts.parameters


def test_count_takes_what_it_can_use_and_says_its_defaults():
    counts = count("gpt2", batch=2, sequence=128)
    assert counts.batch == 2 and counts.assumptions[0] == "precision bf16 (not given)"


def test_modules_of_the_user_are_not_ours(tmp_path):
    """In a folder with files of our old names, ours are imported, and hers by her own modules."""
    for name in ("reports", "scenarios", "hwdb"):
        (tmp_path / f"{name}.py").write_text(f"MINE = {name!r}\n")
    (tmp_path / "simulator").mkdir()
    (tmp_path / "simulator" / "__init__.py").write_text("MINE = 'simulator'\n")
    (tmp_path / "roofcast_script.py").write_text(
        "import reports, simulator, scenarios, hwdb\n"
        "from roofcast import predict\n"
        "print(reports.MINE, simulator.MINE, scenarios.MINE, hwdb.MINE)\n"
        "print(predict('gpt2', device='h100-sxm5').model)\n"
    )
    run = [sys.executable, "roofcast_script.py"]
    found = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["reports", "simulator", "scenarios", "hwdb", "gpt2"]
    command = [str(Path(sys.executable).with_name("roofcast")), "predict", "gpt2", "--on", "t4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "gpt2 on t4" in done.stdout, done.stderr


@pytest.mark.torch
def test_a_users_module_imports_her_own_reports(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "reports.py").write_text("WIDTH = 16\n")
    (tmp_path / "net.py").write_text(
        "from torch import nn\nimport reports\ndef net():\n    return nn.Linear(reports.WIDTH, 4)\n"
    )
    command = [str(Path(sys.executable).with_name("roofcast")), "predict", "net.py:net", "--on"]
    done = subprocess.run(
        [*command, "t4", "--input", "8x16"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and "MFU" in done.stdout, done.stderr


def test_importing_the_package_is_light():
    code = "import sys, roofcast; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"numpy", "msgspec", "click", "rich", "pandas", "matplotlib"} & set(loaded)
