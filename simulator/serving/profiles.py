"""Software of servers: what a step costs the host, how prompts are cut, what memory is left. One
short TOML file per profile, in stacks/; `like = "NAME"` takes what it does not state from that one.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any

import msgspec

from roofcast.hwdb.errors import BadInput, listed, unknown
from roofcast.hwdb.records import Device
from roofcast.hwdb.strict import checked, load
from roofcast.simulator.serving.backends import usual

HERE = Path(__file__).parent / "stacks"
ALSO = {"trt-llm": "tensorrtllm", "transformers-generate": "transformers"}
OWN = ("name", "about", "source")
VECTOR = ("", "bf16", "all")
TRANSFERS = ("prompt", "chunk", "layer")  # when the cache of a prompt is sent

MEANING = {  # of what a profile sets
    "seq_s": "host seconds per sequence and step that nothing hides: scheduling, detokenization",
    "step_s": "host seconds per step that nothing hides",
    "dispatch_s": "host seconds to launch a kernel of a step; 0 where graphs replay them",
    "sum_s": "seconds to start its own one-step sum over ranks on a switch; 0: it has none",
    "grouped": "rate of the products of experts where they limit, as a fraction of plain ones'",
    "fp4": "share of the bandwidth of other formats that products in fp4 with few rows reach",
    "converts": "instructions to widen an element of an mxfp4 weight that is multiplied in 16 bits",
    "aligned": "rows to which products of experts in 8 bits pad those of each expert; 0: to a tile",
    "aligned_below": "ranks that an expert is cut over, below which they do; 0: however many",
    "expert_s": "seconds per layer of experts beyond its kernels: rows sorted and aligned",
    "ahead": "launches run ahead of the device, and hide behind it",
    "gemv": "bytes per clock and core that its matrix-vector kernels stream; 0: as memory does",
    "gemv_weights": "weights per clock and core that they multiply at most; 0: no limit",
    "stream": "rate at which they stream where memory limits, over a triad's of unknown devices",
    "score_bytes": "bytes moved per score by attention that is not fused; 0: it is fused",
    "half": "products of prompts by a library that adds up in fp16; their operands are converted",
    "int8": "FLOP per FLOP of the vector units of its own int8 products of prompts; 0: it has none",
    "absorbed": "latent attention of prompts, too, is over the latents as the cache holds them",
    "vector": "weights whose products run on the vector units: bf16 (not quantized ones), all",
    "dots": "share of a CPU's int8 dot products that products of quantized weights reach; 0: none",
    "start_s": "seconds to start a kernel on a CPU; 0: those of a fork and join",
    "products": "rate of the products of prompts, as a fraction of a library's",
    "attention": "rate of the attention of prompts, as a fraction of the family's best kernel",
    "chunk_tokens": "tokens of prompts in one step at most",
    "to_experts": "tokens may be sent to the ranks of their experts alone; false: gathered on all",
    "each_rank": "chunks and sequences at once are of each rank with attention of its own",
    "scaled": "a quarter of these tokens and sequences below 70 GiB of memory, and on an A100",
    "micro_batch": "tokens of a prompt that run at once; 0: all of a chunk",
    "makers": "makers of the devices that it runs on, cpu for all CPUs; none: of all",
    "cut": "how a model is cut over devices by default: tensor, or layer by layer",
    "looks": "tokens over which a decode step computes attention, per token in the cache",
    "pads": "heads and columns are padded so that they divide among the cores of all devices",
    "evicts": "a sequence holds cache for what it has; false: for its whole length from its start",
    "kv": "format of the cache where none is asked for; model: 16 bits",
    "memory_use": "share of a device's memory that it uses",
    "of_free": "a share of what weights and runtime leave, that is; false: of the whole",
    "most_sequences": "sequences that it runs at once; 0: no limit",
    "graphs": "sequences for which a decode step was captured, rising: one of more than the first"
    " is padded to the next; none: to a few more at most",
    "runtime_bytes": "device memory of the context, libraries and workspaces",
    "logit_bytes": "device memory per logit of all sequences at once, reserved for sampling",
    "rank_bytes": "device memory for collectives where tensors are cut over ranks",
    "ttft_s": "seconds to a first token beside the steps: tokenization, HTTP, scheduling",
    "user_s": "more of them for each other user, whose tokens the same loop of the server sends",
    "transfer": "behind what of a prompt its cache is sent to a decode pool: prompt, chunk, layer",
    "first_again": "a decode pool computes the end of a prompt again, and makes its first token",
    "ramp": "share of requests of one length that start and end together in a closed loop",
}

Positive = Annotated[float, msgspec.Meta(ge=0.0, le=1e30)]
Share = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A serving stack; MEANING has units."""

    name: str
    about: str
    source: str
    seq_s: Positive = 0.0
    step_s: Positive = 0.0
    dispatch_s: Positive = 0.0
    sum_s: Positive = 0.0
    converts: Positive = 0.0
    aligned: Annotated[int, msgspec.Meta(ge=0)] = 0
    aligned_below: Annotated[int, msgspec.Meta(ge=0)] = 0
    expert_s: Positive = 0.0
    grouped: Share = 1.0
    fp4: Share = 1.0
    ahead: bool = True
    gemv: Positive = 0.0
    gemv_weights: Positive = 0.0
    stream: Positive = 1.0
    score_bytes: Positive = 0.0
    half: bool = False
    int8: Positive = 0.0
    absorbed: bool = False
    vector: str = ""
    dots: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.0
    start_s: Positive = 0.0
    products: Share = 1.0
    attention: Share = 1.0
    chunk_tokens: int = 8192
    to_experts: bool = True
    each_rank: bool = True
    scaled: bool = False
    micro_batch: int = 0
    makers: tuple[str, ...] = ()
    cut: str = "tensor"
    looks: Annotated[float, msgspec.Meta(ge=1.0, le=4.0)] = 1.0
    pads: bool = False
    evicts: bool = True
    kv: str = "model"
    memory_use: Share = 0.9
    of_free: bool = False
    most_sequences: int = 0
    graphs: tuple[int, ...] = ()
    runtime_bytes: Positive = 2e9
    logit_bytes: Positive = 0.0
    rank_bytes: Positive = 0.0
    ttft_s: Positive = 0.0
    user_s: Positive = 0.0
    ramp: Positive = 0.0
    transfer: str = "prompt"
    first_again: bool = False


def names() -> tuple[str, ...]:
    """Every shipped profile."""
    return tuple(sorted(path.stem for path in HERE.glob("*.toml")))


@functools.cache
def profile(name: str) -> Profile:
    """The profile of that name, or of that TOML file. Raises UnknownName or BadInput."""
    path = _path(name)
    found = checked(Profile, _laid(path, ()), str(path))
    if found.cut not in ("tensor", "layer"):
        raise BadInput(f"{path}: cut is {found.cut!r}; known: tensor, layer")
    if found.vector not in VECTOR:
        raise BadInput(f"{path}: vector is {found.vector!r}; known: '', bf16, all")
    if found.transfer not in TRANSFERS:
        raise BadInput(f"{path}: transfer is {found.transfer!r}; known: {', '.join(TRANSFERS)}")
    return found


def program(stack: str) -> str:
    """The program of a serving profile, whatever its version.

    >>> program("vllm-2025"), program("trt-llm"), program("llama.cpp-metal")
    ('vllm', 'trt', 'llama.cpp')
    """
    return stack.split("-")[0]


def elsewhere(of: Profile, device: Device) -> tuple[str, ...]:
    """That software does not run on a device, and which does; nothing where it may."""
    maker = "cpu" if device.kind == "cpu" else device.vendor
    if not of.makers or not maker or maker in of.makers:
        return ()
    fit = [name for name in names() if maker in profile(name).makers]
    alike = [name for name in fit if program(name) == program(of.name)]
    best = min(alike, key=len, default=None) or usual(device)
    hint = f"; --stack {best} is" if best in fit else ""
    makers = "CPUs" if maker == "cpu" else f"devices of {maker}"
    return (f"stack {of.name} is not for {makers}: times are as if it ran there{hint}",)


def _known(name: str) -> str:
    """The shipped name that is meant: letters of any case, with or without signs between.

    >>> _known("vLLM"), _known("TensorRT-LLM"), _known("llama-cpp"), _known("other")
    ('vllm', 'trt-llm', 'llama.cpp', 'other')
    """
    plain = _plain(name)
    return next((n for n in names() if plain in (_plain(n), ALSO.get(n))), name)


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _path(name: str) -> Path:
    path = Path(name) if name.endswith(".toml") else HERE / f"{_known(name)}.toml"
    if not path.is_file():
        raise unknown("serving stack", name, names(), f"known: {listed(names())}")
    return path


def _laid(path: Path, above: tuple[str, ...]) -> dict[str, Any]:
    """The keys of a profile over those of the one that `like` names."""
    own = load(path, "a serving profile")
    like = own.pop("like", None)
    if like is None:
        return own
    if not isinstance(like, str) or like in above:
        raise BadInput(f"{path}: like = {str(like)[:40]!r} leads back to itself, or is no name")
    base = _laid(_path(like), (*above, like))
    return {key: value for key, value in base.items() if key not in OWN} | own
