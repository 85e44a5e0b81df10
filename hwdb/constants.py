"""Fitted constants and achieved fractions: kernels.toml and families/*.toml.

`kernels()` gives the bare numbers the formulas compute with; `constants()` the same with unit,
meaning and source, for listing. `family(name)` gives the achieved fractions of a device family,
each with its source.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import msgspec

from roofcast.hwdb.errors import BadInput, UnknownName
from roofcast.hwdb.strict import load

HERE = Path(__file__).parent


class Constant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number of kernels.toml."""

    value: float
    unit: str
    meaning: str
    source: str
    residual: str = ""


class Matmul(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Constants of matrix products on matrix and vector units."""

    latency: float
    start: float
    tile: float
    split: float
    feed: float
    footprint: float
    footprint_flat: float
    stream: float
    store: float


class Attention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Constants of fused attention."""

    start: float
    tile: float
    special: float
    backward: float


class Conv(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Constants of convolutions."""

    rate: float
    vector: float
    vector_backward: float
    winograd: float
    channels: float
    tf32: float
    transpose: float
    transpose_backward: float
    grouped: float
    grouped_rate: float


class Stream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Constants of kernels that mostly move bytes."""

    start: float
    start_rows: float
    vector: float
    elementwise: float
    rows: float
    norm: float
    rms_norm: float
    rope: float
    norm_backward: float


class Issue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Constants of kernels whose instructions, not whose bytes, take the time."""

    pool: float
    gather: float
    depthwise: float
    depthwise_input: float
    depthwise_weight: float


class Host(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Constants of launching kernels from the host."""

    norm: float
    alike: float
    collective: float
    ageing: float
    current: float


class Cpu(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Constants of kernels on a CPU."""

    start_core: float
    start_most: float
    start_stream: float
    traffic: float


class Systolic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Constants of matrix products on systolic arrays."""

    start: float
    norm: float
    lane: float
    sublane: float


class Kernels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The numbers of kernels.toml, bare, by formula; their units and meanings stand in the file."""

    matmul: Matmul
    attention: Attention
    conv: Conv
    stream: Stream
    issue: Issue
    host: Host
    cpu: Cpu
    systolic: Systolic


class Fraction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An achieved share of a printed rate, with where it was seen."""

    value: float
    source: str
    residual: str = ""


class Family(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What devices of one family achieve of their printed rates. Absent is unknown."""

    name: str
    kind: str  # gpu | cpu | tpu | npu
    sustained: dict[
        str, Fraction
    ] = {}  # by format: long matrix products, of the printed dense peak
    # by format: of `sustained`, what products hold inside training steps, clocks and power settled
    trained: dict[str, Fraction] = {}
    # its kernels stay on a core for all of its tiles and write one back beside the next
    persistent: bool = False
    half_rate: Fraction | None = (
        # the same where matrix units run at half rate (GeForce): neither power nor operands limit
        # them
        None
    )
    flop_per_joule: dict[
        str, Fraction
    ] = {}  # by format: a long product holds no more than this times the board power [FLOP/J]
    # smallest tile edge the library has for batched fp32 products [elements]
    batched_tile: Fraction | None = None
    attention: Fraction | None = None  # fused attention forward, of the printed dense 16-bit peak
    stream: Fraction | None = None  # long triad, of the printed bandwidth


def table(path: Path, kind: Any) -> Any:
    """The file as tables of that type, for example dict[str, dict[str, Constant]]."""
    return converted(load(path, "a file of constants"), kind, path)


def converted(data: Any, kind: Any, path: Path) -> Any:
    """What was read of the file, as a value of that type."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise BadInput(f"{path.name}: {error}") from None


def read_kernels(path: Path) -> tuple[Kernels, dict[str, Constant]]:
    """The bare numbers, and each constant by its dotted name."""
    stated = table(path, dict[str, dict[str, Constant]])
    bare = {
        section: {name: c.value for name, c in entries.items()}
        for section, entries in stated.items()
    }
    named = {
        f"{section}.{name}": c for section, entries in stated.items() for name, c in entries.items()
    }
    return converted(bare, Kernels, path), named


def read_family(path: Path) -> Family:
    """One family file."""
    return table(path, Family)


@functools.cache
def kernels() -> Kernels:
    """The shipped constants, bare."""
    return read_kernels(HERE / "kernels.toml")[0]


@functools.cache
def constants() -> dict[str, Constant]:
    """The shipped constants with unit, meaning and source, by dotted name ("matmul.start")."""
    return read_kernels(HERE / "kernels.toml")[1]


def families() -> tuple[str, ...]:
    """Names of the families that have a file."""
    return tuple(sorted(path.stem for path in (HERE / "families").glob("*.toml")))


@functools.cache
def family(name: str) -> Family:
    """The family's achieved fractions."""
    path = HERE / "families" / f"{name}.toml"
    if not path.exists():
        raise UnknownName(f"no device family {name!r}; known: {', '.join(families())}")
    return read_family(path)
