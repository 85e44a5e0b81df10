"""What a budget buys: the scaling law, shapes, and plans on our step times."""

import json

import pytest

from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.campaign.plan import budget_of, plan
from roofcast.simulator.campaign.scaling_law import PRINTED, REFIT
from roofcast.simulator.campaign.shapes import FAMILIES, shape_of
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.scenario import Scenario

CHINCHILLA = 5.76e23  # FLOP


def test_the_refits_optimum_of_chinchillas_budget():
    """Besiroglu et al. 2024: about 70 billion parameters, 20 tokens per parameter."""
    n, d = REFIT.optimum(CHINCHILLA)
    low, high = REFIT.interval(CHINCHILLA)
    assert low < 70e9 < high and low < n < high
    fewest, most = (CHINCHILLA / 6 / side**2 for side in (high, low))
    assert fewest < 20.0 < most and fewest < d / n < most
    assert PRINTED.optimum(CHINCHILLA)[0] < 0.6 * low  # what the paper printed is far off


@pytest.mark.parametrize("flop", [1e19, 1e22, 1e26])
def test_no_other_size_has_a_lower_loss_for_the_flop(flop):
    n, d = REFIT.optimum(flop)
    assert 6 * n * d == pytest.approx(flop)
    least = REFIT.loss(n, d)
    for r in (0.5, 0.9, 1.1, 2.0):
        assert REFIT.loss(r * n, d / r) > least


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [5e8, 7e9, 7e10, 1e12])
def test_shapes_have_about_the_size_asked_for(family, size):
    shape = shape_of(family, size)
    assert shape.parameters == pytest.approx(size, rel=0.12)
    assert shape.heads % shape.keys == 0 and shape.width % shape.heads == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_of_a_shape_are_those_of_its_model(family):
    shape = shape_of(family, 1e9)
    found = forecast(Scenario(model=shape.model(2048), device="h100-sxm5"))
    assert found.parameters == pytest.approx(shape.parameters, rel=0.005)


def test_llama_shapes_are_those_of_llama():
    assert (shape_of("llama", 7e9).width, shape_of("llama", 7e9).depth) == (4096, 32)
    assert (shape_of("llama", 6.9e10).width, shape_of("llama", 6.9e10).depth) == (8192, 80)


def test_a_plan_in_flop_is_the_laws_and_in_device_days_spends_them(tmp_path):
    best = plan("1e22FLOP").plans[0]
    assert best.parameters == pytest.approx(best.optimal_parameters, rel=0.12)
    assert 6 * best.parameters * best.tokens == pytest.approx(1e22)
    days = plan("8xh100-sxm5x10d").plans[0]
    assert days.time_s == pytest.approx(10 * 86400, rel=1e-6) and days.devices == 8
    assert days.tokens == pytest.approx(days.time_s / days.step_time_s * days.batch * 4096)
    assert days.why == "of the budget" and "90 days" in best.why
    # the model as a file, with the options that are printed, is forecast the same
    path = tmp_path / "planned.json"
    path.write_text(json.dumps(days.config), encoding="utf-8")
    found = forecast(
        Scenario(
            model=str(path), device=days.device, sequence=days.sequence, tokens=days.tokens,
            batch=days.batch, **days.options,
        )
    )  # fmt: skip
    assert found.time_to_train_s == pytest.approx(days.time_s)
    assert found.cost_usd == pytest.approx(days.cost_usd)


def test_tokens_of_use_are_paid_and_make_the_model_smaller():
    plain, used = (plan("20kUSD", inference_tokens=n).plans[0] for n in (0.0, 5e11))
    assert used.parameters < plain.parameters and used.over_trained > 1.5
    assert used.loss > plain.loss and used.loss > used.optimal_loss
    assert used.cost_usd + used.inference_usd == pytest.approx(20e3, rel=1e-6)
    assert plain.cost_usd == pytest.approx(20e3, rel=1e-6)


def test_the_loss_has_an_interval_that_is_narrowest_where_the_law_was_fitted():
    widths = []
    for n, d in ((1e9, 2e10), (7e10, 1.4e12), (1e12, 2e13)):
        low, high = REFIT.loss_interval(n, d)
        assert low < REFIT.loss(n, d) < high
        widths.append(high - low)
    assert widths[0] == pytest.approx(2 * 1.2816 * REFIT.e_error)  # what no run can tell
    assert widths[0] < min(widths[1:])


@pytest.mark.parametrize("budget", ["1e19FLOP", "1e26FLOP"])
def test_the_smallest_and_the_largest_budgets_are_answered(budget):
    found = plan(budget).plans[0]
    assert found.time_s <= 90 * 86400 * 1.01 and found.time_low_s < found.time_s


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("1e23", "has no unit"),
        ("2M", "has no unit"),
        ("1e40FLOP", "are planned"),
        ("0xh100-sxm5x3d", "no such number"),
        ("64xh10x3d", "did you mean"),
        ("-3USD", "dollars"),
        ("8xh100-sxm5x3 parsecs", "duration"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_in_one_line(budget, message):
    with pytest.raises(RoofcastError, match=".") as error:
        budget_of(budget)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_use_that_the_budget_does_not_pay_is_refused():
    with pytest.raises(RoofcastError, match="does not pay"):
        plan("1kUSD", inference_tokens=5e14)
