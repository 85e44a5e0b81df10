"""The tape: a model run on it leaves every kernel a step launches and every byte it keeps for
backward.

A model is a program over `Value`s, as a PyTorch module is; the tape plays PyTorch's part. It holds
shapes and formats instead of numbers, follows autocast's casts, and at each op writes down the
forward kernels, the backward kernels that autograd will run for it, and which storages autograd
keeps. A storage kept twice is counted once.

A repeated block is traced once: `repeat` multiplies it, and knows that what one block hands on is
what the next one gets, so that a tensor kept by both neighbours still counts once.
"""

from __future__ import annotations

from contextlib import contextmanager
from math import prod

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.work.precision import WIDTH, Precision, promote
from roofcast.simulator.work.traced import ALONE, Block, Kernel, Node, Parallel, Traffic, Weight


class Value:
    """A tensor without numbers: shape, format, and the storage it lives in (views share their
    base's).
    """

    __slots__ = (
        "shape",
        "dtype",
        "storage",
        "size",
        "bytes",
        "held",
        "grad",
        "kind",
        "repeats",
        "split",
    )

    def __init__(
        self, shape, dtype, storage, grad=False, kind="activation", repeats=1, held=None, split=None
    ):
        self.shape = shape
        self.dtype = dtype
        self.storage = storage  # identity of the memory behind it
        self.size = prod(shape)  # elements
        self.bytes = self.size * WIDTH[dtype]
        # bytes of the storage: more than its own where it is a slice
        self.held = self.bytes if held is None else held
        self.grad = grad  # does a gradient flow to it
        self.kind = kind  # activation | parameter | buffer | input | weight_copy
        self.repeats = repeats  # how often the block it was made in is repeated
        # what of it one tensor-parallel rank holds: None all, "features" or "tokens" a share
        self.split = split

    def __repr__(self):
        return f"{self.dtype}{list(self.shape)}"


def _like(v: Value):
    return v.shape, v.dtype, v.grad


class Tape:
    """What a model is run on: ops put their kernels here, and what autograd keeps."""

    def __init__(
        self,
        precision: Precision,
        *,
        training: bool = True,
        implementations: dict | None = None,
        parallel: Parallel = ALONE,
    ):
        self.precision = precision
        self.parallel = parallel
        self.traffic: list[Traffic] = []
        self._gathered: dict[int, Value] = {}
        self.narrow: set[int] = set()  # storages cast for an 8- or 4-bit product
        self.training = training
        self.implementations = implementations or {}
        self.nodes: list[Node] = []
        self.kernels: list[Kernel] = []
        self.weights: list[Weight] = []
        self.blocks: list[Block] = [Block("", 1, 0.0)]
        self.saved: dict[
            int, list
        ] = {}  # storage -> [node, bytes, count, kind, last instance kept too]
        self.inputs: list[Value] = []
        self.said: list[str] = []  # what the model had to assume
        self._path: list[str] = []
        self._node = -1
        self._inside = False
        self._block = 0
        self._repeats = 1
        self._storages = 0
        self._uses: dict[int, int] = {}
        self._casts: dict[tuple[int, tuple, str], Value] = {}
        self._parameters: dict[str, Value] = {}
        self._kept: dict[
            int, int
        ] = {}  # storages from outside this block that an op inside it keeps -> that op

    # ------------------------------------------------------------------ structure
    @contextmanager
    def scope(self, name: str):
        """Ops inside are named `name.`..."""
        self._path.append(name)
        try:
            yield
        finally:
            self._path.pop()

    @contextmanager
    def op(self, name: str, kind: str):
        """Kernels and saved tensors inside belong to one named op; an op inside another belongs to
        the outer one.
        """
        if self._inside:
            yield
            return
        self._inside = True
        self.nodes.append(
            Node(".".join(filter(None, (*self._path, name))), kind, self._repeats, self._block)
        )
        self._node = len(self.nodes) - 1
        try:
            yield
        finally:
            self._inside = False

    def implementation(self, op: str, default: str) -> str:
        """How this stack runs an op: 'composed', 'fused', 'eager', 'flash' ..."""
        return self.implementations.get(op, default)

    def repeat(self, name: str, count: int, body, *carried: Value):
        """Run `body(*carried)` `count` times, each on what the one before handed on; traced once.

        Where the first block gets another format than it hands on, it is traced alone and the rest
        once more.
        """
        if count <= 0:
            return carried if len(carried) > 1 else carried[0]
        mark = self._mark()
        handed = self._block_of(name, count, body, carried)
        if count > 1 and [_like(v) for v in handed] != [_like(v) for v in carried]:
            self._undo(mark)
            carried = self._block_of(name, 1, body, carried)
            handed = self._block_of(name, count - 1, body, carried)
        return handed if len(handed) > 1 else handed[0]

    def _block_of(self, name, count, body, carried):
        outer_repeats, outer_block, outer_kept = self._repeats, self._block, self._kept
        self.blocks.append(
            Block(
                ".".join(filter(None, (*self._path, name))),
                count * outer_repeats,
                sum(v.bytes for v in carried),
            )
        )
        self._block, self._repeats, self._kept = len(self.blocks) - 1, outer_repeats * count, {}
        for value in carried:
            self._uses.pop(value.storage, None)
        with self.scope(name):
            handed = body(*carried)
        handed = handed if isinstance(handed, tuple) else (handed,)
        kept = self._kept
        self._repeats, self._block, self._kept = outer_repeats, outer_block, outer_kept
        for given, out in zip(carried, handed, strict=True):
            if (
                given.storage in kept and given.repeats != outer_repeats
            ):  # comes from further out: the block around this one keeps it
                outer_kept.setdefault(given.storage, kept[given.storage])
            if count > 1 and given.storage in kept and given.storage != out.storage:
                # what block 2 .. count keep of their input are the outputs of 1 .. count-1; the
                # last output is not among them
                entry = self.saved.setdefault(
                    out.storage, [kept[given.storage], out.held, 0, out.kind, False]
                )
                if not entry[4]:
                    entry[2] += (count - 1) * outer_repeats
        return tuple(
            Value(v.shape, v.dtype, v.storage, v.grad, v.kind, outer_repeats, v.held, v.split)
            for v in handed
        )

    def _mark(self):
        return (
            len(self.nodes),
            len(self.kernels),
            len(self.weights),
            len(self.blocks),
            len(self.traffic),
            {k: list(v) for k, v in self.saved.items()},
            dict(self._uses),
            dict(self._casts),
            dict(self._parameters),
            dict(self._kept),
        )

    def _undo(self, mark):
        (
            nodes,
            kernels,
            weights,
            blocks,
            traffic,
            self.saved,
            self._uses,
            self._casts,
            self._parameters,
            self._kept,
        ) = mark
        del (
            self.nodes[nodes:],
            self.kernels[kernels:],
            self.weights[weights:],
            self.blocks[blocks:],
            self.traffic[traffic:],
        )

    # ------------------------------------------------------------------ values
    def _storage(self) -> int:
        self._storages += 1
        return self._storages

    def new(self, shape, dtype=None, grad=False) -> Value:
        """A fresh activation."""
        return Value(
            tuple(shape),
            dtype or self.precision.activations,
            self._storage(),
            grad and self.training,
            repeats=self._repeats,
        )

    def input(self, shape, dtype=None) -> Value:
        """What the caller hands in: images, token ids, labels."""
        value = Value(
            tuple(shape), dtype or self.precision.activations, self._storage(), kind="input"
        )
        self.inputs.append(value)
        return value

    def parameter(
        self,
        *shape,
        tied: str | None = None,
        trainable: bool = True,
        dtype: str | None = None,
        expert: bool = False,
    ) -> Value:
        """A weight. The same `tied` name gives the same storage, counted once."""
        if tied is not None and tied in self._parameters:
            return self._parameters[tied]
        value = Value(
            shape,
            dtype or self.precision.weights,
            self._storage(),
            self.training and trainable,
            "parameter",
            self._repeats,
        )
        self.weights.append(
            Weight(self._node, value.size, value.dtype, self._repeats, trainable, expert)
        )
        if tied is not None:
            self._parameters[tied] = value
        return value

    def vocabulary(self, rows: int, width: int, tied: str | None = None) -> Value:
        """A table of one row a token; tensor-parallel ranks hold a share of the rows, the last one
        padded.
        """
        table = self.parameter(-(-rows // self.parallel.tp), width, tied=tied)
        table.split = "features" if self.parallel.tp > 1 else None
        return table

    def buffer(self, *shape, dtype="fp32") -> Value:
        """A constant of the model: running statistics, masks. Never trained, never counted as
        kept.
        """
        return Value(shape, dtype, self._storage(), kind="buffer")

    def view(self, x: Value, *shape) -> Value:
        """The same storage under another shape: a reshape, a transpose, a slice. No kernel."""
        return Value(shape, x.dtype, x.storage, x.grad, x.kind, x.repeats, x.held, x.split)

    # ------------------------------------------------------------------ work
    def emit(
        self,
        kind,
        inputs,
        outputs,
        *,
        matrix=0,
        vector=0,
        special=0,
        product=None,
        shape=(),
        read=None,
        written=None,
    ):
        """A forward kernel. Bytes default to every input read once and every output written
        once.
        """
        if self.parallel.tp > 1:
            held = {v.split for v in inputs if v.kind != "parameter"}
            for v in outputs:
                v.split = (
                    "features" if "features" in held else "tokens" if "tokens" in held else None
                )
        self.kernels.append(
            Kernel(
                self._node,
                "forward",
                kind,
                product or (outputs[0].dtype if outputs else "fp32"),
                matrix,
                vector,
                special,
                sum(v.bytes for v in inputs) if read is None else read,
                sum(v.bytes for v in outputs) if written is None else written,
                shape,
                self._repeats,
                tuple(inputs),
                tuple(outputs),
            )
        )
        if self.training:
            for v in inputs:
                if v.grad and v.kind == "activation":
                    self._used(v)

    def _used(self, v: Value):
        """A value used twice gets two gradients: the second is added to the first."""
        n = self._uses.get(v.storage, 0)
        self._uses[v.storage] = n + 1
        if n:
            self.backward(
                "accumulate", vector=v.size, read=2 * v.bytes, written=v.bytes, product=v.dtype
            )

    def backward(
        self, kind, *, matrix=0, vector=0, special=0, read=0, written=0, product="fp32", shape=()
    ):
        """A kernel autograd will run for the op just emitted."""
        self.kernels.append(
            Kernel(
                self._node,
                "backward",
                kind,
                product,
                matrix,
                vector,
                special,
                read,
                written,
                shape,
                self._repeats,
            )
        )

    def save(self, *values: Value):
        """Autograd keeps these. Parameters and buffers are there anyway."""
        if not self.training:
            return
        for v in values:
            if v.kind in ("parameter", "buffer"):
                continue
            entry = self.saved.get(v.storage)
            if entry is None:
                self.saved[v.storage] = [self._node, v.held, v.repeats, v.kind, True]
            elif not entry[4]:  # kept between the blocks already; now the last one too
                entry[2] += v.repeats
                entry[4] = True
            if v.repeats != self._repeats:
                self._kept.setdefault(v.storage, self._node)

    def keep(self, bytes_: float):
        """Autograd keeps that many bytes that no other op sees: statistics, indices, random
        states.
        """
        if self.training and bytes_:
            self.saved[self._storage()] = [self._node, bytes_, self._repeats, "activation", True]

    # ------------------------------------------------------------------ several ranks
    @property
    def in_block(self) -> bool:
        """Inside a repeated block: where tensor parallelism cuts linear layers."""
        return self._block > 0

    def send(
        self,
        kind: str,
        group: str,
        bytes_: float,
        *,
        phase: str = "forward",
        behind: bool = False,
        copies: int = 1,
    ):
        """A collective of this op."""
        self.traffic.append(
            Traffic(self._node, phase, kind, group, bytes_, self._repeats, behind, copies)
        )

    def enter(self, x: Value) -> Value:
        """The input of a column-parallel layer: all tokens of it on every rank; its gradient is
        summed over the ranks.

        With sequence parallelism the tokens are gathered, once for all layers that read them, and
        gathered again in backward, for only the rank's own are kept.
        """
        if x.storage in self._gathered:
            return self._gathered[x.storage]
        full = x
        if x.split == "tokens":
            shape = (
                (x.shape[0], x.shape[1] * self.parallel.tp, *x.shape[2:])
                if len(x.shape) > 2
                else (x.shape[0] * self.parallel.tp, x.shape[1])
            )
            full = Value(shape, x.dtype, x.storage, x.grad, x.kind, x.repeats, x.held)
            self.send("all_gather", "tp", full.bytes)
            if self.training:
                self.send("all_gather", "tp", full.bytes, phase="backward", behind=True)
                self.send("reduce_scatter", "tp", full.bytes, phase="backward")
        elif x.grad and self.training:
            self.send("all_reduce", "tp", full.bytes, phase="backward")
        self._gathered[x.storage] = full
        return full

    def leave(self, x: Value):
        """The partial sums of a row-parallel layer are added up: over all tokens, or each rank its
        own under sequence parallelism.
        """
        if self.parallel.sp:
            self.send("reduce_scatter", "tp", x.bytes)
            if self.training:
                self.send("all_gather", "tp", x.bytes, phase="backward")
            axis = 1 if len(x.shape) > 2 else 0
            shape = tuple(
                -(-n // self.parallel.tp) if i == axis else n for i, n in enumerate(x.shape)
            )
            return Value(shape, x.dtype, x.storage, x.grad, x.kind, x.repeats, split="tokens")
        self.send("all_reduce", "tp", x.bytes)
        return Value(x.shape, x.dtype, x.storage, x.grad, x.kind, x.repeats, x.held)

    def share(self, features: int, what: str) -> int:
        """A rank's part of so many features, heads, rows of a vocabulary."""
        if features % self.parallel.tp:
            raise BadInput(f"tp {self.parallel.tp} does not divide {what} ({features})")
        return features // self.parallel.tp

    # ------------------------------------------------------------------ casts
    def cast(self, x: Value, dtype: str, save=False) -> Value:
        """x.to(dtype): nothing where it has that format already; a kernel and a new storage
        otherwise.
        """
        if x.dtype == dtype:
            return x
        out = Value(x.shape, dtype, self._storage(), x.grad, "activation", self._repeats)
        self.emit("cast", (x,), (out,))
        if x.grad and self.training:
            self.backward("cast", read=out.bytes, written=x.bytes, product=x.dtype)
        return out

    def low(self, x: Value) -> Value:
        """Autocast to the lower format before a matrix product; copies of weights are made once a
        step.
        """
        to = self.precision.autocast
        if to is None or x.dtype == to or x.dtype not in ("fp32", "fp16", "bf16"):
            return x
        if x.kind != "parameter":
            return self.cast(x, to)
        copy = self._casts.get((x.storage, x.shape, to))
        if copy is None:
            copy = Value(x.shape, to, self._storage(), x.grad, "weight_copy", x.repeats)
            self.emit("cast", (x,), (copy,))
            if x.grad and self.training:
                self.backward("cast", read=copy.bytes, written=x.bytes, product=x.dtype)
            self._casts[(x.storage, x.shape, to)] = copy
        return copy

    def full(self, x: Value) -> Value:
        """Autocast to fp32 before an op on its list: layer norm, softmax, losses, pow, sum."""
        return (
            self.cast(x, "fp32") if self.precision.autocast and x.dtype in ("fp16", "bf16") else x
        )

    def promoted(self, *values: Value) -> str:
        """The format that PyTorch computes in where these meet."""
        return promote(*(v.dtype for v in values))
