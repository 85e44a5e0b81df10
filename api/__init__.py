"""Roofcast: forecasts of training and inference steps. The public names; each is imported when it
is first used.

from roofcast import predict
print(predict("llama-3-8b", device="h100-sxm5"))
"""

from importlib import import_module

_HOME = {
    "predict": "simulator.forecast.predict",
    "largest_batch": "simulator.forecast.chain",
    "count": "simulator.forecast.counts",
    "Scenario": "simulator.forecast.scenario",
    "Forecast": "simulator.forecast.result",
}


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'roofcast' has no attribute {name!r}")
    value = getattr(import_module(f"roofcast.{_HOME[name]}"), name)
    globals()[name] = value
    return value
