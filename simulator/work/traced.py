"""Records that a model leaves on the tape: ops, kernels, weights, kept storages, collectives.

A field called `count` hides the method `count` of tuples, which nothing calls on a record.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from roofcast.hwdb.tuples import NamedTuple

if TYPE_CHECKING:
    from roofcast.simulator.work.value import Value


class Node(NamedTuple):
    """A named op of the model."""

    name: str
    op: str
    count: int  # type: ignore[assignment]
    layer: int  # index of its block, the unit of recomputation and sharding; 0: in no block


class Kernel(NamedTuple):
    """One kernel launch, repeated `count` times per step. FLOPs and bytes are per launch."""

    node: int
    phase: str  # forward | backward | recompute | update
    kind: str  # selects the time formula: matmul | attention | conv | elementwise | norm ...
    product: str  # operand format of the matrix unit, or the format of the vector work
    matrix: float  # FLOPs of the matrix unit
    vector: float  # FLOPs of the vector unit
    special: float  # results of special functions: exp, tanh, erf, rsqrt ...
    read: float  # bytes
    written: float  # bytes
    shape: tuple  # arguments of the time formula: (batch, m, n, k) of a product ...
    count: int  # type: ignore[assignment]
    inputs: tuple[Value, ...] = ()  # read by a forward kernel
    outputs: tuple[Value, ...] = ()  # written by a forward kernel


class Weight(NamedTuple):
    """A parameter with `size` elements, `count` of them if its layer is repeated."""

    node: int
    size: int
    dtype: str
    count: int  # type: ignore[assignment]
    trainable: bool
    expert: bool = False  # belongs to an expert: data-parallel ranks may hold different experts
    looked_up: int | None = None  # elements of a table with sparse gradients that a step looks up
    share: float = 1.0  # of its elements that one token uses: those of the experts that it chooses

    @property
    def updated(self) -> int:
        """Elements that have a gradient and are updated in a step."""
        return self.size if self.looked_up is None else min(self.size, self.looked_up)


class Saved(NamedTuple):
    """A storage kept for backward, as the tape tracks it."""

    node: int
    bytes: float
    count: int  # type: ignore[assignment]
    kind: str  # activation | input | weight_copy
    last: bool  # of a repeated block's output: the copy of the last block is kept, too
    # op behind the repeated blocks that keeps the output of the last one, and how many copies
    behind: tuple[int, int] | None = None


class Kept(NamedTuple):
    """`count` storages of `bytes` each that one op keeps for backward."""

    node: int
    bytes: float
    count: float  # type: ignore[assignment]
    kind: str  # activation | input | weight_copy
    storage: int
    behind: tuple[int, int] | None = None  # op behind a block that keeps so many of them


class Cache(NamedTuple):
    """Keys and values that `count` layers would keep of each token while they generate."""

    bytes: float  # per layer, token and sequence
    count: int  # type: ignore[assignment]
    window: int | None  # tokens that a layer looks back on; None: all
    # of the encoder's output, whose keys and values are kept once; None: of tokens generated
    tokens: int | None = None


class Traffic(NamedTuple):
    """One collective inside the model, repeated `count` times per micro-batch."""

    node: int
    phase: str  # forward | backward
    kind: str  # all_reduce | all_gather | reduce_scatter | all_to_all | ring
    group: str  # tp | cp | ep | etp
    bytes: float  # of the whole buffer, as the library's size argument counts them
    count: int  # type: ignore[assignment]
    # whether it overlaps with the kernels of its op, which do not wait for it; None: with nothing
    behind: bool | None = False
    copies: int = 1  # per token, in an exchange between experts


class Parallel(NamedTuple):
    """The share of the model that one rank runs. Shapes on the tape are those of that rank."""

    tp: int = 1  # tensor parallelism: features of a block's linear layers, heads, vocabulary
    sp: bool = (
        False  # sequence parallelism over the tp ranks between those layers [korthikanti2022]
    )
    cp: int = 1  # context parallelism: tokens of every tensor
    cp_kind: str = "ring"  # context-parallel algorithm: ring | all-gather | ulysses
    ep: int = 1  # expert parallelism over data-parallel ranks
    etp: int = 1  # tensor parallelism inside an expert
    stages: int = 1  # of the pipeline; recompute=block:N counts layers per stage


ALONE = Parallel()


class Checkpoint(NamedTuple):
    """Ops that a framework computes again together, where these are not the repeated blocks."""

    first: int  # node
    last: int  # node behind the last one
    read: tuple[Value, ...]  # kept in place of what is inside


class Block(NamedTuple):
    """`count` consecutive repetitions of the same ops: for example, the layers of a transformer."""

    name: str
    count: int  # type: ignore[assignment]
    carried: float  # bytes passed from one repetition to the next
    within: int = 0  # index of the block that holds it


def layer_order(blocks: Sequence[Block], own: Collection[int]) -> list[int]:
    """The layers of a model in order, each as the index of its block.

    own: blocks that have ops of their own. Where layers alternate, as in gemma-2, the block that
    holds both kinds has none, and is no layer itself.

    >>> local, both = Block("layers", 4, 0.0, within=1), Block("model", 2, 0.0)
    >>> layer_order([Block("", 1, 0.0), both, local, Block("layers", 2, 0.0, within=1)], {0, 2, 3})
    [2, 2, 3, 2, 2, 3]
    """
    inside: dict[int, list[int]] = {}
    for b, block in enumerate(blocks):
        if b:
            inside.setdefault(block.within, []).append(b)
    return list(_inside(blocks, own, 0, inside))


def _inside(
    blocks: Sequence[Block], own: Collection[int], holder: int, inside: dict[int, list[int]]
) -> Iterator[int]:
    """The layers in one repetition of a block. inside: blocks that each block holds."""
    for b in inside.get(holder, ()):
        for _ in range(blocks[b].count // blocks[holder].count):
            if b in own:
                yield b
            yield from _inside(blocks, own, b, inside)
