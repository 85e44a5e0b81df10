"""roofcast choose: what it finds is what trying everything finds."""

import math

import msgspec
import numpy as np
import pytest

from roofcast import Scenario, hwdb, predict
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.market import Own
from roofcast.simulator.choose.batches import run_batch
from roofcast.simulator.choose.choosing import Chooser
from roofcast.simulator.choose.chosen import _left_out, choose, measured
from roofcast.simulator.choose.explore import explore
from roofcast.simulator.choose.points import meets
from roofcast.simulator.choose.ranks import Ranks
from roofcast.simulator.choose.search import search_layouts
from roofcast.simulator.choose.sieve import Sieve
from roofcast.simulator.choose.space import Space
from roofcast.simulator.choose.wanted import Wanted, probability
from roofcast.simulator.forecast.rank import most_above
from roofcast.simulator.forecast.resolve import named

DAY = 86400.0
DEVICES = ["h100-sxm5", "a100-sxm4-80gb", "mi300x", "l4", "rtx-4090", "a10"]
LLAMA = Scenario(model="llama-2-7b", device="", tokens="20B", batch=96)
RESNET = Scenario(model="resnet50", device="", samples="1.28M", epochs=90)
QUESTIONS = {  # scenario, constraints: the three questions of the design, made smaller
    "cheapest within a deadline": (LLAMA, Wanted(within_s=2 * DAY, devices=24)),
    "fastest for a purchase": (
        msgspec.structs.replace(LLAMA, model="llama-2-13b"),
        Wanted(under_usd=300e3, buy=True, devices=16),
    ),
    "fastest under a power": (RESNET, Wanted(max_power_w=300.0, devices=8)),
    "least energy within a deadline": (LLAMA, Wanted(within_s=5 * DAY, goal="energy", devices=16)),
    "fewest devices in a budget": (LLAMA, Wanted(under_usd=5e3, goal="devices", devices=16)),
}


def brute_force(scenario, wanted):
    """Every device, number and layout of the grid: the best value, its device and number."""
    chooser = Chooser(scenario, DEVICES, wanted)
    found = []
    for name, kind in chooser.kinds.items():
        for n in kind.counts:
            shapes = kind.space.shapes(n, few=True)
            tried = search_layouts(kind.scenario, shapes, kind.space.policies(few=True))
            capacity = float(hwdb.device(name).memory.limit)
            fits = ~tried.refused & (tried.peak_bytes * most_above("train") <= capacity)
            step_s = np.where(fits, tried.step_s, np.inf)
            steps = np.unique(tried.step_s[fits])
            for each in steps[:1] if chooser.by_joules else steps:  # the fastest decides on energy
                seconds = chooser.length.seconds(kind.floor, kind.names.device, n, float(each))
                joules = chooser.joules(kind, tried.layout(int(np.argmin(step_s))))
                point = chooser.point(kind, n, seconds, {}, each, 0.0, *joules)
                if meets(point, wanted) and point.value(wanted.objective) is not None:
                    found.append((point.value(wanted.objective), name, n))
    return min(found)


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_choice_is_that_of_trying_everything(question):
    scenario, wanted = QUESTIONS[question]
    value, name, _ = brute_force(scenario, wanted)
    best = Chooser(scenario, DEVICES, wanted).ranked(wanted, 1)[0]
    assert best.value(wanted.objective) == pytest.approx(value, rel=1e-12)
    assert best.offer.device.id == name or wanted.objective == "devices"


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_bound_is_above_what_was_found(question):
    scenario, wanted = QUESTIONS[question]
    chooser = Chooser(scenario, DEVICES, wanted)
    chooser.ranked(wanted, len(DEVICES))
    points = [p for p in chooser.searched.values() if p is not None]
    assert points
    for p in points:
        kind = chooser.kinds[p.offer.device.id]
        assert kind.floor.run_s(p.devices) <= p.time_s * (1 + 1e-9), (p.offer.device.id, p.options)
        least = chooser.bound(kind, p.devices).energy_j
        assert least <= p.energy_j * (1 + 1e-9), (p.offer.device.id, p.options)
        assert kind.floor.fits(p.devices, kind.names.device.memory.capacity)


@pytest.fixture(scope="module")
def chosen():
    return choose(LLAMA, DEVICES, Wanted(within_s=2 * DAY, under_usd=8e3, devices=32))


def test_a_choice_is_what_predict_says_of_the_whole_training(chosen):
    assert chosen.choices
    for c in chosen.choices:
        s = msgspec.structs.replace(LLAMA, device=c.device, campaign={"deadline": "2 d"})
        f = predict(msgspec.structs.replace(s, price_per_hour=c.price.median, **c.options))
        assert c.step_time_s == pytest.approx(f.step_time_s, rel=1e-9)
        assert c.steps_s == pytest.approx(f.time_to_train_s, rel=1e-9)
        assert c.time_s == pytest.approx(f.campaign.time_s, rel=1e-9) and c.time_s > c.steps_s
        assert c.cost_usd == f.campaign.cost_usd
        assert c.within_probability == f.campaign.deadline_probability
        assert c.time_low_s == pytest.approx(DAY * f.campaign.days_low, rel=1e-9)
        assert c.peak_bytes == pytest.approx(f.memory.peak_bytes, rel=1e-9) and f.memory.fits
        assert c.devices == f.devices
        assert c.cost_low_usd <= c.cost_usd <= c.cost_high_usd
        assert c.time_low_s <= c.time_s <= c.time_high_s
        assert 0 <= c.within_probability <= 1 and 0 <= c.under_probability <= 1


def test_the_least_energy_is_that_of_the_forecast_and_not_of_the_printed_power():
    wanted = Wanted(goal="energy", devices=8)
    found = choose(RESNET, ["v100-sxm2-32gb", "h100-sxm5", "t4"], wanted)
    energies = [c.energy_j for c in found.choices]
    assert energies == sorted(energies) and len(energies) == 3
    for c in found.choices:
        f = predict(msgspec.structs.replace(RESNET, device=c.device, **found_batch(found, c)))
        assert c.energy_j == pytest.approx(f.energy_j, rel=1e-9)
    limit = energies[0] * 1.01
    met = choose(RESNET, ["v100-sxm2-32gb", "h100-sxm5", "t4"], Wanted(max_energy_j=limit))
    assert met.choices and all(c.energy_j <= limit for c in met.choices)


def found_batch(found, choice):
    """The fields that a choice sets, with the batch that was taken for all."""
    return {"batch": found.scenario["batch"], **choice.options}


def test_every_choice_and_every_point_of_the_front_meets_the_limits(chosen):
    for c in (*chosen.choices, *chosen.front):
        assert c.time_s <= 2 * DAY and c.cost_usd <= 8e3


def test_choices_are_ranked_and_of_different_devices(chosen):
    costs = [c.cost_usd for c in chosen.choices]
    assert costs == sorted(costs) and len({c.device for c in chosen.choices}) == len(costs)


def test_no_point_of_the_front_is_beaten_by_another(chosen):
    rows = np.array(
        [[c.time_s, c.cost_usd, c.energy_j, c.peak_bytes / c.capacity_bytes] for c in chosen.front]
    )
    for i, row in enumerate(rows):
        others = np.delete(rows, i, axis=0)
        assert not (others <= row).all(axis=1).any()


def test_a_looser_limit_never_gives_a_dearer_choice():
    costs = []
    for days in (1.0, 2.0, 5.0, 20.0):
        wanted = Wanted(within_s=days * DAY, devices=32)
        found = Chooser(LLAMA, DEVICES, wanted).ranked(wanted, 1)
        costs.append(found[0].cost_usd if found else math.inf)
    assert costs == sorted(costs, reverse=True) and math.isfinite(costs[-1])


def test_a_deadline_to_be_sure_of_is_met_with_that_probability():
    wanted = Wanted(within_s=2 * DAY, sure=0.9, devices=32)
    found = choose(LLAMA, DEVICES, wanted, top=3)
    assert found.choices
    assert all(c.within_probability >= 0.9 - 0.01 for c in found.choices)


def test_impossible_limits_name_the_nearest_that_would_do():
    limits = {"within_s": 0.5 * DAY, "under_usd": 1500.0}
    found = choose(LLAMA, DEVICES, Wanted(**limits, devices=32))
    assert not found.choices and {m.limit for m in found.misses} == set(limits)
    for miss in found.misses:
        if miss.needed is not None:
            assert miss.needed > limits[miss.limit]
            wanted = Wanted(**(limits | {miss.limit: miss.needed * 1.001}), devices=32)
            assert choose(LLAMA, DEVICES, wanted, top=1).choices


def test_a_device_without_a_price_is_named_and_chosen_once_it_has_one():
    wanted = Wanted(within_s=30 * DAY, devices=16)
    found = choose(LLAMA, ["mi210", "a100-sxm4-80gb"], wanted)
    assert found.without_price == ("mi210",)
    cheap = msgspec.structs.replace(wanted, prices={"mi210": Own(on_demand=0.01)})
    found = choose(LLAMA, ["mi210", "a100-sxm4-80gb"], cheap)
    assert found.choices[0].device == "mi210" and found.choices[0].price.of_class == "yours"


def test_owned_devices_cost_their_electricity_and_are_no_more_than_there_are():
    wanted = Wanted(owned={"a100-sxm4-80gb": 12}, devices=12)
    found = choose(LLAMA, ["a100-sxm4-80gb"], wanted)
    best = found.choices[0]
    assert best.devices <= 12 and best.price is None and found.objective == "time"
    kwh = best.energy_j / 3.6e6
    assert 0 < best.cost_usd < kwh  # less than a dollar per kilowatt-hour, with the server


def test_a_purchase_costs_its_price_and_pays_off_where_rent_is_dearer_than_electricity():
    found = choose(LLAMA, ["h100-sxm5"], Wanted(under_usd=400e3, buy=True))
    best = found.choices[0]
    assert best.cost_usd > best.purchase_usd == best.devices * best.price.median
    assert best.break_even_months > 1
    assert any(line.startswith("purchase:") for line in found.assumptions)


FIT = (  # model, device, most devices, batch, other fields
    ("llama-3-8b", "h100-sxm5", 16, 256, {}),  # many micro-batches of one sample
    ("llama-2-13b", "rtx-4080", 1, 48, {"lora": 16, "weights": "nf4"}),
    ("gpt2-xl", "a100-sxm4-80gb", 6, 48, {}),  # a number that the batch's powers leave out
    ("bert-large", "rtx-4090", 12, 24, {"precision": "fp32"}),  # more than a desktop holds
    ("llama-3-70b", "h100-sxm5", 6, 6, {"precision": "fp32"}),  # nothing fits
    ("llama-2-7b", "h100-sxm5", 1, 8, {"precision": "fp32"}),  # only with the optimizer elsewhere
    ("resnet50", "l4", 3, 96, {}),
    ("llama-3-8b", "rtx-4090", 2, 8, {"mode": "infer", "sequence": 2048}),
    ("gpt2", "v100-sxm2-32gb", 8, 64, {"precision": "fp16"}),
)


@pytest.mark.parametrize(("model", "device", "n", "batch", "more"), FIT)
def test_a_choice_is_no_slower_than_the_search_on_as_many_devices(model, device, n, batch, more):
    s = Scenario(model=model, device=device, batch=batch, samples=1e9, **more)
    tried = explore(s, n)
    above = most_above(s.mode)
    surely = tried.step_s[tried.peak_bytes * above <= tried.capacity].min(initial=math.inf)
    fits = tried.step_s[tried.fits].min(initial=math.inf)
    found = choose(s, [device], Wanted(devices=n, goal="time"))
    assert bool(found.choices) == bool(np.isfinite(fits)) == (found.smallest is not None)
    if found.choices:
        c = found.choices[0]
        assert c.step_time_s <= (surely if c.fits else fits) * (1 + 1e-9)
        assert c.fits or not np.isfinite(surely)


def test_a_sieve_holds_back_no_layout_that_would_be_the_fastest():
    for model, device, n, batch in (
        ("llama-2-7b", "a100-sxm4-80gb", 8, 64), ("mixtral-8x7b", "mi300x", 4, 8),
        ("bert-large", "l4", 8, 32), ("resnet50", "l4", 2, 512),
    ):  # fmt: skip
        s = Scenario(model=model, device=device, batch=batch)
        space = Space(s, named(s))
        shapes, policies = space.shapes(n, few=True), space.policies()
        every = search_layouts(s, shapes, policies)
        capacity = float(hwdb.device(device).memory.capacity)
        sieve = Sieve(capacity, most_above("train"))
        some = search_layouts(s, shapes, policies, sieve)
        surely = every.peak_bytes * most_above("train") <= capacity
        assert sieve.best[n] == every.step_s[surely].min() == some.step_s[some.fits & surely].min()
        known = np.isfinite(some.peak_bytes)
        assert known.sum() < len(known) or not surely.all()
        assert np.array_equal(some.peak_bytes[known], every.peak_bytes[known])


def test_kernels_of_a_rank_are_timed_once_for_all_numbers_of_devices(monkeypatch):
    timed, real = [], Ranks._times
    monkeypatch.setattr(
        Ranks, "_times", lambda r, step, *a: timed.append(step) or real(r, step, *a)
    )
    s = Scenario(model="llama-2-7b", device="", batch=64, lora=16)
    chooser = Chooser(s, ["h100-sxm5"], Wanted(devices=32))
    kind = chooser.kinds["h100-sxm5"]
    for counts in ([1, 2, 4], [8, 16, 32]):
        assert len(chooser.search(kind, counts)) == 3
    assert len(timed) == len({id(step) for step in timed}) > 10


def test_a_device_has_the_layouts_that_it_has_alone():
    """Peaks and traces that were found on other devices change nothing."""
    s = Scenario(model="llama-2-13b", device="", lora=16, weights="nf4", batch=16)
    devices, wanted = ("rtx-4090", "rtx-3080", "rtx-4080"), Wanted(devices=4)
    found = Chooser(s, devices, wanted)
    for device in devices:
        alone = Chooser(s, [device], wanted)
        mine, own = (c.search(c.kinds[device], c.kinds[device].counts) for c in (found, alone))
        kept = [[(p.devices, p.options, p.step_s, p.peak_bytes) for p in ps] for ps in (mine, own)]
        assert kept[0] == kept[1] and kept[1]
    assert len(found.ranks) < 3 * len(alone.ranks)


def test_the_batch_that_is_assumed_is_said_and_fits():
    s = Scenario(model="llama-2-13b", device="", lora=16, weights="nf4", samples=10_000)
    found = choose(s, ["rtx-4080"], Wanted(devices=1))
    assert found.choices and found.batch_assumed and "batch" in found.assumptions[0]


def test_where_nothing_fits_that_is_said_instead_of_a_limit_blamed():
    s = Scenario(model="llama-3-70b", device="", tokens="1B", batch=8)
    found = choose(s, ["l4"], Wanted(devices=1, within_s=DAY))
    assert not found.choices and not found.misses
    assert found.smallest is None and found.fitting_batch is None


def test_limits_that_no_single_one_is_to_blame_for_name_what_the_run_needs():
    wanted = Wanted(within_s=60.0, under_usd=1.0, devices=8)
    found = choose(LLAMA, ["h100-sxm5"], wanted)
    assert not found.choices and [m.needed for m in found.misses] == [None, None]
    assert found.unlimited.time_s > 60.0 and found.unlimited.cost_usd > 1.0


def test_a_purchase_needs_no_length_and_says_no_duration():
    s = msgspec.structs.replace(LLAMA, tokens=None)
    found = choose(s, ["h100-sxm5", "l4"], Wanted(under_usd=400e3, buy=True, devices=16))
    best = found.choices[0]
    assert not found.timed and best.time_low_s is not None and best.goodput is None
    assert best.cost_usd == best.purchase_usd == best.devices * best.price.median <= 400e3
    assert best.rate == pytest.approx(96 * 4096 / best.step_time_s)
    assert any("no length" in line for line in found.assumptions)


def test_cpus_are_left_out_unless_they_are_asked_for():
    names, other = _left_out(["h100-sxm5", "xeon-8480"], True, ("gpu",))
    assert not names and other == ("xeon-8480",)
    found = _left_out(list(hwdb.devices()), False, ())
    assert {hwdb.device(name).kind for name in found[1]} == {"cpu"}
    assert not _left_out(list(hwdb.devices()), False, ("cpu", "gpu", "tpu", "npu"))[1]


def test_a_run_without_a_length_is_rejected():
    with pytest.raises(BadInput, match="--tokens 2T"):
        choose(msgspec.structs.replace(LLAMA, tokens=None), DEVICES, Wanted())


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"within_s": -1.0}, "positive"), ({"under_usd": math.nan}, "positive"),
        ({"goal": "fun"}, "known: cost"), ({"contract": "barter"}, "known: on-demand"),
        ({"provider": "uncle"}, "known: specialised"), ({"sure": 1.5}, "probability"),
        ({"devices": 0}, "at least 1"),
    ],
)  # fmt: skip
def test_impossible_constraints_are_rejected(fields, text):
    with pytest.raises(Exception, match=text):
        Wanted(**fields)


def test_the_batch_of_a_run_is_about_what_such_runs_had():
    """DeepSeek LLM 7B and 67B: 2,304 and 4,608 sequences of 4,096 tokens, 2 trillion tokens."""
    for parameters, batch in ((6.9e9, 2304), (67e9, 4608)):
        s = Scenario(model="llama-2-7b", device="", tokens="2T")
        found, _ = run_batch(s, "sequence", 4096, parameters)
        assert found == pytest.approx(batch, rel=0.35)


def test_probabilities_of_an_interval_are_those_of_its_levels_and_grow_with_the_limit():
    interval = {"50": (0.9, 1.1), "80": (0.8, 1.25), "95": (0.7, 1.5)}
    for level, (low, high) in interval.items():
        tail = 0.5 - float(level) / 200
        assert probability(interval, low, 1.0) == pytest.approx(tail, abs=1e-9)
        assert probability(interval, high, 1.0) == pytest.approx(1 - tail, abs=1e-9)
    grid = [probability(interval, x, 1.0) for x in np.linspace(0.3, 3.0, 60)]
    assert grid == sorted(grid) and grid[0] < 0.01 and grid[-1] > 0.99


def test_makers_without_measured_runs_are_left_out_by_default():
    names = measured(["h100-sxm5", "ipu-gc200"])
    assert names == ["h100-sxm5"]
