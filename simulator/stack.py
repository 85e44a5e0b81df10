"""Software stacks: which implementation of an op runs, what is fused, what a launch costs. One short TOML each.

A profile with `like = "NAME"` takes what it does not state from that profile, key by key inside `overlap` and `implementations`;
its name, what it is about and its source are always its own. NAME is a shipped stack, or a .toml beside the profile.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any

import msgspec

from hwdb.errors import BadInput, UnknownName, unknown
from hwdb.strict import checked, load

HERE = Path(__file__).parent / "stacks"
OWN = ("name", "about", "source")  # never taken from another profile
MEANING = {  # of what a profile sets
    "fusion": "share of the bytes between fused pointwise kernels that vanishes",
    "dispatch_s": "host seconds to launch a forward kernel, on a host of 2026",
    "dispatch_backward": "of it, for a backward kernel",
    "graphs": "launches are replayed from a graph: no host time",
    "memory_format": "of pictures",
    "tf32": "what fp32 is computed in TF32, where the device can",
    "framework_bytes": "context, kernels, workspaces",
    "slack": "allocator rounding and fragmentation, of activations",
    "master": "fp32 copies of weights and moments, gradients added up in fp32",
    "gradient_bytes": "of a gradient that is added up beside such copies",
    "accumulate_bytes": "moved for each weight to add a micro-batch's gradient to the sum",
    "accumulate_first": "the first one's as well, to zeros",
    "factor": "rate of its matrix products, of what the device's family sustains",
    "attention": "rate of its fused attention, of the best kernel for the family",
    "scattered": "tensor-parallel ranks hand on a part of an activation each",
    "step_s": "host seconds a step that nothing hides: a session's call, input, logging; on a host of 2026",
    "sync_s": "host seconds a layer of experts waits for its token counts, each way, on a host of 2026",
    "expert_launches": "launches for each expert of a rank and grouped product; 0: one for all",
    "overlap": "how sharply traffic hides behind compute, by kind, where not the default",
    "implementations": "which form of an op runs",
}


MOST = 1e30  # tells a number from an infinite one
Positive = Annotated[float, msgspec.Meta(ge=0.0, le=MOST)]
Rate = Annotated[float, msgspec.Meta(gt=0.0, le=MOST)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Stack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A software stack. A model says what is computed, the stack says how."""

    name: str
    about: str
    source: str
    fusion: Share  # of the bytes between fused pointwise ops that vanishes
    dispatch_s: Positive  # host seconds to launch one forward op
    dispatch_backward: Positive  # of it, for one backward op
    graphs: bool  # launches are replayed from a graph: no host time
    memory_format: str  # of images: contiguous (NCHW) | channels_last (NHWC)
    tf32: tuple[str, ...]  # what fp32 is computed in TF32, where the device can: conv, matmul
    framework_bytes: Positive  # context, kernels, workspaces
    slack: Positive  # allocator rounding and fragmentation, of activations
    master: bool = False  # fp32 copies of weights and moments, gradients accumulated in fp32, under 16-bit weights
    gradient_bytes: Rate = 4.0  # of a gradient accumulated under such a master copy; 2 where it stays in 16 bits
    accumulate_bytes: Positive = 0.0  # moved for each weight to add a micro-batch's gradient to the sum, beyond writing it
    accumulate_first: bool = True  # also the first one's, to a buffer of zeros; autograd makes it the sum instead
    factor: Rate = 1.0  # rate of its matrix products, of what the device's family sustains: tuning of a site or a release
    attention: Rate = 1.0  # rate of its fused attention kernel, of the best one for the family
    scattered: bool = True  # activations cross between pipeline stages in tensor-parallel pieces [narayanan2021]
    step_s: Positive = 0.0  # host seconds a step that nothing hides: a session's call, input, logging; on a host of 2026
    sync_s: Positive = 0.0  # host seconds a layer of experts waits for its token counts, each way, on a host of 2026
    expert_launches: Positive = 0.0  # launches that a grouped product costs for each expert of a rank; 0: one for all of them
    overlap: dict[str, Rate] = {}  # kind of traffic -> how sharply it hides behind compute, where not the default
    implementations: dict[str, str] = {}  # op -> composed | fused | eager | efficient | flash | foreach

    def changed(self, attention: str | None, memory_format: str | None) -> Stack:
        """The same stack with another attention or another layout of images."""
        if attention is None and memory_format is None:
            return self
        how = {**self.implementations, "attention": attention} if attention else self.implementations
        return msgspec.structs.replace(self, implementations=how, memory_format=memory_format or self.memory_format)


def names() -> tuple[str, ...]:
    """Every shipped stack."""
    return tuple(sorted(path.stem for path in HERE.glob("*.toml")))


@functools.cache
def stack(name: str) -> Stack:
    """The stack of that name, or of that TOML file."""
    path = path_of(name)
    return checked(Stack, _laid_over_base(path, ()), str(path))


def path_of(name: str, beside: Path | None = None) -> Path:
    """The file of a shipped stack; or the path of a TOML file, which may be relative to the folder `beside`."""
    path = (beside or Path()) / name if name.endswith(".toml") else HERE / f"{name}.toml"
    if not path.is_file():
        raise unknown("stack", name, names(), f"known: {', '.join(names())}")
    return path


def stated(path: Path) -> dict[str, Any]:
    """What the profile itself says."""
    return load(path, "a stack profile")


def _laid_over_base(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """What the profile says, over what the one it is like says."""
    own = stated(path)
    if "like" not in own:
        return own
    like = own.pop("like")
    if not isinstance(like, str):
        raise BadInput(f"{path}: like is {like!r}; wanted the name of a stack in quotes, as roofcast stacks lists them")
    above = (*above, path.resolve())
    try:
        base = path_of(like, path.parent)
    except UnknownName as error:
        raise BadInput(f"{path}: like: {error}") from None
    if base.resolve() in above:
        raise BadInput(f"{path}: like = {like!r} leads back to itself; wanted a stack that is not made of this one")
    merged = {key: value for key, value in _laid_over_base(base, above).items() if key not in OWN}
    for key, value in own.items():
        merged[key] = {**merged[key], **value} if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
    return merged
