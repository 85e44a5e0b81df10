"""Vision towers of Qwen's multimodal models, which read patches of neighbouring frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from roofcast.simulator.models.families.towers import Op, Tower, area, encoder


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


class Qwen35(Qwen3, frozen=True):
    """Keys of transformers' Qwen3_5VisionConfig: one merger, after the last block."""

    deepstack_visual_indexes: list[int] = msgspec.field(default_factory=list)

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """The tower's ops; mergers after other blocks, which a config may list, are not built."""
        return [op for op in super().ops(width, whole) if "deepstack" not in op.name]


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
