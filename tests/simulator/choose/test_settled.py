"""The answer of roofcast choose agrees with itself: no layout near the choice beats it, the best is
on the front, and owned devices cost what predict says of them.
"""

import math
import re
from typing import NamedTuple

import msgspec
import pytest

from roofcast import Scenario, predict
from roofcast.simulator.choose import misses
from roofcast.simulator.choose.choosing import Chooser
from roofcast.simulator.choose.chosen import choose
from roofcast.simulator.choose.wanted import Wanted
from roofcast.simulator.forecast.rank import most_above

DAY = 86400.0
LLAMA = Scenario(model="llama-2-7b", device="", tokens="20B", batch=96)


@pytest.mark.parametrize(
    ("model", "device", "batch", "tokens"),
    [("llama-2-7b", "h100-sxm5", 96, "2B"), ("llama-3-8b", "mi355x", 768, "10B")],
)
def test_no_micro_batch_beats_that_of_the_choice(model, device, batch, tokens):
    """Every divisor of a rank's samples, powers of two or not, as predict forecasts it."""
    s = Scenario(model=model, device=device, batch=batch, tokens=tokens)
    found = choose(s, [device], Wanted(devices=4))
    for c in (found.choices[0], *found.front[:2]):
        asked = msgspec.structs.replace(s, **c.options)
        each = batch // asked.dp
        least = c.step_time_s if c is found.choices[0] else math.inf
        for micro in (m for m in range(1, each + 1) if each % m == 0):
            other = predict(msgspec.structs.replace(asked, micro_batch=micro))
            most = other.memory.peak_bytes * most_above("train")
            if most <= other.memory.capacity_bytes:
                least = min(least, other.step_time_s)
        assert c.step_time_s <= least * (1 + 1e-9)


@pytest.mark.parametrize("goal", ["cost", "devices", "energy"])
def test_the_best_choice_is_on_the_front_and_no_point_of_it_is_better(goal):
    wanted = Wanted(within_s=5 * DAY, goal=goal, devices=4)
    scenario = msgspec.structs.replace(LLAMA, model="gpt2-medium", tokens="1B")
    found = choose(scenario, ["h100-sxm5", "l4", "t4"], wanted, top=2)
    best = found.choices[0]
    assert best in found.front
    of = {"time": "time_s", "cost": "cost_usd", "power": "power_w", "energy": "energy_j"}
    for c in found.front:
        if c.fits or not best.fits:
            name = of.get(goal, goal)
            assert getattr(best, name) <= getattr(c, name) * (1 + 1e-12)
    by_device = {}
    for c in found.front:
        by_device.setdefault((c.device, c.devices), []).append(c.step_time_s)
    for c in found.choices:
        assert by_device.get((c.device, c.devices), [c.step_time_s]) == [c.step_time_s]


@pytest.mark.parametrize("most", [1, 2, 5, 100, 511, 700, 1023])
def test_where_nothing_fits_no_batch_an_eighth_larger_would(most, monkeypatch):
    class Fits(NamedTuple):
        scenario: Scenario
        devices: tuple[str, ...]
        wanted: Wanted

        def smallest(self):
            return self if self.scenario.batch <= most else None

    monkeypatch.setattr(misses, "Chooser", Fits)
    found = misses.smaller_batch(LLAMA, ("l4",), Wanted(), 1024)
    assert found <= most < found * 9 / 8 + 1


@pytest.mark.parametrize("device", ["a100-sxm4-80gb", "l40s", "m2-ultra"])
def test_owned_devices_pay_the_electricity_of_the_invoice_of_predict(device):
    """The forecast joules of the site in both, or, where no watts are known, the printed power."""
    s = Scenario(model="gpt2-xl", device=device, tokens="2B", batch=96, precision="fp16")
    found = choose(s, [device], Wanted(owned={device: 4}, devices=4, goal="cost"))
    best = found.choices[0]
    s = msgspec.structs.replace(s, **best.options, campaign={"owned": True})
    lines = [x for x in predict(s).campaign.invoice if x.what.startswith("electricity")]
    assert best.cost_usd == pytest.approx(sum(x.usd for x in lines), rel=2e-3)  # to the cent
    assert any("at the site, by the watts that the forecast" in a for a in found.assumptions)


def test_no_bound_of_owned_devices_is_above_what_they_cost():
    owned = {"h100-sxm5": 8, "l40s": 8, "t4": 8}
    s = Scenario(model="gpt2-medium", device="", tokens="1B", batch=96)
    chooser = Chooser(s, list(owned), Wanted(owned=owned, devices=8, goal="cost"))
    chooser.ranked(chooser.wanted, len(owned))
    points = [p for p in chooser.searched.values() if p is not None]
    assert len(points) >= 3
    for p in points:
        least = chooser.bound(chooser.kinds[p.offer.device.id], p.devices).cost_usd
        assert 0 < least <= p.cost_usd


@pytest.mark.parametrize("goal", ["time", "cost"])
def test_devices_that_are_shown_twice_have_the_same_numbers(goal):
    """Choices, the front, and the fewest devices on which the run fits."""
    asked = Scenario(model="resnet50", device="", samples=1.28e6, epochs=90)
    found = choose(asked, ["h100-sxm5", "t4"], Wanted(goal=goal, devices=4))
    rows = [*found.choices, *found.front, found.smallest]
    of = {(c.device, c.devices): c for c in rows}
    assert len(of) < len(rows) and all(c == of[c.device, c.devices] for c in rows)


def test_every_assumption_about_an_own_chip_is_said(tmp_path):
    """Also how many chips are joined where the best choice is one of them."""
    chip = tmp_path / "chip.toml"
    chip.write_text(
        'name = "Chip"\n[peak_flops]\nbf16 = "400 TFLOP/s"\n[memory]\nbandwidth = "4 TB/s"\n'
        'capacity = "96 GiB"\n'
    )
    asked = Scenario(model="gpt2", device="", tokens=1e9)
    found = choose(asked, [str(chip), "t4"], Wanted(goal="devices", within_s=7 * 86400.0))
    best = next(c for c in found.choices if c.device == str(chip))
    told = predict("gpt2", str(chip), tokens=1e9, batch=found.scenario["batch"], **best.options)
    of_chip = [line for line in told.assumptions if re.search(r"\bchip\b", line)]
    assert len(of_chip) >= 5 and set(of_chip) <= set(found.assumptions)
    assert [x for x in found.assumptions if "8 chip per node on PCIe 4.0 x16" in x]
    assert not [x for x in found.assumptions if re.search(r"\bt4\b", x)]


def test_a_device_without_a_price_hides_no_cheaper_one_from_the_front():
    """It is not ranked by cost, whatever else it does: mi455x, the fastest here, has no price."""
    asked = Scenario(model="llama-3-8b", device="", tokens=1e8, batch=32, lora=8)
    found = choose(asked, ["mi455x", "h100-sxm5"], Wanted(goal="cost", devices=2))
    assert found.without_price == ("mi455x",)
    assert found.choices[0] in found.front
    assert {c.device for c in found.front} == {"h100-sxm5"}
