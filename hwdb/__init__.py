"""The hardware database: one TOML file per device, link and system, and one strict reader.

Importing this package costs nothing: a name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roofcast.hwdb.errors import BadInput, RoofcastError, UnknownName
    from roofcast.hwdb.figure import Figure, Table
    from roofcast.hwdb.listing import Summary, figures, summary
    from roofcast.hwdb.lookup import device, devices, link, links, system, systems
    from roofcast.hwdb.records import FORMATS, KINDS, Device, Level, Link, Memory, System
    from roofcast.hwdb.units import pretty, quantity

_MODULES = {
    "device": "lookup", "devices": "lookup", "link": "lookup", "links": "lookup",
    "system": "lookup", "systems": "lookup", "figures": "listing", "summary": "listing",
    "Summary": "listing", "Device": "records", "Link": "records", "System": "records",
    "Memory": "records", "Level": "records", "FORMATS": "records", "KINDS": "records",
    "Figure": "figure", "Table": "figure", "quantity": "units", "pretty": "units",
    "RoofcastError": "errors", "UnknownName": "errors", "BadInput": "errors",
}  # fmt: skip
"""Public name: the module of this folder that defines it."""

__all__ = [
    "FORMATS", "KINDS", "BadInput", "Device", "Figure", "Level", "Link", "Memory", "RoofcastError",
    "Summary", "System", "Table", "UnknownName", "device", "devices", "figures", "link", "links",
    "pretty", "quantity", "summary", "system", "systems",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'roofcast.hwdb' has no attribute {name!r}")
    value = getattr(import_module(f"roofcast.hwdb.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
