"""The nets whose training steps are measured here, and the scenario that forecasts each."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

SMALL_TRANSFORMER = Path(__file__).with_name("small-transformer.toml")


class Net(NamedTuple):
    """A training step: the model, its inputs, and the software that runs it."""

    name: str
    by: str  # numba | torch
    model: str  # shipped name, or path of a .toml: the model of the forecast
    batch: int
    size: int | None  # pixels per side, or tokens per sample
    takes: str  # image | sequence | table
    optimizer: str
    note: str = ""  # cause of a known large error

    @property
    def edge(self) -> int:
        """`size` of a net that takes images or sequences."""
        assert self.size is not None, f"{self.name} takes a {self.takes}, which has no size"
        return self.size


FEW_CHANNELS = "few-channel convolution: 1 to 6 channels leave vector lanes empty"
OPTIMIZER_BOUND = "optimizer-bound: most of the step updates tables that few samples touch"
TIME_STEPS = "host dispatch: one small product a time step"

NETS = (
    Net("lenet-numba", "numba", "lenet", 256, 32, "image", "sgd", FEW_CHANNELS),
    Net("mlp-numba", "numba", "mlp", 2048, 28, "image", "sgd"),
    Net("mlp-numba-adam", "numba", "mlp", 2048, 28, "image", "adam"),
    Net("transformer-numba", "numba", str(SMALL_TRANSFORMER), 8, 64, "sequence", "adam"),
    Net("ncf-numba", "numba", "ncf", 131072, None, "table", "adam", OPTIMIZER_BOUND),
    Net("lenet", "torch", "lenet", 512, 32, "image", "sgd", FEW_CHANNELS),
    Net("cifar-cnn", "torch", "cnn-32x32", 128, 32, "image", "adam"),
    Net("mlp", "torch", "mlp", 4096, 28, "image", "sgd"),
    Net("mlp-adam", "torch", "mlp", 4096, 28, "image", "adam"),
    Net("alexnet", "torch", "alexnet", 8, 224, "image", "sgd"),
    Net("resnet18", "torch", "resnet18", 4, 224, "image", "momentum"),
    Net("resnet50", "torch", "resnet50", 2, 224, "image", "momentum"),
    Net("vit-small", "torch", "vit_small_patch16_224", 2, 224, "image", "adamw"),
    Net("unet", "torch", "unet", 1, 96, "image", "adam"),
    Net("bert", "torch", "bert-base", 1, 128, "sequence", "adamw"),
    Net("gpt2", "torch", "gpt2", 1, 64, "sequence", "adamw"),
    Net("bilstm", "torch", "bilstm64", 128, 128, "sequence", "adam", TIME_STEPS),
    Net("ncf", "torch", "ncf", 65536, None, "table", "adam", OPTIMIZER_BOUND),
    Net("neumf", "torch", "neumf", 2048, None, "table", "adam", OPTIMIZER_BOUND),
)


def chosen(quick: bool, torch: bool) -> tuple[Net, ...]:
    """The nets of a run.

    `quick` omits those whose step takes over 0.2 s on one core of a 2.6 GHz Xeon.
    """
    slow = {"alexnet", "resnet18", "resnet50", "vit-small", "unet", "bert", "gpt2"}
    return tuple(n for n in NETS if (torch or n.by != "torch") and not (quick and n.name in slow))
