"""Modules as people write them, with their inputs, for the importer and PyTorch's own counters."""

import torch
import torch.nn.functional as F
from torch import nn
from torch_quirks import (
    Autocast,
    Branch,
    Checkpointed,
    ControlFlow,
    CustomFunction,
    CustomMatmul,
    Frozen,
    InPlace,
    Positions,
    Siamese,
    Tied,
    WideLoss,
)


class ConvNet(nn.Module):
    def __init__(self, channels_last=False):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, stride=2),
            nn.GroupNorm(4, 32),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 10),
        )
        self.channels_last = channels_last
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def forward(self, x):
        return self.body(
            x.contiguous(memory_format=torch.channels_last) if self.channels_last else x
        )


class Inverted(nn.Module):
    """Depthwise convolutions, squeeze and excitation, in-place ops, a residual."""

    def __init__(self):
        super().__init__()
        self.expand = nn.Sequential(
            nn.Conv2d(8, 32, 1, bias=False), nn.BatchNorm2d(32), nn.Hardswish(inplace=True)
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(32, 32, 5, padding=2, groups=32, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU6(inplace=True),
        )
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(32, 8, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 32, 1),
            nn.Hardsigmoid(),
        )
        self.project = nn.Sequential(nn.Conv2d(32, 8, 1, bias=False), nn.BatchNorm2d(8))

    def forward(self, x):
        y = self.depthwise(self.expand(x))
        return x + self.project(y * self.squeeze(y))


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(16, 32, 3, groups=4)
        self.b = nn.ConvTranspose2d(32, 8, 4, stride=2, groups=2)
        self.c = nn.Conv1d(8, 8, 3, groups=8)

    def forward(self, x):
        return self.c(F.leaky_relu(self.b(F.relu(self.a(x))), 0.1).flatten(2))


class Volume(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4)
        self.b = nn.Conv3d(4, 1, 1)

    def forward(self, x):
        return self.b(F.avg_pool3d(F.elu(self.norm(self.a(x))), 2))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, padding=1)
        self.middle = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.up, self.out = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.Conv2d(16, 3, 1)

    def forward(self, x):
        skip = F.gelu(self.down(x))
        y = self.up(F.mish(self.middle(skip)))
        y = F.interpolate(F.avg_pool2d(y, 2), scale_factor=2, mode="bilinear", align_corners=False)
        return F.mse_loss(self.out(torch.cat([skip, y], 1)), x)


class Generator(nn.Module):
    """A small DCGAN generator."""

    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(20, 32, 4, 1, 0, bias=False), nn.BatchNorm2d(32), nn.ReLU(True),
            nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(True),
            nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z):
        return self.main(z)


class Recurrent(nn.Module):
    def __init__(self, cell="LSTM", **how):
        super().__init__()
        self.embed = nn.Embedding(50, 12)
        self.rnn = getattr(nn, cell)(12, 16, batch_first=True, **how)
        self.out = nn.Linear(16 * (2 if how.get("bidirectional") else 1), 3)

    def forward(self, ids):
        states, _ = self.rnn(self.embed(ids))
        return self.out(states[:, -1])


class CellLoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.GRUCell(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 8)
        for step in range(x.shape[1]):
            h = self.cell(x[:, step], h)
        return self.out(h)


class Bags(nn.Module):
    """A small DLRM: dense features, bags of ids, and their dot products."""

    def __init__(self, tables=3):
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(40, 8, mode="sum") for _ in range(tables))
        self.dense, self.top = nn.Linear(5, 8), nn.Linear(8 + (tables + 1) * tables // 2, 1)

    def forward(self, dense, ids):
        x = torch.relu(self.dense(dense))
        z = torch.stack([x, *(table(ids[:, i]) for i, table in enumerate(self.tables))], 1)
        i, j = torch.tril_indices(z.shape[1], z.shape[1], -1, device=z.device)
        return self.top(torch.cat([x, torch.bmm(z, z.transpose(1, 2))[:, i, j]], 1)).sigmoid()


class Attention(nn.Module):
    """scaled_dot_product_attention: plain, causal, masked, or with grouped keys."""

    def __init__(self, mask=None, groups=4, dropout=0.0, width=32):
        super().__init__()
        self.mask, self.groups, self.dropout = mask, groups, dropout
        self.heads, self.dim = 4, width // 4
        self.q = nn.Linear(width, width)
        self.k, self.v = (nn.Linear(width, groups * self.dim) for _ in "kv")
        self.out = nn.Linear(width, width)

    def forward(self, x):
        b, s, _ = x.shape
        q, k, v = (f(x).view(b, s, -1, self.dim).transpose(1, 2) for f in (self.q, self.k, self.v))
        mask = None
        if self.mask == "bool":
            mask = torch.ones(s, s, dtype=torch.bool, device=x.device).tril()
        if self.mask == "float":
            mask = torch.zeros(b, 1, s, s, dtype=x.dtype, device=x.device)
        p = self.dropout if self.training else 0.0
        causal, grouped = self.mask == "causal", self.groups != 4
        y = F.scaled_dot_product_attention(q, k, v, mask, p, causal, enable_gqa=grouped)
        return self.out(y.transpose(1, 2).reshape(b, s, -1))


class Composed(nn.Module):
    """Attention composed of einsum and softmax, and a root-mean-square norm."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(24, 72), nn.Linear(24, 24)
        self.gain = nn.Parameter(torch.ones(24))

    def forward(self, x):
        y = x.float()
        y = (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)).type_as(x) * self.gain
        q, k, v = (t.unflatten(-1, (3, 8)) for t in self.qkv(y).chunk(3, -1))
        p = torch.einsum("bqhd,bkhd->bhqk", q, k).div(8**0.5).softmax(-1)
        return x + self.out(torch.einsum("bhqk,bkhd->bqhd", p, v).flatten(2))


class Experts(nn.Module):
    """A mixture whose experts process every token: no shape depends on values."""

    def __init__(self, experts=4):
        super().__init__()
        self.router = nn.Linear(16, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(experts)
        )

    def forward(self, x):
        weights, chosen = self.router(x).softmax(-1).topk(2, -1)
        zeros = torch.zeros(*x.shape[:-1], len(self.experts), device=x.device, dtype=x.dtype)
        gate = zeros.scatter(-1, chosen, weights)
        return sum(gate[..., i, None] * expert(x) for i, expert in enumerate(self.experts))


class Routed(nn.Module):
    """A mixture whose experts process the tokens routed to them: shapes depend on values."""

    def __init__(self, experts=3):
        super().__init__()
        self.router = nn.Linear(16, experts)
        self.experts = nn.ModuleList(nn.Linear(16, 16) for _ in range(experts))

    def forward(self, x):
        out = torch.zeros_like(x)
        chosen = self.router(x).argmax(-1)
        for i, expert in enumerate(self.experts):
            rows = torch.where(chosen == i)[0]
            out = out.index_add(0, rows, expert(x[rows]))
        return out


def mlp():
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(48, 64),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(64, 64),
        nn.SELU(),
        nn.Linear(64, 10),
    )


def encoder(**how):
    layer = nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True, **how)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


NETS = {  # name: (constructor, inputs)
    "mlp with dropout": (mlp, ["4x3x4x4"]),
    "control flow": (ControlFlow, ["13x32"]),
    "custom function": (CustomFunction, ["6x24"]),
    "custom product": (CustomMatmul, ["7x12"]),
    "shared weights": (Tied, ["2x9:int64", "2x9:int64"]),
    "convolutions": (ConvNet, ["2x3x32x32"]),
    "channels last": (lambda: ConvNet(True), ["2x3x32x32"]),
    "inverted residual": (Inverted, ["2x8x14x14"]),
    "grouped convolutions": (Grouped, ["2x16x12x12"]),
    "convolution 3d": (Volume, ["1x2x8x8x8"]),
    "u-net": (UNet, ["2x3x16x16"]),
    "generator": (Generator, ["3x20x1x1"]),
    "lstm": (Recurrent, ["4x7:int64"]),
    "bidirectional lstm of two layers": (
        lambda: Recurrent(num_layers=2, bidirectional=True),
        ["4x7:int64"],
    ),
    "gru": (lambda: Recurrent("GRU"), ["4x7:int64"]),
    "tanh rnn": (lambda: Recurrent("RNN"), ["4x7:int64"]),
    "loop of cells": (CellLoop, ["3x5x8"]),
    "embedding bags": (Bags, ["4x5", "4x3x2:int64"]),
    "attention": (Attention, ["2x33x32"]),
    "causal attention": (lambda: Attention("causal"), ["2x33x32"]),
    "attention with a bool mask": (lambda: Attention("bool"), ["2x33x32"]),
    "attention with an added mask": (lambda: Attention("float"), ["2x33x32"]),
    "grouped-query attention": (lambda: Attention("causal", groups=2), ["2x33x32"]),
    "attention with dropout": (lambda: Attention(dropout=0.1), ["2x33x32"]),
    "attention of odd width": (lambda: Attention(width=36), ["2x16x36"]),
    "composed attention": (Composed, ["2x11x24"]),
    "transformer encoder": (encoder, ["2x10x32"]),
    "pre-norm transformer encoder": (
        lambda: encoder(norm_first=True, activation="gelu"),
        ["2x10x32"],
    ),
    "mixture of experts": (Experts, ["2x6x16"]),
    "autocast inside": (Autocast, ["5x16"]),
    "in place": (InPlace, ["4x10"]),
    "checkpointed": (Checkpointed, ["4x12"]),
    "frozen backbone": (Frozen, ["2x3x10x10"]),
    "one branch twice": (Siamese, ["3x6", "3x6"]),
    "tensors that are no parameters": (Positions, ["2x6x12"]),
    "several losses": (WideLoss, ["5x8", "5:int64", "5x4"]),
    "bilinear": (
        lambda: nn.Sequential(nn.Linear(6, 6), nn.PReLU(), nn.Softplus(), nn.LocalResponseNorm(2)),
        ["3x6x4x6"],
    ),
}
VALUE_DEPENDENT = {  # modules that depend on the values of tensors
    "routed experts": (Routed, ["12x16"]),
    "branch on a value": (Branch, ["4x8"]),
}
