"""Which constants of serving profiles are fitted to measured servers, and so to which rows."""

from __future__ import annotations

# profile -> its fitted constants of steps, with where a search starts
FITTED: dict[str, dict[str, float]] = {
    "vllm": {"sum_s": 14e-6},
    "trt-llm": {"sum_s": 6e-6},
    "vllm-2025": {"seq_s": 39e-6},
    "vllm-2024": {"step_s": 1.7e-3, "seq_s": 74e-6},
    "trt-llm-2024": {"dispatch_s": 4e-6},
    "vllm-2023": {"dispatch_s": 60e-6},
    "llama.cpp-2024": {"gemv": 6.0, "dispatch_s": 27e-6, "products": 0.6},
    "llama.cpp-metal": {"gemv": 7.0, "gemv_weights": 8.0, "stream": 1.3},
    "llama.cpp-cpu": {"dots": 0.1},
    "llama.cpp-rocm": {"products": 0.5, "attention": 0.4},
}
APART, WITHIN = "vllm", "trt-llm"  # profiles that have the constants of a first token
# profiles whose closed loops these are fitted to
FIRST = {"vllm": APART, "vllm-0.12": APART, "trt-llm": WITHIN, "sglang": WITHIN}


def fitted(stack: str, load_kind: str, column: str) -> bool:
    """Whether a constant of time is fitted to such a value.

    >>> fitted("sglang", "concurrency", "ttft_s"), fitted("sglang", "concurrency", "tpot_s")
    (True, False)
    """
    if load_kind in ("all_at_once", "request_rate"):
        return False
    return stack in (FIRST if (load_kind, column) == ("concurrency", "ttft_s") else FITTED)
