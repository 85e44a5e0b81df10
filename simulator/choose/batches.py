"""The global batch of a run, where none is given: one batch for every device and layout, so that
all of them train the same model in as many steps.
"""

from __future__ import annotations

import math

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.units import quantity
from roofcast.simulator.forecast.lengths import varied_of
from roofcast.simulator.forecast.run import LONGEST
from roofcast.simulator.forecast.scenario import Scenario

SCALE, EXPONENT = 0.2920, 0.3271  # tokens = SCALE x FLOP^EXPONENT [bi2024]
IMAGES = 1024  # within 256 to 8192, over which ResNet-50 trains alike [goyal2017]
ROWS = 65536  # of MLPerf Training's recommender
CHINCHILLA = 20.0  # tokens per parameter of a compute-optimal run [hoffmann2022]
FINE_TUNING = 64  # sequences, however long the run
TUNES = ("lora", "prompt_tuning", "prefix_tuning", "freeze", "train", "weights")  # of a Scenario
PER_TOKEN = 6.0  # FLOP per parameter and token: forward, and twice that in backward
INFERENCE = 256  # sequences of an inference batch


def run_batch(s: Scenario, takes: str, size: int | None, parameters: float) -> tuple[int, str]:
    """The global batch of a run [samples], and the assumption.

    For language models the batch that DeepSeek fitted to the compute of a run,
    tokens = 0.2920 C^0.3271, to the next of 1, 2, 3, 4, 6, 8, 12 ... samples; where not all of the
    net trains, FINE_TUNING. Raises BadInput where epochs are given without samples; without any
    length as of a run that is compute-optimal.
    """
    if s.mode == "infer" or takes != "sequence" or not size:
        batch = {"sequence": INFERENCE, "image": IMAGES, "table": ROWS}[takes]
        return batch, f"batch {batch:,} (not given)"
    if s.tokens is None and s.samples is None and s.epochs is not None:
        raise no_length(takes)
    if any(getattr(s, field) is not None for field in TUNES):
        return FINE_TUNING, f"batch {FINE_TUNING} sequences (not given)"
    sample = row = float(size)  # tokens of a sample, and of what a sequence of a step reads
    if (varied := varied_of(s)) is not None:
        sample, row = varied.lengths.mean, varied.read(1)[1]
    how = "as DeepSeek fitted to the compute of a run"
    if s.tokens is not None:
        tokens = quantity(s.tokens, "tokens") * (s.epochs or 1)
    elif s.samples is not None:
        tokens = quantity(s.samples, "samples") * (s.epochs or 1) * sample
    else:
        tokens = CHINCHILLA * parameters
        how += f", of {CHINCHILLA:g} tokens per parameter since no length was given"
    if not 0 < tokens <= LONGEST * row:
        return 1, "batch 1 (not given)"
    wanted = SCALE * (PER_TOKEN * parameters * tokens) ** EXPONENT / row
    batch = _round(wanted)
    return batch, (
        f"batch {batch:,} sequences (not given): {batch * row / 1e6:.3g} million tokens, {how}"
    )


def no_length(takes: str) -> BadInput:
    """The error of a run without a length."""
    what = "--tokens 2T" if takes == "sequence" else "--samples 1.28M --epochs 90"
    return BadInput(f"how long is the run? give its length, for example {what}")


def _round(value: float) -> int:
    """The nearest of 1, 2, 3, 4, 6, 8, 12, 16 ..., by ratio.

    >>> [_round(x) for x in (0.4, 5.1, 1300.0, 2250.0)]
    [1, 6, 1536, 2048]
    """
    power = 2.0 ** math.floor(math.log2(max(value, 1.0)))
    near = (power, 1.5 * power, 2 * power)
    whole = [int(n) for n in near if n == int(n)]
    return min(whole, key=lambda n: abs(math.log(n / max(value, 1.0))))
