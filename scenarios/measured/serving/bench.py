"""Limits that trtllm-bench sets of a server, from the lengths of the requests and its memory."""

from __future__ import annotations

import copy
import math

import msgspec

from roofcast.simulator.serving.server import Server

MOST = 4096  # sequences, and the tokens below, at most
TOKENS = 32768
LEAST, FEWEST = 2048, 64
# docs/source/performance/perf-overview.md, llm_options.yml: batch_sizes, with enable_padding
GRAPHS = (128, 256, 384, 512, 1024, 2048, 4096, 8192)
# numbers up to which a limit is rounded up, and to multiples of what
SEQUENCES = ((256, 32), (1024, 128), (math.inf, 256))
STEPS = ((4096, 256), (8192, 512), (math.inf, 1024))


def limits(held: float, new: int, out: int) -> tuple[int, int]:
    """Sequences and tokens of a step at most, where the cache holds so many sequences of `new`
    tokens of a prompt and `out` of an answer (NVIDIA/TensorRT-LLM, tensorrt_llm/bench/build/
    tuning.py: finetune_setting; one pipeline stage).

    >>> limits(1145.0, 128, 2048), limits(60.0, 20000, 2000)
    ((1280, 2048), (64, 2048))
    """
    most = min(held, MOST)
    tokens = min(most * (1.0 + new / out), TOKENS)
    return max(_up(most, SEQUENCES), FEWEST), max(_up(tokens, STEPS), LEAST)


def _up(value: float, steps: tuple[tuple[float, int], ...]) -> int:
    step = next(step for below, step in steps if value < below)
    return step * math.ceil(value / step)


def benched(server: Server, held: float, new: int, out: int) -> tuple[Server, int]:
    """The server with these limits, of each rank, and the most sequences of all. Graphs of more
    than those of a rank are captured for as many (pyexecutor/model_engine.py:
    _filter_cuda_graph_batch_sizes).
    """
    most, tokens = limits(held, new, out)
    top = min(most, tokens)
    graphs = (*(n for n in GRAPHS if n < top), top)
    found = copy.copy(server)
    found.profile = msgspec.structs.replace(server.profile, graphs=graphs)
    ranks = server.degrees.dp
    found.most_sequences, found.chunk_tokens = most * ranks, tokens * ranks
    return found, most * ranks
