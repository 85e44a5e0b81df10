"""Number formats and precision policies.

A policy fixes the formats in which weights and activations are held and products are computed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from roofcast.hwdb.errors import UnknownName, quoted
from roofcast.hwdb.formats import WIDTH

__all__ = [
    "PRECISIONS", "WIDTH", "Precision", "fewest_weight_bytes", "precision", "promote",
    "quantization", "weight_bytes",
]  # fmt: skip

RANK = {  # type promotion: the operand of higher rank determines the result
    "bool": 0,
    "uint8": 1,
    "int8": 1,
    "int32": 2,
    "int64": 3,
    "fp8": 4,
    "bf16": 5,
    "fp16": 5,
    "fp32": 6,
    "fp64": 7,
}


class Precision(msgspec.Struct, frozen=True, kw_only=True):
    """Formats in which a step holds and computes its numbers, in PyTorch's terms."""

    name: str
    weights: str
    activations: str
    autocast: str | None  # lower format that torch.autocast casts matrix products to; None: off
    product: str  # operand format of the matrix unit; selects its peak rate
    # of weight matrices and of the filters of convolutions, where they are quantized for inference
    matrices: str | None = None
    filters: str | None = None
    trains: bool = True  # whether a training step may use it


def _policy(name: str, held: str, product: str, **other: Any) -> Precision:
    """A policy that holds weights and activations in the same format."""
    autocast = other.pop("autocast", None)
    return Precision(
        name=name, weights=held, activations=held, autocast=autocast, product=product, **other
    )


PRECISIONS = {
    p.name: p
    for p in (
        _policy("fp32", "fp32", "fp32"),
        _policy("tf32", "fp32", "tf32"),
        _policy("bf16", "bf16", "bf16"),
        _policy("fp16", "fp16", "fp16"),
        _policy("amp-bf16", "fp32", "bf16", autocast="bf16"),
        _policy("amp-fp16", "fp32", "fp16", autocast="fp16"),
        _policy("fp8", "bf16", "fp8", matrices="fp8", filters="fp8"),
        # activations in fp16: boards with int8 from before 2020 do not multiply bf16
        _policy("int8", "fp16", "int8", matrices="int8", filters="int8", trains=False),
        # as oneDNN's graphs on CPUs: fp32 where int8 is not used
        _policy("int8-fp32", "fp32", "int8", matrices="int8", filters="int8", trains=False),
        # no library has 4-bit convolutions
        _policy("nvfp4", "bf16", "fp4", matrices="fp4"),
        _policy("mxfp4", "bf16", "fp4", matrices="mxfp4", trains=False),
        # weights alone, widened by the kernel that multiplies them, as AWQ and GPTQ hold them
        _policy("int4", "fp16", "fp16", matrices="int4", trains=False),
    )
}


def precision(name: str) -> Precision:
    """The policy called `name`. Raises UnknownName.

    >>> precision("amp-bf16").product
    'bf16'
    """
    try:
        return PRECISIONS[name]
    except KeyError:
        raise UnknownName(f"no precision {quoted(name)}; known: {', '.join(PRECISIONS)}") from None


def weight_bytes(name: str, training: bool) -> float:
    """Bytes that a weight matrix takes per weight, scales included.

    >>> weight_bytes("fp8", training=False), weight_bytes("nvfp4", training=False)
    (1, 0.5625)
    """
    p = precision(name)
    return WIDTH[p.weights if training else p.matrices or p.weights]


def fewest_weight_bytes(training: bool) -> float:
    """Bytes per weight of the precision that holds weight matrices in the fewest."""
    return min(
        weight_bytes(p.name, training) for p in PRECISIONS.values() if p.trains or not training
    )


def quantization(name: str, images: bool) -> list[str]:
    """What inference under a precision that quantizes weights assumes, of a net that reads images
    or of another, in sentences.
    """
    p = precision(name)
    if p.matrices is None:
        return []
    rest = f"{WIDTH[p.weights]:g}"
    held = (
        f"{name}: weight matrices held in {WIDTH[p.matrices]:g} byte per weight; embeddings, heads"
        f" of language models, norms and biases in {rest}; attention computed in {p.activations}"
    )
    convs = (
        f"{name}: convolutions read and write {p.filters}, with batch norms, activations and"
        " additions in their kernels"
        if p.filters
        else f"{name}: convolutions are not quantized"
    )
    return [held, convs] if images else [held]


def promote(*formats: str) -> str:
    """Result format of an elementwise op on operands of these formats, as PyTorch promotes them.

    Mixed bf16 and fp16 operands are not covered.

    >>> promote("bf16", "fp32")
    'fp32'
    """
    return max(formats, key=RANK.__getitem__)
