"""What was asked, with everything decided: Scenario -> Asked. No later stage reads the Scenario."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.lookup import as_set
from roofcast.hwdb.names import is_path
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator import models
from roofcast.simulator.forecast.encoded import encoders_of
from roofcast.simulator.forecast.layouts import default_micro_batch, is_parallel, layout_of
from roofcast.simulator.forecast.lengths import Varied, at_longest, check_lengths, varied_of
from roofcast.simulator.forecast.recipes import recipe_of
from roofcast.simulator.forecast.run import Run, run_of
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.forecast.taught import with_teacher
from roofcast.simulator.models.pruned import pruned
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.step import Recipe

if TYPE_CHECKING:
    from roofcast.simulator.forecast.rank import Traced
    from roofcast.simulator.parallel.fabric import Fabric

ALL_EXPERTS = "llama4_text"  # a family that PyTorch runs through all experts, chosen or not
ROUTED = "a token passes through its chosen experts only, as in training"


class Asked(NamedTuple):
    """A scenario with everything decided."""

    device: hwdb.Device
    # the device whose measured runs tell how sure the forecast is: without edits, and the shipped
    # one that a user's file is based on; None for a chip of the user's on which nothing is measured
    built: hwdb.Device | None
    model: Model
    recipe: Recipe  # of the global batch; of samples of different lengths, the mean micro-batch
    layout: Layout | None  # None on one device
    system: hwdb.System | None  # None: the usual one of the device
    system_name: str | None  # as it was asked for
    run: Run
    assumptions: tuple[str, ...]
    rank: Traced | None = None  # one micro-batch, where choosing it traced it
    fabric: Fabric | None = None  # another network than that of the system
    longest: Recipe | None = None  # whose memory is held, where that is of longer sequences
    padding: float | None = None  # share of the tokens, where samples differ in length


class Named(NamedTuple):
    """What the names in a scenario stand for."""

    device: hwdb.Device
    model: Model
    system: hwdb.System | None


def resolve(s: Scenario) -> Asked:
    """Everything a forecast needs to know of a scenario: defaults for what was left out, each
    listed as an assumption. Raises BadInput or UnknownName for what cannot be.
    """
    names = named(s)
    varied, s = varied_of(s), at_longest(s)
    device, model, system = names
    name = s.system.id if isinstance(s.system, hwdb.System) else s.system
    s = on_whole_system(s, system)
    recipe, assumptions = recipe_of(s, model, device)
    assumptions = [*device.read_as, *assumptions]
    if _is_alias(s.device, device):
        assumptions.insert(0, f"device {s.device}: taken as {device.id}")
    run = run_of(s, recipe, model, device, system, varied)
    of = device, _built(s, device), model
    if not is_parallel(s):
        found = Asked(*of, recipe, None, system, name, run, tuple(assumptions))
    else:
        recipe, layout, rank, more = layout_asked(s, names, recipe)
        found = Asked(*of, recipe, layout, system, name, run, (*assumptions, *more), rank)
    return found if varied is None else _at_mean(found, varied)


def _at_mean(asked: Asked, varied: Varied) -> Asked:
    """What was asked of the longest samples, with the time of the mean micro-batch."""
    x = asked.layout
    micro = x.micro_batch if x is not None else asked.recipe.batch
    size = mean_size(varied, micro, x)
    found = asked._replace(
        assumptions=(*asked.assumptions, *varied.said(micro, size)), padding=varied.padding(size)
    )
    if size == asked.recipe.size:
        return found
    mean = msgspec.structs.replace(asked.recipe, size=size)
    return found._replace(recipe=mean, longest=asked.recipe, rank=None)


def mean_size(varied: Varied, micro: int, x: Layout | None) -> int:
    """Tokens of the sequences of a mean micro-batch, which the ranks of a layout cut into equal
    pieces.
    """
    if x is None:
        return varied.size(micro)
    pieces = (x.cp if x.cp_kind == "ulysses" else 2 * x.cp) if x.cp > 1 else 1
    return varied.size(micro, math.lcm(pieces, x.cp * x.tp if x.sp else 1))


def _built(s: Scenario, device: hwdb.Device) -> hwdb.Device | None:
    """The device as it was built, of a device that may be edited; None where there is none."""
    before = hwdb.device(s.device) if s.set else device
    if before.base in hwdb.devices():
        return hwdb.device(before.base)
    known = not is_path(str(s.device)) or (before.achieved and not before.edits)
    return before if known else None


def named(s: Scenario) -> Named:
    """The device, the model and the system of a scenario. Raises BadInput or UnknownName."""
    device = as_set(s.device, s.set)
    model = models.resolve(s.model, s.inputs, device.kind)
    if s.prune is not None:
        model = pruned(model, s.prune)
    check_lengths(s, model)
    model = encoders_of(s, with_teacher(s, model, device.kind))
    return Named(device, model, _system(s, device))


def on_whole_system(s: Scenario, system: hwdb.System | None) -> Scenario:
    """The scenario on all devices of the system that it names, unless it says how many."""
    if system is None or s.devices is not None or s.dp is not None:
        return s
    return msgspec.structs.replace(s, devices=int(system.count))


class LaidOut(NamedTuple):
    """The layout of a scenario over several devices."""

    recipe: Recipe  # as the layout allows
    layout: Layout
    rank: Traced | None  # one micro-batch of a rank, where choosing it traced that
    assumptions: list[str]


def layout_asked(s: Scenario, names: Named, recipe: Recipe) -> LaidOut:
    """The layout of a scenario over several devices. Raises BadInput for what cannot be."""
    layout, assumptions = layout_of(s, names.model, recipe.batch, recipe.size)
    changed = routed(recipe, layout, names.model)
    more = [ROUTED] if changed is not recipe else []
    if s.micro_batch is not None or layout.pp > 1:
        return LaidOut(changed, layout, None, assumptions + more)
    from roofcast.simulator.forecast.rank import fitting  # one device does without

    chosen, rank, why = fitting(layout, names.model, changed, names.device, names.system)
    plain = default_micro_batch(layout.micro_batch)
    said = default_micro_batch(chosen.micro_batch, why)
    assumptions = [said if text == plain else text for text in assumptions]
    return LaidOut(changed, chosen, rank, assumptions + more)


def routed(recipe: Recipe, layout: Layout, model: Model) -> Recipe:
    """The recipe, with experts that compute their own tokens only where ranks share them."""
    if layout.ep * layout.etp == 1 or model.family != ALL_EXPERTS:
        return recipe
    how = recipe.stack.implementations | {"experts": "grouped"}
    stack = msgspec.structs.replace(recipe.stack, implementations=how)
    return msgspec.structs.replace(recipe, stack=stack)


def _is_alias(name: str, device: hwdb.Device) -> bool:
    """Was a shipped device asked for by another name than its own?"""
    return device.id in hwdb.devices() and str(name) != device.id and not is_path(str(name))


def _system(s: Scenario, device: hwdb.Device) -> hwdb.System | None:
    """The system that was asked for, if it is made of this device."""
    if s.system is None or isinstance(s.system, hwdb.System):
        return s.system
    system = hwdb.system(s.system)
    if system.device not in (device.id, device.base) and device.id in hwdb.devices():
        raise BadInput(
            f"system {s.system} is made of {system.device}, not of {device.id}; use --on"
            f" {system.device}"
        )
    return system
