"""The limits of a step told apart, over models, devices and layouts."""

import re

import pytest
from kinds import kind_of_device, one_in_turn

from roofcast import hwdb, predict
from roofcast.simulator.choose.remedies import with_remedies
from roofcast.simulator.forecast import chain
from roofcast.simulator.forecast.scenario import Scenario

NETS = [
    {"model": "gpt2", "batch": 2, "sequence": 256},
    {"model": "resnet50", "batch": 8},
    {"model": "bert-base", "batch": 4, "mode": "infer"},
    {"model": "mixtral-8x7b", "batch": 1, "sequence": 512},
]
LAYOUTS = [
    {"model": "llama-3-8b", "devices": 8, "batch": 32, "zero": 3},
    {"model": "llama-3-8b", "devices": 16, "tp": 4, "pp": 2, "batch": 64},
    {"model": "llama-3-8b", "devices": 16, "tp": 2, "pp": 4, "batch": 64, "schedule": "zb-h1"},
    {"model": "mixtral-8x7b", "devices": 16, "ep": 8, "zero": 1, "batch": 32},
    {"model": "llama-3-8b", "devices": 8, "batch": 8, "zero": 2, "offload": ("optimizer",)},
    {"model": "llama-3-8b", "devices": 8, "batch": 8, "offload": ("activations",)},
    {"model": "gpt2", "devices": 1, "batch": 16, "micro_batch": 4},
    {"model": "resnet50", "devices": 4, "batch": 256},
    {"model": "llama-3-8b", "devices": 8, "tp": 8, "batch": 4, "mode": "infer"},
]
SEVERAL = ["h100-sxm5", "mi300x", "tpu-v4", "a100-pcie-80gb", "xeon-8480"]
INT8 = [n for n in hwdb.devices() if set(hwdb.device(n).peak_flops) == {"int8"}]


def of(forecast):
    return {limit.name: limit for limit in forecast.limits}


def hold(forecast):
    """What holds of the limits of every forecast."""
    found = of(forecast)
    shares = [limit.share for limit in forecast.limits if limit.share is not None]
    assert sum(shares) == pytest.approx(1.0, abs=1e-9) and min(shares) >= 0.0
    for limit in forecast.limits:
        assert (limit.used is None) == (limit.headroom is None)
        if limit.used is not None:
            assert limit.used >= 0 and limit.headroom == pytest.approx(max(1 - limit.used, 0.0))
    assert found["compute"].used == pytest.approx(forecast.hfu)
    capacity = forecast.memory.capacity_bytes
    if capacity:
        assert found["memory capacity"].used == forecast.memory.peak_bytes / capacity
    assert "not modelled" in found["input"].note and found["input"].share is None
    return found


TRIED = one_in_turn(hwdb.devices(), NETS, kind_of_device)


@pytest.mark.parametrize("device", hwdb.devices())
def test_shares_sum_to_one_on_every_device(device):
    for asked in TRIED[device] if device not in INT8 else NETS[2:3]:
        asked = {**asked, "precision": "int8"} if device in INT8 else asked
        forecast = predict(device=device, **asked)
        found = hold(forecast)
        assert found["network"].share == found["pipeline"].share == 0.0
        host = forecast.between_steps_s / forecast.step_time_s
        assert found["host"].share >= host - 1e-12


@pytest.mark.parametrize("device", SEVERAL)
@pytest.mark.parametrize("asked", LAYOUTS, ids=str)
def test_shares_sum_to_one_over_several_devices(device, asked):
    if "offload" in asked and device == "xeon-8480":
        asked = {**asked, "offload": ()}  # a CPU has no host beside it
    forecast = predict(device=device, **asked)
    found, step = hold(forecast), forecast.step_time_s
    exposed = {k: s for k, s in forecast.exposed_communication_s.items() if k != "offload"}
    assert found["network"].share == pytest.approx(sum(exposed.values()) / step, abs=1e-9)
    waiting = (forecast.bubble_fraction or 0.0) + (forecast.uneven_stages_s or 0.0) / step
    assert found["pipeline"].share == pytest.approx(waiting, abs=5e-3)
    if forecast.devices > 1 and exposed:
        # printed rates bound what is sent; at most a step's worth of it can be
        assert 0 < found["network"].used < 1


def test_more_of_a_resource_leaves_more_headroom():
    asked = {"model": "llama-3-8b", "device": "h100-sxm5"}
    before, after = (predict(**asked, set=s) for s in ({}, {"memory.bandwidth": "x2"}))
    assert of(after)["memory bandwidth"].headroom > of(before)["memory bandwidth"].headroom
    assert of(after)["memory bandwidth"].share < of(before)["memory bandwidth"].share
    assert of(after)["compute"].share > of(before)["compute"].share


def test_a_host_that_cannot_keep_up_binds_all_of_a_small_step():
    forecast = predict("gpt2", device="h100-sxm5", batch=1, mode="infer", sequence=128)
    assert of(forecast)["host"].share > 0.9 and of(forecast)["host"].used > 0.9


@pytest.mark.parametrize("asked", [*NETS, *LAYOUTS[:3]], ids=lambda asked: asked["model"])
def test_the_diagnosis_tells_the_shares_of_the_limits(asked):
    found = predict(device="h100-sxm5", **asked)
    share = max(of(found).values(), key=lambda limit: limit.share or 0.0)
    said = [int(number) for number in re.findall(r"(\d+) % (?:of the step )?is", found.diagnosis)]
    assert said and sum(said) <= 101
    if share.name == "memory bandwidth" and not found.update_s:
        assert round(100 * share.share) in said
    if share.name == "compute":  # of it, what the matrix units bound
        assert 0 < max(said) <= round(100 * share.share)


RECURRENT = [("bilstm64", 1), ("bilstm64", 256), ("deepspeech2", 4), ("gnmt", 1), ("gnmt", 128)]
CHAINS = [(cell, hidden, batch) for cell in ("gru", "lstm", "rnn")
          for hidden, batch in ((64, 1), (512, 64), (2048, 1), (2048, 512))]  # fmt: skip
RUN_ON = ["h100-sxm5", "t4", "gtx-1080-ti", "mi300x", "tpu-v4", "trainium2", "xeon-8480"]
NOT_SMALL = 0.3  # share of a step
# a CPU copies the operands of products, which cross memory three times, at half of the printed rate
LEAST_USED = 0.1


def used_as_it_binds(forecast):
    """A resource that bounds much of a step is used: its datasheet time explains some of that."""
    found = hold(forecast)
    for name in ("compute", "memory bandwidth"):
        if found[name].share > NOT_SMALL:
            assert found[name].used > LEAST_USED * found[name].share, name
    return found


@pytest.mark.parametrize("device", RUN_ON)
def test_what_bounds_recurrent_layers_is_used(device, tmp_path):
    """A time step waits for the one before, so that a kernel over many is many small ones."""
    for model, batch in RECURRENT:
        used_as_it_binds(predict(model, device=device, batch=batch))
    for cell, hidden, batch in CHAINS:
        path = tmp_path / f"{cell}-{hidden}.toml"
        layers = f'{{kind = "{cell}", hidden = {hidden}}}, {{kind = "last_token"}}'
        path.write_text(
            f'tokens = 256\nvocabulary = 1000\nlayers = [{{kind = "embedding", width = {hidden}}},'
            f' {layers}, {{kind = "linear", out = 10}}]\n',
            encoding="utf-8",
        )
        found = used_as_it_binds(predict(str(path), device=device, batch=batch))
        if hidden == 64:
            assert found["kernel latency"].share > 0.8


@pytest.mark.parametrize("device", ["h100-sxm5", "tpu-v4", "xeon-8480"])
def test_free_latency_saves_most_of_a_chain_of_small_steps(device):
    """The limit with the largest share saves the most, and those without a share save little."""
    scenario = Scenario(model="bilstm64", device=device)
    forecast = with_remedies(chain.forecast(scenario), scenario)
    share = {limit.name: limit.share for limit in forecast.limits if limit.share is not None}
    saved = {r.limit: r.saved_s / forecast.step_time_s for r in forecast.remedies if r.limit}
    assert saved["kernel latency"] > 0.8 and share["kernel latency"] > 0.9
    assert all(saved[name] < 0.1 for name in saved if name != "kernel latency")
