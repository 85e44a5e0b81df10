"""Options of what leaves the device for host memory or NVMe drives."""

from __future__ import annotations

from collections.abc import Callable

import click

from roofcast.simulator.choices import OFFLOAD, OFFLOAD_TO

# in the order of --help; each is a field of the Scenario
OFFLOADED: dict[str, Callable[[Callable], Callable]] = {
    "offload": click.option(
        "--offload",
        multiple=True,
        type=click.Choice(OFFLOAD),
        help=(
            "Keep activations, optimizer states, or parameters (with their gradients and the"
            " optimizer: ZeRO-Infinity, FSDP's CPU offload) in host memory; give it again for"
            " another. Adds host-device transfer time. Default: none."
        ),
    ),
    "offload_to": click.option(
        "--offload-to",
        type=click.Choice(OFFLOAD_TO),
        help="Where offloaded parameters and optimizer states lie: host memory, or NVMe drives."
        " Default: host.",
    ),
    "nvme_bandwidth": click.option(
        "--nvme-bandwidth",
        metavar="BANDWIDTH",
        help=(
            'Bandwidth of the NVMe drives, per device: "6 GB/s". Default: one PCIe 4.0 x4 drive'
            " for each device (6.3 GB/s)."
        ),
    ),
}
