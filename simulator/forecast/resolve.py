"""What was asked, with everything decided: Scenario -> Asked. No later stage reads the Scenario."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.names import is_path
from roofcast.simulator import models
from roofcast.simulator.forecast.layouts import is_parallel, layout_of
from roofcast.simulator.forecast.recipes import recipe_of
from roofcast.simulator.forecast.run import Run, run_of, tokens_of
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.parallel.layout import Layout
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.step import Recipe

ALL_EXPERTS = "llama4_text"  # a family that PyTorch runs through all experts, chosen or not


class Asked(NamedTuple):
    """A scenario with everything decided."""

    device: hwdb.Device
    # the device whose measured runs tell how sure the forecast is: without edits, and the shipped
    # one that a user's file is based on; None for a chip of the user's on which nothing is measured
    built: hwdb.Device | None
    model: Model
    recipe: Recipe  # of the global batch
    layout: Layout | None  # None on one device
    system: hwdb.System | None  # None: the usual one of the device
    system_name: str | None  # as it was asked for
    run: Run
    assumptions: tuple[str, ...]

    @property
    def tokens(self) -> int | None:
        """Tokens of one step; None for models that do not read sequences."""
        return tokens_of(self.recipe, self.model)


def resolve(s: Scenario) -> Asked:
    """Everything a forecast needs to know of a scenario: defaults for what was left out, each
    listed as an assumption. Raises BadInput or UnknownName for what cannot be.
    """
    device = hwdb.device(s.device, s.set)
    model = models.resolve(s.model, s.inputs, device.kind)
    system = _system(s, device)
    name = s.system.id if isinstance(s.system, hwdb.System) else s.system
    if system is not None and s.devices is None and s.dp is None:  # the whole of it
        s = msgspec.structs.replace(s, devices=int(system.count))
    recipe, assumptions = recipe_of(s, model, device)
    if _is_alias(s.device, device):
        assumptions.insert(0, f"device {s.device}: taken as {device.id}")
    run = run_of(s, recipe, model, device)
    layout = None
    if is_parallel(s):
        layout, more = layout_of(s, model, recipe.batch, recipe.size)
        assumptions += more
        if layout.ep * layout.etp > 1 and model.family == ALL_EXPERTS:
            recipe = _routed(recipe)
            assumptions.append("a token passes through its chosen experts only, as in training")
    return Asked(
        device, _built(s, device), model, recipe, layout, system, name, run, tuple(assumptions)
    )


def _built(s: Scenario, device: hwdb.Device) -> hwdb.Device | None:
    """The device as it was built, of a device that may be edited; None where there is none."""
    before = hwdb.device(s.device) if s.set else device
    if before.base in hwdb.devices():
        return hwdb.device(before.base)
    known = not is_path(str(s.device)) or (before.achieved and not before.edits)
    return before if known else None


def _routed(recipe: Recipe) -> Recipe:
    """The recipe with experts that compute their own tokens only: what ranks can share."""
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
