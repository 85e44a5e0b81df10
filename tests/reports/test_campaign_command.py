"""The block "The whole training", as a person asks for it."""

import json

import pytest
from click.testing import CliRunner

from roofcast.reports.command import main

STEP = ["predict", "gpt2", "--on", "a100-sxm4-80gb", "--devices", "64", "--batch", "512"]


def said(*arguments):
    done = CliRunner().invoke(main, [*STEP, *arguments])
    return done.exit_code, done.output


def test_the_block_has_dates_goodput_and_an_invoice():
    code, text = said(
        "--tokens", "300B", "--start", "2027-03-01", "--price", "1.5", "--spares", "8",
        "--deadline", "30d",
    )  # fmt: skip
    assert code == 0
    for words in ("The whole training", "from 2027-03-01 to", "goodput", "where the time goes",
                  "8 spares", "total", "95 % prob", "failures:", "without a date"):  # fmt: skip
        assert words in text, words


def test_without_a_start_there_are_durations_alone():
    code, text = said("--tokens", "300B")
    assert code == 0 and "The whole training" in text and "from 20" not in text


def test_without_a_length_there_is_no_block_and_it_is_said():
    code, text = said("--start", "2027-03-01")
    assert code == 0 and "The whole training" not in text
    assert "no effect" in text


def test_json_has_a_campaign():
    code, text = said("--tokens", "300B", "--start", "2027-03-01", "--json")
    found = json.loads(text)["campaign"]
    assert code == 0 and found["start"] == "2027-03-01"
    assert found["days_low"] < found["days"] < found["days_high"]
    assert found["checkpoints"]["chosen"] == "shortest mean run"


def test_a_saved_scenario_has_the_same_names(tmp_path):
    path = tmp_path / "run.toml"
    asked = ["--tokens", "300B", "--eval-every", "500", "--eval-tokens", "4M", "--restart", "2min"]
    code, text = said(*asked, "--save", str(path), "--json")
    assert code == 0
    written = path.read_text(encoding="utf-8")
    assert "[campaign]" in written and '"eval_every" = 500' in written
    again = CliRunner().invoke(main, ["run", str(path), "--json"])
    assert json.loads(again.output)["campaign"] == json.loads(text)["campaign"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--start", "2027-03-01", "--deadline", "2027-02-01"),
        ("--failure-rate", "-1"),
        ("--price", "-1"),
        ("--price-date", "yesterday"),
        ("--checkpoint-bandwidth", "much"),
        ("--eval-every", "100"),
    ],
)
def test_wrong_input_is_one_line(arguments):
    code, text = said("--tokens", "300B", *arguments)
    assert code == 2 and "Traceback" not in text
    assert len(text.strip().splitlines()) <= 4
