"""What `predict` is asked: a frozen value that can be saved, read, compared."""

from __future__ import annotations

import math

import msgspec

from roofcast.hwdb.errors import BadInput


class Scenario(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A model on a device, and how. What is left out gets a stated default."""

    # shipped name, path of a config.json, .toml of layers or .onnx, my_net.py:MyNet; in Python also
    # a module in hand
    model: str
    device: str  # name or path of a device
    inputs: tuple[str, ...] = ()  # what a traced module takes: "64x3x32x32", "ids=64x128:int64"
    set: dict[str, str | float | int] = {}  # edits of the device: {"memory.bandwidth": "8 TB/s"}
    mode: str = "train"  # train | infer
    batch: int | None = None  # samples a step
    sequence: int | None = None  # tokens a sample
    image: int | None = None  # pixels a side
    precision: str | None = None
    optimizer: str | None = None
    # none | selective | full | uniform:N | every:N | block:N | modules:NAME,NAME
    recompute: str = "none"
    offload: tuple[str, ...] = ()  # to the host's memory: activations, optimizer
    attention: str | None = None  # eager | efficient | flash
    stack: str | None = None
    memory_format: str | None = None  # of images: contiguous | channels_last
    # several devices: left out, one
    devices: int | None = None
    system: str | None = None  # node or pod that they stand in; left out, the device's usual one
    tp: int | None = None  # tensor parallel
    sp: bool | None = None  # with sequence parallel (default: where tp > 1)
    pp: int | None = None  # pipeline parallel
    vpp: int | None = None  # virtual stages a device
    stages: tuple[int, ...] = ()  # layers of each pipeline stage, or virtual one (default: alike)
    dp: int | None = None  # data parallel (default: the devices that are left)
    cp: int | None = None  # context parallel
    cp_kind: str | None = (
        # how attention meets the other ranks' tokens: ring | all-gather | ulysses (default: ring)
        None
    )
    ep: int | None = None  # expert parallel, over the ranks of a stage
    etp: int | None = None  # tensor parallel of an expert
    zero: int | None = None  # ZeRO stage 0 to 3; 3 is FSDP
    shard: int | None = (
        # ranks that one copy of what ZeRO shards is spread over (default: all that hold the same)
        None
    )
    # ZeRO 3: drop gathered weights after each pass (default; not in a pipeline)
    reshard: bool | None = None
    schedule: str | None = None  # gpipe | 1f1b | interleaved | zb-h1 | zb-v | dualpipe
    micro_batch: int | None = None  # samples a micro-batch; `batch` is then the global one
    tokens: str | float | None = None  # length of the run, in tokens ...
    samples: str | float | None = None  # ... or samples an epoch
    epochs: float | None = None
    # USD a device and hour, where the device's own is not wanted
    price_per_hour: float | None = None

    def __post_init__(self):
        price = self.price_per_hour
        if price is not None and not (math.isfinite(price) and price >= 0):
            raise BadInput(
                f"price_per_hour {price}: not a price; give dollars a device and hour, for"
                " example 2.5"
            )
