"""The command line: what it prints, its JSON, and its errors."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import roofcast
from roofcast.reports.command import COMMANDS, main

ROOT = Path(__file__).parent.parent.parent
PROMISED = """step_time_s lower_bound_s samples_per_s tokens_per_s mfu hfu parameters flops_forward
    flops_backward memory layers time_to_train_s assumptions"""
PROMISED_OF_MEMORY = """parameters_bytes gradients_bytes optimizer_bytes activations_bytes
    framework_bytes peak_bytes capacity_bytes fits largest_batch"""
RESNET = str(ROOT / "scenarios" / "ready" / "resnet50-train.toml")
PREDICT = ("predict", "gpt2", "--on", "h100-sxm5")


def run(*words):
    return CliRunner().invoke(main, words)


def shell(*words, **environment):
    command = [sys.executable, "-m", "roofcast.reports.command", *words]
    return subprocess.run(command, capture_output=True, cwd=ROOT, env=os.environ | environment)


def test_help_names_every_command():
    result = run("--help")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    result = run(name, "--help")
    assert result.exit_code == 0 and "Usage: roofcast" in result.stdout


def test_roofcast_alone_prints_its_help():
    result = run()
    assert (result.exit_code, result.stdout) == (0, run("--help").stdout)


def test_a_system_names_its_device():
    found = json.loads(
        run(
            "predict", "gpt2", "--system", "dgx-h100", "--devices", "8", "--batch", "8", "--json"
        ).stdout
    )
    assert (found["device"], found["system"], found["devices"]) == ("h100-sxm5", "dgx-h100", 8)


def test_help_imports_neither_numpy_nor_rich_nor_the_engine():
    code = (
        "import sys; from roofcast.reports.command import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    ).stderr.split()
    assert not {
        "numpy",
        "rich",
        "matplotlib",
        "pandas",
        "msgspec",
        "pint",
        "roofcast.simulator",
    } & set(loaded)


def test_predict_prints_a_headline_a_table_and_the_memory():
    result = run(*PREDICT)
    assert result.exit_code == 0, result.stderr
    for words in (
        "gpt2 on h100-sxm5: one training step",
        "tokens/s",
        "MFU",
        "bound by",
        "total",
        "capacity",
        "Diagnosis",
        "Assumed",
    ):
        assert words in result.stdout


def test_json_is_one_object_with_the_promised_keys():
    result = run(*PREDICT, "--json", "--tokens", "1B")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert set(PROMISED.split()) <= set(found)
    assert set(PROMISED_OF_MEMORY.split()) <= set(found["memory"])
    assert {"name", "count", "flops", "bytes", "saved_bytes", "time_s", "bound"} <= set(
        found["layers"][0]
    )
    assert "points" not in found
    assert found["time_to_train_s"] == pytest.approx(1e9 / found["tokens_per_s"])


def test_json_is_what_the_python_call_returns():
    forecast = roofcast.predict(model="gpt2", device="h100-sxm5")
    assert json.loads(run(*PREDICT, "--json").stdout)["step_time_s"] == forecast.step_time_s


def test_several_devices_make_a_table():
    result = run(*PREDICT, "--on", "rtx-3090", "--batch", "4")
    assert (
        result.exit_code == 0
        and "2 devices compared" in result.stdout
        and "rtx-3090" in result.stdout
    )
    both = json.loads(run(*PREDICT, "--on", "rtx-3090", "--json").stdout)
    assert [each["device"] for each in both["forecasts"]] == ["h100-sxm5", "rtx-3090"]


def test_an_edit_of_the_device_is_stated_and_changes_the_forecast():
    plain, edited = (
        json.loads(run(*PREDICT, "--json", *more).stdout)
        for more in ((), ("--set", "memory.bandwidth=8 TB/s"))
    )
    assert edited["step_time_s"] < plain["step_time_s"]
    assert any("memory.bandwidth" in each for each in edited["assumptions"])


def test_a_saved_scenario_runs_to_the_same_forecast(tmp_path):
    saved = tmp_path / "scenario.toml"
    first = run(
        *PREDICT,
        "--batch",
        "2",
        "--tokens",
        "10B",
        "--set",
        "memory.bandwidth=4 TB/s",
        "--json",
        "--save",
        str(saved),
    )
    assert first.exit_code == 0, first.stderr
    again = run("run", str(saved), "--json")
    assert json.loads(again.stdout) == json.loads(first.stdout)


def test_a_scenario_runs_on_another_device(tmp_path):
    found = json.loads(run("run", RESNET, "--on", "rtx-3090", "--json").stdout)
    assert (found["device"], found["batch"]) == ("rtx-3090", 256)
    both = run("run", RESNET, "--on", "rtx-3090", "--on", "h100-sxm5")
    assert "2 devices compared" in both.stdout


def test_several_devices_add_communication_and_memory_by_stage():
    words = (
        "predict",
        "llama-3-8b",
        "--on",
        "h100-sxm5",
        "--devices",
        "16",
        "--tp",
        "2",
        "--pp",
        "4",
        "--batch",
        "16",
    )
    found = json.loads(run(*words, "--json").stdout)
    assert found["devices"] == 16 and (
        found["layout"]["tp"],
        found["layout"]["pp"],
        found["layout"]["dp"],
    ) == (2, 4, 2)
    assert found["tokens_per_s_per_device"] == pytest.approx(found["tokens_per_s"] / 16)
    assert 0 < found["bubble_fraction"] < 1 and len(found["ranks"]) == 4
    assert {"tensor", "data", "pipeline"} <= set(found["communication_bytes"])
    assert set(found["exposed_communication_s"]) <= set(found["communication_bytes"])
    assert max(rank["peak_bytes"] for rank in found["ranks"]) == found["memory"]["peak_bytes"]
    text = run(*words).stdout
    assert "on 16 × h100-sxm5" in text and "Memory by pipeline stage" in text
    assert json.loads(run("memory", *words[1:], "--json").stdout)["ranks"] == found["ranks"]


def test_a_price_gives_the_cost():
    found = json.loads(run(*PREDICT, "--tokens", "1B", "--price", "2.5", "--json").stdout)
    assert found["cost_usd"] == pytest.approx(2.5 * found["time_to_train_s"] / 3600)
    assert found["price_usd_per_hour"] == 2.5


def test_help_warns_that_loading_a_py_runs_it():
    for name in ("predict", "memory", "roofline", "count", "run"):
        text = " ".join(run(name, "--help").stdout.split())
        assert re.search(r"\.py runs (it|that file)", text), name


def test_memory_is_printed_by_layer_with_the_largest_batch():
    result = run("memory", "llama-3-8b", "--on", "rtx-3090", "--seq", "512")
    assert result.exit_code == 0, result.stderr
    assert "does not fit" in result.stdout and "By op" in result.stdout
    text = " ".join(run("memory", "gpt2", "--on", "h100-sxm5").stdout.split())
    assert "largest batch that fits: " in text


def test_largest_batch_fits_and_the_next_does_not():
    largest = json.loads(run("memory", "gpt2", "--on", "rtx-3090", "--json").stdout)["memory"][
        "largest_batch"
    ]
    fits = [
        json.loads(run("memory", "gpt2", "--on", "rtx-3090", "--json", "--batch", str(b)).stdout)[
            "memory"
        ]["fits"]
        for b in (largest, largest + 1)
    ]
    assert fits == [True, False]


def test_devices_can_be_filtered_and_shown():
    listed = run("devices", "--vendor", "nvidia", "--year", "2022")
    assert "h100-sxm5" in listed.stdout and "mi300x" not in listed.stdout
    found = json.loads(run("devices", "--kind", "tpu", "--json").stdout)["devices"]
    assert found and all(each["kind"] == "tpu" for each in found)
    shown = run("devices", "show", "h100-sxm5")
    assert (
        "memory.bandwidth" in shown.stdout
        and "3.35 TB/s" in shown.stdout
        and "read" in shown.stdout
    )
    assert run("devices", "--links").stdout and run("devices", "--systems").stdout


def test_models_are_listed_and_shown():
    assert "llama-3-8b" in run("models").stdout
    assert json.loads(run("models", "show", "gpt2", "--json").stdout)["parameters"] == 124_439_808


BAD = [
    (["predic", "gpt2"], "did you mean predict"),
    (["frobnicate"], "known: predict"),
    (["predict"], "MODEL is missing"),
    (["predict", "gpt2"], "--on is missing"),
    (["predict", "gpt2", "--on"], "--on"),
    (["predict", "gpt2", "extra", "--on", "h100-sxm5"], "extra"),
    ([*PREDICT, "--btach", "3"], "did you mean --batch"),
    ([*PREDICT, "--dtype", "bf16"], "did you mean --precision?"),
    ([*PREDICT, "--gpus", "8"], "did you mean --devices?"),
    (["predict", "gpt2", "--device", "h100-sxm5"], "did you mean --on?"),
    (["predict", "gpt2", "--system", "dgx-h101"], "dgx-h100"),
    ([*PREDICT, "--tokens", "15", "T"], "quote a value"),
    ([*PREDICT, "--batch", "-3"], "give 1 or more"),
    ([*PREDICT, "--batch", "0"], "give 1 or more"),
    ([*PREDICT, "--batch", "four"], "not a whole number"),
    ([*PREDICT, "--seq", "1.5"], "not a whole number"),
    ([*PREDICT, "--precision", "bf61"], "'bf16'"),
    ([*PREDICT, "--mode", "training"], "'train'"),
    ([*PREDICT, "--optimizer", "adamm"], "adam"),
    ([*PREDICT, "--stack", "pytorch"], "pytorch-eager"),
    ([*PREDICT, "--tokens", "lots"], "15T"),
    ([*PREDICT, "--tokens", "0"], "greater than zero"),
    ([*PREDICT, "--tokens", "1B", "--samples", "1M"], "give one"),
    ([*PREDICT, "--image", "224"], "--seq"),
    ([*PREDICT, "--set", "memory.bandwidth"], "KEY=VALUE"),
    ([*PREDICT, "--set", "memory.bandwith=8 TB/s"], "memory.bandwidth"),
    ([*PREDICT, "--set", "memory.bandwidth=8 TB"], "TB/s"),
    (
        [*PREDICT, "--set", "memory.bandwidth=8 TB/s", "--set", "memory.bandwidth=9 TB/s"],
        "given twice",
    ),
    ([*PREDICT, "--save", "there/is/none.toml"], "no directory"),
    ([*PREDICT, "--save", "scenario.json"], ".toml"),
    (["predict", "gtp2", "--on", "h100-sxm5"], "gpt2"),
    (["predict", "gpt2", "--on", "h100-smx5"], "h100-sxm5"),
    (["predict", "no/such/config.json", "--on", "h100-sxm5"], "no such file"),
    (["predict", "gpt2", "--on", "./no_such_chip.toml"], "no_such_chip.toml"),
    (["run", "no_such_scenario.toml"], "no_such_scenario.toml"),
    (["run"], "SCENARIO is missing"),
    (["roofline", "gpt2", "--on", "h100-sxm5"], "-o"),
    (["roofline", "gpt2", "--on", "h100-sxm5", "-o", "picture.gif"], ".png"),
    (["roofline", "gpt2", "--on", "h100-sxm5", "-o", ""], ".png"),
    (["trace", "gpt2", "--on", "h100-sxm5"], "-o step.json"),
    (["trace", "gpt2", "--on", "h100-sxm5", "-o", "step.png"], ".json"),
    (["trace", "gpt2", "--on", "h100-sxm5", "-o", "/"], "is a directory"),
    ([*PREDICT, "--offload"], "--offload activations"),
    ([*PREDICT, "--batch"], "see: roofcast predict --help"),
    (["roofline", "gpt2", "--on", "h100-sxm5", "-o", "picture"], ".png"),
    (["roofline", "gpt2", "--on", "h100-sxm5", "-o", "there/is/none.png"], "no directory"),
    (["roofline", "gpt2", "--on", "h100-sxm5", "-o", "."], "directory"),
    (["run", "no_such_scenario.toml", "--on", "rtx-3090"], "no_such_scenario.toml"),
    (["run", RESNET, "--on", "rtx-3091"], "rtx-3090"),
    ([*PREDICT, "--input", "1x1024:int64"], "defines the shape of its inputs"),
    (["predict", "my_net.py:MyNet", "--on", "h100-sxm5"], "--input"),
    ([*PREDICT, "--memory-format", "nhwc"], "'channels_last'"),
    ([*PREDICT, "--price", "cheap"], "USD per device-hour"),
    ([*PREDICT, "--price", "-1"], "USD per device-hour"),
    ([*PREDICT, "--devices", "0"], "give 1 or more"),
    ([*PREDICT, "--devices", "many"], "not a whole number"),
    ([*PREDICT, "--tp", "-2"], "give 1 or more"),
    ([*PREDICT, "--zero", "4"], "0, 1, 2 or 3"),
    ([*PREDICT, "--zero", "two"], "0, 1, 2 or 3"),
    ([*PREDICT, "--schedule", "1b1f"], "'1f1b'"),
    ([*PREDICT, "--micro-batch", "1.5"], "not a whole number"),
    ([*PREDICT, "--no-spp"], "did you mean --no-sp?"),
    ([*PREDICT, "--devices", "8", "--tp", "3"], "use 6"),
    ([*PREDICT, "--devices", "8", "--tp", "2", "--dp", "2"], "leave --dp or --devices out"),
    ([*PREDICT, "--devices", "4", "--batch", "6"], "the global batch must be divisible by dp 4"),
    (["devices", "show", "h100-smx5"], "h100-sxm5"),
    (["devices", "--vendor", "nvidea"], "NVIDIA"),
    (["devices", "--year", "then"], "not a whole number"),
    (["models", "show", "gtp2"], "gpt2"),
    ([*PREDICT, "--within", "30d"], "did you mean --deadline?"),
    (["validate", "--on", "h100"], "no option --on; see: roofcast validate --help"),
    (["choose", "gpt2", "--budget", "30k"], "did you mean --under?"),
    ([*PREDICT, "--under", "30k"], "no option --under; roofcast choose MODEL has --under"),
    ([*PREDICT, "--budget", "30k"], "no option --budget; roofcast choose MODEL has --under"),
    (["memory", "gpt2", "--users", "8"], "roofcast serving MODEL has --concurrency"),
    (["report", "gpt2", "--serving"], "no option --serving; roofcast serving MODEL forecasts"),
    (["serving", "gpt2", "--users", "8"], "did you mean --concurrency?"),
    (["serving", "gpt2", "--on", "l4", "--on", "t4"], "devices: roofcast choose MODEL --serving"),
    (["finetune", "gpt2"], "no command 'finetune'; try roofcast predict MODEL --lora 16"),
    (["predict", "gpt2", "--on", "macbook"], "did you mean m4-max or m3-pro or m2?"),
    (["choose", "gpt2", "--rate", "2/s"], "did you mean --serving?"),
    (["predict", "gpt2", "--on", "2xrtx-3090"], "did you mean rtx-3090 with --devices 2?"),
    (["predict", "gpt2", "--on", "chip.tml"], "no device 'chip.tml', and no such file"),
    ([*PREDICT, "--tokens", "1B", "--deadline", "10"], "10 is 10 seconds; did you mean 10d?"),
    ([*PREDICT, "--tokens", "1B", "--deadline", "soon"], "for example 30d"),
    ([*PREDICT, "--tokens", "1B", "--restart", "5"], "5 is 5 seconds; did you mean 5 min?"),
    ([*PREDICT, "--owned", "--price", "3", "--tokens", "1B"], "--owned and --price"),
    ([*PREDICT, "--power-cap", "5kW"], "above the TDP of h100-sxm5, 700 W"),
    ([*PREDICT, "--set", "memory.bandwidth=4 GB/s"], "did you mean 4 TB/s?"),
]


@pytest.mark.parametrize(
    ("words", "cure"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_mistake_is_one_line_with_the_correction(words, cure):
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("roofcast: ") and result.stderr.count("\n") == 1
    assert cure in result.stderr


def test_the_process_prints_the_same_line():
    result = shell("predict", "gtp2", "--on", "h100-sxm5")
    assert (result.returncode, result.stdout) == (2, b"")
    assert result.stderr.count(b"\n") == 1 and b"Traceback" not in result.stderr


def test_a_terminal_without_unicode_gets_ascii():
    result = shell(*PREDICT, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert result.returncode == 0 and result.stdout.isascii() and b"#####" in result.stdout


def test_a_closed_pipe_is_quiet():
    line = (
        f"{shlex.quote(sys.executable)} -m roofcast.reports.command devices | head -1; exit"
        " ${PIPESTATUS[0]}"
    )
    result = subprocess.run(["bash", "-c", line], capture_output=True, cwd=ROOT, check=False)
    assert result.stderr == b"" and result.stdout.count(b"\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_full_disk_is_one_line():
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "roofcast.reports.command", *PREDICT],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )
    assert (
        result.returncode == 2
        and result.stderr.count(b"\n") == 1
        and b"No space left" in result.stderr
    )


def test_an_interrupt_is_quiet(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("roofcast.scenarios.own_runs.forecast_with_runs", interrupted)
    result = run(*PREDICT)
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (130, "", "")
