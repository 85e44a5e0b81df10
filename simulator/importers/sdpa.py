"""scaled_dot_product_attention as a CUDA build of PyTorch runs it."""

from __future__ import annotations

import math

from roofcast.simulator.importers.torch_extra import F, aten, torch

MASK_ALIGNED = 16  # elements: alignment of the mask's rows that the efficient kernel requires
FLASH_ALIGNED = 8  # elements: the flash kernel pads the head dimension to a multiple of it
FLASH_LARGEST = 256  # largest head dimension of the flash kernel


def attention(
    how: str,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """The attention of query, key, value[B, H, S, D] by `how`: flash, efficient or eager.

    Flash needs 16-bit operands, no mask and heads of at most 256 elements; otherwise the efficient
    kernel runs. The composed form runs for "eager", and if the elements of a head are not
    contiguous, or q, k and v have other than four dimensions.
    """
    q, k, v = query, key, value
    if (
        how == "eager"
        or q.dim() != 4
        or any(t.stride(-1) != 1 and t.shape[-1] != 1 for t in (q, k, v))
    ):
        return aten._scaled_dot_product_attention_math(
            q, k, v, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
        )[0]
    if torch.is_autocast_enabled("cuda"):
        q, k, v = (_autocast(t) for t in (q, k, v))
        attn_mask = None if attn_mask is None else _autocast(attn_mask)
    if how == "flash" and attn_mask is None and _flash_takes(q, v):
        return _flash(q, k, v, dropout_p, is_causal, scale)
    if enable_gqa and k.shape[1] != q.shape[1]:
        k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
    if attn_mask is not None:
        attn_mask = _additive(attn_mask, q).expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    statistics = q.requires_grad or k.requires_grad or v.requires_grad
    return aten._scaled_dot_product_efficient_attention(
        q, k, v, attn_mask, statistics, dropout_p, is_causal, scale=scale
    )[0]


def _autocast(t: torch.Tensor) -> torch.Tensor:
    return t.to(torch.get_autocast_dtype("cuda")) if t.dtype.is_floating_point else t


def _flash_takes(q: torch.Tensor, v: torch.Tensor) -> bool:
    """Whether the flash kernel supports this format and these head dimensions."""
    low = q.dtype in (torch.bfloat16, torch.float16)
    return low and q.shape[-1] == v.shape[-1] <= FLASH_LARGEST


def _flash(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
) -> torch.Tensor:
    width = q.shape[-1]
    scale = 1 / math.sqrt(width) if scale is None else scale
    pad = -width % FLASH_ALIGNED
    if pad:
        q, k, v = (F.pad(t, (0, pad)) for t in (q, k, v))
    out = aten._scaled_dot_product_flash_attention(
        q, k, v, dropout_p, is_causal, False, scale=scale
    )[0]
    return out[..., :width] if pad else out


def _additive(mask: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """The mask as the efficient kernel takes it: added to the scores, with aligned rows."""
    if mask.dtype == torch.bool:
        mask = torch.where(mask, 0.0, float("-inf"))
    mask = mask.to(q.dtype)
    length = mask.shape[-1]
    if length % MASK_ALIGNED == 0 or mask.requires_grad:
        return mask
    return F.pad(mask, (0, -length % MASK_ALIGNED))[..., :length]
