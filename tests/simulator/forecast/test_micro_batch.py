"""The micro-batch where none is given: the largest that fits with memory's own error."""

import pytest

from roofcast import hwdb, predict
from roofcast.simulator.forecast.rank import most_above

LLAMA = {"model": "llama-2-7b", "device": "a100-sxm4-80gb", "devices": 256, "zero": 3}


def said(f):
    """The assumption about the micro-batch."""
    (text,) = (text for text in f.assumptions if text.startswith("micro-batch"))
    return text


def test_a_micro_batch_that_does_not_fit_is_not_assumed():
    f = predict(**LLAMA, batch=1024)
    whole = predict(**LLAMA, batch=1024, micro_batch=4)
    assert whole.memory.fits is False and f.memory.fits
    assert f.layout.micro_batch == 2 and f.layout.micro_batches == 2
    words = "micro-batch of 2 samples (not given): the largest that fits even at"
    assert said(f) == f"{words} {most_above('train'):.2f} times its forecast memory"
    given = predict(**LLAMA, batch=1024, micro_batch=2)
    assert (given.step_time_s, given.memory) == (f.step_time_s, f.memory)


@pytest.mark.parametrize(
    "asked",
    [
        {**LLAMA, "batch": 256 * 12},
        {**LLAMA, "batch": 256 * 64, "precision": "amp-bf16"},
        {"model": "mixtral-8x7b", "device": "h100-sxm5", "devices": 64, "ep": 8, "zero": 1,
         "batch": 64 * 32},
        {"model": "t5-large", "device": "h100-sxm5", "devices": 8, "batch": 8 * 96},
        {"model": "resnet50", "device": "v100-sxm2-16gb", "devices": 4, "batch": 4 * 1024},
        {"model": "llama-3-8b", "device": "tpu-v4", "devices": 16, "tp": 4, "batch": 4 * 32,
         "recompute": "full"},
    ],
    ids=lambda asked: f"{asked['model']} of {asked['batch']}",
)  # fmt: skip
def test_the_default_is_the_largest_that_fits_with_the_error_of_measured_peaks(asked):
    """It fits; twice as many samples would not, unless they are not a part of a rank's batch."""
    f = predict(**asked)
    each, micro = f.layout.micro_batch * f.layout.micro_batches, f.layout.micro_batch
    most = f.memory.capacity_bytes / most_above("train")
    assert micro < each and each % micro == 0 and micro & (micro - 1) == 0
    assert f.memory.peak_bytes <= most or micro == 1
    larger = 2 * micro if each % (2 * micro) == 0 else each
    assert predict(**asked, micro_batch=larger).memory.peak_bytes > most


def test_the_whole_batch_of_a_rank_is_the_default_where_it_fits():
    f = predict(model="gpt2", device="a100-sxm4-80gb", devices=8, batch=24)
    assert f.layout.micro_batch == 3 and said(f) == "micro-batch of 3 samples (not given)"


def test_a_pipeline_has_micro_batches_of_one_sample():
    f = predict(model="gpt2", device="a100-sxm4-80gb", pp=2, batch=24)
    assert f.layout.micro_batch == 1 and said(f) == "micro-batch of 1 sample (not given)"


def test_where_nothing_fits_the_default_is_one_sample_and_says_so():
    f = predict(model="opt-175b", device="a100-sxm4-80gb", devices=8, batch=32)
    assert f.layout.micro_batch == 1 and f.memory.fits is False
    assert "no larger one fits" in said(f)


def test_without_a_known_capacity_the_default_is_the_whole_batch():
    name = next(n for n in hwdb.devices() if hwdb.device(n).memory.capacity is None)
    f = predict(model="gpt2", device=name, devices=2, batch=64)
    assert f.layout.micro_batch == 32
