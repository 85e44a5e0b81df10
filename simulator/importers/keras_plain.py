"""What every Keras layer is as a torch module: the layer, and learned tensors of its sizes."""

from __future__ import annotations

from typing import Any

from roofcast.simulator.importers.torch_extra import torch

nn = torch.nn
ORDER = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the rank of the filters


class Plain(nn.Module):
    """A layer of Keras as one library call. `layer`: the Keras layer, which has been built."""

    kernel: torch.Tensor

    def __init__(self, layer: Any):
        super().__init__()
        self.own = (layer,)  # in a tuple, since a Keras layer is itself a torch module
        self.frozen = not layer.trainable

    def weight(self, name: str, *shape: int) -> None:
        """A learned tensor of the layer."""
        empty = torch.empty(shape)
        if len(shape) in ORDER and getattr(self.layer, "data_format", "") == "channels_last":
            empty = empty.contiguous(memory_format=ORDER[len(shape)])
        made = nn.Parameter(empty, requires_grad=not self.frozen)
        self.register_parameter(name, made)

    @property
    def layer(self) -> Any:
        """The Keras layer."""
        return self.own[0]
