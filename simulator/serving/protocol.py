"""What the load layer needs of a server: the times of its steps, and its memory."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

Numbers = Any  # a float or an array of floats; arguments broadcast


class Server(Protocol):
    """One replica: a model on its devices, with a layout, formats and a software stack.

    Seconds and bytes; every argument broadcasts. Times include the host's.
    """

    devices: int
    weight_bytes: float  # of one device
    runtime_bytes: float  # context, graphs, workspaces of one device
    memory_bytes: float  # of one device, as far as the stack uses it
    chunk_tokens: int  # prompt tokens that one step takes at most
    most_sequences: int | None  # that the stack runs at once
    attention_groups: int  # of devices, each with sequences of its own
    request_s: float  # from the client to the engine
    user_s: float  # more for each other user, whose tokens the same loop sends
    evicts: bool  # whether sequences may lose their cache to others

    def decode(self, sequences: Numbers, context: Numbers) -> np.ndarray:
        """Seconds of a step that makes one token for each of `sequences`, which look back on
        `context` tokens in the mean.
        """
        ...

    def prefill(self, prompts: Numbers, new: Numbers, cached: Numbers = 0) -> np.ndarray:
        """Seconds of one forward pass over `prompts` prompts of `new` tokens each, behind `cached`
        tokens that are in the cache already.
        """
        ...

    def mixed(
        self,
        sequences: Numbers,
        context: Numbers,
        new: Numbers,
        cached: Numbers = 0,
        prompts: Numbers = 1,
    ) -> np.ndarray:
        """Seconds of a decode step that carries `new` tokens of `prompts` prompts together, behind
        `cached` ones each.
        """
        ...

    def cache_bytes(self, context: Numbers) -> np.ndarray:
        """Bytes of the cache of one sequence of `context` tokens, on one device that holds it."""
        ...
