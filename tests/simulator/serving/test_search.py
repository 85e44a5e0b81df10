"""A search over layouts of a server is the single forecasts, and a choice of hardware is what brute
force finds.
"""

import math

import msgspec
import numpy as np
import pytest

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.choose.wanted import Wanted
from roofcast.simulator.models.catalog import resolve
from roofcast.simulator.serving.asked import Level, Serving
from roofcast.simulator.serving.capacity import room
from roofcast.simulator.serving.chain import serve
from roofcast.simulator.serving.hardware import Hardware
from roofcast.simulator.serving.hardware_chosen import choose
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.many import COLUMNS, numbers
from roofcast.simulator.serving.means import closed_loops, mean
from roofcast.simulator.serving.search import GOALS, LESS, search
from roofcast.simulator.serving.server import Server
from roofcast.simulator.serving.slo import HIGHEST
from roofcast.simulator.serving.space import shapes

SEARCHES = {
    "dense": ("llama-3.1-8b", ["h100-sxm5"], {"devices": 4, "weights": "any", "kv": "any"}, {}),
    "experts": ("qwen3-30b-a3b", ["h200-sxm", "l40s"], {"devices": 4}, {}),
    "prompts in the cache": ("llama-3.1-8b", ["mi300x"], {"devices": 2}, {"cached": 0.5}),
    "drafts": ("llama-3.1-8b", ["rtx-4090"], {"devices": 2, "speculate": 3}, {"input_len": 200}),
    "one token": ("gpt2-xl", ["a10"], {"devices": 2}, {"output_len": 1}),
}
UNNAMED = [c for c in COLUMNS if not c.endswith(("_low", "_high"))]


def asked_of(model, load=None, **more):
    kind = {"kind": "concurrency", **(load or {})}
    return Serving(model=model, device="", load=Load(**kind), **more)


def load_of(name):
    return {"output_len": 512, **SEARCHES[name][3]}


@pytest.fixture(scope="module")
def found():
    return {
        name: search(asked_of(model, load, **more), on)
        for name, (model, on, more, load) in SEARCHES.items()
    }


@pytest.mark.parametrize("name", SEARCHES)
def test_every_row_equals_the_single_forecast(found, name):
    rows = found[name].rows
    for i in np.random.default_rng(0).choice(len(found[name].layout), 12, replace=False).tolist():
        f = serve(found[name].asked_of(i), replays=False)
        single = {
            **{c: getattr(f, c) for c in UNNAMED if hasattr(f, c)},
            "ttft_s": f.ttft_s.mean,
            "tpot_s": f.tpot_s.mean,
            "e2e_s": f.e2e_s.mean,
            "peak_bytes": f.memory.peak_bytes,
        }
        assert set(single) == set(UNNAMED)
        for column, value in single.items():
            value = math.nan if value is None else value
            assert rows[column][i] == pytest.approx(value, rel=1e-9, nan_ok=True), column
        low, high = (
            rows[f"output_tokens_per_s_per_device_{end}"][i] * f.devices for end in ("low", "high")
        )
        assert (low, high) == pytest.approx(f.output_tokens_per_s_range, rel=1e-9)
        assert rows["tokens_per_s_per_user_high"][i] * f.tpot_s.low == pytest.approx(
            1.0 if load_of(name)["output_len"] > 1 else 0.0, rel=1e-9
        )


def test_closed_loops_are_the_mean_values_of_each():
    server, load = Server("llama-3.1-8b", "a100-sxm4-80gb"), Load(kind="concurrency", requests=500)
    held = room(server, 1024, 1536)
    users = np.array([1.0, 2.0, 7.0, 64.0, 333.0, 5000.0])
    many = closed_loops(server, load, held, users, ramp=0.3)
    for i, n in enumerate(users.tolist()):
        one = mean(server, msgspec.structs.replace(load, amount=n), held, ramp=0.3)
        assert [v[i] for v in many] == pytest.approx(list(one), rel=1e-9)


def test_numbers_of_users_rise_from_one_to_the_most():
    for most in (1, 2, 8, 9, 100, 1024):
        found = numbers(most)
        assert found[0] == 1 and found[-1] == most and (np.diff(found) > 0).all()
        assert (found == np.rint(found)).all()


@pytest.mark.parametrize("experts", [False, True])
@pytest.mark.parametrize("devices", [1, 6, 8, 64])
def test_layouts_divide_the_devices_and_none_comes_twice(devices, experts):
    ways = shapes(asked_of("gpt2"), devices, experts)
    assert len(set(ways)) == len(ways) > 0
    for way in ways:
        assert way.tp * way.pp * way.dp * way.replicas == devices
        assert way.tp * way.dp % way.ep == 0 and (way.dp == 1 or way.ep > 1)
    given = shapes(asked_of("gpt2", tp=2), devices, experts)
    assert given == [way for way in ways if way.tp == 2]


def test_the_front_is_what_no_other_row_beats_in_both(found):
    for each in found.values():
        x, y = (each.rows[c] for c in ("tokens_per_s_per_user", "output_tokens_per_s_per_device"))
        front = each.front()
        for i in range(len(x)):
            beaten = (x >= x[i]) & (y >= y[i]) & ((x > x[i]) | (y > y[i]))
            assert (i in front) <= (not beaten.any())
            if not beaten.any():  # of equal rows one is there
                assert any(x[k] == x[i] and y[k] == y[i] for k in front)


def test_the_best_come_first_each_layout_once_and_hold_the_level(found):
    base = found["dense"]
    for goal, column in GOALS.items():
        sign = 1.0 if goal in LESS else -1.0
        level = Level({"tpot": 0.02, "ttft": 0.2})
        each = base._replace(goal=goal, level=level)
        best = each.best(10)
        values = sign * each.rows[column][best]
        assert len(best) == 10 and (np.diff(values) >= 0).all()
        assert len(set(each.layout[best].tolist())) == 10
        assert (each.rows["tpot_s"][best] <= 0.02).all() and each.holds[best].all()
        assert sign * each.rows[column][each.holds].min() >= values[0] or sign < 0


def test_refused_and_kept_layouts_are_all_that_were_considered():
    each = search(asked_of("llama-3.1-70b", weights="any"), ["h100-sxm5", "l4"])
    assert each.considered == len(each.layouts) + sum(each.reasons.values())
    assert 0 < len(each.layouts) < each.considered
    nothing = search(asked_of("llama-3.1-405b", devices=1), ["l4"])
    assert not nothing.layouts and nothing.best() == nothing.front() == []


ON = ["l4", "rtx-4090", "h100-sxm5"]
MOST = 24  # replicas that brute force tries
CHOICES = [
    ({"kind": "rate", "amount": 30.0}, {"ttft": 0.3, "tpot": 0.03}, "cost"),
    ({"kind": "rate", "amount": 3.0}, {"tpot": 0.015}, "devices"),
    ({"kind": "rate", "amount": 90.0}, None, "cost"),
    ({"kind": "concurrency", "amount": 90.0}, None, "devices"),
    ({"kind": "concurrency", "amount": 40.0}, {"tpot": 0.02}, "cost"),
]


def choice_of(load):
    return asked_of(
        "llama-3.1-8b", {**load, "input_len": 512, "output_len": 64, "requests": 100}, pp=1
    )


def brute_force(asked, level, goal):
    """Every layout of every device, and every number of replicas; the least from which all hold."""
    every = Hardware(asked, ON, Wanted(), goal, level)
    best = {}
    for of in every.offers.values():
        for way in every.ways(of, [n for n in (1, 2, 4, 8) if n <= of.node]):
            need = every.need(way)
            if need is None:
                continue
            holds = need.holds
            if asked.load.kind == "rate" and level is not None:

                def holds(n, curve=need.curve):
                    rate = asked.load.amount / n
                    return rate <= HIGHEST * curve.highest and curve.worst(rate)[0] <= 1.0

            # from which on: replays of few requests may miss a level with one replica more
            n = next((n + 1 for n in range(MOST, 0, -1) if not holds(n)), 1)
            if n <= MOST:
                value = every.value(of, n * way.size)
                best[of.device.id] = min(best.get(of.device.id, value), value)
    return best


@pytest.mark.parametrize(("load", "limits", "goal"), CHOICES, ids=str)
def test_choices_are_those_of_brute_force(load, limits, goal):
    level = Level(limits) if limits else None
    asked = choice_of(load)
    expected = brute_force(asked, level, goal)
    points = Hardware(asked, ON, Wanted(), goal, level).ranked(len(ON))
    assert {p.way.offer.device.id: p.value for p in points} == expected
    assert [p.value for p in points] == sorted(expected.values())
    assert expected


def test_a_higher_rate_never_costs_less_and_a_looser_level_never_more():
    def usd(rate, tpot):
        asked = choice_of({"kind": "rate", "amount": rate})
        points = Hardware(asked, ON, Wanted(), level=Level({"tpot": tpot})).ranked(1)
        return points[0].value[0]

    rising = [usd(rate, 0.03) for rate in (1.0, 100.0, 400.0)]
    assert rising == sorted(rising) and rising[-1] > rising[0]
    looser = [usd(60.0, tpot) for tpot in (0.012, 0.03)]
    assert looser == sorted(looser, reverse=True)


def test_the_choice_forecasts_what_it_shows():
    load = {"kind": "rate", "amount": 30.0}
    found = choose(choice_of(load), ON, Wanted(), "cost", Level({"tpot": 0.03}))
    for c in found.choices:
        assert c.devices == c.replicas * math.prod(c.layout[d] for d in ("tp", "pp", "dp"))
        assert c.usd_per_hour == pytest.approx(c.devices * c.forecast.price_usd_per_hour)
        assert c.forecast.devices == c.devices and c.forecast.use < 1 and c.forecast.memory.fits
    assert resolve(found.asked.model).name == found.choices[0].forecast.model


@pytest.mark.parametrize(
    ("load", "wanted", "level", "words"),
    [
        ({"kind": "rate"}, Wanted(), Level({"tpot": 1e-4}), "nothing holds it; the nearest is"),
        ({"kind": "rate", "amount": 900.0}, Wanted(under_usd=1.0), None, "the nearest is"),
        ({"kind": "rate", "amount": 900.0}, Wanted(devices=1), None, "the nearest is"),
    ],
)
def test_what_nothing_holds_is_refused_with_the_nearest(load, wanted, level, words):
    with pytest.raises(BadInput, match=words) as error:
        choose(choice_of(load), ON, wanted, "cost", level)
    assert "\n" not in str(error.value)
