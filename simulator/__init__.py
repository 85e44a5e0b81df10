"""The engine: a scenario in, a forecast out. Importing it costs nothing until something is used."""

from importlib import import_module

_HOME = {"predict": "chain", "largest_batch": "chain", "Scenario": "scenario", "Forecast": "forecast"}

__all__ = ["Forecast", "Scenario", "largest_batch", "predict"]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'simulator' has no attribute {name!r}")
    value = getattr(import_module(f"simulator.{_HOME[name]}"), name)
    globals()[name] = value
    return value
