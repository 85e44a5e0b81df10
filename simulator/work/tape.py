"""The tape: a model run on it leaves every kernel that a step launches and every byte it keeps.

A model is a program over `Value`s, as a PyTorch module is; the tape plays the part of PyTorch. It
holds shapes and formats instead of numbers, follows autocast's casts, and at each op records the
forward kernels, the backward kernels that autograd will run, and the storages that autograd keeps.

A repeated block is traced once: `repeat` multiplies its kernels. The output of one block is the
input of the next, so a tensor that both of them keep counts once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.formats import is_stored
from roofcast.simulator.work.precision import WIDTH, Precision, promote
from roofcast.simulator.work.recording import Recording
from roofcast.simulator.work.traced import ALONE, Block, Parallel, Saved, Traffic
from roofcast.simulator.work.value import Value

__all__ = ["Tape", "Value"]

# state that is restored, as a copy, when a block is traced again
_COPIED = ("saved", "savers", "_uses", "_casts", "_parameters", "_kept", "_quantized")
# state that a model beside another has for itself
_OF_ONE_MODEL = (
    "precision", "training", "teaching", "tuning", "storage", "head", "headed", "_parameters",
)  # fmt: skip
_APPENDED = (
    "nodes",
    "kernels",
    "weights",
    "blocks",
    "traffic",
    "caches",
    "states",
    "checkpoints",
)  # state that is cut to its length


class Tape(Recording):
    """The record of a step, with repeated blocks, tensor parallelism and autocast."""

    def __init__(
        self,
        precision: Precision,
        *,
        training: bool = True,
        implementations: dict[str, str] | None = None,
        parallel: Parallel = ALONE,
    ):
        super().__init__(
            precision, training=training, implementations=implementations, parallel=parallel
        )
        self.narrow: set[int] = set()  # storages cast for an 8-bit or 4-bit product
        self.kept_casts: dict[int, Value] = {}  # storage -> its cast, where that one is kept
        self.lowered: dict[int, Value] = {}  # storage -> what an adapter's first matrix makes of it
        self._gathered: dict[int, Value] = {}  # storage -> its value gathered over the tp ranks
        self._casts: dict[tuple[int, tuple, str], Value] = {}  # low-precision copies of weights
        self._quantized: dict[int, Value] = {}  # storage -> its quantized copy, in inference
        # storage of a block's input -> that of its result, the input of its next repetition
        self.carried: dict[int, int] = {}

    # ------------------------------------------------------------------ repeated blocks
    def repeat(self, name: str, count: int, body: Callable[..., Any], *carried: Value) -> Any:
        """Run `body(*carried)` `count` times, each on the result of the previous run; traced once.

        Returns the result of the last run: one value, or a tuple if several are carried. If the
        formats of the first input and of the result differ, the first block is traced on its own
        and the others once more.
        """
        if count <= 0:
            return carried if len(carried) > 1 else carried[0]
        mark = self._mark()
        results = self._trace_block(name, count, body, carried)
        if count > 1 and [_signature(v) for v in results] != [_signature(v) for v in carried]:
            self._undo(mark)
            carried = self._trace_block(name, 1, body, carried)
            results = self._trace_block(name, count - 1, body, carried)
        return results if len(results) > 1 else results[0]

    def _trace_block(
        self, name: str, count: int, body: Callable[..., Any], carried: tuple[Value, ...]
    ) -> tuple[Value, ...]:
        outer = self._repeats, self._block, self._kept
        repeats = outer[0]
        carried_bytes = sum(v.bytes for v in carried)
        block = Block(self._full_name(name), count * repeats, carried_bytes, outer[1])
        self.blocks.append(block)
        self._repeats, self._block, self._kept = repeats * count, len(self.blocks) - 1, {}
        for value in carried:
            self._uses.pop(value.storage, None)
        with self.scope(name):
            results = body(*carried)
        results = results if isinstance(results, tuple) else (results,)
        kept = self._kept
        self._repeats, self._block, self._kept = outer
        for given, out in zip(carried, results, strict=True):
            self.carried[given.storage] = out.storage
            if given.storage in kept:
                self._keep_between(given, out, count, kept[given.storage])
        return tuple(
            Value(v.shape, v.dtype, v.storage, v.grad, v.kind, repeats, v.held, v.split)
            for v in results
        )

    def _keep_between(self, given: Value, out: Value, count: int, node: int) -> None:
        """Count what `count` blocks keep of their input, which `node` keeps in the first one."""
        if given.repeats != self._repeats:  # from further outside: the surrounding block keeps it
            self._kept.setdefault(given.storage, node)
        if count == 1 or given.storage == out.storage:
            return
        # Blocks 2 .. count keep the outputs of 1 .. count-1; the last output is not among them.
        entry = self.saved.get(out.storage) or Saved(node, out.held, 0, out.kind, False)
        if not entry.last:
            entry = entry._replace(count=entry.count + (count - 1) * self._repeats)
        self.saved[out.storage] = entry

    def _mark(self) -> dict[str, Any]:
        lengths = {name: len(getattr(self, name)) for name in _APPENDED}
        return lengths | {name: dict(getattr(self, name)) for name in _COPIED}

    def _undo(self, mark: dict[str, Any]) -> None:
        for name in _APPENDED:
            del getattr(self, name)[mark[name] :]
        for name in _COPIED:
            setattr(self, name, mark[name])

    @property
    def in_block(self) -> bool:
        """Whether the model is inside a repeated block, where linear layers are cut by tp."""
        return self._block > 0

    def beside(self, name: str, run: Callable[[], Any], precision: Precision | None = None) -> Any:
        """Run a frozen model without gradients; its result. With a precision of its own it has
        inputs of its own, too; else it reads those of this one.

        What the other shares with nobody: names of tied weights, storage, head, adapters.
        """
        own = {key: getattr(self, key) for key in _OF_ONE_MODEL}
        caches, inputs, first = len(self.caches), len(self.inputs), len(self.nodes)
        self.precision = precision or self.precision
        self.training, self.teaching, self.tuning, self.storage = False, True, None, None
        self._parameters = {}
        with self.scope(name):
            result = run()
        for key, value in own.items():
            setattr(self, key, value)
        del self.caches[caches:]
        if precision is None:  # the same batch
            del self.inputs[inputs:]
        self.asides.append((first, len(self.nodes)))
        return result

    # ------------------------------------------------------------------ several ranks
    def send(
        self,
        kind: str,
        group: str,
        bytes_: float,
        *,
        phase: str = "forward",
        behind: bool | None = False,
        copies: int = 1,
    ) -> None:
        """Record a collective of the current op; arguments as the fields of `Traffic`."""
        self.traffic.append(
            Traffic(self._node, phase, kind, group, bytes_, self._repeats, behind, copies)
        )

    def enter(self, x: Value) -> Value:
        """The input of a column-parallel layer: every rank reads all tokens.

        Its gradient is summed over the ranks. With sequence parallelism the tokens are gathered
        first, once for all layers that read them, and once more in backward, since each rank keeps
        only its own tokens; a stack with `gathered = "kept"` keeps them all instead, as NeMo's
        adapters do. What may hide the gradient's exchange is the product for the weight's gradient,
        which frozen weights lack.
        """
        if x.storage in self._gathered:
            return self._gathered[x.storage]
        full = x
        tuned, node = self.tuning, self.node
        frozen = tuned is not None and not tuned.trains(node.name)
        adapted = frozen and tuned is not None and tuned.adapts(node, False)
        unread = frozen and (not adapted or self.own_gather)
        beside = None if frozen else False
        if x.split == "tokens":
            axis = _token_axis(x)
            shape = tuple(n * self.parallel.tp if i == axis else n for i, n in enumerate(x.shape))
            kept = self.implementation("gathered", "dropped") == "kept"
            kept = kept or (adapted and self.merged and not self.own_gather)
            storage, held = (self._storage(), None) if kept else (x.storage, x.held)
            full = Value(shape, x.dtype, storage, x.grad, x.kind, x.repeats, held)
            gathered = self._gathered_bytes(full, adapted and not self.own_gather)
            self.send("all_gather", "tp", gathered)
            if self.training:
                if not kept and not unread:  # of weight gradients
                    self.send("all_gather", "tp", gathered, phase="backward", behind=True)
                self.send("reduce_scatter", "tp", full.bytes, phase="backward", behind=beside)
        elif x.grad and self.training:
            self.send("all_reduce", "tp", full.bytes, phase="backward", behind=beside)
        self._gathered[x.storage] = full
        return full

    @property
    def merged(self) -> bool:
        """Whether queries, keys and values share an adapter's first matrix, as in NeMo."""
        return self.implementation("lora", "").startswith("merged")

    @property
    def own_gather(self) -> bool:
        """Whether adapters gather their input themselves, beside the gather of the layer that they
        adapt: NeMo where tensor-parallel traffic overlaps with products.
        """
        return self.implementation("lora", "") == "merged_apart"

    def gather(self, x: Value) -> Value:
        """Tokens of all tensor-parallel ranks, kept; the gradient is summed and scattered again."""
        axis = _token_axis(x)
        shape = tuple(n * self.parallel.tp if i == axis else n for i, n in enumerate(x.shape))
        full = self.new(shape, x.dtype, x.grad)
        self.send("all_gather", "tp", full.bytes)
        if self.training and x.grad:
            self.send("reduce_scatter", "tp", full.bytes, phase="backward", behind=False)
        return full

    def _gathered_bytes(self, x: Value, adapted: bool) -> float:
        """Bytes of x as it is gathered for a linear layer: Transformer Engine casts it for an 8-bit
        product first, unless an adapter reads it too. Source: github NVIDIA/TransformerEngine,
        pytorch/module/layernorm_linear.py and base.py: grad_output_preprocess.
        """
        width = WIDTH.get(self.precision.product, 4)
        if self.implementation("linear", "") != "te" or adapted or width >= WIDTH[x.dtype]:
            return x.bytes
        return x.bytes * width / WIDTH[x.dtype]

    def leave(self, x: Value) -> Value:
        """The result of a row-parallel layer: partial sums, added up over the ranks.

        With sequence parallelism, each rank receives the sums of its own tokens only.
        """
        if not self.parallel.sp:
            self.send("all_reduce", "tp", x.bytes)
            return Value(x.shape, x.dtype, x.storage, x.grad, x.kind, x.repeats, x.held)
        self.send("reduce_scatter", "tp", x.bytes)
        if self.training:
            adapted = self.tuning is not None and self.tuning.adapts(self.node, False)
            bytes_ = self._gathered_bytes(x, adapted and not self.merged)
            self.send("all_gather", "tp", bytes_, phase="backward")
        axis = _token_axis(x)
        shape = tuple(-(-n // self.parallel.tp) if i == axis else n for i, n in enumerate(x.shape))
        return Value(shape, x.dtype, x.storage, x.grad, x.kind, x.repeats, split="tokens")

    def share(self, features: int, what: str) -> int:
        """Features (or heads) per tensor-parallel rank. Raises BadInput if tp does not divide."""
        if features % self.parallel.tp:
            raise BadInput(f"tp {self.parallel.tp} does not divide {what} ({features})")
        return features // self.parallel.tp

    def vocabulary(self, rows: int, width: int, tied: str | None = None) -> Value:
        """An embedding table [rows, width]; a tensor-parallel rank holds ceil(rows / tp) rows."""
        own = -(-rows // self.parallel.tp)
        table = self.parameter(own, width, tied=tied, dtype=self.table_format(own, width))
        table.split = "features" if self.parallel.tp > 1 else None
        return table

    # ------------------------------------------------------------------ casts
    def cast(self, x: Value, dtype: str) -> Value:
        """x.to(dtype): x itself if it has that format, else a new storage written by a kernel."""
        return x if x.dtype == dtype else self._cast(x, dtype, "activation", self._repeats)

    def _cast(self, x: Value, dtype: str, kind: str, repeats: int) -> Value:
        out = Value(x.shape, dtype, self._storage(), x.grad, kind, repeats)
        self.emit("cast", (x,), (out,))
        if x.grad and self.training:
            self.backward("cast", read=out.bytes, written=x.bytes, product=x.dtype)
        return out

    def low(self, x: Value) -> Value:
        """Autocast to the lower format before a matrix product; weights are cast once per step."""
        to = self.precision.autocast
        if to is None or x.dtype == to or x.dtype not in ("fp32", "fp16", "bf16"):
            return x
        if x.kind != "parameter":
            return self.cast(x, to)
        key = x.storage, x.shape, to
        if key not in self._casts:
            self._casts[key] = self._cast(x, to, "weight_copy", x.repeats)
        return self._casts[key]

    def full(self, x: Value) -> Value:
        """Autocast to fp32 before an op on its fp32 list: layer norm, softmax, losses, pow, sum."""
        lower = self.precision.autocast and x.dtype in ("fp16", "bf16")
        return self.cast(x, "fp32") if lower else x

    def normed(self, x: Value) -> Value:
        """Autocast before a norm or a softmax: to fp32, on Gaudi to the lower format
        [habana-autocast].
        """
        return self.low(x) if self._as_on_gaudi() else self.full(x)

    def scaled(self, x: Value) -> Value:
        """Autocast before a multiplication or a dropout: none, on Gaudi to the lower format."""
        return self.low(x) if self._as_on_gaudi() else x

    def _as_on_gaudi(self) -> bool:
        return self.implementation("autocast", "cuda") == "gaudi"

    def quantized(self, weight: Value) -> bool:
        """Whether a weight is held in fewer bits than the policy's other weights, for inference."""
        return not self.training and WIDTH[weight.dtype] < WIDTH[self.precision.weights]

    def quantize(self, x: Value, dtype: str) -> Value:
        """An activation as products of inference read it, cast once for all layers that do."""
        known = self._quantized.get(x.storage)
        if known is None or known.size != x.size:
            known = Value(x.shape, dtype, self._storage(), False, x.kind, self._repeats)
            self.emit("cast", (x,), (known,), vector=x.size)
            self._quantized[x.storage] = known
        return self.view(known, *x.shape)

    def wide(self, dtype: str) -> str:
        """The format in which ops that are not quantized return what they read in `dtype`."""
        narrow = dtype in (self.matrices, self.filters) or is_stored(dtype)
        return self.precision.activations if narrow else dtype

    def widened(self, weight: Value, dtype: str) -> Value:
        """A weight that is stored in few bits, as a training step multiplies it: dequantized into a
        buffer that its product alone reads, once more in backward.
        """
        if not (self.training and is_stored(weight.dtype)):
            return weight
        repeats = weight.repeats
        wide = Value(weight.shape, dtype, self._storage(), False, "dequantized", repeats)
        if self.implementation("dequantize", "") == "unpacked":
            self._unpack(weight, wide)
        self.emit("dequantize", (weight,), (wide,), vector=wide.size)
        return wide

    def _unpack(self, weight: Value, wide: Value) -> None:
        """The kernels of auto-gptq before its last: the 32-bit words of a weight shifted into one
        for each element, cast, masked and moved by the zero point, in 8 bits or, of 8-bit weights,
        in 16. Source: github AutoGPTQ/AutoGPTQ v0.5.1, nn_modules/qlinear/qlinear_cuda_old.py.
        """
        own = 1.0 if weight.bytes < 0.75 * weight.size else 2.0
        steps = ((weight.bytes / weight.size, 4.0), (4.0, own), (own, own), (own, own))
        for read, written in steps:
            of = weight.size
            self.emit("elementwise", (), (), vector=of, read=read * of, written=written * of)

    def widened_again(self, weight: Value, wide: Value) -> None:
        """The same once more, for the product of a backward pass."""
        if wide is not weight and wide.kind == "dequantized":
            if self.implementation("dequantize", "") == "unpacked":
                self.save(wide)  # an operand of PyTorch's own product
                return
            self.backward(
                "dequantize",
                vector=wide.size,
                read=weight.bytes,
                written=wide.bytes,
                product=wide.dtype,
            )

    def promoted(self, *values: Value) -> str:
        """The format in which PyTorch computes an elementwise op on these values."""
        return promote(*(v.dtype for v in values))


def _signature(v: Value) -> tuple[tuple[int, ...], str, bool]:
    return v.shape, v.dtype, v.grad


def _token_axis(x: Value) -> int:
    """Axis of the tokens: x is [batch, tokens, ...] or [tokens, features]."""
    return 1 if len(x.shape) > 2 else 0
