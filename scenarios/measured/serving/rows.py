"""A row of a table of measured servers -> the server it ran on, as this project names it."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models import catalog
from roofcast.simulator.serving.backends import on
from roofcast.simulator.serving.profiles import profile
from roofcast.simulator.serving.server import Degrees, Server
from roofcast.simulator.work.model import Model

HERE = Path(__file__).parent
PUBLISHED = HERE / "published"  # tables that are shipped, one per source
_GGUF = re.compile(
    r"(iq\d_\w+|q\d+r?\d*_k_xl|q\d+_k(?:[ -]+(?:medium|small|large)|_[sml])?|q\d_[01]"
    r"|q\d+r16|q\d_k_4|f16|bf16|mxfp4)"
)
_AT_ONCE = re.compile(r"\b(?:n_)?ubatch (\d+)\b")
_SIZES = {"medium": "m", "small": "s", "large": "l"}
NEUTRAL: dict[str, float] = {
    "seq_s": 0.0, "step_s": 0.0, "dispatch_s": 0.0, "sum_s": 0.0, "gemv": 0.0,
    "gemv_weights": 0.0, "products": 1.0, "attention": 1.0, "stream": 1.0, "expert_s": 0.0,
}  # fmt: skip
UNSTATED = ("", "unstated")


class Ran(NamedTuple):
    """What a row ran on."""

    model: str
    device: str
    degrees: Degrees
    weights: str
    kv: str | None
    stack: str
    replicas: int  # servers beside each other that the row's devices make
    micro_batch: int = 0  # tokens of a prompt at once, where the row says so; 0: the profile's


@functools.cache
def words() -> dict[str, Any]:
    """The tables of names.toml."""
    return tomllib.loads((HERE / "names.toml").read_text(encoding="utf-8"))


def ran(row: Mapping[str, str]) -> Ran:
    """The server of a row; raises BadInput with the reason where it cannot be forecast."""
    model = model_of(row["model"])
    device, share = device_of(row)
    stack = found_in("stacks", f"{row['engine']} {row['engine_version']} {row['source_name']}")
    if stack is None:
        raise BadInput(f"engine {row['engine']}: no profile")
    stack = found_in("drivers", f"{stack} {row['notes']}") or stack
    stack = on(stack, hwdb.device(device))
    degrees, replicas = degrees_of(row, share)
    at_once = _AT_ONCE.search(row["notes"].lower())
    micro = int(at_once[1]) if at_once else 0
    return Ran(model, device, degrees, weights_of(row), kv_of(row), stack, replicas, micro)


def found_in(table: str, text: str) -> str | None:
    """The name that the first key found in the text stands for."""
    low = text.lower()
    return next((name for key, name in words()[table].items() if re.search(key, low)), None)


def model_of(text: str) -> str:
    """The name of a model, as `resolved` takes it."""
    name = found_in("models", text)
    if name == "":
        raise BadInput(f"model {text}: its architecture is not here")
    if name is not None:
        return name
    known = catalog.shipped_as(text)
    if known is None:
        raise BadInput(f"model {text}: unknown")
    return known


@functools.cache
def resolved(name: str) -> Model:
    """The model of that name, shipped or of names.toml."""
    own = words()["configs"].get(name)
    return catalog.resolve(name) if own is None else catalog.from_config(name, own)


def device_of(row: Mapping[str, str]) -> tuple[str, float]:
    """The device of a row, and the fraction of one that the row calls a device."""
    name = row["roofcast_device"] or found_in("devices", row["device"]) or ""
    share = 0.5 if name.endswith("(half)") else 1.0
    name = name.split(" ")[0]
    if name not in hwdb.devices():
        raise BadInput(f"device {row['device'] or 'unstated'}: unknown")
    return name, share


def degrees_of(row: Mapping[str, str], share: float) -> tuple[Degrees, int]:
    """The layout of one replica, and how many there are.

    Ranks that neither tensor nor pipeline parallelism explains share the experts where the row has
    expert parallelism: each with its own sequences, or, where the row says that there is no data
    parallelism (dp 1), with attention cut over them. They are replicas where it has no experts.
    A run that its source calls epnone cuts every expert over all ranks.
    """
    row = _undone(row)
    devices = max(int(int(row["n_devices"] or 1) * share), 1)
    if row["tp"] in UNSTATED:
        raise BadInput("layout unstated")
    tp, pp = max(int(float(row["tp"]) * share), 1), int(float(row["pp"] or 1))
    whole = "epnone" in f"{row.get('source_ref', '')} {row['notes']}"
    ep = 1 if whole else int(float(row["ep"] or 1))
    left = devices // (tp * pp)
    if left * tp * pp != devices:
        raise BadInput(f"tp {tp} x pp {pp} does not divide {devices} devices")
    if ep > 1 and "attention-DP" in row["notes"]:
        tp, left = 1, tp * left
    elif ep > 1 and row["dp"] == "1":
        tp, left = tp * left, 1
    if ep == 1:
        return Degrees(tp, pp), left
    return Degrees(tp, pp, left, min(ep, tp * left)), 1


def _undone(row: Mapping[str, str]) -> Mapping[str, str]:
    """A row of vLLM in InferenceX whose columns of devices and ep are products with that of
    attention, as the table itself says of TensorRT-LLM's: without them. Measured times in fp8 are
    within 1 % of those of rows with so many times fewer devices and attention cut over them (tp 4,
    ep 4 on 4 H100 for 16; tp 2 on B200); in fp4 there is no such pair, and rows stay as they are.
    """
    if not row.get("source_name", "").startswith("InferenceX"):
        return row
    times = int(float(row.get("dp") or 1))
    if times == 1 or "vllm" not in row["engine"].lower() or row["w_prec"].lower() != "fp8":
        return row
    ep = int(float(row["ep"] or 1))
    devices = int(row["n_devices"]) // times
    return {**row, "n_devices": str(devices), "ep": str(max(ep // times, 1)), "dp": "1"}


def turns(row: Mapping[str, str]) -> float:
    """Processes that share a device, each with weights and sequences of its own: they take turns.

    >>> turns({"dp": "8", "n_devices": "1"}), turns({"dp": "2", "n_devices": "4"})
    (8.0, 1.0)
    """
    return max(float(row["dp"] or 1) / float(row["n_devices"] or 1), 1.0)


def weights_of(row: Mapping[str, str]) -> str:
    """The format of the weights."""
    text = row["w_prec"].lower()
    if text in UNSTATED:
        raise BadInput("format of the weights unstated")
    if text.startswith("gguf"):
        return gguf(text.removeprefix("gguf:"))
    bits = re.match(r"([\d.]+) ?bpw", text)
    if bits:
        return f"{bits[1]} bit"
    # "full_prec" is not quantized: one sequence of Llama 3 8B on an A100 streams 16 bits, not 32
    return {"fp4": "nvfp4", "full_prec": "fp16", "int8_sq": "int8"}.get(text, text)


def gguf(text: str) -> str:
    """The type of a GGUF file in its name.

    >>> gguf("q4_k - medium"), gguf("qwen3.6-35b-a3b-ud-q8_k_xl"), gguf("q8r16"), gguf("q4_k_4")
    ('q4_k_m', 'q8_k_xl', 'q8_0', 'q4_k')
    """
    found = _GGUF.findall(text)
    if not found:
        raise BadInput(f"format {text}: unknown")
    name = str(found[-1])
    for word, letter in _SIZES.items():
        name = re.sub(rf"[ -]+{word}", f"_{letter}", name)
    return {"q8r16": "q8_0", "q4_k_4": "q4_k"}.get(name, name)


def kv_of(row: Mapping[str, str]) -> str | None:
    """The format of the cache; None where the row does not say."""
    text = row["kv_prec"].lower().split(" ")[0]
    if text in UNSTATED:
        return None
    return {"f16": "fp16", "full_prec": "fp16"}.get(text, text)


@functools.lru_cache(maxsize=4096)
def server_of(at: Ran, neutral: bool = False) -> Server:
    """The server that a row ran on; neutral: without constants of its software."""
    stack = profile(at.stack)
    if at.micro_batch and stack.micro_batch:
        stack = msgspec.structs.replace(stack, micro_batch=at.micro_batch)
    if neutral:
        full = {"dots": 1.0} if stack.dots else {}
        stack = msgspec.structs.replace(stack, **NEUTRAL, **full)
    return Server(
        resolved(at.model), at.device, at.degrees, weights=at.weights, kv=at.kv, stack=stack
    )
