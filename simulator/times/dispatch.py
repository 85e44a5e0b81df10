"""Host time of a step: seconds to launch its kernels, and how far device work hides it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.constants import Kernels
from roofcast.hwdb.constants import kernels as constants
from roofcast.hwdb.records import Device
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.software.stack import Stack
from roofcast.simulator.times.host import combine, of_device
from roofcast.simulator.work.step import Step

PHASES = ("forward", "backward", "recompute", "update")
# kernels whose shape states how many launches they are, where they have one
OWN_LAUNCHES = ("optimizer", "accumulate")
# a step is timed layer by layer if at least so large a share of its launches lies in runs of at
# least so many layers of one kind; assumed, no step tells these two numbers
MANY_LAYERS = 8
MOST_LAUNCHES = 0.7
# host seconds that PyTorch takes to describe a 2:4 product to cuSPARSELt, in every call that no
# graph replays: 0.18 ms beside an A100, 0.39 ms beside an H100
# (scenarios/measured/formats/sparse.csv)
SPARSE_CALL = 2.6e-4
MATMULS = ("matmul", "sparse_matmul")


class Phases(NamedTuple):
    """Seconds of a step by phase, one value per phase in the order of PHASES."""

    of: np.ndarray  # index into PHASES of each kernel
    device_s: np.ndarray
    host_s: np.ndarray
    total_s: np.ndarray  # of both together
    between_s: float  # of the host between steps
    program_s: float  # of the host to launch the step, where it is one program


def phases_of(step: Step, seconds: np.ndarray, device: Device, waits: bool = True) -> Phases:
    """Seconds of each phase of a step, from the device time of each kernel [s].

    waits: include the host's waits for token counts and between steps; over several devices they
    are reported separately.
    """
    c = constants()
    of = np.array([PHASES.index(k.phase) for k in step.kernels])
    sums = by_phase(step, seconds, of, device, c, waits)
    if not waits:
        return Phases(of, *sums, 0.0, 0.0)
    stack = step.recipe.stack
    apart_s = float((sums[0] + sums[1] - sums[2])[:-1].sum())  # without the update
    between = float(between_steps(stack, device, c, float(sums[2].sum()), apart_s))
    return Phases(of, *sums, between, program(stack, device, c))


def by_phase(
    step: Step,
    seconds: np.ndarray,
    phase: np.ndarray,
    device: Device,
    c: Kernels,
    waits: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seconds of each phase: of the device, of the host, and of both together.

    seconds: device time of each kernel; phase: index into PHASES of each kernel; waits: include
    the host's waits for token counts of experts. A step made of many layers of one kind is combined
    layer by layer, as over several devices; any other step phase by phase. On a CPU the two add,
    since one machine does both.
    """
    host, stack = dispatch(step, device, c), step.recipe.stack
    key = step.runs
    places = {k: i for i, k in enumerate(dict.fromkeys(key))}
    of = np.array([places[key[k.node]] for k in step.kernels])
    device_s, host_s = np.zeros((2, len(places), len(PHASES)))
    np.add.at(device_s, (of, phase), seconds)
    np.add.at(host_s, (of, phase), host)
    expert = {places[key[w.node]] for w in step.weights if w.expert}
    counts = np.zeros(len(PHASES))
    if waits:
        passes = 2 if step.recipe.mode == "train" else 1
        layers = sum(_count(step, list(places)[i]) for i in expert)
        counts[:passes] = token_counts(stack, device) * layers
    whole_device, whole_host = device_s.sum(axis=0), host_s.sum(axis=0)
    if device.kind == "cpu":
        return whole_device, whole_host, whole_device + whole_host
    if is_layered(step):
        ahead = [runs_ahead(_count(step, k), i in expert, stack) for k, i in places.items()]
        parts = zip(device_s, host_s, ahead, strict=True)
        total_s = sum(combine(d, h, c, free, stack.blocking) for d, h, free in parts)
    else:
        total_s = combine(whole_device, whole_host, c, False, stack.blocking)
    total_s = np.where(whole_device > 0, total_s, 0.0) + counts
    return whole_device, whole_host + counts, total_s


def between_steps(
    stack: Stack, device: Device, c: Kernels, rest_s: ArrayLike = 0.0, apart_s: ArrayLike = 0.0
) -> np.ndarray | float:
    """Host seconds per step beyond the `rest_s` that it takes otherwise: what nothing hides (a
    session's call, input, logging), and what the step does not hide of the launch of its program.

    The host launches the program of the next step while this one runs, so that a step takes the
    longer of the two. More on an older host. A stack that records each micro-batch whole before the
    device runs it, and reads the loss after each step, hides neither the recording of the first
    micro-batch nor the run of the last: `apart_s`, how much longer host and device of one
    micro-batch take one after the other than together.
    """
    always: np.ndarray | float
    always = float(stack.step_s * (of_device(device, c) if device.kind != "cpu" else 1.0))
    if stack.records and device.kind != "cpu":
        always = always + np.maximum(apart_s, 0.0)
    launching = program(stack, device, c)
    if not launching:
        return always
    longer = combine(rest_s, launching, c, alike=True) - np.asarray(rest_s)
    return always + np.maximum(longer, 0.0)


def program(stack: Stack, device: Device, c: Kernels) -> float:
    """Host seconds to launch a step that is one compiled program; none where the host computes.
    More on an older host.
    """
    if device.kind == "cpu":
        return 0.0
    return float(stack.program_s * of_device(device, c))


def token_counts(stack: Stack, device: Device) -> float:
    """Seconds per pass of a layer of experts in which the host waits for its token counts and the
    device for what the host launches then: they add to the layer. As long on every host: most of a
    wait is a copy, and other ranks. None on a CPU, whose counts are at hand.
    """
    return 0.0 if device.kind == "cpu" else stack.sync_s


def _count(step: Step, key: tuple[str, int]) -> int:
    """How often a run of ops is repeated."""
    return step.blocks[key[1]].count if key[0] == "block" else 1


def runs_ahead(count: float, expert: float | np.bool, stack: Stack) -> bool:
    """Does the host run ahead over layers of one kind? Not where it waits in each of them for the
    token counts of experts.

    count: layers in a row; expert: weights of experts in them, or whether there are any.
    """
    return count > 1 and not (expert and stack.sync_s)


def is_layered(step: Step) -> bool:
    """Is most of the step one layer repeated many times, as in a transformer?"""
    launches = [(k.count, step.nodes[k.node].layer) for k in step.kernels if k.phase == "forward"]
    repeated = sum(n for n, layer in launches if layer and step.blocks[layer].count >= MANY_LAYERS)
    return repeated > MOST_LAUNCHES * sum(n for n, _ in launches)


def launch(stack: Stack, device: Device, c: Kernels) -> float:
    """Host seconds to launch one forward kernel: none under CUDA graphs, more on an older host."""
    if stack.graphs:
        return 0.0
    if device.kind == "cpu":
        return min(stack.dispatch_s, c.host.native)
    return float(stack.dispatch_s * of_device(device, c))


def dispatch(step: Step, device: Device, c: Kernels) -> np.ndarray:
    """Host seconds to launch each kernel, all repetitions.

    Libraries that loop over the experts of a grouped product launch one kernel for each of them.
    Graphs of all but the experts leave the launches of these and of the update.
    """
    stack, forward = step.recipe.stack, launch(step.recipe.stack, device, c)
    share = {"forward": 1.0, "recompute": 1.0, "backward": stack.dispatch_backward, "update": 1.0}
    launches = [k.shape[0] if k.kind in OWN_LAUNCHES and k.shape else 1.0 for k in step.kernels]
    if stack.expert_launches:
        for i, k in enumerate(step.kernels):
            if k.kind in MATMULS and step.nodes[k.node].op == "experts":
                launches[i] = stack.expert_launches * k.shape[0]
    if stack.graphs_but_experts:
        for i, k in enumerate(step.kernels):
            if k.phase != "update" and step.nodes[k.node].op != "experts":
                launches[i] = 0.0
    modules = _modules(step) if stack.module_s and forward else np.zeros(len(step.kernels))
    more = stack.module_s * of_device(device, c) * modules
    sparse = SPARSE_CALL if forward and device.kind == "gpu" else 0.0
    each = zip(step.kernels, launches, strict=True)
    launching = np.array(
        [
            k.count * (forward * share[k.phase] * n + sparse * (k.kind == "sparse_matmul"))
            for k, n in each
        ]
    )
    return launching + more


def _modules(step: Step) -> np.ndarray:
    """Linear layers in 8 bits that each kernel stands for, all repetitions: one for each input that
    products of a pass read, since queries, keys and values are one layer, and gate and up; the
    first of them stands for it in the forward, and once in the backward.
    """
    found, inputs, firsts = np.zeros(len(step.kernels)), set(), set()
    for i, k in enumerate(step.kernels):
        if k.kind in MATMULS and k.product == "fp8" and k.phase != "backward" and k.inputs:
            read = (k.phase, k.inputs[0].storage)
            if read not in inputs:
                inputs.add(read)
                found[i] = k.count
                firsts.add(k.node)
    for i, k in enumerate(step.kernels):
        if k.kind in MATMULS and k.product == "fp8" and k.phase == "backward" and k.node in firsts:
            firsts.discard(k.node)
            found[i] = k.count
    return found
