"""The ONNX operators that have a formula, by name [onnx-operators]."""

from __future__ import annotations

import roofcast.simulator.importers.onnx_attention as attentions
import roofcast.simulator.importers.onnx_layers as layers
import roofcast.simulator.importers.onnx_others as others
import roofcast.simulator.importers.onnx_products as products
import roofcast.simulator.importers.onnx_quantized as quantized
import roofcast.simulator.importers.onnx_sequences as sequences
import roofcast.simulator.importers.onnx_shapes as shapes
from roofcast.simulator.importers.onnx_call import Handler


def _each(names: str, handler: Handler) -> dict[str, Handler]:
    return dict.fromkeys(names.split(), handler)


HANDLERS: dict[str, Handler] = {
    **{name: shapes.unary_op(fn) for name, fn in shapes.UNARY.items()},
    **_each("Add Sub Sum Mean", shapes.add_op),
    **_each("Mul Div", shapes.mul_op),
    "Pow": shapes.pow_op,
    "Gelu": shapes.gelu_op,
    **_each("Equal Less LessOrEqual Greater GreaterOrEqual And Or Xor", shapes.compare_op),
    **_each("Max Min Mod Where PRelu", shapes.select_op),
    **_each("Softmax LogSoftmax", shapes.softmax_op),
    "Dropout": shapes.dropout_op,
    "Reshape": shapes.reshape_op,
    "Transpose": shapes.transpose_op,
    "Flatten": shapes.flatten_op,
    "Squeeze": shapes.squeeze_op,
    "Unsqueeze": shapes.unsqueeze_op,
    "Expand": shapes.expand_op,
    "Slice": shapes.slice_op,
    "Split": shapes.split_op,
    "Concat": shapes.concat_op,
    **_each("Identity CastLike", lambda c: c.value(0)),
    "Cast": shapes.cast_op,
    "ConstantOfShape": shapes.constant_of_shape_op,
    "Pad": shapes.copied(shapes.padded),
    "Tile": shapes.copied(shapes.tiled),
    "DepthToSpace": shapes.copied(shapes.depth_to_space),
    "SpaceToDepth": shapes.copied(shapes.space_to_depth),
    "MatMul": quantized.product(products.matmul_op),
    "Gemm": quantized.product(products.gemm_op),
    "Einsum": products.einsum_op,
    "Conv": quantized.product(products.conv_op),
    "ConvTranspose": quantized.product(products.conv_transpose_op),
    "BatchNormalization": layers.batch_norm_op,
    "LayerNormalization": layers.layer_norm_op,
    **_each("GroupNormalization InstanceNormalization", layers.group_norm_op),
    **_each("RMSNormalization SimplifiedLayerNormalization", layers.rms_norm_op),
    **_each(
        "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum"
        " ReduceLogSumExp ReduceSumSquare ArgMax ArgMin",
        layers.reduce_op,
    ),
    "MaxPool": layers.pool_op("max"),
    **_each("AveragePool LpPool", layers.pool_op("avg")),
    "GlobalAveragePool": layers.global_pool_op("avg"),
    "GlobalMaxPool": layers.global_pool_op("max"),
    **_each("Resize Upsample", layers.resize_op),
    "Gather": layers.gather_op,
    **_each("GatherElements GatherND ScatterND ScatterElements Scatter", layers.indexed_op),
    "TopK": layers.top_k_op,
    **_each("CumSum Trilu", layers.same_shape("elementwise")),
    "Hardmax": layers.same_shape("softmax"),
    "ReverseSequence": layers.same_shape("copy"),
    **_each("LpNormalization LRN MeanVarianceNormalization", layers.same_shape("layer_norm")),
    "LSTM": layers.recurrent_op("lstm"),
    "GRU": layers.recurrent_op("gru"),
    "RNN": layers.recurrent_op("rnn"),
    "Attention": attentions.attention_op,
    "RotaryEmbedding": attentions.rotary_op,
    **sequences.HANDLERS,
    **others.HANDLERS,
    **_each("SoftmaxCrossEntropyLoss NegativeLogLikelihoodLoss", layers.cross_entropy_op),
    **quantized.STANDARD,
}
