"""Nets of transformers and diffusers for images: sizes, modes, layouts and refusals of SAM, DETR,
SegFormer, masked autoencoders, ResNet, ConvNeXt, PixArt, Wan and Qwen-Image. Their
counts:
test_vision_families.py.
"""

from __future__ import annotations

import pytest

from roofcast import predict
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models import resolve
from roofcast.simulator.models.catalog import from_config
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape

PARAMETERS = {  # of transformers' and diffusers' modules on the meta device
    "sam-vit-base": 93_735_728,
    "sam-vit-large": 312_343_088,
    "sam-vit-huge": 641_090_864,
    "detr-resnet-50": 41_524_768,
    "detr-resnet-101": 60_464_672,
    "segformer-b0": 3_752_694,
    "segformer-b1": 13_715_798,
    "segformer-b2": 27_461_974,
    "segformer-b3": 47_337_814,
    "segformer-b4": 64_108_374,
    "segformer-b5": 84_708_694,
    "vit-mae-base": 111_907_840,
    "vit-mae-large": 329_541_888,
    "vit-mae-huge": 657_074_508,
    "convnextv2-nano": 15_623_800,
    "convnextv2-tiny": 28_635_496,
    "convnextv2-base": 88_717_800,
    "convnextv2-large": 197_956_840,
    "convnextv2-huge": 660_289_640,
    "pixart-alpha-1024": 611_349_152,
    "pixart-alpha-512": 610_856_096,
    "pixart-sigma-1024": 610_856_096,
    "wan2.1-t2v-1.3b": 1_418_996_800,
    "wan2.1-t2v-14b": 14_288_491_584,
    "qwen-image": 20_430_401_088,
    "depth-anything-v2-small": 24_785_089,
    "depth-anything-v2-base": 97_470_785,
    "depth-anything-v2-large": 335_315_649,
}
PUBLISHED = {  # millions, as printed
    "segformer-b0": (3.8, "Xie et al. 2021, Table 1"),
    "segformer-b1": (13.7, "Xie et al. 2021, Table 1"),
    "segformer-b2": (27.5, "Xie et al. 2021, Table 1"),
    "segformer-b3": (47.3, "Xie et al. 2021, Table 1"),
    "segformer-b4": (64.1, "Xie et al. 2021, Table 1"),
    "segformer-b5": (84.7, "Xie et al. 2021, Table 1"),
    "convnextv2-tiny": (28.6, "Woo et al. 2023, Table 5"),
    "detr-resnet-50": (41, "Carion et al. 2020, Table 1"),
    "detr-resnet-101": (60, "Carion et al. 2020, Table 1"),
}
NAMES = (
    "sam-vit-base", "detr-resnet-50", "segformer-b0", "vit-mae-base", "convnextv2-tiny",
    "pixart-alpha-512", "wan2.1-t2v-1.3b", "qwen-image",
    "depth-anything-v2-small",
)  # fmt: skip


def _parameters(model):
    tape = model.run(Tape(precision("bf16")), 1, model.size)
    return sum(w.size * w.count for w in tape.weights)


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_parameters_equal_those_of_the_module(name, parameters):
    assert _parameters(resolve(name)) == parameters


@pytest.mark.parametrize(("name", "printed"), PUBLISHED.items())
def test_parameters_are_the_published_ones(name, printed):
    millions, _ = printed
    digit = 0.1 if millions % 1 else 1
    assert _parameters(resolve(name)) / 1e6 == pytest.approx(millions, abs=digit)


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("facebook/sam-vit-huge", "sam-vit-huge"),
        ("facebook/detr-resnet-50", "detr-resnet-50"),
        ("nvidia/segformer-b5-finetuned-ade-640-640", "segformer-b5"),
        ("facebook/vit-mae-large", "vit-mae-large"),
        ("facebook/convnextv2-tiny-1k-224", "convnextv2-tiny"),
        ("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", "pixart-sigma-1024"),
    ],
)
def test_a_hub_id_is_found(reference, name):
    assert resolve(reference).name == name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "how",
    [
        {"precision": "amp-bf16"},
        {"mode": "infer"},
        {"recompute": "full"},
        {"recompute": "uniform:2"},
        {"recompute": "every:2"},
        {"recompute": "block:1"},
        {"dp": 8, "zero": 3},
    ],
    ids=str,
)
def test_each_trains_infers_recomputes_and_is_sharded(name, how):
    forecast = predict(model=name, device="h100-sxm5", batch=8, **how)
    assert 0 < forecast.lower_bound_s <= forecast.step_time_s
    assert 0 < forecast.mfu < 1


@pytest.mark.parametrize("name", NAMES)
def test_recomputation_saves_memory_and_costs_time(name):
    kept, again = (
        predict(model=name, device="h100-sxm5", batch=64, recompute=how) for how in ("none", "full")
    )
    assert again.memory.peak_bytes < kept.memory.peak_bytes
    assert again.step_time_s > kept.step_time_s


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", [{"tp": 2}, {"pp": 2}, {"cp": 2}], ids=str)
def test_a_cut_of_the_model_is_refused_in_one_line(name, how):
    with pytest.raises(BadInput, match="data-parallel and sharded") as error:
        predict(model=name, device="h100-sxm5", batch=8, **how)
    assert "\n" not in str(error.value)


def test_a_masked_autoencoder_encodes_a_quarter_of_the_patches():
    forecast = predict(model="vit-mae-large", device="h100-sxm5", batch=64)
    whole = from_config("x", {"model_type": "vit_mae", "mask_ratio": 0.0})
    masked = from_config("x", {"model_type": "vit_mae"})
    encoder = [
        sum(
            k.matrix * k.count
            for k in tape.kernels
            if k.phase == "forward" and ".layers." in tape.nodes[k.node].name and k.kind == "matmul"
        )
        for tape in (m.run(Tape(precision("bf16")), 1, 224) for m in (whole, masked))
    ]
    assert encoder[1] / encoder[0] == pytest.approx((49 + 1) / (196 + 1))
    assert forecast.step_time_s > 0


def test_most_layers_of_sam_attend_within_windows():
    tape = resolve("sam-vit-base").run(Tape(precision("bf16")), 1, 1024)
    scores = {}
    for k in tape.kernels:
        if k.kind == "attention" and k.phase == "forward" and "vision" in tape.nodes[k.node].name:
            _, _, _, queries, keys, *_ = k.shape
            scores[queries, keys] = scores.get((queries, keys), 0) + k.count
    assert scores == {(14 * 14, 14 * 14): 8, (64 * 64, 64 * 64): 4}


def test_a_dilated_detr_has_four_times_the_tokens_and_no_more_parameters():
    plain, dilated = (
        from_config("x", {"model_type": "detr", "backbone": "resnet50", "dilation": dilation})
        for dilation in (False, True)
    )
    assert _parameters(plain) == _parameters(dilated)
    sizes = []
    for model in (plain, dilated):
        tape = model.run(Tape(precision("bf16")), 1, 800)
        sizes += [k.shape[3] for k in tape.kernels if k.kind == "attention"][:1]
    assert sizes == [25 * 25, 50 * 50]


def test_an_older_class_name_of_diffusers_is_told_by_its_norm():
    old = {"_class_name": "Transformer2DModel", "caption_channels": 4096}
    new = {"_class_name": "PixArtTransformer2DModel", "caption_channels": 4096}
    assert _parameters(from_config("x", {**old, "norm_type": "ada_norm_single"})) == _parameters(
        from_config("x", new)
    )
    with pytest.raises(BadInput, match="'Transformer2DModel' is not known"):
        from_config("x", {**old, "norm_type": ["ada_norm_single"]})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sam-vit-base", "one box per image"),
        ("detr-resnet-50", "the generalized IoU, are not counted"),
        ("pixart-sigma-1024", "300 text tokens"),
        ("pixart-alpha-1024", "120 text tokens"),
        ("wan2.1-t2v-1.3b", "81 frames of 624x624 are latents of 21x78x78"),
    ],
)
def test_what_is_not_modeled_is_said(name, said):
    forecast = predict(model=name, device="h100-sxm5", batch=1)
    assert any(said in text for text in forecast.assumptions)


FREE = {
    "sam": {"tie_word_embeddings": True, "initializer_range": 0.02},
    "sam_vision_model": {"scale": 384, "layer_norm_eps": 1e-6},
    "segformer": {"image_size": 224, "downsampling_rates": [1, 4, 8, 16]},
    "detr": {"class_cost": 1, "giou_loss_coefficient": 2, "init_xavier_std": 1.0},
    "resnet": {"stage_names": ["stem", "stage1"], "out_features": ["stage4"]},
    "convnext": {"out_indices": [4], "layer_norm_eps": 1e-12},
}


@pytest.mark.parametrize(("kind", "keys"), FREE.items())
def test_keys_that_cost_nothing_are_not_listed(kind, keys):
    for more, listed in (({}, False), ({"auxiliary_thing": 3}, True)):
        model = from_config("x", {"model_type": kind, **keys, **more})
        tape = model.run(Tape(precision("bf16")), 1, model.size)
        assert any("auxiliary_thing" in text for text in tape.assumptions) is listed
        assert not any(key in text for text in tape.assumptions for key in keys)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"model_type": "sam", "vision_config": {"image_size": 512}}, "image_size and patch_size"),
        ({"model_type": "sam", "vision_config": {"output_channels": 64}}, "must be equal"),
        ({"model_type": "sam", "vision_config": {"num_attention_heads": 7}}, "not divisible by 7"),
        ({"model_type": "sam", "mask_decoder_config": {"num_attention_heads": 3}}, "3 heads of"),
        (
            {"model_type": "detr", "backbone": "vgg16"},
            "backbone 'vgg16' is not modeled; known: res",
        ),
        (
            {"model_type": "detr", "backbone_config": {"model_type": "swin"}},
            "backbone 'swin' is not modeled",
        ),
        ({"model_type": "detr", "backbone_config": {"model_type": []}}, "model_type"),
        ({"model_type": "detr", "d_model": 250}, "d_model .250. is not divisible by encoder"),
        ({"model_type": "detr", "position_embedding_type": "learned"}, "'learned' is not modeled"),
        ({"model_type": "detr", "num_queries": 0}, "num_queries is 0"),
        ({"model_type": "segformer", "depths": [1, 2]}, "depths has 2 entries; num_encoder_blocks"),
        ({"model_type": "segformer", "strides": [4, 0, 2, 2]}, "strides is 0"),
        ({"model_type": "segformer", "hidden_sizes": [33, 64, 160, 255]}, "not divisible by 8"),
        ({"model_type": "vit_mae", "mask_ratio": 1.0}, "mask_ratio is 1; it must be"),
        ({"model_type": "vit_mae", "decoder_num_attention_heads": 5}, "not divisible by 5 heads"),
        ({"model_type": "vit_mae", "patch_size": 15}, "divisible by 15"),
        ({"model_type": "resnet", "layer_type": "wide"}, "layer_type 'wide' is not modeled"),
        ({"model_type": "resnet", "depths": [1, 2]}, "depths has 2 entries and hidden_sizes 4"),
        ({"model_type": "convnext", "num_stages": 3}, "depths has 4 entries; num_stages is 3"),
        ({"model_type": "convnextv2", "hidden_sizes": [0, 1, 2, 3]}, "hidden_sizes is 0"),
        (
            {"model_type": "depth_anything", "reassemble_factors": [4, 2, 1]},
            "4 maps of the backbone, 3",
        ),
        (
            {"model_type": "depth_anything", "reassemble_factors": [4, 2, 1, 0.3]},
            "0.3 must be a whole",
        ),
        ({"model_type": "depth_anything", "patch_size": 16}, "must be those of backbone_config"),
        (
            {"model_type": "depth_anything", "backbone_config": {"out_indices": [3, 13]}},
            "must be layers from 1 to 12",
        ),
        ({"_class_name": "PixArtTransformer2DModel", "norm_type": "ada_norm"}, "norm_type"),
        (
            {"_class_name": "WanTransformer3DModel", "image_dim": 1280},
            "image_dim '1280' is not mod",
        ),
        ({"_class_name": "WanTransformer3DModel", "patch_size": [1, 2]}, "patch_size"),
        ({"_class_name": "QwenImageTransformer2DModel", "zero_cond_t": True}, "zero_cond_t 'True'"),
        ({"_class_name": "QwenImageTransformer2DModel", "attention_head_dim": 64}, "add up to 64"),
        ({"_class_name": "WanTransformer3DModel", "attention_head_dim": 7}, "must be even"),
        (
            {
                "_class_name": "PixArtTransformer2DModel",
                "caption_channels": 8,
                "cross_attention_dim": 9,
            },
            "cross_attention_dim .9. must be",
        ),
    ],
    ids=str,
)
def test_a_configuration_that_does_not_fit_is_refused_in_one_line(raw, message):
    with pytest.raises(BadInput, match=message) as error:
        model = from_config("x", raw, "config.json")
        model.run(Tape(precision("bf16")), 1, model.size)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("sam-vit-base", 512, "this SAM takes 1024x1024"),
        ("segformer-b0", 16, "use larger images"),
        ("vit-mae-base", 100, "use a side divisible by 16"),
        ("depth-anything-v2-small", 100, "use a side divisible by 14"),
        ("convnextv2-tiny", 8, "larger images"),
        ("pixart-alpha-512", 100, "divisible by 16"),
        ("wan2.1-t2v-1.3b", 100, "divisible by 16"),
    ],
)
def test_an_image_that_does_not_fit_is_refused(name, size, message):
    with pytest.raises(BadInput, match=message):
        resolve(name).run(Tape(precision("bf16")), 1, size)
