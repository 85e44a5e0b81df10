"""Any net as a plain TOML list of layers; shapes are inferred from layer to layer, and what does
not meet is refused by name.

name = "tiny"
input = [3, 32, 32]             # channels, height, width; or [784] features; or tokens = 128 with
                                vocabulary = 30000

[[layers]]
kind = "conv"
channels = 64
kernel = 3

[[layers]]
kind = "flatten"

[[layers]]
kind = "linear"
out = 10
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from roofcast.hwdb.errors import BadInput, unknown
from roofcast.hwdb.strict import checked, load
from roofcast.simulator.models.toml.keys import ACTIVATIONS, Count
from roofcast.simulator.models.toml.kinds import KINDS, Kind, shown
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.ops import loss, pointwise
from roofcast.simulator.work.tape import Tape, Value

WHAT = "a TOML list of layers"
PAIRWISE = ("mse", "l1", "smooth_l1", "bce", "bce_with_logits")
DEEPEST = 8  # lists within lists
LARGEST = 2**53  # numbers in one tensor of one sample: no memory holds more
CURES = {
    (
        "ids",
        "embedding",
    ): "the net's tokens and vocabulary give ids, and only a first layer may take them",
    ("space", "features"): "put a 'flatten' or 'global_avg_pool' layer before it",
    ("space", "tokens"): "put a 'to_tokens' layer before it",
    ("tokens", "space"): "put a 'to_channels' layer before it",
    (
        "features",
        "space",
    ): "put a 'reshape' layer before it, with shape = [channels, height, width]",
}


class Net(msgspec.Struct, frozen=True):
    """The keys of a file beside its layers."""

    layers: list[dict]
    name: str | None = None
    about: str = ""  # a sentence for the reader
    input: list[Count] | None = None
    tokens: Count | None = None
    vocabulary: Count | None = None
    features: Count | None = None  # numbers a token, where tokens are not words
    loss: (
        Literal["cross_entropy", "mse", "l1", "smooth_l1", "bce", "bce_with_logits", "none"] | None
    ) = None


class Layer(NamedTuple):
    """One layer as written: `where` starts every message about it, `parts` are the lists of layers
    it holds.
    """

    kind: str
    name: str
    where: str
    keys: Any
    parts: tuple[tuple[Layer, ...], ...] = ()


class Flow(NamedTuple):
    """What passes between layers: a value, its form, and its shape before it was flattened."""

    value: Value
    form: str  # ids | features | tokens | space
    before: tuple = ()
    vocabulary: int = 0


def read(path: Path) -> Model:
    """The net that a TOML file lists. Keys and types are checked here, shapes when it runs."""
    path = Path(path)
    net = checked(Net, load(path, WHAT), str(path))
    takes, size = _taken(net, path)
    layers = _parsed(net.layers, str(path), "")
    if not layers:
        raise BadInput(f"{path}: layers is empty; write at least one [[layers]] table")

    def program(t: Tape, batch: int, size: int | None):
        if size is not None and net.input is not None and len(net.input) != 3:
            raise BadInput(
                f"{path}: input = {net.input} cannot have sides of {size}; leave the size out, or"
                " change the file"
            )
        flow = _run(t, _fed(t, net, batch, size), layers)
        return _loss(t, net, flow, layers[-1], path) if t.training else flow.value

    return Model(net.name or path.stem, "layers", takes, size, program, net, str(path))


# ---------------------------------------------------------------------- reading
def _taken(net: Net, path: Path) -> tuple[str, int | None]:
    """What the net is fed, and how large by default: image, sequence or table."""
    if (net.input is None) == (net.tokens is None):
        raise BadInput(
            f"{path}: give either input = [channels, height, width], input = [features] or tokens ="
            " length"
        )
    if net.tokens is not None:
        if (net.vocabulary is None) == (net.features is None):
            raise BadInput(
                f"{path}: tokens = {net.tokens} wants either vocabulary (words) or features"
                " (numbers a token) beside it"
            )
        return "sequence", net.tokens
    for key in ("vocabulary", "features"):
        if getattr(net, key) is not None:
            raise BadInput(f"{path}: {key} goes with tokens, not with input")
    if not 1 <= len(net.input) <= 4:
        raise BadInput(
            f"{path}: input is {net.input}; wanted [features], or channels and one to three lengths"
        )
    if len(net.input) == 1:
        return "table", None
    return "image", net.input[1] if len(net.input) == 3 and net.input[1] == net.input[2] else None


def _parsed(raw: Iterable, file: str, above: str) -> tuple[Layer, ...]:
    """Layers of one list. A layer without a name is called by its kind and how many of that kind
    came before.
    """
    if above.count(".") > DEEPEST:
        raise BadInput(
            f"{file}: layer {above[:-1]} is nested more than {DEEPEST} deep; name the inner parts"
            " in fewer lists"
        )
    layers: list[Layer] = []
    seen: Counter = Counter()
    for index, table in enumerate(raw, 1):
        layer = _layer(dict(table), file, f"{above}{index}", seen)
        if any(layer.name == other.name for other in layers):
            raise BadInput(
                f"{layer.where}: the name stands on an earlier layer already; names must differ"
            )
        layers.append(layer)
    return tuple(layers)


def _layer(table: dict, file: str, index: str, seen: Counter) -> Layer:
    given = table.get("name")
    called = f" {given!r}" if isinstance(given, str) and given else ""
    if "kind" not in table:
        raise BadInput(
            f"{file}: layer {index}{called}: kind is missing; kinds: {', '.join(sorted(KINDS))}"
        )
    kind = table.pop("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise BadInput(
            f"{file}: layer {index}{called}:"
            f" {unknown('kind', str(kind), KINDS, 'kinds: ' + ', '.join(sorted(KINDS)))}"
        )
    seen[kind] += 1
    name = given if called else f"{kind}{seen[kind]}"
    where = f"{file}: layer {index} {name!r}" + (f" ({kind})" if called else "")
    keys = checked(KINDS[kind].keys, table, where)
    return Layer(kind, name, where, keys, _parts(keys, kind, file, index, where))


def _parts(keys: Any, kind: str, file: str, index: str, where: str) -> tuple:
    """The lists a layer holds. Only a shortcut and a branch may be empty: they then hand on what
    they get.
    """
    if kind == "branch":
        if len(keys.branches) < 2:
            raise BadInput(
                f"{where}: branches has {len(keys.branches)} list; wanted two or more, each a list"
                " of layers"
            )
        return tuple(
            _parsed(branch, file, f"{index}[{n}].") for n, branch in enumerate(keys.branches, 1)
        )
    if kind not in ("group", "residual"):
        return ()
    if not keys.layers:
        raise BadInput(f"{where}: layers is empty; wanted at least one layer")
    own = _parsed(keys.layers, file, f"{index}.")
    return (own,) if kind == "group" else (own, _parsed(keys.shortcut, file, f"{index}.shortcut."))


# ---------------------------------------------------------------------- running
def _fed(t: Tape, net: Net, batch: int, size: int | None) -> Flow:
    """The input; another size stands in for height and width, or for the length of the sequence."""
    if net.vocabulary is not None:
        return Flow(t.input((batch, size), "int64"), "ids", vocabulary=net.vocabulary)
    if net.features is not None:
        return Flow(t.input((batch, size, net.features)), "tokens")
    shape = list(net.input)
    if size is not None:
        shape[1:] = [size, size]
    return Flow(t.input((batch, *shape)), "features" if len(shape) == 1 else "space")


def _run(t: Tape, flow: Flow, layers: tuple[Layer, ...]) -> Flow:
    for layer in layers:
        flow = (
            _once(t, flow, layer, layer.name)
            if layer.keys.repeat == 1
            else _repeated(t, flow, layer)
        )
    return flow


def _repeated(t: Tape, flow: Flow, layer: Layer) -> Flow:
    """A layer several times over: traced once from where it hands on what it gets, one by one
    before.
    """
    for done in range(layer.keys.repeat):
        name = f"{layer.name}.{done + 1}" if done else layer.name
        form = _trial(t, flow, layer)
        if form is not None:
            rest = layer.keys.repeat - done
            return Flow(
                t.repeat(
                    name,
                    rest,
                    lambda x, f=flow: _once(t, f._replace(value=x), layer, "").value,
                    flow.value,
                ),
                form,
            )
        flow = _once(t, flow, layer, f"{layer.name}.{done + 1}")
    return flow


def _trial(t: Tape, flow: Flow, layer: Layer) -> str | None:
    """The form that comes out, where shape and form are what came in; None otherwise. Run aside, on
    another tape.
    """
    aside = Tape(t.precision, training=t.training, implementations=t.implementations)
    out = _once(
        aside,
        flow._replace(value=aside.new(flow.value.shape, flow.value.dtype, flow.value.grad)),
        layer,
        layer.name,
    )
    return out.form if (out.value.shape, out.form) == (flow.value.shape, flow.form) else None


def _once(t: Tape, flow: Flow, layer: Layer, name: str) -> Flow:
    """One layer, under `name`; an empty name where a scope has it already."""
    kind = KINDS[layer.kind]
    if flow.form not in kind.takes:
        arriving = f"{shown(flow.value.shape)} ({flow.form})"
        raise BadInput(
            f"{layer.where}: wants {' or '.join(kind.takes)}, but {arriving} arrives;"
            f" {_cure(flow.form, kind)}"
        )
    if kind.run is None:
        return _scoped(t, name, lambda: HOLDERS[layer.kind](t, flow, layer))
    keys = _agreed(flow, layer)
    try:
        if kind.op:
            with t.op(name, kind.op):
                out = kind.run(t, flow.value, keys)
        else:
            out = _scoped(t, name, lambda: kind.run(t, flow.value, keys))
    except BadInput as error:
        raise BadInput(f"{layer.where}: {error}") from None
    if out.size // out.shape[0] > LARGEST:
        raise BadInput(
            f"{layer.where}: gives {shown(out.shape)}, more than any memory holds; use smaller"
            " numbers"
        )
    return Flow(out, kind.gives or flow.form, _before(flow, layer.kind))


def _before(flow: Flow, kind: str) -> tuple:
    """The shape that was flattened, for as long as only elementwise layers follow."""
    if kind == "flatten" and flow.form != "features":
        return flow.value.shape
    return flow.before if kind in ("flatten", "dropout", *ACTIVATIONS) else ()


def _scoped(t: Tape, name: str, body):
    if not name:
        return body()
    with t.scope(name):
        return body()


def _cure(form: str, kind: Kind) -> str:
    if form == "ids":
        return "put an 'embedding' layer first"
    return next(
        (CURES[form, wanted] for wanted in kind.takes if (form, wanted) in CURES),
        CURES["ids", "embedding"],
    )


def _agreed(flow: Flow, layer: Layer) -> Any:
    """The layer's keys, once they agree with what arrives: a stated width of a linear layer, the
    rows of an embedding.
    """
    if layer.kind == "embedding":
        rows = layer.keys.rows or flow.vocabulary
        if rows < flow.vocabulary:
            raise BadInput(
                f"{layer.where}: rows = {rows} is too few for a vocabulary of {flow.vocabulary};"
                " leave rows out, or give more"
            )
        return msgspec.structs.replace(layer.keys, rows=rows)
    stated, arriving = getattr(layer.keys, "in_", None), flow.value.shape[-1]
    if stated is not None and stated != arriving:
        shape = f"{shown(flow.before)} = {arriving}" if flow.before else shown(flow.value.shape)
        raise BadInput(
            f"{layer.where}: in = {stated} is stated, but {shape} arrive; write in = {arriving}, or"
            " leave it out"
        )
    return layer.keys


# ---------------------------------------------------------------------- layers that hold layers
def _group(t: Tape, flow: Flow, layer: Layer) -> Flow:
    return _run(t, flow, layer.parts[0])


def _residual(t: Tape, flow: Flow, layer: Layer) -> Flow:
    """What the layers make of the input, added to the input or to what the shortcut makes of it."""
    own = _run(t, flow, layer.parts[0])
    with t.scope("shortcut"):
        side = _run(t, flow, layer.parts[1])
    if own.value.shape != side.value.shape:
        raise BadInput(
            f"{layer.where}: its layers give {shown(own.value.shape)}, but"
            f" {shown(side.value.shape)} is to be added; make them equal, or give shortcut ="
            " [layers] that does"
        )
    with t.op("add", "add"):
        return Flow(pointwise.add(t, own.value, side.value), own.form)


def _branch(t: Tape, flow: Flow, layer: Layer) -> Flow:
    """Several lists on the same input, side by side along channels (or a token's width), summed, or
    multiplied.
    """
    ends = []
    for number, part in enumerate(layer.parts, 1):
        with t.scope(f"{number}"):
            ends.append(_run(t, flow, part))
    values, form = [end.value for end in ends], ends[0].form
    dim = -1 if form == "tokens" else 1
    join = layer.keys.join
    if any(end.form != form for end in ends) or not all(
        _meet(a.shape, b.shape, dim, join) for a, b in combinations(values, 2)
    ):
        wanted = (
            "the same lengths, whatever the channels"
            if join == "concat"
            else "equal shapes, or 1 where one is to be stretched"
        )
        raise BadInput(
            f"{layer.where}: branches give {' and '.join(shown(v.shape) for v in values)} to"
            f" {join}; wanted {wanted}"
        )
    with t.op(join, "mul" if join == "multiply" else join):
        if join == "concat":
            return Flow(pointwise.concat(t, values, dim), form)
        out = values[0]
        for value in values[1:]:
            out = (pointwise.add if join == "add" else pointwise.mul)(t, out, value)
        return Flow(out, form)


def _meet(a: tuple, b: tuple, dim: int, join: str) -> bool:
    """May these shapes be joined: equal but along `dim` to be put side by side, equal or 1 to be
    summed or multiplied.
    """
    if len(a) != len(b):
        return False
    along = dim % len(a)
    return all(
        m == n or (i == along if join == "concat" else 1 in (m, n))
        for i, (m, n) in enumerate(zip(a, b, strict=True))
    )


HOLDERS = {"group": _group, "residual": _residual, "branch": _branch}


# ---------------------------------------------------------------------- loss
def _guessed(end: str, width: int) -> str:
    if end == "sigmoid":
        return "bce"
    return "cross_entropy" if end in ("linear", "softmax") and width > 1 else "mse"


def _loss(t: Tape, net: Net, flow: Flow, last: Layer, path: Path) -> Value:
    """What is minimised: as the file says, or by what the net ends in.

    A linear layer of several outputs or a softmax is a classifier (cross-entropy), a sigmoid says
    yes or no (bce), anything else is a regression on numbers of the same shape (mse).
    """
    x = flow.value
    kind = net.loss or _guessed(_end(last), x.shape[-1])
    if kind == "none":
        return x
    if flow.form == "ids":
        raise BadInput(
            f"{path}: no layer makes anything of the ids; put an 'embedding' layer first"
        )
    with t.op("loss", kind):
        if kind in PAIRWISE:
            return loss.pairwise(t, kind, x, t.input(x.shape))
        if flow.form == "space":  # a class a position: channels last, as rows
            x = t.view(x, x.shape[0], x.size // (x.shape[0] * x.shape[1]), x.shape[1])
        return loss.cross_entropy(t, x, t.input(x.shape[:-1], "int64"))


def _end(layer: Layer) -> str:
    """The kind of the last layer, inside groups too."""
    return _end(layer.parts[0][-1]) if layer.kind == "group" else layer.kind
