"""What MFU and HFU are stated against: seconds that the products of a step take at printed peaks.

Every product counts at the peak of the format in which it runs, and without what a mask skips, so
that neither passes 1 unless a kernel does fewer FLOPs than counted or the clock passes the printed
one; `passes_one` then tells which.
"""

from __future__ import annotations

from roofcast.hwdb.records import Device
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.times.grouped import PRODUCTS, computed
from roofcast.simulator.times.rates import adding_in_fp16
from roofcast.simulator.times.roofline import OpTimes, adds_in_fp16, products_of, rates_of
from roofcast.simulator.work.step import Step
from roofcast.simulator.work.traced import Kernel

# of the five products of fused attention's backward, four are gradients; the fifth computes the
# scores again [dao2022]
GRADIENTS = 4.0 / 5.0


class AtPeak(NamedTuple):
    """Seconds of a step's products at the printed peak of their formats."""

    needed: float  # of the forward, and of the gradients of what is trained
    executed: float  # with what recomputation and fused attention compute again


def at_peak(step: Step, device: Device, repeats: float = 1.0) -> AtPeak:
    """Seconds of one device for the products of `repeats` micro-batches at printed peaks."""
    needed = executed = 0.0
    for k, product in products_of(step, device):
        fused = k.kind == "attention"
        flops = k.matrix * k.count * (computed(k) if fused else 1.0)
        seconds = flops / _peak(step, device, k, product)
        executed += seconds
        if k.phase != "recompute":
            needed += seconds * (GRADIENTS if fused and k.phase == "backward" else 1.0)
    return AtPeak(needed * repeats, executed * repeats)


def _peak(step: Step, device: Device, k: Kernel, product: str) -> float:
    """Printed peak of the format in which the product of a kernel runs [FLOP/s]."""
    rates = rates_of(device, product).rates
    if adds_in_fp16(PRODUCTS.get(k.kind, ""), product, step):
        rates = adding_in_fp16(rates, device, rates_of(device, "int8").rates)
    return float(rates.matrix)


def passes_one(step: Step, times: OpTimes, device: Device) -> str:
    """Why the products of a step take less time than at the printed peak, in a sentence."""
    taken = (s for k, s in zip(step.kernels, times.seconds, strict=True) if k.matrix)
    for (k, product), seconds in zip(products_of(step, device), taken, strict=True):
        printed = k.matrix * k.count / _peak(step, device, k, product)
        if k.kind == "conv" and printed > seconds:
            return (
                "MFU above 1: convolutions run as Winograd, which multiplies less often than the"
                " direct convolution that is counted"
            )
    return f"MFU above 1: {device.id} runs above the clock of its printed peak"
