"""Software stacks: which implementation of an op runs, what is fused, what a launch costs. One
short TOML file per stack, in stacks/.

A profile with `like = "NAME"` takes what it does not state from that profile, key by key inside
`overlap` and `implementations`; its name, description and source are always its own. NAME is a
shipped stack, or a .toml beside the profile.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Annotated, Any

import msgspec

from roofcast.hwdb.errors import BadInput, UnknownName, listed, quoted, unknown
from roofcast.hwdb.strict import checked, load
from roofcast.simulator.software.kernels import KINDS, attention_kernel

HERE = Path(__file__).parent / "stacks"
SERVERS = HERE.parents[1] / "serving" / "stacks"
SERVED = "it is the software of a server; roofcast serving MODEL --stack "
OWN = ("name", "about", "source")  # never taken from another profile
OVERLAP = (  # kinds of traffic
    "tp", "ep", "etp", "cp", "behind", "dp", "params", "fsdp", "copies", "offload",
)  # fmt: skip
MOST = 1e30  # larger numbers are taken for infinite

MEANING = {  # of what a profile sets
    "fusion": "share of the bytes between fused pointwise kernels that is saved",
    "dispatch_s": "host seconds to launch a forward kernel, on a host of 2026",
    "dispatch_backward": "cost of launching a backward kernel, as a fraction of dispatch_s",
    "blocking": "the host waits for each kernel that it launches (CUDA_LAUNCH_BLOCKING=1)",
    "records": "the host records each micro-batch whole before the device runs it (lazy mode)",
    "graphs": "launches are replayed from a CUDA graph: no host time",
    "graphs_but_experts": "launches outside experts are replayed from CUDA graphs: no host time",
    "memory_format": "layout of images in memory: contiguous (NCHW) or channels_last (NHWC)",
    "tf32": "fp32 ops that may run in TF32 where the device has it: conv, matmul",
    "framework_bytes": "device memory of context, kernels and workspaces",
    "slack": "allocator rounding and fragmentation, as a fraction of activations",
    "master": "fp32 master weights and moments; gradients accumulated in fp32",
    "gradient_bytes": "bytes per gradient accumulated beside master weights",
    "gather_bytes": "bytes per weight gathered for 16-bit compute; 0: as kernels read it",
    "live_weights": "weights that ZeRO-3 keeps gathered, at most; 0: a layer and the next",
    "reduce_bytes": "bytes per gradient that ranks reduce from 16-bit compute; 0: as accumulated",
    "bucket_bytes": "bytes of 16-bit gradients that ranks reduce at once; 0: all of them",
    "accumulate_bytes": "bytes moved per weight to add a micro-batch's gradient to the sum",
    "accumulate_first": "the first micro-batch's gradient is added too, to a buffer of zeros",
    "factor": "rate of its matrix products, as a fraction of what the device family sustains",
    "attention": "rate of its fused attention, as a fraction of that of its kernel",
    "kernels": "kernel of fused attention: flash-1, sdpa-2026 ...; none: the family's best",
    "prunes": "nothing is recomputed whose result backward does not read",
    "padding": "16-bit products with rows of an odd length are padded",
    "scattered": "each tensor-parallel rank sends its part of an activation between stages",
    "step_s": "host seconds per step that nothing hides: a session's call, input, logging; 2026",
    "program_s": "host seconds to launch a step that is one compiled program, on a host of 2026",
    "sync_s": "seconds per expert layer and pass in which the host waits for token counts",
    "module_s": "host seconds per 8-bit linear layer and pass, beyond its launches, on a host of"
    " 2026",
    "far_s": "seconds per step of a collective that crosses nodes, beyond NCCL's: of a ring inside"
    " the model, of a chain in a node and a tree over nodes between gradients",
    "piped_s": "host seconds per rank of such a collective in a pipeline over several nodes",
    "expert_launches": "launches per expert of a rank and grouped product; 0: one for all",
    "overlap": "exponent with which traffic hides behind compute, by kind, where not the default",
    "overlap_p2p": "sends between the stages of an interleaved pipeline run behind compute",
    "scalar": "computed number by number on a measured CPU: pool, special (functions)",
    "serial": "kinds of kernels that a measured CPU runs on one thread",
    "row_s": "seconds per row that a dense gradient of an embedding adds, on a measured CPU",
    "laid_out": "on a CPU, tensors keep the layout of the library's kernels from one to the next:"
    " none copies its operands",
    "packs": "on a measured CPU, products copy their operands first, whoever made it",
    "implementations": "implementation of an op that runs",
}

Positive = Annotated[float, msgspec.Meta(ge=0.0, le=MOST)]
Rate = Annotated[float, msgspec.Meta(gt=0.0, le=MOST)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Stack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A software stack. A model says what is computed, the stack says how; MEANING has units."""

    name: str
    about: str
    source: str
    fusion: Share
    dispatch_s: Positive
    dispatch_backward: Positive
    graphs: bool
    memory_format: str
    tf32: tuple[str, ...]
    framework_bytes: Positive
    slack: Positive
    blocking: bool = False
    records: bool = False
    graphs_but_experts: bool = False
    master: bool = False
    gradient_bytes: Rate = 4.0
    gather_bytes: Positive = 0.0
    live_weights: Positive = 0.0
    reduce_bytes: Positive = 0.0
    bucket_bytes: Positive = 0.0
    accumulate_bytes: Positive = 0.0
    accumulate_first: bool = True  # autograd instead makes it the sum
    factor: Rate = 1.0
    attention: Rate = 1.0
    kernels: dict[str, str] = {}
    padding: bool = False
    prunes: bool = False
    scattered: bool = True  # [narayanan2021]
    step_s: Positive = 0.0
    program_s: Positive = 0.0
    sync_s: Positive = 0.0
    expert_launches: Positive = 0.0
    module_s: Positive = 0.0
    far_s: Positive = 0.0
    piped_s: Positive = 0.0
    overlap: dict[str, Rate] = {}
    overlap_p2p: bool = False
    scalar: tuple[str, ...] = ()
    serial: tuple[str, ...] = ()
    row_s: Positive = 0.0
    packs: bool = False
    laid_out: bool = False
    # op -> composed | fused | eager | efficient | flash | foreach ...
    implementations: dict[str, str] = {}

    def changed(self, attention: str | None, memory_format: str | None) -> Stack:
        """The same stack with another attention or another memory format of images."""
        if attention is None and memory_format is None:
            return self
        how = self.implementations
        if attention:
            how = {**how, "attention": attention}
        return msgspec.structs.replace(
            self, implementations=how, memory_format=memory_format or self.memory_format
        )


def names() -> tuple[str, ...]:
    """Every shipped stack."""
    return tuple(sorted(path.stem for path in HERE.glob("*.toml")))


@functools.cache
def stack(name: str) -> Stack:
    """The stack of that name, or of that TOML file. Raises UnknownName or BadInput."""
    path = path_of(name)
    profile = _laid_over_base(path, ())
    kinds = profile.get("overlap")
    if isinstance(kinds, dict):
        if "pp" in kinds:
            raise BadInput(f"{path}: overlap.pp: sends between stages; write overlap_p2p = true")
        for kind in kinds:
            if kind not in OVERLAP:
                raise BadInput(f"{path}: overlap.{kind}: known kinds: {', '.join(OVERLAP)}")
    found = checked(Stack, profile, str(path))
    for kind, kernel in found.kernels.items():
        if kind not in KINDS:
            raise BadInput(f"{path}: kernels.{kind}: known kinds: {', '.join(KINDS)}")
        try:
            attention_kernel(kernel)
        except UnknownName as error:
            raise BadInput(f"{path}: kernels.{kind}: {error}") from None
    return found


def path_of(name: str, beside: Path | None = None) -> Path:
    """The file of a shipped stack; or the path of a TOML file, which may be relative to the folder
    `beside`.
    """
    path = (beside or Path()) / name if name.endswith(".toml") else HERE / f"{name}.toml"
    there = os.path.exists if name.endswith(".toml") else os.path.isfile
    if not there(path):
        if (SERVERS / f"{name.lower()}.toml").is_file():
            raise UnknownName(f"no stack {quoted(name)} here: {SERVED}{name.lower()}")
        raise unknown("stack", name, names(), f"known: {listed(names())}")
    return path


def stated(path: Path) -> dict[str, Any]:
    """What the profile file itself states, as plain values."""
    return load(path, "a stack profile")


def _laid_over_base(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The keys of a profile, over those of the profile that `like` names.

    above: files on the way here, to find circles.
    """
    own = stated(path)
    if "like" not in own:
        return own
    like = own.pop("like")
    if not isinstance(like, str):
        raise BadInput(
            f"{path}: like is {quoted(like)}; wanted the name of a stack in quotes, as roofcast"
            " stacks"
            " lists them"
        )
    above = (*above, path.resolve())
    try:
        base = path_of(like, path.parent)
    except UnknownName as error:
        raise BadInput(f"{path}: like: {error}") from None
    if base.resolve() in above:
        raise BadInput(
            f"{path}: like = {quoted(like)} leads back to itself; wanted a stack that is not made"
            " of"
            " this one"
        )
    merged = {key: value for key, value in _laid_over_base(base, above).items() if key not in OWN}
    for key, value in own.items():
        merged[key] = (
            {**merged[key], **value}
            if isinstance(value, dict) and isinstance(merged.get(key), dict)
            else value
        )
    return merged
