"""The block "The whole training", as a person asks for it."""

import json
import re

import pytest
from click.testing import CliRunner

from roofcast.reports.command import main
from roofcast.reports.format import duration

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
                  "8 idle spares", "total", "with 95 % probability done by", "for at most $",
                  "failures:", "without a date"):  # fmt: skip
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


def test_stages_have_a_line_each_and_are_saved(tmp_path):
    path = tmp_path / "run.toml"
    asked = ["--stage", "tokens=9B,name=base", "--stage", "tokens=1B,seq=256,batch=128"]
    code, text = said(*asked, "--preemption", "0.2", "--save", str(path))
    assert code == 0, text
    lines = [line.split() for line in text.splitlines()]
    assert any(line[:1] == ["base"] for line in lines)
    assert any(line[:2] == ["stage", "2"] for line in lines)
    assert "preemptions of spot capacity" in " ".join(text.split())
    as_json = json.loads(said(*asked, "--preemption", "0.2", "--json")[1])["campaign"]
    again = CliRunner().invoke(main, ["run", str(path), "--json"])
    assert json.loads(again.output)["campaign"] == as_json
    assert [each["sequence"] for each in as_json["stages"]] == [1024, 256]


def test_an_array_of_tables_in_a_scenario_file_is_the_same_as_stage(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        'model = "gpt2"\ndevice = "a100-sxm4-80gb"\ndevices = 64\nbatch = 512\n'
        '[[campaign.stages]]\ntokens = "9B"\n[[campaign.stages]]\ntokens = "1B"\nbatch = 128\n',
        encoding="utf-8",
    )
    ran = json.loads(CliRunner().invoke(main, ["run", str(path), "--json"]).output)["campaign"]
    code, text = said("--stage", "tokens=9B", "--stage", "tokens=1B,batch=128", "--json")
    assert code == 0 and json.loads(text)["campaign"] == ran


def test_the_largest_batch_of_a_run_in_stages_is_that_of_its_first():
    found = json.loads(said("--stage", "tokens=1B,seq=256", "--stage", "tokens=1B", "--json")[1])
    alone = json.loads(said("--tokens", "1B", "--seq", "256", "--json")[1])
    assert found["memory"] == alone["memory"] and found["step_time_s"] == alone["step_time_s"]


@pytest.mark.parametrize("price", ["1.5", "3.195", "0.0427"])
@pytest.mark.parametrize("tokens", ["300B", "3M"])
def test_rate_times_quantity_is_the_sum_as_shown(price, tokens):
    _, text = said("--tokens", tokens, "--price", price, "--spares", "3")
    after = text[text.index("invoice ") :].splitlines()[1:]
    sums = []
    for line in after[:2]:
        *_, quantity, unit, rate, usd = line.replace(",", "").split()
        assert unit == "device-hours" and float(usd) == round(float(quantity) * float(rate), 2)
        sums.append(round(100 * float(usd)))
    assert round(100 * float(after[2].replace(",", "").split()[-1])) == sum(sums)


def test_a_training_that_does_not_fit_says_so_first_and_names_the_nearest_that_does():
    line = ["predict", "llama-3-8b", "--on", "h100-sxm5", "--devices", "64", "--tokens", "1T"]
    text = CliRunner().invoke(main, line).output
    block = text[text.index("The whole training") :].splitlines()
    assert block[1].strip().startswith("does not fit")
    words = " ".join(text.split())
    assert re.search(r"The nearest that (may )?fits?, with the same batch: --", words)
    assert "as if it fitted" in words
    found = json.loads(CliRunner().invoke(main, [*line, "--json"]).output)
    near = found["fitting"]
    assert near["batch"] == found["batch"] == 64
    assert near["tokens_per_s"] == pytest.approx(64 * found["sequence"] / near["step_time_s"])
    assert near["time_to_train_s"] == pytest.approx(found["steps"] * near["step_time_s"])
    fits = CliRunner().invoke(main, [*line, *near["options"].split(), "--batch", "64", "--json"])
    other = json.loads(fits.output)
    assert other["memory"]["fits"] and other["fitting"] is None
    assert other["step_time_s"] == pytest.approx(near["step_time_s"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--stage", "tokens=1B"),
        ("--preemption", "-1"),
        ("--cluster-age", "-200d"),
        ("--wait", "2h"),
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


def test_a_comparison_shows_the_whole_training_as_one_device_does():
    wanted = ("--tokens", "300B", "--deadline", "30d", "--on", "h100-sxm5")
    code, text = said(*wanted)
    assert code == 0 and "in time: probability of the deadline" in " ".join(text.split())
    _, answer = said(*wanted, "--json")
    for f in json.loads(answer)["forecasts"]:
        rows = [line for line in text.splitlines() if line.startswith(f"  {f['device']} ")]
        assert duration(f["campaign"]["time_s"]) in " ".join(rows)
        assert f"${round(f['campaign']['cost_usd']):,}" in " ".join(rows)


def test_owned_devices_have_no_rent_and_pay_the_energy_that_is_forecast():
    code, text = said("--tokens", "300B", "--owned")
    assert code == 0
    alone = text[text.index("the steps alone:") : text.index("Power and energy")]
    assert "$" not in alone and "at the site" in alone
    _, answer = said("--tokens", "300B", "--owned", "--json")
    whole = json.loads(answer)["campaign"]
    billed = re.search(r"cooling included +([\d.]+) MWh", text)[1]
    assert float(billed) == pytest.approx(whole["energy_j"] / 3.6e9, rel=1e-3)
