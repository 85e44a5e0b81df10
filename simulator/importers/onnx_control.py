"""If, Loop and Scan of ONNX: their branches and bodies run on the tape.

A loop whose number of repetitions is known runs that often, one by one where that is quick, since
shapes may grow; a longer one runs once and is multiplied. What depends on values is assumed, and
said: a loop runs once, an If takes the dearer branch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.importers.onnx_call import Call, Operand, Several, Stored, sizes_of
from roofcast.simulator.importers.onnx_extra import onnx
from roofcast.simulator.importers.onnx_names import Label
from roofcast.simulator.work.tape import Tape, Value

FOREVER = 1 << 62  # repetitions that stand for "until the condition is false"


class Run(Protocol):
    """The run of a graph, as far as inner graphs need it; see `onnx_run.Run`."""

    tape: Tape
    known: dict[str, Operand]
    unknown: dict[str, tuple[int, float]]
    uncomputed: dict[str, tuple[int, str]]
    said: dict[str, int]
    wide: dict[int, Operand]
    one_by_one: int

    def graph(self, graph: onnx.GraphProto) -> None:
        """Run the nodes of a graph."""

    def say(self, line: str) -> None:
        """Note an assumption."""


class Control(NamedTuple):
    """A node with inner graphs, about to run."""

    run: Run
    call: Call
    label: Label

    def inner(self, name: str) -> onnx.GraphProto:
        """The graph that is the attribute `name`. Raises BadInput if there is none."""
        graph = self.call.attributes.get(name)
        if not isinstance(graph, onnx.GraphProto):
            raise BadInput(f"its graph {name} is missing")
        return graph

    def results(self, graph: onnx.GraphProto) -> list[Operand]:
        """Run an inner graph, and return its results."""
        self.run.graph(graph)
        return [self.run.known.get(o.name) for o in graph.output]


def _known(value: Operand) -> np.ndarray | None:
    """An operand as numbers, if they are known: those of the graph, or computed from shapes."""
    if isinstance(value, Stored):
        return value.numbers()
    return value if isinstance(value, np.ndarray) else None


# ------------------------------------------------------------------ If
def if_op(c: Control) -> list[Operand]:
    """If: the branch that is taken, else the dearer one; the weights of both are held."""
    condition = _known(c.call.ins[0])
    then, other = c.inner("then_branch"), c.inner("else_branch")
    if condition is not None and condition.size:
        return c.results(then if condition.all() else other)
    c.run.say("If whose condition depends on values: the branch with more FLOPs is counted")
    before = _State.of(c.run)
    first = _tried(c, then, before)
    before.restore(c.run)
    second = _tried(c, other, before)
    taken, left = (second, first) if first.cost < second.cost else (first, second)
    if taken is first:
        first.after.restore(c.run)
    with c.run.tape.op(c.label.name, c.label.op):
        for name, v in left.weights.items():
            trains = v.dtype == c.run.tape.precision.weights
            c.call.t.parameter(*v.shape, tied=name, trainable=trains, dtype=v.dtype)
    return taken.results


class _State(NamedTuple):
    """A tape and what is known of tensors, at one moment."""

    lengths: dict[str, int]  # of the lists of the tape that only grow
    tails: dict[str, list]  # what these lists have behind the lengths of an earlier state
    tables: dict[str, dict]
    known: dict[str, Operand]
    notes: tuple[dict, ...]

    @classmethod
    def of(cls, run: Run, before: _State | None = None) -> _State:
        """The state now; `before`: one to which the run may return meanwhile."""
        mark = run.tape._mark()
        lengths = {k: v for k, v in mark.items() if isinstance(v, int)}
        tables = {k: v for k, v in mark.items() if not isinstance(v, int)}
        start = before.lengths if before else lengths
        tails = {k: getattr(run.tape, k)[n:] for k, n in start.items()}
        notes = (dict(run.unknown), dict(run.uncomputed), dict(run.said), dict(run.wide))
        return cls(start, tails, tables, dict(run.known), notes)

    def restore(self, run: Run) -> None:
        """Put tape and run into this state."""
        run.tape._undo({**self.lengths, **{k: dict(v) for k, v in self.tables.items()}})
        for k, tail in self.tails.items():
            getattr(run.tape, k).extend(tail)
        run.known = dict(self.known)
        run.unknown, run.uncomputed, run.said, run.wide = (dict(n) for n in self.notes)


class _Tried(NamedTuple):
    """A branch that ran."""

    cost: tuple[float, float]  # FLOPs, bytes
    weights: dict[str, Value]
    results: list[Operand]
    after: _State


def _tried(c: Control, graph: onnx.GraphProto, before: _State) -> _Tried:
    """Run a branch from the state `before`."""
    tape = c.run.tape
    results = c.results(graph)
    new = tape.kernels[before.lengths["kernels"] :]
    cost = (sum(k.matrix * k.count for k in new), sum((k.read + k.written) * k.count for k in new))
    known = before.tables["_parameters"]
    weights = {n: v for n, v in tape._parameters.items() if n not in known}
    return _Tried(cost, weights, results, _State.of(c.run, before))


# ------------------------------------------------------------------ Loop
def loop_op(c: Control) -> list[Operand]:
    """Loop: its body as often as stated, or until its condition is known to be false."""
    call, body = c.call, c.inner("body")
    carried = list(call.ins[2:])
    names = [i.name for i in body.input]
    if len(names) != len(carried) + 2 or len(body.output) < len(carried) + 1:
        raise BadInput(
            f"its body takes {len(names)} inputs and gives {len(body.output)} results; expected"
            f" {len(carried) + 2} and at least {len(carried) + 1}"
        )
    trips = _trips(c)
    condition = _known(call.ins[1]) if call.given(1) else np.array(True)
    scans = len(body.output) - 1 - len(carried)
    if not trips or (condition is not None and condition.size and not condition.all()):
        return [*carried, *_nothing(c, len(carried))]
    start: Operand = call.t.buffer(dtype="bool") if condition is None else condition
    c.run.one_by_one -= trips * len(body.node)
    if c.run.one_by_one < 0:
        c.run.one_by_one += trips * len(body.node)
        return _multiplied(c, body, trips, [start, *carried], scans)
    collected: list[Operand] = [None] * scans
    done = 0
    while done < trips:
        c.run.known.update(zip(names, (np.array(done), start, *carried), strict=True))
        go_on, *out = c.results(body)
        carried, collected, done = out[: len(carried)], out[len(carried) :], done + 1
        ends = _known(go_on)
        if ends is not None and ends.size and not ends.all():
            break
        start = go_on if ends is None else ends
    return [*carried, *(_stacked(c, v, done) for v in collected)]


def _trips(c: Control) -> int:
    """How often a Loop runs: 1 where that depends on values."""
    call = c.call
    most = _known(call.ins[0]) if call.given(0) else np.array(FOREVER)
    if most is None or not most.size:
        c.run.say("Loop whose number of repetitions depends on values: one is counted")
        return 1
    trips = int(np.ravel(most)[0])
    if trips >= FOREVER:
        c.run.say("Loop that runs until a condition is false: one repetition is counted")
        return 1
    return max(trips, 0)


def _nothing(c: Control, carried: int) -> list[Operand]:
    """What a Loop collects that does not run."""
    count = len(c.call.node.output) - carried
    return [c.call.t.new((0,)) for _ in range(max(count, 0))]


def _stacked(c: Control, value: Operand, count: int) -> Operand:
    """The results of all repetitions in one tensor."""
    if value is None or isinstance(value, Several):
        return value
    dtype = value.dtype if isinstance(value, Value) else None
    grad = isinstance(value, Value) and value.grad
    if isinstance(value, np.ndarray) and value.dtype.kind in "iub":
        dtype = "int64"
    return c.call.t.new((count, *value.shape), dtype, grad)


def _multiplied(
    c: Control, body: onnx.GraphProto, trips: int, given: Sequence[Operand], scans: int
) -> list[Operand]:
    """A body that runs once, and counts as often as the loop repeats it."""
    sizes_of((trips,), "a loop")
    names = [i.name for i in body.input]
    counter = c.call.t.buffer(dtype="int64")
    c.run.known.update(zip(names, (counter, *given), strict=True))
    with c.call.t.times(trips):
        _, *out = c.results(body)
    carried = out[: len(out) - scans]
    for before, after in zip(given[1:], carried, strict=True):
        if before is not None and after is not None and before.shape != after.shape:
            c.run.say("Loop whose tensors grow: every repetition is counted as the first")
    return [
        *(_outside(c, a, b) for a, b in zip(given[1:], carried, strict=True)),
        *(_stacked(c, v, trips) for v in out[len(out) - scans :]),
    ]


def _outside(c: Control, before: Operand, after: Operand) -> Operand:
    """A result of a repeated body as what follows sees it: numbers that change are not known."""
    if isinstance(after, Value):
        t = c.call.t
        return Value(
            after.shape, after.dtype, after.storage, after.grad, after.kind, t._repeats, after.held
        )
    if isinstance(after, np.ndarray) and after is not before:
        return c.call.t.buffer(*after.shape, dtype="int64")
    return after


# ------------------------------------------------------------------ Scan
def scan_op(c: Control) -> list[Operand]:
    """Scan: its body once for each slice of its scanned inputs."""
    call, body = c.call, c.inner("body")
    count = call.attribute("num_scan_inputs")
    names = [i.name for i in body.input]
    if len(names) != len(call.ins):
        raise BadInput(
            f"its body takes {len(names)} inputs and the node {len(call.ins)}; a Scan of opset 8,"
            " which has a batch axis, is not read"
        )
    states, scanned = call.ins[: len(names) - count], call.ins[len(names) - count :]
    axes = list(call.attributes.get("scan_input_axes", [0] * count))
    trips, slices = 1, []
    for x, axis in zip(scanned, axes, strict=True):
        if x is None or not x.shape:
            raise BadInput("a scanned input is missing")
        shape = list(x.shape)
        trips = int(shape.pop(axis))
        dtype = x.dtype if isinstance(x, Value) else "int64"
        grad = isinstance(x, Value) and x.grad
        slices.append(call.t.new(shape, dtype, grad))
    c.run.known.update(zip(names, (*states, *slices), strict=True))
    with call.t.times(max(trips, 1)):
        out = c.results(body)
    collected = []
    outer = list(call.attributes.get("scan_output_axes", [0] * (len(out) - len(states))))
    for v, axis in zip(out[len(states) :], outer, strict=True):
        if not isinstance(v, Value):
            collected.append(_stacked(c, v, trips))
            continue
        shape = list(v.shape)
        shape.insert(axis if axis >= 0 else axis + len(shape) + 1, trips)
        collected.append(call.t.new(shape, v.dtype, v.grad))
    carried = [_outside(c, a, b) for a, b in zip(states, out[: len(states)], strict=True)]
    return [*carried, *collected]


CONTROL: dict[str, Callable[[Control], list[Operand]]] = {
    "If": if_op,
    "Loop": loop_op,
    "Scan": scan_op,
}
