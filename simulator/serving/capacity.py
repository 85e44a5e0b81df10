"""How many sequences fit: the memory that weights leave to the cache, in blocks of 16 tokens."""

from __future__ import annotations

import math

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.protocol import Server

BLOCK = 16  # tokens
WATERMARK = 0.01
OFFLINE = 0.6  # of an answer, that a sequence holds in the mean where one loses its cache to others
MOST = 2048  # sequences at once, where the stack has no limit


class Room(NamedTuple):
    """Bytes of one device, and what one sequence takes of them.

    The cache of a sequence is taken as `fixed + per_token x tokens` between the lengths asked for:
    exact where all layers look back on all tokens, or all on a window that is full.
    """

    memory_bytes: float  # that the stack may use
    weight_bytes: float
    runtime_bytes: float
    fixed: float  # states and full windows of a sequence
    per_token: float
    groups: int  # of devices, each with sequences of its own (data-parallel attention)
    limit: int  # sequences at once, of the stack
    reserved: float = OFFLINE  # share of its answer for which a sequence holds cache, in the mean

    @property
    def cache_bytes(self) -> float:
        """What is left for the cache, on one device; below zero where the weights do not fit."""
        return self.memory_bytes - self.weight_bytes - self.runtime_bytes

    def of_sequence(self, tokens: float) -> float:
        """Cache of one sequence, in whole blocks, on one device."""
        return self.fixed + self.per_token * BLOCK * math.ceil(tokens / BLOCK)

    def sequences(self, tokens: float) -> int:
        """Sequences of this length that fit at once; 0 where not even one does."""
        one = self.of_sequence(tokens)
        if self.cache_bytes <= 0:
            return 0
        held = self.cache_bytes / one if one > 0 else math.inf
        return int(min(self.groups * math.floor(min(held, 1e9)), self.limit))

    def longest(self) -> float:
        """Tokens of the longest sequence that fits alone; infinite where the cache does not grow,
        or the memory is unknown.

        Where windows or states make the cache of a short one dearer, it is a lower bound.
        """
        if self.cache_bytes < self.fixed:
            return 0.0
        if self.per_token <= 0 or math.isinf(self.cache_bytes):
            return math.inf
        return BLOCK * math.floor((self.cache_bytes - self.fixed) / self.per_token / BLOCK)


def room(server: Server, shortest: float, longest: float) -> Room:
    """The memory of a device of a server, for sequences of `shortest` to `longest` tokens."""
    ends = max(shortest, 1.0), max(longest, shortest + 1.0)
    low, high = (float(server.cache_bytes(tokens)) for tokens in ends)
    per_token = max((high - low) / (ends[1] - ends[0]), 0.0)
    return Room(
        float(server.memory_bytes),
        float(server.weight_bytes),
        float(server.runtime_bytes),
        max(high - per_token * ends[1], 0.0),
        per_token,
        int(server.attention_groups),
        int(server.most_sequences or MOST),
        OFFLINE if server.evicts else 1.0,
    )
