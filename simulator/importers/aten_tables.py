"""Tables of aten ops by name: what kind of kernel each one is, and its work per element."""

from __future__ import annotations

# matrix work that torch.utils.flop_counter counts as zero FLOPs
LEFT_OUT = frozenset(
    (
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
        "_grouped_mm",
        "_scaled_grouped_mm",
        "mkldnn_rnn_layer",
        "mkldnn_rnn_layer_backward",
        "_cudnn_rnn",
        "_cudnn_rnn_backward",
        "_trilinear",
        "_euclidean_dist",
        "addbmm",
        "mv",
        "addmv",
        "_int_mm",
        "mkldnn_linear",
        "_mkldnn_linear",
    )
)

# vector FLOPs and special-function results per element of the largest tensor
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
    "grid_sampler_2d_backward": (24, 0), "grid_sampler_3d": (24, 0),
    "grid_sampler_3d_backward": (48, 0), "_upsample_nearest_exact1d": (1, 0),
    "_upsample_nearest_exact1d_backward": (1, 0), "cummin": (1, 0), "rsub": (1, 0),
    "linalg_cross": (5, 0), "binary_cross_entropy_with_logits": (5, 3),
    "polar": (2, 2), "floor_divide": (2, 1), "histc": (2, 0), "one_hot": (1, 0),
    "masked_fill": (1, 0), "where": (1, 0), "clamp": (2, 0), "arange": (1, 0), "linspace": (2, 0),
    "tril": (1, 0), "triu": (1, 0), "tril_indices": (1, 0), "triu_indices": (1, 0), "eye": (0, 0),
    "_fused_moving_avg_obs_fq_helper": (6, 0), "cumsum": (1, 0), "cumprod": (1, 0),
    "logcumsumexp": (2, 2), "cummax": (1, 0), "_thnn_fused_lstm_cell": (30, 10),
    "_thnn_fused_gru_cell": (24, 6), "_thnn_fused_lstm_cell_backward_impl": (40, 2),
    "_thnn_fused_lstm_cell_backward": (40, 2), "_thnn_fused_gru_cell_backward": (36, 0),
}  # fmt: skip
# one result per row, or matrix-vector products
REDUCE = frozenset(
    (
        "nonzero sum nansum mean amax amin max min var var_mean std std_mean norm"
        " linalg_vector_norm argmax argmin prod logsumexp any all count_nonzero aminmax median"
        " kthvalue mode dist trace sum_to_size nuclear_norm renorm dot vdot"
        " addr ger"
    ).split()
)
# every result element is a copy of an operand element or of a constant
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
        " _nested_tensor_from_tensor_list _pack_padded_sequence _pack_padded_sequence_backward"
    ).split()
)
# reads of elements at indices
GATHER = frozenset(
    (
        "index index_select gather take topk sort msort nll_loss_forward nll_loss2d_forward"
        " searchsorted bucketize multinomial isin"
    ).split()
)
# writes of elements at indices
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
SOFTMAX = {  # vector FLOPs and special-function results per element
    "_softmax": (4, 1),
    "_log_softmax": (4, 1),
    "_softmax_backward_data": (4, 0),
    "_log_softmax_backward_data": (4, 1),
    "_safe_softmax": (4, 1),
}
ROW_NORM = {  # vector FLOPs per element, as in simulator/work/ops/norm.py
    "native_layer_norm": 8,
    "native_group_norm": 8,
    "_fused_rms_norm": 4,
    "native_layer_norm_backward": 18,
    "native_group_norm_backward": 18,
    "_fused_rms_norm_backward": 12,
}
# places of the argument that says whether statistics are those of the batch, in the op and in its
# backward; None: they always are
BATCH_NORM: dict[str, tuple[int | None, int | None]] = {
    "native_batch_norm": (5, 7),
    "cudnn_batch_norm": (5, None),
    "miopen_batch_norm": (5, None),
    "_native_batch_norm_legit": (5, None),
    "_native_batch_norm_legit_functional": (5, None),
    "_batch_norm_with_update": (None, None),
    "batch_norm": (5, 7),
    "_native_batch_norm_legit_no_training": (None, None),
    "_batch_norm_no_update": (None, None),
}
INFERRED_NORM = ("_native_batch_norm_legit_no_training", "_batch_norm_no_update")
POOLS = (  # prefixes of names
    "max_pool",
    "avg_pool",
    "adaptive",
    "fractional_max_pool",
    "max_unpool",
    "_adaptive_avg_pool",
    "_adaptive_max_pool",
)
# ops without a kernel: views, allocation, questions about a tensor
FREE = frozenset(
    (
        "transpose_ t_ squeeze_ unsqueeze_ as_strided_ swapaxes_ swapdims_ detach_ rename_"
        " resize_as_ empty empty_like empty_strided new_empty new_empty_strided empty_permuted lift"
        " lift_fresh detach alias _local_scalar_dense sym_size is_same_size set_data _assert_async"
        " record_stream _values _indices _sparse_coo_tensor_with_dims_and_tensors _coalesced_"
        " _sparse_coo_tensor_unsafe values indices crow_indices col_indices"
    ).split()
)
