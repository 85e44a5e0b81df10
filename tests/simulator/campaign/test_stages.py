"""Stages of a training, and preemption of spot capacity: laws, and wrong input."""

import msgspec
import pytest

from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.scenario import Scenario

USUAL = {"model": "gpt2", "device": "a100-sxm4-80gb", "devices": 64, "batch": 512,
         "price_per_hour": 1.5}  # fmt: skip
EVALUATED = {"eval_every": 1000, "eval_tokens": "4M", "spares": 2}


def run_of(campaign=None, **fields):
    return forecast(Scenario(**(USUAL | fields), campaign=campaign or {}))


def same(one, other):
    """Whether two campaigns are the same but for their stages, within rounding."""
    plain = [msgspec.to_builtins(msgspec.structs.replace(c, stages=())) for c in (one, other)]
    flat = [dict(_leaves(each)) for each in plain]
    assert flat[0].keys() == flat[1].keys()
    for key, value in flat[0].items():
        if isinstance(value, float):
            assert flat[1][key] == pytest.approx(value, rel=1e-9, abs=1e-9), key
        else:
            assert flat[1][key] == value, key


def _leaves(value, path=""):
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in pairs:
            yield from _leaves(each, f"{path}.{key}")
    else:
        yield path, value


def test_one_stage_equals_none():
    plain = run_of(EVALUATED, tokens=300e9)
    one = run_of(EVALUATED | {"stages": [{"tokens": "300B"}]})
    assert one.campaign == plain.campaign and one.campaign.stages == ()
    for name in ("steps", "time_to_train_s", "cost_usd", "energy_j", "energy_by_scope_j"):
        assert getattr(one, name) == getattr(plain, name)
    # whatever a stage sets is as if the scenario did
    short = run_of(tokens=300e9, sequence=512, batch=1024)
    staged = run_of({"stages": [{"tokens": "300B", "sequence": 512, "batch": 1024}]})
    assert staged.campaign == short.campaign


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.2, 0.3, 0.5)])
def test_splitting_a_stage_in_equal_ones_changes_nothing(shares):
    plain = run_of(EVALUATED, tokens=300e9)
    split = run_of(EVALUATED | {"stages": [{"tokens": 300e9 * share} for share in shares]})
    same(plain.campaign, split.campaign)
    assert split.time_to_train_s == pytest.approx(plain.time_to_train_s)
    assert len(split.campaign.stages) == len(shares)


def test_time_energy_and_money_are_sums_over_the_stages():
    stages = [{"tokens": "200B", "name": "base"}, {"tokens": "9B", "sequence": 256},
              {"tokens": "1B", "batch": 128}]  # fmt: skip
    found = run_of(EVALUATED | {"stages": stages})
    c = found.campaign
    assert [each.name for each in c.stages] == ["base", "stage 2", "stage 3"]
    assert sum(each.time_s for each in c.stages) == pytest.approx(c.time_s)
    assert sum(each.energy_j for each in c.stages) == pytest.approx(c.energy_j)
    assert sum(round(100 * each.cost_usd) for each in c.stages) == round(100 * c.cost_usd)
    assert sum(each.steps for each in c.stages) == pytest.approx(c.steps)
    alone = [run_of(tokens=200e9), run_of(tokens=9e9, sequence=256), run_of(tokens=1e9, batch=128)]
    for each, one in zip(c.stages, alone, strict=True):
        assert (each.step_s, each.steps) == (one.step_time_s, one.steps)
    assert found.time_to_train_s == pytest.approx(sum(one.time_to_train_s for one in alone))
    assert found.energy_j == pytest.approx(sum(one.energy_j for one in alone))


def test_a_preemption_costs_a_restart_and_lost_work_and_none_costs_nothing():
    plain = run_of(tokens=300e9)
    assert run_of({"preemptions_per_hour": 0.0}, tokens=300e9).campaign == plain.campaign
    # of the same rate, preemptions are failures that nobody has to notice
    per_node = 0.3 * 24 * 8000 / 64  # per 1000 node-days
    taken = run_of({"preemptions_per_hour": 0.3, "failure_rate": 0.0}, tokens=300e9).campaign
    failed = run_of({"failure_rate": per_node, "detection": "0 s"}, tokens=300e9).campaign
    assert taken.time_s == pytest.approx(failed.time_s)
    assert taken.failures.preemptions == taken.failures.expected > 0 == taken.detection_s
    rates = (0.0, 0.1, 1.0, 10.0)
    times = [run_of({"preemptions_per_hour": r}, tokens=300e9).campaign.time_s for r in rates]
    assert times == sorted(times) and times[0] < times[-1]


def test_preempted_capacity_has_the_price_of_spot():
    run = {"tokens": 300e9, "price_per_hour": None}
    spot, asked = run_of({"preemptions_per_hour": 0.1}, **run), run_of(**run)
    assert (spot.price.contract, asked.price.contract) == ("spot", "on-demand")
    assert spot.price_usd_per_hour < asked.price_usd_per_hour
    assert run_of({"preemptions_per_hour": 0.1}, tokens=300e9).price_usd_per_hour == 1.5
    staged = {"preemptions_per_hour": 0.1, "stages": [{"tokens": "300B"}]}
    assert run_of(staged, price_per_hour=None).campaign == spot.campaign


@pytest.mark.parametrize(
    ("campaign", "fields", "words"),
    [
        ({"stages": [{"batch": 64}]}, {}, "stage 1 has no length"),
        ({"stages": [{"tokens": "1B", "samples": "1M"}]}, {}, "stage 1 has no length"),
        ({"stages": [{"tokens": "1B"}]}, {"tokens": 1e9}, "leave tokens"),
        ({"stages": [{"tokens": "1B", "sequnce": 512}]}, {}, "sequnce"),
        ({"stages": [{"tokens": "1B"}, {"tokens": "1B", "batch": 7}]}, {}, "stage 2"),
        ({"stages": [{"tokens": "1B"}]}, {"mode": "infer"}, "training"),
        ({"stages": "1B"}, {}, "stages"),
        ({"preemptions_per_hour": -1.0}, {"tokens": 1e9}, "0 or more"),
        ({"preemptions_per_hour": 1e12}, {"tokens": 1e9}, "never ends"),
    ],
)
def test_wrong_stages_and_preemptions_are_one_line(campaign, fields, words):
    with pytest.raises(RoofcastError, match=words) as error:
        run_of(campaign, **fields)
    assert "\n" not in str(error.value)
