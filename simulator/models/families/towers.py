"""Vision and audio towers of multimodal models: their parameters, which a step over text tokens
holds in memory and does not run.

A tower is a record of the keys of its part of config.json with transformers' defaults, and `ops`
lists its ops with the shapes of their weights, its projector to the language model included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

Side = int | list[int]  # one number, or height and width


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
        out = whole.get("projection_dim") or 2048
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
        own, merged = self.hidden_size, whole.get("spatial_merge_size") or 2
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
        merged = own * max(int(1 / float(whole.get("downsample_ratio") or 0.5)), 1) ** 2
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


class Qwen2(Tower, frozen=True):
    """Keys of transformers' Qwen2VLVisionConfig: `hidden_size` is the language model's width."""

    depth: int = 32
    embed_dim: int = 1280
    hidden_size: int = 3584
    mlp_ratio: float = 4
    in_channels: int = 3
    patch_size: int = 14
    spatial_merge_size: int = 2
    temporal_patch_size: int = 2

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """Patches, blocks, and the merger of neighbouring patches."""
        own, inner = self.embed_dim, int(self.embed_dim * self.mlp_ratio)
        return [
            video_patches(self.in_channels, self.temporal_patch_size, self.patch_size, own),
            *encoder("visual.blocks", self.depth, own, inner),
            *merger("visual.merger", own, self.spatial_merge_size, self.hidden_size, norm=2 * own),
        ]


class Qwen25(Tower, frozen=True):
    """Keys of transformers' Qwen2_5_VLVisionConfig: RMS norms, gated MLPs with biases."""

    depth: int = 32
    hidden_size: int = 3584
    intermediate_size: int = 3420
    in_channels: int = 3
    patch_size: int = 14
    spatial_merge_size: int = 2
    temporal_patch_size: int = 2
    out_hidden_size: int = 3584

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """Patches, blocks, and the merger of neighbouring patches."""
        own, inner = self.hidden_size, self.intermediate_size
        return [
            video_patches(self.in_channels, self.temporal_patch_size, self.patch_size, own),
            *encoder("visual.blocks", self.depth, own, inner, gated=True, vectors=2),
            *merger("visual.merger", own, self.spatial_merge_size, self.out_hidden_size, norm=own),
        ]


class Qwen3(Tower, frozen=True):
    """Keys of transformers' Qwen3VLVisionConfig: learned positions, mergers after some blocks."""

    depth: int = 27
    hidden_size: int = 1152
    intermediate_size: int = 4304
    in_channels: int = 3
    patch_size: int = 16
    spatial_merge_size: int = 2
    temporal_patch_size: int = 2
    out_hidden_size: int = 3584
    num_position_embeddings: int = 2304
    deepstack_visual_indexes: list[int] = msgspec.field(default_factory=lambda: [8, 16, 24])

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """Patches, positions, blocks, and a merger after the last and after some other blocks."""
        own, side, out = self.hidden_size, self.spatial_merge_size, self.out_hidden_size
        deep = len(self.deepstack_visual_indexes)
        first = video_patches(self.in_channels, self.temporal_patch_size, self.patch_size, own)
        return [
            first._replace(shapes=(*first.shapes, (own,))),
            Op("visual.pos_embed", "embedding", ((self.num_position_embeddings, own),)),
            *encoder("visual.blocks", self.depth, own, self.intermediate_size),
            *merger("visual.merger", own, side, out, norm=2 * own),
            *merger("visual.deepstack", own, side, out, norm=2 * own * side * side, count=deep),
        ]


def video_patches(channels: int, frames: int, patch: int, width: int) -> Op:
    """The convolution over patches of neighbouring frames, without a bias."""
    return Op("visual.patch_embed", "conv", ((width, channels * frames * area(patch)),))


def merger(name: str, width: int, side: int, out: int, *, norm: int, count: int = 1) -> list[Op]:
    """side x side neighbouring patches through two linear layers; a norm of `norm` weights."""
    merged = width * side * side
    first, second = ((count, merged, merged), (count, merged)), ((count, out, merged), (count, out))
    return [
        Op(f"{name}.norm", "layer_norm", ((count, norm),)),
        Op(f"{name}.fc1", "linear", first),
        Op(f"{name}.fc2", "linear", second),
    ]
