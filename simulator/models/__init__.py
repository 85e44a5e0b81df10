"""Models by shipped name, from a Hugging Face config.json, or from a TOML list of layers."""

from roofcast.simulator.models.catalog import Model, describe, from_config, names, resolve

__all__ = ["Model", "describe", "from_config", "names", "resolve"]
