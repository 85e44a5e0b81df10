"""What is kept in host memory or on NVMe drives: seconds on the links, and of an optimizer there.

activations: what a layer keeps is copied to the host during its forward pass and back before its
    backward pass, overlapped with compute.
optimizer: states and fp32 copies stay in host memory; gradients go down, the host updates, weights
    come up, in chunks, so that the slowest of the three counts [ren2021].
parameters: weights come from the host layer by layer, before the forward and again before the
    backward of each layer, one layer ahead; gradients leave as they are computed, and the host
    updates weights that stay with it [rajbhandari2021].

With NVMe drives parameters and optimizer states lie on them, and pass through host memory.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import ArrayLike

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.records import Device
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.work.ops.optimizer import optimizer, update_traffic
from roofcast.simulator.work.step import Recipe, Step

# bandwidth of a copy from pinned memory as a fraction of the link's: 24 to 26 GB/s of the 31.5 of
# PCIe 4.0 x16 (hwdb/links)
PINNED = 0.8
# host-memory bandwidth for each device's optimizer [B/s]: half of two sockets of eight DDR5-4800
# channels, shared by eight devices; assumed, and listed under assumptions
HOST_BANDWIDTH = 40e9
# lanes of the NVMe drive that each device has where none is told: one drive of PCIe 4.0 x4, as a
# DGX H100 has eight; assumed, and listed under assumptions
DRIVE_LANES = 4


class Rates(NamedTuple):
    """Bandwidths per device and direction [B/s]; infinite where nothing of the kind is copied."""

    link: float  # between device and host
    drives: float = np.inf  # NVMe drives; infinite where parameters lie in host memory


class Widths(NamedTuple):
    """Bytes."""

    weight: float
    trained: float
    gradient: float


class Beside(NamedTuple):
    """Bytes of one rank beside its device."""

    host: np.ndarray
    drives: np.ndarray


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


def one_drive() -> float:
    """Bandwidth of the NVMe drive that is assumed for each device [B/s].

    >>> round(one_drive() / 1e9, 1)
    6.3
    """
    return PINNED * float(hwdb.link("pcie4-x16").bandwidth) * DRIVE_LANES / 16


def rates(recipe: Recipe, device: Device) -> Rates:
    """The bandwidths that copies of a step's passes run at; infinite where none leave the device.
    Raises BadInput where the device has no known link to a host.
    """
    if not {"activations", "parameters"} & set(recipe.offload):
        return Rates(np.inf)
    return Rates(link(device), recipe.nvme or np.inf)


def copied(
    kept: ArrayLike, weights: ArrayLike, gradients: ArrayLike, phase: str, at: Rates
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and bytes of what a layer copies in one pass. Broadcasts.

        forward:  max(kept / link, weights in)
        backward: max(gradients / link, (kept + weights) / link, weights / drives)

    kept: activations; weights: of the layer, 0 where they need not come; gradients: that leave
    [bytes]. Links carry both directions at once.
    """
    kept, weights = np.asarray(kept, dtype=float), np.asarray(weights, dtype=float)
    gradients = np.asarray(gradients, dtype=float)
    down, up = (weights, kept) if phase == "forward" else (weights + kept, gradients)
    seconds = np.maximum(np.maximum(down, up) / at.link, weights / at.drives)
    return seconds, kept + weights + gradients


def update_seconds(
    weights: ArrayLike, step: Step, device: Device, gradient_bytes: float
) -> np.ndarray:
    """Seconds of an optimizer step on the host over so many weights. Broadcasts.

    gradient_bytes: bytes of one gradient. Where parameters are on the host too, gradients are there
    already and weights need not go up. States on NVMe drives are read and written.
    """
    recipe, width = step.recipe, step.trained_width
    assert recipe.optimizer is not None, "an offloaded optimizer is one"
    held = 4.0 if recipe.stack.master else width
    read, written = update_traffic(optimizer(recipe.optimizer), 1.0, held, True)
    down, up = gradient_bytes / link(device), width / link(device)
    if "parameters" in recipe.offload:
        down = up = 0.0
    stored = read + written - held + (width if "parameters" in recipe.offload else 0.0)
    drives = stored / recipe.nvme if recipe.nvme else 0.0
    return np.asarray(weights) * max(down, up, (read + written) / HOST_BANDWIDTH, drives)


def host_bytes(recipe: Recipe, weights: ArrayLike, trained: ArrayLike, widths: Widths) -> Beside:
    """Bytes of a rank in host memory and on NVMe drives; activations apart. Broadcasts.

    weights, trained: of the rank's shard; widths: bytes of a weight, a trained one, its gradient.
    """
    states = 0.0
    if "optimizer" in recipe.offload and recipe.optimizer is not None:
        o, master = optimizer(recipe.optimizer), recipe.stack.master
        states = (4.0 * (1 + o.states) if master else o.states * widths.trained) + o.fixed
    moved = states * np.asarray(trained, dtype=float)
    buffers = 0.0 * moved
    if "parameters" in recipe.offload:
        moved = moved + widths.weight * np.asarray(weights)
    if "optimizer" in recipe.offload:  # gradients, where the host sums them up and updates
        buffers = widths.gradient * np.asarray(trained, dtype=float)
    return Beside(buffers, moved) if recipe.nvme else Beside(buffers + moved, 0.0 * moved)
