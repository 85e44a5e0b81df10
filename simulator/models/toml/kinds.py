"""The table of all kinds of layer that a TOML list may name."""

from __future__ import annotations

from roofcast.simulator.models.toml import dense, sequence, spatial  # noqa: F401  these register
from roofcast.simulator.models.toml.keys import Branch, Group, Residual
from roofcast.simulator.models.toml.kind import KINDS, Kind

__all__ = ["KINDS"]

EVERY = ("features", "tokens", "space")
# kinds that hold other layers: run.py runs them
KINDS |= {
    "group": Kind(Group, "Layers in order under one name.", ("ids", *EVERY)),
    "residual": Kind(Residual, "The result of layers added to the input.", EVERY),
    "branch": Kind(Branch, "Lists of layers on one input, joined.", ("ids", *EVERY)),
}
