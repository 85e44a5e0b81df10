"""DINOv2 [oquab2023] and DINOv3 [simeoni2025]: vision transformers with scaled residuals.

Without a classifier the loss is the square error of the last hidden state, as in distillation.
"""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.transformer import activate, normed, projections
from roofcast.simulator.models.vision.parts import classify, pairwise_loss
from roofcast.simulator.models.vision.vit import layer_scale, patches
from roofcast.simulator.work.ops import attention, conv, linear, pointwise
from roofcast.simulator.work.tape import Tape, Value

CLASSIFIER = "Dinov2ForImageClassification"


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's Dinov2Config and DINOv3ViTConfig, with their defaults."""

    model_type: str
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int | None = None
    mlp_ratio: float = 4
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    attention_dropout: float = 0.0
    image_size: int = 224
    patch_size: int | None = None
    num_channels: int = 3
    qkv_bias: bool = True
    query_bias: bool = True
    key_bias: bool = False
    value_bias: bool = True
    proj_bias: bool = True
    mlp_bias: bool = True
    use_swiglu_ffn: bool = False
    use_gated_mlp: bool = False
    use_mask_token: bool = True
    num_register_tokens: int = 0
    architectures: tuple[str, ...] | None = None
    num_labels: int | None = None
    id2label: dict[str, str] | None = None

    @property
    def third(self) -> bool:
        """Whether it is DINOv3: rotary positions instead of learned ones."""
        return self.model_type == "dinov3_vit"

    @property
    def labels(self) -> int:
        """Classes of an image; two where the config names none."""
        return self.num_labels or len(self.id2label or ()) or 2

    @property
    def patch(self) -> int:
        """Side of a patch [pixels]."""
        return self.patch_size or (16 if self.third else 14)

    @property
    def hidden(self) -> int:
        """Width of the MLP."""
        if self.third:
            return self.intermediate_size or 1536
        wide = int(self.hidden_size * self.mlp_ratio)
        return (int(wide * 2 / 3) + 7) // 8 * 8 if self.use_swiglu_ffn else wide

    @property
    def biases(self) -> tuple[bool, bool, bool]:
        """Whether queries, keys and values have a bias."""
        if self.third:
            return self.query_bias, self.key_bias, self.value_bias
        return (self.qkv_bias,) * 3

    @property
    def drop(self) -> float:
        """Dropout probability of the attention."""
        return self.attention_dropout if self.third else self.attention_probs_dropout_prob


def build(t: Tape, c: Config, batch: int, image: int) -> Value:
    """One step on `batch` images of `image` x `image` pixels: the loss, or the hidden state."""
    x = embedded(t, c, batch, image)
    tables = None
    if c.third:
        dim = c.hidden_size // c.num_attention_heads
        cos, sin = transformer.rotary_tables(t, (image // c.patch) ** 2, dim)
        tables = (t.view(cos, *cos.shape[1:]), t.view(sin, *sin.shape[1:]))
    with t.scope("encoder"):
        x = t.repeat("layer", c.num_hidden_layers, lambda x: block(t, c, x, tables), x)
    x = normed(t, "layernorm", x)
    if CLASSIFIER in (c.architectures or ()):
        with t.op("pool", "concat"):
            width = c.hidden_size
            first = t.view(x, batch, width)
            mean = pointwise.mean(t, t.view(x, batch, x.shape[1] - 1, width), 1, keepdim=False)
            both = pointwise.concat(t, [first, mean], 1)
        return classify(t, both, c.labels, name="classifier")
    t.assumptions.append("encoder without a classifier: the loss is the square error of its output")
    return pairwise_loss(t, "mse", x)


def embedded(t: Tape, c: Config, batch: int, image: int) -> Value:
    """Patches behind the class token and the registers, and their positions."""
    width = c.hidden_size
    with t.scope("embeddings"):
        with t.op("tokens", "concat"):
            first = t.parameter(1, 1, width)
            mask = (1, 1, width) if c.third else (1, width)
            if c.third or c.use_mask_token:
                t.parameter(*mask)
            extra = [t.view(first, batch, 1, width)]
            if c.third and c.num_register_tokens:
                registers = t.parameter(1, c.num_register_tokens, width)
                extra.append(t.view(registers, batch, c.num_register_tokens, width))
        pixels = t.input((batch, c.num_channels, image, image))
        x = patches(t, pixels, width, c.patch, "patch_embeddings.projection")
        with t.op("tokens", "concat"):
            x = pointwise.concat(t, [*extra, x], 1)
        if c.third:
            return x
        with t.op("position_embeddings", "add"):
            x = pointwise.add(t, x, positions(t, c, image))
        with t.op("dropout", "dropout"):
            return pointwise.dropout(t, x, c.hidden_dropout_prob)


def positions(t: Tape, c: Config, image: int) -> Value:
    """Learned positions [1, tokens, width], interpolated where the image is not the default's."""
    side, wanted = c.image_size // c.patch, image // c.patch
    places = t.parameter(1, side**2 + 1, c.hidden_size)
    if side == wanted:
        return places
    grid = t.view(places, 1, c.hidden_size, side, side)
    grid = t.cast(conv.resize(t, t.cast(grid, "fp32"), wanted, kind="bicubic"), places.dtype)
    grid = t.view(grid, 1, wanted**2, c.hidden_size)
    return pointwise.concat(t, [t.view(places, 1, 1, c.hidden_size), grid], 1)


def block(
    t: Tape, c: Config, x: Value, tables: transformer.Tables | None, *, eager: bool = False
) -> Value:
    """One block; x and the result are [batch, tokens, width]. eager: no fused attention."""
    width, heads = c.hidden_size, c.num_attention_heads
    h = normed(t, "norm1", x)
    with t.scope("attention"):
        parts = []
        for name, bias in zip(("q_proj", "k_proj", "v_proj"), c.biases, strict=True):
            parts += projections(t, h, {name: heads}, width // heads, bias=bias)
        if tables is not None:
            with t.op("rotary", "rotary"):
                parts[:2] = [of_patches(t, part, tables) for part in parts[:2]]
        with t.op("attention", "attention"):
            h = attention.attention(
                t, *parts, causal=False, dropout=c.drop, by_heads=c.third, eager=eager
            )
        with t.op("o_proj", "linear"):
            h = linear.linear(t, h, width, bias=c.proj_bias or not c.third)
    h = layer_scale(t, "layer_scale1", h)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, h, x)
    h = layer_scale(t, "layer_scale2", mlp(t, c, normed(t, "norm2", x)))
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, h, x)


def of_patches(t: Tape, x: Value, tables: transformer.Tables) -> Value:
    """The rotation of the patches of x [B, H, S, D]; the tokens before them stay as they are."""
    count = tables[0].shape[0]
    batch, heads, length, dim = x.shape
    turned = transformer.rotate(t, t.view(x, batch, heads, count, dim), *tables)
    first = t.view(x, batch, heads, length - count, dim)
    return pointwise.concat(t, [first, turned], 2)


def mlp(t: Tape, c: Config, x: Value) -> Value:
    """The MLP, gated in the largest models."""
    width, bias = c.hidden_size, c.mlp_bias or not c.third
    with t.scope("mlp"):
        if c.use_swiglu_ffn or c.use_gated_mlp:
            act = c.hidden_act if c.third else "silu"
            return transformer.gated_mlp(t, x, c.hidden, width, activation=act, bias=bias)
        with t.op("fc1", "linear"):
            h = linear.linear(t, x, c.hidden, bias=bias)
        with t.op("activation_fn", c.hidden_act):
            h = activate(t, c.hidden_act, h)
        with t.op("fc2", "linear"):
            return linear.linear(t, h, width, bias=bias)
