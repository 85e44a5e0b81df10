"""The kernels of a step in the groups that one call of a formula computes, and the columns of their
numbers. Both are the same on every device, so that a step that is timed on many is grouped once.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from roofcast.hwdb.constants import Kernels
from roofcast.hwdb.formats import WIDTH
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.times.ages import odd_rows, widens
from roofcast.simulator.times.attention import SHORT
from roofcast.simulator.times.stream import Class, class_of
from roofcast.simulator.work.traced import Kernel

if TYPE_CHECKING:
    from roofcast.simulator.work.step import Step

STREAMS = {  # kernel kinds -> classes of times.stream, forward and backward
    "layer_norm": ("norm", "norm_backward"),
    "accumulate": ("elementwise", "elementwise"), "pool": ("compare", "pool"),
}  # fmt: skip
# kinds: as stacks name them
PRODUCTS = {"matmul": "matmul", "sparse_matmul": "matmul", "conv": "conv", "depthwise": "conv"}

# kernels that one call of one formula computes: the formula, what it needs beside shapes (backward,
# phase and memory format, whether rows of a matrix are odd, whether a stream is the optimizer's),
# and the number format
Key = tuple[str, Any, str]


class Members:
    """Kernels of one group, and columns of their numbers: one entry per kernel."""

    def __init__(self, kernels: list[Kernel], streamed: bool = False) -> None:
        """streamed: pools read and write memory as reductions do."""
        self.kernels = kernels
        self.streamed = streamed
        self._classes: tuple[Kernels, Class] | None = None

    @cached_property
    def shapes(self) -> np.ndarray:
        """The numbers of their shapes, a row each."""
        return columns([k.shape for k in self.kernels])

    @cached_property
    def layers(self) -> np.ndarray:
        """Of convolutions the numbers of their shapes behind the phase, a row each."""
        return columns([k.shape[1:] for k in self.kernels])

    @cached_property
    def work(self) -> np.ndarray:
        """FLOP on matrix units, FLOP on vector units, special functions, and bytes: a row each."""
        return columns([(k.matrix, k.vector, k.special, k.read + k.written) for k in self.kernels])

    @cached_property
    def scattered(self) -> np.ndarray:
        """Bytes, those of gathers and scatters as many times as elements move one by one."""
        return np.array([(k.read + k.written) * _scalar(k) for k in self.kernels], dtype=float)

    @cached_property
    def moved(self) -> np.ndarray:
        """Bytes where the epilogue of a kernel adds some, nan elsewhere."""
        return np.array([_with_epilogue(k) for k in self.kernels])

    @cached_property
    def computed(self) -> np.ndarray:
        """Fraction of the counted FLOPs that attention kernels execute."""
        return np.array([computed(k) for k in self.kernels])

    @cached_property
    def short(self) -> np.ndarray:
        """Whether the keys and values of attention kernels stay in caches."""
        return np.array([k.shape[3] <= SHORT for k in self.kernels])

    @cached_property
    def stored(self) -> np.ndarray:
        """Bytes of an element of what each kernel writes; the fewest where it writes several."""
        return np.array([min(WIDTH[v.dtype] for v in k.outputs) for k in self.kernels])

    @cached_property
    def widened(self) -> list[bool]:
        """Whether products widen a weight that they read."""
        return [widens(k) for k in self.kernels]

    @cached_property
    def kinds(self) -> list[str]:
        """The classes of times.stream of streaming kernels, by name."""
        own = {"pool": ("reduce", "pool")} if self.streamed else {}
        classes = {**STREAMS, **own}
        return [
            classes[k.kind][k.phase == "backward"] if k.kind in classes else k.kind
            for k in self.kernels
        ]

    @cached_property
    def rows(self) -> np.ndarray:
        """Rows that a scatter adds to its table; 0 of other kernels."""
        return np.array(
            [k.shape[0] if k.kind == "scatter" and k.shape else 0.0 for k in self.kernels]
        )

    def classes(self, c: Kernels) -> Class:
        """The classes of streaming kernels under these constants."""
        if self._classes is None or self._classes[0] is not c:
            self._classes = c, class_of(self.kinds, c)
        return self._classes[1]


class Group(NamedTuple):
    """Kernels that one call of one formula computes."""

    key: Key
    places: list[int]  # of them in the step
    members: Members


class Grouped:
    """The groups of steps that are timed on several devices; the steps are kept as long."""

    def __init__(self) -> None:
        self._known: dict[tuple, tuple[tuple[Kernel, ...], list[Group]]] = {}

    def of(self, step: Step, tf32: tuple[str, ...]) -> list[Group]:
        """As `groups`."""
        key = id(step.kernels), step.recipe.stack.memory_format, _streamed(step), tf32
        if key not in self._known:
            self._known[key] = step.kernels, groups(step, tf32)
        return self._known[key][1]


def groups(step: Step, tf32: tuple[str, ...]) -> list[Group]:
    """The kernels of a step by the call that computes them. tf32: fp32 ops that may use TF32."""
    last, ks = step.recipe.stack.memory_format == "channels_last", step.kernels
    tokens = {k.node: k.shape[1] for k in ks if k.kind == "matmul" and k.phase == "forward"}
    found: dict[Key, list[int]] = {}
    for i, k in enumerate(ks):
        found.setdefault(_key(k, last, tf32, tokens.get(k.node)), []).append(i)
    pools = _streamed(step)
    return [Group(key, at, Members([ks[i] for i in at], pools)) for key, at in found.items()]


def _streamed(step: Step) -> bool:
    """Do pools of this step read and write memory as reductions do?"""
    recipe = step.recipe
    return recipe.mode == "infer" and recipe.stack.implementations.get("pool") == "streamed"


def _key(k: Kernel, channels_last: bool, tf32: tuple[str, ...], tokens: float | None) -> Key:
    """The call that computes a kernel. tokens: of odd_rows."""
    if k.kind == "matmul":
        product = asked_format(k, "matmul", tf32)
        return "matmul", odd_rows(k, product, tokens), product
    if k.kind == "sparse_matmul":
        return "sparse", None, k.product
    if k.kind == "attention" or (k.kind == "recurrent" and k.shape):
        return k.kind, k.phase == "backward", k.product
    if k.kind in ("conv", "depthwise"):
        return "conv", (k.shape[0], channels_last), asked_format(k, "conv", tf32)
    return "stream", k.kind == "optimizer" or None, "fp32"


def asked_format(k: Kernel, op: str, tf32: tuple[str, ...]) -> str:
    """The number format that a kernel asks its products to run in."""
    return "tf32" if k.product == "fp32" and op in tf32 else k.product


def columns(rows: list[tuple]) -> np.ndarray:
    """One array per column of the rows."""
    return np.array(rows, dtype=float).T


def _with_epilogue(k: Kernel) -> float:
    """Bytes of a product or convolution whose epilogue does more than to write its result; nan
    for others, whose formula knows.
    """
    more = k.phase == "forward" and (k.vector > 0 or len(k.outputs) > 1)
    few = any(WIDTH[v.dtype] < 2.0 for v in k.inputs[:2])
    return k.read + k.written if more or few else np.nan


def _scalar(k: Kernel) -> float:
    """Gathers and scatters move one element per thread: 16-bit elements reach half of the bandwidth
    of fp32 ones.
    """
    return 2.0 / max(WIDTH.get(k.product, 4), 2) if k.kind in ("gather", "scatter") else 1.0


def computed(k: Kernel) -> float:
    """Fraction of the counted FLOPs of an attention kernel that it executes: half of a causal
    square, the columns of a window, a rank's part of the square in ring attention. Assumes heads of
    one width.
    """
    batch, heads, _, rows, columns, dim, causal = k.shape
    whole = k.matrix / ((10.0 if k.phase == "backward" else 4.0) * batch * heads * rows * dim)
    return min(columns / whole, 0.5 if causal else 1.0)
