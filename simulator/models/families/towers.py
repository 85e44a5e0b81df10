"""Vision and audio towers of multimodal models: their parameters, which a step over text tokens
holds in memory and does not run.

A tower is a record of the keys of its part of config.json with transformers' defaults, and `ops`
lists its ops with the shapes of their weights, its projector to the language model included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.tuples import NamedTuple

Side = int | list[int]  # one number, or height and width
LARGEST = 1 << 24  # of a size
_WANTED = f"a number from 1 to {LARGEST} is expected"


class Op(NamedTuple):
    """An op of a tower, and the shapes of its weights: layers first where it is repeated, and in
    front of every matrix of a linear layer.
    """

    name: str
    kind: str
    shapes: tuple[tuple[int, ...], ...]


class Tower(msgspec.Struct, frozen=True):
    """Keys of a tower."""

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """Its ops; `width` is the language model's, `whole` are all keys of the config.json."""
        raise NotImplementedError


def dense(name: str, k: int, n: int, *, bias: bool = True) -> Op:
    """A linear layer k -> n outside of the tower's blocks."""
    return Op(name, "linear", ((1, n, k), (n,)) if bias else ((1, n, k),))


def encoder(
    name: str,
    layers: int,
    width: int,
    inner: int,
    *,
    biases: int = 4,
    mlp_bias: bool = True,
    gated: bool = False,
    vectors: int = 4,
) -> list[Op]:
    """The ops of a tower's blocks.

    biases: of the four projections of attention, those that have one; gated: three products in the
    MLP instead of two; vectors: of `width` weights in a block's norms and scales.
    """
    products = 3 if gated else 2
    mlp_biases = (products - 1) * inner + width if mlp_bias else 0
    return [
        Op(f"{name}.attention", "linear", ((layers, 4 * width, width), (layers, biases * width))),
        Op(f"{name}.mlp", "linear", ((layers, products * inner, width), (layers, mlp_biases))),
        Op(f"{name}.norms", "layer_norm", ((layers, vectors * width),)),
    ]


def area(side: Side) -> int:
    """Elements of a square or rectangle, from its side or its two sides.

    >>> area(14), area([14, 16])
    (196, 224)
    """
    return side * side if isinstance(side, int) else side[0] * side[-1]


def patches(image: Side, patch: Side) -> int:
    """Whole patches of an image.

    >>> patches(336, 14), patches([448, 448], [14, 14])
    (576, 1024)
    """
    sides = [(s, s) if isinstance(s, int) else (s[0], s[-1]) for s in (image, patch)]
    return (sides[0][0] // sides[1][0]) * (sides[0][1] // sides[1][1])


def number(whole: Mapping[str, Any], key: str, default: int) -> int:
    """A key of the whole config.json, a number of at least 1. Raises BadInput."""
    value = whole.get(key)
    if value is None:
        return default
    if type(value) is not int or not 1 <= value <= LARGEST:
        raise BadInput(f"key '{key}' is {str(value)[:40]}; {_WANTED}")
    return value


def merged_side(whole: Mapping[str, Any]) -> int:
    """Patches along a side of those that are merged, one over `downsample_ratio`."""
    ratio = whole.get("downsample_ratio", 0.5)
    if type(ratio) not in (int, float) or not 1e-3 <= ratio <= 1:
        raise BadInput(f"key 'downsample_ratio' is {str(ratio)[:40]}; 0.001 to 1 is expected")
    return int(1 / ratio)


def check(key: str, tower: Tower) -> None:
    """Raises BadInput unless the sizes of a tower are positive. `key` is that of its part."""
    for name in tower.__struct_fields__:
        value = getattr(tower, name)
        if isinstance(value, bool | str) or name.endswith("_indexes"):
            continue
        sides = value if isinstance(value, list) else [value]
        if len(sides) not in (1, 2) or not all(1 <= side <= LARGEST for side in sides):
            raise BadInput(f"key '{key}.{name}' is {str(value)[:40]}; {_WANTED}")


def features(whole: Mapping[str, Any]) -> int:
    """Layers of a tower whose states the projector reads side by side."""
    layer = whole.get("vision_feature_layer")
    return max(len(layer), 1) if isinstance(layer, list) else 1


def projector(inputs: int, width: int, whole: Mapping[str, Any], *, bias: bool) -> list[Op]:
    """LLaVA's projector: two linear layers, with biases unless the config says otherwise."""
    bias = bool(whole.get("multimodal_projector_bias", bias))
    return [
        dense("multi_modal_projector.linear_1", inputs, width, bias=bias),
        dense("multi_modal_projector.linear_2", width, width, bias=bias),
    ]


class Llama4(Tower, frozen=True):
    """Keys of transformers' Llama4VisionConfig."""

    hidden_size: int = 768
    num_hidden_layers: int = 34
    num_channels: int = 3
    intermediate_size: int = 5632
    vision_output_dim: int = 7680
    image_size: int = 448
    patch_size: int = 14
    projector_input_dim: int = 4096
    projector_output_dim: int = 4096

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """Patches, blocks, the adapter that shuffles pixels, and the projector."""
        own, out = self.hidden_size, self.projector_output_dim
        tokens = patches(self.image_size, self.patch_size) + 1
        return [
            dense("vision_model.patch_embedding", area(self.patch_size) * self.num_channels, own,
                  bias=False),
            Op("vision_model.positions", "embedding", ((own,), (tokens, own))),
            *encoder("vision_model.layers", self.num_hidden_layers, own, self.intermediate_size),
            Op("vision_model.norms", "layer_norm", ((4, own),)),
            dense("vision_model.vision_adapter.fc1", self.intermediate_size,
                  self.projector_input_dim, bias=False),
            dense("vision_model.vision_adapter.fc2", out, out, bias=False),
            dense("multi_modal_projector.linear_1", self.vision_output_dim, width, bias=False),
        ]  # fmt: skip


class Siglip(Tower, frozen=True):
    """Keys of transformers' SiglipVisionConfig: a tower without a projector."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: Side = 224
    patch_size: Side = 16
    vision_use_head: bool = True

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """Patches, blocks, norm, and a head that pools the tokens by attention."""
        own, inner = self.hidden_size, self.intermediate_size
        pixels = area(self.patch_size) * self.num_channels
        head = encoder("vision_tower.head", 1, own, inner, vectors=3)  # a norm, and the probe
        return [
            Op("vision_tower.patch_embedding", "conv", ((own, pixels), (own,))),
            Op("vision_tower.position_embedding", "embedding",
               ((patches(self.image_size, self.patch_size), own),)),
            *encoder("vision_tower.layers", self.num_hidden_layers, own, inner),
            Op("vision_tower.post_layernorm", "layer_norm", ((2, own),)),
            *(head if self.vision_use_head else ()),
        ]  # fmt: skip


class Gemma3(Siglip, frozen=True):
    """SigLIP as Gemma 3 uses it: the projector is a norm and a matrix."""

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """The tower's ops and the projector's."""
        own = self.hidden_size
        return [
            *super().ops(width, whole),
            dense("multi_modal_projector.mm_input_projection", own, width, bias=False),
            Op("multi_modal_projector.mm_soft_emb_norm", "rms_norm", ((own,),)),
        ]


class PaliGemma(Siglip, frozen=True):
    """SigLIP as PaliGemma uses it: one linear layer projects."""

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """The tower's ops and the projector's."""
        out = number(whole, "projection_dim", 2048)
        head = dense("multi_modal_projector.linear", self.hidden_size, out)
        return [*super().ops(width, whole), head]


class LlavaSiglip(Siglip, frozen=True):
    """SigLIP as LLaVA uses it."""

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """The tower's ops and the projector's."""
        inputs = self.hidden_size * features(whole)
        return [*super().ops(width, whole), *projector(inputs, width, whole, bias=True)]


class LlavaClip(Tower, frozen=True):
    """Keys of transformers' CLIPVisionConfig, as LLaVA uses it."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_channels: int = 3
    image_size: Side = 224
    patch_size: Side = 32

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """Patches and class token, blocks, two norms, and the projector."""
        own, tokens = self.hidden_size, patches(self.image_size, self.patch_size) + 1
        pixels = area(self.patch_size) * self.num_channels
        return [
            Op("vision_tower.patch_embedding", "conv", ((own, pixels),)),
            Op("vision_tower.positions", "embedding", ((own,), (tokens, own))),
            *encoder("vision_tower.layers", self.num_hidden_layers, own, self.intermediate_size),
            Op("vision_tower.norms", "layer_norm", ((4, own),)),
            *projector(own * features(whole), width, whole, bias=True),
        ]


class Pixtral(Tower, frozen=True):
    """Keys of transformers' PixtralVisionConfig, as LLaVA uses it: RMS norms, gated MLPs."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_channels: int = 3
    patch_size: Side = 16

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """Patches, blocks, norm, and the projector."""
        own, inner, layers = self.hidden_size, self.intermediate_size, self.num_hidden_layers
        pixels = area(self.patch_size) * self.num_channels
        plain = {"biases": 0, "mlp_bias": False, "gated": True, "vectors": 2}
        return [
            Op("vision_tower.patch_conv", "conv", ((own, pixels),)),
            *encoder("vision_tower.layers", layers, own, inner, **plain),  # type: ignore[arg-type]
            Op("vision_tower.ln_pre", "rms_norm", ((own,),)),
            *self.projected(width, whole),
        ]

    def projected(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """The projector."""
        return projector(self.hidden_size * features(whole), width, whole, bias=True)


class Mistral3(Pixtral, frozen=True):
    """Pixtral as Mistral 3 uses it: neighbouring patches are merged before the projector."""

    def projected(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """Norm, merging layer and two linear layers."""
        own, merged = self.hidden_size, number(whole, "spatial_merge_size", 2)
        return [
            Op("multi_modal_projector.norm", "rms_norm", ((own,),)),
            dense("multi_modal_projector.patch_merger", own * merged * merged, own, bias=False),
            *projector(own * features(whole), width, whole, bias=False),
        ]


class InternVL(Tower, frozen=True):
    """Keys of transformers' InternVLVisionConfig."""

    hidden_size: int = 1024
    num_hidden_layers: int = 24
    attention_bias: bool = False
    use_qk_norm: bool = False
    intermediate_size: int = 4096
    norm_type: str = "layer_norm"
    image_size: Side = msgspec.field(default_factory=lambda: [448, 448])
    patch_size: Side = msgspec.field(default_factory=lambda: [14, 14])
    num_channels: int = 3
    use_mask_token: bool = False
    use_absolute_position_embeddings: bool = True
    use_mean_pooling: bool = True

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """Patches and class token, blocks whose branches are scaled, norm, and the projector."""
        own, pixels = self.hidden_size, area(self.patch_size) * self.num_channels
        tokens = patches(self.image_size, self.patch_size) + 1
        vectors = (4 if self.norm_type == "layer_norm" else 2) + 2 + 2 * self.use_qk_norm
        merged = own * merged_side(whole) ** 2
        places = tokens if self.use_absolute_position_embeddings else 0
        return [
            Op("vision_tower.patch_embedding", "conv", ((own, pixels), (own,))),
            Op("vision_tower.positions", "embedding",
               ((1 + self.use_mask_token, own), (places, own))),
            *encoder("vision_tower.layers", self.num_hidden_layers, own, self.intermediate_size,
                     biases=1 + 3 * self.attention_bias, vectors=vectors),
            Op("vision_tower.layernorm", "layer_norm", ((0 if self.use_mean_pooling else 2, own),)),
            Op("multi_modal_projector.layer_norm", "layer_norm", ((2, merged),)),
            dense("multi_modal_projector.linear_1", merged, width),
            dense("multi_modal_projector.linear_2", width, width),
        ]  # fmt: skip


class Idefics3(Siglip, frozen=True):
    """SigLIP as Idefics 3 and SmolVLM use it: patches are merged, and one matrix projects."""

    hidden_size: int = 1152
    num_attention_heads: int = 16
    patch_size: Side = 32
    vision_use_head: bool = False

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """The tower's ops and the connector's."""
        merged = self.hidden_size * number(whole, "scale_factor", 2) ** 2
        return [*super().ops(width, whole), dense("connector.proj", merged, width, bias=False)]
