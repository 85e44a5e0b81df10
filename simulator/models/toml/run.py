"""Runs a list of layers on a tape: shapes follow from layer to layer and are checked here."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.toml.keys import ACTIVATIONS, Branch, Embedding, Keys, Linear
from roofcast.simulator.models.toml.kind import Kind, shape_text
from roofcast.simulator.models.toml.kinds import KINDS
from roofcast.simulator.models.toml.parse import Layer
from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.tape import Tape, Value

LARGEST = 2**53  # elements of one tensor per sample; no memory holds more
IDS_FIRST = "the net's tokens and vocabulary give ids, and only a first layer may take them"
CURES = {  # form of the input, form that the layer takes -> what to put in between
    ("space", "features"): "put a 'flatten' or 'global_avg_pool' layer before it",
    ("space", "tokens"): "put a 'to_tokens' layer before it",
    ("tokens", "space"): "put a 'to_channels' layer before it",
    ("features", "space"): (
        "put a 'reshape' layer before it, with shape = [channels, height, width]"
    ),
}


class Flow(NamedTuple):
    """A value between layers, its form, and the shape it had before it was flattened."""

    value: Value
    form: str  # ids | features | tokens | space
    unflattened: tuple[int, ...] = ()
    vocabulary: int = 0


def run(t: Tape, flow: Flow, layers: tuple[Layer, ...]) -> Flow:
    """Run the layers in order. Raises BadInput where a layer cannot take its input."""
    for layer in layers:
        once = layer.keys.repeat == 1
        flow = _once(t, flow, layer, layer.name) if once else _repeated(t, flow, layer)
    return flow


def _repeated(t: Tape, flow: Flow, layer: Layer) -> Flow:
    """A layer `repeat` times: one by one until the shape stays, and the rest traced once."""
    for done in range(layer.keys.repeat):
        form = _stable_form(t, flow, layer)
        if form is not None:
            name = f"{layer.name}.{done + 1}" if done else layer.name
            rest = layer.keys.repeat - done

            def body(x: Value, before: Flow = flow) -> Value:
                return _once(t, before._replace(value=x), layer, "").value

            return Flow(t.repeat(name, rest, body, flow.value), form)
        flow = _once(t, flow, layer, f"{layer.name}.{done + 1}")
    return flow


def _stable_form(t: Tape, flow: Flow, layer: Layer) -> str | None:
    """The form of the output if its shape and form are those of the input; otherwise None.

    The layer runs on a tape of its own, which is thrown away.
    """
    aside = Tape(t.precision, training=t.training, implementations=t.implementations)
    x = aside.new(flow.value.shape, flow.value.dtype, flow.value.grad)
    out = _once(aside, flow._replace(value=x), layer, layer.name)
    return out.form if (out.value.shape, out.form) == (flow.value.shape, flow.form) else None


def _once(t: Tape, flow: Flow, layer: Layer, name: str) -> Flow:
    """One layer under `name`; an empty name where a scope has the name already."""
    kind = KINDS[layer.kind]
    if flow.form not in kind.takes:
        raise BadInput(
            f"{layer.where}: takes {' or '.join(kind.takes)}, but its input is"
            f" {shape_text(flow.value.shape)} ({flow.form}); {_cure(flow.form, kind)}"
        )
    if kind.run is None:
        hold = HOLDERS[layer.kind]
        if not name:
            return hold(t, flow, layer)
        with t.scope(name):
            return hold(t, flow, layer)
    keys = _agreed(flow, layer)
    try:
        out = _value(t, flow.value, kind, kind.run, keys, name)
    except BadInput as error:
        raise BadInput(f"{layer.where}: {error}") from None
    if out.size // out.shape[0] > LARGEST:
        raise BadInput(
            f"{layer.where}: its output {shape_text(out.shape)} is larger than any memory; use"
            " smaller numbers"
        )
    return Flow(out, kind.gives or flow.form, _unflattened(flow, layer.kind))


def _value(
    t: Tape, x: Value, kind: Kind, body: Callable[[Tape, Value, Keys], Value], keys: Keys, name: str
) -> Value:
    if kind.op:
        with t.op(name, kind.op):
            return body(t, x, keys)
    if not name:
        return body(t, x, keys)
    with t.scope(name):
        return body(t, x, keys)


def _unflattened(flow: Flow, kind: str) -> tuple[int, ...]:
    """The shape before flattening, kept while only elementwise layers follow."""
    if kind == "flatten" and flow.form != "features":
        return flow.value.shape
    return flow.unflattened if kind in ("flatten", "dropout", *ACTIVATIONS) else ()


def _cure(form: str, kind: Kind) -> str:
    """What to put in front of a layer that does not take `form`."""
    if form == "ids":
        return "put an 'embedding' layer first"
    cures = (CURES[form, wanted] for wanted in kind.takes if (form, wanted) in CURES)
    return next(cures, IDS_FIRST)


def _agreed(flow: Flow, layer: Layer) -> Keys:
    """The layer's keys after a check against its input; an embedding gets its number of rows."""
    keys, width = layer.keys, flow.value.shape[-1]
    if isinstance(keys, Embedding):
        rows = keys.rows or flow.vocabulary
        if rows < flow.vocabulary:
            raise BadInput(
                f"{layer.where}: rows = {rows} is less than the vocabulary of {flow.vocabulary};"
                " leave rows out, or give more"
            )
        return msgspec.structs.replace(keys, rows=rows)
    if isinstance(keys, Linear) and keys.in_ not in (None, width):
        shape = shape_text(flow.value.shape)
        if flow.unflattened:
            shape = f"{shape_text(flow.unflattened)} = {width}"
        raise BadInput(
            f"{layer.where}: in = {keys.in_}, but the input is {shape}; write in = {width}, or"
            " leave it out"
        )
    return keys


def _group(t: Tape, flow: Flow, layer: Layer) -> Flow:
    return run(t, flow, layer.parts[0])


def _residual(t: Tape, flow: Flow, layer: Layer) -> Flow:
    """The result of the layers plus the input, or plus the result of the shortcut."""
    own = run(t, flow, layer.parts[0])
    with t.scope("shortcut"):
        side = run(t, flow, layer.parts[1])
    if own.value.shape != side.value.shape:
        raise BadInput(
            f"{layer.where}: its layers give {shape_text(own.value.shape)}, but"
            f" {shape_text(side.value.shape)} is to be added; make them equal, or give a shortcut ="
            " [layers] that does"
        )
    with t.op("add", "add"):
        return Flow(pointwise.add(t, own.value, side.value), own.form)


def _branch(t: Tape, flow: Flow, layer: Layer) -> Flow:
    """Several lists on the same input; results are concatenated, added or multiplied."""
    assert isinstance(layer.keys, Branch), "the kind 'branch' has these keys"
    ends = []
    for number, part in enumerate(layer.parts, 1):
        with t.scope(f"{number}"):
            ends.append(run(t, flow, part))
    values, form, join = [end.value for end in ends], ends[0].form, layer.keys.join
    dim = -1 if form == "tokens" else 1
    shapes = dict.fromkeys(value.shape for value in values)
    fit = (_joinable(a, b, dim, join) for a, b in combinations(shapes, 2))
    if any(end.form != form for end in ends) or not all(fit):
        wanted = "equal shapes, or 1 where a dimension is to be broadcast"
        if join == "concat":
            wanted = "equal lengths; channels may differ"
        raise BadInput(
            f"{layer.where}: branches give {' and '.join(shape_text(v.shape) for v in values)} to"
            f" {join}; wanted {wanted}"
        )
    with t.op(join, "mul" if join == "multiply" else join):
        if join == "concat":
            return Flow(pointwise.concat(t, values, dim), form)
        out = values[0]
        for value in values[1:]:
            out = (pointwise.add if join == "add" else pointwise.mul)(t, out, value)
        return Flow(out, form)


def _joinable(a: tuple[int, ...], b: tuple[int, ...], dim: int, join: str) -> bool:
    """Whether shapes can be concatenated along `dim`, or broadcast to be added or multiplied."""
    if len(a) != len(b):
        return False
    along = dim % len(a)
    return all(
        m == n or (i == along if join == "concat" else 1 in (m, n))
        for i, (m, n) in enumerate(zip(a, b, strict=True))
    )


HOLDERS = {"group": _group, "residual": _residual, "branch": _branch}
