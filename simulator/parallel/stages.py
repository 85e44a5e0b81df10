"""What a pipeline distributes: the layers of one rank's step and the ops around them, each with its
seconds, bytes and traffic.

What one rank computes and sends for one micro-batch comes from the tape, whose shapes are already
one rank's.
"""

from __future__ import annotations

import numpy as np

from roofcast.hwdb.constants import kernels as constants
from roofcast.hwdb.records import Device
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.parallel.reductions import pieces
from roofcast.simulator.parallel.traffic import NOTHING, Cost, Placement, gathers
from roofcast.simulator.times.dispatch import MATMULS, PHASES, dispatch, launch, token_counts
from roofcast.simulator.times.host import combine
from roofcast.simulator.times.roofline import OpTimes
from roofcast.simulator.work.step import Step
from roofcast.simulator.work.traced import Traffic, layer_order

TrafficKey = tuple[str, str, bool | None]  # phase, group, runs behind the kernels beside it


class Unit(NamedTuple):
    """A layer, or the ops before, between or after the layers. Of one micro-batch on one rank, one
    repetition.
    """

    name: str
    layers: int  # layers of this kind; 0 for ops that are no layer
    compute: np.ndarray  # device seconds by phase: forward, backward, recompute, update
    host: np.ndarray  # seconds to launch them, by phase
    traffic: dict[TrafficKey, Cost]  # phases forward, backward, and recompute: forward repeated
    dense: float  # weights that data-parallel ranks share
    expert: float  # weights of experts
    trained: float  # of `dense`: those that are not frozen
    trained_expert: float  # of `expert`
    kept: float  # bytes for backward
    largest: float  # bytes of the largest tensors in flight
    inside: float  # bytes kept when nothing is recomputed
    # bytes of the gradients of weights that two ops use, counted with the first unit
    twice: float = 0.0
    # seconds of adding gradients up that the first micro-batch of a step is spared
    added: float = 0.0
    places: tuple[int, ...] = ()  # of its layers among all layers of the model
    products: float = 0.0  # FLOPs of its matrix products, forward
    tensors: float = 0.0  # trained weights, counted as tensors
    buckets: float = 0.0  # of the stack, that their gradients fill
    called: tuple[float, float] = (0.0, 0.0)  # ranks of its collectives, forward and backward
    # seconds that nothing runs while the host waits for token counts, forward and backward
    waits: tuple[float, float] = (0.0, 0.0)

    @property
    def update(self) -> np.ndarray:
        """Seconds of the optimizer on all of its weights."""
        return combine(self.compute[3], self.host[3], constants())


def units(at: Placement, times: OpTimes) -> list[Unit]:
    """The step's layers and the ops around them, in order, with seconds, bytes and traffic."""
    step = at.step
    key = _keys(at)
    order = list(dict.fromkeys(key))
    place = {k: i for i, k in enumerate(order)}
    unit_of = [place[k] for k in key]  # of every node
    device_s, host_s = _seconds(at, times, unit_of, len(order))
    of = np.array([unit_of[k.node] for k in step.kernels])
    kept, inside, dense, experts, trained, trained_experts = _held(step, unit_of, len(order))
    again, inferring = repeated(step), step.recipe.mode == "infer"
    places: dict[int, list[int]] = {}  # of the layers of each block
    for p, b in enumerate(layer_order(step.blocks, {node.layer for node in step.nodes})):
        places.setdefault(b, []).append(p)
    spared = np.zeros(len(order))
    if not step.recipe.stack.accumulate_first:
        sums = [i for i, k in enumerate(step.kernels) if k.kind == "accumulate" and k.shape]
        np.add.at(spared, of[sums], times.seconds[sums])
    largest = _largest(step, unit_of, len(order), inferring)
    sent = _sent(step, unit_of, len(order))
    products = _products(step, unit_of, len(order))
    tensors, buckets = pieces(step, unit_of, len(order))
    names = {i: node.name for i, node in zip(reversed(unit_of), reversed(step.nodes), strict=True)}
    rows = []
    for i, (what, block) in enumerate(order):
        count = step.blocks[block].count if what == "block" else 1
        wait = token_counts(step.recipe.stack, at.device) if experts[i] else 0.0
        rows.append(
            Unit(
                name=step.blocks[block].name if what == "block" else names[i],
                layers=count if what == "block" else 0,
                compute=device_s[i] / count,
                host=host_s[i] / count,
                traffic=_traffic(at, sent[i], count, again),
                dense=dense[i] / count,
                expert=experts[i] / count,
                trained=trained[i] / count,
                trained_expert=trained_experts[i] / count,
                kept=kept[i] / count,
                largest=largest[i],
                inside=inside[i] / count,
                twice=0.0 if i else step.used_twice,
                added=spared[i] / count,
                places=tuple(places[block]) if what == "block" else (),
                products=products[i] / count,
                tensors=tensors[i] / count,
                buckets=buckets[i] / count,
                called=_called(at, sent[i], count, again),
                waits=(wait, 0.0 if inferring else wait),
            )
        )
    return rows


def _keys(at: Placement) -> list[tuple[str, int]]:
    """For every node its unit: a layer or what stands between layers; where ZeRO 3 gathers, or
    weights come from the host, and there are no layers, a submodule.
    """
    apart = gathers(at.layout) or "parameters" in at.step.recipe.offload
    whole = apart and len(at.step.blocks) == 1
    return by_submodule(at.step) if whole else at.step.runs


def by_submodule(step: Step) -> list[tuple[str, int]]:
    """For every node of a step without layers, its submodule one level down, as a unit that
    ZeRO 3 gathers at once; further down as long as one of them holds all the weights.
    """
    parts = [node.name.split(".") for node in step.nodes]
    owners = [parts[w.node] for w in step.weights]
    deep = 1
    while len({tuple(p[:deep]) for p in owners}) == 1 and max(map(len, owners)) > deep:
        deep += 1
    place: dict[tuple[str, ...], int] = {}
    names = [tuple(p[:deep]) for p in parts]
    return [("op", place.setdefault(name, len(place))) for name in names]


def sending(rows: list[Unit], at: Placement) -> list[Unit]:
    """The units of the same step where it lies on another network: with what that costs."""
    key, again = _keys(at), repeated(at.step)
    place = {k: i for i, k in enumerate(dict.fromkeys(key))}
    sent = _sent(at.step, [place[k] for k in key], len(rows))
    return [
        u._replace(traffic=_traffic(at, mine, max(u.layers, 1), again))
        for u, mine in zip(rows, sent, strict=True)
    ]


def _sent(step: Step, unit: list[int], count: int) -> list[list[Traffic]]:
    """What each unit sends. unit: of each node."""
    found: list[list[Traffic]] = [[] for _ in range(count)]
    for tr in step.traffic:
        found[unit[tr.node]].append(tr)
    return found


def _seconds(
    at: Placement, times: OpTimes, unit: list[int], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Device and host seconds by unit and phase, all repetitions. unit: of each node, which one."""
    step, device = at.step, at.device
    of = np.array([unit[k.node] for k in step.kernels])
    phase = np.array([PHASES.index(k.phase) for k in step.kernels])
    device_s, host_s = np.zeros((2, count, len(PHASES)))
    np.add.at(device_s, (of, phase), times.seconds)
    np.add.at(host_s, (of, phase), dispatch(step, device, constants()))
    if device.kind == "cpu":
        return device_s + host_s, 0.0 * host_s
    for node, when, seconds in exchanged(step, device):
        host_s[unit[node], when] += seconds
    return device_s, host_s


def _held(step: Step, unit: list[int], count: int) -> list[list[float]]:
    """Of each unit, all repetitions: bytes kept for backward, and what they would be without
    recomputation; weights outside experts, and weights of experts; of both those that are trained.
    unit: of each node.
    """
    found = [[0.0] * count for _ in range(6)]
    kept, inside, dense, expert, trained, trained_expert = found
    for sums, storages in ((kept, step.saved), (inside, step.counted)):
        for s in storages:
            sums[unit[s.node]] += s.bytes * s.count
    for w in step.weights:
        (expert if w.expert else dense)[unit[w.node]] += w.size * w.count
        if w.trainable:
            (trained_expert if w.expert else trained)[unit[w.node]] += w.size * w.count
    return found


def _largest(step: Step, unit: list[int], count: int, inferring: bool) -> list[float]:
    """Of each unit, bytes of the largest set of tensors that one of its kernels reads and writes.
    unit: of each node.
    """
    largest = [0.0] * count
    for k in step.kernels:
        if k.phase == "forward":
            live = sum(
                v.in_flight
                for v in (*k.inputs, *k.outputs)
                if ((v.grad or inferring) and v.kind == "activation") or v.kind == "dequantized"
            )
            largest[unit[k.node]] = max(largest[unit[k.node]], live)
    return largest


def _products(step: Step, unit: list[int], count: int) -> list[float]:
    """Of each unit, FLOPs of its matrix products in a forward, without attention. unit: of each
    node.
    """
    found = [0.0] * count
    for k in step.kernels:
        if k.kind in MATMULS and k.phase == "forward":
            found[unit[k.node]] += k.matrix * k.count
    return found


def exchanged(step: Step, device: Device) -> list[tuple[int, int, float]]:
    """Host time to launch the collectives inside the model: node, index of the phase, seconds."""
    again, c = repeated(step), constants()
    once = c.host.collective * launch(step.recipe.stack, device, c)
    share = {"forward": 1.0, "backward": step.recipe.stack.dispatch_backward}
    found = [
        (tr.node, PHASES.index(tr.phase), once * share[tr.phase] * tr.count) for tr in step.traffic
    ]
    recompute = PHASES.index("recompute")
    for tr in step.traffic:
        if tr.phase == "forward":
            found.append((tr.node, recompute, once * again.get(tr.node, 0.0) * tr.count))
    return found


def _traffic(
    at: Placement, sent: list[Traffic], count: int, again: dict[int, float]
) -> dict[TrafficKey, Cost]:
    """What a unit sends in one of `count` repetitions."""
    deduplicated = at.step.recipe.stack.implementations.get("dispatch") == "deduplicated"
    found: dict[TrafficKey, Cost] = {}
    costs: dict[tuple[str, str, float, int], Cost] = {}  # of collectives that recur in a layer
    for tr in sent:
        what = (tr.kind, tr.group, tr.bytes, tr.copies)
        if what not in costs:
            costs[what] = _crossing_nodes(at, tr.group, at.network.cost(*what, deduplicated))
        cost = costs[what].times(tr.count / count)
        repeats = again.get(tr.node, 0.0) if tr.phase == "forward" else 0.0
        for when, share in ((tr.phase, 1.0), ("recompute", repeats)):
            if share:
                key = (when, tr.group, tr.behind)
                found[key] = found.get(key, NOTHING).plus(cost.times(share))
    return found


def _called(
    at: Placement, sent: list[Traffic], count: int, again: dict[int, float]
) -> tuple[float, float]:
    """Ranks of all collectives of one of `count` repetitions, forward and backward."""
    found = [0.0, 0.0]
    for tr in sent:
        ranks = float(at.network.group(tr.group).size) * tr.count / count
        found[tr.phase != "forward"] += ranks
        found[1] += ranks * (again.get(tr.node, 0.0) if tr.phase == "forward" else 0.0)
    return found[0], found[1]


def in_pipeline(at: Placement) -> np.ndarray | float:
    """Host seconds that a stack adds per rank of a collective, where stages lie on many nodes."""
    if not at.step.recipe.stack.piped_s or len(at.network.fabric.levels) == 1:
        return 0.0
    return at.step.recipe.stack.piped_s * np.greater(at.layout.pp, 1)


def _crossing_nodes(at: Placement, name: str, cost: Cost) -> Cost:
    """What a collective costs under a stack that adds to each step of one that crosses nodes."""
    group, each = at.network.group(name), at.step.recipe.stack.far_s
    if not each:
        return cost
    return cost.plus(Cost(np.where(group.nodes > 1.0, each * (group.size - 1.0), 0.0), 0.0))


def repeated(step: Step) -> dict[int, float]:
    """Fraction of each op's forward launches that recomputation repeats."""
    if step.recipe.recompute == "none":
        return {}
    launches: dict[str, dict[int, int]] = {phase: {} for phase in PHASES}
    for k in step.kernels:
        launches[k.phase][k.node] = launches[k.phase].get(k.node, 0) + k.count
    return {node: n / launches["forward"][node] for node, n in launches["recompute"].items()}
