"""A step over several devices is the sum of the parts that its forecast tells, in random draws of
models, layouts and offloading.
"""

import random

import pytest

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.scenario import Scenario

MODELS = ("gpt2", "gpt2-xl", "bert-large", "llama-2-7b", "llama-65b", "mixtral-8x7b")
DEVICES = (
    "h100-sxm5", "a100-sxm4-80gb", "mi300x", "b200-sxm", "v100-sxm2-32gb", "l40s", "tpu-v5e",
    "gaudi2", "rtx-4090",
)  # fmt: skip
STACKS = (
    None, "pytorch-eager", "fsdp-eager", "te-nemo-2024", "maxtext", "megatron-2021",
    "fsdp-torchtitan",
)  # fmt: skip
OFFLOAD = ((), ("activations",), ("optimizer",), ("activations", "optimizer"))
SCHEDULES = ("1f1b", "gpipe", "zb-h1", "zb-v", "dualpipe")
DRAWS = 250  # of each seed


def drawn(rng):
    """A scenario over several devices."""
    micro_batch, micro_batches = rng.choice((1, 2, 4)), rng.choice((1, 2, 4, 8))
    pp, dp = rng.choice((1, 1, 1, 2, 4)), rng.choice((1, 2, 8, 64))
    return Scenario(
        model=rng.choice(MODELS),
        device=rng.choice(DEVICES),
        stack=rng.choice(STACKS),
        sequence=rng.choice((128, 512, 1024)),
        micro_batch=micro_batch,
        batch=micro_batch * micro_batches * dp,
        tp=rng.choice((1, 1, 2, 4, 8)),
        pp=pp,
        dp=dp,
        zero=rng.choice((0, 1, 2, 3, 3)),
        offload=rng.choice(OFFLOAD),
        recompute=rng.choice(("none", "full")),
        schedule=rng.choice(SCHEDULES) if pp > 1 else None,
    )


def parts(f):
    """Seconds of each part that a forecast tells of one device."""
    return {
        "layers": sum(r.time_s for r in f.layers),
        "update": f.update_s,
        "bubble": f.bubble_fraction * f.step_time_s,
        "waiting for the host": f.waiting_for_host_s,
        "uneven stages": f.uneven_stages_s,
        "between steps": f.between_steps_s,
        **f.exposed_communication_s,
    }


@pytest.mark.parametrize("seed", range(3))
def test_the_parts_of_a_step_over_several_devices_sum_to_it(seed):
    rng, told = random.Random(seed), 0
    for _ in range(DRAWS):
        asked = drawn(rng)
        try:
            f = forecast(asked)
        except BadInput:  # a layout that cannot be
            continue
        if f.devices > 1:
            found = parts(f)
            assert min(found.values()) >= 0.0, asked
            assert sum(found.values()) == pytest.approx(f.step_time_s, rel=1e-9), asked
            told += 1
    assert told > DRAWS // 3
