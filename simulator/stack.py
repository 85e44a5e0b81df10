"""Software stacks: which implementation of an op runs, what is fused, what a launch costs. One short TOML each."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path

import msgspec

from hwdb.errors import BadInput, unknown

HERE = Path(__file__).parent / "stacks"


class Stack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A software stack. A model says what is computed, the stack says how."""

    name: str
    about: str
    source: str
    fusion: float  # share of the bytes between fused pointwise ops that vanishes, 0 to 1
    dispatch_s: float  # host seconds to launch one forward op
    dispatch_backward: float  # of it, for one backward op
    graphs: bool  # launches are replayed from a graph: no host time
    framework_bytes: float  # context, kernels, workspaces
    slack: float  # allocator rounding and fragmentation, of activations
    implementations: dict[str, str]  # op -> composed | fused | eager | efficient | flash | foreach

    def with_attention(self, how: str | None) -> Stack:
        """The same stack with another attention."""
        return self if how is None else msgspec.structs.replace(self, implementations={**self.implementations, "attention": how})


def names() -> tuple[str, ...]:
    """Every shipped stack."""
    return tuple(sorted(path.stem for path in HERE.glob("*.toml")))


@functools.cache
def stack(name: str) -> Stack:
    """The stack of that name, or of that TOML file."""
    path = Path(name) if name.endswith(".toml") else HERE / f"{name}.toml"
    if not path.is_file():
        raise unknown("stack", name, names(), f"known: {', '.join(names())}")
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Stack)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise BadInput(f"{path}: not a stack profile: {error}") from None
