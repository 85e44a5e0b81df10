"""Records of one step of a torch module: kernels, kept storages, weights, named ops."""

from __future__ import annotations

from typing import NamedTuple

from roofcast.simulator.importers.aten_products import Work
from roofcast.simulator.importers.torch_extra import torch
from roofcast.simulator.work.traced import Node
from roofcast.simulator.work.value import Value

# torch's formats in ours; a format that we lack is represented by one of the same width
FORMATS = {
    torch.float64: "fp64", torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16",
    torch.int64: "int64", torch.int32: "int32", torch.int16: "fp16", torch.int8: "int8",
    torch.uint8: "uint8", torch.bool: "bool", torch.complex64: "fp64", torch.complex32: "fp32",
    torch.float8_e4m3fn: "fp8", torch.float8_e5m2: "fp8", torch.float8_e4m3fnuz: "fp8",
    torch.float8_e5m2fnuz: "fp8",
}  # fmt: skip


class Launch(NamedTuple):
    """One kernel that a step launches."""

    node: int
    phase: str  # forward | backward
    name: str  # of the aten op
    work: Work
    dtype: str
    read: float  # bytes
    written: float  # bytes
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    after: int  # forward kernels launched before it, or before the op whose gradient it computes


class KeptStorage(NamedTuple):
    """A storage that autograd keeps for backward."""

    node: int
    bytes: int
    kind: str  # activation | input | weight_copy
    storage: int


class OwnedWeight(NamedTuple):
    """A parameter and the node of the submodule that owns it."""

    node: int
    size: int
    dtype: str
    trainable: bool
    looked_up: int | None = None  # elements that lookups with sparse gradients read


class Record(NamedTuple):
    """Everything that one step did."""

    nodes: tuple[Node, ...]
    launches: tuple[Launch, ...]
    kept: tuple[KeptStorage, ...]
    weights: tuple[OwnedWeight, ...]
    inputs: tuple[Value, ...]
    unknown: dict[str, tuple[int, float]]  # aten op without a formula -> calls, bytes
    left_out: dict[str, float]  # aten op that PyTorch's FLOP counter ignores -> FLOPs

    def notes(self) -> list[str]:
        """Assumptions of a forecast: ops without a formula, and FLOPs that PyTorch leaves out."""
        lines = []
        if self.unknown:
            total = sum(k.read + k.written for k in self.launches) or 1.0
            share = 100 * sum(b for _, b in self.unknown.values()) / total
            by_bytes = sorted(self.unknown.items(), key=lambda item: -item[1][1])
            listed = ", ".join(f"{name} x{n}" for name, (n, _) in by_bytes)
            lines.append(
                "ops without a formula, costed by the bytes that they move"
                f" ({share:.{0 if share >= 10 else 1}f} % of all bytes): {listed}"
            )
        sparse = [w for w in self.weights if w.looked_up is not None and w.trainable]
        if sparse:
            listed = ", ".join(
                f"{self.nodes[w.node].name} {min(w.looked_up or 0, w.size):,} of {w.size:,}"
                for w in sparse[:3]
            )
            lines.append(
                f"sparse gradients, and only elements that were looked up are updated: {listed}"
            )
        if self.left_out:
            listed = ", ".join(f"{name} {flops:,.0f}" for name, flops in self.left_out.items())
            lines.append(f"FLOPs counted here but not by torch.utils.flop_counter: {listed}")
        return lines


def format_of(dtype: torch.dtype) -> str:
    """Our name of a torch format. Formats of 16 bytes per element have none and count as 8."""
    return FORMATS.get(dtype, "fp64")


def bytes_of(t: torch.Tensor) -> int:
    """Bytes that a kernel moves for a tensor: if it is broadcast, no more than its storage."""
    return min(t.numel() * t.element_size(), t.untyped_storage().nbytes())


def key_of(t: torch.Tensor) -> int:
    """Identity of the memory behind a tensor."""
    return t.untyped_storage()._cdata
