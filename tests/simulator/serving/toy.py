"""An analytic server for laws of the load layer: a dense model whose steps take closed forms."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class Toy:
    """Times of some 8B parameters on a device of 1e15 FLOP/s and 3e12 B/s."""

    devices: int = 1
    weight_bytes: float = 16e9
    runtime_bytes: float = 2e9
    memory_bytes: float = 72e9
    chunk_tokens: int = 8192
    most_sequences: int | None = None
    token_bytes: float = 131072.0
    request_s: float = 0.0
    user_s: float = 0.0
    evicts: bool = True
    attention_groups: int = 1
    flop_s: float = 0.5e15
    byte_s: float = 3e12
    host_s: float = 1e-3

    def _step(self, rows, seen, pairs):
        stream = self.weight_bytes / self.byte_s
        p = 4
        products = ((2 * 8e9 * rows / self.flop_s) ** p + stream**p) ** (1 / p)
        attention = seen * self.token_bytes / self.byte_s + 4 * 4096 * 32 * pairs / self.flop_s
        return self.host_s + products + attention

    def decode(self, sequences, context):
        b, c = np.asarray(sequences, float), np.asarray(context, float)
        return self._step(b, b * c, 0.0)

    def prefill(self, prompts, new, cached=0):
        n, t, c = (np.asarray(v, float) for v in (prompts, new, cached))
        return self._step(n * t, n * c, n * t * (c + t / 2))

    def mixed(self, sequences, context, new, cached=0, prompts=1):
        given = (sequences, context, new, cached, prompts)
        b, c, t, k, n = (np.asarray(v, float) for v in given)
        return self._step(b + t, b * c + n * k, t * (k + t / n / 2))

    def cache_bytes(self, context):
        return np.asarray(context, float) * self.token_bytes


def close(a: float, b: float, share: float) -> bool:
    return math.isclose(a, b, rel_tol=share)
