"""What a tape holds when a model has run on it, as frozen records: ops, kernels, weights, kept
storages, collectives, blocks.
"""

from __future__ import annotations

from typing import NamedTuple


class Node(NamedTuple):
    """A named op of the model."""

    name: str
    op: str
    count: int
    layer: int  # index of the block it stands in; blocks recompute and shard as one


class Kernel(NamedTuple):
    """One launch, `count` times a step. Work per launch."""

    node: int
    phase: str  # forward | backward | update
    kind: str  # which time formula: matmul | attention | conv | elementwise | norm ...
    product: str  # format the matrix unit takes, or the format of the vector work
    matrix: float  # FLOPs on the matrix unit
    vector: float  # FLOPs on the vector unit
    special: float  # exp, tanh, erf, rsqrt ... results
    read: float  # bytes
    written: float  # bytes
    shape: tuple  # what the time formula needs to know: (batch, m, n, k) of a product ...
    count: int
    inputs: tuple = ()  # Values read and written by a forward kernel
    outputs: tuple = ()


class Weight(NamedTuple):
    """A parameter of so many elements, `count` times where its layer is repeated."""

    node: int
    size: int
    dtype: str
    count: int
    trainable: bool
    expert: bool = False  # of a mixture's experts: other data-parallel ranks hold other ones


class Kept(NamedTuple):
    """Storages of one kind that one op keeps for backward."""

    node: int
    bytes: float
    count: int
    kind: str  # activation | input | weight_copy
    storage: int


class Traffic(NamedTuple):
    """One collective inside the model, `count` times a micro-batch."""

    node: int
    phase: str  # forward | backward
    kind: str  # all_reduce | all_gather | reduce_scatter | all_to_all | ring
    group: str  # tp | cp | ep | etp
    bytes: float  # of the whole buffer, as the library's size argument counts it
    count: int
    behind: bool = False  # the kernels it stands beside do not wait for it
    copies: int = 1  # of each token, in an exchange between experts


class Parallel(NamedTuple):
    """How one rank's share of a model is cut: shapes on the tape are then one rank's."""

    tp: int = 1  # tensor: features of the linear layers of a block, heads, vocabulary
    sp: bool = False  # tokens of what is between them, over the same ranks [korthikanti2022]
    cp: int = 1  # context: tokens of everything
    # how attention meets the other ranks' tokens: ring | all-gather | ulysses
    cp_kind: str = "ring"
    ep: int = 1  # experts over data-parallel ranks
    etp: int = 1  # tensor degree of an expert
    # parts of the pipeline: what recomputes so many layers of a stage depends on it
    stages: int = 1


ALONE = Parallel()


class Block(NamedTuple):
    """A run of ops that recomputation treats as one: a transformer layer, say. `count` of them in a
    row.
    """

    name: str
    count: int
    carried: float  # bytes handed from one to the next
