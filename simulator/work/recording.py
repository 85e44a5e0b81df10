"""The record that a model leaves when it runs: named ops, kernels, weights, storages for backward.

A storage that several ops keep for backward counts once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from roofcast.hwdb.formats import stored_in
from roofcast.simulator.work.precision import WIDTH, Precision
from roofcast.simulator.work.storage import ROUTER, Storage
from roofcast.simulator.work.traced import (
    ALONE,
    Block,
    Cache,
    Checkpoint,
    Kernel,
    Node,
    Parallel,
    Saved,
    Traffic,
    Weight,
)
from roofcast.simulator.work.tuning import HELD, Tuning
from roofcast.simulator.work.value import Value

LOST = ("parameter", "buffer", "dequantized")  # kinds of values that are not kept for backward


class Recording:
    """Ops, values and kernels of a step, in the order in which the model creates them."""

    def __init__(
        self,
        precision: Precision,
        *,
        training: bool = True,
        implementations: dict[str, str] | None = None,
        parallel: Parallel = ALONE,
    ):
        self.precision = precision
        self.training = training
        self.implementations = implementations or {}
        self.parallel = parallel
        self.nodes: list[Node] = []
        self.kernels: list[Kernel] = []
        self.weights: list[Weight] = []
        self.traffic: list[Traffic] = []
        self.blocks: list[Block] = [Block("", 1, 0.0)]
        self.saved: dict[int, Saved] = {}  # by storage
        self.inputs: list[Value] = []
        self.assumptions: list[str] = []  # made by the model
        self.head: object = None  # of the model's class, where it is not that of its family
        self.headed = False  # whether the model has made that head
        self.caches: list[Cache] = []  # that generation would keep
        self.states: list[Cache] = []  # of a sequence, whatever its length: bytes of a layer
        self.storage: Storage | None = None  # of a quantized checkpoint
        self.tuning: Tuning | None = None  # what trains; None: all weights
        self.asked: Storage | None = None  # how weights are stored, as asked for serving
        self.generates = ""  # prefill | decode: one forward with a cache; else whole sequences
        self.absorbs = False  # prompts attend over latents, as decode steps do
        self.checkpoints: list[Checkpoint] = []  # in place of the repeated blocks
        self.savers: dict[int, tuple[int, ...]] = {}  # storage -> ops that keep it
        self.inputs_need_grad = False  # embedded inputs, for checkpoints below trained weights
        self.taught: Value | None = None  # logits of a teacher, until the loss compares them
        self.given: dict[str, Value] = {}  # inputs that an earlier part of the step makes
        self.encoded: tuple[str, ...] = ()  # encoders that run before a denoiser
        self.asides: list[tuple[int, int]] = []  # first op, op behind the last: frozen models
        self.taught_classes: int | None = None  # of a teacher of which only the top logits come
        self.prompted = 0  # layers or embeddings with virtual tokens
        self.teaching = False  # whether a teacher runs, whose weights do not train
        self.linears: dict[str, int] = {}  # linear layers by name -> their repetitions
        self.adapted: dict[str, int] = {}  # those with an adapter
        self._path: list[str] = []
        self._node = -1
        self._inside = False  # inside an op
        self._block = 0
        self._repeats = 1
        self._storages = 0
        self._uses: dict[int, int] = {}  # storage -> ops that read it and pass a gradient to it
        self._parameters: dict[str, Value] = {}  # shared by name
        self._kept: dict[
            int, int
        ] = {}  # storage from outside this block -> op inside that keeps it

    # ------------------------------------------------------------------ named ops
    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of ops inside with `name.`"""
        self._path.append(name)
        try:
            yield
        finally:
            self._path.pop()

    @contextmanager
    def op(self, name: str, kind: str) -> Iterator[None]:
        """Attribute the kernels and saved tensors inside to one named op.

        An op inside another op is attributed to the outer one.
        """
        if self._inside:
            yield
            return
        self._inside = True
        self.nodes.append(Node(self._full_name(name), kind, self._repeats, self._block))
        self._node = len(self.nodes) - 1
        try:
            yield
        finally:
            self._inside = False

    def _full_name(self, name: str) -> str:
        return ".".join(filter(None, (*self._path, name)))

    @contextmanager
    def checkpoint(self, *read: Value) -> Iterator[None]:
        """The ops inside are one checkpoint of the model's framework: where layers are recomputed,
        what they read is kept in place of what they keep.
        """
        first = len(self.nodes)
        yield
        self.checkpoints.append(Checkpoint(first, len(self.nodes), read))

    @property
    def repeats(self) -> int:
        """Repetitions of the block that the model is in."""
        return self._repeats

    def implementation(self, op: str, default: str) -> str:
        """The implementation of an op in this software stack: composed, fused, eager, flash ..."""
        return self.implementations.get(op, default)

    @contextmanager
    def times(self, n: int) -> Iterator[None]:
        """The ops inside run n times, one after another, on tensors of their own each time."""
        outer = self._repeats
        self._repeats = outer * n
        try:
            yield
        finally:
            self._repeats = outer

    # ------------------------------------------------------------------ values
    @property
    def matrices(self) -> str | None:
        """Format of quantized weight matrices; None where they are held as other weights are."""
        return None if self.training else self.precision.matrices

    @property
    def filters(self) -> str | None:
        """Format of the quantized filters of convolutions; None where they are not quantized."""
        return None if self.training else self.precision.filters

    @property
    def sparse(self) -> str | None:
        """Format of weight matrices that hold 2 of every 4 weights [mishra2021]: those, and an
        index of 2 bits for each; None where they are dense.
        """
        if self.training or self.tuning is None or not self.tuning.sparse:
            return None
        return stored_in(4.0 * WIDTH[self.matrices or self.precision.weights] + 1.0)

    def matrix_format(self, rows: int, columns: int) -> str | None:
        """Format in which a weight matrix of the current op is held; None: as other weights are.

        A precision that quantizes weights itself comes before the checkpoint's own storage.
        """
        if self.sparse is not None and self.node.op != ROUTER:
            return self.sparse
        stored = self.stored
        if stored is None or (self.training and not self.frozen):
            return self.matrices
        if self.matrices is not None and self.precision.name != stored.precision:
            return self.matrices
        return stored.format(self.node, rows, columns)

    @property
    def node(self) -> Node:
        """The current op; before the first one, that one."""
        return self.nodes[max(self._node, 0)] if self.nodes else Node("", "", 1, 0)

    @property
    def stored(self) -> Storage | None:
        """How weights that do not train are stored: as asked, else as the checkpoint has them."""
        if self.asked is not None:
            return self.asked
        if self.tuning is not None and self.tuning.weights is not None:
            return HELD[self.tuning.weights]
        return self.storage

    @property
    def frozen(self) -> bool:
        """Whether the weights of the current op do not train."""
        return self.tuning is not None and not self.tuning.trains(self.node.name)

    def table_format(self, rows: int, columns: int) -> str | None:
        """Format of an embedding table, in inference; None: as other weights."""
        if self.training or self.stored is None:
            return None
        return self.stored.table_format(rows, columns)

    def head_format(self, rows: int, columns: int) -> str | None:
        """Format of the matrix of a language model's head of its own; None: as other weights."""
        quantized = self.stored is not None and self.stored.head
        return self.matrix_format(rows, columns) if quantized else None

    def _storage(self) -> int:
        self._storages += 1
        return self._storages

    def new(self, shape: Sequence[int], dtype: str | None = None, grad: bool = False) -> Value:
        """A new activation; by default in the activation format of the precision policy."""
        dtype = dtype or self.precision.activations
        grad = grad and self.training
        return Value(tuple(shape), dtype, self._storage(), grad, repeats=self._repeats)

    def input(self, shape: Sequence[int], dtype: str | None = None) -> Value:
        """A tensor passed in by the caller: images, token ids, labels."""
        dtype = dtype or self.precision.activations
        value = Value(tuple(shape), dtype, self._storage(), kind="input")
        self.inputs.append(value)
        return value

    def parameter(
        self,
        *shape: int,
        tied: str | None = None,
        trainable: bool = True,
        dtype: str | None = None,
        expert: bool = False,
        adapter: bool = False,
        share: float = 1.0,
    ) -> Value:
        """A weight. Parameters with the same `tied` name share one storage and are counted once.

        share: of its elements that one token uses.

        An adapter trains where the other weights of its op are frozen.
        """
        if tied is not None and tied in self._parameters:
            return self._parameters[tied]
        trainable = trainable and not self.teaching
        if self.training and not adapter and self.frozen:
            trainable = False
            if dtype is None and self.tuning is not None and self.tuning.weights == "bf16":
                dtype = "bf16"
        dtype = dtype or self.precision.weights
        grad = self.training and trainable
        value = Value(shape, dtype, self._storage(), grad, "parameter", self._repeats)
        self.weights.append(
            Weight(
                max(self._node, 0),
                value.size,
                value.dtype,
                self._repeats,
                trainable,
                expert,
                share=share,
            )  # fmt: skip
        )
        if tied is not None:
            self._parameters[tied] = value
        return value

    def buffer(self, *shape: int, dtype: str = "fp32") -> Value:
        """A constant of the model, such as running statistics or a mask.

        It is neither trained nor counted among the tensors kept for backward.
        """
        return Value(shape, dtype, self._storage(), kind="buffer")

    def view(self, x: Value, *shape: int) -> Value:
        """The storage of x in another shape: a reshape, transpose or slice. Launches no kernel."""
        return Value(shape, x.dtype, x.storage, x.grad, x.kind, x.repeats, x.held, x.split)

    # ------------------------------------------------------------------ kernels
    def emit(
        self,
        kind: str,
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        *,
        matrix: float = 0,
        vector: float = 0,
        special: float = 0,
        product: str | None = None,
        shape: tuple = (),
        read: float | None = None,
        written: float | None = None,
    ) -> None:
        """Record a forward kernel.

        By default, it reads every input once and writes every output once. FLOPs and bytes are
        those of one launch; `shape` holds the arguments of the time formula.
        """
        if self.parallel.tp > 1:
            _propagate_split(inputs, outputs)
        product = product or (outputs[0].dtype if outputs else "fp32")
        read = sum(v.bytes for v in inputs) if read is None else read
        written = sum(v.bytes for v in outputs) if written is None else written
        work = matrix, vector, special, read, written, shape, self._repeats
        self.kernels.append(
            Kernel(self._node, "forward", kind, product, *work, tuple(inputs), tuple(outputs))
        )
        if self.training:
            for v in inputs:
                if v.grad and v.kind == "activation":
                    self._count_use(v)
            read_in = {v.storage for v in inputs}
            for v in outputs:
                if v.storage in read_in:  # overwritten: to autograd another tensor from here on
                    self._uses.pop(v.storage, None)

    def _count_use(self, v: Value) -> None:
        """A value that is read twice receives two gradients; the second is added to the first."""
        n = self._uses.get(v.storage, 0)
        self._uses[v.storage] = n + 1
        if n:
            read, written = 2 * v.bytes, v.bytes
            self.backward("accumulate", vector=v.size, read=read, written=written, product=v.dtype)

    def backward(
        self,
        kind: str,
        *,
        matrix: float = 0,
        vector: float = 0,
        special: float = 0,
        read: float = 0,
        written: float = 0,
        product: str = "fp32",
        shape: tuple = (),
    ) -> None:
        """Record a kernel that autograd will run for the op just emitted."""
        work = matrix, vector, special, read, written, shape, self._repeats
        self.kernels.append(Kernel(self._node, "backward", kind, product, *work))

    # ------------------------------------------------------------------ kept for backward
    def save(self, *values: Value) -> None:
        """Keep these values for backward. Parameters and buffers exist anyway and do not count."""
        if not self.training:
            return
        for v in values:
            if v.kind in LOST:
                continue
            entry, by = self.saved.get(v.storage), self.savers.get(v.storage, ())
            if by[-1:] != (self._node,):
                self.savers[v.storage] = (*by, self._node)
            if entry is None:
                self.saved[v.storage] = Saved(self._node, v.held, v.repeats, v.kind, True)
            elif not entry.last:  # kept between the repeated blocks; from here on, the last one too
                count = entry.count + v.repeats
                behind = self._node, v.repeats
                self.saved[v.storage] = entry._replace(count=count, last=True, behind=behind)
            if v.repeats != self._repeats:
                self._kept.setdefault(v.storage, self._node)

    def keep(self, bytes_: float) -> None:
        """Keep bytes for backward that no other op sees: statistics, indices, random states."""
        if self.training and bytes_:
            entry = Saved(self._node, bytes_, self._repeats, "activation", True)
            self.saved[self._storage()] = entry


def _propagate_split(inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
    """Results are split over the tensor-parallel ranks as the operands are, features first."""
    splits = {v.split for v in inputs if v.kind != "parameter"}
    for v in outputs:
        v.split = "features" if "features" in splits else "tokens" if "tokens" in splits else None
