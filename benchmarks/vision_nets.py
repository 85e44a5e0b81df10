"""How vision_counts.py builds and calls the nets of transformers for images, and their cases:
classification, segmentation, detection and masked pre-training.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from vision_encoders import Called, built

CONFIGS = Path(__file__).parents[1] / "simulator" / "models" / "configs"
Net = Callable[[Any, Any, str, int, int, Any], Called]


def images(config: Any, batch: int, size: int, dtype: Any) -> Any:
    """A batch of square images."""
    return torch.empty(batch, getattr(config, "num_channels", 3), size, size, dtype=dtype)


def classifier(kind: Any, config: Any, how: str, batch: int, size: int, dtype: Any) -> Called:
    """A classifier of images and its cross-entropy."""
    model = built(kind, config, how, dtype)
    x, labels = images(config, batch, size, dtype), torch.empty(batch, dtype=torch.int64)
    return model, [x, labels], lambda: model(pixel_values=x, labels=labels).loss


def segmenter(kind: Any, config: Any, how: str, batch: int, size: int, dtype: Any) -> Called:
    """A net that classifies each pixel, and its cross-entropy."""
    model = built(kind, config, how, dtype)
    x = images(config, batch, size, dtype)
    labels = torch.empty(batch, size, size, dtype=torch.int64)
    return model, [x, labels], lambda: model(pixel_values=x, labels=labels).loss


def masked(kind: Any, config: Any, how: str, batch: int, size: int, dtype: Any) -> Called:
    """A masked autoencoder with the square error of the hidden patches."""
    config.image_size = size
    model = built(kind, config, how, dtype)
    x = images(config, batch, size, dtype)
    return model, [x], lambda: model(pixel_values=x).loss


def prompted(kind: Any, config: Any, how: str, batch: int, size: int, dtype: Any) -> Called:
    """SAM with one box per image: the error of its masks and of their scores."""
    model = built(kind, config, how, dtype)
    x = torch.empty(batch, 3, size, size, dtype=dtype)
    boxes = torch.empty(batch, 1, 4, dtype=dtype)
    masks, side = config.mask_decoder_config.num_multimask_outputs, size // 4
    target = torch.empty(batch, 1, masks, side, side, dtype=dtype)
    scores = torch.empty(batch, 1, masks, dtype=dtype)

    def loss() -> Any:
        out = model(pixel_values=x, input_boxes=boxes)
        of_masks = F.binary_cross_entropy_with_logits(out.pred_masks, target)
        return of_masks + F.mse_loss(out.iou_scores, scores)

    return model, [x, boxes, target, scores], loss


def seen(kind: Any, config: Any, how: str, batch: int, size: int, dtype: Any) -> Called:
    """SAM's image encoder alone and the square error of its output."""
    model = built(kind, config, how, dtype)
    x = images(config, batch, size, dtype)
    side = size // config.patch_size
    target = torch.empty(batch, config.output_channels, side, side, dtype=dtype)
    return model, [x, target], lambda: F.mse_loss(model(x).last_hidden_state, target)


def detector(kind: Any, config: Any, how: str, batch: int, size: int, dtype: Any) -> Called:
    """DETR with the errors of all classes and boxes, without the matching."""
    from transformers import masking_utils

    masking_utils._ignore_bidirectional_mask_sdpa = lambda *a, **k: True
    torch.isfinite = lambda x: torch.ones((), dtype=torch.bool, device="cpu")
    config.dropout = 0.0
    model = built(kind, config, how, dtype)
    x, queries = images(config, batch, size, dtype), config.num_queries
    classes = torch.empty(batch, queries, dtype=torch.int64)
    boxes = torch.empty(batch, queries, 4, dtype=dtype)

    def loss() -> Any:
        out = model(pixel_values=x)
        of_classes = F.cross_entropy(out.logits.transpose(1, 2), classes)
        return of_classes + F.l1_loss(out.pred_boxes, boxes)

    return model, [x, classes, boxes], loss


def measured(kind: Any, config: Any, how: str, batch: int, size: int, dtype: Any) -> Called:
    """A net that estimates the depth of each pixel, and its square error."""
    model = built(kind, config, how, dtype)
    x = torch.empty(batch, 3, size, size, dtype=dtype)
    target = torch.empty(batch, size, size, dtype=dtype)
    return model, [x, target], lambda: F.mse_loss(model(x).predicted_depth, target)


NETS: dict[str, tuple[str, Net]] = {
    "beit": ("BeitForImageClassification", classifier),
    "convnext": ("ConvNextForImageClassification", classifier),
    "convnextv2": ("ConvNextV2ForImageClassification", classifier),
    "depth_anything": ("DepthAnythingForDepthEstimation", measured),
    "detr": ("DetrForObjectDetection", detector),
    "resnet": ("ResNetForImageClassification", classifier),
    "sam": ("SamModel", prompted),
    "sam_vision_model": ("SamVisionModel", seen),
    "segformer": ("SegformerForSemanticSegmentation", segmenter),
    "vit_mae": ("ViTMAEForPreTraining", masked),
}


def called(config: Any, how: str, batch: int, size: int, dtype: Any) -> Called | None:
    """The module of a configuration, its inputs and its loss; None for another kind of model."""
    import transformers

    if config.model_type not in NETS:
        return None
    named, call = NETS[config.model_type]
    named = (config.architectures or [named])[0]
    call = classifier if named.endswith("ForImageClassification") else call
    return call(getattr(transformers, named), config, how, batch, size, dtype)


def small(model_type: str, **keys: Any) -> str:
    """A configuration as one string."""
    return json.dumps({"model_type": model_type, **keys})


def quiet(name: str, **keys: Any) -> str:
    """The configuration of a shipped name with other values of some keys, as one string."""
    return json.dumps(json.loads((CONFIGS / f"{name}.json").read_text()) | keys)


SEEN = dict(
    hidden_size=64, output_channels=32, num_hidden_layers=3, num_attention_heads=4, image_size=128,
    window_size=3, global_attn_indexes=[1], num_pos_feats=16, mlp_dim=96,
)  # fmt: skip
QUERIES = dict(
    d_model=64, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4,
    decoder_attention_heads=4, encoder_ffn_dim=96, decoder_ffn_dim=80, num_queries=10,
    num_labels=5, dropout=0.0,
)  # fmt: skip
STAGES = dict(hidden_sizes=[16, 32], depths=[2, 3], num_labels=10)
SMALL = (
    (
        small(
            "segformer", hidden_sizes=[16, 32, 48, 64], decoder_hidden_size=32, num_labels=5,
            num_attention_heads=[1, 2, 3, 4], classifier_dropout_prob=0.0,
        ),
        64,
    ),
    (
        small(
            "segformer", hidden_sizes=[16, 32, 48, 64], num_attention_heads=[1, 2, 3, 4],
            architectures=["SegformerForImageClassification"], num_labels=5, drop_path_rate=0.0,
        ),
        64,
    ),
    (
        small(
            "vit_mae", hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=96, decoder_num_attention_heads=2, decoder_hidden_size=32,
            decoder_num_hidden_layers=2, decoder_intermediate_size=48, image_size=64,
        ),
        64,
    ),
    (small("resnet", embedding_size=16, **STAGES), 64),
    (
        small(
            "resnet", embedding_size=16, layer_type="basic", downsample_in_first_stage=True,
            hidden_sizes=[32, 64], depths=[2, 1], num_labels=10,
        ),
        64,
    ),
    (small("convnext", num_stages=2, drop_path_rate=0.1, **STAGES), 64),
    (small("convnextv2", num_stages=2, drop_path_rate=0.1, **STAGES), 64),
    (small("detr", backbone="resnet18", **QUERIES), 96),
    (small("detr", backbone="resnet18", dilation=True, **QUERIES), 96),
    (
        small(
            "detr", use_timm_backbone=False, **QUERIES,
            backbone_config=dict(
                model_type="resnet", hidden_sizes=[32, 64], depths=[1, 2], out_features=["stage2"]
            ),
        ),
        96,
    ),
    (
        small(
            "depth_anything", reassemble_hidden_size=48, neck_hidden_sizes=[8, 16, 24, 32],
            fusion_hidden_size=20, head_hidden_size=12,
            backbone_config=dict(
                model_type="dinov2", hidden_size=48, num_hidden_layers=5, num_attention_heads=3,
                image_size=70, out_indices=[1, 2, 4, 5], reshape_hidden_states=False,
            ),
        ),
        70,
    ),
    (small("sam_vision_model", **SEEN), 128),
    (
        small(
            "sam", vision_config=SEEN, prompt_encoder_config=dict(hidden_size=32, image_size=128),
            mask_decoder_config=dict(
                hidden_size=32, mlp_dim=48, num_attention_heads=2, iou_head_hidden_dim=40
            ),
        ),
        128,
    ),
)  # fmt: skip
NAMED = (
    (quiet("segformer-b0", classifier_dropout_prob=0.0), 512),
    (quiet("detr-resnet-50", dropout=0.0), 800),
    ("depth-anything-v2-small", 518),
    ("vit-mae-base", 224),
    ("convnextv2-tiny", 224),
    ("sam-vit-base", 1024),
)
