"""Roofcast: how long a neural network takes to train, what it needs, and what limits it.

    from roofcast import predict

    print(predict("llama-3-8b", device="h100-sxm5"))

The public names, each imported when it is first used: predict, count, roofline, sensitivity,
search, choose, assign, compress, serving, largest_batch, Scenario, Forecast, RoofcastError,
hwdb, __version__.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roofcast import hwdb
    from roofcast.calls import predict, roofline, sensitivity
    from roofcast.choosing import assign, choose, search
    from roofcast.compressing import compress
    from roofcast.hwdb.errors import RoofcastError
    from roofcast.results import Forecast
    from roofcast.served import Served, serving
    from roofcast.simulator.forecast.chain import largest_batch
    from roofcast.simulator.forecast.counts import count
    from roofcast.simulator.forecast.scenario import Scenario

    __version__: str

_HOME = {
    "predict": "calls",
    "roofline": "calls",
    "sensitivity": "calls",
    "assign": "choosing",
    "choose": "choosing",
    "search": "choosing",
    "serving": "served",
    "Served": "served",
    "compress": "compressing",
    "Forecast": "results",
    "count": "simulator.forecast.counts",
    "RoofcastError": "hwdb.errors",
    "largest_batch": "simulator.forecast.chain",
    "Scenario": "simulator.forecast.scenario",
}

__all__ = [
    "Forecast",
    "RoofcastError",
    "Scenario",
    "Served",
    "__version__",
    "assign",
    "choose",
    "compress",
    "count",
    "hwdb",
    "largest_batch",
    "predict",
    "roofline",
    "search",
    "sensitivity",
    "serving",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("roofcast")
    elif name == "hwdb":
        value = import_module("roofcast.hwdb")
    elif name in _HOME:
        value = getattr(import_module(f"roofcast.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module 'roofcast' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
