"""Recommendation nets of the cross-check, which take (user, item) pairs, in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from roofcast.simulator.machine.crosscheck.net_list import Net

ROWS = {"ncf": (6040, 3706), "neumf": (138493, 26744)}  # users and items: MovieLens-1M and -20M


class NCF(nn.Module):
    """sigmoid(mean(user item) + both biases)."""

    def __init__(self, users: int, items: int, width: int = 50):
        super().__init__()
        self.u, self.i = nn.Embedding(users, width), nn.Embedding(items, width)
        self.ub, self.ib = nn.Embedding(users, 1), nn.Embedding(items, 1)

    def forward(self, ids: Tensor) -> Tensor:
        """The output of the module, as its class describes it."""
        user, item = ids[:, 0], ids[:, 1]
        score = (self.u(user) * self.i(item)).mean(1, keepdim=True)
        return torch.sigmoid(score + self.ub(user) + self.ib(item))


def ncf(net: Net) -> nn.Module:
    """Matrix factorization with biases for MovieLens-1M: ids (user, item) [B, 2] -> [B, 1]."""
    return NCF(*ROWS["ncf"])


class NeuMF(nn.Module):
    """A product of factors and an MLP, both over embeddings of user and item."""

    def __init__(
        self,
        users: int,
        items: int,
        factors: int = 64,
        widths: tuple[int, ...] = (256, 256, 128, 64),
    ):
        super().__init__()
        half = widths[0] // 2
        self.gmf_u, self.gmf_i = nn.Embedding(users, factors), nn.Embedding(items, factors)
        self.mlp_u, self.mlp_i = nn.Embedding(users, half), nn.Embedding(items, half)
        layers: list[nn.Module] = []
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.mlp, self.out = nn.Sequential(*layers), nn.Linear(factors + widths[-1], 1)

    def forward(self, ids: Tensor) -> Tensor:
        """The output of the module, as its class describes it."""
        user, item = ids[:, 0], ids[:, 1]
        x = self.mlp(torch.cat([self.mlp_u(user), self.mlp_i(item)], 1))
        return self.out(torch.cat([self.gmf_u(user) * self.gmf_i(item), x], 1))


def neumf(net: Net) -> nn.Module:
    """NeuMF [he2017] for MovieLens-20M: ids (user, item) [B, 2] -> [B, 1]."""
    return NeuMF(*ROWS["neumf"])
