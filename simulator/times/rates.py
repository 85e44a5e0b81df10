"""What a formula needs to know of a device: `Rates`, resolved from a device record for one number
format.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from roofcast.hwdb import constants, lookup
from roofcast.hwdb.errors import UnknownName
from roofcast.hwdb.formats import WIDTH
from roofcast.hwdb.records import Device

FALLBACK = {  # the next format a product is computed in, where a device lacks one
    "fp4": "fp8",
    "fp6": "fp8",
    "fp8": "bf16",
    "int8": "bf16",
    "bf16": "fp32",
    "fp16": "bf16",
    "tf32": "fp32",
    "fp64": None,
    "fp32": None,
}
# special-function results a clock and core, where a device does not print its own: NVIDIA SM, AMD
# CU
SPECIAL_PER_CLOCK = 16.0
# triad bandwidth / bandwidth of streaming weights, where both were measured (A100 0.99, H200 0.82)
READ_ONLY = 0.95
# a 16-bit peak of at most so many times the vector peak: matrix units held at half rate (GeForce,
# L40)
HALF_RATE = 2.5
# x the vector rate: operand paths built for matrix units never hold vector tiles up
VECTOR_FEED = 8.0
DEFAULT_CORES = {"gpu": 108.0, "cpu": 16.0, "tpu": 2.0, "npu": 16.0}
DEFAULT_CLOCK = {"gpu": 1.5e9, "cpu": 2.5e9, "tpu": 1.0e9, "npu": 1.0e9}


class Rates(NamedTuple):
    """Rates of one device for products of one format: floats, or arrays over devices of one kind.
    SI units.
    """

    kind: str  # gpu | cpu | tpu | npu: which formula
    width: float  # bytes of an operand of the format the device really computes in
    matrix: float  # printed dense rate of products in the format [FLOP/s]
    sustained: float  # share of `matrix` that a long main loop holds
    attention: float  # share of `matrix` that a long fused attention forward holds
    vector: float  # printed fp32 rate of the vector units [FLOP/s]
    special: float  # special functions (exp, tanh ..) [results/s]
    bandwidth: float  # printed main-memory bandwidth [B/s]
    stream: float  # share of `bandwidth` that a long triad holds
    cores: float  # SMs, CUs, cores
    clock: float  # advertised maximum [Hz]
    # edge of the block of C that a wave of tiles computes while its operands stay on chip
    # [elements]
    footprint: float
    feed: float  # FLOP/s of a 16-bit 256x128 tile that the operand paths were built for
    # edge of the smallest tile its library has for batched products on the vector units [elements]
    batched_tile: float
    tensor: bool  # the format runs on a matrix unit, not on the vector units
    # bytes a clock at which a core writes back a tile before the next; infinite: beside it, or
    # several tiles at once
    store: float = np.inf
    # what long products could do without the board's limit of power, of what they do with it
    headroom: float = 1.0
    trained: float = 1.0  # of `sustained`, what products hold inside training steps
    settled: float = 1.0  # of `sustained`, what is left once the board is warm
    # what the operand paths were built for, of what the matrix units do: 2 where they are held at
    # half rate
    fed: float = 1.0
    measured: bool = False  # `bandwidth` was measured on this very machine, and is no printed one


class Resolved(NamedTuple):
    """The rates of a device in one format, and what had to be assumed for them."""

    rates: Rates
    assumptions: tuple[str, ...]  # what was not known of the device, in words


def _format(device: Device, wanted: str) -> tuple[str, float, list[str]]:
    """The format the device computes `wanted` in, its printed rate, and what to say about it."""
    name: str | None = wanted
    while name:
        rate = device.peak_flops.get(name) or (
            device.vector_flops.get("fp32") if name == "fp32" else None
        )
        if rate:
            said = (
                []
                if name == wanted
                else [f"{device.id} has no {wanted} matrix products: computed as {name}"]
            )
            return name, float(rate), said
        name = FALLBACK.get(name)
    for name, rate in device.peak_flops.items():  # e.g. a TPU asked for fp32
        if name != "fp64":
            return (
                name,
                float(rate),
                [f"{device.id} prints no rate for {wanted}: taken at its {name} rate"],
            )
    held = ", ".join(device.peak_flops) or "nothing"
    raise UnknownName(
        f"device {device.id} has no rate for {wanted} products; peak_flops holds: {held}"
    )


def family_name(device: Device) -> str:
    """The family file that holds for the device. Boards with GDDR of a family that also has HBM
    stand apart.
    """
    known = constants.families()
    for name in (
        f"{device.family}-gddr" if device.memory.type.startswith("GDDR") else "",
        device.family,
    ):
        if name in known:
            return name
    return f"any-{device.kind}"


def _families(device: Device) -> tuple[constants.Family, constants.Family, list[str]]:
    """The device's family and its kind's defaults."""
    own, general = constants.family(family_name(device)), constants.family(f"any-{device.kind}")
    if own is not general:
        return own, general, []
    return (
        general,
        general,
        [
            f"{device.id}: no fitted family {device.family or 'unknown'!r}; defaults of"
            f" {general.name}"
        ],
    )


def _sustained(
    device: Device, name: str, own: constants.Family, general: constants.Family
) -> tuple[float, list[str]]:
    """Share of the printed peak that a long product holds: device, family, best measured on the
    device, any of its kind.
    """
    alike = "bf16" if name == "fp16" else name
    measured = device.achieved.get(f"sustained_{alike}")
    if measured:
        return float(measured), []
    narrow = alike != "fp32" and _half_rate(device)
    if own is not general and alike in own.sustained:
        fraction = own.half_rate if narrow and own.half_rate else own.sustained[alike]
        return fraction.value, []
    best = device.achieved.get(f"matmul_{name}") or device.achieved.get(f"matmul_{alike}")
    if best:
        return float(best), [
            f"{device.id} {name}: a long product taken to reach the best measured on it, {best:g}"
            " of printed"
        ]
    fraction = (
        general.sustained.get(alike)
        or general.sustained["bf16" if "bf16" in general.sustained else "fp32"]
    )
    return fraction.value, [
        f"{device.id} {name}: a long product assumed to reach {fraction.value:g} of the printed"
        " peak"
    ]


def _half_rate(device: Device) -> bool:
    """Whether matrix units are held at half of the rate that the chip was built for, to tell
    GeForce boards from others.
    """
    built = _as_built(device)
    vector = built.vector_flops.get("fp32")
    return bool(vector) and (built.peak_flops.get("bf16") or np.inf) <= HALF_RATE * vector


def _as_built(device: Device) -> Device:
    """The device before its edits: what kind of matrix units it has does not change with an
    imagined rate.
    """
    return lookup.device(device.id) if device.edits and device.id in lookup.devices() else device


def _trained(name: str, own: constants.Family) -> float:
    """What of the sustained rate is left in training steps, where whole steps have told."""
    found = own.trained.get("bf16" if name == "fp16" else name)
    return found.value if found else 1.0


def _power(
    device: Device, name: str, matrix: float, own: constants.Family
) -> tuple[float, list[str]]:
    """Share of the printed peak that the board's power allows, where the family's FLOP per joule is
    known.
    """
    limit = own.flop_per_joule.get("bf16" if name == "fp16" else name)
    if not limit or not device.power.tdp:
        return np.inf, []
    if any(edit.startswith(f"peak_flops.{name} ") for edit in device.edits):
        return np.inf, [
            f"{device.id}: peak_flops.{name} is imagined, so the board's {device.power.tdp:g} W do"
            " not bound it"
        ]
    return limit.value * float(device.power.tdp) / matrix, []


def _implied_clock(device: Device) -> float:
    """The clock at which the cores would do the printed 16-bit rate, where it is known what one
    does a clock.
    """
    built = _as_built(device)
    flops, sixteen = (
        built.matrix_flop_per_clock_per_core,
        built.peak_flops.get("bf16") or built.peak_flops.get("fp16"),
    )
    return (
        float(sixteen / (flops * built.cores))
        if flops and sixteen and built.cores
        else DEFAULT_CLOCK[device.kind]
    )


def _stream(device: Device, own: constants.Family, general: constants.Family) -> float:
    """Share of the printed bandwidth a triad holds: measured on the device, else its family's."""
    measured = max(
        float(device.achieved.get("stream") or 0.0),
        READ_ONLY * float(device.achieved.get("weight_streaming") or 0.0),
    )
    return measured or (own.stream or general.stream).value


def resolve(device: Device, format: str, c: constants.Kernels | None = None) -> Resolved:
    """Rates of `device` for products of `format`, and the assumptions made.

    Achieved shares come from the device's own table, else its family's, else those of any device of
    its kind.
    """
    c = c or constants.kernels()
    name, matrix, said = _format(device, format)
    own, general, more = _families(device)
    said += more
    sustained, more = _sustained(device, name, own, general)
    said += more
    limit, more = _power(device, name, matrix, own)
    said += more
    if limit < sustained:
        said.append(
            f"{device.id} {name}: {device.power.tdp:g} W allow {limit:.2f} of the printed peak in a"
            " long product"
        )
    headroom = max(sustained / limit, 1.0)
    sustained = min(sustained, limit)
    settled = min(float(device.achieved.get(f"settled_{name}") or sustained) / sustained, 1.0)
    if settled < 1.0:
        said.append(
            f"{device.id} {name}: once warm, long products hold {settled * sustained:.2f} of the"
            " printed peak"
        )
    vector = device.vector_flops.get("fp32") or device.peak_flops.get("fp32")
    if not vector:
        vector = matrix * WIDTH[name] / 32.0
        said.append(
            f"{device.id}: no printed vector rate; a sixteenth of the 16-bit matrix rate assumed"
        )
    if not device.cores:
        said.append(f"{device.id}: number of cores unknown, {DEFAULT_CORES[device.kind]:g} assumed")
    cores = float(device.cores or DEFAULT_CORES[device.kind])
    clock = float(device.clock or device.base_clock or _implied_clock(device))
    if not device.clock and not device.base_clock:
        said.append(f"{device.id}: clock unknown, {clock / 1e9:.3g} GHz assumed")
    sixteen = device.peak_flops.get("bf16") or device.peak_flops.get("fp16")
    tensor = name not in ("fp32", "fp64")
    special = float(device.special_per_clock_per_core or SPECIAL_PER_CLOCK)
    rates = Rates(
        kind=device.kind,
        width=WIDTH[name],
        matrix=matrix,
        sustained=sustained,
        attention=min((own.attention or general.attention).value, sustained),
        vector=float(vector),
        special=(
            special * cores * clock
            if device.kind == "gpu"
            else float(device.achieved.get("exp") or vector / 8.0)
        ),
        bandwidth=float(device.memory.bandwidth),
        stream=_stream(device, own, general),
        cores=cores,
        clock=clock,
        footprint=(
            c.matmul.footprint * float(np.sqrt(cores * 32768.0))
            if device.core == "SM"
            else c.matmul.footprint_flat
        ),
        feed=sustained * float(sixteen) if sixteen and tensor else VECTOR_FEED * float(vector),
        batched_tile=own.batched_tile.value if own.batched_tile else 1.0,
        tensor=tensor,
        store=c.matmul.store if tensor and not own.persistent else np.inf,
        headroom=headroom,
        trained=_trained(name, own),
        settled=settled,
        fed=2.0 if tensor and own.half_rate and _half_rate(device) else 1.0,
        measured=device.kind == "cpu" and device.memory.bandwidth.status == "measured",
    )
    return Resolved(rates, tuple(said))


def warm(rates: Rates) -> Rates:
    """The rates of a board that has computed for seconds."""
    return rates._replace(
        sustained=rates.sustained * rates.settled, feed=rates.feed * rates.settled, settled=1.0
    )


def in_training(rates: Rates) -> Rates:
    """The rates that products have in training steps, their time then divided by `trained`: a board
    that its power limits holds that limit in long products, and in steps where clocks settle below
    it no less than it, as far as its kind allows.
    """
    gain = np.minimum(rates.headroom, 1.0 / rates.trained)
    return rates._replace(
        sustained=rates.sustained * gain, feed=rates.feed * gain, headroom=rates.headroom / gain
    )
