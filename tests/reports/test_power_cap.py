"""`predict --power-cap` as a person types it."""

import json

import pytest
from click.testing import CliRunner

from roofcast.reports.command import main
from roofcast.scenarios.measured.watts import measured, transcribe

PREDICT = ("predict", "gpt2", "--on", "h100-sxm5", "--batch", "16")


def run(*more):
    return CliRunner().invoke(main, [*PREDICT, *more])


def test_a_power_cap_is_the_edit_of_the_same_name():
    option, edit = (
        json.loads(run(*how, "--json").stdout)
        for how in (("--power-cap", "400W"), ("--set", "power.cap=400 W"))
    )
    assert option["step_time_s"] == edit["step_time_s"] and option["power_w"] <= 400
    assert option["step_time_s"] > json.loads(run("--json").stdout)["step_time_s"]
    text = " ".join(run("--power-cap", "400W").stdout.split())
    assert "power limit of a board set to 400 W" in text and "per board" in text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--power-cap", "lots"), "'lots' is not a power"),
        (("--power-cap", "0"), "more than zero"),
        (("--power-cap", "80W"), "is not above the 84 W that the board takes at rest"),
        (("--power-cap", "400W", "--set", "power.cap=300W"), "are one setting; give one"),
    ],
)
def test_a_cap_that_cannot_be_is_refused_in_one_line(given, message):
    result = run(*given)
    assert result.exit_code == 2
    assert message in result.output and len(result.output.strip().splitlines()) == 1


def test_rows_of_a_table_of_watts_are_chosen_and_read(tmp_path):
    head = "id,kind,device,workload,model,batch,power_limit_w,time_s,avg_power_w,source_name,note\n"
    zeus = "power_cap_training,P100 16GB,resnet50 on imagenet,resnet50,8,125,10,110,Zeus NSDI23,\n"
    other = "of_the_moon,EPYC,,,,,,90,codecarbon,\n"
    source, target = tmp_path / "all.csv", tmp_path / "kept.csv"
    source.write_text(head + "A," + zeus + "B," + other)
    assert transcribe(source, target) == 1
    (row,) = measured(target)
    assert (row.id, row.device, row.watts, row.limit) == ("A", "p100-pcie-16gb", 110.0, 125.0)
