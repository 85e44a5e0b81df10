"""Modules with branches, custom autograd functions, shared or frozen weights, several losses."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint


class ControlFlow(nn.Module):
    """The number of layers depends on the shape of the input."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x):
        for step in range(x.shape[0] % 5):
            x = torch.tanh(self.first(x) if step % 2 else self.second(x))
        return x


class Swish(torch.autograd.Function):
    """Keeps its argument and recomputes the sigmoid in backward."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return grad * (s + x * s * (1 - s))


class CustomFunction(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(24, 48), nn.Linear(48, 8)

    def forward(self, x):
        return self.b(Swish.apply(self.a(x)))


class MatmulFunction(torch.autograd.Function):
    """A product with its own backward."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w.t()

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return grad @ w, grad.t() @ x


class CustomMatmul(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(20, 12))
        self.out = nn.Linear(20, 4)

    def forward(self, x):
        return self.out(MatmulFunction.apply(x, self.weight))


class Tied(nn.Module):
    """The output layer is the embedding table."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(100, 16)
        self.body = nn.Linear(16, 16)
        self.head = nn.Linear(16, 100, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids, labels):
        return F.cross_entropy(
            self.head(F.gelu(self.body(self.embed(ids)))).flatten(0, 1), labels.flatten()
        )


class Branch(nn.Module):
    """A branch on a value."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.a(x) if (x * 0).sum() == 0 else self.b(self.a(x))


class Autocast(nn.Module):
    """Enables autocast for its device, and disables it for one layer."""

    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Linear(16, 32), nn.LayerNorm(32)
        self.b, self.c = nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, x):
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            y = self.b(F.gelu(self.norm(self.a(x))))
            with torch.autocast(x.device.type, enabled=False):
                y = self.c(y.float())
        return F.softmax(y, -1)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(10, 10), nn.Linear(10, 10)

    def forward(self, x):
        y = self.a(x).relu_()
        y = y.add_(x).mul_(2)
        z = torch.zeros(x.shape[0], 20, device=x.device, dtype=x.dtype)
        z[:, :10] = self.b(y)
        z[:, 10:] += x
        return z.sigmoid_()


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(12, 48), nn.GELU(), nn.Linear(48, 12)) for _ in range(3)
        )

    def forward(self, x):
        for block in self.blocks:
            x = x + checkpoint(block, x, use_reentrant=False)
        return x


class Frozen(nn.Module):
    """A frozen backbone and a trainable head."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.head = nn.Linear(8, 5)
        self.body.requires_grad_(False)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class Siamese(nn.Module):
    """One branch that runs twice, and a list of outputs."""

    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 4))

    def forward(self, a, b):
        return [self.branch(a), {"distance": (self.branch(a) - self.branch(b)).norm(dim=-1)}]


class Positions(nn.Module):
    """A tensor that is neither parameter nor buffer, a buffer, and a view of a parameter."""

    def __init__(self):
        super().__init__()
        self.plain = torch.arange(12.0)
        self.register_buffer("table", torch.zeros(6, 12))
        self.weight = nn.Parameter(torch.randn(24, 12))

    def forward(self, x):
        x = x + self.table[: x.shape[1]] + self.plain.to(x)
        scale = torch.tensor([1.0, 2.0] * 6, device=x.device).to(x.dtype)
        return F.linear(x, self.weight[:12]) * scale


class WideLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.score, self.box = nn.Linear(8, 6), nn.Linear(8, 4)

    def forward(self, x, labels, boxes):
        y = F.log_softmax(self.score(x), -1)
        one = F.nll_loss(y, labels) + F.smooth_l1_loss(self.box(x), boxes)
        return one + F.binary_cross_entropy_with_logits(y[:, 0], boxes[:, 0])
