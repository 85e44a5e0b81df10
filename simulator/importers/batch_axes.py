"""Which axes of a tensor are multiples of the batch, op by op, from one run of a module.

An axis is a row of factors, since views merge and split axes: [64, 128, 768] seen as [8192, 768] is
the factors 64 (of the batch) and 128 in one axis, so that a later view finds the batch again. An op
whose result cannot be told raises Untold, never a guess: an axis that is as long as the batch
without coming from it, a batch that is sliced or split, an op without a rule here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Protocol

from roofcast.simulator.importers.aten_products import Called

Factor = tuple[int, bool]  # a length, and whether it is a multiple of the batch
Axis = tuple[Factor, ...]
Axes = tuple[Axis, ...]
AxesOf = Callable[[Any], Axes]


class Code(Protocol):
    """What code asked of the function of torch that runs."""

    def stated(self, shape: Sequence[int]) -> set[tuple[bool | None, ...]]:
        """The ways in which its arguments state a shape: of each axis, whether it is the batch, or
        None where it was left open (-1).
        """

    def asked(self, shape: Sequence[int]) -> Axes:
        """Axes of a shape that it stated. Raises Untold."""


class Untold(Exception):
    """How a result depends on the batch cannot be told."""


def fixed(shape: Sequence[int]) -> Axes:
    """Axes of a tensor whose size does not depend on the batch."""
    return tuple(((n, False),) for n in shape)


def grows(axis: Axis) -> bool:
    """Whether the length of an axis is a multiple of the batch."""
    return any(batch for _, batch in axis)


def length(axis: Axis, times: int = 1) -> int:
    """Length of an axis where the batch is `times` as large.

    >>> length(((4, True), (3, False))), length(((4, True), (3, False)), 2)
    (12, 24)
    """
    if len(axis) == 1:
        return axis[0][0] * (times if axis[0][1] else 1)
    return prod(n * times if batch else n for n, batch in axis)


def viewed(axes: Axes, shape: Sequence[int]) -> Axes:
    """Axes of the same elements in another shape. Raises Untold where the batch would be split.

    >>> viewed((((4, True),), ((6, False),)), (24,))
    (((4, True), (6, False)),)
    >>> viewed((((4, True), (6, False)),), (4, 2, 3))
    (((4, True),), ((2, False),), ((3, False),))
    """
    left: list[Factor] = []
    for n, batch in (factor for axis in axes for factor in axis):
        if n == 1 and not batch:
            continue
        if left and not batch and not left[-1][1]:
            left[-1] = left[-1][0] * n, False
        else:
            left.append((n, batch))
    left.reverse()
    found = []
    for size in shape:
        own: list[Factor] = []
        while size > 1:
            if not left:
                raise Untold
            n, batch = left.pop()
            if size % n == 0:
                own.append((n, batch))
                size //= n
            elif batch or n % size:
                raise Untold
            else:
                own.append((size, False))
                left.append((n // size, False))
                size = 1
        found.append(tuple(own) or ((1, False),))
    if left:
        raise Untold
    return tuple(found)


def broadcast(all_axes: Sequence[Axes], shape: Sequence[int]) -> Axes:
    """Axes of an elementwise result."""
    out = []
    for place, n in enumerate(shape, start=-len(shape)):
        own = [axes[place] for axes in all_axes if len(axes) >= -place]
        own = [axis for axis in own if length(axis) == n] or [((n, False),)]
        out.append(_same(own) if n != 1 else own[0])
    return tuple(out)


def _same(own: Sequence[Axis]) -> Axis:
    """One axis of several operands, of which all or none grow with the batch."""
    if len({grows(axis) for axis in own}) > 1:
        raise Untold
    return next((axis for axis in own if len(axis) > 1), own[0])


def _fixed_only(*all_axes: Axes) -> None:
    if any(grows(axis) for axes in all_axes for axis in axes):
        raise Untold


def _position(dim: int, rank: int) -> int:
    return dim + rank if dim < 0 else dim


class Rules:
    """The rules, for one op."""

    def __init__(self, name: str, c: Called, of: AxesOf, code: Code):
        self.name, self.c, self.of, self.code = name, c, of, code
        self.shapes = [tuple(t.shape) for t in c.outs]

    def get(self, place: int, name: str, default: Any = None) -> Any:
        """An argument by position or by name."""
        if len(self.c.args) > place:
            return self.c.args[place]
        return self.c.kwargs.get(name, default)

    # ---------------------------------------------------------------- views
    def view(self) -> list[Axes]:
        """view, reshape and their kin; a number that code states stays what it is."""
        axes = viewed(self.of(self.c.args[0]), self.shapes[0])
        stated = self.code.stated(self.shapes[0])
        own = tuple(map(grows, axes))
        if stated and not any(
            all(mark is None or mark == batch for mark, batch in zip(marks, own, strict=True))
            for marks in stated
        ):
            raise Untold
        return [axes]

    def permuted(self) -> list[Axes]:
        """t, transpose, permute."""
        axes = self.of(self.c.args[0])
        order = list(range(len(axes)))
        if self.name == "permute":
            order = [_position(d, len(axes)) for d in self.c.args[1]]
        elif self.name == "transpose":
            a, b = (_position(d, len(axes)) for d in self.c.args[1:3])
            order[a], order[b] = b, a
        elif self.name == "t":
            order.reverse()
        else:
            raise Untold
        return [tuple(axes[d] for d in order)]

    def expand(self) -> list[Axes]:
        """expand: a new axis, or one of length 1 that becomes longer, must not be the batch."""
        axes = self.of(self.c.args[0])
        (shape,) = self.shapes
        new = len(shape) - len(axes)
        longer = [n for n, axis in zip(shape[new:], axes, strict=True) if length(axis) != n]
        if not longer and not new:
            return [axes]
        asked = self.code.asked(shape)
        return [
            tuple(
                axes[place - new] if place >= new and length(axes[place - new]) == n else whole
                for place, (n, whole) in enumerate(zip(shape, asked, strict=True))
            )
        ]

    def unsqueezed(self) -> list[Axes]:
        """unsqueeze, and squeeze of axes that do not grow."""
        axes = self.of(self.c.args[0])
        if self.name == "unsqueeze":
            place = _position(self.c.args[1], len(axes) + 1)
            return [(*axes[:place], ((1, False),), *axes[place:])]
        left = [axis for axis in axes if length(axis) > 1 or grows(axis)]
        (shape,) = self.shapes
        if len(self.c.args) > 1:
            dims = self.c.args[1] if isinstance(self.c.args[1], (list, tuple)) else [self.c.args[1]]
            gone = {_position(d, len(axes)) for d in dims}
            left = [a for i, a in enumerate(axes) if i not in gone or length(a) > 1]
        if tuple(map(length, left)) != shape:
            raise Untold
        return [tuple(left)]

    def cut(self) -> list[Axes]:
        """select, slice, split and their kin along an axis that does not grow."""
        axes = self.of(self.c.args[0])
        dim = _position(self.dim(axes), len(axes))
        if grows(axes[dim]):
            if all(shape == tuple(map(length, axes)) for shape in self.shapes):
                return [axes for _ in self.shapes]  # a slice of everything
            raise Untold
        gone = self.name in ("select", "unbind")
        return [
            (*axes[:dim], *axes[dim + 1 :])
            if gone
            else (*axes[:dim], ((shape[dim], False),), *axes[dim + 1 :])
            for shape in self.shapes
        ]

    def dim(self, axes: Axes) -> int:
        """The axis along which an op cuts."""
        place = 1 if self.name in ("select", "slice", "unbind", "narrow", "unfold") else 2
        return int(self.get(place, "dim", 0))

    def uncut(self) -> list[Axes]:
        """Gradients of select and slice: the axis that was cut does not grow."""
        axes, dim = self.of(self.c.args[0]), self.c.args[2]
        (shape,) = self.shapes
        dim = _position(dim, len(shape))
        if self.name == "select_backward":
            axes = (*axes[:dim], ((1, False),), *axes[dim:])
        if grows(axes[dim]) and length(axes[dim]) != shape[dim]:
            raise Untold
        whole = axes[dim] if length(axes[dim]) == shape[dim] else ((shape[dim], False),)
        return [(*axes[:dim], whole, *axes[dim + 1 :])]

    # ---------------------------------------------------------------- products
    def product(self) -> list[Axes]:
        """mm, bmm, addmm, baddbmm: rows of the first, columns of the second."""
        first = 1 if "add" in self.name else 0
        a, b = self.of(self.c.args[first]), self.of(self.c.args[first + 1])
        _same([a[-1], b[-2]])
        batch = (_same([a[0], b[0]]),) if len(a) == 3 else ()
        return [(*batch, a[-2], b[-1])]

    def convolution(self) -> list[Axes]:
        """Samples of the input; filters and pixels do not grow."""
        x, w = self.of(self.c.args[0]), self.of(self.c.args[1])
        _fixed_only(x[1:], w)
        return [(x[0], *fixed(self.shapes[0][1:]))]

    def as_arguments(self) -> list[Axes]:
        """Gradients that have the shapes of arguments: what an op returns for each, in order."""
        tensors = [t for t in self.c.ins if t is not None]
        out = []
        for shape in self.shapes:
            same = [self.of(t) for t in tensors if tuple(t.shape) == shape]
            if not same:
                if len(shape) > 1:
                    raise Untold
                out.append(fixed(shape))  # of a bias
                continue
            if len({tuple(map(grows, axes)) for axes in same}) > 1:
                raise Untold
            out.append(same[0])
        return out

    # ---------------------------------------------------------------- rows and images
    def leading(self) -> list[Axes]:
        """Norms, pools, resampling: axes in front as those of the input, others do not grow."""
        x = self.of(self.c.ins[0])
        rest = 1 if "layer_norm" in self.name or "rms_norm" in self.name else 2
        if rest == 2:
            _fixed_only(x[1:])
        out = []
        for shape in self.shapes:
            axes: list[Axis] = []
            flat = rest == 2 and len(shape) == 1 < len(x)  # statistics by channel
            for place, n in enumerate(shape):
                if flat:
                    axes.append(((n, False),))
                elif place < len(x) and length(x[place]) == n and (shape[0] == length(x[0])):
                    axes.append(x[place])
                elif place < len(x) and grows(x[place]) and len(shape) == len(x):
                    raise Untold
                else:
                    axes.append(((n, False),))
            out.append(tuple(axes))
        return out

    def same(self) -> list[Axes]:
        """Results in the shapes of operands: elementwise, softmax, dropout."""
        operands = [self.of(t) for t in self.c.ins]
        return [broadcast(operands, shape) if shape else () for shape in self.shapes]

    def reduced(self) -> list[Axes]:
        """Sums and their kin over some axes or all."""
        axes = self.of(self.c.ins[0])
        dims = self.get(2 if self.name == "linalg_vector_norm" else 1, "dim")
        dims = [dims] if isinstance(dims, int) and not isinstance(dims, bool) else dims
        gone = {_position(d, len(axes)) for d in dims or range(len(axes))}
        kept = tuple(axis for i, axis in enumerate(axes) if i not in gone)
        with_ones = tuple(((1, False),) if i in gone else axis for i, axis in enumerate(axes))
        out = []
        for shape in self.shapes:
            for choice in (kept, with_ones):
                if tuple(map(length, choice)) == shape:
                    out.append(choice)
                    break
            else:
                raise Untold
        return out

    # ---------------------------------------------------------------- lookups, joins
    def embedding(self) -> list[Axes]:
        """The axes of the indices, and that of the table's rows."""
        table, ids = self.of(self.c.args[0]), self.of(self.c.args[1])
        _fixed_only(table)
        return [(*ids, table[-1])]

    def joined(self) -> list[Axes]:
        """cat and stack."""
        parts = [self.of(t) for t in self.c.ins if t.dim() > 1 or t.shape[0]]
        (shape,) = self.shapes
        dim = _position(int(self.get(1, "dim", 0)), len(shape))
        if self.name == "stack":
            axes = tuple(_same(own) for own in zip(*parts, strict=True))
            return [(*axes[:dim], ((shape[dim], False),), *axes[dim:])]
        together = _same([axes[dim] for axes in parts])
        whole = ((shape[dim], grows(together)),)
        others = [_same(own) for own in zip(*parts, strict=True)]
        return [(*others[:dim], whole, *others[dim + 1 :])]

    def gathered(self) -> list[Axes]:
        """gather: the axes of the indices, whatever is gathered from."""
        return [self.of(self.c.args[2])]

    def attention(self) -> list[Axes]:
        """Attention: queries by the width of values; statistics by sample and head."""
        q, k, v = (self.of(t) for t in self.c.args[:3])
        for axes in (q, k, v):
            _fixed_only(axes[1:])
        first = _same([q[0], k[0], v[0]])
        return [
            (first, *fixed(shape[1:])) if len(shape) > 2 else fixed(shape) for shape in self.shapes
        ]

    def loss(self) -> list[Axes]:
        """Losses: a number, or one per sample where nothing is reduced."""
        if self.name.endswith("backward"):
            return [self.of(self.c.args[1])]
        return [self.of(self.c.args[1]) if shape else () for shape in self.shapes]

    def scattered(self) -> list[Axes]:
        """scatter: the first argument, along an axis that does not grow."""
        axes, index = self.of(self.c.args[0]), self.of(self.c.args[2])
        dim = _position(int(self.c.args[1]), len(axes))
        if grows(axes[dim]) or tuple(map(grows, axes)) != tuple(map(grows, index)):
            raise Untold
        return [axes]

    def chosen(self) -> list[Axes]:
        """topk and sort: along one axis that does not grow."""
        axes = self.of(self.c.args[0])
        place = {"topk": 2, "kthvalue": 2, "cummax": 1, "cummin": 1}.get(self.name, 1)
        dim = self.get(place, "dim", -1)
        dim = _position(-1 if isinstance(dim, bool) else int(dim), len(axes))
        if grows(axes[dim]):
            raise Untold
        return [(*axes[:dim], ((s[dim], False),), *axes[dim + 1 :]) for s in self.shapes]

    def recurrent(self) -> list[Axes]:
        """A recurrent layer of a library (`library_recurrent`)."""
        if self.name.endswith("backward"):
            return self.as_arguments()
        gates, _, start = (self.of(t) for t in self.c.args[:3])
        rows = [axis for axis in gates[:-1] if grows(axis)]
        if len(rows) != 1:
            raise Untold
        kept = tuple(f for axis in gates[:-1] for f in axis)
        elements = self.shapes[2][0] // length(rows[0])
        if elements * length(rows[0]) != self.shapes[2][0] or not kept:
            raise Untold
        states = (*gates[:-1], ((self.shapes[0][-1], False),))
        return [states, start, ((*rows[0], (elements, False)),)]

    def unchanged(self) -> list[Axes]:
        """The result is the first argument, or as large as that."""
        axes = self.of(self.c.args[0])
        if any(shape != tuple(map(length, axes)) for shape in self.shapes):
            raise Untold
        return [axes for _ in self.shapes]

    def table(self) -> list[Axes]:
        """Gradients of tables of weights."""
        return [fixed(shape) for shape in self.shapes]

    def padded(self) -> list[Axes]:
        """Axes that grow keep their length."""
        axes = self.of(self.c.args[0])
        out = []
        for axis, n in zip(axes, self.shapes[0], strict=True):
            if length(axis) != n and grows(axis):
                raise Untold
            out.append(axis if length(axis) == n else ((n, False),))
        return [tuple(out)]
