"""One step of a torch module, run forward and backward by PyTorch itself, every op that reaches the
device written down.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, NamedTuple

from roofcast.simulator.importers.aten import LEFT_OUT, Work, works
from roofcast.simulator.importers.fake import (
    CPU,
    CUDA,
    DEVICE_OF,
    FakeTensor,
    TorchDispatchMode,
    Words,
    aten,
    torch,
    tree_iter,
    tree_map,
)
from roofcast.simulator.work.tape import Value
from roofcast.simulator.work.traced import Node

FORMATS = {  # torch's formats in ours; those we lack stand for one of the same width
    torch.float64: "fp64", torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16",
    torch.int64: "int64", torch.int32: "int32", torch.int16: "fp16", torch.int8: "int8",
    torch.uint8: "uint8", torch.bool: "bool", torch.complex64: "fp64", torch.complex32: "fp32",
    torch.float8_e4m3fn: "fp8", torch.float8_e5m2: "fp8", torch.float8_e4m3fnuz: "fp8",
    torch.float8_e5m2fnuz: "fp8",
}  # fmt: skip
TENSOR = torch.Tensor


class Done(NamedTuple):
    """One kernel that a step launches."""

    node: int
    phase: str  # forward | backward
    name: str  # of the aten op
    work: Work
    dtype: str
    read: float
    written: float
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


class Kept(NamedTuple):
    """A storage that autograd keeps."""

    node: int
    bytes: int
    kind: str  # activation | input | weight_copy
    storage: int


class Record(NamedTuple):
    """All of one step."""

    nodes: tuple[Node, ...]
    done: tuple[Done, ...]
    kept: tuple[Kept, ...]
    weights: tuple[tuple[int, int, str, bool], ...]  # node, elements, format, trainable
    inputs: tuple[Value, ...]
    unknown: dict[str, tuple[int, float]]  # aten op without a formula -> calls, bytes
    left_out: dict[str, float]  # aten op that PyTorch's FLOP counter takes for nothing -> FLOPs


def format_of(dtype) -> str:
    """Our name of a torch format; 16 bytes an element have none and count as 8."""
    return FORMATS.get(dtype, "fp64")


def bytes_of(t) -> int:
    """Bytes a kernel moves of a tensor: a stretched one is no larger than its storage."""
    return min(t.numel() * t.element_size(), t.untyped_storage().nbytes())


def key_of(t) -> int:
    """Identity of the memory behind a tensor."""
    return t.untyped_storage()._cdata


class Path:
    """Which submodule runs, by name, from hooks around every forward."""

    def __init__(self, module):
        self.names = {m: name for name, m in module.named_modules()}
        self.leaves = {m for m in module.modules() if not any(True for _ in m.children())}
        self.stack: list[tuple[str, str, bool]] = [("", type(module).__name__, False)]

    @contextlib.contextmanager
    def watched(self):
        """Inside, the module that runs is known by its name."""
        hooks = (
            torch.nn.modules.module.register_module_forward_pre_hook(self._enter),
            torch.nn.modules.module.register_module_forward_hook(self._leave, always_call=True),
        )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, module, args):
        self.stack.append(
            (
                self.names.get(module, self.stack[-1][0]),
                type(module).__name__,
                module in self.leaves,
            )
        )

    def _leave(self, module, args, out):
        if len(self.stack) > 1:
            self.stack.pop()


class Recorder(TorchDispatchMode):
    """Stands where ops reach the device: below autograd and autocast, above the fake tensors."""

    def __init__(self, words: Words, path: Path, real: bool):
        super().__init__()
        self.words, self.path, self.real = words, path, real
        self.device = None if real else (CUDA if words.gpu else CPU)
        self.phase = "forward"
        self.nodes: list[Node] = []
        self.done: list[Done] = []
        self.unknown: dict[str, list] = {}
        self.left_out: dict[str, float] = {}
        self.node = -1
        self.by_name: dict[tuple[str, str], int] = {}
        self.by_sequence: dict[int, int] = {}
        self.storages: dict[
            int, tuple[int, Any]
        ] = {}  # address -> our number; the storage is held so that the address stays taken
        self.kinds: dict[int, str] = {}
        self.kept: dict[int, list] = {}
        self.moved: dict[int, tuple] = {}

    # -------------------------------------------------------------- values
    def storage(self, t) -> int:
        """Number of a tensor's storage, counted from 1 in the order of first sight."""
        key = key_of(t)
        if key not in self.storages:
            self.storages[key] = len(self.storages) + 1, t.untyped_storage()
        return self.storages[key][0]

    def value(self, t, grad: bool) -> Value:
        """The tensor as a value of the tape."""
        storage = self.storage(t)
        value = Value(
            tuple(t.shape),
            format_of(t.dtype),
            storage,
            grad,
            self.kinds.get(storage, "activation"),
            1,
            t.untyped_storage().nbytes(),
        )
        value.bytes = bytes_of(t)
        return value

    def mark(self, kind: str, tensors):
        """These tensors are of that kind: parameter, buffer, input."""
        for t in tensors:
            self.kinds.setdefault(self.storage(t), kind)

    # -------------------------------------------------------------- nodes
    def at(self, name: str, op: str) -> int:
        """The node of that name, made where there is none yet."""
        index = self.by_name.get(name)
        if index is None:
            index = self.by_name[name] = len(self.nodes)
            self.nodes.append(Node(name, op, 1, 0))
        elif op in ("attention", "linear", "conv") and self.nodes[index].op not in (
            "attention",
            "linear",
            "conv",
        ):
            self.nodes[index] = self.nodes[index]._replace(op=op)
        return index

    def here(self, name: str, work: list[Work]) -> int:
        """The node that an op belongs to: its module; inside a larger module, the op by itself."""
        if self.phase == "backward" and len(self.path.stack) == 1:
            node = torch._C._current_autograd_node()
            return (
                self.by_sequence.get(node._sequence_nr(), self.node)
                if node is not None
                else self.node
            )
        where, kind, leaf = self.path.stack[-1]
        heavy = next((LABELS[w.kind] for w in work if w.kind in LABELS), None)
        if leaf:
            return self.at(where, heavy or snake(kind))
        plain = name.strip("_")
        return self.at(f"{where}.{plain}" if where else plain, heavy or plain)

    # -------------------------------------------------------------- ops
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is DEVICE_OF:
            return self.words.device(args[0])
        if not self.real:
            args, kwargs = self.placed(func, args, kwargs)
        ins = [a for a in tree_iter((args, kwargs)) if isinstance(a, TENSOR)]
        if func is aten._to_copy.default and self.stays(ins[0], kwargs):
            func, kwargs = aten.alias.default, {}
        self.words.below += 1
        try:
            out = func(*args, **kwargs)
        finally:
            self.words.below -= 1
        outs = [t for t in tree_iter(out) if isinstance(t, TENSOR)]
        grad = torch.is_grad_enabled() and any(t.requires_grad for t in ins)
        self.words.fresh = frozenset(map(id, outs)) if grad else frozenset()
        self.write(func, args, kwargs, ins, outs, grad)
        return out

    def placed(self, func, args, kwargs):
        """Arguments on one device: what is made or moved is made or moved to ours; a real tensor
        that the module holds is made fake.
        """
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": self.device}
        given = [a for a in tree_iter((args, kwargs)) if isinstance(a, TENSOR)]
        if not given:
            return args, {**kwargs, "device": self.device} if makes(func) else kwargs
        if any(isinstance(a, FakeTensor) and a.fake_device == self.device for a in given):
            args, kwargs = tree_map(self.here_too, (args, kwargs))
        return args, kwargs

    def here_too(self, a):
        """A tensor of another device as one on the device that is asked for; others as they are."""
        if (
            not isinstance(a, TENSOR)
            or not a.dim()
            or (isinstance(a, FakeTensor) and a.fake_device == self.device)
        ):
            return a
        if id(a) not in self.moved:
            with self.words.mode:
                self.moved[id(a)] = (
                    torch.empty_strided(a.shape, a.stride(), dtype=a.dtype, device=self.device),
                    a,
                )
        return self.moved[id(a)][0]

    def stays(self, t, kwargs) -> bool:
        """A copy asked for only because Python and C++ were told of different devices: nothing
        happens on a GPU.
        """
        return (
            self.words.gpu
            and kwargs.get("device") is not None
            and isinstance(t, FakeTensor)
            and t.fake_device == self.device
            and kwargs.get("dtype", t.dtype) == t.dtype
            and kwargs.get("memory_format") in (None, torch.preserve_format)
        )

    def write(self, func, args, kwargs, ins, outs, grad):
        """One op as it reached the device, with its kernels and what it keeps."""
        name = func._schema.name.rpartition("::")[2] if hasattr(func, "_schema") else str(func)
        mutable = func._schema.is_mutable if hasattr(func, "_schema") else False
        held = {key_of(t) for t in ins}
        view = not mutable and outs and all(key_of(t) in held for t in outs)
        pointwise = torch.Tag.pointwise in getattr(func, "tags", ())
        kernels = (
            []
            if view or (not outs and not mutable)
            else works(name, pointwise, args, kwargs, ins, outs, bytes_of)
        )
        if kernels is None:
            kernels = [
                Work("elementwise", vector=max((t.numel() for t in (*ins, *outs)), default=0))
            ]
            entry = self.unknown.setdefault(name, [0, 0.0])
            entry[0] += 1
            entry[1] += sum(map(bytes_of, ins)) + sum(map(bytes_of, outs))
        if kernels or not view:
            self.node = self.here(name, kernels)
        if self.phase == "forward":
            self.by_sequence.setdefault(torch._C._autograd._get_sequence_nr() - 1, self.node)
            if (
                name == "_to_copy"
                and not view
                and self.kinds.get(self.storage(ins[0])) == "parameter"
            ):
                self.kinds[self.storage(outs[0])] = "weight_copy"
        if not kernels:
            return
        if name in LEFT_OUT:
            self.left_out[name] = self.left_out.get(name, 0.0) + sum(w.matrix for w in kernels)
        inputs = tuple(self.value(t, t.requires_grad) for t in ins)
        outputs = tuple(self.value(t, grad and t.dtype.is_floating_point) for t in outs)
        read, written = sum(v.bytes for v in inputs), sum(v.bytes for v in outputs)
        given = next(
            (t for t in ins if t.dtype.is_floating_point and t.dim()), outs[0] if outs else ins[0]
        )
        forward = self.phase == "forward"
        for w in kernels:
            self.done.append(
                Done(
                    self.node,
                    self.phase,
                    name,
                    w,
                    format_of((given if w.matrix else outs[0] if outs else given).dtype),
                    read if w.read is None else w.read,
                    written if w.written is None else w.written,
                    inputs if forward else (),
                    outputs if forward else (),
                )
            )

    # -------------------------------------------------------------- what autograd keeps
    def pack(self, t):
        """Called for every tensor that autograd keeps; one storage counts once."""
        if self.phase == "forward":
            storage = self.storage(t)
            base = getattr(t, "_base", None)
            kind = self.kinds.get(
                self.storage(base) if base is not None else storage,
                self.kinds.get(storage, "activation"),
            )
            if kind not in ("parameter", "buffer") and storage not in self.kept:
                self.kept[storage] = [
                    torch._C._autograd._get_sequence_nr() - 1,
                    t.untyped_storage().nbytes(),
                    kind,
                    self.node,
                ]
        return t

    def record(self, weights, inputs) -> Record:
        """All that was written, frozen. `weights`: (name of the owner, parameter) each."""
        owned = tuple(
            (
                self.at(owner or "parameters", "parameters"),
                p.numel(),
                format_of(p.dtype),
                p.requires_grad,
            )
            for owner, p in weights
        )
        kept = tuple(
            Kept(self.by_sequence.get(seq, max(node, 0)), size, kind, storage)
            for storage, (seq, size, kind, node) in self.kept.items()
        )
        return Record(
            tuple(self.nodes),
            tuple(self.done),
            kept,
            owned,
            tuple(self.value(t, False) for t in inputs),
            {k: (n, b) for k, (n, b) in self.unknown.items()},
            dict(self.left_out),
        )


LABELS = {"matmul": "linear", "conv": "conv", "depthwise": "conv", "attention": "attention"}
_makers: dict[Any, bool] = {}


def makes(func) -> bool:
    """Does this op make a tensor out of nothing, on a device it is told?"""
    if func not in _makers:
        _makers[func] = any(
            a.name == "device" for a in getattr(getattr(func, "_schema", None), "arguments", ())
        )
    return _makers[func]


def snake(name: str) -> str:
    """BatchNorm2d -> batch_norm2d.

    >>> snake("LayerNorm"), snake("LlamaRMSNorm"), snake("LeakyReLU")
    ('layer_norm', 'llama_rms_norm', 'leaky_relu')
    """
    name = re.sub(r"(Re|Si|GE|SE|CE|E)LU(?=\d|[A-Z]|$)", lambda found: found[0].capitalize(), name)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
