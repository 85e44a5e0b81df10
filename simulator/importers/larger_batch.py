"""The same step at a larger batch, recorded beside the one that runs, without running it again.

Beside each op of the trace stands the same op on operands whose axes of the batch are longer
(`batch_axes`). Its work follows from the same formulas. Where that cannot be told, `lost` says why,
and whoever needs another batch traces the module again.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from types import CodeType, FunctionType
from typing import Any

from roofcast.simulator.importers.aten import works
from roofcast.simulator.importers.aten_products import Called, Work
from roofcast.simulator.importers.batch_axes import Axes, Untold, fixed, grows, length
from roofcast.simulator.importers.batch_rules import axes_of_results
from roofcast.simulator.importers.marked import Rows, Watch
from roofcast.simulator.importers.torch_extra import FakeTensor, torch
from roofcast.simulator.importers.user_code import internal

TIMES = 2  # the larger batch, in batches of the trace
SIZES = {"shape", "size", "len", "numel", "nelement"}  # names by which code reads a size


class Twin:
    """A tensor of the larger batch: its shape and format."""

    __slots__ = ("dtype", "requires_grad", "shape", "size_bytes", "storage")

    def __init__(self, t: torch.Tensor, shape: tuple[int, ...], storage: int):
        self.shape, self.dtype, self.requires_grad = shape, t.dtype, t.requires_grad
        self.storage = storage  # bytes
        self.size_bytes = min(prod(shape) * t.element_size(), storage)

    def dim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def numel(self) -> int:
        """The number of elements."""
        return prod(self.shape)


def bytes_of(t: Twin) -> int:
    """Bytes that a kernel moves for it."""
    return t.size_bytes


class Larger:
    """What is known of the larger batch while a trace runs."""

    def __init__(self, batch: int, module: torch.nn.Module):
        self.watch = Watch(batch)
        self.launches: list[Any] = []
        self.held: dict[int, int] = {}  # storage -> bytes at the larger batch
        self.operands: dict[int, list[Axes]] = {}  # autograd function -> axes of its op's tensors
        if any(_loops_over_sizes(type(m)) for m in module.modules()):
            self.watch.lost = "code of the module loops, and reads sizes"

    @property
    def lost(self) -> str:
        """Why the larger batch cannot be told; "" if it can."""
        return self.watch.lost

    # ---------------------------------------------------------------- axes
    def mark(self, tensors: Sequence[torch.Tensor]) -> None:
        """Declare inputs, whose leading axis is the batch where it is as long."""
        for t in tensors:
            axes = fixed(t.shape)
            if axes and t.shape[0] == self.watch.batch:
                axes = (((t.shape[0], True),), *axes[1:])
            t._batch_axes = axes  # type: ignore[attr-defined]

    def fix(self, t: torch.Tensor) -> None:
        """Declare a weight or a buffer, whose size is not of the batch."""
        t._batch_axes = fixed(t.shape)  # type: ignore[attr-defined]

    def of(self, t: torch.Tensor) -> Axes:
        """Axes of an operand. Raises Untold for one that no op recorded made."""
        axes: Axes | None = getattr(t, "_batch_axes", None)
        if axes is not None and tuple(map(length, axes)) == tuple(t.shape):
            return axes
        if axes is None and (
            isinstance(t, torch.nn.Parameter) or not isinstance(t, FakeTensor) or not t.dim()
        ):
            return fixed(t.shape)
        raise Untold

    def asked(self, shape: Sequence[int]) -> Axes:
        """Axes of a shape that code stated: marked numbers are the batch."""
        if not any(n > 1 and n % self.watch.batch == 0 for n in shape):
            return fixed(shape)
        stated = self.stated(shape)
        if len(stated) != 1:
            raise Untold
        marks = stated.pop()
        return tuple(((n, bool(batch)),) for n, batch in zip(shape, marks, strict=True))

    def stated(self, shape: Sequence[int]) -> set[tuple[bool | None, ...]]:
        """The ways in which the arguments of the function that runs state a shape."""
        numbers, rank = self.watch.numbers(), len(shape)
        found = set()
        for at in range(len(numbers) - rank + 1):
            some = numbers[at : at + rank]
            if all(int(n) in (-1, size) for n, size in zip(some, shape, strict=True)):
                found.add(tuple(None if int(n) == -1 else type(n) is Rows for n in some))
        return found

    def results(
        self, name: str, pointwise: bool, c: Called, sequence: int | None
    ) -> Sequence[Axes]:
        """Axes of what an op returns; in backward also from those of the op in forward, the number
        of whose autograd function is `sequence`.
        """
        try:
            return axes_of_results(name, pointwise, c, self.of, self)
        except Untold:
            known = self.operands.get(sequence, []) if sequence is not None else []
            out = []
            for t in c.outs:
                same = {axes for axes in known if tuple(map(length, axes)) == tuple(t.shape)}
                if len({tuple(map(grows, axes)) for axes in same}) != 1:
                    raise
                out.append(max(same))
            return out

    # ---------------------------------------------------------------- ops
    def twin(self, t: torch.Tensor, axes: Axes, storage: int) -> Twin:
        """A tensor at the larger batch. storage: its number."""
        shape = tuple(length(axis, TIMES) for axis in axes)
        if storage not in self.held:
            held, elements = t.untyped_storage().nbytes(), t.numel()
            self.held[storage] = held * prod(shape) // elements if elements else held
        return Twin(t, shape, self.held[storage])

    def called(
        self, c: Called, operands: Sequence[Axes], made: Sequence[Axes], storages: Sequence[int]
    ) -> Called:
        """The op at the larger batch, from the axes of its operands and results, and the numbers
        of their storages.
        """
        tensors = (*c.ins, *c.outs)
        twins = list(map(self.twin, tensors, (*operands, *made), storages))
        by_id = {id(t): twin for t, twin in zip(tensors, twins, strict=True)}
        ins: Any = twins[: len(c.ins)]
        outs: Any = twins[len(c.ins) :]
        kwargs = {key: _swapped(value, by_id) for key, value in c.kwargs.items()}
        size_of: Any = bytes_of
        args: Any = _swapped(c.args, by_id)
        return Called(args, kwargs, ins, outs, size_of)

    def works(self, name: str, pointwise: bool, c: Called) -> Sequence[Work]:
        """Kernels of the op at the larger batch."""
        found = works(name, pointwise, c)
        if found is None:
            return [Work("elementwise", vector=max(t.numel() for t in (*c.ins, *c.outs)))]
        return found

    def made(self, outs: Sequence[torch.Tensor], all_axes: Sequence[Axes]) -> None:
        """Note the axes of results. Raises Untold where an operand that an op overwrites would
        take other ones.
        """
        for t, axes in zip(outs, all_axes, strict=True):
            before: Axes | None = getattr(t, "_batch_axes", None)
            if before is not None and tuple(map(grows, before)) != tuple(map(grows, axes)):
                raise Untold
            t._batch_axes = axes  # type: ignore[attr-defined]


def _swapped(tree: Any, by_id: dict[int, Twin]) -> Any:
    if isinstance(tree, torch.Tensor):
        return by_id.get(id(tree), tree)
    if isinstance(tree, (list, tuple)) and any(
        isinstance(part, (torch.Tensor, list, tuple)) for part in tree
    ):
        return [_swapped(part, by_id) for part in tree]
    return tree


# ---------------------------------------------------------------- loops
_loops: dict[type, bool] = {}


def _loops_over_sizes(kind: type) -> bool:
    """Whether methods of a module's own class have a loop over a range and read sizes: it may run
    as often as the batch is large.
    """
    if kind not in _loops:
        _loops[kind] = any(
            _ranges(f.__code__)
            for base in kind.__mro__
            for f in vars(base).values()
            if isinstance(f, FunctionType) and not internal(f.__code__.co_filename)
        )
    return _loops[kind]


def _ranges(code: CodeType) -> bool:
    names = set(code.co_names)
    inner = any(_ranges(part) for part in code.co_consts if isinstance(part, CodeType))
    return inner or ("range" in names and bool(names & SIZES))
