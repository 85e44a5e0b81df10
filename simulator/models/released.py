"""The format in which the weights of a model were released: what inference loads where no other is
asked for, by the quantization_config of its config.json (quantized.py).

Shipped configurations have that key, where a model was released in fewer than 16 bits. What public
copies of 2026-11 quote of them: DeepSeek-V3 (fp8, blocks of 128), Kimi K2 (github
MoonshotAI/Kimi-K2, README.md: block-fp8), MiniMax-M2, gpt-oss (OpenAI 2025, Section 2.1: mxfp4).
Assumed: DeepSeek-V3.2 as V3 with scales in ue8m0, from one note; Kimi K2 Thinking with experts
alone in int4, symmetric, groups of 32, from copies that do not name the model.
"""

from __future__ import annotations

from roofcast.simulator.work.model import Model

# families released in 16 bits whose makers have a second checkpoint in fp8, with a scale per block
# of 128 x 128 (config.json of Qwen/Qwen3-235B-A22B-FP8: weight_block_size)
IN_BLOCKS = ("qwen3_moe",)


def released_in(model: Model) -> str | None:
    """The name of the format, as --weights takes it; None: 16 bits, or a format without a name."""
    stored = model.storage
    if stored is None:
        return None
    return "mxfp4" if stored.method == "mxfp4" else stored.precision


def in_blocks(model: Model) -> bool:
    """Whether the fp8 weights of a model have a scale per block of a matrix."""
    stored = model.storage
    if stored is not None:
        return stored.precision == "fp8" and (stored.scheme.rows or 1) > 1
    return model.family in IN_BLOCKS


def told_of(model: Model) -> str:
    """Where the format of a model's weights is from, in words: "gpt-oss-20b was released in mxfp4".

    Raises ValueError for a model in 16 bits.
    """
    stored = model.storage
    if stored is None:
        raise ValueError(f"{model.name} was released in 16 bits")
    found = released_in(model) or f"{stored.how} ({stored.method})"
    if model.widened:  # a shipped name
        return f"{model.name} was released in {found}"
    return f"its checkpoint is in {found}"
