"""Modules made of repeated layers, small."""

import torch
import torch.nn.functional as F
from torch import nn
from torch_nets import Experts


class Block(nn.Module):
    """A pre-norm transformer layer: attention by scaled_dot_product_attention, or written out."""

    def __init__(self, width, heads, written=False):
        super().__init__()
        self.heads, self.written = heads, written
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.act, self.out = (
            nn.Linear(width, 4 * width),
            nn.GELU("tanh"),
            nn.Linear(4 * width, width),
        )

    def forward(self, x):
        b, n, d = x.shape
        parts = self.qkv(self.ln_1(x)).split(d, 2)
        q, k, v = (t.view(b, n, self.heads, -1).transpose(1, 2) for t in parts)
        if self.written:
            y = (q @ k.transpose(-2, -1) * (d // self.heads) ** -0.5).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(b, n, d))
        return x + self.out(self.act(self.fc(self.ln_2(x))))


class Gpt(nn.Module):
    """Embeddings, layers, and the cross-entropy of the next token, as gpt2 without dropout."""

    def __init__(self, layers=5, width=64, heads=4, words=128, places=64, written=False):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(words, width), nn.Embedding(places, width)
        self.h = nn.ModuleList(Block(width, heads, written) for _ in range(layers))
        self.ln_f, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.h:
            x = block(x)
        logits = self.head(self.ln_f(x))[:, :-1]
        return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())


class Alternating(nn.Module):
    """Two kinds of layers in turn."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 16)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(16, n), nn.ReLU(), nn.Linear(n, 16)) for n in (32, 48) * 3
        )

    def forward(self, x):
        x = self.first(x)
        for layer in self.layers:
            x = x + layer(x)
        return x.square()


class Residual(nn.Module):
    """A residual layer of convolutions, with ops in place."""

    def __init__(self, channels, out, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1), nn.BatchNorm2d(out)
        self.conv2, self.relu = nn.Conv2d(out, out, 3, 1, 1), nn.ReLU(inplace=True)
        self.down = nn.Conv2d(channels, out, 1, stride) if channels != out else nn.Identity()

    def forward(self, x):
        y = self.conv2(self.relu(self.bn1(self.conv1(x))))
        y += self.down(x)
        return self.relu(y)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.layer1 = nn.Sequential(*(Residual(8, 8, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Residual(8, 16, 2), *(Residual(16, 16, 1) for _ in range(3)))
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


class MixtureOfLayers(nn.Module):
    """Layers that each hold experts side by side."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 16)
        self.layers = nn.Sequential(*(Experts(4) for _ in range(4)))

    def forward(self, x):
        return self.layers(self.first(x)).square()


def linears():
    return nn.Sequential(*(nn.Sequential(nn.Linear(32, 32), nn.ReLU()) for _ in range(12)))


LAYERED = {
    "gpt": (Gpt, ["2x32:int64"]),
    "written-out attention": (lambda: Gpt(written=True), ["2x32:int64"]),
    "alternating": (Alternating, ["4x16"]),
    "resnet": (ResNet, ["2x3x18x18"]),
    "layers of experts": (MixtureOfLayers, ["2x6x16"]),
    "linears": (linears, ["4x32"]),
    "encoder": (
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(32, 4, 64, 0.1), 4, enable_nested_tensor=False
        ),
        ["2x10x32"],
    ),
}
