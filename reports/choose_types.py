"""Values of the options of roofcast choose: limits with units, devices, pools, prices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput, quoted, unknown
from roofcast.hwdb.market import Own, own_prices, priced
from roofcast.hwdb.names import placed
from roofcast.hwdb.strict import load
from roofcast.hwdb.units import quantity
from roofcast.simulator.choose.amounts import limit

EXAMPLES = {"s": "10d", "USD": "50k", "W": "200kW", "J": "20MWh"}
EVERY = "all"


class Limit(click.ParamType):
    """A positive amount with a unit; of money also with a suffix: 50k."""

    name = "amount"

    def __init__(self, unit: str):
        self.unit = unit

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The amount in SI units; raises BadInput where it is none, or not positive."""
        option = param.opts[0] if param is not None else "limit"
        try:
            number = limit(value, self.unit)
        except BadInput as error:
            if "did you mean" in str(error):
                raise BadInput(f"{option} {value}: {error}") from None
            number = 0.0
        if not number > 0:
            raise BadInput(
                f"{option} {value}: not an amount above zero; give for example"
                f" {EXAMPLES[self.unit]}"
            )
        return number


class Sure(click.ParamType):
    """A probability in percent."""

    name = "percent"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """The percentage; raises BadInput unless it is a whole one from 50 to 99."""
        try:
            number = float(str(value).removesuffix("%"))
        except ValueError:
            number = 0.0
        if 50 <= number <= 99 and number == int(number):
            return int(number)
        share = round(100 * number)
        hint = f"did you mean {share}?" if 50 <= share <= 99 else "for example 90"
        raise BadInput(f"--sure {value}: a whole percentage from 50 to 99 is wanted; {hint}")


def chosen_devices(on: Sequence[str], vendors: Sequence[str]) -> list[str] | None:
    """Devices to choose from: those named, those of these vendors; None where none is named."""
    if vendors:
        makers = {name: hwdb.device(name).vendor for name in hwdb.devices()}
        known = sorted(set(makers.values()))
        for vendor in vendors:
            if vendor.lower() not in map(str.lower, known):
                raise unknown("vendor", vendor, known, f"known: {', '.join(known)}")
        wanted = {vendor.lower() for vendor in vendors}
        found = [name for name, maker in makers.items() if maker.lower() in wanted]
        return _distinct([*found, *on])
    if not on:
        return None
    if EVERY in on:
        return list(hwdb.devices())
    return _distinct(on)


def _distinct(named: Sequence[str]) -> list[str]:
    """These devices as they are typed, each once. Raises BadInput where two files have one name."""
    found: dict[str, hwdb.Device] = {}
    for name in named:
        device = hwdb.device(name)
        before = found.setdefault(device.id, device)
        if before != device:
            raise BadInput(
                f"--on: {before.typed} and {device.typed} are two devices of one name; rename a"
                " file"
            )
    return [device.typed for device in found.values()]


def pool(path: str) -> dict[str, int]:
    """Devices that there are, from a file: name, or path of its own file beside that one, ->
    number. Raises BadInput or UnknownName.
    """
    tree = load(Path(path), "a pool: a table [devices] of name = number", "pool")
    table = tree.get("devices")
    if not isinstance(table, dict) or not table or set(tree) != {"devices"}:
        raise BadInput(f"{path}: wanted one table [devices], for example h100-sxm5 = 16")
    found = {}
    for name, number in table.items():
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= 10**6:
            raise BadInput(
                f"{path}: {name} = {quoted(number)}: a whole number of devices is wanted, at least"
                " 1"
            )
        found[hwdb.device(placed(name, path)).typed] = number
    return found


def prices_of(
    path: str | None, given: Sequence[str], among: Sequence[str] | None = None
) -> dict[str, Own]:
    """The user's prices by `id` of the device: of a file, and of DEVICE=USD.

    among: the devices to choose from, whose files may be named without their ending.
    """
    found = own_prices(path, among or ()) if path is not None else {}
    for text in given:
        name, sign, value = text.rpartition("=")
        try:
            usd = quantity(value.strip(), "USD/h")
        except BadInput:
            usd = -1.0
        if not sign or not name.strip() or not 0 <= usd < 1e6:
            raise BadInput(
                f"--price {text}: not DEVICE=USD; write for example --price h100-sxm5=2.10"
            )
        device = priced(name.strip(), among or ())
        own = (
            {field: getattr(found[device], field) for field in Own.__struct_fields__}
            if device in found
            else {}
        )
        rents = dict.fromkeys(("on_demand", "spot", "reserved_1y", "reserved_3y"), usd)
        found[device] = Own(**{**own, **rents})
    return found
