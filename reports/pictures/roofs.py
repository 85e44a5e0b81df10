"""The roofs of a device: what its compute units and memory levels can do at most, as printed and as
achieved.
"""

from __future__ import annotations

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.records import Device
from roofcast.simulator.times.rates import resolve


class Roof(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a roofline."""

    kind: str  # compute | memory
    label: str  # "bf16, fp16", "fp32 vector", "DRAM", "L2"
    # FLOP/s, or B/s of a memory level; of a measured device, the best that was measured
    printed: float
    achieved: float | None = None  # what kernels sustain, where known
    precisions: tuple[str, ...] = ()  # of a compute roof: whose points stand under it


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A device, as a roofline sees it."""

    name: str
    roofs: tuple[Roof, ...]
    measured: bool = False  # what stands for printed rates was measured

    @property
    def compute(self) -> tuple[Roof, ...]:
        """Compute roofs, highest first."""
        return tuple(
            sorted((r for r in self.roofs if r.kind == "compute"), key=lambda r: -r.printed)
        )

    @property
    def memory(self) -> tuple[Roof, ...]:
        """Memory roofs, fastest first; the last one is DRAM."""
        return tuple(
            sorted((r for r in self.roofs if r.kind == "memory"), key=lambda r: -r.printed)
        )


def ridge(compute: Roof, memory: Roof) -> float:
    """Arithmetic intensity [FLOP/B] from which on the compute roof, not the memory level, is the
    limit [williams2009].
    """
    return compute.printed / memory.printed


def in_use(machine: Machine, precisions: set[str]) -> Machine:
    """Only the compute roofs that some point stands under, and DRAM: what an overlay of devices
    shows.
    """
    kept = (
        tuple(r for r in machine.compute if precisions & set(r.precisions)) or machine.compute[:1]
    )
    return Machine(name=machine.name, roofs=kept + machine.memory[-1:], measured=machine.measured)


def machine(device: Device, training: bool = True) -> Machine:
    """The roofs of a device: one a number format and kind of unit, one a memory level whose
    bandwidth is known.

    Formats of the same rate share a roof. The achieved rate of a roof is what forecasts take for
    long kernels: the device's own measured share, else its family's, and in training what is left
    of it over whole steps. Integer formats are left out: the picture counts FLOPs; of the vector
    units fp32 is drawn, the format they are used in.
    """
    matrix: dict[float, list[str]] = {}
    for name, rate in device.peak_flops.items():
        if not name.startswith("int"):
            matrix.setdefault(float(rate), []).append(name)
    # of a measured device nothing is drawn that was not measured on it
    roofs, own = ([], device.memory.bandwidth.status == "measured")
    vector = device.vector_flops.get("fp32")
    for rate, names in matrix.items():
        under = names if vector or "fp32" in device.peak_flops else [*names, "fp32"]
        roofs.append(
            Roof(
                kind="compute",
                label=", ".join(names),
                printed=rate,
                precisions=tuple(under),
                achieved=(
                    None
                    if own and f"sustained_{names[0]}" not in device.achieved
                    else rate * _held(device, names[0], training)
                ),
            )
        )
    if vector and vector not in matrix:
        roofs.append(
            Roof(kind="compute", label="fp32 vector", printed=float(vector), precisions=("fp32",))
        )
    if not roofs:
        held = ", ".join(device.peak_flops) or "nothing"
        raise BadInput(
            f"{device.id}: no floating-point rate, so no roofline; [peak_flops] holds {held}; add"
            " one with --set peak_flops.bf16=.."
        )
    stream = resolve(device, next(iter(device.peak_flops))).rates.stream
    bandwidth = float(device.memory.bandwidth)
    roofs.append(
        Roof(
            kind="memory",
            label=device.memory.type or "DRAM",
            printed=bandwidth,
            achieved=bandwidth * stream,
        )
    )
    for name, level in device.cache.items():
        if level.bandwidth:
            roofs.append(Roof(kind="memory", label=name.upper(), printed=float(level.bandwidth)))
    return Machine(name=device.id, roofs=tuple(roofs), measured=own)


def _held(device: Device, format_: str, training: bool) -> float:
    """What of a matrix rate long products hold."""
    rates = resolve(device, format_).rates
    return rates.sustained * (rates.trained if training else 1.0)
