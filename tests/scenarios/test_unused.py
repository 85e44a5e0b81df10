"""What is asked and has no effect on the forecast is among its assumptions."""

import pytest

from roofcast import Scenario, predict

NET = {"model": "resnet50", "device": "h100-sxm5", "batch": 8}
TEXT = {"model": "gpt2", "device": "h100-sxm5", "batch": 1}
IDLE = {
    "attention of a net without it": (
        NET | {"attention": "flash"},
        "attention flash has no effect: resnet50 has no attention layer",
    ),
    "price of a run without length": (NET | {"price_per_hour": 3.0}, "price 3 USD per device-hour"),
    "system of one device": (TEXT | {"system": "dgx-h100", "devices": 1}, "system dgx-h100 has no"),
    "a rate of another format": (TEXT | {"set": {"peak_flops.fp8": "x2"}}, "set peak_flops.fp8"),
    "the network of one device": (TEXT | {"set": {"scale_up.bandwidth": "x2"}}, "set scale_up.ban"),
    "a price of a run without length": (
        TEXT | {"set": {"price.cloud_usd_per_hour": 3}},
        "set price.cloud_usd_per_hour has no effect",
    ),
}
AT_WORK = {
    "attention": TEXT | {"attention": "eager"},
    "price": NET | {"price_per_hour": 3.0, "samples": 1e6},
    "system": TEXT | {"system": "dgx-h100", "batch": 8},
    "bandwidth": TEXT | {"set": {"memory.bandwidth": "x2"}},
    "cores": TEXT | {"set": {"cores": 100}},
    "power": TEXT | {"set": {"power.tdp": 500}, "tokens": "1B"},
    "network": TEXT | {"set": {"scale_up.bandwidth": "x2"}, "batch": 8, "devices": 8},
}


@pytest.mark.parametrize(("asked", "said"), IDLE.values(), ids=IDLE)
def test_what_has_no_effect_is_said(asked, said):
    (line,) = [a for a in predict(**asked).assumptions if "has no effect" in a]
    assert line.startswith(said)
    assert predict(Scenario(**asked)).assumptions == predict(**asked).assumptions


@pytest.mark.parametrize("asked", AT_WORK.values(), ids=AT_WORK)
def test_what_has_an_effect_is_not(asked):
    assert not any("has no effect" in a for a in predict(**asked).assumptions)
