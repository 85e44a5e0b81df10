"""The nets of the cross-check in PyTorch: the same shapes as our models of those names, written
with torch alone.

Building one imports torch; the list of them does not.
"""

from __future__ import annotations

from roofcast.simulator.machine.crosscheck.net_list import Net

IMAGENET = 1000


def build(net: Net, where: str = "cpu"):
    """step() of a net on the device `where`: forward, backward and update on fixed random inputs;
    returns the loss, so it has ended.
    """
    import torch

    torch.manual_seed(0)
    module, inputs, target, criterion = _parts(net)
    module, inputs, target = (
        module.to(where),
        tuple(each.to(where) for each in inputs),
        target.to(where),
    )
    rule = {
        "sgd": torch.optim.SGD,
        "momentum": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
    }[net.optimizer]
    update = rule(
        module.parameters(), lr=1e-3, **({"momentum": 0.9} if net.optimizer == "momentum" else {})
    )
    module.train()

    def step() -> float:
        update.zero_grad(set_to_none=True)
        loss = criterion(module(*inputs), target)
        loss.backward()
        update.step()
        return float(loss.detach())

    return step


def module_and_inputs(net: Net):
    """The module with what it is fed and its loss, for a trace: (module, inputs, loss of an
    output).
    """
    module, inputs, target, criterion = _parts(net)
    return module, inputs, lambda out: criterion(out, target)


def _parts(net: Net):
    """Module, inputs, target and loss function of a net."""
    import torch
    from torch.nn import functional as F

    maker = MAKERS[net.model]
    batch, size = net.batch, net.size
    module = maker(net)
    if net.model == "ncf":
        ids = torch.stack([torch.randint(0, 6040, (batch,)), torch.randint(0, 3706, (batch,))], 1)
        return module, (ids,), torch.rand(batch, 1), F.binary_cross_entropy
    if net.model == "neumf":
        ids = torch.stack(
            [torch.randint(0, 138493, (batch,)), torch.randint(0, 26744, (batch,))], 1
        )
        return module, (ids,), torch.rand(batch, 1), F.binary_cross_entropy_with_logits
    if net.model in ("bert-base", "gpt2"):
        ids = torch.randint(0, 30000, (batch, size))
        return module, (ids,), ids.flatten(), lambda out, y: F.cross_entropy(out.flatten(0, 1), y)
    if net.model == "bilstm64":
        return (
            module,
            (torch.randint(0, 4, (batch, size)),),
            torch.randint(0, 2, (batch,)),
            F.cross_entropy,
        )
    if net.model == "unet":
        return (
            module,
            (torch.randn(batch, 3, size, size),),
            torch.randint(0, 2, (batch, size, size)),
            F.cross_entropy,
        )
    channels = 1 if net.model == "mlp" else 3
    classes = 10 if net.model in ("mlp", "lenet", "cnn-32x32") else IMAGENET
    return (
        module,
        (torch.randn(batch, channels, size, size),),
        torch.randint(0, classes, (batch,)),
        F.cross_entropy,
    )


# ------------------------------------------------------------------ pictures
def lenet(net: Net):
    """A LeNet for colour pictures [B, 3, 32, 32] -> [B, 10], with ReLU and max-pools in place of
    what [lecun1998] has.
    """
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def cnn(net: Net):
    """Two 3x3 convolutions with max-pools, two linear layers: [B, 3, 32, 32] -> [B, 10]."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4096, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def mlp(net: Net):
    """Three linear layers, 512 wide inside: [B, 1, 28, 28] -> [B, 10]."""
    from torch import nn

    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


def alexnet(net: Net):
    """AlexNet in one column [krizhevsky2014], as torchvision has it: [B, 3, H, W] -> [B, 1000]."""
    from torch import nn

    layers, width = [], 3
    for out, kernel, stride, padding, pooled in (
        (64, 11, 4, 2, True),
        (192, 5, 1, 2, True),
        (384, 3, 1, 1, False),
        (256, 3, 1, 1, False),
        (256, 3, 1, 1, True),
    ):
        layers += [nn.Conv2d(width, out, kernel, stride, padding), nn.ReLU(inplace=True)] + (
            [nn.MaxPool2d(3, 2)] if pooled else []
        )
        width = out
    return nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool2d(6),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(9216, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Linear(4096, IMAGENET),
    )


def conv_norm(width: int, out: int, kernel: int, stride: int = 1, act: bool = True):
    """[B, width, H, W] -> [B, out, H/stride, W/stride]: a convolution without bias, a batch norm,
    and a ReLU where `act`.
    """
    from torch import nn

    parts = [nn.Conv2d(width, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out)]
    return nn.Sequential(*parts, *([nn.ReLU(inplace=True)] if act else []))


def resnet(net: Net):
    """ResNet-50, or ResNet-18 for any other name, with the stride in the 3x3 convolution [he2015]:
    [B, 3, H, W] -> [B, 1000].
    """
    import torch
    from torch import nn

    deep = net.model == "resnet50"

    class Block(nn.Module):
        """Basic or bottleneck, its stride in a 3x3 convolution."""

        def __init__(self, width: int, planes: int, stride: int):
            super().__init__()
            out = 4 * planes if deep else planes
            if deep:
                body = (
                    conv_norm(width, planes, 1),
                    conv_norm(planes, planes, 3, stride),
                    conv_norm(planes, out, 1, act=False),
                )
            else:
                body = (conv_norm(width, planes, 3, stride), conv_norm(planes, out, 3, act=False))
            self.body = nn.Sequential(*body)
            self.shortcut = (
                conv_norm(width, out, 1, stride, act=False)
                if stride > 1 or width != out
                else nn.Identity()
            )

        def forward(self, x):
            return torch.relu_(self.body(x) + self.shortcut(x))

    layers, width = [conv_norm(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)], 64
    for stage, (planes, depth) in enumerate(
        zip((64, 128, 256, 512), (3, 4, 6, 3) if deep else (2, 2, 2, 2), strict=True)
    ):
        for index in range(depth):
            layers.append(Block(width, planes, 2 if stage and not index else 1))
            width = 4 * planes if deep else planes
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, IMAGENET))


def unet(net: Net):
    """U-Net [ronneberger2015], padded and with batch norms: [B, 3, H, W] -> [B, 2, H, W]; H and W
    in multiples of 16.
    """
    import torch
    from torch import nn

    def double(width: int, out: int):
        return nn.Sequential(conv_norm(width, out, 3), conv_norm(out, out, 3))

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.down = nn.ModuleList(
                [double(3, 64), *(double(64 * 2**n, 128 * 2**n) for n in range(4))]
            )
            self.up = nn.ModuleList(
                [nn.ConvTranspose2d(128 * 2**n, 64 * 2**n, 2, 2) for n in reversed(range(4))]
            )
            self.joined = nn.ModuleList([double(128 * 2**n, 64 * 2**n) for n in reversed(range(4))])
            self.out = nn.Conv2d(64, 2, 1)

        def forward(self, x):
            seen = [self.down[0](x)]
            for part in self.down[1:]:
                seen.append(part(nn.functional.max_pool2d(seen[-1], 2)))
            x = seen.pop()
            for up, joined in zip(self.up, self.joined, strict=True):
                x = joined(torch.cat([seen.pop(), up(x)], 1))
            return self.out(x)

    return UNet()


# ------------------------------------------------------------------ sequences and tables
def gelu_new(x):
    """GELU by tanh, composed of seven kernels as transformers has it for GPT-2."""
    import torch

    return 0.5 * x * (1.0 + torch.tanh(0.7978845608 * (x + 0.044715 * torch.pow(x, 3.0))))


def transformer_block(
    width: int, heads: int, *, first: bool, causal: bool, act, joined: bool, dropout: float
):
    """Attention and an MLP. `first`: norms before the branches, else after the sums; `joined`: one
    linear layer for q, k, v.
    """
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv = nn.ModuleList(
                [nn.Linear(width, 3 * width)]
                if joined
                else [nn.Linear(width, width) for _ in range(3)]
            )
            self.proj, self.fc1, self.fc2 = (
                nn.Linear(width, width),
                nn.Linear(width, 4 * width),
                nn.Linear(4 * width, width),
            )
            self.drop = nn.Dropout(dropout) if dropout else nn.Identity()

        def attend(self, x):
            b, s, _ = x.shape
            parts = self.qkv[0](x).chunk(3, -1) if joined else [layer(x) for layer in self.qkv]
            q, k, v = (p.view(b, s, heads, width // heads).transpose(1, 2) for p in parts)
            h = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
            return self.drop(self.proj(h.transpose(1, 2).reshape(b, s, width)))

        def mix(self, x):
            return self.drop(self.fc2(act(self.fc1(x))))

        def forward(self, x):
            if first:
                x = x + self.attend(self.norm1(x))
                return x + self.mix(self.norm2(x))
            x = self.norm1(self.attend(x) + x)
            return self.norm2(self.mix(x) + x)

    return Block()


def small_start(module):
    """Weights of deviation 0.02: sums of many layers stay in range and no number is subnormal."""
    for name, p in module.named_parameters():
        if p.dim() > 1 and "norm" not in name:
            p.data.normal_(0.0, 0.02)
    return module


def vit(net: Net):
    """ViT-S/16 [dosovitskiy2020; touvron2020]: [B, 3, S, S], S the net's size -> [B, 1000]."""
    import torch
    from torch import nn

    class ViT(nn.Module):
        def __init__(self, width=384, depth=12, heads=6):
            super().__init__()
            self.patch = nn.Conv2d(3, width, 16, 16)
            self.first = nn.Parameter(torch.zeros(1, 1, width))
            self.place = nn.Parameter(torch.zeros(1, (net.size // 16) ** 2 + 1, width))
            how = dict(first=True, causal=False, act=nn.functional.gelu, joined=True, dropout=0.0)
            self.blocks = nn.Sequential(
                *(transformer_block(width, heads, **how) for _ in range(depth))
            )
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, IMAGENET)

        def forward(self, x):
            x = self.patch(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1) + self.place
            return self.head(self.norm(self.blocks(x))[:, 0])

    return small_start(ViT())


def gpt2(net: Net):
    """GPT-2 of 12 layers of width 768, its head tied to the embedding: ids [B, S] -> [B, S,
    50257].
    """
    import torch
    from torch import nn

    class GPT2(nn.Module):
        def __init__(self, vocabulary=50257, width=768, depth=12, heads=12):
            super().__init__()
            self.wte, self.wpe, self.drop = (
                nn.Embedding(vocabulary, width),
                nn.Embedding(1024, width),
                nn.Dropout(0.1),
            )
            how = dict(first=True, causal=True, act=gelu_new, joined=True, dropout=0.1)
            self.blocks = nn.Sequential(
                *(transformer_block(width, heads, **how) for _ in range(depth))
            )
            self.norm = nn.LayerNorm(width)

        def forward(self, ids):
            x = self.drop(
                self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device)[None])
            )
            return nn.functional.linear(self.norm(self.blocks(x)), self.wte.weight)

    return small_start(GPT2())


def bert(net: Net):
    """BERT-base with its masked-word head, tied to the embedding: ids [B, S] -> [B, S, 30522]."""
    import torch
    from torch import nn

    class Bert(nn.Module):
        def __init__(self, vocabulary=30522, width=768, depth=12, heads=12):
            super().__init__()
            self.words, self.kinds, self.places = (
                nn.Embedding(vocabulary, width),
                nn.Embedding(2, width),
                nn.Embedding(512, width),
            )
            self.norm, self.drop = nn.LayerNorm(width), nn.Dropout(0.1)
            how = dict(first=False, causal=False, act=nn.functional.gelu, joined=False, dropout=0.1)
            self.blocks = nn.Sequential(
                *(transformer_block(width, heads, **how) for _ in range(depth))
            )
            self.transform, self.norm_out = nn.Linear(width, width), nn.LayerNorm(width)
            self.bias = nn.Parameter(torch.zeros(vocabulary))

        def forward(self, ids):
            places = torch.arange(ids.shape[1], device=ids.device)[None]
            x = self.drop(
                self.norm(
                    self.words(ids) + self.kinds(torch.zeros_like(places)) + self.places(places)
                )
            )
            x = self.norm_out(nn.functional.gelu(self.transform(self.blocks(x))))
            return nn.functional.linear(x, self.words.weight, self.bias)

    return small_start(Bert())


def bilstm(net: Net):
    """A bidirectional LSTM [hochreiter1997], 64 wide each way, over four words: ids [B, S] -> [B,
    2].
    """
    import torch
    from torch import nn

    class BiLSTM(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.lstm = (
                nn.Embedding(4, 64),
                nn.LSTM(64, 64, batch_first=True, bidirectional=True),
            )
            self.out = nn.Linear(128, 2)

        def forward(self, ids):
            _, (last, _) = self.lstm(self.words(ids))
            return self.out(torch.cat([last[0], last[1]], -1))

    return BiLSTM()


def ncf(net: Net):
    """Matrix factorisation with biases at the size of MovieLens-1M: ids (user, item) [B, 2] -> [B,
    1] between 0 and 1.
    """
    import torch
    from torch import nn

    class NCF(nn.Module):
        """sigmoid(user . item + both biases)."""

        def __init__(self, users=6040, items=3706, width=50):
            super().__init__()
            self.u, self.i, self.ub, self.ib = (
                nn.Embedding(users, width),
                nn.Embedding(items, width),
                nn.Embedding(users, 1),
                nn.Embedding(items, 1),
            )  # noqa: E501

        def forward(self, ids):
            user, item = ids[:, 0], ids[:, 1]
            return torch.sigmoid(
                (self.u(user) * self.i(item)).mean(1, keepdim=True) + self.ub(user) + self.ib(item)
            )

    return NCF()


def neumf(net: Net):
    """NeuMF [he2017], a product of factors beside an MLP, at the size of MovieLens-20M: ids (user,
    item) [B, 2] -> [B, 1].
    """
    import torch
    from torch import nn

    class NeuMF(nn.Module):
        def __init__(self, users=138493, items=26744, factors=64, widths=(256, 256, 128, 64)):
            super().__init__()
            half = widths[0] // 2
            self.gmf_u, self.gmf_i = nn.Embedding(users, factors), nn.Embedding(items, factors)
            self.mlp_u, self.mlp_i = nn.Embedding(users, half), nn.Embedding(items, half)
            layers = [
                (nn.Linear(a, b), nn.ReLU()) for a, b in zip(widths, widths[1:], strict=False)
            ]
            self.mlp, self.out = nn.Sequential(*sum(layers, ())), nn.Linear(factors + widths[-1], 1)

        def forward(self, ids):
            user, item = ids[:, 0], ids[:, 1]
            x = self.mlp(torch.cat([self.mlp_u(user), self.mlp_i(item)], 1))
            return self.out(torch.cat([self.gmf_u(user) * self.gmf_i(item), x], 1))

    return NeuMF()


MAKERS = {
    "lenet": lenet, "cnn-32x32": cnn, "mlp": mlp, "alexnet": alexnet, "resnet18": resnet,
    "resnet50": resnet, "unet": unet, "vit_small_patch16_224": vit, "gpt2": gpt2, "bert-base": bert,
    "bilstm64": bilstm, "ncf": ncf, "neumf": neumf,
}  # fmt: skip
