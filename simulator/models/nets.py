"""Nets that are known by name and built by a module with arguments (vision/, other/)."""

from __future__ import annotations

from functools import partial
from typing import Any

from roofcast.hwdb.tuples import NamedTuple


class Net(NamedTuple):
    """A net by name: `module`, in this package, has `build(tape, batch, size, **arguments)`."""

    module: str
    arguments: dict[str, Any]
    takes: str  # image | sequence | table
    size: (
        int | None
    )  # default side of the image [pixels] or length of the sequence [tokens, frames]
    source: str


def _image(module: str, source: str, size: int = 224, **arguments: Any) -> Net:
    return Net(module, arguments, "image", size, source)


def _sequence(module: str, source: str, size: int, **arguments: Any) -> Net:
    return Net(module, arguments, "sequence", size, source)


def _table(module: str, source: str, **arguments: Any) -> Net:
    return Net(module, arguments, "table", None, source)


HE = "He et al. 2015, Table 1"
XIE = "Xie et al. 2016, "
VGG = "Simonyan and Zisserman 2014, Table 1"
DENSE = "Huang et al. 2016, Table 1"
EFFICIENT = "Tan and Le 2019, Table 1"
EFFICIENT_V2 = "Tan and Le 2021, Table 4; the released code"
REGNET = "Radosavovic et al. 2020, Tables 5 and 6; pycls configurations"
MIXER = "Tolstikhin et al. 2021, Table 1"
RADFORD = "Radford et al. 2015, "
VIT = "Dosovitskiy et al. 2020, Table 1"
DEIT = "Touvron et al. 2020, Table 1"
ISENSEE = "Isensee et al. 2018; "
NVIDIA = "github NVIDIA/DeepLearningExamples, "

_resnet = partial(_image, "vision.resnet", block="bottleneck")
_basic = partial(_image, "vision.resnet", HE, block="basic")
_vgg = partial(_image, "vision.vgg", VGG)
_densenet = partial(_image, "vision.densenet", DENSE)
_mobile = partial(_image, "vision.efficientnet")
_efficient = partial(_image, "vision.efficientnet", EFFICIENT, net="efficientnet")
_efficient2 = partial(_image, "vision.efficientnet", EFFICIENT_V2)
_regnet = partial(_image, "vision.regnet", REGNET)
_convnext = partial(_image, "vision.convnext", "Liu et al. 2022, Section 3")
_resnetv2 = partial(_image, "vision.resnetv2", "He et al. 2016, Section 4")
_swin = partial(_image, "vision.swin", "Liu et al. 2021, Section 3.3")
_swin2 = partial(_image, "vision.swin", "Liu et al. 2021, Swin Transformer V2, Section 4.1", 256)
_maxvit = partial(_image, "vision.maxvit", "Tu et al. 2022, Table 1", stem=64)
_vit = partial(_image, "vision.vit")
_deit3 = partial(_image, "vision.vit", "Touvron et al. 2022, Table 2")

CLASSIFIERS = {
    "resnet18": _basic(depths=(2, 2, 2, 2)),
    "resnet34": _basic(depths=(3, 4, 6, 3)),
    "resnet50": _resnet(HE, depths=(3, 4, 6, 3)),
    "resnet101": _resnet(HE, depths=(3, 4, 23, 3)),
    "resnet152": _resnet(HE, depths=(3, 8, 36, 3)),
    "wide_resnet50_2": _resnet(
        "Zagoruyko and Komodakis 2016, Section 3.4", depths=(3, 4, 6, 3), width=128
    ),
    "resnext50_32x4d": _resnet(XIE + "Table 1", depths=(3, 4, 6, 3), groups=32, width=4),
    "resnext101_32x8d": _resnet(XIE + "Section 5", depths=(3, 4, 23, 3), groups=32, width=8),
    "resnext101_32x4d": _resnet(XIE + "Table 3", depths=(3, 4, 23, 3), groups=32, width=4),
    "seresnext101_32x4d": _resnet(
        "Hu et al. 2017, Table 2", depths=(3, 4, 23, 3), groups=32, width=4, excite=16
    ),
    "seresnet50": _resnet("Hu et al. 2017, Table 1", depths=(3, 4, 6, 3), excite=16),
    "vgg11": _vgg(depths=(1, 1, 2, 2, 2)),
    "vgg16": _vgg(depths=(2, 2, 3, 3, 3)),
    "vgg19": _vgg(depths=(2, 2, 4, 4, 4)),
    "vgg16_bn": _vgg(depths=(2, 2, 3, 3, 3), normed=True),
    "vgg19_bn": _vgg(depths=(2, 2, 4, 4, 4), normed=True),
    "alexnet": _image("vision.alexnet", "Krizhevsky 2014, as torchvision has it"),
    "inception_v3": _image("vision.inception", "Szegedy et al. 2015, Table 1", 299, version="v3"),
    "inception_v4": _image(
        "vision.inception", "Szegedy et al. 2016, Figures 3 to 9", 299, version="v4"
    ),
    "xception": _image("vision.xception", "Chollet 2016, Figure 5", 299),
    "densenet121": _densenet(depths=(6, 12, 24, 16)),
    "densenet169": _densenet(depths=(6, 12, 32, 32)),
    "densenet201": _densenet(depths=(6, 12, 48, 32)),
    "mobilenetv2_100": _mobile("Sandler et al. 2018, Table 2", net="mobilenetv2"),
    "mobilenetv3_large_100": _mobile("Howard et al. 2019, Table 1", net="mobilenetv3_large"),
    "mobilenetv3_small_100": _mobile("Howard et al. 2019, Table 2", net="mobilenetv3_small"),
    "mnasnet_100": _mobile("Tan et al. 2018, B1 of the released code", net="mnasnet"),
    "efficientnet_b0": _efficient(),
    "efficientnet_b1": _efficient(240, width=1.0, depth=1.1),
    "efficientnet_b2": _efficient(260, width=1.1, depth=1.2),
    "efficientnet_b3": _efficient(300, width=1.2, depth=1.4),
    "efficientnet_b4": _efficient(380, width=1.4, depth=1.8),
    "efficientnet_b5": _efficient(456, width=1.6, depth=2.2),
    "efficientnet_b6": _efficient(528, width=1.8, depth=2.6),
    "efficientnet_b7": _efficient(600, width=2.0, depth=3.1),
    "efficientnetv2_s": _efficient2(300, net="efficientnetv2_s"),
    "efficientnetv2_m": _efficient2(384, net="efficientnetv2_m"),
    "efficientnetv2_l": _efficient2(384, net="efficientnetv2_l"),
    "regnetx_032": _regnet(slope=26.31, first=88, factor=2.25, depth=25, group=48),
    "regnety_032": _regnet(slope=42.63, first=80, factor=2.66, depth=21, group=24, excite=0.25),
    "regnety_040": _regnet(slope=31.41, first=96, factor=2.24, depth=22, group=64, excite=0.25),
    "regnety_080": _regnet(slope=76.82, first=192, factor=2.19, depth=17, group=56, excite=0.25),
    "regnety_160": _regnet(slope=106.23, first=200, factor=2.48, depth=18, group=112, excite=0.25),
    "regnety_320": _regnet(slope=115.89, first=232, factor=2.53, depth=20, group=232, excite=0.25),
    "convnext_tiny": _convnext(depths=(3, 3, 9, 3), widths=(96, 192, 384, 768)),
    "convnext_small": _convnext(depths=(3, 3, 27, 3), widths=(96, 192, 384, 768)),
    "convnext_base": _convnext(depths=(3, 3, 27, 3), widths=(128, 256, 512, 1024)),
    "convnext_large": _convnext(depths=(3, 3, 27, 3), widths=(192, 384, 768, 1536)),
    "mixer_b16_224": _image("vision.mixer", MIXER, width=768, depth=12, patch=16),
    "mixer_l16_224": _image("vision.mixer", MIXER, width=1024, depth=24, patch=16),
    "beit_base_patch16_224": _image(
        "vision.beit", "Bao et al. 2021, Section 3.1", width=768, depth=12, heads=12
    ),
    "resnetv2_50": _resnetv2(depths=(3, 4, 6, 3)),
    "resnetv2_101": _resnetv2(depths=(3, 4, 23, 3)),
    "darknet53": _image("vision.darknet", "Redmon and Farhadi 2018, Table 1", 256),
    "swin_tiny_patch4_window7_224": _swin(width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24)),
    "swin_small_patch4_window7_224": _swin(width=96, depths=(2, 2, 18, 2), heads=(3, 6, 12, 24)),
    "swin_base_patch4_window7_224": _swin(width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32)),
    "swin_large_patch4_window7_224": _swin(width=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48)),
    "swinv2_tiny_window8_256": _swin2(
        width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), window=8, second=True
    ),
    "swinv2_small_window8_256": _swin2(
        width=96, depths=(2, 2, 18, 2), heads=(3, 6, 12, 24), window=8, second=True
    ),
    "swinv2_base_window8_256": _swin2(
        width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), window=8, second=True
    ),
    "maxvit_tiny_tf_224": _maxvit(widths=(64, 128, 256, 512), depths=(2, 2, 5, 2)),
    "maxvit_small_tf_224": _maxvit(widths=(96, 192, 384, 768), depths=(2, 2, 5, 2)),
    "maxvit_base_tf_224": _maxvit(widths=(96, 192, 384, 768), depths=(2, 6, 14, 2)),
    "vit_tiny_patch16_224": _vit(DEIT, width=192, depth=12, heads=3, patch=16),
    "vit_small_patch16_224": _vit(DEIT, width=384, depth=12, heads=6, patch=16),
    "vit_base_patch16_224": _vit(VIT, width=768, depth=12, heads=12, patch=16),
    "vit_base_patch32_224": _vit(VIT, width=768, depth=12, heads=12, patch=32),
    "vit_large_patch16_224": _vit(VIT, width=1024, depth=24, heads=16, patch=16),
    "vit_huge_patch14_224": _vit(VIT, width=1280, depth=32, heads=16, patch=14),
    "deit_tiny_patch16_224": _vit(DEIT, width=192, depth=12, heads=3, patch=16),
    "deit_small_patch16_224": _vit(DEIT, width=384, depth=12, heads=6, patch=16),
    "deit_base_patch16_224": _vit(DEIT, width=768, depth=12, heads=12, patch=16),
    "deit3_small_patch16_224": _deit3(
        width=384, depth=12, heads=6, patch=16, scaled=True, class_placed=False
    ),
    "deit3_base_patch16_224": _deit3(
        width=768, depth=12, heads=12, patch=16, scaled=True, class_placed=False
    ),
    "deit3_large_patch16_224": _deit3(
        width=1024, depth=24, heads=16, patch=16, scaled=True, class_placed=False
    ),
}
CLASSIFIERS |= {
    "resnet26": _resnet(HE, depths=(2, 2, 2, 2)),
    "wide_resnet101_2": _resnet(
        "Zagoruyko and Komodakis 2016, Section 3.4", depths=(3, 4, 23, 3), width=128
    ),
    "resnext101_64x4d": _resnet(XIE + "Table 3", depths=(3, 4, 23, 3), groups=64, width=4),
    "seresnet18": _basic(depths=(2, 2, 2, 2), excite=16),
    "seresnet34": _basic(depths=(3, 4, 6, 3), excite=16),
    "seresnet101": _resnet("Hu et al. 2017, Table 2", depths=(3, 4, 23, 3), excite=16),
    "seresnet152": _resnet("Hu et al. 2017, Table 2", depths=(3, 8, 36, 3), excite=16),
    "seresnext50_32x4d": _resnet(
        "Hu et al. 2017, Table 2", depths=(3, 4, 6, 3), groups=32, width=4, excite=16
    ),
    "vgg13": _vgg(depths=(2, 2, 2, 2, 2)),
    "vgg11_bn": _vgg(depths=(1, 1, 2, 2, 2), normed=True),
    "vgg13_bn": _vgg(depths=(2, 2, 2, 2, 2), normed=True),
    "densenet161": _densenet(depths=(6, 12, 36, 24), growth=48),
    "mobilenetv2_140": _mobile("Sandler et al. 2018, Table 4", net="mobilenetv2", width=1.4),
    "mobilenetv2_050": _mobile("Sandler et al. 2018, Table 2", net="mobilenetv2", width=0.5),
    "resnetv2_152": _resnetv2(depths=(3, 8, 36, 3)),
    "mixer_s16_224": _image("vision.mixer", MIXER, width=512, depth=8, patch=16),
    "mixer_s32_224": _image("vision.mixer", MIXER, width=512, depth=8, patch=32),
    "mixer_b32_224": _image("vision.mixer", MIXER, width=768, depth=12, patch=32),
    "mixer_l32_224": _image("vision.mixer", MIXER, width=1024, depth=24, patch=32),
    "beit_large_patch16_224": _image(
        "vision.beit", "Bao et al. 2021, Section 3.1", width=1024, depth=24, heads=16
    ),
    "beit_base_patch16_384": _image(
        "vision.beit", "Bao et al. 2021, Section 3.1", 384, width=768, depth=12, heads=12
    ),
    "convnext_xlarge": _convnext(depths=(3, 3, 27, 3), widths=(256, 512, 1024, 2048)),
    "swin_base_patch4_window12_384": _swin(
        size=384, width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), window=12
    ),
    "swin_large_patch4_window12_384": _swin(
        size=384, width=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48), window=12
    ),
    "maxvit_large_tf_224": _image(
        "vision.maxvit",
        "Tu et al. 2022, Table 1",
        stem=128,
        widths=(128, 256, 512, 1024),
        depths=(2, 6, 14, 2),
    ),
    "vit_base_patch8_224": _vit(VIT, width=768, depth=12, heads=12, patch=8),
    "vit_small_patch32_224": _vit(DEIT, width=384, depth=12, heads=6, patch=32),
    "vit_tiny_patch16_384": _vit(DEIT, 384, width=192, depth=12, heads=3, patch=16),
    "vit_small_patch16_384": _vit(DEIT, 384, width=384, depth=12, heads=6, patch=16),
    "vit_base_patch16_384": _vit(VIT, 384, width=768, depth=12, heads=12, patch=16),
    "vit_base_patch32_384": _vit(VIT, 384, width=768, depth=12, heads=12, patch=32),
    "vit_large_patch16_384": _vit(VIT, 384, width=1024, depth=24, heads=16, patch=16),
    "deit_base_patch16_384": _vit(DEIT, 384, width=768, depth=12, heads=12, patch=16),
    "deit3_huge_patch14_224": _deit3(
        width=1280, depth=32, heads=16, patch=14, scaled=True, class_placed=False
    ),
    "regnetx_002": _regnet(slope=36.44, first=24, factor=2.49, depth=13, group=8),
    "regnetx_004": _regnet(slope=24.48, first=24, factor=2.54, depth=22, group=16),
    "regnetx_008": _regnet(slope=35.73, first=56, factor=2.28, depth=16, group=16),
    "regnetx_016": _regnet(slope=34.01, first=80, factor=2.25, depth=18, group=24),
    "regnetx_040": _regnet(slope=38.65, first=96, factor=2.43, depth=23, group=40),
    "regnetx_080": _regnet(slope=49.56, first=80, factor=2.88, depth=23, group=120),
    "regnetx_160": _regnet(slope=55.59, first=216, factor=2.1, depth=22, group=128),
    "regnetx_320": _regnet(slope=69.86, first=320, factor=2.0, depth=23, group=168),
    "regnety_002": _regnet(slope=36.44, first=24, factor=2.49, depth=13, group=8, excite=0.25),
    "regnety_004": _regnet(slope=27.89, first=48, factor=2.09, depth=16, group=8, excite=0.25),
    "regnety_008": _regnet(slope=38.84, first=56, factor=2.4, depth=14, group=16, excite=0.25),
    "regnety_016": _regnet(slope=20.71, first=48, factor=2.65, depth=27, group=24, excite=0.25),
    "regnety_120": _regnet(slope=73.36, first=168, factor=2.37, depth=19, group=112, excite=0.25),
    "regnety_1280": _regnet(
        384, slope=160.83, first=456, factor=2.52, depth=27, group=264, excite=0.25
    ),
}
# timm's tf_ models pad as TensorFlow does
CLASSIFIERS |= {
    f"tf_{name}": net._replace(arguments={**net.arguments, "same": True})
    for name, net in CLASSIFIERS.items()
    if name.startswith("efficientnet")
}
# and timm's others were trained on smaller images than the papers'
SMALLER = {
    "efficientnet_b2": 256,
    "efficientnet_b3": 288,
    "efficientnet_b4": 320,
    "efficientnet_b5": 448,
    "efficientnetv2_s": 288,
    "efficientnetv2_m": 320,
}
CLASSIFIERS |= {name: CLASSIFIERS[name]._replace(size=side) for name, side in SMALLER.items()}

_small = partial(_image, "vision.small")

# fmt: off
TUTORIALS = {
    "lenet": _small(
        "LeCun et al. 1998, with relu and max-pools as in the PyTorch CIFAR-10 tutorial", 32,
        channels=3, convolutions=(6, 16), kernel=5, padding=0, flat=400, widths=(120, 84)),
    "cnn-32x32": _small(
        "a CIFAR-10 tutorial net: conv 32, 64; dense 128", 32,
        channels=3, convolutions=(32, 64), kernel=3, padding=1, flat=4096, widths=(128,)),
    "cnn-224": _small(
        "a tutorial net: conv 64, 128; dense 1024",
        channels=3, convolutions=(64, 128), kernel=3, padding=1, flat=401408, widths=(1024,)),
    "keras-mnist-cnn": _small(
        "keras.io/examples/vision/mnist_convnet", 28,
        channels=1, convolutions=(32, 64), kernel=3, padding=0, flat=1600, dropout=0.5),
    "mlp": _image("other.mlp", "an MNIST net: dense 784, 512, 512, 10", 28, widths=(512, 512)),
    "linear-regression": _table(
        "other.mlp", "least squares on 13 features (Boston housing)",
        features=13, outputs=1, regression=True),
    "bilstm64": _sequence(
        "other.recurrent", "BiLSTM(64) over sequences of four letters", 1000,
        vocabulary=4, width=64, hidden=64, classes=2),
}
RECOMMENDERS = {
    "ncf": _table(
        "other.recommend",
        "keras.io/examples/structured_data/collaborative_filtering_movielens; MovieLens-1M",
        kind="dot", users=6040, items=3706, width=50),
    "neumf": _table(
        "other.recommend",
        "He et al. 2017, Section 3.4; MLPerf Training v0.5 sizes on MovieLens-20M",
        kind="neumf", users=138493, items=26744, factors=64, widths=(256, 256, 128, 64)),
    "dlrm": _table(
        "other.recommend",
        "Naumov et al. 2019, Section 2, with eight tables of a million rows",
        kind="dlrm", tables=8, rows=1000000, width=64, lookups=10, dense_features=13,
        bottom=(512, 256, 64), top=(512, 256, 1)),
    "vae-cf": _table(
        "other.recommend",
        "Liang et al. 2018, Section 4; MovieLens-20M: 9.99 million likes of 136,677 users",
        kind="vae", items=20108, seen=73, hidden=600, latent=200),
}
SEGMENTERS = {
    "unet": _image(
        "vision.unet", "Ronneberger et al. 2015, Figure 1, with padding and batch norms", 256,
        kind="segment"),
    "unet-medical": _image(
        "vision.segment", "Ronneberger et al. 2015, Figure 1; " + NVIDIA + "UNet_Medical", 572,
        kind="medical"),
    "unet-industrial": _image(
        "vision.segment", NVIDIA + "UNet_Industrial, its default TinyUNet", 512,
        kind="industrial"),
    "unet3d": _image(
        "vision.volume", ISENSEE + "MLPerf Training v1.0, KiTS19", 128, channels=1, classes=3),
    "unet3d-medical": _image(
        "vision.volume", ISENSEE + NVIDIA + "UNet_3D_Medical on BraTS", 128,
        channels=4, classes=4, act="leaky_relu", last=3),
    "nnunet-2d": _image(
        "vision.volume", ISENSEE + NVIDIA + "nnUNet on slices of 192x160", 192,
        channels=4, classes=4, shape=(6, 5), act="leaky_relu"),
    "nnunet-3d": _image(
        "vision.volume", ISENSEE + NVIDIA + "nnUNet on volumes of 128^3", 128,
        channels=4, classes=4, act="leaky_relu"),
    "vnet": _image(
        "vision.volume", "Milletari et al. 2016, Figure 2; " + NVIDIA + "VNet", 32, kind="vnet"),
}
DETECTORS = {
    "yolov3": _image("vision.yolo", "Redmon and Farhadi 2018", 416),
    "faster-rcnn-r50-fpn": _image(
        "vision.rcnn", "Ren et al. 2015; Lin et al. 2016; sizes of torchvision", 800),
    "mask-rcnn-r50-fpn": _image(
        "vision.rcnn",
        "He et al. 2017, Mask R-CNN; stem and first stage not trained; as many pixels as 800x1312",
        1024, masks=True, frozen=2),
    "ssd300": _image(
        "vision.ssd", "Liu et al. 2015; " + NVIDIA + "SSD300 v1.1 on ResNet-50", 300,
        block="bottleneck", depths=(3, 4, 6), widths=(512, 512, 256, 256, 256)),
    "ssd300-r34": _image(
        "vision.ssd", "Liu et al. 2015; MLPerf Training v0.5 to v1.1, SSD on ResNet-34", 300,
        block="basic", depths=(3, 4, 6), widths=(512, 512, 256, 256, 256), normed=False),
    "ssd320-r50-fpn": _image(
        "vision.ssd",
        "Lin et al. 2017, Section 4; TensorFlow's ssd_resnet50_v1_fpn as NVIDIA trains it", 320,
        kind="retina"),
}
GENERATORS = {
    "dcgan-generator": _table(
        "other.dcgan", RADFORD + "Figure 1, with 64 base channels", part="generator"),
    "dcgan-discriminator": _image(
        "other.dcgan", RADFORD + "Section 3, with 64 base channels", 64, part="discriminator"),
    "stylegan2-generator": _image("other.stylegan", "Karras et al. 2019, configuration F", 256),
    "unet-diffusion": _image(
        "vision.unet", "Ho et al. 2020, Appendix B, the CIFAR-10 net", 32, kind="denoise"),
}
SEQUENCES = {
    "transformer": _sequence(
        "other.vaswani", "Vaswani et al. 2017, Table 3, base", 128,
        vocabulary=37000, width=512, hidden=2048, heads=8, layers=6),
    "transformer-big": _sequence(
        "other.vaswani", "Vaswani et al. 2017, Table 3, big", 128,
        vocabulary=37000, width=1024, hidden=4096, heads=16, layers=6, dropout=0.3),
    "transformer-xl-base": _sequence(
        "other.transformer_xl",
        "Dai et al. 2019; " + NVIDIA + "Transformer-XL, base on WikiText-103", 192,
        layers=16, width=512, heads=8, dim=64, hidden=2048),
    "transformer-xl-large": _sequence(
        "other.transformer_xl", "Dai et al. 2019, Section 4.1, large on WikiText-103", 384,
        layers=18, width=1024, heads=16, dim=64, hidden=4096,
        dropout=0.2, drop_attention=0.2, divisor=4),
    "gnmt": _sequence(
        "other.gnmt",
        "Wu et al. 2016; " + NVIDIA + "GNMT v2, four layers; MLPerf Training v0.5 to v0.7", 27,
        layers=4, vocabulary=32320, width=1024),
    "gnmt-8": _sequence(
        "other.gnmt", "Wu et al. 2016, Section 3: eight layers", 27,
        layers=8, vocabulary=32320, width=1024),
    "jasper": _sequence(
        "other.jasper",
        "Li et al. 2019, Table 1, 10x5 with dense residuals; sequences of 16.8 s", 1680,
        net="jasper"),
    "quartznet": _sequence(
        "other.jasper", "Kriman et al. 2019, Table 1, 15x5; sequences of 16.8 s", 1680,
        net="quartznet"),
    "deepspeech2": _sequence(
        "other.speech", "Amodei et al. 2015, Section 3, with five recurrent layers of 800", 1000),
}
# fmt: on

NETS: dict[str, Net] = {
    **CLASSIFIERS,
    **TUTORIALS,
    **RECOMMENDERS,
    **SEGMENTERS,
    **DETECTORS,
    **GENERATORS,
    **SEQUENCES,
}
