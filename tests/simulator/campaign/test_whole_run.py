"""The whole training: published failures and dollars, the invoice, laws, and wrong input."""

import math

import pytest

from roofcast.hwdb import failures
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.campaign import money
from roofcast.simulator.campaign.terms import terms
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.scenario import Scenario


def run_of(**fields):
    usual = {"model": "gpt2", "device": "a100-sxm4-80gb", "devices": 64, "batch": 512,
             "tokens": 300e9, "price_per_hour": 1.5}  # fmt: skip
    return forecast(Scenario(**(usual | fields)))


def test_llama_3_is_interrupted_as_other_runs_are():
    llama = failures.runs()["llama-3-405b"]
    # exactly, from its own counts by cause
    assert sum(llama.causes.values()) == llama.interruptions == 419
    assert llama.hours_between == pytest.approx(3.093, abs=1e-3)
    own = failures.hours_between(llama.rate, llama.devices)
    assert own == pytest.approx(llama.hours_between)
    # within the interval of the rate that the other runs tell
    others = failures.rate(without=("llama-3-405b",))
    shortest = failures.hours_between(others.high, llama.devices)
    longest = failures.hours_between(others.low, llama.devices)
    assert shortest < llama.hours_between < longest


def test_failures_are_linear_in_devices():
    one, two = (failures.hours_between(4.0, n) for n in (1024, 2048))
    assert one == pytest.approx(2 * two)


@pytest.mark.parametrize(
    ("hours", "rate", "usd", "digits"),
    [
        (2_664_000, 2.0, 5_328_000, 1e-9),  # DeepSeek-V3, pre-training at 2 USD per H800-hour
        (15_615, 2.0, 31_230, 1e-9),  # Stable Diffusion 2 base on 8 A100 (mosaicml/diffusion)
        (15_521, 2.0, 31_043, 1e-4),  # the same on 16: hours are printed rounded
        (100_320, 2.0, 200_000, 5e-3),  # MPT-7B, 440 A100 over 9.5 days: "~$200k"
    ],
)
def test_published_dollars_from_their_own_rate_and_hours(hours, rate, usd, digits):
    bill = money.invoice("h800-sxm5", 8, 0, hours / 8, money.Priced(rate))
    assert money.total(bill) == pytest.approx(usd, rel=digits)


def test_an_invoice_sums_to_the_cent():
    c = run_of(campaign={"spares": 3}).campaign
    assert [line.what for line in c.invoice] == ["64 a100-sxm4-80gb", "3 idle spares"]
    cents = sum(round(100 * line.usd) for line in c.invoice)
    assert round(100 * c.cost_usd) == cents
    assert c.cost_low_usd < c.cost_usd < c.cost_95_usd
    owned = run_of(campaign={"owned": True}, price_per_hour=None).campaign
    assert [line.unit for line in owned.invoice] == ["device-hours", "MWh"]
    assert round(100 * owned.cost_usd) == sum(round(100 * line.usd) for line in owned.invoice)
    assert owned.energy_scope == "site"
    assert owned.invoice[1].quantity == pytest.approx(owned.energy_j / 3.6e9, rel=1e-4)


def test_parts_of_the_time_add_up():
    c = run_of(campaign={"eval_every": 1000, "eval_tokens": "4M"}).campaign
    parts = (c.steps_s, c.slow_s, c.eval_s, c.checkpoint_s, c.lost_s, c.detection_s, c.restart_s,
             c.start_s)  # fmt: skip
    assert sum(parts) == pytest.approx(c.time_s)
    assert c.goodput == pytest.approx(c.steps_s / c.time_s)
    assert c.goodput_low <= c.goodput <= c.goodput_high < 1.0
    assert c.days_low < c.days < c.days_high < c.days_95
    assert c.energy_scope == "site"


def test_a_step_alone_has_no_campaign_and_the_step_does_not_change():
    alone, run = run_of(tokens=None), run_of()
    assert alone.campaign is None and alone.state_bytes is None
    assert run.step_time_s == alone.step_time_s
    assert run.time_to_train_s == pytest.approx(run.steps * run.step_time_s)


def test_the_state_is_weights_master_weights_and_moments():
    # Megatron: 2 bytes, fp32 copy and two moments: 14 bytes per weight [rajbhandari2019]
    f = run_of(stack="megatron", precision="bf16")
    assert f.campaign.checkpoints.bytes == pytest.approx(14 * f.parameters)
    plain = run_of(precision="fp32")
    assert plain.campaign.checkpoints.bytes == pytest.approx(12 * plain.parameters)
    lora = run_of(lora=8)  # only adapters have states
    assert lora.campaign.checkpoints.bytes < 3 * lora.parameters


def test_dates_and_the_probability_of_a_deadline():
    asked = {"start": "2027-01-01", "deadline": "2027-01-05"}
    c = run_of(campaign=asked).campaign
    assert c.start == "2027-01-01" and c.end_low <= c.end <= c.end_high <= c.end_95
    later = run_of(campaign=asked | {"deadline": "2028-01-01"}).campaign
    assert 0.0 <= c.deadline_probability <= later.deadline_probability == 1.0
    assert run_of().campaign.end is None


def test_the_input_binds_where_loaders_are_slow():
    free, bound = run_of(), run_of(campaign={"input_rate": "12.5 samples/s"})
    assert not free.campaign.input_limited and bound.campaign.input_limited
    assert bound.campaign.step_s == pytest.approx(512 / 100)
    assert bound.step_time_s == free.step_time_s
    tokens = run_of(campaign={"input_rate": "12800 tokens/s"}).campaign
    assert tokens.step_s == pytest.approx(bound.campaign.step_s)


def test_an_asynchronous_checkpoint_stalls_less():
    sync, late = run_of().campaign, run_of(campaign={"checkpoint_async": True}).campaign
    assert late.checkpoints.stall_s < sync.checkpoints.stall_s == sync.checkpoints.save_s
    assert late.goodput >= sync.goodput


def test_nothing_fails_at_a_rate_of_zero():
    c = run_of(campaign={"failure_rate": 0.0}).campaign
    assert c.failures.expected == 0 and c.lost_s == 0 and c.checkpoints.count == 1
    assert c.failures.hours_between is None and math.isfinite(c.time_s)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"start": "2027-03-01", "deadline": "2027-02-01"}, "not after the start"),
        ({"deadline": "2027-02-01"}, "add start"),
        ({"deadline": "0 d"}, "no time is left"),
        ({"start": "tomorrow"}, "a date is wanted"),
        ({"failure_rate": -1.0}, "0 or more"),
        ({"checkpoint_bandwidth": "-2 GB/s"}, "a positive number"),
        ({"input_rate": "-5 samples/s"}, "a positive rate"),
        ({"input_rate": "fast"}, "input_rate"),
        ({"checkpoint_every": "0"}, "1 or more"),
        ({"restart": "soon"}, "a duration is wanted"),
        ({"eval_every": 100}, "how much is read"),
        ({"eval_tokens": "4M"}, "add eval_every"),
        ({"eval_every": 9, "eval_tokens": 1, "eval_samples": 1}, "two sizes"),
        ({"slow_steps": "-1 %"}, "a fraction up to 1 is wanted"),
        ({"slow_steps": "1.5"}, "a fraction up to 1 is wanted"),
        ({"spares": -1}, "0 or more"),
        ({"price_date": "2026-13-01"}, "a date is wanted"),
        ({"strat": "2027-01-01"}, "start"),
    ],
)
def test_wrong_terms_are_one_line(asked, words):
    with pytest.raises(BadInput, match=words) as error:
        terms(asked)
    assert "\n" not in str(error.value)


def test_a_run_that_never_ends_is_refused():
    with pytest.raises(BadInput, match="never ends"):
        run_of(campaign={"failure_rate": 1e12})


def test_a_price_without_a_date_is_said():
    said = "given without a date"
    assert any(said in line for line in run_of().assumptions)
    dated = run_of(campaign={"price_date": "2026-08-21"})
    assert not any(said in line for line in dated.assumptions)
    assert dated.campaign.price_date == "2026-08-21"
