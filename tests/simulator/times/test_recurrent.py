"""Recurrent layers: a chain of small products."""

import pytest

import hwdb
from hwdb.constants import kernels
from simulator.times.matmul import matmul
from simulator.times.rates import resolve
from simulator.times.recurrent import recurrent

C = kernels()
MEASURED = [  # DeepBench, fp32 forward, cuDNN 6 and 7: hidden, batch, steps -> ms; github baidu-research/DeepBench@da81ba78
    ("gtx-1080-ti", 4, 512, 1, 25, 0.89),
]


def seconds(device, gates, hidden, batch, steps, product="fp32"):
    rates = resolve(hwdb.device(device), product).rates
    own = steps * batch * hidden
    chain = recurrent(steps, batch, gates * hidden, hidden, own * (gates + 1) * rates.width, 12.0 * own, 8.0 * own, rates, C)
    return float(chain + matmul(steps * batch, gates * hidden, hidden, 1, rates.width, rates.width, rates, C))


@pytest.mark.parametrize(("device", "gates", "hidden", "batch", "steps", "ms"), MEASURED)
def test_a_measured_lstm(device, gates, hidden, batch, steps, ms):
    assert seconds(device, gates, hidden, batch, steps) == pytest.approx(ms / 1e3, rel=0.35)


def test_steps_wait_for_each_other():
    short, long = (seconds("h100-sxm5", 4, 64, 4, n, "bf16") for n in (100, 1000))
    assert long == pytest.approx(10 * short, rel=0.05)
    assert long > 1000 * 1e-6  # more than a microsecond a step, however little there is to do
