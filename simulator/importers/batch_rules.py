"""The rule of each aten op: which axes of its results are multiples of the batch."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from roofcast.simulator.importers.aten_products import Called
from roofcast.simulator.importers.aten_tables import ELEMENTWISE, POOLS
from roofcast.simulator.importers.batch_axes import Axes, AxesOf, Code, Rules, Untold, fixed, grows


def _named(rule: Callable[[Rules], list[Axes]], names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Callable[[Rules], list[Axes]]] = {
    **_named(Rules.view, "view _unsafe_view reshape _reshape_alias _reshape_copy view_copy"),
    **_named(Rules.permuted, "t transpose permute"),
    **_named(Rules.unsqueezed, "unsqueeze squeeze"),
    **_named(Rules.cut, "select slice split split_with_sizes unbind unsafe_split"),
    **_named(Rules.uncut, "select_backward slice_backward"),
    **_named(Rules.product, "mm addmm bmm baddbmm"),
    **_named(Rules.convolution, "convolution"),
    **_named(
        Rules.as_arguments,
        "convolution_backward native_layer_norm_backward native_group_norm_backward"
        " native_batch_norm_backward _fused_rms_norm_backward"
        " _scaled_dot_product_flash_attention_backward"
        " _scaled_dot_product_flash_attention_for_cpu_backward"
        " _scaled_dot_product_efficient_attention_backward",
    ),
    **_named(
        Rules.leading,
        "native_layer_norm native_group_norm native_batch_norm _fused_rms_norm"
        " _native_batch_norm_legit _native_batch_norm_legit_no_training upsample_nearest1d"
        " upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_linear1d"
        " upsample_bicubic2d upsample_trilinear3d upsample_nearest1d_backward"
        " upsample_nearest2d_backward upsample_nearest3d_backward upsample_bilinear2d_backward"
        " upsample_linear1d_backward upsample_bicubic2d_backward upsample_trilinear3d_backward",
    ),
    **_named(
        Rules.same,
        "_softmax _log_softmax _softmax_backward_data _log_softmax_backward_data _safe_softmax"
        " native_dropout native_dropout_backward where masked_fill lerp addcmul addcdiv"
        " _prelu_kernel copy_ cumsum cumprod flip roll tril triu glu_backward",
    ),
    **_named(
        Rules.reduced,
        "sum mean amax amin var var_mean std std_mean prod any all logsumexp argmax argmin"
        " linalg_vector_norm",
    ),
    **_named(Rules.embedding, "embedding"),
    **_named(Rules.joined, "cat stack"),
    **_named(Rules.gathered, "gather"),
    **_named(
        Rules.attention,
        "_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu"
        " _scaled_dot_product_efficient_attention",
    ),
    **_named(
        Rules.loss,
        "binary_cross_entropy_with_logits binary_cross_entropy binary_cross_entropy_backward"
        " soft_margin_loss soft_margin_loss_backward huber_loss huber_loss_backward"
        " nll_loss_forward nll_loss_backward nll_loss2d_forward nll_loss2d_backward mse_loss"
        " mse_loss_backward smooth_l1_loss smooth_l1_loss_backward",
    ),
    **_named(
        Rules.unchanged,
        "alias detach clone fill_ new_empty_strided zero_ _to_copy contiguous lift_fresh lift"
        " bernoulli_ uniform_ normal_ zeros_like ones_like full_like empty_like rand_like"
        " randn_like copy masked_fill_ dropout view_as_real view_as_complex",
    ),
    **_named(Rules.scattered, "scatter scatter_add"),
    **_named(Rules.chosen, "topk sort"),
    **_named(Rules.recurrent, "recurrent"),
    **_named(Rules.table, "embedding_dense_backward"),
    **_named(Rules.padded, "constant_pad_nd reflection_pad1d reflection_pad2d replication_pad2d"),
}  # fmt: skip


def _elementwise(name: str, base: str, c: Called) -> bool:
    """Whether an op is elementwise by its name and by its shapes."""
    if name not in ELEMENTWISE and base not in ELEMENTWISE:
        return False
    largest = max((tuple(t.shape) for t in c.ins), key=lambda shape: (len(shape), prod(shape)))
    return all(tuple(t.shape) == largest for t in c.outs)


NEW = frozenset("new_zeros new_ones new_full new_empty".split())  # of a shape that code states


def axes_of_results(name: str, pointwise: bool, c: Called, of: AxesOf, code: Code) -> list[Axes]:
    """Axes of every tensor that a call of aten op `name` returns.

    `of`: axes of an operand. Raises Untold.
    """
    new = name in NEW or not c.ins
    if new:
        return [code.asked(tuple(t.shape)) for t in c.outs]
    if name == "expand":
        return Rules(name, c, of, code).expand()
    if not any(grows(axis) for t in c.ins for axis in of(t)):
        return [fixed(t.shape) for t in c.outs]
    base = name[:-1] if name.endswith("_") and not name.endswith("__") else name
    rule = RULES.get(name) or RULES.get(base)
    if rule is None and name.startswith(POOLS):
        rule = Rules.as_arguments if name.endswith("backward") else Rules.leading
    if rule is None and not pointwise and not _elementwise(name, base, c):
        raise Untold
    return (rule or Rules.same)(Rules(name, c, of, code))
