"""ResNet in PyTorch, as torchvision writes it, with the bottleneck's stride on its 3x3 [he2015]."""

import torch
from torch import nn


def norm_conv(inside, outside, kernel, stride=1):
    padding = kernel // 2
    conv = nn.Conv2d(inside, outside, kernel, stride, padding, bias=False)
    return [conv, nn.BatchNorm2d(outside)]


class Block(nn.Module):
    """A bottleneck (`wide` 4) or two 3x3 convolutions (`wide` 1), and the sum with the input."""

    def __init__(self, inside, width, stride, wide):
        super().__init__()
        kernels = [(1, 1), (3, stride), (1, 1)] if wide == 4 else [(3, stride), (3, 1)]
        parts, last = [], inside
        for i, (kernel, step) in enumerate(kernels):
            out = width * wide if i == len(kernels) - 1 else width
            parts += norm_conv(last, out, kernel, step)
            parts += [nn.ReLU(inplace=True)] if i < len(kernels) - 1 else []
            last = out
        self.body, self.relu = nn.Sequential(*parts), nn.ReLU(inplace=True)
        same = stride == 1 and inside == last
        self.short = None if same else nn.Sequential(*norm_conv(inside, last, 1, stride))

    def forward(self, x):
        out = self.body(x)
        out += x if self.short is None else self.short(x)
        return self.relu(out)


class ResNet(nn.Module):
    """The classifier of images [batch, 3, side, side] into 1000 classes."""

    def __init__(self, depths=(3, 4, 6, 3), wide=4):
        super().__init__()
        stem = [*norm_conv(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
        blocks, inside = [], 64
        for stage, depth in enumerate(depths):
            width = 64 * 2**stage
            for i in range(depth):
                blocks.append(Block(inside, width, 2 if stage and not i else 1, wide))
                inside = width * wide
        self.features = nn.Sequential(*stem, *blocks)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(inside, 1000)

    def forward(self, x):
        return self.fc(torch.flatten(self.pool(self.features(x)), 1))


RESNETS = {"resnet18": lambda: ResNet((2, 2, 2, 2), 1), "resnet50": ResNet}
