"""What forecasts run on: one TOML file a device, link or system, and one strict reader.

Importing this costs nothing: a name is loaded when it is first used.
"""

from importlib import import_module

_HOME = {
    "device": "lookup", "devices": "lookup", "link": "lookup", "links": "lookup",
    "system": "lookup", "systems": "lookup", "figures": "listing", "summary": "listing",
    "Summary": "listing", "Device": "records", "Link": "records", "System": "records",
    "Memory": "records", "Level": "records", "FORMATS": "records", "KINDS": "records",
    "Figure": "figure", "Table": "figure", "quantity": "units", "pretty": "units",
    "RoofcastError": "errors", "UnknownName": "errors", "BadInput": "errors",
}  # fmt: skip

__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'hwdb' has no attribute {name!r}")
    value = getattr(import_module(f"roofcast.hwdb.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return list(__all__)
