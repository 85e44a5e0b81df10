"""Options of a server whose prompts have devices of their own (disaggregated serving)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.reports.completion import completing
from roofcast.reports.option_types import Whole

if TYPE_CHECKING:
    from roofcast.simulator.serving.asked import Serving
    from roofcast.simulator.serving.pools.asked import Pools

POOLS = ("prefill", "decode")
DEGREES = ("tp", "pp", "ep", "dp")
NAMES = (
    "prefill_on", "transfer_bandwidth", *(f"{pool}_devices" for pool in POOLS),
    *(f"{pool}_{name}" for pool in POOLS for name in DEGREES),
)  # fmt: skip


def pools(function: Any) -> Any:
    """The options on two pools."""
    given = [
        click.option(
            "--prefill-devices", type=Whole(), metavar="N",
            help="Devices for prompts alone (disaggregated serving); with --decode-devices.",
        ),
        click.option(
            "--decode-devices", type=Whole(), metavar="N", help="Devices that decode alone."
        ),
        click.option(
            "--prefill-on", metavar="DEVICE", shell_complete=completing("device"),
            help="Device of the prefill pool. Default: that of --on.",
        ),
        click.option(
            "--transfer-bandwidth", metavar="BANDWIDTH",
            help="Link that carries the cache between the pools, per device and direction: 50GB/s."
            " Default: that of the system.",
        ),
    ]  # fmt: skip
    given += [
        click.option(
            f"--{pool}-{name}", type=Whole(), metavar="N",
            help=f"--{name} of the {pool} pool. Default: --{name}.",
        )
        for pool in POOLS
        for name in DEGREES
    ]  # fmt: skip
    for option in reversed(given):
        function = option(function)
    return function


def pools_of(given: dict[str, Any], asked: Serving) -> Pools | None:
    """Two pools, where they are asked for; else None. given: values by NAMES, and devices.

    Raises BadInput for what does not go together.
    """
    if all(given.get(name) is None for name in NAMES):
        return None
    missing = [f"--{pool}-devices" for pool in POOLS if given.get(f"{pool}_devices") is None]
    if missing:
        raise BadInput(
            f"two pools: {' and '.join(missing)} not given; give the devices of both, for example"
            " --prefill-devices 8 --decode-devices 8"
        )
    if asked.devices is not None:
        raise BadInput("--devices with --prefill-devices: give the devices of each pool alone")
    from roofcast.hwdb.units import check_has_unit, quantity
    from roofcast.simulator.serving.pools.asked import Pools

    each = {pool: _one(given, pool, asked) for pool in POOLS}
    other = given.get("prefill_on")
    if other is not None and other != asked.device:
        # edits and the system are those of --on
        each["prefill"] = msgspec.structs.replace(
            each["prefill"], device=other, set={}, system=None
        )
    each["prefill"] = msgspec.structs.replace(each["prefill"], speculate=0, acceptance=None)
    text = given.get("transfer_bandwidth")
    try:
        check_has_unit(text, "B/s", " GB/s")
    except BadInput as error:
        raise BadInput(f"--transfer-bandwidth {text}: {error}") from None
    speed = None if text is None else float(quantity(text, "B/s"))
    return Pools(prefill=each["prefill"], decode=each["decode"], bandwidth=speed)


def _one(given: dict[str, Any], pool: str, asked: Serving) -> Serving:
    """What is asked of one pool."""
    degrees = {
        name: value for name in DEGREES if (value := given.get(f"{pool}_{name}")) is not None
    }
    return msgspec.structs.replace(asked, devices=given[f"{pool}_devices"], **degrees)
