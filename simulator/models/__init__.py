"""Models: from a shipped name, a Hugging Face config.json, or a plain TOML list of layers to a
program for the tape.
"""

from roofcast.simulator.models.catalog import Model, describe, from_config, names, resolve

__all__ = ["Model", "describe", "from_config", "names", "resolve"]
