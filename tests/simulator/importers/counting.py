"""PyTorch's own counts of one step that really runs on a CPU.

FLOPs by FlopCounterMode, bytes kept for backward by saved_tensors_hooks.
"""

from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from roofcast.simulator.importers import spec
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape

aten = torch.ops.aten
DTYPES = {"int64": torch.int64, None: torch.float32}


class Counts(NamedTuple):
    """FLOPs, and bytes kept for backward."""

    parameters: int
    forward: int
    backward: int
    saved: int  # activations
    saved_inputs: int
    weight_copies: int


class GroupedGradients(TorchDispatchMode):
    """FLOPs by which the counter overstates the weight gradients of grouped convolutions."""

    excess = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is aten.convolution_backward.default and args[9] > 1 and args[10][1]:
            dy, x, w = args[:3]
            n = (x if args[7] else dy)[0, 0].numel()
            whole = 2 * x.shape[0] * x.shape[1] * dy.shape[1] * w[0, 0].numel() * n
            self.excess += whole - whole // args[9]
        return func(*args, **(kwargs or {}))


class WeightCopies(TorchDispatchMode):
    """Storages that hold a weight in another format."""

    def __init__(self, weights):
        super().__init__()
        self.weights, self.found = weights, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is aten._to_copy.default and address(args[0]) in self.weights:
            self.found[address(out)] = out
        return out


def address(t):
    return t.untyped_storage().data_ptr()


def fed(inputs):
    made = [spec.parse(text) for text in inputs]
    return [torch.randn(i.shape) if i.dtype is None else torch.randint(0, 2, i.shape) for i in made]


def leaves(out):
    if isinstance(out, torch.Tensor):
        return [out]
    return [t for v in (out.values() if isinstance(out, dict) else out) for t in leaves(v)]


def really(module, inputs, autocast=None) -> Counts:
    """Counts of a step that runs on this machine's CPU with real numbers."""
    torch.manual_seed(0)
    module.train()
    tensors = fed(inputs)
    weights = {address(p) for p in module.parameters()}
    constant = weights | {address(b) for b in module.buffers()}
    given = {address(t) for t in tensors}
    kept = {}

    def pack(t):
        kept[address(t)] = t.untyped_storage()
        return t

    forward, backward = FlopCounterMode(display=False), FlopCounterMode(display=False)
    copies, grouped = WeightCopies(weights), GroupedGradients()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), forward, copies:
        with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
            out = module(*tensors)
    ends = [t if t.dim() == 0 else t.sum() for t in leaves(out) if t.requires_grad]
    size = {a: s.nbytes() for a, s in kept.items() if a not in constant and s.nbytes()}
    copied = sum(n for a, n in size.items() if a in copies.found)
    inputs_kept = sum(n for a, n in size.items() if a in given)
    with backward, grouped:
        torch.autograd.backward(ends)
    return Counts(
        sum(p.numel() for p in module.parameters()),
        forward.get_total_flops(),
        backward.get_total_flops() - grouped.excess,
        sum(size.values()) - copied - inputs_kept,
        inputs_kept,
        copied,
    )


def imported(model, how="fp32", attention="flash") -> tuple[Counts, Tape]:
    """Counts of an imported Model, and its tape."""
    tape = model.run(Tape(precision(how), implementations={"attention": attention}), model.batch)
    flops = {
        phase: sum(k.matrix * k.count for k in tape.kernels if k.phase == phase)
        for phase in ("forward", "backward")
    }
    kept = {
        kind: sum(s.bytes * s.count for s in tape.saved.values() if s.kind == kind)
        for kind in ("activation", "input", "weight_copy")
    }
    weights = sum(w.size * w.count for w in tape.weights)
    counts = Counts(weights, int(flops["forward"]), int(flops["backward"]), *kept.values())
    return counts, tape


def uncounted(tape) -> tuple[int, int]:
    """Forward and backward FLOPs that FlopCounterMode ignores: a CPU's fused attention and LSTM."""
    fused = {"forward": 0, "backward": 0}
    lstm = "mkldnn_rnn_layer" in " ".join(tape.assumptions)
    for k in tape.kernels:
        if k.kind == "attention" or (lstm and tape.nodes[k.node].name == "rnn"):
            fused[k.phase] += int(k.matrix)
    return fused["forward"], fused["backward"]
