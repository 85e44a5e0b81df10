"""The rate of kernels on matrix units inside a training step, beside the same kernel alone."""

from __future__ import annotations

from roofcast.hwdb import constants
from roofcast.hwdb.constants import Kernels
from roofcast.hwdb.records import Device
from roofcast.simulator.times.rates import family_name

MATRIX = ("matmul", "sparse", "attention", "conv")  # formulas of kernels on matrix units
# makers of GPUs and NPUs whose training steps constants were fitted to; NVIDIA's have a rate inside
# steps of their own
NVIDIA, FITTED = "NVIDIA", ("NVIDIA", "AWS")


def inside_steps(
    formula: str, mode: str, device: Device, c: Kernels
) -> tuple[float, tuple[str, ...]]:
    """Rate of a kernel inside a training step, as a fraction of the same kernel alone, and what
    that assumes.
    """
    if mode != "train" or device.kind not in ("gpu", "npu") or formula not in MATRIX:
        return 1.0, ()
    if device.vendor == NVIDIA:
        return c.matmul.in_steps if formula in ("matmul", "sparse") else 1.0, ()
    rate = c.matmul.in_steps_others
    if device.vendor in FITTED:
        return rate, ()
    return rate, (
        f"{device.id}: products, attention and convolutions of the step at {rate:.2f} of their rate"
        " alone, as on AWS Trainium; no training step of this maker was fitted",
    )


def over_lists(device: Device, optimizer: str | None) -> float:
    """Bandwidth of the optimizer's kernels, as a fraction of a pointwise kernel's, for a stack's
    implementation of them.

    PyTorch's foreach kernels take the addresses of at most 320 pieces of 65,536 elements as an
    argument, a block of threads each (ATen/native/cuda/MultiTensorApply.cuh), which leaves the
    cores of AMD's devices partly idle.
    """
    lists = constants.family(family_name(device)).foreach
    return lists.value if lists and optimizer != "fused" else 1.0
