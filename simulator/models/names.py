"""The shipped names: language models are config.json files in configs/, other nets are modules with arguments."""

from typing import Any, NamedTuple


class Shipped(NamedTuple):
    """A config.json that we ship, and where its numbers were read."""

    source: str


class Net(NamedTuple):
    """A net known by name: `module` (under simulator.models) has `build(tape, batch, size, **arguments)`."""

    module: str
    arguments: dict[str, Any]
    takes: str  # image | sequence | table
    size: int | None  # default side of the picture or length of the sequence
    source: str


SHIPPED = {
    "bert-base": Shipped("huggingface.co/google-bert/bert-base-uncased config.json; Devlin et al. 2018, Section 3"),
    "gpt2": Shipped("huggingface.co/openai-community/gpt2 config.json; Radford et al. 2019, Table 2"),
    "llama-3-8b": Shipped("huggingface.co/meta-llama/Meta-Llama-3-8B config.json; Llama team 2024, Table 3"),
}

HE = "He et al. 2015, Table 1"
DOSOVITSKIY = "Dosovitskiy et al. 2020, Table 1"

NETS: dict[str, Net] = {
    "resnet18": Net("vision.resnet", {"block": "basic", "depths": (2, 2, 2, 2)}, "image", 224, HE),
    "resnet34": Net("vision.resnet", {"block": "basic", "depths": (3, 4, 6, 3)}, "image", 224, HE),
    "resnet50": Net("vision.resnet", {"block": "bottleneck", "depths": (3, 4, 6, 3)}, "image", 224, HE),
    "resnet101": Net("vision.resnet", {"block": "bottleneck", "depths": (3, 4, 23, 3)}, "image", 224, HE),
    "resnet152": Net("vision.resnet", {"block": "bottleneck", "depths": (3, 8, 36, 3)}, "image", 224, HE),
    "wide_resnet50_2": Net("vision.resnet", {"block": "bottleneck", "depths": (3, 4, 6, 3), "width": 128}, "image", 224, "Zagoruyko and Komodakis 2016, Section 3.4"),
    "resnext50_32x4d": Net("vision.resnet", {"block": "bottleneck", "depths": (3, 4, 6, 3), "groups": 32, "width": 4}, "image", 224, "Xie et al. 2016, Table 1"),
    "resnext101_32x8d": Net("vision.resnet", {"block": "bottleneck", "depths": (3, 4, 23, 3), "groups": 32, "width": 8}, "image", 224, "Xie et al. 2016, Section 5"),
    "seresnet50": Net("vision.resnet", {"block": "bottleneck", "depths": (3, 4, 6, 3), "excite": 16}, "image", 224, "Hu et al. 2017, Table 1"),
    "vgg11": Net("vision.vgg", {"depths": (1, 1, 2, 2, 2)}, "image", 224, "Simonyan and Zisserman 2014, Table 1, A"),
    "vgg16": Net("vision.vgg", {"depths": (2, 2, 3, 3, 3)}, "image", 224, "Simonyan and Zisserman 2014, Table 1, D"),
    "vgg19": Net("vision.vgg", {"depths": (2, 2, 4, 4, 4)}, "image", 224, "Simonyan and Zisserman 2014, Table 1, E"),
    "vgg16_bn": Net("vision.vgg", {"depths": (2, 2, 3, 3, 3), "normed": True}, "image", 224, "Simonyan and Zisserman 2014, Table 1, D; batch norms as torchvision"),
    "vgg19_bn": Net("vision.vgg", {"depths": (2, 2, 4, 4, 4), "normed": True}, "image", 224, "Simonyan and Zisserman 2014, Table 1, E; batch norms as torchvision"),
    "alexnet": Net("vision.alexnet", {}, "image", 224, "Krizhevsky 2014, as torchvision has it"),
    "inception_v3": Net("vision.inception", {"version": "v3"}, "image", 299, "Szegedy et al. 2015, Table 1"),
    "inception_v4": Net("vision.inception", {"version": "v4"}, "image", 299, "Szegedy et al. 2016, Figures 3 to 9"),
    "xception": Net("vision.xception", {}, "image", 299, "Chollet 2016, Figure 5"),
    "densenet121": Net("vision.densenet", {"depths": (6, 12, 24, 16)}, "image", 224, "Huang et al. 2016, Table 1"),
    "densenet169": Net("vision.densenet", {"depths": (6, 12, 32, 32)}, "image", 224, "Huang et al. 2016, Table 1"),
    "densenet201": Net("vision.densenet", {"depths": (6, 12, 48, 32)}, "image", 224, "Huang et al. 2016, Table 1"),
    "mobilenetv2_100": Net("vision.efficientnet", {"net": "mobilenetv2"}, "image", 224, "Sandler et al. 2018, Table 2"),
    "mobilenetv3_large_100": Net("vision.efficientnet", {"net": "mobilenetv3_large"}, "image", 224, "Howard et al. 2019, Table 1"),
    "mobilenetv3_small_100": Net("vision.efficientnet", {"net": "mobilenetv3_small"}, "image", 224, "Howard et al. 2019, Table 2"),
    "mnasnet_100": Net("vision.efficientnet", {"net": "mnasnet"}, "image", 224, "Tan et al. 2018, B1 of the released code"),
    "efficientnet_b0": Net("vision.efficientnet", {"net": "efficientnet"}, "image", 224, "Tan and Le 2019, Table 1"),
    "tf_efficientnet_b0": Net("vision.efficientnet", {"net": "efficientnet", "same": True}, "image", 224, "Tan and Le 2019, Table 1"),
    "efficientnet_b1": Net("vision.efficientnet", {"net": "efficientnet", "width": 1.0, "depth": 1.1}, "image", 240, "Tan and Le 2019, Table 1"),
    "tf_efficientnet_b1": Net("vision.efficientnet", {"net": "efficientnet", "width": 1.0, "depth": 1.1, "same": True}, "image", 240, "Tan and Le 2019, Table 1"),
    "efficientnet_b2": Net("vision.efficientnet", {"net": "efficientnet", "width": 1.1, "depth": 1.2}, "image", 260, "Tan and Le 2019, Table 1"),
    "tf_efficientnet_b2": Net("vision.efficientnet", {"net": "efficientnet", "width": 1.1, "depth": 1.2, "same": True}, "image", 260, "Tan and Le 2019, Table 1"),
    "efficientnet_b3": Net("vision.efficientnet", {"net": "efficientnet", "width": 1.2, "depth": 1.4}, "image", 300, "Tan and Le 2019, Table 1"),
    "tf_efficientnet_b3": Net("vision.efficientnet", {"net": "efficientnet", "width": 1.2, "depth": 1.4, "same": True}, "image", 300, "Tan and Le 2019, Table 1"),
    "efficientnet_b4": Net("vision.efficientnet", {"net": "efficientnet", "width": 1.4, "depth": 1.8}, "image", 380, "Tan and Le 2019, Table 1"),
    "tf_efficientnet_b4": Net("vision.efficientnet", {"net": "efficientnet", "width": 1.4, "depth": 1.8, "same": True}, "image", 380, "Tan and Le 2019, Table 1"),
    "efficientnet_b5": Net("vision.efficientnet", {"net": "efficientnet", "width": 1.6, "depth": 2.2}, "image", 456, "Tan and Le 2019, Table 1"),
    "tf_efficientnet_b5": Net("vision.efficientnet", {"net": "efficientnet", "width": 1.6, "depth": 2.2, "same": True}, "image", 456, "Tan and Le 2019, Table 1"),
    "efficientnet_b6": Net("vision.efficientnet", {"net": "efficientnet", "width": 1.8, "depth": 2.6}, "image", 528, "Tan and Le 2019, Table 1"),
    "tf_efficientnet_b6": Net("vision.efficientnet", {"net": "efficientnet", "width": 1.8, "depth": 2.6, "same": True}, "image", 528, "Tan and Le 2019, Table 1"),
    "efficientnet_b7": Net("vision.efficientnet", {"net": "efficientnet", "width": 2.0, "depth": 3.1}, "image", 600, "Tan and Le 2019, Table 1"),
    "tf_efficientnet_b7": Net("vision.efficientnet", {"net": "efficientnet", "width": 2.0, "depth": 3.1, "same": True}, "image", 600, "Tan and Le 2019, Table 1"),
    "efficientnetv2_s": Net("vision.efficientnet", {"net": "efficientnetv2_s"}, "image", 300, "Tan and Le 2021, Table 4; the released code"),
    "tf_efficientnetv2_s": Net("vision.efficientnet", {"net": "efficientnetv2_s", "same": True}, "image", 300, "Tan and Le 2021, Table 4; the released code"),
    "efficientnetv2_m": Net("vision.efficientnet", {"net": "efficientnetv2_m"}, "image", 384, "Tan and Le 2021, Table 4; the released code"),
    "tf_efficientnetv2_m": Net("vision.efficientnet", {"net": "efficientnetv2_m", "same": True}, "image", 384, "Tan and Le 2021, Table 4; the released code"),
    "efficientnetv2_l": Net("vision.efficientnet", {"net": "efficientnetv2_l"}, "image", 384, "Tan and Le 2021, Table 4; the released code"),
    "tf_efficientnetv2_l": Net("vision.efficientnet", {"net": "efficientnetv2_l", "same": True}, "image", 384, "Tan and Le 2021, Table 4; the released code"),
    "regnetx_032": Net("vision.regnet", {"slope": 26.31, "first": 88, "factor": 2.25, "depth": 25, "group": 48}, "image", 224, "Radosavovic et al. 2020, Tables 5 and 6; pycls configurations"),
    "regnety_032": Net("vision.regnet", {"slope": 42.63, "first": 80, "factor": 2.66, "depth": 21, "group": 24, "excite": 0.25}, "image", 224, "Radosavovic et al. 2020, Tables 5 and 6; pycls configurations"),
    "regnety_040": Net("vision.regnet", {"slope": 31.41, "first": 96, "factor": 2.24, "depth": 22, "group": 64, "excite": 0.25}, "image", 224, "Radosavovic et al. 2020, Tables 5 and 6; pycls configurations"),
    "regnety_080": Net("vision.regnet", {"slope": 76.82, "first": 192, "factor": 2.19, "depth": 17, "group": 56, "excite": 0.25}, "image", 224, "Radosavovic et al. 2020, Tables 5 and 6; pycls configurations"),
    "regnety_160": Net("vision.regnet", {"slope": 106.23, "first": 200, "factor": 2.48, "depth": 18, "group": 112, "excite": 0.25}, "image", 224, "Radosavovic et al. 2020, Tables 5 and 6; pycls configurations"),
    "regnety_320": Net("vision.regnet", {"slope": 115.89, "first": 232, "factor": 2.53, "depth": 20, "group": 232, "excite": 0.25}, "image", 224, "Radosavovic et al. 2020, Tables 5 and 6; pycls configurations"),
    "convnext_tiny": Net("vision.convnext", {"depths": (3, 3, 9, 3), "widths": (96, 192, 384, 768)}, "image", 224, "Liu et al. 2022, Section 3"),
    "convnext_small": Net("vision.convnext", {"depths": (3, 3, 27, 3), "widths": (96, 192, 384, 768)}, "image", 224, "Liu et al. 2022, Section 3"),
    "convnext_base": Net("vision.convnext", {"depths": (3, 3, 27, 3), "widths": (128, 256, 512, 1024)}, "image", 224, "Liu et al. 2022, Section 3"),
    "convnext_large": Net("vision.convnext", {"depths": (3, 3, 27, 3), "widths": (192, 384, 768, 1536)}, "image", 224, "Liu et al. 2022, Section 3"),
    "mixer_b16_224": Net("vision.mixer", {"width": 768, "depth": 12, "patch": 16}, "image", 224, "Tolstikhin et al. 2021, Table 1"),
    "mixer_l16_224": Net("vision.mixer", {"width": 1024, "depth": 24, "patch": 16}, "image", 224, "Tolstikhin et al. 2021, Table 1"),
    "beit_base_patch16_224": Net("vision.beit", {"width": 768, "depth": 12, "heads": 12}, "image", 224, "Bao et al. 2021, Section 3.1"),
    "resnetv2_50": Net("vision.resnetv2", {"depths": (3, 4, 6, 3)}, "image", 224, "He et al. 2016, Section 4"),
    "resnetv2_101": Net("vision.resnetv2", {"depths": (3, 4, 23, 3)}, "image", 224, "He et al. 2016, Section 4"),
    "darknet53": Net("vision.darknet", {}, "image", 256, "Redmon and Farhadi 2018, Table 1"),
    "swin_tiny_patch4_window7_224": Net("vision.swin", {"width": 96, "depths": (2, 2, 6, 2), "heads": (3, 6, 12, 24)}, "image", 224, "Liu et al. 2021, Section 3.3"),
    "swin_small_patch4_window7_224": Net("vision.swin", {"width": 96, "depths": (2, 2, 18, 2), "heads": (3, 6, 12, 24)}, "image", 224, "Liu et al. 2021, Section 3.3"),
    "swin_base_patch4_window7_224": Net("vision.swin", {"width": 128, "depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32)}, "image", 224, "Liu et al. 2021, Section 3.3"),
    "swin_large_patch4_window7_224": Net("vision.swin", {"width": 192, "depths": (2, 2, 18, 2), "heads": (6, 12, 24, 48)}, "image", 224, "Liu et al. 2021, Section 3.3"),
    "maxvit_tiny_tf_224": Net("vision.maxvit", {"stem": 64, "widths": (64, 128, 256, 512), "depths": (2, 2, 5, 2)}, "image", 224, "Tu et al. 2022, Table 1"),
    "maxvit_small_tf_224": Net("vision.maxvit", {"stem": 64, "widths": (96, 192, 384, 768), "depths": (2, 2, 5, 2)}, "image", 224, "Tu et al. 2022, Table 1"),
    "maxvit_base_tf_224": Net("vision.maxvit", {"stem": 64, "widths": (96, 192, 384, 768), "depths": (2, 6, 14, 2)}, "image", 224, "Tu et al. 2022, Table 1"),
    "lenet": Net("vision.small", {"channels": 3, "convolutions": (6, 16), "kernel": 5, "padding": 0, "flat": 400, "widths": (120, 84)}, "image", 32, "LeCun et al. 1998, with relu and max-pools as in the PyTorch CIFAR-10 tutorial"),
    "cnn-32x32": Net("vision.small", {"channels": 3, "convolutions": (32, 64), "kernel": 3, "padding": 1, "flat": 4096, "widths": (128,)}, "image", 32, "a CIFAR-10 tutorial net: conv 32, 64; dense 128"),
    "cnn-224": Net("vision.small", {"channels": 3, "convolutions": (64, 128), "kernel": 3, "padding": 1, "flat": 401408, "widths": (1024,)}, "image", 224, "a tutorial net: conv 64, 128; dense 1024"),
    "keras-mnist-cnn": Net("vision.small", {"channels": 1, "convolutions": (32, 64), "kernel": 3, "padding": 0, "flat": 1600, "dropout": 0.5}, "image", 28, "keras.io/examples/vision/mnist_convnet"),
    "vit_tiny_patch16_224": Net("vision.vit", {"width": 192, "depth": 12, "heads": 3, "patch": 16}, "image", 224, "Touvron et al. 2020, Table 1"),
    "vit_small_patch16_224": Net("vision.vit", {"width": 384, "depth": 12, "heads": 6, "patch": 16}, "image", 224, "Touvron et al. 2020, Table 1"),
    "vit_base_patch16_224": Net("vision.vit", {"width": 768, "depth": 12, "heads": 12, "patch": 16}, "image", 224, DOSOVITSKIY),
    "vit_base_patch32_224": Net("vision.vit", {"width": 768, "depth": 12, "heads": 12, "patch": 32}, "image", 224, DOSOVITSKIY),
    "vit_large_patch16_224": Net("vision.vit", {"width": 1024, "depth": 24, "heads": 16, "patch": 16}, "image", 224, DOSOVITSKIY),
    "vit_huge_patch14_224": Net("vision.vit", {"width": 1280, "depth": 32, "heads": 16, "patch": 14}, "image", 224, DOSOVITSKIY),
    "deit_tiny_patch16_224": Net("vision.vit", {"width": 192, "depth": 12, "heads": 3, "patch": 16}, "image", 224, "Touvron et al. 2020, Table 1"),
    "deit_small_patch16_224": Net("vision.vit", {"width": 384, "depth": 12, "heads": 6, "patch": 16}, "image", 224, "Touvron et al. 2020, Table 1"),
    "deit_base_patch16_224": Net("vision.vit", {"width": 768, "depth": 12, "heads": 12, "patch": 16}, "image", 224, "Touvron et al. 2020, Table 1"),
    "deit3_small_patch16_224": Net("vision.vit", {"width": 384, "depth": 12, "heads": 6, "patch": 16, "scaled": True, "class_placed": False}, "image", 224, "Touvron et al. 2022, Table 2"),
    "deit3_base_patch16_224": Net("vision.vit", {"width": 768, "depth": 12, "heads": 12, "patch": 16, "scaled": True, "class_placed": False}, "image", 224, "Touvron et al. 2022, Table 2"),
    "deit3_large_patch16_224": Net("vision.vit", {"width": 1024, "depth": 24, "heads": 16, "patch": 16, "scaled": True, "class_placed": False}, "image", 224, "Touvron et al. 2022, Table 2"),
    "mlp": Net("other.mlp", {"widths": (512, 512)}, "image", 28, "an MNIST net: dense 784, 512, 512, 10"),
    "linear-regression": Net("other.mlp", {"features": 13, "outputs": 1, "regression": True}, "table", None, "least squares on 13 features (Boston housing)"),
    "bilstm64": Net("other.recurrent", {"vocabulary": 4, "width": 64, "hidden": 64, "classes": 2}, "sequence", 1000, "BiLSTM(64) over sequences of four letters"),
    "ncf": Net("other.recommend", {"kind": "dot", "users": 6040, "items": 3706, "width": 50}, "table", None, "keras.io/examples/structured_data/collaborative_filtering_movielens; MovieLens-1M"),
    "neumf": Net("other.recommend", {"kind": "neumf", "users": 138493, "items": 26744, "factors": 64, "widths": (256, 256, 128, 64)}, "table", None, "He et al. 2017, Section 3.4; MLPerf Training v0.5 sizes on MovieLens-20M"),
    "dlrm": Net("other.recommend", {"kind": "dlrm", "tables": 8, "rows": 1000000, "width": 64, "lookups": 10, "dense_features": 13, "bottom": (512, 256, 64), "top": (512, 256, 1)}, "table", None, "Naumov et al. 2019, Section 2, with eight tables of a million rows"),
    "dcgan-generator": Net("other.dcgan", {"part": "generator"}, "table", None, "Radford et al. 2015, Figure 1, with 64 base channels"),
    "dcgan-discriminator": Net("other.dcgan", {"part": "discriminator"}, "image", 64, "Radford et al. 2015, Section 3, with 64 base channels"),
    "unet": Net("vision.unet", {"kind": "segment"}, "image", 256, "Ronneberger et al. 2015, Figure 1, with padding and batch norms"),
    "unet-diffusion": Net("vision.unet", {"kind": "denoise"}, "image", 32, "Ho et al. 2020, Appendix B, the CIFAR-10 net"),
    "yolov3": Net("vision.yolo", {}, "image", 416, "Redmon and Farhadi 2018"),
    "faster-rcnn-r50-fpn": Net("vision.rcnn", {}, "image", 800, "Ren et al. 2015; Lin et al. 2016; sizes of torchvision"),
    "transformer": Net("other.vaswani", {"vocabulary": 37000, "width": 512, "hidden": 2048, "heads": 8, "layers": 6}, "sequence", 128, "Vaswani et al. 2017, Table 3, base"),
    "transformer-big": Net("other.vaswani", {"vocabulary": 37000, "width": 1024, "hidden": 4096, "heads": 16, "layers": 6, "dropout": 0.3}, "sequence", 128, "Vaswani et al. 2017, Table 3, big"),
    "stylegan2-generator": Net("other.stylegan", {}, "image", 256, "Karras et al. 2019, configuration F"),
    "deepspeech2": Net("other.speech", {}, "sequence", 1000, "Amodei et al. 2015, Section 3, with five recurrent layers of 800"),
}

ALIASES = {
    "bert-base-uncased": "bert-base",
    "llama3-8b": "llama-3-8b",
    "meta-llama-3-8b": "llama-3-8b",
    "resnet-50": "resnet50",
    "lenet-cifar": "lenet",
    "lenet5": "lenet",
    "vit-b16": "vit_base_patch16_224",
    "vit-base-patch16-224": "vit_base_patch16_224",
    "mlp-784-512-512-10": "mlp",
    "bilstm": "bilstm64",
    "bilstm64-v4": "bilstm64",
    "ncf-dot-ml1m": "ncf",
    "dlrm-small": "dlrm",
    "stylegan2": "stylegan2-generator",
    "faster-rcnn": "faster-rcnn-r50-fpn",
    "fasterrcnn_resnet50_fpn": "faster-rcnn-r50-fpn",
    "yolo": "yolov3",
}
