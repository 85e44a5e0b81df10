"""Number formats and precision policies.

A policy fixes the formats in which weights and activations are held and products are computed.
"""

from __future__ import annotations

import msgspec

from roofcast.hwdb.errors import UnknownName
from roofcast.hwdb.formats import WIDTH

__all__ = ["PRECISIONS", "WIDTH", "Precision", "precision", "promote"]

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
    matrices: str | None = None  # of weight matrices, if they are quantized for inference


def _policy(
    name: str, held: str, product: str, autocast: str | None = None, matrices: str | None = None
) -> Precision:
    """A policy that holds weights and activations in the same format."""
    return Precision(
        name=name,
        weights=held,
        activations=held,
        autocast=autocast,
        product=product,
        matrices=matrices,
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
        _policy("fp8", "bf16", "fp8"),
        _policy("int8", "bf16", "int8", matrices="int8"),
        _policy("nvfp4", "bf16", "fp4"),
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
        raise UnknownName(f"no precision {name!r}; known: {', '.join(PRECISIONS)}") from None


def promote(*formats: str) -> str:
    """Result format of an elementwise op on operands of these formats, as PyTorch promotes them.

    Mixed bf16 and fp16 operands are not covered.

    >>> promote("bf16", "fp32")
    'fp32'
    """
    return max(formats, key=RANK.__getitem__)
