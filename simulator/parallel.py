"""A step over several devices: one rank's kernels and traffic -> stages -> pipeline -> step, with what is exposed and held.

What one rank computes and sends for one micro-batch comes from the tape, whose shapes are already one rank's. Here layers
are dealt to pipeline stages, collectives get their seconds and are hidden behind compute as the stack hides them, the
schedule joins stages and micro-batches, gradients are reduced, weights updated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hwdb.collective_constants import collectives as network_constants
from hwdb.constants import kernels as constants
from hwdb.errors import BadInput
from hwdb.records import Device
from simulator import collectives
from simulator.fabric import Fabric, Group, Groups, groups
from simulator import offload as host_memory
from simulator.layout import Layout
from simulator.memory import IN_FLIGHT, held
from simulator.ops.optimizer import optimizer
from simulator.precision import WIDTH
from simulator.recompute import policy
from simulator.replay import replay
from simulator.report import dispatch
from simulator.roofline import OpTimes
from simulator.schedule import Stages, in_flight, pipeline
from simulator.step import Step
from simulator.times.host import combine

PHASES = ("forward", "backward", "recompute", "update")
HIDE = {"tp": 1.0, "ep": 1.0, "etp": 1.0, "cp": 1.0, "behind": 6.0, "dp": 1.6, "fsdp": 6.0, "offload": 6.0}
"""How traffic hides behind compute: (compute^w + traffic^w)^(1/w); 1 not at all, large almost all.

Fitted to published runs: w 1.6 for gradient reduction on 64 to 10752 GPUs, 6 for FSDP's gathers; a stack may set its own.
"""
SPLIT_BACKWARD = ("zb-h1", "zb-v", "dualpipe")
WEIGHT_GRADIENTS = 0.4  # of a transformer layer's backward: half of its products, little else
MASTER = 12.0  # bytes a weight of fp32 copy and two fp32 moments, under a stack that keeps them


class Cost(NamedTuple):
    """Seconds and bytes of traffic."""

    seconds: float
    bytes: float

    def plus(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.bytes + other.bytes)

    def times(self, n: float) -> Cost:
        return Cost(self.seconds * n, self.bytes * n)


NOTHING = Cost(0.0, 0.0)


class Network(NamedTuple):
    """A fabric with the process groups of one layout laid on it."""

    fabric: Fabric
    groups: Groups

    def group(self, name: str) -> Group:
        g = self.groups
        return {
            "tp": g.tensor, "cp": g.context, "ep": g.expert, "etp": g.expert_tensor, "pp": g.pipeline, "dp": g.gradient,
            "expert": g.expert_gradient, "shard": g.shard, "copies": g.copies, "expert shard": g.expert_shard, "expert copies": g.expert_copies,
        }[name]  # fmt: skip

    def cost(self, kind: str, name: str, bytes_: float, copies: int = 1, deduplicated: bool = False) -> Cost:
        """One collective of `bytes_` over a group; `ring` hands them round in as many pieces as the group has members.

        copies: of each token that experts exchange; `deduplicated`, one a domain crosses the network.
        """
        group, c = self.group(name), network_constants()
        sent = sent_bytes(kind, bytes_, group.size)
        if kind == "ring":
            return Cost(collectives.send_recv(bytes_ / group.size, group, self.fabric, c) * (group.size - 1.0), sent)
        if kind == "send":
            return Cost(collectives.send_recv(bytes_, group, self.fabric, c), sent)
        if kind == "all_to_all":
            return Cost(collectives.all_to_all(bytes_, group, self.fabric, c, float(copies), deduplicated), sent)
        return Cost(getattr(collectives, kind)(bytes_, group, self.fabric, c), sent)


def sent_bytes(kind: str, bytes_, members):
    """Bytes that each member of a group sends in one collective of `bytes_`.

    >>> sent_bytes("all_gather", 8.0, 4.0), sent_bytes("all_reduce", 8.0, 4.0), sent_bytes("send", 8.0, 4.0)
    (6.0, 12.0, 8.0)
    """
    if kind == "send":
        return bytes_ * (members > 1)
    return bytes_ * (members - 1.0) / members * (2.0 if kind == "all_reduce" else 1.0)


def network(x, fabric: Fabric) -> Network:
    """The groups of a layout, or of columns of layouts, on a fabric."""
    return Network(fabric, groups(fabric, x.tp, x.cp, x.dp, x.pp, x.ep, x.etp, x.shard))


class Unit(NamedTuple):
    """A layer, or what stands before, between and after the layers. Of one micro-batch on one rank, one repetition."""

    name: str
    count: int  # layers of this kind in a row; 0 for what is no layer
    compute: np.ndarray  # device seconds by phase: forward, backward, recompute, update
    host: np.ndarray  # seconds to dispatch them, by phase
    traffic: dict  # (phase, group, behind) -> Cost; phases forward, backward, and recompute: of the forward, sent again
    dense: float  # weights of it that data-parallel ranks share
    expert: float  # weights of experts
    kept: float  # bytes for backward
    largest: float  # bytes of the largest tensors in flight
    inside: float  # bytes kept when nothing is recomputed

    @property
    def update(self) -> float:
        """Seconds of the optimizer on all of its weights."""
        return float(combine(self.compute[3], self.host[3], constants()))


def units(step: Step, times: OpTimes, device: Device, net: Network) -> list[Unit]:
    """The step's layers and what is around them, in order, with seconds and bytes."""
    key = [("block", n.layer) if n.layer else ("op", _next_block(step, i)) for i, n in enumerate(step.nodes)]
    order = list(dict.fromkeys(key))
    place = {k: i for i, k in enumerate(order)}
    of = np.array([place[key[k.node]] for k in step.kernels])
    phase = np.array([PHASES.index(k.phase) for k in step.kernels])
    device_s, host_s = np.zeros((2, len(order), 4))
    np.add.at(device_s, (of, phase), times.seconds)
    np.add.at(host_s, (of, phase), dispatch(step, device, constants()))
    if device.kind == "cpu":
        device_s, host_s = device_s + host_s, 0.0 * host_s
    stack, again, inferring = step.recipe.stack, repeated(step), step.recipe.mode == "infer"
    deduplicated = stack.implementations.get("dispatch") == "deduplicated"
    rows = []
    for i, (what, block) in enumerate(order):
        count = step.blocks[block].count if what == "block" else 1
        nodes = {n for n, k in enumerate(key) if k == order[i]}
        traffic: dict = {}
        for tr in step.traffic:
            if tr.node in nodes:
                cost = net.cost(tr.kind, tr.group, tr.bytes, tr.copies, deduplicated).times(tr.count / count)
                for when, share in ((tr.phase, 1.0), ("recompute", again.get(tr.node, 0.0) * (tr.phase == "forward"))):
                    if share:
                        at = (when, tr.group, tr.behind)
                        traffic[at] = traffic.get(at, NOTHING).plus(cost.times(share))
        dense = sum(w.size * w.count for w in step.weights if w.node in nodes and not w.expert)
        expert = sum(w.size * w.count for w in step.weights if w.node in nodes and w.expert)
        if expert:
            host_s[i, :2] += stack.sync_s * count
        kept = sum(s.bytes * s.count for s in step.saved if s.node in nodes)
        inside = sum(s.bytes * s.count for s in step.counted if s.node in nodes)
        largest = max((sum(v.bytes for v in (*k.inputs, *k.outputs) if (v.grad or inferring) and v.kind == "activation")
                       for k in step.kernels if k.node in nodes and k.phase == "forward"), default=0.0)  # fmt: skip
        name = step.blocks[block].name if what == "block" else step.nodes[min(nodes)].name
        once = (v / count for v in (dense, expert, kept))
        rows.append(
            Unit(name, count if what == "block" else 0, device_s[i] / count, host_s[i] / count, traffic, *once, largest, inside / count)
        )
    return rows


def repeated(step: Step) -> dict[int, float]:
    """Share of each op's forward launches that recomputation repeats."""
    launches = {phase: {} for phase in PHASES}
    for k in step.kernels:
        launches[k.phase][k.node] = launches[k.phase].get(k.node, 0) + k.count
    return {node: n / launches["forward"][node] for node, n in launches["recompute"].items()}


def _next_block(step: Step, i: int) -> int:
    """The repeated block that an op outside blocks stands before; -1 behind the last."""
    return next((n.layer for n in step.nodes[i:] if n.layer), -1)


def joined(compute, traffic, w):
    """Seconds of compute with traffic hidden behind it: (compute^w + traffic^w)^(1/w)."""
    most = np.maximum(np.maximum(compute, traffic), 1e-30)
    return most * ((compute / most) ** w + (traffic / most) ** w) ** (1.0 / w)


class Rank(NamedTuple):
    """What the ranks of one pipeline stage hold at their fullest [B]."""

    stage: int
    layers: int
    parameters: float
    gradients: float
    optimizer: float
    activations: float
    transient: float
    buffers: float  # communication
    framework: float

    @property
    def total(self) -> float:
        return sum(self[2:])


class Pipe(NamedTuple):
    """What the schedule was asked, for a replay of it, and what follows it [s]."""

    schedule: str
    stages: Stages
    hop: float
    reducing: float  # exposed


class Spread(NamedTuple):
    """A step over several devices."""

    step_s: float
    update_s: float
    bubble: float  # share of the step that stages wait for each other
    computing: float  # seconds that the busiest stage computes
    exposed: dict[str, float]  # seconds by kind of traffic that nothing hides
    sent: dict[str, float]  # bytes by kind, one rank and step
    ranks: tuple[Rank, ...]
    pipe: Pipe


def spread(step: Step, times: OpTimes, device: Device, layout: Layout, fabric: Fabric) -> Spread:
    """Step of one rank and micro-batch, layout, fabric -> the whole step."""
    stack, x = step.recipe.stack, layout
    hide = {**HIDE, **stack.overlap}
    net = network(x, fabric)
    us = units(step, times, device, net)
    forward, backward, exposed, sent = _unit_times(us, x, net, hide, step.recipe, device)
    chunks = deal(us, x)
    stages = [[u for c in _chunks_of(stage, x) for u in chunks[c]] for stage in range(x.pp)]
    f = np.array([sum(forward[u] for u in s) for s in stages])
    b = np.array([sum(backward[u] for u in s) for s in stages])
    weights = np.array([sum(us[u].dense for u in s) for s in stages])
    experts = np.array([sum(us[u].expert for u in s) for s in stages])
    handed = max((block.carried for block in step.blocks), default=0.0)
    schedule = x.schedule if x.pp > 1 else "none"
    hop = crossing(net, handed, x.tp, x.sp, stack, schedule)
    run = pipeline(schedule, ends(schedule, f, b), x.pp, x.vpp, x.micro_batches, hop)
    if schedule in SPLIT_BACKWARD:  # their closed forms are approximate: replayed
        run = run._replace(total=replay(schedule, ends(schedule, f, b), x.pp, x.vpp, x.micro_batches, float(hop)).total)
    seconds = run.total
    update = updating(max(sum(us[u].update for u in s) for s in stages), (weights + experts).max(), x, step, device)
    reduced = reduction(weights.max(), experts.max(), x, net, stack, _width(step))
    whole = joined(seconds, reduced.seconds, hide["dp"])
    sent = {k: float(v * x.micro_batches / x.pp) for k, v in sent.items()}
    exposed = {k: float(v * x.micro_batches / x.pp) for k, v in exposed.items()}
    if reduced.bytes > 0:
        sent["dp"], exposed["dp"] = sent.get("dp", 0.0) + float(reduced.bytes), exposed.get("dp", 0.0) + float(whole - seconds)
    if x.pp > 1:
        sent["pp"], exposed["pp"] = 2 * handed * x.micro_batches * x.vpp, float(run.exposed_p2p)
    if "optimizer" in step.recipe.offload:
        exposed["offload"] = exposed.get("offload", 0.0) + float(update)
        sent["offload"] = sent.get("offload", 0.0) + float((weights + experts).max() * 2 * _width(step) / (x.shard if x.zero else 1))
    if x.schedule == "dualpipe" and x.pp > 1:  # both directions: each rank holds a part of either
        stages = [s + stages[x.pp - 1 - i] for i, s in enumerate(stages)]
    ranks = tuple(_rank(i, s, us, step, x, device) for i, s in enumerate(stages))
    if x.devices == x.micro_batches == 1:
        ranks = (_alone(step, device, sum(u.count for u in us)),)
    bubble = max(float(run.bubble * seconds / (whole + update)), 0.0) if x.pp > 1 else 0.0
    pipe = Pipe(schedule, ends(schedule, f, b), float(hop), float(whole - seconds))
    return Spread(float(whole + update), float(update), bubble, float((f + b).max() * x.micro_batches), exposed, sent, ranks, pipe)


def crossing(net: Network, handed: float, tp: int, sp: bool, stack, schedule: str):
    """Seconds that a stage is held up by handing a micro-batch on. Interleaved schedules send behind compute where the stack lets them."""
    if schedule == "interleaved" and stack.overlap.get("pp", 1.0) > 1.0:
        return 0.0
    return net.cost("send", "pp", handed / (tp if stack.scattered and not sp else 1)).seconds


def _width(step: Step) -> float:
    """Bytes of a weight."""
    return WIDTH[step.weights[0].dtype] if step.weights else 4.0


def ends(schedule: str, f, b) -> Stages:
    """Stages as the schedule takes them: a middle one, the slowest, and what the first and the last take beyond it."""
    w = WEIGHT_GRADIENTS * b if schedule in SPLIT_BACKWARD else 0.0 * b
    inner = slice(1, -1) if len(f) > 2 else slice(None)
    mid = [x[inner].max() for x in (f, b - w, w)]
    if len(f) == 1:
        return Stages(*mid)
    return Stages(*mid, *(tuple(x[i] - m for x, m in zip((f, b - w, w), mid, strict=True)) for i in (0, -1)))


def updating(seconds, weights, x, step: Step, device: Device):
    """Seconds of the optimizer on the fullest stage's weights; its share of them where states are sharded. Broadcasts over layouts."""
    ranks = np.where(np.greater(x.zero, 0), x.shard, 1)
    if "optimizer" in step.recipe.offload:
        stack = step.recipe.stack
        return host_memory.update_seconds(weights, step, device, stack.gradient_bytes if stack.master else _width(step)) / ranks
    return seconds / ranks


def _unit_times(us: list[Unit], x: Layout, net: Network, hide, recipe, device: Device):
    """Forward and backward seconds of each unit with its traffic, and what of it is exposed and sent, whole model.

    The host dispatches ahead of device and network together: where it is slower than both, traffic costs nothing.
    """
    forward, backward = [0.0] * len(us), [0.0] * len(us)
    exposed: dict[str, float] = {}
    sent: dict[str, float] = {}
    offloaded = host_memory.link(device) if "activations" in recipe.offload else np.inf
    if offloaded < np.inf and not any(u.count for u in us):
        raise BadInput("offload activations: those of repeated layers go to the host, and this model has none; leave it out")
    for i, u in enumerate(us):
        times = max(u.count, 1)
        for phase, base, host in (("forward", u.compute[0], u.host[0]), ("backward", u.compute[1] + u.compute[2], u.host[1] + u.host[2])):
            seconds, alone = base, combine(base, host, constants())
            waits: dict[str, float] = {}
            here = [
                (group, hide["behind"] if behind else hide[group], c)
                for (when, group, behind), c in u.traffic.items()
                if when == phase or (when == "recompute" and phase == "backward")
            ]
            if gathers(x) and (u.dense or u.expert):
                here.append(("fsdp", hide["fsdp"], _gather(u, phase, x, net)))
            if offloaded < np.inf and u.count:
                here.append(("offload", hide["offload"], Cost(u.kept / offloaded, u.kept)))
            for name, w, c in here:
                after = joined(seconds, c.seconds, w)
                waits[name] = waits.get(name, 0.0) + (after - seconds)
                sent[name] = sent.get(name, 0.0) + c.bytes * times
                seconds = after
            whole = combine(seconds, host, constants())
            felt = (whole - alone) / np.maximum(seconds - base, 1e-30)  # of the device's wait, what the step feels
            for name, wait in waits.items():
                exposed[name] = exposed.get(name, 0.0) + wait * felt * times
            (forward if phase == "forward" else backward)[i] = whole
    return forward, backward, exposed, sent


def gathers(x) -> bool:
    """Are weights gathered for each micro-batch? In a pipeline that keeps them, once a step."""
    return bool(np.all(np.equal(x.zero, 3) & (np.equal(x.pp, 1) | x.reshard)))


def _gather(u: Unit, phase: str, x, net: Network) -> Cost:
    """ZeRO-3: a unit's weights are gathered before each pass, unless they stay from the forward; its gradients are scattered after
    the backward [rajbhandari2019], and under hybrid sharding summed over the copies of the shard [zhao2023]."""
    total = NOTHING
    for weights, group, n in ((u.dense, "", x.shard), (u.expert, "expert ", expert_shard(x))):
        if weights and (phase == "forward" or np.all(x.reshard)):
            total = total.plus(net.cost("all_gather", f"{group}shard", 2.0 * weights))
        if weights and phase == "backward":
            total = total.plus(_scatter(2.0 * weights, n, group, net))
    return total


def _scatter(bytes_, ranks, group: str, net: Network) -> Cost:
    """Gradients scattered over a shard's ranks, then summed over its copies. Where the shard lies within a node the two use
    different links, and one bucket's second half runs beside the next one's first."""
    first, second = net.cost("reduce_scatter", f"{group}shard", bytes_), net.cost("all_reduce", f"{group}copies", bytes_ / ranks)
    apart = net.group(f"{group}shard").nodes <= 1.0
    both = np.where(apart, np.maximum(first.seconds, second.seconds), first.seconds + second.seconds)
    return Cost(both, first.bytes + second.bytes)


def expert_shard(x):
    """Ranks that the states of an expert are sharded over."""
    return np.minimum(x.shard, np.maximum(x.tp * x.cp * x.dp // (x.ep * x.etp), 1))


def reduction(dense, expert, x, net: Network, stack, width: float) -> Cost:
    """Gradients of the fullest stage over the data-parallel ranks: all-reduced once a step (ZeRO-0), or scattered, once or each
    micro-batch (ZeRO-2), summed over the copies of a shard, and the updated weights gathered. ZeRO-3 has done it layer by layer,
    but in a pipeline that keeps its weights over the step. Broadcasts over layouts."""
    grad = stack.gradient_bytes if stack.master else width
    total = NOTHING
    done = np.equal(x.zero, 3) & (np.equal(x.pp, 1) | x.reshard)
    for n, whole, group, ranks in ((dense, "dp", "", x.shard), (expert, "expert", "expert ", expert_shard(x))):
        if not np.any(n):
            continue
        reduced, scattered = net.cost("all_reduce", whole, grad * n), _scatter(grad * n, ranks, group, net)
        gathered, repeats = net.cost("all_gather", f"{group}shard", width * n), np.where(np.equal(x.zero, 2), x.micro_batches, 1)
        seconds = np.where(np.equal(x.zero, 0), reduced.seconds, scattered.seconds * repeats + gathered.seconds)
        bytes_ = np.where(np.equal(x.zero, 0), reduced.bytes, scattered.bytes * repeats + gathered.bytes)
        total = total.plus(Cost(seconds, bytes_).times(np.where(done, 0.0, 1.0)))
    return total


def deal(us: list[Unit], x: Layout) -> list[list[int]]:
    """Units of each pipeline chunk: as many layers as asked, or equal runs, those left over to the middle; what stands around to the ends."""
    layers = [i for i, u in enumerate(us) for _ in range(u.count)]
    n = x.pp * x.vpp
    if n > 1 and len(layers) < n - 2:  # the embedding and the head may stand alone
        raise BadInput(f"pp {x.pp} x vpp {x.vpp} = {n} stages, but the model has {len(layers)} layers; use at most {len(layers)}")
    each, rest = divmod(len(layers), n)
    middle = sorted(range(n), key=lambda c: (c in (0, n - 1), abs(2 * c - n + 1)))[:rest]
    sizes = x.stages or [each + (c in middle) for c in range(n)]
    if sum(sizes) != len(layers):
        raise BadInput(f"stages {','.join(map(str, sizes))}: {sum(sizes)} layers, but the model has {len(layers)}")
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
            c = next(c for c, members in enumerate(chunks) if any(m > i for m in members if us[m].count))
            chunks[c].append(i)
    return chunks


def _chunks_of(stage: int, x: Layout) -> list[int]:
    """Which chunks a stage holds: every pp-th, or of a V one going down and one coming up."""
    if x.schedule == "zb-v" and x.pp > 1:
        return [stage, 2 * x.pp - 1 - stage]
    return list(range(stage, x.pp * x.vpp, x.pp))


class Share(NamedTuple):
    """What a stage's units hold, all repetitions: weights, and bytes of one micro-batch. Broadcasts over layouts."""

    dense: float
    expert: float
    kept: float
    transient: float  # the largest tensors in flight; under full recomputation a layer's inside with them
    largest_unit: float  # weights of the largest unit: what ZeRO-3 gathers at once
    resident: float  # bytes kept where those of layers are with the host


def share(members: list[int], us: list[Unit], recompute: str) -> Share:
    """The share of a stage with these units."""
    dense, expert, kept = (sum(getattr(us[u], what) for u in members) for what in ("dense", "expert", "kept"))
    transient = max((us[u].largest for u in members), default=0.0)
    layer = max((us[u] for u in members if us[u].count), key=lambda u: u.inside, default=None)
    again = policy(recompute)
    if again.by_layer and layer is not None:
        transient = max(transient, layer.largest + layer.inside * (again.n if again.kind == "uniform" else 1))
    largest = max((us[u].dense + us[u].expert for u in members), default=0.0)
    stays = sum(us[u].kept for u in members if not us[u].count)
    return Share(dense, expert, kept, transient, largest, stays + IN_FLIGHT * max((us[u].kept for u in members if us[u].count), default=0.0))


def _rank(stage: int, members: list[int], us: list[Unit], step: Step, x: Layout, device: Device) -> Rank:
    """A rank of one stage at its fullest."""
    flying = in_flight(x.schedule, x.pp, x.vpp, x.micro_batches, stage)
    held = holdings(share(members, us, step.recipe.recompute), step, x, device, flying)
    return Rank(stage, sum(1 for u in members if us[u].count), *(float(v) for v in held))


def holdings(mine: Share, step: Step, x, device: Device, flying) -> tuple:
    """Bytes of a rank that holds a share with `flying` micro-batches in flight: parameters, gradients, optimizer, activations,
    transient, buffers, framework. Broadcasts over layouts.

    ZeRO shards optimizer states (1), gradients (2) and parameters (3) over the ranks that hold the same [rajbhandari2019].
    """
    recipe, stack, width, zero = step.recipe, step.recipe.stack, _width(step), np.asarray(x.zero)
    copies, experts = np.asarray(x.shard), expert_shard(x)

    def sharded(bytes_a_weight: float, since: int):
        return bytes_a_weight * (mine.dense / np.where(zero >= since, copies, 1) + mine.expert / np.where(zero >= since, experts, 1))

    training, whole = recipe.mode == "train", np.logical_not(x.reshard) & (zero == 3)  # gathered weights stay
    grad = stack.gradient_bytes if stack.master else width
    o = optimizer(recipe.optimizer) if recipe.optimizer else None
    widened = 4.0 if stack.gradient_bytes < 4.0 else 0.0  # the update makes its part of 16-bit gradients fp32 first
    states = 0.0 if o is None or "optimizer" in recipe.offload else MASTER + widened if stack.master else o.states * width + o.fixed
    kept = mine.kept * flying
    if "activations" in recipe.offload:
        kept = np.minimum(kept, mine.resident)
    activations = (kept if training else 0.0) + step.input_bytes
    gathered = np.where(whole, 2.0 * (mine.dense + mine.expert), 2 * 2.0 * mine.largest_unit * (zero == 3))
    buckets = grad * (mine.dense + mine.expert) * ((zero == 0) & (np.asarray(x.dp * x.cp) > 1) & (not stack.master) & training)
    framework = (stack.framework_bytes if device.kind != "cpu" else 0.0) + stack.slack * (activations + mine.transient)
    late = np.greater(x.pp, 1) & whole  # gradients are reduced when the last micro-batch is through
    gradients = np.where(late, sharded(grad, 4), sharded(grad, 2)) if training else 0.0
    return sharded(width, 3), gradients, sharded(states, 1), activations, mine.transient, gathered + buckets, framework


def _alone(step: Step, device: Device, layers: int) -> Rank:
    """One device with one micro-batch: the fullest moment of its step."""
    h = held(step, step.recipe.stack.framework_bytes if device.kind != "cpu" else 0.0, step.recipe.stack.slack)
    return Rank(0, layers, h.parameters, h.gradients, h.optimizer, h.activations, h.transient, 0.0, h.framework)
