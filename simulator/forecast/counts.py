"""What a step computes, keeps and moves, counted by named op: Step -> Counts. No device, no
time.
"""

from __future__ import annotations

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.simulator import models
from roofcast.simulator.forecast.resolve import recipe_of
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.work.step import Step, trace
from roofcast.simulator.work.traced import Kernel

PRECISION = "bf16"  # counted where none is asked for
STACK = "pytorch-eager"
ASKED = ("inputs", "mode", "batch", "sequence", "image", "precision", "attention", "stack")


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

    def to_json(self) -> bytes:
        """The counts as JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Counts:
        """The counts that `to_json` wrote."""
        return msgspec.json.decode(data, type=cls)


def count(model, /, **asked) -> Counts:
    """Counts of one step of a model: a name, a path, a torch module in hand. `asked` are fields of
    the Scenario.

    >>> gpt2 = count("gpt2", batch=1, sequence=1024)
    >>> gpt2.parameters, gpt2.flops_forward
    (124439808, 291648307200)
    """
    for key in asked:
        if key not in ASKED:
            raise BadInput(f"count takes {', '.join(ASKED)}; not {key}")
    given = {key: value for key, value in asked.items() if value is not None}
    said = [
        f"{key} {default} (not given)"
        for key, default in (("precision", PRECISION), ("stack", STACK))
        if key not in given
    ]
    given = {"precision": PRECISION, "stack": STACK, **given}
    training = given.get("mode", "train") == "train"
    scenario = Scenario(model=model, device="", optimizer="sgd" if training else None, **given)
    net = models.resolve(model, scenario.inputs)
    if scenario.batch is None and net.batch:
        scenario = msgspec.structs.replace(scenario, batch=net.batch)
    # a device would only choose the precision and the stack
    recipe, more = recipe_of(scenario, net, None)
    step = trace(net, msgspec.structs.replace(recipe, optimizer=None))
    sums, layers = tally(step)
    size = {kind: recipe.size if net.takes == kind else None for kind in ("sequence", "image")}
    return Counts(
        model=net.name, mode=recipe.mode, batch=recipe.batch, **size, precision=recipe.precision,
        attention=recipe.stack.implementations.get("attention", "flash"), stack=recipe.stack.name,
        **sums, layers=layers, assumptions=(*said, *more, *step.said),
    )  # fmt: skip


def tally(step: Step) -> tuple[dict[str, int], tuple[LayerCount, ...]]:
    """The totals of a step, and its named ops in the order of the forward, which sum to them. The
    update is left out.
    """
    rows: dict[str, dict] = {}
    of_node = []
    for node in step.nodes:
        row = rows.setdefault(node.name, {"op": node.op, "count": 0, **dict.fromkeys(SUMMED, 0)})
        row["count"] += node.count
        of_node.append(row)
    for weight in step.weights:
        of_node[weight.node]["parameters"] += weight.size * weight.count
    for kernel in step.kernels:
        if kernel.phase in ("forward", "backward"):
            _add(of_node[kernel.node], kernel)
    keys = {
        "activation": "saved_bytes",
        "input": "saved_input_bytes",
        "weight_copy": "saved_weight_copy_bytes",
    }
    for kept in step.saved:
        of_node[kept.node][keys[kept.kind]] += kept.bytes * kept.count
    layers = tuple(
        LayerCount(name=name, **{key: row[key] if key == "op" else int(row[key]) for key in row})
        for name, row in rows.items()
    )
    return {key: sum(getattr(layer, key) for layer in layers) for key in SUMMED}, layers


def _add(row: dict, kernel: Kernel) -> None:
    row[f"flops_{kernel.phase}"] += kernel.matrix * kernel.count
    row[f"flops_other_{kernel.phase}"] += (kernel.vector + kernel.special) * kernel.count
    row[f"bytes_{kernel.phase}"] += (kernel.read + kernel.written) * kernel.count
