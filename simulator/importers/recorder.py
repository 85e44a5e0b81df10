"""Recorder: writes down every op of a step that PyTorch runs on fake tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from roofcast.simulator.importers.aten import works
from roofcast.simulator.importers.aten_products import Called, Work
from roofcast.simulator.importers.aten_tables import LEFT_OUT
from roofcast.simulator.importers.cuda_dispatch import DeviceAnswers
from roofcast.simulator.importers.module_path import ModulePath, snake
from roofcast.simulator.importers.record import (
    KeptStorage,
    Launch,
    OwnedWeight,
    Record,
    bytes_of,
    format_of,
    key_of,
)
from roofcast.simulator.importers.torch_extra import (
    CPU,
    CUDA,
    DEVICE_OF,
    FakeTensor,
    TorchDispatchMode,
    aten,
    tensors,
    torch,
    tree_map,
)
from roofcast.simulator.importers.user_code import Clock
from roofcast.simulator.work.traced import Node
from roofcast.simulator.work.value import Value

LABELS = {"matmul": "linear", "conv": "conv", "depthwise": "conv", "attention": "attention"}
# lookups -> position of the argument that asks for a sparse gradient
SPARSE_FLAG = {"embedding": 4, "_embedding_bag": 5}
HEAVY = ("attention", "linear", "conv")


class _Packed(NamedTuple):
    """A storage as autograd packs it."""

    sequence: int  # of the autograd function that keeps it
    bytes: int
    kind: str
    node: int


class Recorder(TorchDispatchMode):
    """Sees ops as they reach the device: below autograd and autocast, above the fake tensors."""

    def __init__(self, answers: DeviceAnswers, path: ModulePath, real: bool, clock: Clock):
        super().__init__()
        self.answers, self.path, self.real, self.clock = answers, path, real, clock
        self.device = None if real else (CUDA if answers.gpu else CPU)
        self.phase = "forward"
        self.nodes: list[Node] = []
        self.launches: list[Launch] = []
        self.unknown: dict[str, tuple[int, float]] = {}
        self.left_out: dict[str, float] = {}
        self.node = -1
        self.by_name: dict[str, int] = {}
        self.by_sequence: dict[int, int] = {}  # autograd function -> node
        self.launched: dict[int, int] = {}  # autograd function -> forward kernels up to its op
        self.after = 0  # forward kernels launched up to the op at hand
        # address -> our number; holding the storage keeps the address from being reused
        self.storages: dict[int, tuple[int, torch.UntypedStorage]] = {}
        self.kinds: dict[int, str] = {}  # storage -> kind
        self.kept: dict[int, _Packed] = {}
        self.moved: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # id -> fake, original
        # storage -> names of the inputs from which its values follow
        self.sources: dict[int, frozenset[str]] = {}
        self.looked_up: dict[int, int] = {}  # storage of a table with sparse gradients -> elements
        self.asked: tuple[str, ...] = ()  # inputs whose values the last op that failed asked for

    # -------------------------------------------------------------- values
    def storage(self, t: torch.Tensor) -> int:
        """Number of a tensor's storage, from 1 in the order of first use."""
        key = key_of(t)
        if key not in self.storages:
            self.storages[key] = len(self.storages) + 1, t.untyped_storage()
        return self.storages[key][0]

    def value(self, t: torch.Tensor, grad: bool) -> Value:
        """The tensor as a value of the tape."""
        storage, held = self.storage(t), t.untyped_storage().nbytes()
        kind = self.kinds.get(storage, "activation")
        value = Value(tuple(t.shape), format_of(t.dtype), storage, grad, kind, 1, held)
        value.bytes = bytes_of(t)
        return value

    def mark(self, kind: str, tensors: Iterable[torch.Tensor]) -> None:
        """Declare the kind of tensors: parameter, buffer or input."""
        for t in tensors:
            self.kinds.setdefault(self.storage(t), kind)

    def name_sources(
        self, names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        """Note which input every tensor among the arguments is. names: of those in order."""
        named = {**dict(zip(names, args, strict=True)), **kwargs}
        for name, tree in named.items():
            for t in tensors(tree):
                self.sources[self.storage(t)] = frozenset((name,))

    def _from(self, tensors: Sequence[torch.Tensor]) -> frozenset[str]:
        found = [s for t in tensors if (s := self.sources.get(self.storage(t)))]
        return found[0].union(*found[1:]) if found else frozenset()

    # -------------------------------------------------------------- nodes
    def at(self, name: str, op: str) -> int:
        """Index of the node called `name`, which is created if it does not exist."""
        index = self.by_name.get(name)
        if index is None:
            index = self.by_name[name] = len(self.nodes)
            self.nodes.append(Node(name, op, 1, 0))
        elif op in HEAVY and self.nodes[index].op not in HEAVY:
            self.nodes[index] = self.nodes[index]._replace(op=op)
        return index

    def here(self, name: str, work: Sequence[Work]) -> int:
        """Index of the node of aten op `name`.

        That is the running submodule if it is a leaf, else a node for the op by itself. In backward
        it is the node whose forward op created the autograd function.
        """
        if self.phase == "backward" and len(self.path.stack) == 1:
            function = torch._C._current_autograd_node()
            if function is None:
                return self.node
            return self.by_sequence.get(function._sequence_nr(), self.node)
        where, kind, leaf = self.path.stack[-1]
        heavy = next((LABELS[w.kind] for w in work if w.kind in LABELS), None)
        if self.answers.attending:
            name, heavy = "scaled_dot_product_attention", "attention"
        if leaf:
            return self.at(where, heavy or snake(kind))
        plain = name.strip("_")
        return self.at(f"{where}.{plain}" if where else plain, heavy or plain)

    # -------------------------------------------------------------- ops
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is compiled, and PyTorch's guard against that costs time at each op."""
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunction():  # no mode needs to see what is asked of tensors here
            return self._dispatched(func, args, kwargs or {})

    def _dispatched(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        if func is DEVICE_OF:
            return self.answers.device(args[0])
        if not self.real:
            args, kwargs = self._placed(func, args, kwargs)
        ins = _strided((args, kwargs))
        if func is aten._to_copy.default and self._stays(ins[0], kwargs):
            func, kwargs = aten.alias.default, {}
        self.answers.below += 1
        self.clock.ops += 1
        try:
            out = func(*args, **kwargs)
        except Exception:
            self.asked = tuple(sorted(self._from(ins)))
            raise
        finally:
            self.answers.below -= 1
        outs = _strided(out)
        grad = torch.is_grad_enabled() and any(t.requires_grad for t in ins)
        self.answers.fresh = frozenset(map(id, outs)) if grad else frozenset()
        self._write(func, Called(args, kwargs, ins, outs, bytes_of), grad)
        return out

    def _placed(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
        """The arguments on the traced device; real tensors that the module holds become fake."""
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": self.device}
        given = tensors((args, kwargs))
        if not given:
            return args, {**kwargs, "device": self.device} if _makes_tensor(func) else kwargs
        here = [isinstance(a, FakeTensor) and a.fake_device == self.device for a in given]
        if any(here) and not all(here):
            args, kwargs = tree_map(self._moved_here, (args, kwargs))
        return args, kwargs

    def _moved_here(self, a: Any) -> Any:
        """A tensor of another device on the traced one; scalars and anything else as they are."""
        if not isinstance(a, torch.Tensor) or not a.dim() or a.layout is not torch.strided:
            return a
        if isinstance(a, FakeTensor) and a.fake_device == self.device:
            return a
        if id(a) not in self.moved:
            with self.answers.mode:
                fake = torch.empty_strided(a.shape, a.stride(), dtype=a.dtype, device=self.device)
            self.moved[id(a)] = (fake, a)
        return self.moved[id(a)][0]

    def _stays(self, t: torch.Tensor, kwargs: dict[str, Any]) -> bool:
        """Whether a copy is requested only because Python and C++ see different devices.

        On a GPU, no copy would happen.
        """
        return (
            self.answers.gpu
            and kwargs.get("device") is not None
            and isinstance(t, FakeTensor)
            and t.fake_device == self.device
            and kwargs.get("dtype", t.dtype) == t.dtype
            and kwargs.get("memory_format") in (None, torch.preserve_format)
        )

    def _write(self, func: Any, c: Called, grad: bool) -> None:
        """Record one op and its kernels. `grad`: autograd enters it into its graph."""
        schema = getattr(func, "_schema", None)
        name = schema.name.rpartition("::")[2] if schema is not None else str(func)
        mutable = schema is not None and schema.is_mutable
        operands = {key_of(t) for t in c.ins}
        view = bool(not mutable and c.outs and all(key_of(t) in operands for t in c.outs))
        silent = view or (not c.outs and not mutable)
        pointwise = torch.Tag.pointwise in getattr(func, "tags", ())
        kernels = [] if silent else works(name, pointwise, c)
        if kernels is None:
            kernels = [self._without_formula(name, c)]
        if kernels or not view:
            self.node = self.here(name, kernels)
        if self.phase == "forward":
            if self.sources and (of := self._from(c.ins)):
                self.sources.update((self.storage(t), of) for t in c.outs)
            if (
                name in SPARSE_FLAG
                and len(c.args) > SPARSE_FLAG[name]
                and c.args[SPARSE_FLAG[name]]
            ):
                table = self.storage(c.args[0])
                elements = c.args[1].numel() * c.args[0].shape[-1]
                self.looked_up[table] = self.looked_up.get(table, 0) + elements
            sequence = torch._C._autograd._get_sequence_nr() - 1
            self.after += len(kernels)
            self.by_sequence.setdefault(sequence, self.node)
            self.launched.setdefault(sequence, self.after)
            if name == "_to_copy" and not view and self._kind(c.ins[0]) == "parameter":
                self.kinds[self.storage(c.outs[0])] = "weight_copy"
        elif (function := torch._C._current_autograd_node()) is not None:
            self.after = self.launched.get(function._sequence_nr(), self.after)
        if kernels:
            values = self._values(c, grad)
            self.launches += self._launched(name, kernels, c, *values)
        self._written(name, pointwise, c, grad, bool(kernels))

    def _written(self, name: str, pointwise: bool, c: Called, grad: bool, launches: bool) -> None:
        """Called after each op that was recorded."""

    def _kind(self, t: torch.Tensor) -> str | None:
        return self.kinds.get(self.storage(t))

    def _without_formula(self, name: str, c: Called) -> Work:
        """Count an op without a formula; it is costed as an elementwise kernel."""
        calls, bytes_ = self.unknown.get(name, (0, 0.0))
        tensors = (*c.ins, *c.outs)
        self.unknown[name] = calls + 1, bytes_ + sum(map(bytes_of, tensors))
        return Work("elementwise", vector=max((t.numel() for t in tensors), default=0))

    def _values(self, c: Called, grad: bool) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
        """Operands and results of an op as values."""
        inputs = tuple(self.value(t, t.requires_grad) for t in c.ins)
        outputs = tuple(self.value(t, grad and t.dtype.is_floating_point) for t in c.outs)
        return inputs, outputs

    def _launched(
        self,
        name: str,
        kernels: Sequence[Work],
        c: Called,
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
    ) -> Iterator[Launch]:
        """The launches of an op's kernels."""
        if name in LEFT_OUT and c.size_of is bytes_of:
            self.left_out[name] = self.left_out.get(name, 0.0) + sum(w.matrix for w in kernels)
        ins, outs = c.ins, c.outs
        read, written = sum(v.bytes for v in inputs), sum(v.bytes for v in outputs)
        operands = (t for t in ins if t.dtype.is_floating_point and t.dim())
        operand = next(operands, outs[0] if outs else ins[0])
        values = (inputs, outputs) if self.phase == "forward" else ((), ())
        node = max(self.node, 0)  # of a view that is the first op of all: the first node
        for w in kernels:
            dtype = format_of((operand if w.matrix or not outs else outs[0]).dtype)
            moved = read if w.read is None else w.read, written if w.written is None else w.written
            yield Launch(node, self.phase, name, w, dtype, *moved, *values, self.after)

    # -------------------------------------------------------------- kept for backward
    def pack(self, t: torch.Tensor) -> torch.Tensor:
        """Hook for every tensor that autograd keeps; a storage counts once."""
        if self.phase == "forward" and t.layout is torch.strided:
            storage = self.storage(t)
            base = getattr(t, "_base", None)
            own = self.kinds.get(storage, "activation")
            kind = own if base is None else self.kinds.get(self.storage(base), own)
            if kind not in ("parameter", "buffer") and storage not in self.kept:
                sequence = torch._C._autograd._get_sequence_nr() - 1
                size = t.untyped_storage().nbytes()
                self.kept[storage] = _Packed(sequence, size, kind, self.node)
        return t

    def record(
        self, weights: Iterable[tuple[str, torch.nn.Parameter]], inputs: Iterable[torch.Tensor]
    ) -> Record:
        """Everything that was recorded. `weights` are pairs of owner's name and parameter."""
        owned = []
        for owner, p in weights:
            node = self.at(owner or "parameters", "parameters")
            looked_up = self.looked_up.get(self.storage(p))
            dtype = format_of(p.dtype)
            owned.append(OwnedWeight(node, p.numel(), dtype, p.requires_grad, looked_up))
        kept = []
        for storage, packed in self.kept.items():
            node = self.by_sequence.get(packed.sequence, packed.node)
            kept.append(KeptStorage(max(node, 0), packed.bytes, packed.kind, storage))
        return Record(
            tuple(self.nodes),
            tuple(self.launches),
            tuple(kept),
            tuple(owned),
            tuple(self.value(t, False) for t in inputs),
            dict(self.unknown),
            dict(self.left_out),
        )


def _strided(tree: Any) -> list[torch.Tensor]:
    """The tensors with a memory of their own; the parts of sparse ones are tensors themselves."""
    return [t for t in tensors(tree) if t.layout is torch.strided]


_MAKERS: dict[Any, bool] = {}  # op -> whether it makes a tensor


def _makes_tensor(func: Any) -> bool:
    """Whether this op makes a tensor without operands, on the device of an argument."""
    if func not in _MAKERS:
        arguments = getattr(getattr(func, "_schema", None), "arguments", ())
        _MAKERS[func] = any(a.name == "device" for a in arguments)
    return _MAKERS[func]
