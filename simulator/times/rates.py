"""What a formula needs to know of a device: `Rates`, resolved from a device record for one number
format.
"""

from __future__ import annotations

import numpy as np

from roofcast.hwdb import constants, lookup
from roofcast.hwdb.errors import UnknownName
from roofcast.hwdb.formats import WIDTH
from roofcast.hwdb.records import Device
from roofcast.hwdb.tuples import NamedTuple

SIXTEEN_BIT = ("bf16", "fp16", "fp32")  # for products of fewer bits
FALLBACK: dict[str, tuple[str, ...]] = {  # what a product is computed in, where a device lacks one
    "fp4": ("fp8", *SIXTEEN_BIT), "fp6": ("fp8", *SIXTEEN_BIT), "fp8": SIXTEEN_BIT,
    "int8": SIXTEEN_BIT, "bf16": ("fp32",), "fp16": ("bf16", "fp32"), "tf32": ("fp32",),
}  # fmt: skip
# special functions per clock and core where a device's documents give none: NVIDIA SM, AMD CU
SPECIAL_PER_CLOCK = 16.0
# bandwidth of a triad as a fraction of that of streaming weights, where both were measured
# (A100 0.99, H200 0.82); assumed in between
READ_ONLY = 0.95
# a 16-bit peak of at most this multiple of the vector peak: matrix units are held at half rate
# (GeForce, L40)
HALF_RATE = 2.5
# best 16-bit product on such units where the board keeps to its printed clock, as GeForce boards do
# not: L40, 0.94 of its peak (hwdb/devices/l40.toml)
AT_PRINTED_CLOCK = 0.94
# operand feed as a multiple of the vector rate: paths built for matrix units never limit vector
# tiles
VECTOR_FEED = 8.0
VECTOR_SHARE = 16.0  # 16-bit matrix rate over vector rate, where the latter is unknown
EXP_SHARE = 8.0  # vector rate over rate of special functions, off GPUs
# of a tile of 256 x 128: matmul.footprint is the edge of a wave of such tiles, as a fraction
TILE_ELEMENTS = 32768.0
# multiprocessors of the smallest chip to which that fraction was fitted, A100; with the rule of a
# wave, an L4 would have half of the best product that was measured on it
FEWEST_CORES = 108.0
# formats of matrix units -> their share in [matmul] of kernels.toml
ON_MATRIX_UNITS = {
    "bf16": "sustained", "int8": "sustained", "fp8": "sustained_fp8", "fp4": "sustained_fp4",
}  # fmt: skip
INT8_PER_FP16 = 2.0  # operations per clock of a tensor core, of Turing and later
DEFAULT_CORES = {"gpu": 108.0, "cpu": 16.0, "tpu": 2.0, "npu": 16.0}
HALF = 0.5  # of a cache's capacity, used by a working set: the other half holds what streams past
DEFAULT_CLOCK = {"gpu": 1.5e9, "cpu": 2.5e9, "tpu": 1.0e9, "npu": 1.0e9}


class Rates(NamedTuple):
    """Rates of one device for products of one format: floats, or arrays over devices of one kind.
    SI units.
    """

    kind: str  # gpu | cpu | tpu | npu: which formula
    format: str  # in which the device computes
    width: float  # bytes of an operand in the format the device computes in
    matrix: float  # printed dense rate of products in the format [FLOP/s]
    # fraction of `matrix` that a long main loop holds at the highest clock, before times/power.py
    sustained: float
    attention: float  # fraction of `matrix` that a long fused attention forward holds
    vector: float  # printed fp32 rate of the vector units [FLOP/s]
    special: float  # special functions (exp, tanh ...) [1/s]
    bandwidth: float  # printed main-memory bandwidth [B/s]
    stream: float  # fraction of `bandwidth` that a long triad holds
    cores: float  # SMs, CUs, cores
    clock: float  # advertised maximum [Hz]
    # edge of the block of C that a wave of tiles computes from operands on chip [elements]
    footprint: float
    feed: float  # rate of a 16-bit 256x128 tile that the operand paths were built for [FLOP/s]
    # edge of the library's smallest tile for batched products on the vector units [elements]
    batched_tile: float
    tensor: bool  # the format runs on a matrix unit, not on the vector units
    # bytes per clock at which a core stores a tile before it starts the next; infinite: it stores
    # beside the next tile
    store: float = np.inf
    # rate the operand paths were built for over the matrix rate: 2 where matrix units are held at
    # half rate
    fed: float = 1.0
    measured: bool = False  # `bandwidth` was measured on this machine, not printed
    # of a measured CPU: bytes of a working set that the private caches hold, and their bandwidth
    held: float = 0.0
    private: float = 0.0
    packs: bool = False  # the library of products copies their operands first
    laid_out: bool = False  # tensors are in the layout of the kernels: no operand is copied


class Resolved(NamedTuple):
    """The rates of a device in one format, and what had to be assumed for them."""

    rates: Rates
    assumptions: tuple[str, ...]


def _format(device: Device, wanted: str) -> tuple[str, float, list[str]]:
    """The format the device computes `wanted` in, its printed rate, and assumptions."""
    for name in (wanted, *FALLBACK.get(wanted, ())):
        vector = device.vector_flops.get("fp32") if name == "fp32" else None
        rate = device.peak_flops.get(name) or vector
        if rate:
            lacks = f"{device.id} has no {wanted} matrix products: computed as {name}"
            return name, float(rate), [] if name == wanted else [lacks]
    for name, rate in device.peak_flops.items():  # e.g. a TPU asked for fp32
        if name != "fp64":
            why = f"{device.id} prints no rate for {wanted}: its {name} rate is taken"
            return name, float(rate), [why]
    known = ", ".join(device.peak_flops) or "nothing"
    raise UnknownName(
        f"device {device.id} has no rate for {wanted} products; peak_flops has: {known}"
    )


def family_name(device: Device) -> str:
    """The family file that holds for the device. Boards with GDDR memory of a family that also has
    HBM are a family of their own.
    """
    known = constants.families()
    gddr = f"{device.family}-gddr" if device.memory.type.startswith("GDDR") else ""
    for name in (gddr, device.family):
        if name in known:
            return name
    return f"any-{device.kind}"


def _families(device: Device) -> tuple[constants.Family, constants.Family, list[str]]:
    """The device's family and the defaults of its kind, with assumptions."""
    own, general = constants.family(family_name(device)), constants.family(f"any-{device.kind}")
    if own is not general:
        return own, general, []
    family = repr(device.family or "unknown")
    return (
        own,
        general,
        [
            f"{device.id}: no efficiencies fitted for its family ({family}); those of"
            f" {general.name} taken"
        ],
    )


def _sustained(
    device: Device, name: str, own: constants.Family, general: constants.Family, c: constants.Matmul
) -> tuple[float, list[str]]:
    """Fraction of the printed peak that a long product holds at the highest clock: measured on the
    device, of its family, of matrix units of a family whose power is known, the best product
    measured on the device, or of any device of its kind.
    """
    alike = "bf16" if name == "fp16" else name
    if name == "int8" and device.kind == "cpu" and not device.matrix_flop_per_clock_per_core:
        alike = "fp32"  # dot products of the vector units, at the issue rate of fp32 ones
    measured = device.achieved.get(f"sustained_{alike}")
    if measured:
        return float(measured), []
    narrow = alike != "fp32" and _half_rate(device)
    if own is not general and alike in own.sustained and not (narrow and own.half_rate):
        return own.sustained[alike].value, []
    if narrow and own.half_rate:
        base = device.base or device.id  # a file over a shipped device has a name of its own
        shown = lookup.device(base).name if base in lookup.devices() else device.name
        limit = np.inf if "GeForce" in shown else AT_PRINTED_CLOCK
        return min(own.half_rate.value, limit), []
    if own.joule_per_flop and alike in ON_MATRIX_UNITS:
        return float(getattr(c, ON_MATRIX_UNITS[alike])) * at_highest_clock(device), []
    best = device.achieved.get(f"matmul_{name}") or device.achieved.get(f"matmul_{alike}")
    if best:
        return float(best), [
            f"{device.id} {name}: large matrix products assumed to reach {100 * best:.0f} % of the"
            " datasheet peak, as the best one measured on it"
        ]
    usual = general.sustained.get("bf16") or general.sustained["fp32"]
    fraction = general.sustained.get(alike, usual)
    return fraction.value, [
        f"{device.id} {name}: large matrix products assumed to reach {100 * fraction.value:.0f} %"
        " of the datasheet peak"
    ]


def attention_share(device: Device, own: constants.Family, c: constants.Kernels) -> float:
    """Fraction of the printed 16-bit peak that a long fused forward kernel holds: of the family, of
    matrix units of a family whose power is known, or of any device of its kind.
    """
    if own.attention:
        return own.attention.value
    if own.joule_per_flop:
        return c.attention.sustained * at_highest_clock(device)
    usual = constants.family(f"any-{device.kind}").attention
    assert usual is not None, "the families of a kind have an attention share"
    return usual.value


def at_highest_clock(device: Device) -> float:
    """16-bit peak at the advertised highest clock, over the printed one: that of Hopper and
    Blackwell is printed at a lower clock.
    """
    built = as_built(device)
    per_clock, printed = built.matrix_flop_per_clock_per_core, built.peak_flops.get("bf16")
    if not (per_clock and built.cores and built.clock and printed):
        return 1.0
    return float(per_clock * built.cores * built.clock / printed)


def _paths(device: Device, own: constants.Family) -> float:
    """Operand paths of a core over what its matrix units ask for: 1, or more where they are a part
    of those of the family's whole core (H20: a quarter of an H100's).
    """
    per_clock = as_built(device).matrix_flop_per_clock_per_core
    if own.full_core is None or not per_clock:
        return 1.0
    return max(own.full_core.value / float(per_clock), 1.0)


def _half_rate(device: Device) -> bool:
    """Are the matrix units held at half of the rate that the chip was built for? Those of GeForce
    boards, L40 and A10G are.
    """
    built = as_built(device)
    vector = built.vector_flops.get("fp32")
    return vector is not None and (built.peak_flops.get("bf16") or np.inf) <= HALF_RATE * vector


def as_built(device: Device) -> Device:
    """The device before its edits: an imagined rate does not change its kind of matrix units, nor
    the watts of its chip.
    """
    built = device.base or device.id
    return lookup.device(built) if device.edits and built in lookup.devices() else device


def adding_in_fp16(rates: Rates, device: Device, whole: Rates) -> Rates:
    """Rates of fp16 products that are added in fp16. whole: rates in int8.

    NVIDIA's tensor cores do half as many fp16 operations as int8 ones. Boards whose printed fp16
    rate is less (GeForce of Turing and later: a quarter) are held at half of it only where they add
    in fp32 (NVIDIA GA102 whitepaper v2, appendix; Ada whitepaper v1.1).
    """
    built = as_built(device)
    fp16, int8 = built.peak_flops.get("fp16"), built.peak_flops.get("int8")
    if device.vendor != "NVIDIA" or rates.format != "fp16" or not fp16 or not int8:
        return rates
    more = INT8_PER_FP16 * fp16 / int8
    if more >= 1.0 or whole.format != "int8":
        return rates
    return rates._replace(
        matrix=rates.matrix / more, sustained=whole.sustained, feed=whole.feed, fed=1.0
    )


def _implied_clock(device: Device) -> float:
    """The clock at which the cores reach the printed 16-bit rate, where their FLOP per clock are
    known [Hz].
    """
    built = as_built(device)
    per_clock = built.matrix_flop_per_clock_per_core
    rate = built.peak_flops.get("bf16") or built.peak_flops.get("fp16")
    if per_clock and rate and built.cores:
        return float(rate / (per_clock * built.cores))
    return DEFAULT_CLOCK[device.kind]


def _stream(device: Device, own: constants.Family, general: constants.Family) -> float:
    """Fraction of the printed bandwidth that a triad holds, on the device or in its family."""
    triad = float(device.achieved.get("stream") or 0.0)
    weights = READ_ONLY * float(device.achieved.get("weight_streaming") or 0.0)
    share = own.stream or general.stream
    assert share is not None, "the families of a kind have a stream share"
    return max(triad, weights) or share.value


def _chip(device: Device, name: str, matrix: float) -> tuple[float, float, float, list[str]]:
    """Vector rate [FLOP/s], cores and clock [Hz], with assumptions for what is unknown."""
    assumptions = []
    vector = device.vector_flops.get("fp32") or device.peak_flops.get("fp32")
    if not vector:
        sixteen_bit = matrix * WIDTH[name] / WIDTH["bf16"]
        assumptions.append(
            f"{device.id}: no printed vector rate; a sixteenth of the 16-bit matrix rate assumed"
        )
    rate = float(vector) if vector else sixteen_bit / VECTOR_SHARE
    cores = float(device.cores or DEFAULT_CORES[device.kind])
    if not device.cores:
        assumptions.append(f"{device.id}: number of cores unknown, {cores:g} assumed")
    clock = float(device.clock or device.base_clock or _implied_clock(device))
    if not device.clock and not device.base_clock:
        assumptions.append(f"{device.id}: clock unknown, {clock / 1e9:.3g} GHz assumed")
    return rate, cores, clock, assumptions


def _private(device: Device) -> tuple[float, float]:
    """Working set that the second-level caches of a CPU hold, half their capacity, and their
    bandwidth [B/s]; zeros where they are not known.
    """
    cache = device.cache.get("l2") if device.kind == "cpu" else None
    if not cache or not cache.bandwidth or not cache.capacity:
        return 0.0, 0.0
    return HALF * float(cache.capacity), float(cache.bandwidth)


def _footprint(
    device: Device, own: constants.Family, cores: float, stream: float, c: constants.Kernels
) -> float:
    """Edge of the block of C that is computed from operands on chip [elements]; infinite where
    kernels are persistent and cores share what they load (clusters).
    """
    if own.persistent and own.joule_per_flop:
        return np.inf
    if device.core != "SM":
        return c.matmul.footprint_flat
    edge = c.matmul.footprint * float(np.sqrt(max(cores, FEWEST_CORES) * TILE_ELEMENTS))
    best, sixteen = device.achieved.get("matmul_bf16"), device.peak_flops.get("bf16")
    if cores < FEWEST_CORES and best and sixteen:
        # operands come as fast as the best product that was measured needs them
        bandwidth = c.matmul.stream * stream * float(device.memory.bandwidth)
        edge = max(edge, WIDTH["bf16"] * float(best * sixteen) / bandwidth)
    return edge


def resolve(device: Device, format: str, c: constants.Kernels | None = None) -> Resolved:
    """Rates of `device` for products of `format`, and the assumptions made.

    Achieved fractions come from the device's own table, else its family's, else those of any device
    of its kind. Raises UnknownName where the device has no rate at all for the format.
    """
    c = c or constants.kernels()
    name, matrix, assumptions = _format(device, format)
    own, general, no_family = _families(device)
    sustained, reached = _sustained(device, name, own, general, c.matmul)
    vector, cores, clock, unknown = _chip(device, name, matrix)
    sixteen = device.peak_flops.get("bf16") or device.peak_flops.get("fp16")
    tensor = name not in ("fp32", "fp64")
    per_clock = float(device.special_per_clock_per_core or SPECIAL_PER_CLOCK)
    gpu = device.kind == "gpu"
    exp = float(device.achieved.get("exp") or vector / EXP_SHARE)
    held, private = _private(device)
    stream = _stream(device, own, general)
    rates = Rates(
        kind=device.kind,
        format=name,
        width=WIDTH[name],
        matrix=matrix,
        sustained=sustained,
        attention=min(attention_share(device, own, c), sustained),
        vector=vector,
        special=per_clock * cores * clock if gpu else exp,
        bandwidth=float(device.memory.bandwidth),
        stream=stream,
        cores=cores,
        clock=clock,
        footprint=_footprint(device, own, cores, stream, c),
        feed=_paths(device, own) * sustained * float(sixteen)
        if sixteen and tensor
        else VECTOR_FEED * vector,
        batched_tile=own.batched_tile.value if own.batched_tile else 1.0,
        tensor=tensor,
        store=c.matmul.store if tensor and not own.persistent else np.inf,
        fed=2.0 if tensor and own.half_rate and _half_rate(device) else 1.0,
        measured=device.kind == "cpu" and getattr(device.memory.bandwidth, "measured", False),
        held=held,
        private=private,
        packs=device.kind == "cpu" and device.vendor != "Intel",
    )
    return Resolved(rates, (*assumptions, *no_family, *reached, *unknown))
