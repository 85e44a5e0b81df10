"""What an aten op is on a device: FLOPs by unit, bytes, and which time formula takes it.

FLOPs on the matrix unit are those that torch.utils.flop_counter counts, 2 a multiply-add, the full
score matrix of attention, with two corrections: the weight gradient of a grouped convolution is
divided by its groups, and what the counter leaves out (LEFT_OUT) is counted too, and said.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple


class Work(NamedTuple):
    """One kernel of an op. `read` and `written` None: every operand once, every result once."""

    kind: str
    matrix: float = 0
    vector: float = 0
    special: float = 0
    shape: tuple = ()
    read: float | None = None
    written: float | None = None


LEFT_OUT = frozenset(
    (  # matrix work that torch.utils.flop_counter counts as nothing
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
        "_grouped_mm",
        "_scaled_grouped_mm",
        "mkldnn_rnn_layer",
        "mkldnn_rnn_layer_backward",
        "_cudnn_rnn",
        "_cudnn_rnn_backward",
        "_trilinear",
        "_int_mm",
        "mkldnn_linear",
        "_mkldnn_linear",
    )
)

# vector FLOPs and special functions an element of the largest tensor
ELEMENTWISE = {
    "exp": (1, 1), "exp2": (1, 1), "expm1": (1, 1), "log": (0, 1), "log2": (0, 1), "log1p": (1, 1),
    "log10": (0, 1), "sqrt": (0, 1), "rsqrt": (0, 1), "reciprocal": (0, 1), "div": (1, 1),
    "sin": (0, 1), "cos": (0, 1), "tan": (1, 2), "tanh": (2, 2), "sigmoid": (2, 2), "erf": (4, 1),
    "erfinv": (6, 1), "pow": (1, 0), "gelu": (6, 1), "silu": (3, 2), "mish": (5, 4),
    "softplus": (2, 2), "elu": (2, 1), "log_sigmoid_forward": (2, 2), "logit": (2, 1),
    "hardswish": (4, 0), "hardsigmoid": (3, 0), "atan2": (4, 1), "lerp": (3, 0), "addcmul": (2, 0),
    "addcdiv": (2, 1), "glu": (3, 2), "gelu_backward": (10, 2), "silu_backward": (6, 2),
    "mish_backward": (9, 4), "softplus_backward": (3, 2), "elu_backward": (3, 1),
    "tanh_backward": (2, 0), "sigmoid_backward": (3, 0), "hardswish_backward": (4, 0),
    "hardsigmoid_backward": (2, 0), "hardtanh_backward": (2, 0), "threshold_backward": (1, 0),
    "leaky_relu_backward": (2, 0), "log_sigmoid_backward": (4, 1), "glu_backward": (6, 2),
    "logit_backward": (3, 1), "softshrink_backward": (1, 0), "hardshrink_backward": (1, 0),
    "rrelu_with_noise": (2, 0), "rrelu_with_noise_functional": (2, 0),
    "rrelu_with_noise_backward": (2, 0), "_prelu_kernel": (2, 0), "_prelu_kernel_backward": (3, 0),
    "native_dropout": (2, 1), "native_dropout_backward": (2, 0), "bernoulli": (1, 1),
    "bernoulli_": (1, 1), "uniform_": (1, 1), "normal_": (2, 2), "exponential_": (2, 2),
    "rand": (1, 1), "randn": (2, 2), "rand_like": (1, 1), "randn_like": (2, 2), "randint": (1, 1),
    "randperm": (1, 1), "mse_loss": (3, 0), "mse_loss_backward": (3, 0), "smooth_l1_loss": (4, 0),
    "smooth_l1_loss_backward": (4, 0), "huber_loss": (4, 0), "huber_loss_backward": (4, 0),
    "binary_cross_entropy": (4, 2), "binary_cross_entropy_backward": (4, 1),
    "soft_margin_loss": (3, 2), "soft_margin_loss_backward": (3, 1), "upsample_nearest1d": (1, 0),
    "upsample_nearest2d": (1, 0), "upsample_nearest3d": (1, 0),
    "upsample_nearest2d_backward": (1, 0), "upsample_nearest1d_backward": (1, 0),
    "upsample_nearest3d_backward": (1, 0), "_upsample_nearest_exact2d": (1, 0),
    "upsample_bilinear2d": (8, 0), "upsample_bilinear2d_backward": (8, 0),
    "upsample_linear1d": (4, 0), "upsample_linear1d_backward": (4, 0),
    "upsample_bicubic2d": (32, 0), "upsample_bicubic2d_backward": (32, 0),
    "upsample_trilinear3d": (16, 0), "upsample_trilinear3d_backward": (16, 0),
    "_upsample_bilinear2d_aa": (16, 0), "_upsample_bilinear2d_aa_backward": (16, 0),
    "_upsample_bicubic2d_aa": (64, 0), "grid_sampler_2d": (12, 0),
    "grid_sampler_2d_backward": (24, 0), "binary_cross_entropy_with_logits": (5, 3),
    "polar": (2, 2), "floor_divide": (2, 1), "histc": (2, 0), "one_hot": (1, 0),
    "masked_fill": (1, 0), "where": (1, 0), "clamp": (2, 0), "arange": (1, 0), "linspace": (2, 0),
    "tril": (1, 0), "triu": (1, 0), "tril_indices": (1, 0), "triu_indices": (1, 0), "eye": (0, 0),
    "_fused_moving_avg_obs_fq_helper": (6, 0), "cumsum": (1, 0), "cumprod": (1, 0),
    "logcumsumexp": (2, 2), "cummax": (1, 0), "_thnn_fused_lstm_cell": (30, 10),
    "_thnn_fused_gru_cell": (24, 6), "_thnn_fused_lstm_cell_backward_impl": (40, 2),
    "_thnn_fused_lstm_cell_backward": (40, 2), "_thnn_fused_gru_cell_backward": (36, 0),
}  # fmt: skip
REDUCE = frozenset(
    (
        "nonzero sum nansum mean amax amin max min var var_mean std std_mean norm"
        " linalg_vector_norm argmax argmin prod logsumexp any all count_nonzero aminmax median"
        " kthvalue mode _euclidean_dist dist trace sum_to_size nuclear_norm renorm mv dot vdot"
        " addmv addr ger"
    ).split()
)
COPY = frozenset(
    (
        "clone copy_ copy cat stack constant_pad_nd repeat flip roll rot90 slice_backward"
        " select_backward slice_scatter select_scatter diagonal_backward diagonal_scatter"
        " as_strided_scatter unfold_backward im2col col2im fill_ fill zero_ zeros ones full"
        " zeros_like ones_like full_like new_zeros new_ones new_full scalar_tensor _reshape_copy"
        " pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle reflection_pad1d"
        " reflection_pad2d reflection_pad3d reflection_pad1d_backward reflection_pad2d_backward"
        " reflection_pad3d_backward replication_pad1d replication_pad2d replication_pad3d"
        " replication_pad1d_backward replication_pad2d_backward replication_pad3d_backward"
        " view_copy expand_copy permute_copy resize_ set_ _foreach_copy_ block_diag tile contiguous"
        " diag_embed as_strided_copy _pin_memory split_with_sizes_copy unbind_copy"
        " _nested_tensor_from_tensor_list"
    ).split()
)
GATHER = frozenset(
    (
        "index index_select gather take topk sort msort nll_loss_forward nll_loss2d_forward"
        " searchsorted bucketize multinomial isin"
    ).split()
)
SCATTER = frozenset(
    (
        "embedding_dense_backward index_put index_put_ _index_put_impl_ scatter scatter_"
        " scatter_add scatter_add_ scatter_reduce scatter_reduce_ index_add index_add_ index_copy"
        " index_copy_ index_fill index_fill_ masked_scatter masked_scatter_ masked_scatter_backward"
        " _embedding_bag_dense_backward _embedding_bag_backward"
        " _embedding_bag_per_sample_weights_backward nll_loss_backward nll_loss2d_backward"
        " value_selecting_reduction_backward index_select_backward put_ one_hot"
    ).split()
)
SOFTMAX = {
    "_softmax": (4, 1),
    "_log_softmax": (4, 1),
    "_softmax_backward_data": (4, 0),
    "_log_softmax_backward_data": (4, 1),
    "_safe_softmax": (4, 1),
}
ROW_NORM = {  # forward and backward vector FLOPs an element, as simulator.ops.norm has them
    "native_layer_norm": 8,
    "native_group_norm": 8,
    "_fused_rms_norm": 4,
    "native_layer_norm_backward": 18,
    "native_group_norm_backward": 18,
    "_fused_rms_norm_backward": 12,
}
BATCH_NORM = {"": (7, 1), "_backward": (11, 1)}  # FLOPs an element, further passes over the input
BATCH_NORM_NAMES = (
    "native_batch_norm",
    "cudnn_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_functional",
    "_batch_norm_with_update",
    "miopen_batch_norm",
    "batch_norm",
    "_native_batch_norm_legit_no_training",
)
POOLS = (
    "max_pool",
    "avg_pool",
    "adaptive",
    "fractional_max_pool",
    "max_unpool",
    "_adaptive_avg_pool",
    "_adaptive_max_pool",
)
FREE = frozenset(
    (
        "transpose_ t_ squeeze_ unsqueeze_ as_strided_ swapaxes_ swapdims_ detach_ rename_"
        " resize_as_ empty empty_like empty_strided new_empty new_empty_strided empty_permuted lift"
        " lift_fresh detach alias _local_scalar_dense sym_size is_same_size set_data _assert_async"
        " record_stream"
    ).split()
)


def numel(t) -> int:
    """Elements of a tensor, of nothing none."""
    return 0 if t is None else prod(t.shape)


def works(name: str, pointwise: bool, args, kwargs, ins, outs, size_of) -> list[Work] | None:
    """Kernels of one call of aten op `name`; None: no formula. `ins`, `outs` are its tensors,
    `size_of` gives a tensor's bytes.
    """
    if name in FREE:
        return []
    if name in PRODUCTS:
        return PRODUCTS[name](args, kwargs, outs, size_of)
    base = name[:-1] if name.endswith("_") and not name.endswith("__") else name
    n = max((numel(t) for t in (*ins, *outs)), default=0)
    if name in SOFTMAX:
        vector, special = SOFTMAX[name]
        return [Work("softmax", vector=vector * n, special=special * n)]
    if name in ROW_NORM:
        return [Work("layer_norm", vector=ROW_NORM[name] * n)]
    stem = name.removesuffix("_backward")
    if stem in BATCH_NORM_NAMES:
        vector, passes = BATCH_NORM[name[len(stem) :]]
        return [
            Work(
                "batch_norm",
                vector=vector * n,
                read=sum(map(size_of, ins)) + passes * max(map(size_of, ins)),
            )
        ]
    if any(name.startswith(p) for p in POOLS):
        small = min(numel(t) for t in (ins[0], outs[0]))
        window = (
            prod(args[1])
            if len(args) > 1
            and isinstance(args[1], (list, tuple))
            and not name.startswith(("adaptive", "_adaptive"))
            else -(-n // max(small, 1))
        )
        return [Work("pool", vector=window * small)]
    if name == "_to_copy":
        return [Work("cast" if ins and outs[0].dtype != ins[0].dtype else "copy")]
    if base in COPY or name in COPY:
        return [Work("copy")]
    if name in ("embedding", "_embedding_bag", "_embedding_bag_forward_only"):
        ids = size_of(args[1])
        rows = numel(args[1]) * args[0].shape[-1] * size_of(args[0]) // max(numel(args[0]), 1)
        return [Work("gather", vector=0 if name == "embedding" else rows, read=ids + rows)]
    if name in GATHER:
        return [
            Work(
                "gather",
                vector=n,
                read=sum(map(size_of, ins[1:]))
                + (
                    sum(map(size_of, outs))
                    if name not in ("topk", "sort", "msort")
                    else size_of(ins[0])
                ),
            )
        ]
    if name in SCATTER:
        return [Work("scatter", vector=n)]
    if base in REDUCE:
        return [
            Work(
                "reduce",
                vector=(
                    2 * n if base in ("mv", "dot", "vdot", "addmv", "var", "var_mean", "std") else n
                ),
            )
        ]
    if base.startswith("_fft_"):
        length = max((t.shape[-1] for t in ins), default=2)
        return [Work("reduce", vector=5 * n * max(length.bit_length() - 1, 1))]
    if name in ("_cdist_forward", "_cdist_backward"):
        return [Work("reduce", vector=3 * n * (ins[0].shape[-1] if ins[0].shape else 1))]
    found = ELEMENTWISE.get(name, ELEMENTWISE.get(base))
    if found is None and pointwise:
        found = (1, 0)
    return (
        None if found is None else [Work("elementwise", vector=found[0] * n, special=found[1] * n)]
    )


# ------------------------------------------------------------------ matrix products
def _mm(a, b, batch=1):
    (m, k), n = a.shape[-2:], b.shape[-1]
    return [Work("matmul", matrix=2 * batch * m * n * k, shape=(batch, m, n, k))]


def _grouped(a, b):
    """Rows of one matrix cut into groups, each times its own matrix; or the transpose, one product
    a group.
    """
    if len(a.shape) == 2 and len(b.shape) == 3:
        groups, (m, k), n = b.shape[0], a.shape, b.shape[2]
        return [Work("matmul", matrix=2 * m * k * n, shape=(groups, -(-m // groups), n, k))]
    if len(a.shape) == 3 and len(b.shape) == 2:
        groups, m, k = a.shape
        return [
            Work(
                "matmul",
                matrix=2 * m * k * b.shape[1],
                shape=(groups, m, -(-b.shape[1] // groups), k),
            )
        ]
    if len(a.shape) == 2:
        return [
            Work(
                "matmul",
                matrix=2 * a.shape[0] * a.shape[1] * b.shape[1],
                shape=(1, a.shape[0], b.shape[1], a.shape[1]),
            )
        ]
    return _mm(a, b, a.shape[0])


def _conv_shape(x, w, y, stride, transposed, groups):
    """(batch, channels in, channels out, pixels in, pixels out, taps, stride, groups) of the plain
    convolution; FLOPs of one pass.
    """
    taps = prod(w.shape[2:])
    flops = (
        2
        * x.shape[0]
        * prod(x.shape[2:] if transposed else y.shape[2:])
        * w.shape[0]
        * w.shape[1]
        * taps
    )
    if transposed:
        x, y = y, x
    return (
        x.shape[0],
        x.shape[1],
        y.shape[1],
        prod(x.shape[2:]),
        prod(y.shape[2:]),
        taps,
        prod(stride),
        groups,
    ), flops


def _conv_kind(shape):
    return "depthwise" if shape[7] > 1 and shape[7] == shape[1] else "conv"


def _convolution(args, kwargs, outs, size_of):
    x, w, _, stride, _, _, transposed, _, groups = args[:9]
    shape, flops = _conv_shape(x, w, outs[0], stride, transposed, groups)
    return [
        Work(
            _conv_kind(shape),
            matrix=flops,
            shape=("forward" if not transposed else "dgrad", *shape),
        )
    ]


def _convolution_backward(args, kwargs, outs, size_of):
    dy, x, w, _, stride, _, _, transposed, _, groups, mask = args[:11]
    shape, flops = _conv_shape(x, w, dy, stride, transposed, groups)
    kind, kernels = _conv_kind(shape), []
    if mask[0]:
        kernels.append(
            Work(
                kind,
                matrix=flops,
                shape=("forward" if transposed else "dgrad", *shape),
                read=size_of(dy) + size_of(w),
                written=size_of(x),
            )
        )
    if mask[1]:
        kernels.append(
            Work(
                kind,
                matrix=flops,
                shape=("wgrad", *shape),
                read=size_of(dy) + size_of(x),
                written=size_of(w),
            )
        )
    if mask[2]:
        kernels.append(
            Work(
                "reduce",
                vector=numel(dy),
                read=size_of(dy),
                written=size_of(dy) // max(numel(dy), 1) * w.shape[1 if transposed else 0],
            )
        )
    return kernels


def _sdpa(q, k, v, causal, factor, vector):
    batch, heads, length, dim = q.shape
    groups, kv_len, dim_v = k.shape[1], k.shape[2], v.shape[-1]
    scores = batch * heads * length * kv_len * (0.5 if causal else 1)
    return [
        Work(
            "attention",
            matrix=factor * 2 * batch * heads * length * kv_len * (dim + dim_v),
            vector=vector * scores,
            special=scores,
            shape=(batch, heads, groups, length, kv_len, dim, bool(causal)),
        )
    ]


def _sdpa_back(q, k, v, causal):
    """Scores again, and two products for each of both: 2 b h q k (3 d + 2 d_v)."""
    (work,) = _sdpa(q, k, v, causal, 1, 10)
    batch, heads, length, dim = q.shape
    return [
        work._replace(matrix=2 * batch * heads * length * k.shape[2] * (3 * dim + 2 * v.shape[-1]))
    ]


def _rnn_layer(args, kwargs, outs, size_of):
    """A whole recurrent layer in one kernel (oneDNN): input and recurrent weights times every
    step's input and state.
    """
    x, w_in, w_hidden = args[:3]
    steps = prod(x.shape[:-1])
    n, k = w_in.shape[0], w_in.shape[1] + w_hidden.shape[1]
    return [Work("matmul", matrix=2 * steps * n * k, shape=(1, steps, n, k))]


def _rnn_layer_back(args, kwargs, outs, size_of):
    return [
        w._replace(matrix=2 * w.matrix, shape=(1, w.shape[1], w.shape[2], 2 * w.shape[3]))
        for w in _rnn_layer(args, kwargs, outs, size_of)
    ]


def _argument(args, kwargs, place, name, default=None):
    return args[place] if len(args) > place else kwargs.get(name, default)


PRODUCTS = {
    "mm": lambda a, k, o, s: _mm(a[0], a[1]),
    "_int_mm": lambda a, k, o, s: _mm(a[0], a[1]),
    "_scaled_mm": lambda a, k, o, s: _mm(a[0], a[1]),
    "addmm": lambda a, k, o, s: _mm(a[1], a[2]),
    "addmm_": lambda a, k, o, s: _mm(a[1], a[2]),
    "bmm": lambda a, k, o, s: _mm(a[0], a[1], a[0].shape[0]),
    "baddbmm": lambda a, k, o, s: _mm(a[1], a[2], a[1].shape[0]),
    "baddbmm_": lambda a, k, o, s: _mm(a[1], a[2], a[1].shape[0]),
    "_grouped_mm": lambda a, k, o, s: _grouped(a[0], a[1]),
    "_scaled_grouped_mm": lambda a, k, o, s: _grouped(a[0], a[1]),
    "convolution": _convolution,
    "_convolution": _convolution,
    "convolution_backward": _convolution_backward,
    "mkldnn_rnn_layer": _rnn_layer,
    "mkldnn_rnn_layer_backward": _rnn_layer_back,
    "_scaled_dot_product_flash_attention": lambda a, k, o, s: _sdpa(
        *a[:3], _argument(a, k, 4, "is_causal"), 1, 4
    ),
    "_scaled_dot_product_flash_attention_for_cpu": lambda a, k, o, s: _sdpa(
        *a[:3], _argument(a, k, 4, "is_causal"), 1, 4
    ),
    "_scaled_dot_product_efficient_attention": lambda a, k, o, s: _sdpa(
        *a[:3], _argument(a, k, 6, "is_causal"), 1, 4
    ),
    "_scaled_dot_product_cudnn_attention": lambda a, k, o, s: _sdpa(
        *a[:3], _argument(a, k, 6, "is_causal"), 1, 4
    ),
    "_scaled_dot_product_flash_attention_backward": lambda a, k, o, s: _sdpa_back(
        *a[1:4], _argument(a, k, 11, "is_causal")
    ),
    "_scaled_dot_product_flash_attention_for_cpu_backward": lambda a, k, o, s: _sdpa_back(
        *a[1:4], _argument(a, k, 7, "is_causal")
    ),
    "_scaled_dot_product_efficient_attention_backward": lambda a, k, o, s: _sdpa_back(
        *a[1:4], _argument(a, k, 11, "is_causal")
    ),
    "_scaled_dot_product_cudnn_attention_backward": lambda a, k, o, s: _sdpa_back(
        *a[1:4], _argument(a, k, 14, "is_causal")
    ),
}
