"""What is kept in host memory: seconds on the link to the host, and of an optimizer on the host.

activations: what a layer keeps is copied to the host during its forward pass and back before its
    backward pass, overlapped with compute.
optimizer: states and fp32 copies stay in host memory; gradients go down, the host updates, weights
    come up, in chunks, so that the slowest of the three counts [ren2021].
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import ArrayLike

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.records import Device
from roofcast.simulator.work.ops.optimizer import optimizer, update_traffic
from roofcast.simulator.work.step import Step

# bandwidth of a copy from pinned memory as a fraction of the link's: 24 to 26 GB/s of the 31.5 of
# PCIe 4.0 x16 (hwdb/links)
PINNED = 0.8
# host-memory bandwidth for each device's optimizer [B/s]: half of two sockets of eight DDR5-4800
# channels, shared by eight devices; assumed, and listed under assumptions
HOST_BANDWIDTH = 40e9


def link(device: Device) -> float:
    """Bandwidth between device and host, per direction [B/s].

    Raises BadInput where the device has no known link to a host with memory of its own.
    """
    words = device.host_interface
    direct = re.search(r"C2C (\d+) GB/s", words)
    if direct:
        # two devices share their host's link
        return PINNED * float(direct[1]) * 1e9 / (2 if "per superchip" in words else 1)
    lanes = re.search(r"PCIe(\d)(?:\.0)?(?: x(\d+))?", words)
    if device.kind == "cpu" or not lanes or "unified" in words:
        raise BadInput(
            f"offload: {device.id} has no known link to a host with memory of its own; leave"
            " --offload out"
        )
    return PINNED * float(hwdb.link(f"pcie{lanes[1]}-x16").bandwidth) * int(lanes[2] or 16) / 16


def update_seconds(
    weights: ArrayLike, step: Step, device: Device, gradient_bytes: float
) -> np.ndarray:
    """Seconds of an optimizer step on the host over so many weights. Broadcasts.

    gradient_bytes: bytes of one gradient.
    """
    recipe, width = step.recipe, step.trained_width
    assert recipe.optimizer is not None, "an offloaded optimizer is one"
    held = 4.0 if recipe.stack.master else width
    read, written = update_traffic(optimizer(recipe.optimizer), 1.0, held, True)
    down, up = gradient_bytes / link(device), width / link(device)
    return np.asarray(weights) * max(down, up, (read + written) / HOST_BANDWIDTH)
