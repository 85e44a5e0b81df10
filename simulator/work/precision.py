"""Number formats and precision policies: what a weight, an activation and a matrix product are held
and computed in.
"""

from __future__ import annotations

import msgspec

from roofcast.hwdb.errors import UnknownName
from roofcast.hwdb.formats import WIDTH

__all__ = ["PRECISIONS", "WIDTH", "Precision", "precision", "promote"]

RANK = {
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
    """How a step holds and computes its numbers, in PyTorch's terms.

    `weights` and `activations` are the formats tensors are made in; `autocast` is the lower format
    that torch.autocast sends matrix products to (None where autocast is off); `product` is the
    format that the matrix unit takes (its roof).
    """

    name: str
    weights: str
    activations: str
    autocast: str | None
    product: str
    matrices: str | None = (
        # what weights of products are held in, where not as the others: quantised for inference
        None
    )


PRECISIONS = {
    p.name: p
    for p in (
        Precision(name="fp32", weights="fp32", activations="fp32", autocast=None, product="fp32"),
        Precision(name="tf32", weights="fp32", activations="fp32", autocast=None, product="tf32"),
        Precision(name="bf16", weights="bf16", activations="bf16", autocast=None, product="bf16"),
        Precision(name="fp16", weights="fp16", activations="fp16", autocast=None, product="fp16"),
        Precision(
            name="amp-bf16", weights="fp32", activations="fp32", autocast="bf16", product="bf16"
        ),
        Precision(
            name="amp-fp16", weights="fp32", activations="fp32", autocast="fp16", product="fp16"
        ),
        Precision(name="fp8", weights="bf16", activations="bf16", autocast=None, product="fp8"),
        Precision(
            name="int8",
            weights="bf16",
            activations="bf16",
            autocast=None,
            product="int8",
            matrices="int8",
        ),
        Precision(name="nvfp4", weights="bf16", activations="bf16", autocast=None, product="fp4"),
    )
}


def precision(name: str) -> Precision:
    """The policy of that name.

    >>> precision("amp-bf16").product
    'bf16'
    """
    try:
        return PRECISIONS[name]
    except KeyError:
        raise UnknownName(f"no precision {name!r}; known: {', '.join(PRECISIONS)}") from None


def promote(*formats: str) -> str:
    """The format an elementwise op of these operands yields (PyTorch's promotion, without mixed
    bf16/fp16).

    >>> promote("bf16", "fp32")
    'fp32'
    """
    return max(formats, key=RANK.__getitem__)
