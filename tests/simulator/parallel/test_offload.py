"""Parameters in host memory or on NVMe drives: what stays on the device, what is copied, laws."""

import msgspec
import numpy as np
import pytest

from roofcast import Scenario, predict
from roofcast.hwdb.errors import BadInput, UnknownName
from roofcast.simulator.choose.search import search
from roofcast.simulator.times.offload import Rates, copied

GIVEN = {"sequence": 512, "recompute": "full", "precision": "bf16"}


def forecast(devices=1, model="llama-3.2-1b", **options):
    several = {"devices": devices, "zero": 3, "batch": devices} if devices > 1 else {"batch": 1}
    return predict(model, "h100-sxm5", **(GIVEN | several | options))


HELD = {  # devices, options -> the forecast without offload, with parameters on the host, on drives
    (devices, str(options)): tuple(
        forecast(devices, **options, **offload)
        for offload in (
            {},
            {"offload": ["parameters"]},
            {"offload": ["parameters"], "offload_to": "nvme", "nvme_bandwidth": "3 GB/s"},
        )
    )
    for devices in (1, 8)
    for options in ({}, {"lora": 8, "weights": "nf4"})
}


@pytest.mark.parametrize("case", HELD.values(), ids=map(str, HELD))
def test_offload_takes_memory_of_the_device_and_never_time(case):
    """Less device memory never with less time; drives are never faster than host memory."""
    without, host, drives = case
    assert host.memory.peak_bytes < without.memory.peak_bytes
    assert host.memory.peak_bytes == drives.memory.peak_bytes
    assert without.step_time_s <= host.step_time_s <= drives.step_time_s
    assert host.offloaded_bytes["host"] > 0 and host.offloaded_bytes.get("nvme") is None
    assert drives.offloaded_bytes["nvme"] > 0


def test_every_pass_brings_the_weights_and_backward_takes_the_gradients_away():
    """One device, bf16: 2 bytes for the forward, 2 for the backward, 2 of each gradient."""
    full = forecast(offload=["parameters"])
    assert full.communication_bytes["offload"] == pytest.approx(6 * full.parameters)
    lora = forecast(offload=["parameters"], lora=8)
    trained = lora.trainable_parameters
    assert lora.communication_bytes["offload"] == pytest.approx(4 * lora.parameters + 2 * trained)


def test_what_leaves_the_device_is_in_host_memory_or_on_drives():
    """Weights, two moments and gradients in bf16; on drives all but the gradients."""
    host, drives = (
        forecast(offload=["parameters"], offload_to=where).offloaded_bytes
        for where in ("host", "nvme")
    )
    n = forecast().parameters
    assert host == {"host": pytest.approx(8 * n)}
    assert drives == {"host": pytest.approx(2 * n), "nvme": pytest.approx(6 * n)}


def test_devices_share_the_copies_under_zero_3():
    one, eight = (forecast(n, offload=["parameters"]).communication_bytes for n in (1, 8))
    assert eight["offload"] == pytest.approx(one["offload"] / 8)


def test_stored_weights_travel_as_they_are_stored():
    """QLoRA: 4.127 bits of a matrix, where 16-bit weights need four times as many."""
    wide, narrow = (
        forecast(offload=["parameters"], lora=8, weights=w, model="llama-2-7b")
        for w in ("bf16", "nf4")
    )
    ratio = wide.communication_bytes["offload"] / narrow.communication_bytes["offload"]
    assert 3.0 < ratio < 16 / 4.127


def test_copies_share_a_direction_of_the_link():
    """Backward brings activations and weights; the forward takes one out and brings the other."""
    at = Rates(link=10.0)
    assert copied(20.0, 30.0, 0.0, "forward", at)[0] == 3.0
    assert copied(20.0, 30.0, 40.0, "backward", at)[0] == 5.0
    assert copied(20.0, 30.0, 0.0, "backward", Rates(10.0, drives=2.0))[0] == 15.0


@pytest.mark.parametrize(
    "options, said",
    [
        ({"devices": 2, "batch": 2, "zero": 1}, "ZeRO 1 shards none; use --zero 3"),
        ({"pp": 2, "batch": 4}, "over pipeline stages it is not modelled"),
        ({"mode": "infer", "recompute": "none"}, "of a training step"),
        ({"offload": ["weights"]}, "known: activations, optimizer, parameters"),
        ({"offload_to": "disk"}, "known: host, nvme"),
        ({"offload": ["activations"], "offload_to": "nvme"}, "neither of which is offloaded"),
        ({"nvme_bandwidth": "6 GB/s"}, "use --offload-to nvme"),
        ({"offload_to": "nvme", "nvme_bandwidth": "0 GB/s"}, "from 1 MB/s to 1 TB/s"),
        ({"offload_to": "nvme", "nvme_bandwidth": "fast"}, "is not a bandwidth"),
    ],
)
def test_what_cannot_be_is_refused_with_what_would_do(options, said):
    with pytest.raises((BadInput, UnknownName)) as refused:
        predict("llama-3.2-1b", "h100-sxm5", **({"offload": ["parameters"]} | GIVEN | options))
    assert said in str(refused.value)


def test_more_than_the_hosts_have_is_said():
    there = forecast(8, model="llama-3-70b", offload=["parameters"])
    assert not any("does not fit there" in line for line in there.assumptions)
    small = predict("llama-3.1-405b", "a100-sxm4-80gb", offload=["parameters"], batch=1, **GIVEN)
    assert small.host_memory_bytes < small.offloaded_bytes["host"]
    assert any("does not fit there" in line for line in small.assumptions)


def test_a_search_forecasts_what_predict_does():
    asked = {"model": "llama-3.2-1b", "device": "h100-sxm5", "batch": 16, "sequence": 512}
    scenario = Scenario(**asked, recompute="full", offload=("parameters",), offload_to="nvme")
    found = search(scenario, {"dp": [1, 2, 8], "zero": [0, 3], "micro_batch": [1, 2]})
    assert found.refused.sum() == 4  # several devices, none of which shards
    for i in np.flatnonzero(~found.refused):
        one = predict(msgspec.structs.replace(scenario, **found.layout(i)))
        assert found.step_s[i] == pytest.approx(one.step_time_s, rel=1e-9)
        assert found.peak_bytes[i] == pytest.approx(one.memory.peak_bytes, rel=1e-9)
