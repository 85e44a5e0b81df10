"""PyTorch's caching allocator: what it keeps of the device while tensors of changing sizes come
and go.

Sizes and rules: github pytorch/pytorch, c10/cuda/CUDACachingAllocator.cpp, where nothing is
configured. A request is served by the smallest free block that holds it; the rest of the block
stays free, and neighbours that are free join. Where no block is large enough the device is asked
for more, and that is never given back while it has room. Small requests, below a MiB, have a pool
of their own there and are left out here.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterable, Sequence

from roofcast.hwdb.tuples import NamedTuple

MIB = 2**20
UNIT = 512  # bytes that requests are rounded up to
SMALL = MIB  # a smaller rest of a block is not split off
MEDIUM = 10 * MIB  # smaller requests get a segment of SEGMENT bytes
SEGMENT = 20 * MIB
ROUND = 2 * MIB  # larger ones a segment of their size, rounded up to this


class Event(NamedTuple):
    """A tensor that comes, or one that goes."""

    tensor: Hashable
    bytes: float  # of one that comes; negative: it goes


class Pool:
    """The blocks of one device.

    >>> pool = Pool()
    >>> first = pool.take(30e6)
    >>> pool.give(first)
    >>> _ = pool.take(29e6)  # the same block
    >>> pool.reserved
    31457280
    """

    def __init__(self) -> None:
        self.reserved = 0  # bytes asked of the device
        self._sizes: list[int] = []  # of each block
        self._free: list[tuple[int, int]] = []  # size and block, ascending
        self._is_free: list[bool] = []
        self._before: list[int | None] = []  # neighbours in a segment
        self._after: list[int | None] = []

    def take(self, bytes_: float) -> int:
        """A block for a tensor of that many bytes."""
        size = max(UNIT, -(-int(bytes_) // UNIT) * UNIT)
        at = bisect_left(self._free, (size, -1))
        if at < len(self._free):
            block = self._free.pop(at)[1]
            self._is_free[block] = False
        else:
            whole = SEGMENT if size < MEDIUM else -(-size // ROUND) * ROUND
            self.reserved += whole
            block = self._new(whole, None, None)
        rest = self._sizes[block] - size
        if rest > SMALL:
            self._sizes[block] = size
            other = self._new(rest, block, self._after[block])
            self._join(other, self._after[block])
            self._after[block] = other
            self._set_free(other)
        return block

    def give(self, block: int) -> None:
        """The block back, joined with free neighbours."""
        after, before = self._after[block], self._before[block]
        if after is not None and self._is_free[after]:
            self._absorb(block, after)
        if before is not None and self._is_free[before]:
            self._unset_free(before)
            self._absorb(before, block, free=False)
            block = before
        self._set_free(block)

    def _new(self, size: int, before: int | None, after: int | None) -> int:
        self._sizes.append(size)
        self._is_free.append(False)
        self._before.append(before)
        self._after.append(after)
        return len(self._sizes) - 1

    def _join(self, block: int, after: int | None) -> None:
        if after is not None:
            self._before[after] = block

    def _absorb(self, block: int, after: int, free: bool = True) -> None:
        """Make a block and the one after it one block."""
        if free:
            self._unset_free(after)
        self._sizes[block] += self._sizes[after]
        self._after[block] = self._after[after]
        self._join(block, self._after[block])

    def _set_free(self, block: int) -> None:
        insort(self._free, (self._sizes[block], block))
        self._is_free[block] = True

    def _unset_free(self, block: int) -> None:
        self._free.pop(bisect_left(self._free, (self._sizes[block], block)))
        self._is_free[block] = False


def reserved(events: Sequence[Event], shares: Iterable[float]) -> int:
    """Bytes that the allocator holds at the end of micro-batches one after another, whose tensors
    are these shares of those of `events`.
    """
    pool = Pool()
    for share in shares:
        held: dict[Hashable, int] = {}
        for tensor, size in events:
            if size < 0:
                pool.give(held.pop(tensor))
            else:
                held[tensor] = pool.take(size * share)
    return pool.reserved
