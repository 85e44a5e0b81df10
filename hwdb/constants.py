"""Fitted constants and achieved fractions: kernels.toml and families/*.toml.

`kernels()` gives the bare numbers that the formulas compute with; `constants()` gives the same with
unit, meaning and source, for listings. `family(name)` gives the achieved fractions of a device
family, each with its source.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from roofcast.hwdb.errors import BadInput, UnknownName
from roofcast.hwdb.strict import load

HERE = Path(__file__).parent
Kind = TypeVar("Kind")


class Constant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number of kernels.toml."""

    value: float
    unit: str
    meaning: str
    source: str
    residual: str = ""  # median and mean error of the fit, and the number of rows or groups


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
    sustained: float
    sustained_fp8: float
    sustained_fp4: float
    in_steps: float
    in_steps_others: float
    widened: float
    sparse_loop: float
    sparse_energy: float


class Attention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Constants of fused attention."""

    start: float
    tile: float
    special: float
    sustained: float
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
    """Constants of kernels bound by memory bandwidth."""

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
    """Constants of kernels bound by instruction issue, not by memory bandwidth."""

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
    native: float


class Power(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Constants of a board's power."""

    idle: float
    idle_gddr: float
    active: float
    communicating: float
    lowest_voltage: float
    knee: float
    hbm: float
    other_memory: float
    cached: float


class Cpu(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Constants of kernels on a CPU."""

    start_core: float
    start_most: float
    start_stream: float
    compare: float


class Systolic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Constants of matrix products on systolic arrays."""

    start: float
    norm: float
    lane: float
    sublane: float


class Kernels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bare numbers of kernels.toml, by formula; the file states their units and meanings."""

    matmul: Matmul
    attention: Attention
    conv: Conv
    stream: Stream
    issue: Issue
    host: Host
    power: Power
    cpu: Cpu
    systolic: Systolic


class Fraction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An achieved fraction of a published rate, or a limit, with its source."""

    value: float
    source: str
    residual: str = ""  # median and mean error of the fit


class Family(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What devices of one family achieve of their published rates [1]; absent is unknown."""

    name: str
    kind: str  # gpu | cpu | tpu | npu
    # by format: long matrix products at the highest clock, as a fraction of the dense peak
    sustained: dict[str, Fraction] = {}
    # one matmul kernel loops over all tiles of a core and stores a tile while it computes the next
    persistent: bool = False
    # replaces `sustained` where matrix units run at half rate (GeForce), so that neither power nor
    # operand bandwidth limits them
    half_rate: Fraction | None = None
    # by format: energy of a useful FLOP on the matrix units at the highest clock and voltage, with
    # registers and shared memory; other formats in proportion to their bits [J/FLOP]
    joule_per_flop: dict[str, Fraction] = {}
    # the same of an fp32 FLOP on the vector units, with registers and issue [J/FLOP]
    joule_per_vector_flop: Fraction | None = None
    # 16-bit FLOP per clock of a core whose matrix units are whole: its operand paths were built for
    # them; boards whose cores have fewer keep the paths
    full_core: Fraction | None = None
    # edge of the library's smallest tile for batched fp32 products [elements]
    batched_tile: Fraction | None = None
    # long fused attention forward, as a fraction of the dense 16-bit peak
    attention: Fraction | None = None
    # long triad, as a fraction of the memory bandwidth
    stream: Fraction | None = None
    # PyTorch's kernels over lists of tensors (foreach), as a fraction of a triad's bandwidth;
    # absent where they reach it
    foreach: Fraction | None = None
    # printed rate of products whose weights hold 2 of every 4, over the dense one; absent where
    # there are none
    sparse: Fraction | None = None


def table(path: Path, kind: type[Kind]) -> Kind:
    """The file as a value of that type, for example dict[str, dict[str, Constant]].

    Raises BadInput, naming the file, where it does not match.
    """
    return converted(load(path, "a file of constants"), kind, path)


def converted(data: Any, kind: type[Kind], path: Path) -> Kind:
    """`data`, read from the file at `path`, as a value of that type; BadInput where it is not."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise BadInput(f"{path.name}: {error}") from None


def read_kernels(path: Path) -> tuple[Kernels, dict[str, Constant]]:
    """The bare numbers, and each constant by its dotted name ("matmul.start")."""
    stated = table(path, dict[str, dict[str, Constant]])
    bare = {s: {name: c.value for name, c in entries.items()} for s, entries in stated.items()}
    named = {f"{s}.{name}": c for s, entries in stated.items() for name, c in entries.items()}
    return converted(bare, Kernels, path), named


def read_family(path: Path) -> Family:
    """The family that the file describes; BadInput where it has an unknown key or type."""
    return table(path, Family)


def kernels() -> Kernels:
    """The shipped constants, bare; scaled inside `with scaled(..)`."""
    return _changed.get() or shipped()


@functools.cache
def shipped() -> Kernels:
    """The shipped constants, bare, whatever surrounds the call."""
    return read_kernels(HERE / "kernels.toml")[0]


_changed: ContextVar[Kernels | None] = ContextVar("kernels", default=None)


@contextmanager
def scaled(factors: Mapping[str, float]) -> Iterator[None]:
    """Constants by dotted name ("matmul.latency") times a factor, for what is computed inside."""
    groups: dict[str, dict[str, float]] = {}
    for name, factor in factors.items():
        section, _, key = name.partition(".")
        groups.setdefault(section, {})[key] = factor * getattr(getattr(kernels(), section), key)
    parts = {s: msgspec.structs.replace(getattr(kernels(), s), **v) for s, v in groups.items()}
    token = _changed.set(msgspec.structs.replace(kernels(), **parts))
    try:
        yield
    finally:
        _changed.reset(token)


@functools.cache
def constants() -> dict[str, Constant]:
    """The shipped constants with unit, meaning and source, by dotted name ("matmul.start")."""
    return read_kernels(HERE / "kernels.toml")[1]


@functools.cache
def families() -> tuple[str, ...]:
    """Names of the families that have a file."""
    return tuple(sorted(path.stem for path in (HERE / "families").glob("*.toml")))


@functools.cache
def family(name: str) -> Family:
    """The family's achieved fractions; UnknownName where it has no file."""
    path = HERE / "families" / f"{name}.toml"
    if not path.exists():
        raise UnknownName(f"no device family {name!r}; known families: {', '.join(families())}")
    return read_family(path)
