"""Nets of the cross-check that take sequences, and a vision transformer, in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from roofcast.simulator.machine.crosscheck.net_list import Net
from roofcast.simulator.machine.crosscheck.torch_images import IMAGENET


def gelu_new(x: Tensor) -> Tensor:
    """GELU by tanh as seven kernels, as transformers composes it for GPT-2."""
    return 0.5 * x * (1.0 + torch.tanh(0.7978845608 * (x + 0.044715 * torch.pow(x, 3.0))))


class Style(NamedTuple):
    """How a transformer block is built."""

    pre_norm: bool  # norms before the branches, or after the sums
    causal: bool
    act: Callable[[Tensor], Tensor]
    joined: bool  # one linear layer for q, k and v, or three
    dropout: float


class Block(nn.Module):
    """Attention and an MLP of four times the width: [B, S, width] -> [B, S, width]."""

    def __init__(self, width: int, heads: int, style: Style):
        super().__init__()
        self.heads, self.style = heads, style
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        outputs = [3 * width] if style.joined else [width] * 3
        self.qkv = nn.ModuleList([nn.Linear(width, out) for out in outputs])
        self.proj = nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop = nn.Dropout(style.dropout) if style.dropout else nn.Identity()

    def attend(self, x: Tensor) -> Tensor:
        """Self-attention over the tokens of each sample."""
        b, s, width = x.shape
        projected = [layer(x) for layer in self.qkv]
        parts = projected[0].chunk(3, -1) if self.style.joined else projected
        shape = (b, s, self.heads, width // self.heads)
        q, k, v = (p.view(*shape).transpose(1, 2) for p in parts)
        attention = nn.functional.scaled_dot_product_attention
        h = attention(q, k, v, is_causal=self.style.causal)
        return self.drop(self.proj(h.transpose(1, 2).reshape(b, s, width)))

    def mix(self, x: Tensor) -> Tensor:
        """The MLP, token by token."""
        return self.drop(self.fc2(self.style.act(self.fc1(x))))

    def forward(self, x: Tensor) -> Tensor:
        """The output of the module, as its class describes it."""
        if self.style.pre_norm:
            x = x + self.attend(self.norm1(x))
            return x + self.mix(self.norm2(x))
        x = self.norm1(self.attend(x) + x)
        return self.norm2(self.mix(x) + x)


def small_start(module: nn.Module) -> nn.Module:
    """The module with weights of standard deviation 0.02.

    Sums over many layers stay in range, and no number is subnormal.
    """
    for name, p in module.named_parameters():
        if p.dim() > 1 and "norm" not in name:
            p.data.normal_(0.0, 0.02)
    return module


class ViT(nn.Module):
    """A vision transformer over patches of 16 x 16 pixels: [B, 3, size, size] -> [B, 1000]."""

    def __init__(self, size: int, width: int = 384, depth: int = 12, heads: int = 6):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 16, 16)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.place = nn.Parameter(torch.zeros(1, (size // 16) ** 2 + 1, width))
        style = Style(True, causal=False, act=nn.functional.gelu, joined=True, dropout=0.0)
        self.blocks = nn.Sequential(*(Block(width, heads, style) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, IMAGENET)

    def forward(self, x: Tensor) -> Tensor:
        """The output of the module, as its class describes it."""
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1) + self.place
        return self.head(self.norm(self.blocks(x))[:, 0])


def vit(net: Net) -> nn.Module:
    """ViT-S/16 [dosovitskiy2020; touvron2020]: [B, 3, S, S], S the net's size -> [B, 1000]."""
    return small_start(ViT(net.edge))


class GPT2(nn.Module):
    """A decoder whose head is tied to the embedding: ids [B, S] -> [B, S, vocabulary]."""

    def __init__(self, vocabulary: int = 50257, width: int = 768, depth: int = 12, heads: int = 12):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(1024, width)
        self.drop = nn.Dropout(0.1)
        style = Style(True, causal=True, act=gelu_new, joined=True, dropout=0.1)
        self.blocks = nn.Sequential(*(Block(width, heads, style) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: Tensor) -> Tensor:
        """The output of the module, as its class describes it."""
        places = torch.arange(ids.shape[1], device=ids.device)[None]
        x = self.drop(self.wte(ids) + self.wpe(places))
        return nn.functional.linear(self.norm(self.blocks(x)), self.wte.weight)


def gpt2(net: Net) -> nn.Module:
    """GPT-2 with 12 layers of width 768, its head tied: ids [B, S] -> [B, S, 50257]."""
    return small_start(GPT2())


class Bert(nn.Module):
    """An encoder with a tied masked-word head: ids [B, S] -> [B, S, vocabulary]."""

    def __init__(self, vocabulary: int = 30522, width: int = 768, depth: int = 12, heads: int = 12):
        super().__init__()
        self.words, self.kinds = nn.Embedding(vocabulary, width), nn.Embedding(2, width)
        self.places = nn.Embedding(512, width)
        self.norm, self.drop = nn.LayerNorm(width), nn.Dropout(0.1)
        style = Style(False, causal=False, act=nn.functional.gelu, joined=False, dropout=0.1)
        self.blocks = nn.Sequential(*(Block(width, heads, style) for _ in range(depth)))
        self.transform, self.norm_out = nn.Linear(width, width), nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, ids: Tensor) -> Tensor:
        """The output of the module, as its class describes it."""
        places = torch.arange(ids.shape[1], device=ids.device)[None]
        x = self.words(ids) + self.kinds(torch.zeros_like(places)) + self.places(places)
        x = self.blocks(self.drop(self.norm(x)))
        x = self.norm_out(nn.functional.gelu(self.transform(x)))
        return nn.functional.linear(x, self.words.weight, self.bias)


def bert(net: Net) -> nn.Module:
    """BERT-base with its masked-word head, tied to the embedding: ids [B, S] -> [B, S, 30522]."""
    return small_start(Bert())


class BiLSTM(nn.Module):
    """A bidirectional LSTM over a vocabulary of four: ids [B, S] -> [B, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(4, 64)
        self.lstm = nn.LSTM(64, 64, batch_first=True, bidirectional=True)
        self.out = nn.Linear(128, 2)

    def forward(self, ids: Tensor) -> Tensor:
        """The output of the module, as its class describes it."""
        _, (last, _) = self.lstm(self.words(ids))
        return self.out(torch.cat([last[0], last[1]], -1))


def bilstm(net: Net) -> nn.Module:
    """A bidirectional LSTM [hochreiter1997] of width 64 per direction: ids [B, S] -> [B, 2]."""
    return BiLSTM()
