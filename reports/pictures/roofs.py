"""The roofs of a device: peak rates of compute units and memory levels, printed and achieved; and
which ops stand below them. Draws nothing.
"""

from __future__ import annotations

import msgspec

from roofcast.hwdb import constants
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.records import Device
from roofcast.simulator.forecast.result import Forecast, Point
from roofcast.simulator.times.inside import inside_steps
from roofcast.simulator.times.power import long_product
from roofcast.simulator.times.rates import resolve

SMALLEST_SHARE = 1e-4  # of the step; shorter ops are not drawn


class Roof(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a roofline. Rates are FLOP/s, or B/s of a memory level."""

    kind: str  # compute | memory
    label: str  # "bf16, fp16", "fp32 vector", "DRAM", "L2"
    printed: float  # of the datasheet; of a measured device, the best measured rate
    achieved: float | None = None  # what kernels sustain, if known
    precisions: tuple[str, ...] = ()  # of a compute roof: precisions of the points it limits


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A device as a roofline shows it."""

    name: str
    roofs: tuple[Roof, ...]
    measured: bool = False  # `printed` rates are measured ones

    @property
    def compute(self) -> tuple[Roof, ...]:
        """Compute roofs, highest first."""
        return self._of("compute")

    @property
    def memory(self) -> tuple[Roof, ...]:
        """Memory roofs, fastest first; the last one is DRAM."""
        return self._of("memory")

    def _of(self, kind: str) -> tuple[Roof, ...]:
        return tuple(sorted((r for r in self.roofs if r.kind == kind), key=lambda r: -r.printed))


def ridge(compute: Roof, memory: Roof) -> float:
    """Arithmetic intensity above which the compute roof is the limit [FLOP/B] [williams2009]."""
    return compute.printed / memory.printed


def in_use(machine: Machine, precisions: set[str]) -> Machine:
    """The machine with DRAM and the compute roofs of these precisions only, for an overlay."""
    kept = tuple(r for r in machine.compute if precisions & set(r.precisions))
    kept = kept or machine.compute[:1]
    return Machine(name=machine.name, roofs=kept + machine.memory[-1:], measured=machine.measured)


def machine(device: Device, training: bool = True) -> Machine:
    """The roofs of a device: one per number format and kind of unit, one per memory level.

    Formats of the same rate share a roof. The achieved rate is what forecasts assume for long
    kernels: the device's own measured fraction, else its family's, in training lowered to what
    whole steps sustain. Integer formats are left out, since the picture counts FLOPs; of the vector
    units, only fp32 is drawn. Of a measured device, nothing is drawn that was not measured.

    training: use the rate of training steps. Raises BadInput for a device with integer rates only.
    """
    bandwidth = device.memory.bandwidth
    measured = bandwidth.status == "measured"
    roofs = _compute_roofs(device, training, measured)
    if not roofs:
        held = ", ".join(device.peak_flops) or "nothing"
        raise BadInput(
            f"{device.id}: no floating-point rate, so no roofline; [peak_flops] has {held}; add"
            " one with --set peak_flops.bf16=.."
        )
    stream = resolve(device, next(iter(device.peak_flops))).rates.stream
    dram = Roof(
        kind="memory",
        label=device.memory.type or "DRAM",
        printed=float(bandwidth),
        achieved=float(bandwidth) * stream,
    )
    caches = [
        Roof(kind="memory", label=name.upper(), printed=float(level.bandwidth))
        for name, level in device.cache.items()
        if level.bandwidth
    ]
    return Machine(name=device.id, roofs=(*roofs, dram, *caches), measured=measured)


def _compute_roofs(device: Device, training: bool, measured: bool) -> list[Roof]:
    """Roofs of the matrix units by rate, and of the vector units."""
    matrix: dict[float, list[str]] = {}
    for name, rate in device.peak_flops.items():
        if not name.startswith("int"):
            matrix.setdefault(float(rate), []).append(name)
    roofs = []
    vector = device.vector_flops.get("fp32")
    for printed, names in matrix.items():
        known = not measured or f"sustained_{names[0]}" in device.achieved
        under = names if vector or "fp32" in device.peak_flops else [*names, "fp32"]
        roofs.append(
            Roof(
                kind="compute",
                label=", ".join(names),
                printed=printed,
                precisions=tuple(under),
                achieved=printed * _held(device, names[0], training) if known else None,
            )
        )
    if vector and vector not in matrix:
        roofs.append(
            Roof(kind="compute", label="fp32 vector", printed=float(vector), precisions=("fp32",))
        )
    return roofs


def _held(device: Device, format_: str, training: bool) -> float:
    """Fraction of a matrix rate that long products sustain."""
    rates, c = resolve(device, format_).rates, constants.kernels()
    mode = "train" if training else "infer"
    return long_product(device, rates, c.power) * inside_steps("matmul", mode, device, c)[0]


def visible(forecast: Forecast) -> list[Point]:
    """Points that have FLOPs, bytes and a visible share of the step, longest first.

    The optimizer's work on all weights is merged into one point.
    """
    points = [p for p in forecast.points if p.phase != "update"]
    update = [p for p in forecast.points if p.phase == "update"]
    if update:
        sums = {key: sum(getattr(p, key) for p in update) for key in ("flops", "bytes", "time_s")}
        points.append(msgspec.structs.replace(update[0], name="optimizer", **sums))
    least = SMALLEST_SHARE * forecast.step_time_s
    points = [p for p in points if p.flops > 0 and p.bytes > 0 and p.time_s > least]
    return sorted(points, key=lambda p: -p.time_s)
