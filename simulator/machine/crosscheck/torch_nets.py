"""Training steps of the cross-check's nets in PyTorch, with the same shapes as our models.

Importing this module imports torch; net_list.py does not.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roofcast.simulator.machine.crosscheck import torch_images, torch_sequences, torch_tables
from roofcast.simulator.machine.crosscheck.net_list import Net
from roofcast.simulator.machine.crosscheck.torch_images import IMAGENET

Loss = Callable[[Tensor, Tensor], Tensor]  # (output, target) -> loss

MAKERS: dict[str, Callable[[Net], nn.Module]] = {
    "lenet": torch_images.lenet,
    "cnn-32x32": torch_images.cnn,
    "mlp": torch_images.mlp,
    "alexnet": torch_images.alexnet,
    "resnet18": torch_images.resnet,
    "resnet50": torch_images.resnet,
    "unet": torch_images.unet,
    "vit_small_patch16_224": torch_sequences.vit,
    "gpt2": torch_sequences.gpt2,
    "bert-base": torch_sequences.bert,
    "bilstm64": torch_sequences.bilstm,
    "ncf": torch_tables.ncf,
    "neumf": torch_tables.neumf,
}
OPTIMIZERS = {
    "sgd": torch.optim.SGD, "momentum": torch.optim.SGD, "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}  # fmt: skip


def build(net: Net, where: str = "cpu") -> Callable[[], float]:
    """A training step of a net on the device `where`: forward, backward and update.

    The step uses the same random inputs each time. It returns the loss, so it waits for the device.
    """
    torch.manual_seed(0)
    module, inputs, target, loss_of = _parts(net)
    module, target = module.to(where), target.to(where)
    inputs = tuple(each.to(where) for each in inputs)
    options = {"momentum": 0.9} if net.optimizer == "momentum" else {}
    optimizer = OPTIMIZERS[net.optimizer](module.parameters(), lr=1e-3, **options)
    module.train()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(module(*inputs), target)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def module_and_inputs(net: Net) -> tuple[nn.Module, tuple[Tensor, ...], Callable[[Tensor], Tensor]]:
    """The module, its inputs, and the loss of an output, for tracing."""
    module, inputs, target, loss_of = _parts(net)
    return module, inputs, lambda out: loss_of(out, target)


def _parts(net: Net) -> tuple[nn.Module, tuple[Tensor, ...], Tensor, Loss]:
    """Module, inputs, target and loss function of a net."""
    module, batch = MAKERS[net.model](net), net.batch
    if net.takes == "table":
        users, items = torch_tables.ROWS[net.model]
        pairs = torch.stack(
            [torch.randint(0, users, (batch,)), torch.randint(0, items, (batch,))], 1
        )
        loss = F.binary_cross_entropy
        if net.model == "neumf":
            loss = F.binary_cross_entropy_with_logits
        return module, (pairs,), torch.rand(batch, 1), loss
    size = net.edge
    if net.model in ("bert-base", "gpt2"):
        ids = torch.randint(0, 30000, (batch, size))
        return module, (ids,), ids.flatten(), lambda out, y: F.cross_entropy(out.flatten(0, 1), y)
    if net.model == "bilstm64":
        ids = torch.randint(0, 4, (batch, size))
        return module, (ids,), torch.randint(0, 2, (batch,)), F.cross_entropy
    channels = 1 if net.model == "mlp" else 3
    images = torch.randn(batch, channels, size, size)
    if net.model == "unet":
        return module, (images,), torch.randint(0, 2, (batch, size, size)), F.cross_entropy
    classes = 10 if net.model in ("mlp", "lenet", "cnn-32x32") else IMAGENET
    return module, (images,), torch.randint(0, classes, (batch,)), F.cross_entropy
