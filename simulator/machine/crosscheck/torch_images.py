"""Nets of the cross-check that take images, in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from roofcast.simulator.machine.crosscheck.net_list import Net

IMAGENET = 1000  # classes


def lenet(net: Net) -> nn.Module:
    """A LeNet for colour images: [B, 3, 32, 32] -> [B, 10].

    ReLU and max-pools replace the activations and subsampling of [lecun1998].
    """
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(400, 120), nn.ReLU()),
        *(nn.Linear(120, 84), nn.ReLU()),
        nn.Linear(84, 10),
    )


def cnn(net: Net) -> nn.Module:
    """Two 3x3 convolutions with max-pools, two linear layers: [B, 3, 32, 32] -> [B, 10]."""
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(4096, 128), nn.ReLU()),
        nn.Linear(128, 10),
    )


def mlp(net: Net) -> nn.Module:
    """Three linear layers with hidden width 512: [B, 1, 28, 28] -> [B, 10]."""
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(784, 512), nn.ReLU()),
        *(nn.Linear(512, 512), nn.ReLU()),
        nn.Linear(512, 10),
    )


def alexnet(net: Net) -> nn.Module:
    """AlexNet in one column [krizhevsky2014], as in torchvision: [B, 3, H, W] -> [B, 1000]."""
    layers: list[nn.Module] = []
    width = 3
    for out, kernel, stride, padding, pooled in (
        (64, 11, 4, 2, True),
        (192, 5, 1, 2, True),
        (384, 3, 1, 1, False),
        (256, 3, 1, 1, False),
        (256, 3, 1, 1, True),
    ):
        layers += [nn.Conv2d(width, out, kernel, stride, padding), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(3, 2)] if pooled else []
        width = out
    return nn.Sequential(
        *layers,
        *(nn.AdaptiveAvgPool2d(6), nn.Flatten()),
        *(nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(inplace=True)),
        *(nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(inplace=True)),
        nn.Linear(4096, IMAGENET),
    )


def conv_norm(width: int, out: int, kernel: int, stride: int = 1, act: bool = True) -> nn.Module:
    """Convolution without bias, batch norm, and ReLU if `act`.

    [B, width, H, W] -> [B, out, H/stride, W/stride].
    """
    parts = [nn.Conv2d(width, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out)]
    return nn.Sequential(*parts, *([nn.ReLU(inplace=True)] if act else []))


class Block(nn.Module):
    """A basic or bottleneck block of a ResNet, with its stride in a 3x3 convolution."""

    def __init__(self, width: int, planes: int, stride: int, bottleneck: bool):
        super().__init__()
        out = 4 * planes if bottleneck else planes
        body: tuple[nn.Module, ...] = (
            conv_norm(width, planes, 1 if bottleneck else 3, 1 if bottleneck else stride),
        )
        if bottleneck:
            body += (conv_norm(planes, planes, 3, stride), conv_norm(planes, out, 1, act=False))
        else:
            body += (conv_norm(planes, out, 3, act=False),)
        self.body = nn.Sequential(*body)
        self.shortcut = (
            conv_norm(width, out, 1, stride, act=False)
            if stride > 1 or width != out
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """The output of the module, as its class describes it."""
        return torch.relu_(self.body(x) + self.shortcut(x))


def resnet(net: Net) -> nn.Module:
    """ResNet-50, or ResNet-18 for any other name [he2015]: [B, 3, H, W] -> [B, 1000].

    The stride is in the 3x3 convolution.
    """
    bottleneck = net.model == "resnet50"
    depths = (3, 4, 6, 3) if bottleneck else (2, 2, 2, 2)
    layers, width = [conv_norm(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)], 64
    for stage, (planes, depth) in enumerate(zip((64, 128, 256, 512), depths, strict=True)):
        for index in range(depth):
            layers.append(Block(width, planes, 2 if stage and not index else 1, bottleneck))
            width = 4 * planes if bottleneck else planes
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, IMAGENET))


def double_conv(width: int, out: int) -> nn.Module:
    """Two 3x3 convolutions with batch norms and ReLUs: [B, width, H, W] -> [B, out, H, W]."""
    return nn.Sequential(conv_norm(width, out, 3), conv_norm(out, out, 3))


class UNet(nn.Module):
    """Four levels of width 64 to 512 above a bottom of width 1024."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            [double_conv(3, 64), *(double_conv(64 * 2**n, 128 * 2**n) for n in range(4))]
        )
        levels = range(3, -1, -1)
        self.up = nn.ModuleList([nn.ConvTranspose2d(128 * 2**n, 64 * 2**n, 2, 2) for n in levels])
        self.joined = nn.ModuleList([double_conv(128 * 2**n, 64 * 2**n) for n in levels])
        self.out = nn.Conv2d(64, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The output of the module, as its class describes it."""
        skipped = [self.down[0](x)]
        for part in list(self.down)[1:]:
            skipped.append(part(nn.functional.max_pool2d(skipped[-1], 2)))
        x = skipped.pop()
        for up, joined in zip(self.up, self.joined, strict=True):
            x = joined(torch.cat([skipped.pop(), up(x)], 1))
        return self.out(x)


def unet(net: Net) -> nn.Module:
    """U-Net [ronneberger2015] with padding and batch norms: [B, 3, H, W] -> [B, 2, H, W].

    H and W are multiples of 16.
    """
    return UNet()
