"""Segment Anything [kirillov2023]: an image encoder, an encoder of prompts, a decoder of masks.

A step is one prompt per image, a box. The loss is that of all masks (binary cross-entropy) and of
their scores (square error). sam_vision_model is the image encoder alone.
"""

from __future__ import annotations

from functools import partial

import msgspec

from roofcast.simulator.models.families.diffusion import check_sizes
from roofcast.simulator.models.families.sam_encoder import Vision, encoded
from roofcast.simulator.models.families.transformer import activate, heads_of, normed
from roofcast.simulator.models.vision.convnext import channel_norm
from roofcast.simulator.models.vision.parts import Output, dense, pairwise_loss, residual
from roofcast.simulator.work.ops import attention, conv, linear, pointwise
from roofcast.simulator.work.tape import Tape, Value

CORNERS = 2  # tokens of a box
SAID = (
    "one box per image as the prompt; points and masks as prompts are not counted, and the loss is"
    " that of all masks and their scores"
)


class Prompts(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's SamPromptEncoderConfig, with its defaults."""

    hidden_size: int = 256
    image_size: int = 1024
    patch_size: int = 16
    mask_input_channels: int = 16
    num_point_embeddings: int = 4

    def __post_init__(self) -> None:
        check_sizes(self)


class Decoder(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's SamMaskDecoderConfig, with its defaults."""

    hidden_size: int = 256
    hidden_act: str = "relu"
    mlp_dim: int = 2048
    num_hidden_layers: int = 2
    num_attention_heads: int = 8
    attention_downsample_rate: int = 2
    num_multimask_outputs: int = 3
    iou_head_depth: int = 3
    iou_head_hidden_dim: int = 256

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.hidden_size % (self.num_attention_heads * self.attention_downsample_rate):
            raise ValueError(
                f"mask_decoder_config: hidden_size ({self.hidden_size}) is not divisible by"
                f" {self.num_attention_heads} heads of 1/{self.attention_downsample_rate} width"
            )


class Config(Vision, frozen=True):
    """Keys of Hugging Face's SamConfig and, for the image encoder alone, of SamVisionConfig."""

    model_type: str = "sam"
    vision_config: Vision = Vision()
    prompt_encoder_config: Prompts = Prompts()
    mask_decoder_config: Decoder = Decoder()

    def __post_init__(self) -> None:
        super().__post_init__()
        v, p, d = self.vision_config, self.prompt_encoder_config, self.mask_decoder_config
        if self.model_type != "sam":
            return
        widths = {v.output_channels, p.hidden_size, d.hidden_size, 2 * v.num_pos_feats}
        if len(widths) > 1:
            raise ValueError(
                f"output_channels ({v.output_channels}), twice num_pos_feats ({v.num_pos_feats}),"
                f" and hidden_size of prompts ({p.hidden_size}) and masks ({d.hidden_size}) must be"
                " equal"
            )
        if (v.image_size, v.patch_size) != (p.image_size, p.patch_size):
            raise ValueError("image_size and patch_size differ between vision and prompts")

    @property
    def vision(self) -> Vision:
        """The image encoder."""
        return self.vision_config if self.model_type == "sam" else self

    @property
    def size(self) -> int:
        """Side of the image [pixels]."""
        return self.vision.image_size


def build(t: Tape, c: Config, batch: int, image: int) -> Output:
    """One step on `batch` images of `image` x `image` pixels: the loss, or masks and scores."""
    v = c.vision
    pixels = t.input((batch, v.num_channels, image, image))
    if c.model_type != "sam":
        t.assumptions.append("image encoder alone: the loss is the square error of its output")
        with t.scope("vision_encoder"):
            return pairwise_loss(t, "mse", encoded(t, v, pixels))
    t.assumptions.append(SAID)
    places = wide_places(t, c, batch)
    with t.scope("vision_encoder"):
        features = encoded(t, v, pixels)
    with t.scope("prompt_encoder"):
        box, nothing = prompted(t, c, batch)
    with t.scope("mask_decoder"):
        masks, scores = decoded(t, c.mask_decoder_config, (features, nothing), places, box)
    if not t.training:
        return masks, scores
    with t.scope("masks"):
        of_masks = pairwise_loss(t, "bce_with_logits", masks)
    with t.scope("iou_scores"):
        of_scores = pairwise_loss(t, "mse", scores)
    return residual(t, of_masks, of_scores, "loss")


def placed(t: Tape, c: Config, points: Value) -> Value:
    """Sines and cosines of points [.., 2], by a learned matrix of frequencies."""
    features = c.vision.num_pos_feats
    weight = t.parameter(features, 2, tied="positional_embedding")
    unit = pointwise.unary(t, "add_scalar", pointwise.scale(t, points))
    angles = linear.linear(t, unit, features, bias=False, weight=weight, parallel=False)
    angles = pointwise.scale(t, angles)
    both = [pointwise.unary(t, fn, angles) for fn in ("sin", "cos")]
    return pointwise.concat(t, both, -1)


def wide_places(t: Tape, c: Config, batch: int) -> Value:
    """The places of all features of an image [batch, channels, side, side]."""
    side = c.vision.image_size // c.vision.patch_size
    with t.op("image_positional_embeddings", "rotary"):
        grid = t.new((side, side, 2))
        t.emit("elementwise", (), (grid,), vector=2 * grid.size)
        places = placed(t, c, grid)
        return pointwise.copy(t, places, batch, places.shape[-1], side, side)


def prompted(t: Tape, c: Config, batch: int) -> tuple[Value, Value]:
    """The tokens of a box [batch, 2, width], and the vector of a missing mask."""
    p = c.prompt_encoder_config
    width, narrow = p.hidden_size, p.mask_input_channels // 4
    with t.op("mask_embed", "unused"):  # read only where the prompt is a mask
        for shape in ((narrow, 1, 2, 2), (narrow,), (4 * narrow, narrow, 2, 2), (4 * narrow,),
                      (width, 4 * narrow, 1, 1), (width,), (narrow,), (narrow,), (4 * narrow,),
                      (4 * narrow,)):  # fmt: skip
            t.parameter(*shape)
    with t.op("point_embed", "add"):
        corners = [t.parameter(1, width) for _ in range(p.num_point_embeddings)][-CORNERS:]
        t.parameter(1, width)  # of padding
        box = pointwise.unary(t, "add_scalar", t.input((batch, 1, 2 * CORNERS)))
        box = placed(t, c, t.view(box, batch, CORNERS, 2))
        for corner in corners:
            pointwise.add(t, t.view(box, batch, 1, width), corner)
    with t.op("no_mask_embed", "expand"):
        nothing = t.view(t.parameter(1, width), 1, width, 1, 1)
    return box, nothing


def decoded(
    t: Tape, c: Decoder, images: tuple[Value, Value], places: Value, box: Value
) -> tuple[Value, Value]:
    """Masks [batch, 1, masks, height, width] and their scores [batch, 1, masks]."""
    batch, width, side, _ = places.shape
    count = c.num_multimask_outputs + 1
    with t.op("tokens", "concat"):
        own = pointwise.concat(t, [t.parameter(1, width), t.parameter(count, width)], 0)
        own = pointwise.copy(t, own, batch, 1 + count, width)
        tokens = pointwise.concat(t, [own, box], 1)
    with t.op("image_embeddings", "add"):
        # copied for each prompt of an image, of which there is one
        shape = batch, side * side, width
        keys = pointwise.copy(t, pointwise.add(t, *images), *shape)
        places = pointwise.copy(t, places, *shape)
    queries = tokens
    with t.scope("transformer"):
        for i in range(c.num_hidden_layers):
            with t.scope(f"layers.{i}"):
                queries, keys = two_way(t, c, queries, keys, tokens, places, first=i == 0)
        q, k = residual(t, queries, tokens, "add_query"), residual(t, keys, places, "add_key")
        h = attend(t, c, "final_attn_token_to_image", q, k, keys)
        queries = normed(t, "layer_norm_final_attn", residual(t, queries, h))
    x = t.view(keys, batch, width, side, side)
    with t.op("upscale_conv1", "conv"):
        x = conv.conv_transpose(t, x, width // 4, 2, stride=2)
    x = activated(t, "gelu1", channel_norm(t, "upscale_layer_norm", x))
    with t.op("upscale_conv2", "conv"):
        x = conv.conv_transpose(t, x, width // 8, 2, stride=2)
    x = activated(t, "gelu2", x)
    mlp = partial(feed_forward, t, t.view(queries, batch, 1, width))
    weights = [mlp(f"output_hypernetworks_mlps.{i}", width, width // 8, 3) for i in range(count)]
    with t.op("masks", "matmul"):
        hyper = pointwise.concat(t, weights, 1)
        pixels = x.shape[2] * x.shape[3]
        masks = linear.matmul(t, hyper, t.view(x, batch, width // 8, pixels))
    scores = mlp("iou_prediction_head", c.iou_head_hidden_dim, count, c.iou_head_depth)
    with t.op("multimask", "slice"):
        masks = pointwise.part(t, masks, batch, 1, count - 1, *x.shape[2:])
        return masks, pointwise.part(t, scores, batch, 1, count - 1)


def activated(t: Tape, name: str, x: Value) -> Value:
    """GELU of x."""
    with t.op(name, "gelu"):
        return pointwise.unary(t, "gelu", x)


def two_way(
    t: Tape, c: Decoder, q: Value, k: Value, tokens: Value, places: Value, *, first: bool
) -> tuple[Value, Value]:
    """A layer: tokens attend to themselves and to the image, and the image to the tokens."""
    wide = partial(attend, t, c, rate=1)
    if first:
        q = wide("self_attn", q, q, q)
    else:
        query = residual(t, q, tokens, "self_add")
        q = residual(t, q, wide("self_attn", query, query, q), "self_residual")
    q = normed(t, "layer_norm1", q)
    query, key = residual(t, q, tokens, "add_query"), residual(t, k, places, "add_key")
    h = attend(t, c, "cross_attn_token_to_image", query, key, k, turned=first)
    q = normed(t, "layer_norm2", residual(t, q, h, "residual_cross"))
    h = dense(t, "mlp.lin1", q, c.mlp_dim)
    with t.op("mlp.act", c.hidden_act):
        h = activate(t, c.hidden_act, h)
    h = dense(t, "mlp.lin2", h, c.hidden_size)
    q = normed(t, "layer_norm3", residual(t, q, h, "residual_mlp"))
    query, key = residual(t, q, tokens, "add_query2"), residual(t, k, places, "add_key2")
    h = attend(t, c, "cross_attn_image_to_token", key, query, q, turned=first)
    return q, normed(t, "layer_norm4", residual(t, k, h, "residual_image"))


def attend(
    t: Tape,
    c: Decoder,
    name: str,
    q: Value,
    k: Value,
    v: Value,
    *,
    rate: int | None = None,
    turned: bool = False,
) -> Value:
    """Attention in a narrower width, 1 / `rate` of the tokens'.

    turned: image tokens lie in memory channel by channel, and each linear layer copies them.
    """
    width, heads = c.hidden_size, c.num_attention_heads
    inner = width // (rate or c.attention_downsample_rate)
    with t.scope(name):
        parts = []
        for of, x in zip(("q_proj", "k_proj", "v_proj"), (q, k, v), strict=True):
            with t.op(of, "linear"):
                if turned and x.shape[0] > 1 and x.shape[1] == max(q.shape[1], k.shape[1]):
                    x = pointwise.copy(t, x)
                h = linear.linear(t, x, inner, parallel=False)
                parts.append(heads_of(t, h, heads, inner // heads))
        with t.op("attention", "attention"):
            h = attention.attention(t, *parts, causal=False, softmax_fp32=True)
        return dense(t, "out_proj", h, width, parallel=False)


def feed_forward(t: Tape, x: Value, name: str, hidden: int, out: int, depth: int) -> Value:
    """`depth` linear layers of one token of each image, with ReLU between them."""
    with t.scope(name):
        for i in range(depth - 1):
            x = dense(t, f"layers.{i}", x, hidden)
            with t.op(f"act.{i}", "relu"):
                x = pointwise.unary(t, "relu", x)
        return dense(t, "proj_out", x, out)
