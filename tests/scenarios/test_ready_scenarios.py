"""The shipped scenarios: found by name, described in a line, and forecast on a CPU, GPU and TPU."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from roofcast import predict, scenarios
from roofcast.hwdb.errors import BadInput, UnknownName
from roofcast.reports.command import main
from roofcast.reports.pages.steps import total
from roofcast.scenarios.files import about, find, read, ready, steps
from roofcast.simulator import models
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape

NETS = Path(scenarios.__file__).parent / "nets"
REFUSED = "cifar10-cnn-wrong-fc"
JOINT = "dcgan"  # steps of two scenarios
FORECAST = [name for name in ready() if name not in (REFUSED, JOINT)]
TOO_LARGE = {"gpt3-175b-pretrain", "chatgpt-sized-infer"}

PARAMETERS = {  # by hand: weights and biases, layer by layer
    "cifar10-cnn": 896 + 18_496 + 524_416 + 1_290,
    "cnn-224": 1_792 + 73_856 + (401_408 * 1_024 + 1_024) + 10_250,
    "lenet-cifar": 456 + 2_416 + 48_120 + 10_164 + 850,
    "cnn-224-valid": 896 + 18_496 + (186_624 * 10 + 10),
    "mnist-cnn": 320 + (5_408 * 64 + 64) + 650,
    # three dense layers, an RNN per direction, two dense layers [hannun2014]
    "deepspeech": (1_539 * 2_048 + 2_048)
    + 2 * (2_048**2 + 2_048)
    + 2 * (2 * 2_048**2 + 2 * 2_048)
    + (2_048**2 + 2_048)
    + (2_048 * 29 + 29),
    "bilstm-imdb": 20_000 * 128 + 2 * (2 * 4 * (64 * 128 + 64 * 64 + 128)) + 129,
    # generator and discriminator of the PyTorch tutorial
    "dcgan-generator-step": 3_576_704 + 2_765_568,
}


@pytest.mark.parametrize("net", PARAMETERS)
def test_parameters_of_the_nets(net):
    tape = models.resolve(str(NETS / f"{net}.toml")).run(Tape(precision("fp32")), 1)
    assert sum(w.size * w.count for w in tape.weights) == PARAMETERS[net]


def test_gpt3_has_175_billion_parameters():
    """[brown2020, Table 2.1]"""
    tape = models.resolve(str(NETS / "gpt3-175b.json")).run(Tape(precision("bf16")), 1)
    parameters = sum(w.size * w.count for w in tape.weights)
    assert parameters / 1e9 == pytest.approx(175, abs=0.5)


@pytest.mark.parametrize("device", [None, "xeon-8480", "h100-sxm5", "tpu-v4"])
@pytest.mark.parametrize("name", FORECAST)
def test_a_ready_scenario_is_forecast(name, device):
    scenario = read(find(name))
    asked = msgspec.structs.replace(scenario, device=device) if device else scenario
    forecast = predict(asked)
    assert 0 < forecast.lower_bound_s <= forecast.step_time_s < 86_400
    assert forecast.parameters > 0 and forecast.flops_forward + forecast.flops_other > 0
    endless = scenario.samples is None and scenario.tokens is None
    assert (forecast.time_to_train_s is None) == endless
    if device is None:
        assert forecast.memory.fits is (name not in TOO_LARGE)


WRITTEN = {  # as the articles have them: batch, optimizer, samples, epochs
    "cnn-224-valid-rtx3090": (32, "adam", 9_469, 10),
    "mnist-cnn": (32, "adam", 54_000, 10),
    "deepspeech2": (32, "momentum", 281_241, 20),
    "vit-base": (256, "adamw", 1_281_167, 300),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_ready_scenario_is_as_written(name):
    s = read(find(name))
    assert (s.batch, s.optimizer, s.samples, s.epochs) == WRITTEN[name]


@pytest.mark.parametrize(("name", "number"), [("base", 100_000), ("big", 300_000)])
def test_the_first_transformer_takes_the_steps_of_its_paper(name, number):
    """[vaswani2017, Section 5.2 and Table 3]: about 25,000 target tokens a step, eight P100."""
    scenario = read(find(f"transformer-{name}"))
    forecast = predict(scenario)
    assert forecast.steps == pytest.approx(number) and forecast.devices == 8
    assert scenario.batch * scenario.sequence == pytest.approx(25_000, rel=0.02)
    assert forecast.parameters / 1e6 == pytest.approx({"base": 65, "big": 213}[name], rel=0.05)


def test_a_gan_takes_a_step_of_each_net_in_turn():
    (discriminator, generator), assumed = steps(find(JOINT))
    assert (discriminator.model, discriminator.batch) == ("dcgan-discriminator", 256)
    assert generator.batch == 128 and any("added" in line for line in assumed)
    updates = [float(s.samples) * s.epochs / s.batch for s in (discriminator, generator)]
    assert updates[0] == pytest.approx(updates[1])
    both = [predict(s) for s in (discriminator, generator)]
    found = total(both)
    assert found["step_time_s"] == sum(f.step_time_s for f in both)
    assert found["peak_bytes"] > max(f.memory.peak_bytes for f in both)
    with pytest.raises(BadInput, match="has several steps; forecast it with roofcast run"):
        read(find(JOINT))


def test_a_scenario_of_several_steps_is_printed_with_the_sum():
    shown = CliRunner().invoke(main, ["run", JOINT], env={"COLUMNS": "100"}).stdout
    for words in (
        "dcgan-discriminator",
        "dcgan-generator-step",
        "together",
        "their times are added",
    ):
        assert words in shown
    found = json.loads(CliRunner().invoke(main, ["run", JOINT, "--json"]).stdout)
    times = [step["step_time_s"] for step in found["steps"]]
    assert found["total"]["step_time_s"] == sum(times) and len(times) == 2
    several = CliRunner().invoke(main, ["run", JOINT, "--on", "h100-sxm5", "--on", "l4"]).stdout
    assert "dcgan on h100-sxm5" in several and "dcgan on l4" in several


def test_one_scenario_is_one_step(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('steps = ["a.toml"]\n')
    with pytest.raises(BadInput, match=r"mine.toml: steps"):
        steps(path)
    assert steps(find("mnist-cnn")) == ((read(find("mnist-cnn")),), ())


def test_the_scenario_with_a_mistake_is_refused_with_both_shapes():
    with pytest.raises(BadInput, match=r"layer 8 'fc1' \(linear\): .*2304.*64x8x8 = 4096"):
        predict(read(find(REFUSED)))


@pytest.mark.parametrize("name", ready())
def test_a_ready_scenario_says_in_a_sentence_what_it_is(name):
    sentence = about(find(name))
    assert sentence[0].isupper() and sentence.endswith(".") and len(sentence) <= 100


def test_ready_scenarios_are_sorted_by_name_and_of_this_package():
    assert len(ready()) >= 25 and list(ready()) == sorted(ready())
    assert {path.parent for path in ready().values()} == {Path(scenarios.__file__).parent / "ready"}


@pytest.mark.parametrize("given", ["mine.toml", "./mine.toml", "mine"])
def test_a_file_is_found_by_its_path(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    Path(given).write_text('model = "gpt2"\ndevice = "l4"\n')
    assert read(find(given)).model == "gpt2"
    assert find(Path(given)) == find(tmp_path / given.removeprefix("./")).relative_to(tmp_path)


@pytest.mark.parametrize("name", ["resnet50-trian", "ResNet50-train", "resnet50_train"])
def test_an_unknown_name_is_answered_with_the_nearest(name):
    with pytest.raises(UnknownName, match=f"no scenario '{name}'; did you mean resnet50-train"):
        find(name)


def test_a_name_like_no_other_is_answered_with_all_names():
    with pytest.raises(UnknownName) as caught:
        find("zzz")
    assert all(name in str(caught.value) for name in ready()) and "\n" not in str(caught.value)
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    "path", ["resnet50-train.toml", "ready/resnet50-train", "./resnet50-trian"]
)
def test_a_missing_file_is_answered_with_the_ready_scenario_of_its_name(path):
    with pytest.raises(
        BadInput, match="no such file; did you mean the shipped scenario resnet50-tr"
    ):
        find(path)


@pytest.mark.parametrize("path", ["zzz.toml", "zzz/zzz", "a" * 300 + ".toml", "a\0.toml"])
def test_a_missing_file_of_any_name_is_one_line(path):
    with pytest.raises(BadInput, match="no such file; wanted a scenario"):
        find(path)


def test_a_file_without_a_comment_in_its_first_line_says_nothing(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('model = "gpt2"  # a model\n# Not the first line.\ndevice = "l4"\n')
    assert about(path) == ""
    path.write_text("#  Mine. \n")
    assert about(path) == "Mine."
    with pytest.raises(BadInput, match="no such file"):
        about(tmp_path / "none.toml")
