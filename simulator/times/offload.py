"""What is kept in the host's memory: seconds on the link to the host, and of an optimizer step on
the host.

activations   what a layer keeps goes down during its forward and comes back before its backward,
              beside compute
optimizer     states and fp32 copies stay with the host; gradients go down, the host updates,
              weights come up, in chunks:
              the slowest of the three counts [ren2021]
"""

from __future__ import annotations

import re

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.records import Device
from roofcast.simulator.work.ops.optimizer import optimizer, update_traffic
from roofcast.simulator.work.step import Recipe, Step

PINNED = 0.8
"""Bandwidth of a copy from pinned memory, of the link's printed one: 24 to 26 GB/s of the 31.5 of
PCIe 4.0 x16 (hwdb/links).
"""
HOST_BANDWIDTH = 40e9
"""Bytes per second of the host's memory for each device's optimizer: two sockets of eight DDR5-4800
channels for eight devices, half of it reached. Assumed, and said.
"""


def link(device: Device) -> float:
    """Bytes per second to and from the host, each way."""
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


def update_seconds(weights, step: Step, device: Device, gradient_bytes: float):
    """An optimizer step of so many weights by the host. Broadcasts."""
    recipe: Recipe = step.recipe
    width = step.weight_width
    read, written = update_traffic(
        optimizer(recipe.optimizer), 1.0, 4.0 if recipe.stack.master else width, True
    )
    return weights * max(
        gradient_bytes / link(device), width / link(device), (read + written) / HOST_BANDWIDTH
    )
