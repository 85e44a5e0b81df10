"""DETR [carion2020]: a residual net whose features an encoder and a decoder of transformers turn
into boxes, one per learned query.

As in transformers, batch norms of the backbone are frozen; a backbone of timm trains, one of
transformers does not. The loss is that of all queries: cross-entropy of classes, L1 of boxes.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import msgspec

from roofcast.simulator.models.families import resnet
from roofcast.simulator.models.families.diffusion import check_sizes, only
from roofcast.simulator.models.families.transformer import activate, heads_of, normed
from roofcast.simulator.models.vision.parts import (
    Output,
    convolve,
    cross_entropy,
    dense,
    dropped,
    pairwise_loss,
    residual,
)
from roofcast.simulator.work.ops import attention, linear, pointwise
from roofcast.simulator.work.tape import Tape, Value

SIZE = 800  # default side of the image [pixels], that of COCO's shorter sides
SAID = (
    "the loss is the cross-entropy of all queries and the L1 of all boxes; the matching of queries"
    " with boxes on the host, and the generalized IoU, are not counted"
)
_SMALL, _WIDE = (64, 128, 256, 512), (256, 512, 1024, 2048)
BACKBONES = {  # name in timm -> layers, widths and depths of the stages
    "resnet18": ("basic", _SMALL, (2, 2, 2, 2)),
    "resnet34": ("basic", _SMALL, (3, 4, 6, 3)),
    "resnet50": ("bottleneck", _WIDE, (3, 4, 6, 3)),
    "resnet101": ("bottleneck", _WIDE, (3, 4, 23, 3)),
    "resnet152": ("bottleneck", _WIDE, (3, 8, 36, 3)),
}


class Frozen(resnet.Config, frozen=True):
    """The backbone of transformers: no parameter of it trains."""

    frozen_norms: ClassVar[bool] = True
    trainable: ClassVar[bool] = False


class Backbone(resnet.Config, frozen=True):
    """The backbone of timm, whose batch norms do not train."""

    frozen_norms: ClassVar[bool] = True


class Dilated(Backbone, frozen=True):
    """The backbone of timm with a dilated last stage of the side of the one before."""

    last_stride: ClassVar[int] = 1


class Named(msgspec.Struct, frozen=True):
    """The keys of a `backbone_config` that say which net it is."""

    model_type: str = "resnet"
    backbone: str | None = None


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's DetrConfig, with its defaults."""

    backbone_config: dict | None = None
    backbone: str | None = None
    use_timm_backbone: bool = True
    dilation: bool | None = False
    num_channels: int = 3
    num_queries: int = 100
    encoder_layers: int = 6
    encoder_ffn_dim: int = 2048
    encoder_attention_heads: int = 8
    decoder_layers: int = 6
    decoder_ffn_dim: int = 2048
    decoder_attention_heads: int = 8
    activation_function: str = "relu"
    d_model: int = 256
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    position_embedding_type: str = "sine"
    num_labels: int | None = None
    id2label: dict[str, str] | None = None

    def __post_init__(self) -> None:
        check_sizes(self)
        only(self, {"position_embedding_type": "sine"})
        for key in ("encoder_attention_heads", "decoder_attention_heads"):
            if self.d_model % max(getattr(self, key), 1):
                raise ValueError(f"d_model ({self.d_model}) is not divisible by {key}")
        self.net  # noqa: B018  (raises ValueError for a net that is not modeled)

    @property
    def net(self) -> resnet.Config:
        """The backbone. Raises ValueError for one that is not modeled."""
        given = self.backbone_config or {}
        named = msgspec.convert(given, Named)
        if given and named.model_type == "resnet":
            return msgspec.convert(given, Frozen)
        name = named.backbone or self.backbone or "resnet50"
        if given and named.model_type != "timm_backbone":
            name = named.model_type
        if name not in BACKBONES:
            raise ValueError(
                f"backbone {name[:40]!r} is not modeled; known: {', '.join(BACKBONES)}"
            )
        kind, widths, depths = BACKBONES[name]
        made = Dilated if self.dilation else Backbone
        return made(self.num_channels, 64, widths, depths, layer_type=kind)

    @property
    def eager(self) -> bool:
        """Whether transformers has eager attention only, as with a backbone of its own."""
        return isinstance(self.net, Frozen)

    @property
    def size(self) -> int:
        """Default side of the image [pixels]."""
        return SIZE

    @property
    def labels(self) -> int:
        """Classes of a box; two where the config names none."""
        return self.num_labels or len(self.id2label or ()) or 2


def build(t: Tape, c: Config, batch: int, image: int) -> Output:
    """One step on `batch` images of `image` x `image` pixels: the loss, or classes and boxes."""
    t.assumptions.append(SAID)
    net, width = c.net, c.d_model
    x = t.input((batch, net.num_channels, image, image))
    with t.scope("model.backbone"):
        x = resnet.features(t, net, x)
    x = convolve(t, "model.input_projection", x, width, 1)
    tokens = x.shape[2] * x.shape[3]
    x = t.view(x, batch, tokens, width)
    places = sines(t, batch, tokens, width)
    with t.scope("model.encoder"):
        x = dropped(t, "dropout", x, c.dropout)
        first = c.encoder_layers > 0 and batch > 1
        if first:  # features lie in memory channel by channel; each linear layer copies them
            x = t.repeat("layers", 1, partial(encode, t, c, places, turned=True), x)
        x = t.repeat("layers", c.encoder_layers - first, partial(encode, t, c, places), x)
    with t.op("model.query_position_embeddings", "copy"):
        queries = pointwise.copy(t, t.parameter(c.num_queries, width), batch, c.num_queries, width)
        y = t.new(queries.shape)
        t.emit("elementwise", (), (y,))
    with t.scope("model.decoder"):
        y = t.repeat("layers", c.decoder_layers, partial(decode, t, c, x, places, queries), y)
        y = normed(t, "layernorm", y)
    return predicted(t, c, y)


def sines(t: Tape, batch: int, tokens: int, width: int) -> Value:
    """Sines and cosines of the places of all tokens [batch, tokens, width]."""
    with t.op("model.position_embedding", "rotary"):
        places = t.new((batch, tokens, width))
        t.emit("elementwise", (), (places,), vector=2 * places.size, special=places.size)
    return places


def mask(t: Tape, c: Config, batch: int, queries: int, keys: int) -> Value | None:
    """What eager attention adds to its scores; fused kernels need no mask for equal images."""
    eager = c.eager or t.implementation("attention", "flash") == "eager"
    return t.new((batch, 1, queries, keys)) if eager else None


def attend(
    t: Tape,
    c: Config,
    heads: int,
    qkv: tuple[Value, Value, Value],
    masked: Value | None = None,
    *,
    turned: bool = False,
) -> Value:
    """Attention of queries to keys and values, all [batch, tokens, width]; then dropout."""
    width, parts = c.d_model, []
    for name, x in zip(("q_proj", "k_proj", "v_proj"), qkv, strict=True):
        with t.op(name, "linear"):
            x = pointwise.copy(t, x) if turned else x
            parts.append(heads_of(t, linear.linear(t, x, width), heads, width // heads))
    with t.op("attention", "attention"):
        h = attention.attention(
            t, *parts, causal=False, mask=masked, dropout=c.attention_dropout, eager=c.eager
        )
    return dropped(t, "dropout", dense(t, "o_proj", h, width), c.dropout)


def mlp(t: Tape, c: Config, x: Value, hidden: int) -> Value:
    """Two linear layers around an activation, and dropout."""
    h = dense(t, "mlp.fc1", x, hidden)
    with t.op("mlp.activation_fn", c.activation_function):
        h = activate(t, c.activation_function, h)
        h = pointwise.dropout(t, h, c.activation_dropout)
    return dropped(t, "mlp.dropout", dense(t, "mlp.fc2", h, c.d_model), c.dropout)


def encode(t: Tape, c: Config, places: Value, x: Value, *, turned: bool = False) -> Value:
    """A layer of the encoder on x [batch, tokens, width]; norms follow the residuals."""
    batch, tokens, _ = x.shape
    with t.scope("self_attn"):
        query = residual(t, x, places, "add_places")
        masked = mask(t, c, batch, tokens, tokens)
        heads = c.encoder_attention_heads
        h = attend(t, c, heads, (query, query, x), masked, turned=turned)
    x = normed(t, "self_attn_layer_norm", residual(t, x, h, "residual_attn"))
    x = residual(t, x, mlp(t, c, x, c.encoder_ffn_dim), "residual_mlp")
    x = normed(t, "final_layer_norm", x)
    if t.training:
        with t.op("isfinite", "compare"):
            t.emit("reduce", (x,), (), vector=2 * x.size)
    return x


def decode(t: Tape, c: Config, x: Value, places: Value, queries: Value, y: Value) -> Value:
    """A layer of the decoder: y [batch, queries, width] attends to itself and to the features x."""
    heads = c.decoder_attention_heads
    with t.scope("self_attn"):
        query = residual(t, y, queries, "add_queries")
        h = attend(t, c, heads, (query, query, y))
    y = normed(t, "self_attn_layer_norm", residual(t, y, h, "residual_attn"))
    with t.scope("encoder_attn"):
        query = residual(t, y, queries, "add_queries")
        key = residual(t, x, places, "add_places")
        masked = mask(t, c, x.shape[0], y.shape[1], x.shape[1])
        h = attend(t, c, heads, (query, key, x), masked)
    y = normed(t, "encoder_attn_layer_norm", residual(t, y, h, "residual_cross"))
    y = residual(t, y, mlp(t, c, y, c.decoder_ffn_dim), "residual_mlp")
    return normed(t, "final_layer_norm", y)


def predicted(t: Tape, c: Config, y: Value) -> Output:
    """The classes and boxes of all queries, or their loss."""
    logits = dense(t, "class_labels_classifier", y, c.labels + 1)
    for i in range(3):
        y = dense(t, f"bbox_predictor.layers.{i}", y, 4 if i == 2 else c.d_model)
        if i < 2:
            with t.op(f"bbox_predictor.relu.{i}", "relu"):
                y = pointwise.unary(t, "relu", y)
    with t.op("bbox_predictor.sigmoid", "sigmoid"):
        boxes = pointwise.unary(t, "sigmoid", y)
    if not t.training:
        return logits, boxes
    with t.scope("classes"):
        of_classes = cross_entropy(t, logits)
    with t.scope("boxes"):
        of_boxes = pairwise_loss(t, "l1", boxes)
    assert isinstance(of_classes, Value), "a loss is one value"
    return residual(t, of_classes, of_boxes, "loss")
