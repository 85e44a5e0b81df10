"""Sizes that Python code reads of a tensor while it is traced, marked where they are the batch.

A marked size is an int to all that uses it. It stays marked where it is multiplied, so that a shape
stated with it is known to grow with the batch. Code that does anything else with it, such as a
branch on the batch, may do something else at another batch: that is noted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from roofcast.simulator.importers.batch_axes import grows
from roofcast.simulator.importers.torch_extra import torch
from roofcast.simulator.importers.user_code import internal

ASKING = frozenset("size __len__ numel nelement __iter__ stride tolist".split())
PASSED = (
    "torch/_tensor.py",
    "torch/overrides.py",
    "importers/cuda_dispatch.py",
    "importers/marked.py",
)
_SHAPE = torch.Tensor.shape


class Watch:
    """Whether the module's code used the batch for more than shapes; of one trace."""

    def __init__(self, batch: int):
        self.batch = batch
        self.lost = ""  # why another batch cannot be told from this one
        self.call: tuple[Any, Any] = ((), {})  # arguments of the function of torch that runs

    def read(self, what: str, depth: int = 2) -> None:
        """Code reads the batch as a number; PyTorch's own does so to check its arguments."""
        if not internal(sys._getframe(depth).f_code.co_filename):
            self.lost = self.lost or what

    def asked(self, name: str, t: Any, out: Any) -> Any:
        """What code is told when it asks a tensor for its size: marked where that is the batch."""
        axes = getattr(t, "_batch_axes", None)
        if self.lost or axes is None or not any(map(grows, axes)):
            return out
        if isinstance(out, torch.Size):
            if len(out) != len(axes):
                return out
            return torch.Size(
                [Rows.of(n, self) if grows(axis) else n for n, axis in zip(out, axes, strict=True)]
            )
        if name == "size" and isinstance(out, int):
            return Rows.of(out, self) if out % self.batch == 0 and out > 1 else out
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename.endswith(PASSED):
            frame = frame.f_back
        if not internal(frame.f_code.co_filename):
            self.lost = f"the batch is asked for by {name.strip('_')}"
        return out

    def numbers(self) -> list[int]:
        """The whole numbers among the arguments of the function that runs, in order."""
        return list(_numbers(self.call))


def watched(
    watch: Watch | None, name: str, func: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    """The result of a function of torch; a size of a tensor is marked where it is the batch."""
    if watch is None or watch.lost:
        return func(*args, **kwargs)
    asks = name in ASKING or (name == "__get__" and getattr(func, "__self__", None) is _SHAPE)
    before, watch.call = watch.call, (args, kwargs)
    try:
        out = func(*args, **kwargs)
    finally:
        watch.call = before
    return watch.asked(name, args[0], out) if asks and args else out


def _numbers(tree: Any) -> Iterator[int]:
    if isinstance(tree, int) and not isinstance(tree, bool):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for part in tree:
            yield from _numbers(part)
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from _numbers(part)


class Rows(int):
    """A size that is a multiple of the batch."""

    watch: Watch

    @staticmethod
    def of(n: int, watch: Watch) -> Rows:
        """The marked size n."""
        rows = Rows(n)
        rows.watch = watch
        return rows

    def __mul__(self, other: Any) -> Any:
        if type(other) is int:
            return Rows.of(int(self) * other, self.watch)
        self.watch.read("the batch is multiplied")
        return int(self) * (int(other) if isinstance(other, int) else other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        each = int(self) // self.watch.batch
        if type(other) is int and other and each % other == 0:
            return Rows.of(int(self) // other, self.watch)
        self.watch.read("the batch is divided")
        return int(self) // other

    def __eq__(self, other: object) -> bool:
        self._compared(other)
        return int(self) == other

    def __ne__(self, other: object) -> bool:
        self._compared(other)
        return int(self) != other

    __hash__ = int.__hash__

    def _compared(self, other: object) -> None:
        # all batches of 2 and more compare alike with 1 and less
        if not isinstance(other, Rows) and not (isinstance(other, int) and other <= 1):
            self.watch.read("the batch is compared", 3)


def _reads(name: str) -> Callable[..., Any]:
    plain = getattr(int, name)

    def method(self: Rows, *others: Any) -> Any:
        above_one = not others or not isinstance(others[0], int) or others[0] > 1
        if above_one or name not in ("__lt__", "__le__", "__gt__", "__ge__"):
            self.watch.read("the batch is used as a number")
        return plain(int(self), *others)

    return method


for _name in (
    "add radd sub rsub mod rmod rfloordiv truediv rtruediv divmod rdivmod pow rpow neg lt le gt ge"
    " and rand or ror xor rxor lshift rshift"
).split():
    setattr(Rows, f"__{_name}__", _reads(f"__{_name}__"))
