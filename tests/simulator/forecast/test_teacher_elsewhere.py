"""A teacher on other devices: the slowest of three binds, and both are paid for."""

import pytest
from click.testing import CliRunner

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.reports.command import main
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.parallel.networks import fabric_of

ON = {"model": "distilbert-base", "device": "a100-sxm4-80gb", "batch": 8, "sequence": 128}
FAST, SLOW = "h100-sxm5", "t4"


def distilled(**fields):
    """A forecast of a student of BERT."""
    return forecast(Scenario(**{**ON, "teacher": "bert-base", **fields}))


@pytest.mark.parametrize("device", [FAST, SLOW, "xeon-8380"])
@pytest.mark.parametrize("top", [None, 1, 64])
def test_a_step_takes_the_longest_of_three_and_never_less_than_the_student_alone(device, top):
    found, alone = distilled(teacher_on=device, teacher_top_k=top), forecast(Scenario(**ON))
    there = forecast(
        Scenario(model="bert-base", device=device, mode="infer", batch=8, sequence=128)
    )
    teacher = found.teacher
    assert teacher.pass_s == there.step_time_s
    own = found.step_time_s - teacher.waited_s
    assert found.step_time_s == pytest.approx(max(own, teacher.pass_s, teacher.handover_s))
    assert own > alone.step_time_s == found.student_alone_s
    assert found.samples_per_s == pytest.approx(8 / found.step_time_s)
    assert sum(limit.share or 0.0 for limit in found.limits) == pytest.approx(1.0)


def test_the_student_holds_no_weights_of_a_teacher_elsewhere():
    here, there = distilled(), distilled(teacher_on=FAST)
    assert there.parameters == forecast(Scenario(**ON)).parameters < here.parameters
    assert there.memory.parameters_bytes < here.memory.parameters_bytes
    assert there.flops_forward < here.flops_forward


def test_the_logits_are_sent_over_the_slower_network():
    rows, words = 8 * 128, 30522
    nic = fabric_of(None, hwdb.device(SLOW), 1024).levels[-1].bandwidth
    found = distilled(teacher_on=SLOW, precision="bf16").teacher
    assert found.sent_bytes == 2 * rows * words
    assert found.handover_s == pytest.approx(found.sent_bytes / nic)
    few = distilled(teacher_on=SLOW, precision="bf16", teacher_top_k=8).teacher
    assert few.sent_bytes == rows * 8 * (2 + 4)


def test_more_teacher_devices_never_lengthen_a_step_and_both_are_paid():
    steps = [distilled(teacher_on=SLOW, teacher_devices=n).step_time_s for n in (1, 2, 4, 8)]
    assert steps == sorted(steps, reverse=True) and steps[0] > steps[-1]
    found = distilled(teacher_on=SLOW, teacher_devices=2, tokens="1B")
    hours = found.time_to_train_s / 3600
    teacher = found.teacher
    both = hours * (found.price_usd_per_hour + 2 * teacher.price_usd_per_hour)
    assert found.cost_usd == pytest.approx(both)
    assert teacher.cost_usd == pytest.approx(hours * 2 * teacher.price_usd_per_hour)


def test_a_teacher_too_large_for_one_device_is_cut():
    found = distilled(
        model="llama-3.2-1b", teacher="llama-3.1-70b", teacher_on="a100-sxm4-80gb",
        teacher_devices=4, batch=4, sequence=256,
    )  # fmt: skip
    assert found.teacher.tp == 2 and found.teacher.fits


def test_a_teacher_that_does_not_fit_is_told_as_a_student_is():
    asked = {"model": "llama-3.2-1b", "teacher": "llama-3.1-70b", "batch": 1, "sequence": 128}
    found = distilled(**asked, teacher_on="a100-sxm4-80gb")
    assert found.memory.fits and not found.teacher.fits
    assert found.teacher.peak_bytes > found.teacher.capacity_bytes
    assert found.diagnosis.startswith("The teacher does not fit its devices")
    options = ["--teacher", "llama-3.1-70b", "--teacher-on", "a100-sxm4-80gb", "--batch", "1"]
    page = CliRunner().invoke(
        main, ["predict", "llama-3.2-1b", "--on", "a100-sxm4-80gb", "--seq", "128", *options]
    )
    told = " ".join(page.output.split())
    assert page.exit_code == 0, page.output
    assert "teacher llama-3.1-70b on a100-sxm4-80gb does not fit: needs" in told
    assert told.index("does not fit") < told.index("Where the time goes")
    fitting = distilled(**{**asked, "batch": 4}, teacher_on="a100-sxm4-80gb", teacher_devices=4)
    assert fitting.teacher.fits and "does not fit" not in fitting.diagnosis


BAD = [
    ({"teacher": None, "teacher_on": FAST}, "there is no teacher"),
    ({"teacher_devices": 2}, "--teacher-on"),
    ({"teacher_top_k": 5}, "--teacher-on"),
    ({"teacher_on": "nothing"}, "no device"),
    ({"teacher_on": FAST, "teacher_top_k": 40_000}, "30,522 classes"),
    ({"teacher_on": FAST, "teacher_devices": 3}, "not divided"),
    ({"teacher_on": FAST, "teacher": "gpt2"}, "same vocabulary"),
    ({"teacher_on": FAST, "mode": "infer"}, "learns nothing"),
    ({"teacher_on": FAST, "tokens": "1B", "campaign": {"start": "2027-01-01"}}, "whole training"),
]


@pytest.mark.parametrize("asked, said", BAD, ids=str)
def test_what_cannot_be_is_refused_in_one_line(asked, said):
    with pytest.raises(RoofcastError) as error:
        distilled(**asked)
    assert said in str(error.value) and "\n" not in str(error.value)
