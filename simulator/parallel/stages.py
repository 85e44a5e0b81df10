"""What a pipeline deals out: the layers of one rank's step and what stands around them, each with
its seconds, bytes and traffic.

What one rank computes and sends for one micro-batch comes from the tape, whose shapes are already
one rank's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from roofcast.hwdb.constants import kernels as constants
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.records import Device
from roofcast.simulator.memory import used_twice
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.parallel.traffic import NOTHING, Cost, Placement, gathered, gathers, joined
from roofcast.simulator.times import offload as host_memory
from roofcast.simulator.times.dispatch import PHASES, dispatch, launch, runs_ahead, token_counts
from roofcast.simulator.times.host import combine
from roofcast.simulator.times.roofline import OpTimes
from roofcast.simulator.work.step import Step, runs


class Unit(NamedTuple):
    """A layer, or what stands before, between and after the layers. Of one micro-batch on one rank,
    one repetition.
    """

    name: str
    count: int  # layers of this kind in a row; 0 for what is no layer
    compute: np.ndarray  # device seconds by phase: forward, backward, recompute, update
    host: np.ndarray  # seconds to dispatch them, by phase
    # (phase, group, behind) -> Cost; phases forward, backward, and recompute: of the forward, sent
    # again
    traffic: dict
    dense: float  # weights of it that data-parallel ranks share
    expert: float  # weights of experts
    kept: float  # bytes for backward
    largest: float  # bytes of the largest tensors in flight
    inside: float  # bytes kept when nothing is recomputed
    # bytes of the gradients of weights that two ops use, told with the first run
    twice: float = 0.0
    added: float = 0.0  # seconds of adding gradients up that a step's first micro-batch is spared

    @property
    def update(self) -> float:
        """Seconds of the optimizer on all of its weights."""
        return float(combine(self.compute[3], self.host[3], constants()))


class Passes(NamedTuple):
    """Seconds of each unit's passes with its traffic, and of the whole model what is exposed [s]
    and sent [B] by kind of traffic.
    """

    forward: list
    backward: list
    exposed: dict[str, float]
    sent: dict[str, float]


def units(at: Placement, times: OpTimes) -> list[Unit]:
    """The step's layers and what is around them, in order, with seconds and bytes."""
    step, device = at.step, at.device
    key = runs(step)
    order = list(dict.fromkeys(key))
    place = {k: i for i, k in enumerate(order)}
    of = np.array([place[key[k.node]] for k in step.kernels])
    phase = np.array([PHASES.index(k.phase) for k in step.kernels])
    device_s, host_s = np.zeros((2, len(order), 4))
    np.add.at(device_s, (of, phase), times.seconds)
    np.add.at(host_s, (of, phase), dispatch(step, device, constants()))
    if device.kind == "cpu":
        device_s, host_s = device_s + host_s, 0.0 * host_s
    twice = used_twice(step)
    if device.kind != "cpu":
        for node, when, seconds in exchanged(step, device):
            host_s[place[key[node]], when] += seconds
    again, rows, inferring = repeated(step), [], step.recipe.mode == "infer"
    spared = np.zeros(len(order))
    if not step.recipe.stack.accumulate_first:
        sums = [i for i, k in enumerate(step.kernels) if k.kind == "accumulate" and k.shape]
        np.add.at(spared, of[sums], times.seconds[sums])
    for i, (what, block) in enumerate(order):
        count = step.blocks[block].count if what == "block" else 1
        nodes = {n for n, k in enumerate(key) if k == order[i]}
        dense = sum(w.size * w.count for w in step.weights if w.node in nodes and not w.expert)
        expert = sum(w.size * w.count for w in step.weights if w.node in nodes and w.expert)
        if expert:
            host_s[i, : 1 if inferring else 2] += (
                token_counts(step.recipe.stack, device, constants()) * count
            )
        kept = sum(s.bytes * s.count for s in step.saved if s.node in nodes)
        inside = sum(s.bytes * s.count for s in step.counted if s.node in nodes)
        largest = max(
            (
                sum(
                    v.bytes
                    for v in (*k.inputs, *k.outputs)
                    if (v.grad or inferring) and v.kind == "activation"
                )
                for k in step.kernels
                if k.node in nodes and k.phase == "forward"
            ),
            default=0.0,
        )
        name = step.blocks[block].name if what == "block" else step.nodes[min(nodes)].name
        once, traffic = (
            (v / count for v in (dense, expert, kept)),
            _traffic(at, nodes, count, again),
        )
        compute, host, own = device_s[i] / count, host_s[i] / count, spared[i] / count
        first = 0.0 if i else twice
        rows.append(
            Unit(
                name,
                count if what == "block" else 0,
                compute,
                host,
                traffic,
                *once,
                largest,
                inside / count,
                first,
                own,
            )
        )
    return rows


def exchanged(step: Step, device: Device) -> list[tuple[int, int, float]]:
    """What the host needs to launch the exchanges inside the model: node, phase, seconds."""
    again, once = (
        repeated(step),
        constants().host.collective * launch(step.recipe.stack, device, constants()),
    )
    share = {"forward": 1.0, "backward": step.recipe.stack.dispatch_backward}
    first = [
        (tr.node, PHASES.index(tr.phase), once * share[tr.phase] * tr.count) for tr in step.traffic
    ]
    more = [
        (tr.node, PHASES.index("recompute"), once * again.get(tr.node, 0.0) * tr.count)
        for tr in step.traffic
        if tr.phase == "forward"
    ]
    return [*first, *more]


def _traffic(at: Placement, nodes: set[int], count: int, again: dict[int, float]) -> dict:
    """What these nodes send in one repetition, by phase, group and whether it runs behind the
    kernels beside it.
    """
    deduplicated = at.step.recipe.stack.implementations.get("dispatch") == "deduplicated"
    found: dict = {}
    for tr in at.step.traffic:
        if tr.node in nodes:
            cost = at.network.cost(tr.kind, tr.group, tr.bytes, tr.copies, deduplicated).times(
                tr.count / count
            )
            for when, share in (
                (tr.phase, 1.0),
                ("recompute", again.get(tr.node, 0.0) * (tr.phase == "forward")),
            ):
                if share:
                    key = (when, tr.group, tr.behind)
                    found[key] = found.get(key, NOTHING).plus(cost.times(share))
    return found


def repeated(step: Step) -> dict[int, float]:
    """Share of each op's forward launches that recomputation repeats."""
    launches = {phase: {} for phase in PHASES}
    for k in step.kernels:
        launches[k.phase][k.node] = launches[k.phase].get(k.node, 0) + k.count
    return {node: n / launches["forward"][node] for node, n in launches["recompute"].items()}


def passes(us: list[Unit], at: Placement) -> Passes:
    """Forward and backward of each unit with its traffic. Broadcasts over layouts.

    The host dispatches ahead of device and network together: where it is slower than both, traffic
    costs nothing. Layers are alike, unless the host waits in each of them for the device, as for
    experts' token counts.
    """
    x, hide = at.layout, at.hide
    found = Passes([0.0] * len(us), [0.0] * len(us), {}, {})
    offloaded = host_memory.link(at.device) if "activations" in at.step.recipe.offload else np.inf
    if offloaded < np.inf and not any(u.count for u in us):
        raise BadInput(
            "offload activations: those of repeated layers go to the host, and this model has none;"
            " leave it out"
        )
    for i, u in enumerate(us):
        times = max(u.count, 1)
        alike = runs_ahead(u.count, u.expert, at.step.recipe.stack)
        back = u.compute[1] + u.compute[2] - u.added / x.micro_batches
        for phase, base, host in (
            ("forward", u.compute[0], u.host[0]),
            ("backward", back, u.host[1] + u.host[2]),
        ):
            seconds, alone = base, combine(base, host, constants(), alike)
            waits: dict[str, float] = {}
            here = [
                (group, hide["behind"] if behind else hide[group], c)
                for (when, group, behind), c in u.traffic.items()
                if when == phase or (when == "recompute" and phase == "backward")
            ]
            if gathers(x) and (u.dense or u.expert):
                here.append(("fsdp", hide["fsdp"], gathered(at, u.dense, u.expert, phase)))
            if offloaded < np.inf and u.count:
                here.append(("offload", hide["offload"], Cost(u.kept / offloaded, u.kept)))
            for name, w, c in here:
                after = joined(seconds, c.seconds, w)
                waits[name] = waits.get(name, 0.0) + (after - seconds)
                found.sent[name] = found.sent.get(name, 0.0) + c.bytes * times
                seconds = after
            whole = combine(seconds, host, constants(), alike)
            # of the device's wait, what the step feels
            felt = (whole - alone) / np.maximum(seconds - base, 1e-30)
            for name, wait in waits.items():
                found.exposed[name] = found.exposed.get(name, 0.0) + wait * felt * times
            (found.forward if phase == "forward" else found.backward)[i] = whole
    return found


def deal(us: list[Unit], x: Layout) -> list[list[int]]:
    """Units of each pipeline chunk: as many layers as asked, or equal runs, those left over to the
    middle; what is around to the ends.
    """
    layers = [i for i, u in enumerate(us) for _ in range(u.count)]
    n = x.pp * x.vpp
    if n > 1 and len(layers) < n - 2:  # the embedding and the head may stand alone
        raise BadInput(
            f"pp {x.pp} x vpp {x.vpp} = {n} stages, but the model has {len(layers)} layers; use at"
            f" most {len(layers)}"
        )
    each, rest = divmod(len(layers), n)
    middle = sorted(range(n), key=lambda c: abs(2 * c - n + 1))[:rest]
    sizes = x.stages or [each + (c in middle) for c in range(n)]
    if sum(sizes) != len(layers):
        raise BadInput(
            f"stages {','.join(map(str, sizes))}: {sum(sizes)} layers, but the model has"
            f" {len(layers)}"
        )
    chunks, start = [], 0
    for size in sizes:
        chunks.append(layers[start : start + size])
        start += size
    around = [i for i, u in enumerate(us) if not u.count]
    for i in around:
        if not layers or i < layers[0]:
            chunks[0].insert(0, i)
        elif i > layers[-1]:
            chunks[-1].append(i)
        else:  # between two kinds of layers: with the first of the second
            c = next(
                c for c, members in enumerate(chunks) if any(m > i for m in members if us[m].count)
            )
            chunks[c].append(i)
    return chunks


def stages(us: list[Unit], x: Layout) -> list[list[int]]:
    """Units of each pipeline stage: its chunks are every pp-th, or of a V one going down and one
    coming up.
    """
    chunks = deal(us, x)
    if x.schedule == "zb-v" and x.pp > 1:
        return [[*chunks[stage], *chunks[2 * x.pp - 1 - stage]] for stage in range(x.pp)]
    return [
        [u for c in range(stage, x.pp * x.vpp, x.pp) for u in chunks[c]] for stage in range(x.pp)
    ]
