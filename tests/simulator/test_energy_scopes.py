"""Board, accelerator, node, site: watts and joules by scope, and carbon."""

import math

import pytest

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.hwdb.sites import host_watts, region, regions, sites
from roofcast.simulator.campaign.carbon import grid_of
from roofcast.simulator.campaign.energy import SCOPES, place_of
from roofcast.simulator.choose.caps import at_cap, best_cap
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.scenario import Scenario

STEP = Scenario(model="gpt2", device="h100-sxm5", batch=16)


def ask(**more):
    return forecast(Scenario(**({"model": "gpt2", "device": "h100-sxm5", "batch": 16} | more)))


@pytest.mark.parametrize("name", hwdb.systems())
def test_board_is_less_than_accelerator_less_than_node_less_than_site(name):
    system = hwdb.system(name)
    device = hwdb.device(system.device)
    board = float(device.power.tdp or 300.0)
    watts = place_of(device, system).watts(board)
    values = [watts[scope] for scope in SCOPES]
    assert values[0] == board and all(a < b for a, b in zip(values, values[1:], strict=False))


RATED = [n for n in hwdb.systems() if hwdb.system(n).power and n != "ipu-pod16"]  # typical load


@pytest.mark.parametrize("name", RATED)
def test_a_node_at_full_load_draws_most_of_its_printed_rating(name):
    system = hwdb.system(name)
    tdp = hwdb.device(system.device).power.tdp
    if tdp:
        node = place_of(hwdb.device(system.device), system).watts(float(tdp))["node"]
        assert 0.7 <= node * float(system.count) / float(system.power) <= 1.06


def test_one_node_of_mlperf_training():
    """DC and AC of one node of 8 H100, MLPerf v4.0, Llama 2 70B LoRA: 6.95 and 7.16 kW."""
    how = {"stack": "te-nemo-2024", "precision": "fp8", "lora": 16, "devices": 8, "tp": 4}
    found = ask(model="llama-2-70b", sequence=8192, batch=8, **how)
    assert found.node_devices == 8
    assert found.node_power_w == pytest.approx(7157, rel=0.08)
    assert 8 * found.power_by_scope_w["accelerator"] == pytest.approx(6953, rel=0.08)


def test_joules_of_the_run_are_watts_times_time_by_scope():
    found = ask(samples="1M", pue=1.2, carbon=100.0, embodied=True, devices=8)
    for scope, watts in found.power_by_scope_w.items():
        expected = watts * found.time_to_train_s * found.devices
        assert found.energy_by_scope_j[scope] == pytest.approx(expected, rel=1e-9)
    assert found.energy_by_scope_j["board"] == pytest.approx(found.energy_j, rel=1e-12)
    assert found.energy_by_scope_j["site"] == pytest.approx(
        1.2 * found.energy_by_scope_j["node"], rel=1e-12
    )
    assert found.carbon_kg == pytest.approx(found.energy_by_scope_j["site"] / 3.6e6 * 0.1)
    hours = found.time_to_train_s * found.devices / 3600
    assert found.embodied_kg == pytest.approx(hours * (150 + 2500 / 8) / 44676)


def test_blooms_embodied_carbon():
    """Luccioni et al. 2022: 11.2 t over 1.08 million hours of an A100."""
    assert 1.08e6 * sites().embodied.per_device_hour() / 1000 == pytest.approx(11.2, abs=0.05)


def test_no_forecast_speaks_of_an_upper_bound_of_energy():
    for device in ("tpu-v4", "ryzen-9-7950x", "h100-sxm5", "gaudi2"):
        if device not in hwdb.devices():
            continue
        found = ask(device=device, samples="1k", batch=1)
        assert not any("upper bound" in line for line in found.assumptions)
        assert found.power_w < float(hwdb.device(device).power.tdp)


def test_the_site_asked_for_changes_no_time():
    plain, placed = ask(), ask(pue=1.3, region="Sweden", embodied=True)
    assert placed.step_time_s == plain.step_time_s and placed.low_s == plain.low_s
    assert placed.power_w == plain.power_w


def test_the_most_efficient_cap_is_the_least_of_its_neighbours():
    step = Scenario(model="gpt2", device="a100-sxm4-80gb", batch=16)
    best = best_cap(step)
    cap = float(str(best.set["power.cap"]).split()[0])
    joules = {
        w: forecast(at_cap(step, w)).step_energy_by_scope_j["node"]
        for w in (cap - 5, cap, cap + 5, 400.0)
    }
    assert min(joules, key=joules.get) == cap and cap < 400


def test_regions_are_dated_and_found_by_name():
    assert region("france") == region("FRA") and region("us-tx").year == "2023"
    for each in regions().values():
        assert 0 < each.g_per_kwh < 1500 or each.g_per_kwh == 0.0
        assert each.year.isdigit() and each.source in ("owid", "egrid", "google")


def test_processors_that_systems_name_have_a_tdp():
    assert host_watts("2x EPYC 7742") == 450.0 and host_watts("36x Grace (72c)") == 9000.0
    assert host_watts("host server") is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pue": 0.9}, "from 1 to 5"),
        ({"pue": -1.0}, "from 1 to 5"),
        ({"pue": math.nan}, "from 1 to 5"),
        ({"carbon": -1.0}, "grams of CO2e per kWh"),
        ({"region": "Fance"}, "nearest: FRA (France)"),
        ({"region": "FRA", "carbon": 5.0}, "give one of them"),
    ],
)
def test_a_site_that_cannot_be_is_refused_in_one_line(given, message):
    with pytest.raises(RoofcastError, match=".") as error:
        ask(**given)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_given_intensity_has_no_region():
    assert grid_of(None, 56.0).region == "" and grid_of(None, None) is None
