"""Keras layers as torch modules: the kernels that a library runs for them.

Keras composes many layers of several operations on its torch backend: an LSTM of one cell per
token, a batch norm of means and products. Here they are one call of the library, as they are in
TensorFlow and in PyTorch. Weights have Keras's sizes (a recurrent layer has one bias). Tensors keep
Keras's order, channels last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from roofcast.simulator.importers.keras_extra import keras
from roofcast.simulator.importers.keras_plain import Plain
from roofcast.simulator.importers.keras_spatial import (
    Conv,
    ConvTranspose,
    DepthwiseConv,
    GlobalPool,
    Pool,
    SeparableConv,
)
from roofcast.simulator.importers.torch_extra import F, torch


class Activation(Plain):
    """The activation at the end of a layer, called by the layer's module."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The function of the layer's `activation`."""
        return self.layer.activation(x)


class Linear(Plain):
    """Dense: inputs [..., features] times a kernel, plus a bias."""

    def __init__(self, layer: Any):
        super().__init__(layer)
        self.weight("kernel", layer.units, layer.kernel.shape[0])
        if layer.use_bias:
            self.weight("bias", layer.units)

    def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
        """[..., units]."""
        return F.linear(x, self.kernel, getattr(self, "bias", None))


class BatchNorm(Plain):
    """BatchNormalization; a frozen one normalizes by its moving statistics, as Keras does."""

    mean: torch.Tensor
    variance: torch.Tensor

    def __init__(self, layer: Any):
        super().__init__(layer)
        width = layer.moving_mean.shape[0]
        self.axis = layer.axis
        self.register_buffer("mean", torch.empty(width))
        self.register_buffer("variance", torch.empty(width))
        for name, there in (("gamma", layer.scale), ("beta", layer.center)):
            if there:
                self.weight(name, width)

    def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
        """Normalized over all axes but one."""
        gamma, beta = getattr(self, "gamma", None), getattr(self, "beta", None)
        training, k = self.training and not self.frozen, self.layer
        rest = (gamma, beta, training, 1 - k.momentum, k.epsilon)
        out = F.batch_norm(x.movedim(self.axis, 1), self.mean, self.variance, *rest)
        return out.movedim(1, self.axis)


class LayerNorm(Plain):
    """LayerNormalization over the last axes."""

    def __init__(self, layer: Any):
        super().__init__(layer)
        axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
        self.shape = tuple(_sizes(layer, axes))
        if layer.scale:
            self.weight("gamma", *self.shape)
        if layer.center:
            self.weight("beta", *self.shape)

    def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
        """Normalized per position."""
        gamma, beta = getattr(self, "gamma", None), getattr(self, "beta", None)
        return F.layer_norm(x, self.shape, gamma, beta, self.layer.epsilon)


def _sizes(layer: Any, axes: Sequence[int]) -> Sequence[int]:
    """Lengths of the axes that a norm covers."""
    learned = layer.gamma if layer.scale else layer.beta if layer.center else None
    if learned is not None:
        return tuple(learned.shape)
    return [layer.input.shape[axis] for axis in axes]


class Embedding(Plain):
    """Embedding: a learned vector per id."""

    table: torch.Tensor

    def __init__(self, layer: Any):
        super().__init__(layer)
        self.weight("table", layer.input_dim, layer.output_dim)

    def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
        """[..., width] for ids of any format."""
        return F.embedding(x if x.dtype == torch.int64 else x.long(), self.table)


class Dropout(Plain):
    """Dropout with a mask of its own for every element."""

    def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
        """x, with some elements zero in training."""
        return F.dropout(x, self.layer.rate, self.training)


GATES: dict[str, int] = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}
CELLS: dict[str, Callable[..., Any]] = {
    "LSTM": torch._VF.lstm, "GRU": torch._VF.gru, "SimpleRNN": torch._VF.rnn_tanh,
}  # fmt: skip


class Recurrent(Plain):
    """LSTM, GRU, SimpleRNN, also both ways: one call of the library."""

    def __init__(self, layer: Any):
        super().__init__(layer)
        self.both = isinstance(layer, keras.layers.Bidirectional)
        cells = [layer.forward_layer, layer.backward_layer] if self.both else [layer]
        self.cells = (cells[0],)
        self.kind = type(self.cell).__name__
        gates, hidden = GATES[self.kind] * self.cell.units, self.cell.units
        for i, cell in enumerate(cells):
            kernel = cell.kernel if hasattr(cell, "kernel") else cell.cell.kernel
            self.weight(f"kernel{i}", gates, kernel.shape[0])
            self.weight(f"recurrent{i}", gates, hidden)
            if self.cell.use_bias:
                self.weight(f"bias{i}", gates)
                if self.kind == "GRU" and self.cell.reset_after:
                    self.weight(f"recurrent_bias{i}", gates)
                else:
                    self.register_buffer(f"recurrent_bias{i}", torch.zeros(gates))

    @property
    def cell(self) -> Any:
        """The Keras layer of the forward direction."""
        return self.cells[0]

    def forward(self, x: torch.Tensor, initial_state: Any = None, **_: Any) -> Any:
        """States [B, tokens, units], or the last; with the states behind it where asked."""
        ways = 2 if self.both else 1
        names = ["kernel", "recurrent"] + ["bias", "recurrent_bias"] * self.cell.use_bias
        flat = [getattr(self, f"{name}{i}") for i in range(ways) for name in names]
        state = torch.zeros(ways, x.shape[0], self.cell.units, dtype=x.dtype, device=x.device)
        start: Any = (state, state) if self.kind == "LSTM" else state
        if initial_state is not None:
            given = initial_state if isinstance(initial_state, (list, tuple)) else [initial_state]
            each = [torch.stack([s]) if s.dim() == 2 else s for s in given]
            if not self.both:
                start = tuple(each) if self.kind == "LSTM" else each[0]
        bias, call = self.cell.use_bias, CELLS[self.kind]
        out, *states = call(x, start, flat, bias, 1, 0.0, self.training, self.both, True)
        whole = out if self.cell.return_sequences else self._end(out, states[0])
        if not self.cell.return_state:
            return whole
        return [whole, *(s[i] for i in range(ways) for s in states)]

    def _end(self, out: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """The last state, of both directions."""
        if not self.both:
            return out[:, -1]
        mode = self.layer.merge_mode
        if mode == "concat":
            return torch.cat([last[0], last[1]], -1)
        return last[0] * last[1] if mode == "mul" else last[0] + last[1]


def _plain_cell(layer: Any) -> bool:
    """Does a library compute this recurrent layer in one call?"""
    kind = type(layer).__name__
    names = ("activation", "recurrent_activation")
    found = [getattr(getattr(layer, n, None), "__name__", "") for n in names]
    usual = found[0] == "tanh" and found[1] in ("", "sigmoid")
    return kind in GATES and usual and not layer.recurrent_dropout and not layer.unroll


def _library_recurrent(layer: Any) -> bool:
    if not isinstance(layer, keras.layers.Bidirectional):
        return _plain_cell(layer) and not layer.go_backwards
    one, other = layer.forward_layer, layer.backward_layer
    merged = layer.merge_mode == "concat" or (layer.merge_mode and not one.return_sequences)
    return bool(_plain_cell(one) and _plain_cell(other) and merged)


_L = keras.layers
TWINS: dict[type, type[Plain]] = {
    _L.Dense: Linear,
    _L.Conv1D: Conv, _L.Conv2D: Conv, _L.Conv3D: Conv,
    _L.DepthwiseConv1D: DepthwiseConv, _L.DepthwiseConv2D: DepthwiseConv,
    _L.SeparableConv1D: SeparableConv, _L.SeparableConv2D: SeparableConv,
    _L.Conv1DTranspose: ConvTranspose, _L.Conv2DTranspose: ConvTranspose,
    _L.Conv3DTranspose: ConvTranspose,
    **{getattr(_L, f"{kind}Pooling{n}D"): Pool for kind in ("Max", "Average") for n in (1, 2, 3)},
    **{
        getattr(_L, f"Global{kind}Pooling{n}D"): GlobalPool
        for kind in ("Max", "Average") for n in (1, 2, 3)
    },
    _L.BatchNormalization: BatchNorm, _L.LayerNormalization: LayerNorm,
    _L.Embedding: Embedding, _L.Dropout: Dropout,
    _L.LSTM: Recurrent, _L.GRU: Recurrent, _L.SimpleRNN: Recurrent,
    _L.Bidirectional: Recurrent,
}  # fmt: skip


def twin(layer: Any) -> Plain | None:
    """The module of a built layer of Keras itself; None where Keras's own operations are run."""
    kind = TWINS.get(type(layer))
    if kind is None or not layer.built or getattr(layer, "quantization_mode", None):
        return None
    if kind is Recurrent and not _library_recurrent(layer):
        return None
    if kind is Dropout and layer.noise_shape not in (None, [], ()):
        return None
    if kind is LayerNorm and not _last_axes(layer):
        return None
    return kind(layer)


def _last_axes(layer: Any) -> bool:
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    rank = max(axes) + 1 if min(axes) >= 0 else 0
    return sorted(a - rank for a in axes) == list(range(-len(axes), 0)) and not getattr(
        layer, "rms_scaling", False
    )
