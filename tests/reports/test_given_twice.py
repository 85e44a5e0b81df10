"""No option is taken in part or in silence: given twice, or where it means nothing."""

import json

import pytest
from click.testing import CliRunner

from roofcast.reports.command import COMMANDS, Commands, main

GPT2 = ("gpt2", "--on", "h100-sxm5")
REFUSED = [
    (("predict", *GPT2, "--zero", "1", "--zero", "2"), "--zero is given 2 times and takes one"),
    (("predict", *GPT2, "--sp", "--no-sp"), "--sp is given 2 times and takes one"),
    (("memory", *GPT2, "--batch=1", "--batch=2"), "--batch is given 2 times and takes one"),
    (("trace", *GPT2, "--on", "a100", "-o", "x.json"), "to compare devices: roofcast predict"),
    (("trace", *GPT2, "--price", "3", "-o", "x.json"), "no option --price"),
    (("roofline", *GPT2, "--tokens", "3", "-o", "x.png"), "no option --tokens"),
    (("roofline", "--on", "this-machine", "--batch", "3", "-o", "x.png"), "give MODEL"),
    (("validate", "-o", "a.csv", "-o", "b.csv"), "-o is given 2 times"),
    (("count", "gpt2", "--depth", "1", "--depth", "2"), "--depth is given 2 times"),
    (("devices", "--links", "--vendor", "amd"), "--vendor of devices are different lists"),
    (("devices", "--links", "--systems"), "--links and --systems are different lists"),
    (("crosscheck", "--gpu", "--kernels"), "leave --kernels out"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=lambda v: " ".join(v)[:40])
def test_an_option_that_would_be_dropped_is_refused(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr and result.stderr.count("\n") == 1


def test_every_command_refuses_an_option_that_is_given_twice():
    for name in COMMANDS:
        command = Commands().get_command(None, name)
        options = [p for p in command.params if p.param_type_name == "option" and not p.is_flag]
        for option in [p for p in options if not p.multiple][:1]:
            words = [name, *(f"{option.opts[0]}=1" for _ in "ab")]
            assert "is given 2 times" in CliRunner().invoke(main, words).stderr, words


def test_memory_of_several_devices_is_one_table():
    words = ("memory", "gpt2", "--on", "h100-sxm5", "--on", "rtx-4090", "--batch", "8")
    text = CliRunner().invoke(main, words, env={"COLUMNS": "100"}).stdout
    for name in ("h100-sxm5", "rtx-4090", "peak", "capacity", "largest batch", "activations"):
        assert name in text
    found = json.loads(CliRunner().invoke(main, (*words, "--json")).stdout)["forecasts"]
    alone = json.loads(CliRunner().invoke(main, ("memory", "gpt2", "--on", "rtx-4090", "--batch",
                                                 "8", "--json")).stdout)  # fmt: skip
    assert [each["device"] for each in found] == ["h100-sxm5", "rtx-4090"] and found[1] == alone


def test_a_comparison_says_what_has_no_effect():
    words = ("predict", "resnet50", "--on", "h100-sxm5", "--on", "a100-sxm4-80gb")
    text = CliRunner().invoke(main, (*words, "--attention", "flash")).stdout
    assert "attention flash has no effect" in text
    assert "Assumed" not in CliRunner().invoke(main, words).stdout


def test_a_count_says_what_has_no_effect():
    shown = CliRunner().invoke(main, ("count", "resnet50", "--attention", "flash", "--json")).stdout
    assert "attention flash has no effect" in json.loads(shown)["assumptions"][-1]
