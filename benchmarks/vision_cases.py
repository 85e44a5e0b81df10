"""The cases of vision_counts.py, and how each module is built and called."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import vision_nets

CONFIGS = Path(__file__).parents[1] / "simulator" / "models" / "configs"
# text tokens of the denoisers: what their pipelines pad a prompt to
TEXT = {"SD3Transformer2DModel": 333, "FluxTransformer2DModel": 512}
FRAMES = 21  # latent frames of a clip
Called = tuple[torch.nn.Module, list[Any], Callable[[], Any]]


def small(name: str, **keys: Any) -> str:
    """A configuration of ours as one string."""
    return json.dumps({"_class_name" if name[0].isupper() else "model_type": name, **keys})


def quiet(name: str) -> str:
    """The configuration of a shipped name without dropout, as one string."""
    return json.dumps(json.loads((CONFIGS / f"{name}.json").read_text()) | QUIET)


def called(raw: dict[str, Any], batch: int, size: int, dtype: Any, attention: str) -> Called:
    """The module of a configuration, its inputs, and a function that returns the loss."""
    if "_class_name" in raw:
        return denoiser(raw, batch, size, dtype)
    import vision_encoders

    return vision_encoders.called(raw, batch, size, dtype, attention)


def denoiser(raw: dict[str, Any], batch: int, size: int, dtype: Any) -> Called:
    """A module of diffusers and its mean square error, on images of side `size` [pixels]."""
    import diffusers

    kind = raw["_class_name"]
    keys = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items() if k[0] != "_"}
    model = getattr(diffusers, kind)(**keys).to(dtype)
    c = model.config
    if kind == "AutoencoderKL":
        x = torch.empty(batch, c.in_channels, size, size, dtype=dtype)
        return model, [x], lambda: F.mse_loss(model(x, sample_posterior=True).sample, x)
    size //= 8
    if kind in ("FluxTransformer2DModel", "QwenImageTransformer2DModel"):
        x = torch.empty(batch, (size // 2) ** 2, c.in_channels, dtype=dtype)
    elif kind == "WanTransformer3DModel":
        x = torch.empty(batch, c.in_channels, FRAMES, size, size, dtype=dtype)
    else:
        x = torch.empty(batch, c.in_channels, size, size, dtype=dtype)
    time = torch.empty(batch, dtype=torch.int64)
    given = {"timestep": time, **conditions(kind, c, batch, x, dtype)}
    inputs = [x, *(v for v in given.values() if isinstance(v, torch.Tensor))]
    inputs += [v for d in given.values() if isinstance(d, dict) for v in d.values()]
    inputs = [x for x in inputs if x is not None]
    out = getattr(c, "out_channels", None) or c.in_channels
    target = torch.empty(x.shape if x.dim() == 3 else (batch, out, *x.shape[2:]), dtype=dtype)
    return model, [*inputs, target], lambda: F.mse_loss(model(x, **given).sample, target)


def conditions(kind: str, c: Any, batch: int, x: Any, dtype: Any) -> dict[str, Any]:
    """What a denoiser reads beside the latents and the time step."""
    empty = torch.empty
    if kind == "UNet2DConditionModel":
        width = c.cross_attention_dim
        width = width if isinstance(width, int) else width[0]
        given = {"encoder_hidden_states": empty(batch, 77, width, dtype=dtype)}
        if c.addition_embed_type == "text_time":
            pooled = c.projection_class_embeddings_input_dim - 6 * c.addition_time_embed_dim
            given["added_cond_kwargs"] = {
                "text_embeds": empty(batch, pooled, dtype=dtype),
                "time_ids": empty(batch, 6, dtype=dtype),
            }
        if c.num_class_embeds:
            given["class_labels"] = empty(batch, dtype=torch.int64)
        return given
    if kind == "DiTTransformer2DModel":
        return {"class_labels": empty(batch, dtype=torch.int64)}
    if kind == "WanTransformer3DModel":
        return {"encoder_hidden_states": empty(batch, 512, c.text_dim, dtype=dtype)}
    if kind == "QwenImageTransformer2DModel":
        side = math.isqrt(x.shape[1])
        return {
            "encoder_hidden_states": empty(batch, 512, c.joint_attention_dim, dtype=dtype),
            "img_shapes": [(1, side, side)] * batch,
        }
    if kind == "PixArtTransformer2DModel":
        tokens = 300 if c.use_additional_conditions is False else 120
        width = c.caption_channels or c.cross_attention_dim
        sized = c.use_additional_conditions or c.sample_size == 128
        sized = sized and c.use_additional_conditions is not False
        return {
            "encoder_hidden_states": empty(batch, tokens, width, dtype=dtype),
            "encoder_attention_mask": empty(batch, tokens, dtype=dtype),
            "added_cond_kwargs": {
                "resolution": empty(batch, 2, dtype=dtype) if sized else None,
                "aspect_ratio": empty(batch, 1, dtype=dtype) if sized else None,
            },
        }
    given = {
        "encoder_hidden_states": empty(batch, TEXT[kind], c.joint_attention_dim, dtype=dtype),
        "pooled_projections": empty(batch, c.pooled_projection_dim, dtype=dtype),
    }
    if kind == "FluxTransformer2DModel":
        given["img_ids"] = empty(x.shape[1], 3, dtype=dtype)
        given["txt_ids"] = empty(TEXT[kind], 3, dtype=dtype)
        given["guidance"] = empty(batch, dtype=dtype) if c.guidance_embeds else None
    return given


SMALL_UNET = small(
    "UNet2DConditionModel",
    sample_size=16,
    block_out_channels=[32, 64],
    down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
    up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
    layers_per_block=1,
    cross_attention_dim=48,
    attention_head_dim=4,
    norm_num_groups=8,
    num_class_embeds=10,
)
SMALL_SD3 = small(
    "SD3Transformer2DModel",
    sample_size=16,
    num_layers=3,
    attention_head_dim=16,
    num_attention_heads=4,
    joint_attention_dim=48,
    caption_projection_dim=64,
    pooled_projection_dim=32,
    pos_embed_max_size=24,
    dual_attention_layers=[0],
    qk_norm="rms_norm",
)
SMALL_FLUX = small(
    "FluxTransformer2DModel",
    num_layers=2,
    num_single_layers=2,
    attention_head_dim=16,
    num_attention_heads=4,
    joint_attention_dim=48,
    pooled_projection_dim=32,
    axes_dims_rope=[4, 6, 6],
    in_channels=16,
)
SMALL_DIT = small(
    "DiTTransformer2DModel",
    sample_size=8,
    num_layers=2,
    attention_head_dim=16,
    num_attention_heads=4,
)
NARROW = dict(
    sample_size=16, num_layers=3, attention_head_dim=12, num_attention_heads=4,
    cross_attention_dim=48, caption_channels=40,
)  # fmt: skip
SMALL_ALPHA = small("PixArtTransformer2DModel", use_additional_conditions=True, **NARROW)
SMALL_SIGMA = small("PixArtTransformer2DModel", use_additional_conditions=False, **NARROW)
SMALL_WAN = small(
    "WanTransformer3DModel", num_layers=2, attention_head_dim=24, num_attention_heads=4,
    text_dim=40, ffn_dim=112, freq_dim=32,
)  # fmt: skip
SMALL_QWEN = small(
    "QwenImageTransformer2DModel", num_layers=2, attention_head_dim=16, num_attention_heads=4,
    joint_attention_dim=48, axes_dims_rope=[4, 6, 6], in_channels=16, out_channels=4,
)  # fmt: skip
SMALL_VAE = small(
    "AutoencoderKL",
    sample_size=32,
    block_out_channels=[16, 32],
    down_block_types=["DownEncoderBlock2D"] * 2,
    up_block_types=["UpDecoderBlock2D"] * 2,
    norm_num_groups=8,
    use_quant_conv=False,
    use_post_quant_conv=False,
)
DENOISERS = (
    ("sd-1.5-unet", 512),
    ("sd-2.1-unet", 768),
    ("sdxl-unet", 1024),
    ("sd3-medium", 1024),
    ("sd3.5-medium", 512),
    ("sd3.5-large", 1024),
    ("flux-dev", 1024),
    ("dit-xl-2", 256),
    ("sd-vae", 256),
    (SMALL_UNET, 128),
    (SMALL_SD3, 128),
    (SMALL_FLUX, 64),
    (SMALL_DIT, 64),
    (SMALL_VAE, 32),
    ("pixart-alpha-1024", 1024),
    (SMALL_WAN, 64),
    ("wan2.1-t2v-1.3b", 480),
    (SMALL_QWEN, 64),
    ("qwen-image", 1328),
    (SMALL_ALPHA, 128),
    (SMALL_SIGMA, 128),
)
CASES: list[tuple[str, int, int, str, str]] = []
for _model, _size in DENOISERS:
    CASES += [(_model, 2, _size, "bf16", "flash"), (_model, 1, _size, "fp32", "efficient")]

QUIET = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
SILENT = dict.fromkeys(
    "hidden_dropout activation_dropout attention_dropout feat_proj_dropout".split(), 0.0
)
SIZES = dict(hidden_size=64, num_attention_heads=4, intermediate_size=96)
TINY = dict(vocab_size=100, pad_token_id=0, **SIZES, **QUIET)
ENCODERS = (
    (small("modernbert", num_hidden_layers=4, local_attention=16, **TINY), 48),
    (small("albert", num_hidden_layers=4, embedding_size=32, **TINY), 48),
    (
        small(
            "albert", num_hidden_layers=4, num_hidden_groups=2, embedding_size=32,
            hidden_act="gelu", **TINY,
        ),
        48,
    ),
    (small("mpnet", num_hidden_layers=2, **TINY), 48),
    (
        small(
            "deberta-v2", num_hidden_layers=2, relative_attention=True, position_buckets=16,
            pos_att_type=["p2c", "c2p"], share_att_key=True, norm_rel_ebd="layer_norm",
            position_biased_input=False, type_vocab_size=0, **TINY,
        ),
        48,
    ),
    (
        small(
            "deberta-v2", num_hidden_layers=2, relative_attention=True, pos_att_type=["c2p"],
            conv_kernel_size=3, conv_act="gelu", type_vocab_size=2, **TINY,
        ),
        48,
    ),
    (small("dinov2", num_hidden_layers=2, image_size=28, **SIZES), 28),
    (small("dinov2", num_hidden_layers=2, image_size=28, use_swiglu_ffn=True, **SIZES), 56),
    (
        small(
            "dinov3_vit", num_hidden_layers=2, image_size=32, num_register_tokens=4,
            use_gated_mlp=True, hidden_act="silu", **SIZES,
        ),
        32,
    ),
    (small("siglip_vision_model", num_hidden_layers=2, image_size=32, **SIZES), 32),
    (small("clip_vision_model", num_hidden_layers=2, image_size=64, **SIZES), 64),
    (
        small(
            "siglip",
            text_config=dict(num_hidden_layers=2, vocab_size=100, **SIZES),
            vision_config=dict(num_hidden_layers=2, image_size=32, **SIZES),
        ),
        24,
    ),
    (small("wav2vec2", num_hidden_layers=2, conv_dim=[16] * 7, **SIZES, **SILENT), 4000),
    (
        small(
            "hubert", num_hidden_layers=2, conv_dim=[16] * 7, feat_extract_norm="layer",
            do_stable_layer_norm=True, conv_bias=True, **SIZES, **SILENT,
        ),
        4000,
    ),
    ("dinov2-base", 224),
    ("dinov3-vitb16", 224),
    ("siglip-base-patch16-224", 64),
    ("modernbert-base", 1024),
    (quiet("deberta-v3-base"), 512),
    ("albert-base", 512),
)  # fmt: skip
for _model, _size in ENCODERS:
    CASES += [(_model, 2, _size, "bf16", "flash"), (_model, 1, _size, "fp32", "efficient")]
    CASES += [(_model, 2, _size, "bf16", "eager")]
for _model, _size in vision_nets.SMALL:
    CASES += [(_model, 2, _size, "bf16", "flash"), (_model, 1, _size, "fp32", "efficient")]
    CASES += [(_model, 2, _size, "bf16", "eager")]
for _model, _size in vision_nets.NAMED:
    CASES += [(_model, 2, _size, "bf16", "flash"), (_model, 1, _size, "fp32", "efficient")]
