"""What a remedy saves is the difference of two forecasts."""

import json

import msgspec
import pytest
from click.testing import CliRunner

from roofcast import predict
from roofcast.reports.command import main
from roofcast.simulator.choose.remedies import with_remedies

ASKED = [
    {"model": "llama-3-8b", "device": "h100-sxm5", "attention": "eager"},
    {"model": "resnet50", "device": "a100-sxm4-80gb", "batch": 4},
    {"model": "gpt2", "device": "xeon-8480", "batch": 2},
    {"model": "llama-3-8b", "device": "a100-sxm4-80gb", "devices": 16, "batch": 32, "pp": 4},
]


@pytest.mark.parametrize("asked", ASKED, ids=lambda a: f"{a['model']} on {a['device']}")
def test_a_remedy_saves_what_a_forecast_with_its_options_says(asked):
    before = predict(**asked)
    found = before.with_remedies()
    assert [r.saved_s for r in found.remedies] == sorted(r.saved_s for r in found.remedies)[::-1]
    assert msgspec.structs.replace(found, remedies=None) == before
    named = [r for r in found.remedies if r.options]
    assert len(named) >= 3
    for remedy in named:
        after = predict(msgspec.structs.replace(before.scenario, **remedy.options))
        assert remedy.step_time_s == pytest.approx(after.step_time_s, rel=1e-9), remedy.name
        per = after.step_time_s * before.batch / after.batch
        assert remedy.saved_s == pytest.approx(before.step_time_s - per, rel=1e-6, abs=1e-9)
        assert remedy.fits == after.memory.fits


@pytest.mark.parametrize("asked", ASKED, ids=lambda a: f"{a['model']} on {a['device']}")
def test_a_free_limit_never_costs_time_and_saves_at_least_twice_its_rate(asked):
    found = predict(**asked).with_remedies()
    free = {r.limit: r for r in found.remedies if r.limit}
    assert {"compute", "memory bandwidth", "kernel latency"} <= set(free)
    assert ("network" in free) == (found.devices > 1)
    for remedy in free.values():
        assert -1e-9 <= remedy.saved_s < found.step_time_s
    (double,) = [r for r in found.remedies if r.name == "twice the memory bandwidth"]
    assert free["memory bandwidth"].saved_s >= double.saved_s > 0


def test_eager_attention_has_the_remedy_of_a_fused_one_and_flash_has_not():
    asked = {"model": "llama-3-8b", "device": "h100-sxm5"}
    eager, flash = (predict(**asked, attention=a).with_remedies() for a in ("eager", "flash"))
    (fused,) = [r for r in eager.remedies if r.name == "fused attention"]
    assert fused.saved_s == pytest.approx(eager.step_time_s - flash.step_time_s)
    assert not [r for r in flash.remedies if r.name == "fused attention"]


def test_own_runs_scale_what_is_saved():
    before = predict("llama-3-8b", device="h100-sxm5")
    slower = msgspec.structs.replace(
        before, step_time_s=2 * before.step_time_s, own_factor=2.0, own_runs=1
    )
    plain, scaled = (with_remedies(f, before.scenario).remedies for f in (before, slower))
    saved = {r.name: r.saved_s for r in plain}
    for remedy in scaled:
        assert remedy.saved_s == pytest.approx(2 * saved[remedy.name], abs=1e-12)


def test_a_net_of_very_many_ops_has_remedies_only_where_they_are_asked_for(tmp_path):
    net = tmp_path / "net.toml"
    layers = ", ".join(f'{{kind = "linear", out = {8 + i % 2}}}' for i in range(1001))
    net.write_text(f"input = [8]\nlayers = [{layers}]\n", encoding="utf-8")
    words = ["predict", str(net), "--on", "a100-sxm4-80gb"]
    text = CliRunner().invoke(main, words).output
    assert "remedies are forecast only with --remedies" in " ".join(text.split())
    asked = json.loads(CliRunner().invoke(main, [*words, "--remedies", "--json"]).output)
    assert asked["remedies"]
