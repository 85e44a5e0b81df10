"""Audio towers of multimodal models, and the image towers of Gemma 3n, Gemma 4 and Phi-4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from roofcast.simulator.models.families.towers import Op, Siglip, Tower, area, dense, encoder

# parameters of timm's mobilenetv5_300m_enc without a classifier (timm 1.0.31)
MOBILENET_V5 = 294_126_912


class Whisper(Tower, frozen=True):
    """Keys of transformers' Qwen2AudioEncoderConfig: Whisper's encoder without a projector."""

    num_mel_bins: int = 128
    encoder_layers: int = 32
    encoder_ffn_dim: int = 5120
    d_model: int = 1280
    max_source_positions: int = 1500

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """Two convolutions, fixed positions, blocks, norm."""
        own = self.d_model
        return [*self.convolved(), *self.placed(), *self.blocks(), _norm("layer_norm", own)]

    def convolved(self) -> list[Op]:
        """The two convolutions over the spectrogram."""
        own, bins = self.d_model, self.num_mel_bins
        return [
            Op("audio_tower.conv1", "conv", ((own, 3 * bins), (own,))),
            Op("audio_tower.conv2", "conv", ((own, 3 * own), (own,))),
        ]

    def placed(self) -> list[Op]:
        """The table of positions, a parameter that is not trained."""
        shape = self.max_source_positions, self.d_model
        return [Op("audio_tower.embed_positions", "embedding", (shape,))]

    def blocks(self, biases: int = 3) -> list[Op]:
        """The blocks, whose keys have no bias."""
        layers, inner = self.encoder_layers, self.encoder_ffn_dim
        return encoder("audio_tower.layers", layers, self.d_model, inner, biases=biases)


def _norm(name: str, width: int) -> Op:
    return Op(f"audio_tower.{name}", "layer_norm", ((2, width),))


class Qwen2Audio(Whisper, frozen=True):
    """Whisper's encoder as Qwen2-Audio uses it: one linear layer projects."""

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """The tower's ops and the projector's."""
        head = dense("multi_modal_projector.linear", self.d_model, width)
        return [*super().ops(width, whole), head]


class Voxtral(Tower, frozen=True):
    """Keys of transformers' VoxtralEncoderConfig: Whisper's encoder under other names."""

    num_mel_bins: int = 128
    num_hidden_layers: int = 32
    intermediate_size: int = 5120
    hidden_size: int = 1280
    max_source_positions: int = 1500

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """The tower's ops, and a projector that reads neighbouring frames together."""
        inner, places = self.intermediate_size, self.max_source_positions
        bins, layers = self.num_mel_bins, self.num_hidden_layers
        same = Whisper(bins, layers, inner, self.hidden_size, places)
        return [
            *same.ops(width, whole),
            dense("multi_modal_projector.linear_1", inner, width, bias=False),
            dense("multi_modal_projector.linear_2", width, width, bias=False),
        ]


class Qwen25Omni(Whisper, frozen=True):
    """Whisper's encoder as Qwen2.5-Omni uses it."""

    output_dim: int = 3584

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """The tower's ops, begin and end of audio, and the projector."""
        own, out = self.d_model, self.output_dim
        ends = Op("audio_tower.audio_bos_eos_token", "embedding", ((2, out),))
        head = dense("audio_tower.proj", own, out)
        return [*self.convolved(), *self.blocks(), _norm("ln_post", own), ends, head]


class Qwen3Omni(Whisper, frozen=True):
    """Keys of transformers' Qwen3OmniMoeAudioEncoderConfig: three convolutions over images."""

    output_dim: int = 3584
    downsample_hidden_size: int = 480

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """The convolutions, blocks, norm, and the projector."""
        own, inner, rows = self.d_model, self.downsample_hidden_size, self.num_mel_bins
        for _ in range(3):
            rows = (rows + 1) // 2
        convs = [
            Op(f"audio_tower.conv2d{i + 1}", "conv", ((inner, 9 * before), (inner,)))
            for i, before in enumerate((1, inner, inner))
        ]
        return [
            *convs,
            dense("audio_tower.conv_out", inner * rows, own, bias=False),
            *self.blocks(biases=4),
            _norm("ln_post", own),
            dense("audio_tower.proj1", own, own),
            dense("audio_tower.proj2", own, self.output_dim),
        ]


def conformer(layers: int, width: int, heads: int, kernel: int) -> list[Op]:
    """The blocks of Gemma's audio encoder: two MLPs, relative attention, a gated convolution."""
    name = "audio_tower.layers"
    return [
        Op(f"{name}.ffw", "linear", ((layers, 16 * width, width),)),
        Op(f"{name}.attention", "linear", ((layers, 5 * width, width), (layers, width // heads))),
        Op(f"{name}.lconv1d", "linear", ((layers, 3 * width, width), (layers, kernel * width))),
        Op(f"{name}.norms", "rms_norm", ((layers, 9 * width),)),
    ]


def subsampled(channels: list[int], rows: int, width: int) -> list[Op]:
    """Two convolutions of 3 x 3 that halve the spectrogram's sides, their norms, a linear layer."""
    first, second = channels[0], channels[-1]
    name = "audio_tower.subsample_conv_projection"
    return [
        Op(f"{name}.conv", "conv", ((first, 9), (second, 9 * first))),
        Op(f"{name}.norm", "layer_norm", ((first,), (second,))),
        dense(f"{name}.input_proj_linear", second * rows, width, bias=False),
    ]


class Gemma3nAudio(Tower, frozen=True):
    """Keys of transformers' Gemma3nAudioConfig."""

    vocab_size: int = 128
    input_feat_size: int = 128
    hidden_size: int = 1536
    conf_num_attention_heads: int = 8
    conf_num_hidden_layers: int = 12
    conf_conv_kernel_size: int = 5
    sscp_conv_channel_size: list[int] = msgspec.field(default_factory=lambda: [128, 32])

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """Convolutions, blocks, and the embedder of tokens and of frames."""
        own, rows, heads = self.hidden_size, self.input_feat_size, self.conf_num_attention_heads
        for _ in range(2):
            rows = (rows - 1) // 2 + 1
        return [
            *subsampled(self.sscp_conv_channel_size, rows, own),
            *conformer(self.conf_num_hidden_layers, own, heads, self.conf_conv_kernel_size),
            *embedder("embed_audio", self.vocab_size, own, width),
        ]


def embedder(name: str, vocabulary: int, own: int, width: int) -> list[Op]:
    """Gemma 3n's embedder of a tower's own tokens and of its output."""
    return [
        Op(f"{name}.embedding", "embedding", ((vocabulary, own),)),
        Op(f"{name}.norms", "rms_norm", ((2, own),)),
        dense(f"{name}.embedding_projection", own, width, bias=False),
    ]


class Gemma3nVision(Tower, frozen=True):
    """Keys of transformers' Gemma3nVisionConfig: a MobileNet of timm."""

    architecture: str = "mobilenetv5_300m_enc"
    vocab_size: int = 128
    hidden_size: int = 2048

    def __post_init__(self) -> None:
        if self.architecture != "mobilenetv5_300m_enc":
            raise ValueError("architecture: only mobilenetv5_300m_enc is known")

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """The net and the embedder."""
        net = Op("vision_tower.timm_model", "conv", ((MOBILENET_V5,),))
        return [net, *embedder("embed_vision", self.vocab_size, self.hidden_size, width)]


class Gemma4Audio(Tower, frozen=True):
    """Keys of transformers' Gemma4AudioConfig."""

    hidden_size: int = 1024
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    conv_kernel_size: int = 5
    subsampling_conv_channels: list[int] = msgspec.field(default_factory=lambda: [128, 32])
    output_proj_dims: int = 1536

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """Convolutions, blocks, and two projections."""
        own, channels, out = self.hidden_size, self.subsampling_conv_channels, self.output_proj_dims
        kernel, heads = self.conv_kernel_size, self.num_attention_heads
        return [
            *subsampled(channels, channels[0] // 4, own),
            *conformer(self.num_hidden_layers, own, heads, kernel),
            dense("audio_tower.output_proj", own, out),
            dense("embed_audio.embedding_projection", out, width, bias=False),
        ]


class Gemma4Vision(Tower, frozen=True):
    """Keys of transformers' Gemma4VisionConfig."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 16
    num_attention_heads: int = 12
    num_key_value_heads: int = 12
    head_dim: int = 64
    patch_size: int = 16
    position_embedding_size: int = 10 * 1024

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """Patches, positions of both axes, blocks, and the projection."""
        own, inner, layers = self.hidden_size, self.intermediate_size, self.num_hidden_layers
        dim, name = self.head_dim, "vision_tower.layers"
        heads = 2 * self.num_attention_heads + 2 * self.num_key_value_heads
        return [
            dense("vision_tower.patch_embedder", 3 * area(self.patch_size), own, bias=False),
            Op("vision_tower.positions", "embedding", ((2, self.position_embedding_size, own),)),
            Op(f"{name}.attention", "linear", ((layers, heads * dim, own),)),
            Op(f"{name}.mlp", "linear", ((layers, 3 * inner, own),)),
            Op(f"{name}.norms", "rms_norm", ((layers, 4 * own), (layers, 2 * dim))),
            dense("embed_vision.embedding_projection", own, width, bias=False),
        ]


class Phi4Vision(Siglip, frozen=True):
    """SigLIP as Phi-4-multimodal uses it: two linear layers project, two vectors part images."""

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    image_size: int | list[int] = 448
    patch_size: int | list[int] = 14

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """The tower's ops and the projector's."""
        own = self.hidden_size
        return [
            *super().ops(width, whole),
            dense("image_embed.img_projection_up", own, width),
            dense("image_embed.img_projection_down", width, width),
            Op("image_embed.feature_extensors", "embedding", ((2, own),)),
        ]


class Phi4Audio(Tower, frozen=True):
    """Keys of transformers' Phi4MultimodalAudioConfig: conformer blocks."""

    hidden_size: int = 1024
    intermediate_size: int = 1536
    num_blocks: int = 24
    num_attention_heads: int = 16
    ext_pw_out_channel: int = 1024
    depthwise_separable_out_channel: int = 1024
    depthwise_multiplier: int = 1
    kernel_size: int = 3
    input_size: int = 80
    time_reduction: int = 8
    nemo_conv_channels: int = 1024
    bias_max_distance: int = 1000
    bias_symmetric: bool = False

    def ops(self, width: int, whole: Mapping[str, Any]) -> list[Op]:
        """Convolutions, blocks, biases of distances, and projections for speech and for both."""
        own, channels = self.hidden_size, self.nemo_conv_channels
        rows, halvings = self.input_size, max(self.time_reduction.bit_length() - 1, 1)
        for _ in range(halvings):
            rows = (rows - 1) // 2 + 1
        deeper = halvings - 1
        distances = self.bias_max_distance * (1 if self.bias_symmetric else 2)
        name = "audio_embed.encoder"
        more = ((deeper, 9 * channels + channels), (deeper, channels, channels), (deeper, channels))
        return [
            Op(f"{name}.embed.conv", "conv", ((channels, 9), (channels,), *more)),
            dense(f"{name}.embed.out", channels * rows, own),
            Op(f"{name}.relative_attention_bias", "embedding",
               ((distances, self.num_attention_heads),)),
            *self.blocks(name),
            *(
                op
                for kind in ("speech", "vision_speech")
                for op in (
                    dense(f"audio_embed.up_proj_for_{kind}", own, width),
                    dense(f"audio_embed.down_proj_for_{kind}", width, width),
                )
            ),
        ]  # fmt: skip

    def blocks(self, name: str) -> list[Op]:
        """Two MLPs, attention, and a gated separable convolution, each with a norm."""
        layers, own, inner = self.num_blocks, self.hidden_size, self.intermediate_size
        outer, mixed = self.ext_pw_out_channel, self.depthwise_separable_out_channel
        deep = own * self.depthwise_multiplier
        return [
            Op(f"{name}.mlp", "linear",
               ((2 * layers, 3 * inner, own), (2 * layers, 2 * inner + own))),
            Op(f"{name}.attention", "linear", ((layers, 4 * own, own), (layers, 4 * own))),
            Op(f"{name}.conv.pointwise", "conv",
               ((layers, 2 * outer, own), (layers, 2 * outer), (layers, 2 * outer),
                (layers, mixed, deep), (layers, mixed), (layers, outer, own), (layers, outer))),
            Op(f"{name}.conv.depthwise", "conv",
               ((layers, self.kernel_size * deep), (layers, deep))),
            Op(f"{name}.norms", "layer_norm", ((layers, 10 * own),)),
        ]  # fmt: skip
