"""How a quantized checkpoint stores weight matrices: bits of weights, scales and zero points."""

from __future__ import annotations

import re
from functools import lru_cache

from roofcast.hwdb.formats import stored_in
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.work.traced import Node

ROUTER = "router"  # op of the layer that chooses experts, which no method quantizes
EXPERTS = "experts"
# names that a module has in transformers: as of a language model, and inside a multimodal one
_PREFIXES = ("", "language_model.", "model.language_model.")
_EXPERT = ("", ".0.gate_proj", ".0.up_proj", ".0.down_proj", ".gate_up_proj", ".down_proj")
_TOWER = re.compile(r"vi[st]|audio|multi_modal|merger|mm_projector")
_SIMPLE = re.compile(r"[\w\\.|()\[\]*+^$?:-]{1,200}")  # a regular expression that ends soon
_STARS = 5
_SCALED = 256  # groups that share a scale under double quantization [dettmers2023]


class Scheme(NamedTuple):
    """Bits of a matrix of `rows` outputs and `columns` inputs, and of what is stored beside it."""

    bits: float  # per weight
    extra: float = 0.0  # bits of scale and zero point of each group
    group: int | None = None  # inputs of a group; None: all of a row
    rows: int | None = 1  # outputs of a group; None: all
    column: float = 0.0  # bits per input
    matrix: float = 0.0  # bits per matrix
    flat: int | None = None  # weights of a group that pays no heed to rows, instead of `group`
    above: float = 0.0  # bits of a scale of 256 such groups

    def per_weight(self, rows: int, columns: int) -> float:
        """Bits per weight of a matrix, with all that is stored beside it.

        >>> Scheme(4, 20, 128).per_weight(4096, 4096)
        4.15625
        >>> Scheme(4, 8, flat=64, above=32).per_weight(4096, 4096)
        4.126953125
        """
        if self.flat is not None:
            groups = -(-rows * columns // self.flat)
            beside = self.extra * groups + self.above * -(-groups // _SCALED)
            return self.bits + (beside + self.matrix) / (rows * columns)
        groups = -(-rows // (self.rows or rows)) * -(-columns // (self.group or columns))
        beside = self.extra * groups + self.column * columns + self.matrix
        return self.bits + beside / (rows * columns)


class Storage(NamedTuple):
    """Which weight matrices a checkpoint stores quantized, and how."""

    method: str  # quant_method of the config.json
    how: str  # in words: "4 bits, groups of 128"
    scheme: Scheme
    precision: str | None = None  # policy that multiplies in the stored format; None: 16 bits
    only: str | None = None  # op whose matrices are quantized; None: all but routers and heads
    beside: Scheme | None = None  # of the matrices of other ops than `only`; None: not quantized
    head: bool = False  # the head is quantized too
    everywhere: bool = False  # so are linear layers outside of the repeated blocks, and of towers
    targets: tuple[str, ...] = ()  # patterns of modules that are quantized; (): all linear layers
    ignored: tuple[str, ...] = ()  # patterns of modules that are not
    layers: int = 1  # of the language model
    finer: Scheme | None = None  # of the head, and of half of the matrices that `fine` names
    fine: tuple[str, ...] = ()  # ends of names
    tables: bool = False  # embedding tables are quantized too

    def format(self, node: Node, rows: int, columns: int) -> str | None:
        """The format of a matrix of an op; None where it is not quantized."""
        if node.op == ROUTER:
            return None
        if self.only is not None and node.op != self.only:
            return stored_in(self.beside.per_weight(rows, columns)) if self.beside else None
        if not (node.layer or self.everywhere or self.head):
            return None
        if self.targets and not any(covers(p, node.name, node.op) for p in self.targets):
            return None
        left_out = self._left_out(node)
        if left_out >= 1.0:
            return None
        bits = self._bits(node, rows, columns)
        return stored_in(bits + left_out * (16.0 - bits))

    def table_format(self, rows: int, columns: int) -> str | None:
        """The format of an embedding table; None where it is not quantized."""
        scheme = self.beside or self.scheme
        return stored_in(scheme.per_weight(rows, columns)) if self.tables else None

    def _bits(self, node: Node, rows: int, columns: int) -> float:
        """Bits per weight of a matrix of an op, a mean over its layers."""
        bits = self.scheme.per_weight(rows, columns)
        if self.finer is None or not (node.name.endswith(self.fine) or not node.layer):
            return bits
        finer = self.finer.per_weight(rows, columns)
        return (bits + finer) / 2 if node.layer else finer

    def tower_format(self, rows: int, columns: int) -> str | None:
        """The format of a linear layer of a vision or audio tower."""
        named = any(_TOWER.search(p) for p in self.ignored)
        if not self.everywhere or named or self.only or self.targets:
            return None
        return stored_in(self.scheme.per_weight(rows, columns))

    def _left_out(self, node: Node) -> float:
        """The fraction of the layers in which an op is not quantized."""
        numbered: set[str] = set()
        for pattern in self.ignored:
            plain, number = without_number(pattern)
            if covers(plain, node.name, node.op):
                if number is None:
                    return 1.0
                numbered.add(number)
        return min(len(numbered) / max(self.layers, 1), 1.0)


@lru_cache(4096)
def without_number(pattern: str) -> tuple[str, str | None]:
    """A pattern without the number of its layer, and that number.

    >>> without_number("model.layers.3.mlp.up_proj"), without_number("re:.*lm_head")
    (('model.layers.mlp.up_proj', '3'), ('re:.*lm_head', None))
    """
    if pattern.startswith("re:"):
        return pattern, None
    found = re.search(r"(?<=\.)\d+\.", pattern)
    if found is None:
        return pattern, None
    return pattern[: found.start()] + pattern[found.end() :], found.group()[:-1]


@lru_cache(16384)
def covers(pattern: str, name: str, op: str) -> bool:
    """Whether a pattern of a config.json names an op, whose layers have no number here.

    A pattern is a name or its end or beginning, has * for anything, or is a regular expression
    behind "re:".

    >>> covers("model.layers.*.self_attn", "model.layers.self_attn.q_proj", "linear")
    True
    >>> covers("re:.*mlp.(gate|up)_proj", "model.layers.mlp.down_proj", "linear")
    False
    """
    layered = name.replace(".layers.", ".layers.0.")
    ends = _EXPERT if op == EXPERTS else ("",)
    names = [p + n + e for p in _PREFIXES for n in (name, layered) for e in ends]
    names += [n[6:] for n in names if n.startswith("model.")]
    if pattern.startswith("re:"):
        wanted = pattern[3:]
        stars = len(re.findall(r"[*+]", wanted))
        if not _SIMPLE.fullmatch(wanted) or stars > _STARS or re.search(r"\)[*+?]", wanted):
            return False
        try:
            return any(re.match(wanted, n) for n in names)
        except re.error:
            return False
    if "*" in pattern:
        parts = [re.escape(p) for p in re.split(r"\*+", pattern[:200])]
        if len(parts) > _STARS:
            return False
        wanted = ".*".join(parts) + r"(\.|$)"
        return any(re.match(wanted, n) for n in names)
    return any(f".{pattern}." in f".{n}." for n in names)
