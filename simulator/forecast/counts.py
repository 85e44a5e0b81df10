"""What a step computes, keeps and moves, by named op: Step -> Counts. No device, no time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from roofcast.simulator import models
from roofcast.simulator.forecast.encoded import encoders_of
from roofcast.simulator.forecast.recipes import recipe_of
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.forecast.tuned import tuned_fields
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.step import Step, trace
from roofcast.simulator.work.traced import Kernel

if TYPE_CHECKING:
    import pandas

PRECISION = "bf16"  # counted where none is asked for
STACK = "pytorch-eager"


class LayerCount(msgspec.Struct, frozen=True, kw_only=True):
    """One named op of the model, summed over its `count` repetitions, one step."""

    name: str  # path in the model, "model.layers.self_attn.q_proj"
    op: str  # what it is: "linear", "attention", "rms_norm" ...
    count: int
    parameters: int
    flops_forward: int  # matrix products, convolutions, attention; a multiply-add is 2 [FLOP]
    flops_backward: int
    flops_other_forward: int  # everything else: vector operations and special functions
    flops_other_backward: int
    saved_bytes: int  # activations kept from forward to backward [B]
    saved_input_bytes: int
    saved_weight_copy_bytes: int
    bytes_forward: int  # every operand of every kernel read or written once [B]
    bytes_backward: int


SUMMED = LayerCount.__struct_fields__[3:]
SAVED = {  # kind of kept storage -> its field
    "activation": "saved_bytes",
    "input": "saved_input_bytes",
    "weight_copy": "saved_weight_copy_bytes",
}


def _of_which(counts: Counts) -> str:
    """How many of the parameters a token uses, and how many train, where not all."""
    trainable, active = counts.trainable_parameters, counts.active_parameters
    found = [f"{active:,} are used by one token"] if active is not None else []
    if trainable is not None and trainable < counts.parameters:
        found.append(f"{trainable:,} train")
    return f", of which {' and '.join(found)}" if found else ""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of one step: what was asked, totals, and the layers that sum to them."""

    model: str
    mode: str  # train | infer
    batch: int
    sequence: int | None
    image: int | None
    precision: str
    attention: str
    stack: str

    parameters: int
    active_parameters: int | None = None  # that one token uses; None where it uses all
    trainable_parameters: int | None = None  # adapters among them; None in inference
    lora: int | None = None  # rank of the adapters
    adapted: tuple[str, ...] = ()  # names of the layers with adapters
    weights: str | None = None  # format of frozen weights, where it was asked for
    flops_forward: int  # what PyTorch's FlopCounterMode counts
    flops_backward: int
    flops_other_forward: int  # what it leaves out
    flops_other_backward: int
    # activations proper: without the step's inputs and autocast's copies of weights
    saved_bytes: int
    saved_input_bytes: int
    saved_weight_copy_bytes: int
    bytes_forward: int
    bytes_backward: int

    layers: tuple[LayerCount, ...]
    assumptions: tuple[str, ...] = ()

    def __str__(self) -> str:
        size = f" x {self.sequence} tokens" if self.sequence else ""
        size += f" images of {self.image}" if self.image else ""
        step = "training step" if self.mode == "train" else "inference pass"
        rows = (
            ("parameters", f"{self.parameters:,}{_of_which(self)}"),
            ("FLOP", f"forward {self.flops_forward:,}, backward {self.flops_backward:,}"),
            (
                "other operations",
                f"forward {self.flops_other_forward:,}, backward {self.flops_other_backward:,}",
            ),
            (
                "saved for backward",
                f"{self.saved_bytes:,} B, and inputs {self.saved_input_bytes:,} B",
            ),
            ("traffic", f"forward {self.bytes_forward:,} B, backward {self.bytes_backward:,} B"),
            ("layers", f"{len(self.layers)} named ops, listed in .layers"),
        )
        what = f"batch {self.batch}{size}, {self.precision}, {self.stack}"
        head = f"{self.model}: counts of one {step}\n  {'scenario':<20} {what}"
        return "\n".join([head, *(f"  {label:<20} {text}" for label, text in rows)])

    __repr__ = __str__

    def to_frame(self) -> pandas.DataFrame:
        """The layers as a pandas table, one row per named op."""
        import pandas

        return pandas.DataFrame([msgspec.structs.asdict(layer) for layer in self.layers])

    def to_json(self) -> bytes:
        """The counts as JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Counts:
        """The counts that `to_json` wrote."""
        return msgspec.json.decode(data, type=cls)


def count(
    model: Any,
    *,
    inputs: Sequence[str] = (),
    mode: str = "train",
    batch: int | None = None,
    sequence: int | None = None,
    image: int | None = None,
    precision: str | None = None,
    attention: str | None = None,
    stack: str | None = None,
    lora: int | None = None,
    lora_targets: str | None = None,
    lora_precision: str | None = None,
    lora_dropout: float | None = None,
    dora: bool | None = None,
    prompt_tuning: int | None = None,
    prefix_tuning: int | None = None,
    freeze: str | None = None,
    train: str | None = None,
    weights: str | None = None,
    encoders: str | None = None,
    train_text_encoder: bool | None = None,
) -> Counts:
    """Counts of one step of a model, without a device.

    model: a shipped name, a path, or a torch module in hand; inputs: shapes of what a traced module
    takes, "64x3x32x32"; mode: "train" or "infer"; batch: samples (default: 1 sequence, 32 images);
    sequence: tokens; image: pixels per side; precision: default "bf16"; stack: default
    "pytorch-eager"; attention: "eager", "efficient" or "flash" (default: the stack's);
    lora, lora_targets, lora_precision, lora_dropout, dora, prompt_tuning, prefix_tuning, freeze,
    train, weights, encoders and train_text_encoder as of `predict`.
    Raises RoofcastError. Printed, the counts are a summary.

    >>> gpt2 = count("gpt2", batch=1, sequence=1024)
    >>> gpt2.parameters, gpt2.flops_forward
    (124439808, 291648307200)
    """
    scenario, defaults = _asked(dict(locals()))
    net = encoders_of(scenario, models.resolve(model, scenario.inputs))
    if scenario.batch is None and net.batch:
        scenario = msgspec.structs.replace(scenario, batch=net.batch)
    # a device would only choose the precision and the stack
    recipe, assumptions = recipe_of(scenario, net, None)
    step = trace(net, msgspec.structs.replace(recipe, optimizer=None))
    return _counts(net, step, (*defaults, *assumptions, *step.assumptions))


def _counts(net: Model, step: Step, assumptions: tuple[str, ...]) -> Counts:
    """The counts of a step of a model."""
    recipe = step.recipe
    sums, layers = tally(step)
    summed: dict[str, Any] = dict(sums)
    active = step.active_parameters
    return Counts(
        active_parameters=active if active < sums["parameters"] else None,
        model=net.name,
        mode=recipe.mode,
        batch=recipe.batch,
        sequence=recipe.size if net.takes == "sequence" else None,
        image=recipe.size if net.takes == "image" else None,
        precision=recipe.precision,
        attention=step.attention,
        stack=recipe.stack.name,
        **tuned_fields(step),
        **summed,
        layers=layers,
        assumptions=assumptions,
    )


def _asked(given: dict[str, Any]) -> tuple[Scenario, list[str]]:
    """The scenario of the arguments of `count`, and a line for each default."""
    usual: dict[str, Any] = {"precision": PRECISION, "stack": STACK}
    defaults = [f"{k} {v} (not given)" for k, v in usual.items() if given[k] is None]
    chosen = given | {k: given[k] or v for k, v in usual.items()}
    chosen["inputs"] = tuple(given["inputs"])
    training = given["mode"] == "train"
    return Scenario(device="", optimizer="sgd" if training else None, **chosen), defaults


def tally(step: Step) -> tuple[dict[str, int], tuple[LayerCount, ...]]:
    """The totals of a step without its update, and its named ops in forward order, which sum to
    them.
    """
    ops: dict[str, str] = {}
    rows: dict[str, dict[str, float]] = {}
    of_node = []
    for node in step.nodes:
        ops.setdefault(node.name, node.op)
        row = rows.setdefault(node.name, dict.fromkeys(("count", *SUMMED), 0))
        row["count"] += node.count
        of_node.append(row)
    for weight in step.weights:
        of_node[weight.node]["parameters"] += weight.size * weight.count
    for kernel in step.kernels:
        if kernel.phase in ("forward", "backward"):
            _add(of_node[kernel.node], kernel)
    for kept in step.saved:
        of_node[kept.node][SAVED[kept.kind]] += kept.bytes * kept.count
    layers = tuple(
        LayerCount(name=name, op=ops[name], **{key: int(n) for key, n in row.items()})
        for name, row in rows.items()
    )
    return {key: sum(getattr(layer, key) for layer in layers) for key in SUMMED}, layers


def _add(row: dict[str, float], kernel: Kernel) -> None:
    row[f"flops_{kernel.phase}"] += kernel.matrix * kernel.count
    row[f"flops_other_{kernel.phase}"] += (kernel.vector + kernel.special) * kernel.count
    row[f"bytes_{kernel.phase}"] += (kernel.read + kernel.written) * kernel.count
