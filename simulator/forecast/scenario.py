"""What `predict` is asked: a frozen value that can be saved, read, compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, Self

import msgspec

from roofcast.hwdb.errors import BadInput, quoted
from roofcast.hwdb.records import System

WHOLE = (
    "batch", "sequence", "image", "devices", "tp", "pp", "vpp", "dp", "cp", "ep", "etp", "zero",
    "shard", "micro_batch", "lora", "teacher_devices", "teacher_top_k",
    "prompt_tuning", "prefix_tuning",
)  # fmt: skip
TEXTS = (
    "device", "mode", "precision", "optimizer", "recompute", "attention", "stack", "memory_format",
    "cp_kind", "schedule", "lora_targets", "lora_precision", "freeze", "train", "weights",
    "sparsity", "prune", "teacher", "lengths", "region", "offload_to", "encoders", "teacher_on",
)  # fmt: skip
MOST = 10**15  # of any whole number
DEAREST = 1e9  # USD per device-hour


class Scenario(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A model on a device, and how. What is left out gets a default that the forecast lists."""

    # a shipped name, the path of a config.json, of a .toml list of layers or of an .onnx file, or
    # my_net.py:MyNet; in Python also a torch module in hand
    model: str
    device: str  # name, or path of a .toml file
    inputs: tuple[str, ...] = ()  # shapes a traced module takes: "64x3x32x32", "ids=64x128:int64"
    set: dict[str, str | float | int] = {}  # edits of the device: {"memory.bandwidth": "8 TB/s"}
    mode: str = "train"  # train | infer
    batch: int | None = None  # samples per step, of all devices
    sequence: int | None = None  # tokens per sample
    # samples of different lengths: "MEAN,MAX" or "MEAN,DEVIATION,MIN,MAX" in tokens, or a file
    lengths: str | None = None
    packing: bool | None = None  # they are packed into whole sequences; default: padded
    image: int | None = None  # side of a square image [pixels]
    precision: str | None = None
    optimizer: str | None = None
    # none | selective | full | uniform:N | every:N | block:N | modules:NAME,NAME
    recompute: str = "none"
    # kept in host memory: activations, optimizer, parameters
    offload: tuple[str, ...] = ()
    offload_to: str | None = None  # host | nvme: of parameters and optimizer; default: host
    nvme_bandwidth: str | float | None = None  # of the drives, per device: "6 GB/s"
    attention: str | None = None  # eager | efficient | flash
    stack: str | None = None
    memory_format: str | None = None  # of images: contiguous | channels_last
    # fine-tuning
    lora: int | None = None  # rank of LoRA's adapters; default: none
    # all (linear layers but heads and routers; default) | attention | mlp | q,v | a regular
    # expression
    lora_targets: str | None = None
    lora_precision: str | None = None  # fp32 | bf16 | fp16; default: that of the weights
    lora_dropout: float | None = None  # probability before the adapters; default: 0
    dora: bool | None = None  # adapters are DoRA's; default: no
    prompt_tuning: int | None = None  # virtual tokens that train, in front of the sequence
    prefix_tuning: int | None = None  # in front of the keys and values of every layer
    freeze: str | None = None  # regular expression of names whose weights do not train
    train: str | None = None  # of names whose weights train, the others do not
    # format of frozen weights: nf4 | int8 | fp8 | bf16 | int4 | nvfp4 | mxfp4 | q4_k_m
    weights: str | None = None
    # of a denoiser, run in each step: vae, text; default: none, latents and embeddings are cached
    encoders: str | None = None
    train_text_encoder: bool | None = None  # its CLIP text encoders train too; default: no
    # compression
    sparsity: str | None = None  # zeros among the weights: 2:4, or a percentage: 50%
    # a smaller net: heads=25%, ffn=25%, layers=25%, experts=50%, channels=25%, with commas
    prune: str | None = None
    teacher: str | None = None  # a frozen model whose logits the net is trained on: as `model`
    teacher_on: str | None = None  # other devices that the teacher runs on; default: the student's
    teacher_devices: int | None = None  # how many; default: 1
    teacher_top_k: int | None = None  # logits of a token that it sends; default: all
    # several devices
    devices: int | None = None
    system: str | System | None = None  # node or pod; default: the usual one of the device
    tp: int | None = None  # tensor parallel
    sp: bool | None = None  # sequence parallel; default: where tp > 1
    pp: int | None = None  # pipeline stages
    vpp: int | None = None  # virtual stages per device
    stages: tuple[int, ...] = ()  # layers of each pipeline or virtual stage; default: equal
    dp: int | None = None  # data parallel; default: the devices that are left
    cp: int | None = None  # context parallel
    cp_kind: str | None = None  # context-parallel algorithm: ring (default) | all-gather | ulysses
    ep: int | None = None  # expert parallel, over the ranks of a stage
    etp: int | None = None  # tensor parallel of an expert
    zero: int | None = None  # ZeRO stage, 0 to 3; 3 is FSDP
    shard: int | None = None  # size of a ZeRO sharding group; default: all with the same weights
    reshard: bool | None = None  # ZeRO 3: drop gathered weights after each pass; default: pp == 1
    schedule: str | None = None  # a name of choices.SCHEDULES
    micro_batch: int | None = None  # samples per micro-batch
    # the run: its tokens; or samples of the data set, passed `epochs` times
    tokens: str | float | None = None
    samples: str | float | None = None
    epochs: float | None = None
    price_per_hour: float | None = None  # USD per device-hour; default: the rent in hwdb/prices
    # where it runs
    pue: float | None = None  # power of the site over that of its machines; default: by site
    region: str | None = None  # country, state or cloud region: carbon of its electricity
    carbon: float | None = None  # carbon intensity of the electricity [g CO2e/kWh]
    embodied: bool | None = None  # also the carbon of making the hardware; default: no
    # what else is known of the run: the keys of simulator/campaign/terms.py
    campaign: dict[str, Any] = {}
    # files of the user's own measured runs, in the columns of `roofcast validate --runs`: they
    # calibrate the forecast
    runs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._require(WHOLE, _whole, "a whole number is wanted")
        self._require(WHOLE, lambda v: v <= MOST, f"at most {MOST:,} is wanted")
        self._require(TEXTS, lambda v: isinstance(v, str), "a text is wanted")
        self._require(
            ("sp", "reshard", "packing", "dora", "embodied", "train_text_encoder"),
            lambda v: isinstance(v, bool),
            "True or False is wanted",
        )
        numbers = ("epochs", "price_per_hour", "lora_dropout", "pue", "carbon")
        self._require(numbers, _number, "a number is wanted")
        edits = 'a dict of changes is wanted, for example {"memory.bandwidth": "x2"}'
        self._require(("set",), lambda v: isinstance(v, Mapping), edits)
        of_run = 'a dict is wanted, for example {"start": "2027-01-01"}'
        self._require(("campaign",), lambda v: isinstance(v, Mapping), of_run)
        layers = "a list of whole numbers is wanted, one per stage, for example [16, 16]"
        self._require(("stages",), _wholes, layers)
        paths = 'a list of files is wanted, for example ["mine.csv"]'
        self._require(("runs",), _paths, paths)
        price = self.price_per_hour
        if price is not None and not 0 <= price <= DEAREST:
            raise BadInput(
                f"price_per_hour {price:g}: a price in USD per device-hour is wanted, for example"
                " 2.5"
            )
        self._as_read()

    def to_json(self) -> bytes:
        """The scenario as JSON. Raises BadInput where its system is a record, which has a file."""
        if isinstance(self.system, System):
            raise BadInput(f"system {self.system.id}: a record is not saved; give its name or file")
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """The scenario that `to_json` wrote."""
        return msgspec.json.decode(data, type=cls)

    def _as_read(self) -> None:
        """Numbers and lists in the types that a saved scenario is read in, so that both are
        equal.
        """
        for name in (
            "tokens", "samples", "epochs", "price_per_hour", "lora_dropout", "pue", "carbon",
        ):  # fmt: skip
            value = getattr(self, name)
            if _number(value) and type(value) is not float:
                msgspec.structs.force_setattr(self, name, float(value))
        for name in ("inputs", "offload", "stages", "runs"):
            value = getattr(self, name)
            if isinstance(value, list):
                msgspec.structs.force_setattr(self, name, tuple(value))

    def _require(self, names: tuple[str, ...], test: Callable[[Any], bool], wanted: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and not test(value):
                raise BadInput(f"{name} {quoted(value, 60)}: {wanted}")


def _whole(value: Any) -> bool:
    if type(value) is int:  # the check of an abstract class takes a microsecond
        return True
    return isinstance(value, Integral) and not isinstance(value, bool)


def _wholes(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(_whole(v) and v <= MOST for v in value)


def _paths(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(isinstance(v, str) for v in value)


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
