"""What `predict` is asked: a frozen value that can be saved, read, compared."""

from __future__ import annotations

import msgspec


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A model on a device, and how. What is left out gets a stated default."""

    model: str  # shipped name, path of a config.json, .toml of layers or .onnx, my_net.py:MyNet; in Python also a module in hand
    device: str  # name or path of a device
    inputs: tuple[str, ...] = ()  # what a traced module takes: "64x3x32x32", "ids=64x128:int64"
    set: dict[str, str | float | int] = {}  # edits of the device: {"memory.bandwidth": "8 TB/s"}
    mode: str = "train"  # train | infer
    batch: int | None = None  # samples a step
    sequence: int | None = None  # tokens a sample
    image: int | None = None  # pixels a side
    precision: str | None = None
    optimizer: str | None = None
    recompute: str = "none"  # none | selective | full
    attention: str | None = None  # eager | efficient | flash
    stack: str | None = None
    memory_format: str | None = None  # of images: contiguous | channels_last
    tokens: str | float | None = None  # length of the run, in tokens ...
    samples: str | float | None = None  # ... or samples an epoch
    epochs: float | None = None
    price_per_hour: float | None = None  # USD a device and hour, where the device's own is not wanted
